"""Deep linear networks ``y = W_L ... W_1 x`` with x of second moment identity and no noise."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

from numpyro_llc._checks import check_integer, check_truth
from numpyro_llc.known import exact
from numpyro_llc.known.exact.values import check_integers
from numpyro_llc.known.zoo import _designed_data
from numpyro_llc.known.zoo._layers import (
    Layers,
    detours,
    generator,
    product,
    random_layers,
    rank_of,
    straight,
)
from numpyro_llc.known.zoo._problem import FiniteN, Problem
from numpyro_llc.models import Fields

Known = tuple[exact.LearningCoefficient | None, str]
_AOYAGI = (
    "Aoyagi (2024), Consideration on the learning efficiency of multiple-layered neural networks"
)
_LOCAL = "Aoyagi and Watanabe (2005), Neural Networks 18, 924, smooth directions split off"
_SUBMERSION = "the product of the layers is a submersion there: half the number of its entries"


def linear_network(widths: Sequence[int], x: jax.Array, y: jax.Array, weights: jax.Array) -> None:
    """A deep linear network; its layers are the sites ``layer_1``, ``layer_2``, ..."""
    outputs = x
    for i, shape in enumerate(zip(widths[1:], widths[:-1], strict=True), start=1):
        outputs = outputs @ _designed_data.coefficients(f"layer_{i}", *shape).T
    with _designed_data.weighted_rows(weights):
        numpyro.sample("y", dist.Normal(outputs, 1.0).to_event(1), obs=y)


def linear_network_at(
    layers: Sequence[np.ndarray], num_data: int, known: Known, finite_n: FiniteN | None = None
) -> Problem:
    """The problem whose true map is the product of `layers`, at these layers."""
    widths = (layers[0].shape[1], *(layer.shape[0] for layer in layers))
    x = np.sqrt(widths[0]) * np.eye(widths[0])
    weights = _designed_data.weights_of(np.ones(len(x)), num_data)
    return Problem(
        model=linear_network,
        model_args=(widths, x, x @ product(layers).T, weights),
        center={f"layer_{i}": layer for i, layer in enumerate(layers, start=1)},
        num_data=num_data,
        learning_coefficient=known[0],
        finite_n=finite_n,
        source=known[1],
    )


def deep_linear_network(
    widths: Sequence[int],
    rank: int,
    *,
    num_data: int = 1000,
    seed: int | np.random.Generator = 0,
    aligned: bool = True,
) -> Problem:
    r"""A deep linear network at a random true point.

    The loss per datum is ``½ |W_L ... W_1 - W*|²``, with a true map W* of rank r: inputs have the
    identity as second moment and outputs no noise. The data are H_0 rows that count n / H_0 times
    each, so a gradient costs about (width)³ whatever n is.

    Parameters
    ----------
    widths : sequence of int
        H_0 (inputs), hidden widths, H_L (outputs); at least three.
    rank : int
        r of the true map, from 0 to the smallest width.
    num_data : int
        n.
    seed : int or numpy.random.Generator
        For singular values, uniform in [0.5, 1.5], and frames, uniformly random.
    aligned : bool
        True: every layer and every product of neighbours has rank r, where the published λ holds.
        False: layers have random ranks of at least r, by directions that lead from some layer to
        another but not from input to output. λ there is at least that of the aligned point. It is
        known for two layers, and where ``W_{L-1} ... W_1`` has rank H_0 or ``W_L ... W_2`` has
        rank H_L; elsewhere `learning_coefficient` is None.

    Returns
    -------
    Problem
        With a finite-n expectation if all layers are zero and either all hidden widths are 1, or
        there are two layers and a hidden width of 2.
    """
    widths = _check_widths(widths)
    rank = check_integer("rank", rank, minimum=0, meaning="It is the rank of the true map.")
    if rank > min(widths):
        raise ValueError(f"`rank` must be at most the smallest width, {min(widths)}; got {rank}.")
    check_truth("aligned", aligned)
    rng = generator("seed", seed)
    by_layer = straight(widths) if aligned else detours(rng, widths, rank)
    layers = random_layers(rng, widths, rank, by_layer)
    problem = linear_network_at(
        layers, num_data, coefficient_at(layers, rank), _finite_n(widths, layers)
    )
    return replace(problem, **_texts(widths, rank, aligned))


def _check_widths(widths: Sequence[int]) -> tuple[int, ...]:
    meaning = "It is the width of a layer."
    checked = check_integers("widths", widths, minimum=1, meaning=meaning)
    if len(checked) < 3:
        raise ValueError(
            f"`widths` must be those of the inputs, one hidden layer or more, and the outputs; got "
            f"{checked}."
        )
    return checked


def _texts(widths: Sequence[int], rank: int, aligned: bool) -> Fields:
    name = f"linear_network_{'_'.join(map(str, widths))}_rank_{rank}"
    description = f"deep linear network {'-'.join(map(str, widths))} of rank {rank}"
    if aligned:
        return {"name": name, "description": description}
    return {
        "name": f"{name}_unaligned",
        "description": f"{description} where layers may have other ranks",
    }


def coefficient_at(layers: Layers, rank: int) -> Known:
    """λ and m at these layers, whose product has rank `rank`, and where from; None if not known."""
    ranks = [rank_of([layer]) for layer in layers]
    inputs, outputs = layers[0].shape[1], layers[-1].shape[0]
    if len(layers) == 2:
        known = exact.reduced_rank_regression(
            inputs, len(layers[0]), outputs, rank, rank_first=ranks[0], rank_second=ranks[1]
        )
        return known, _LOCAL
    if set(ranks) == {rank}:
        widths = (inputs, *(len(layer) for layer in layers))
        return exact.deep_linear_network(widths, rank), _AOYAGI
    if rank_of(layers[:-1]) == inputs or rank_of(layers[1:]) == outputs:
        return exact.regular(inputs * outputs), _SUBMERSION
    return None, "not known: an unaligned point"


def _finite_n(widths: Sequence[int], layers: Layers) -> FiniteN | None:
    """The finite-n expectation at zero, where it is known."""
    hidden = set(widths[1:-1])
    if any(np.any(layer) for layer in layers):
        return None
    if hidden == {1}:
        sizes = [widths[0], *widths[1:-2], widths[-1]]
        return partial(exact.product_of_powers, [1] * len(layers), sizes=sizes, scale=0.5)
    if hidden == {2} and len(layers) == 2:
        return partial(exact.rank_two_product, widths[0], widths[-1], scale=0.5)
    return None
