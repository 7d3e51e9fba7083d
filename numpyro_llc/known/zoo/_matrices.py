"""The linear networks and factorizations of the zoo by name."""

from functools import partial

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

from numpyro_llc.known import exact
from numpyro_llc.known.zoo import _designed_data
from numpyro_llc.known.zoo._linear_networks import (
    coefficient_at,
    deep_linear_network,
    linear_network_at,
)
from numpyro_llc.known.zoo._problem import Problem
from numpyro_llc.known.zoo._registry import register


def _add(widths: tuple[int, ...], rank: int = 0) -> None:
    def build(num_data: int) -> Problem:
        return deep_linear_network(widths, rank, num_data=num_data)

    name = build(2).name.removesuffix("_rank_0")
    register(build, name=name)


for _widths in ((2, 2, 2), (2, 2, 3), (5, 2, 2), (3, 1, 3), (3, 3, 3, 3)):
    _add(_widths)
_add((2, 2, 2), 1)
_add((10, 10, 10, 10), 5)


@register
def linear_network_2_2_2_rank_1_unaligned(num_data: int) -> Problem:
    """Linear network 2-2-2 of rank 1 whose first layer has rank 2."""
    layers = [np.eye(2), np.diag([1.0, 0.0])]
    return linear_network_at(layers, num_data, coefficient_at(layers, 1))


@register
def linear_network_2_2_2_unaligned(num_data: int) -> Problem:
    """Linear network 2-2-2 of rank 0 whose first layer is the identity."""
    layers = [np.eye(2), np.zeros((2, 2))]
    return linear_network_at(layers, num_data, coefficient_at(layers, 0))


def factorization(entries: jax.Array, inner: int, weights: jax.Array) -> None:
    """Matrices ``U V`` with noise, U of `inner` columns."""
    left = _designed_data.coefficients("left", entries.shape[1], inner)
    right = _designed_data.coefficients("right", inner, entries.shape[2])
    with _designed_data.weighted_rows(weights):
        numpyro.sample("entries", dist.Normal(left @ right, 1.0).to_event(2), obs=entries)


@register
def matrix_factorization(num_data: int) -> Problem:
    """A 4 by 3 matrix as a product with inner width 2, truth 0: ½ |U V|²."""
    return Problem(
        model=factorization,
        model_args=(np.zeros((4, 4, 3)), 2, _designed_data.weights_of(np.ones(4), num_data)),
        center={"left": np.zeros((4, 2)), "right": np.zeros((2, 3))},
        num_data=num_data,
        learning_coefficient=exact.matrix_factorization(4, 2, 3),
        finite_n=partial(exact.rank_two_product, 3, 4, scale=0.5),
        source="Aoyagi and Watanabe (2005), Neural Networks 18, 924",
    )
