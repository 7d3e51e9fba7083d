"""``pointwise_losses``: the loss of each datum at each draw, never all at once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from numpyro.infer.initialization import init_to_uniform

from numpyro_llc._checks import check_positive
from numpyro_llc.inference_data import InferenceData, posterior, statistics, variable_name
from numpyro_llc.local import LocalizedModel
from numpyro_llc.models import (
    ModelReading,
    Parameters,
    Program,
    Truth,
    loss_function,
    named_leaves,
    read_model,
    reading_errors,
    row_loss_function,
    with_batches,
)
from numpyro_llc.results import RunReport, unconstrained_samples

MAX_MEMORY = 2**27
"""Bytes that a block and what is computed of it may take: 128 MiB."""
COPIES = 4
"""Arrays of a block's size that are held at once: losses, squares, two in ``logsumexp``."""
DRAWS_AT_ONCE = 32
"""Draws that are evaluated side by side, so that the memory of a model's own arrays is bounded."""
SAME_LOSS = 0.01
"""Relative difference of the losses of two draws that counts as none: rounding is far below."""
_ANYWHERE = init_to_uniform()

InAxes = Sequence[int | None] | Mapping[str, int | None] | None
"""As ``jax.vmap`` has them, for the arguments in order or by name."""


@dataclass(frozen=True, eq=False)
class PointwiseLosses:
    """``ℓ_i(z_t)`` of datum i at draw t, in blocks of data: iterate, or ask for rows.

    A datum is a row of the data: an index of the plate of the observed sites, all sites summed.

    Attributes
    ----------
    program : Program
    arrays : tuple of jax.Array
    positions : dict
        Unconstrained draws, leaves ``[chain * draw, ...]``.
    reference : dict
        The unconstrained point that losses are centred at: the centre, if it was given.
    is_center : bool
        Whether it was.
    truth : Truth or None
        What the losses are divergences from, with ``truth="center"``: those at the centre are 0.
    draws : xarray.Dataset
        The posterior group, with its attrs.
    shape : (int, int)
        Chains and draws.
    weights : array [row]
        How many data each row counts as: what ``handlers.scale`` on the observations says, else 1.
        NaN where parts of a row count differently. ``ℓ_i`` is of all of them.
    num_rows, block_rows : int
        Data, and data in a block.
    """

    program: Program
    arrays: tuple[jax.Array, ...]
    positions: Parameters
    reference: Parameters
    is_center: bool
    truth: Truth | None
    draws: xr.Dataset
    shape: tuple[int, int]
    weights: np.ndarray
    num_rows: int
    block_rows: int

    def of(self, rows: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """``ℓ_i(z_t) - ℓ_i(ref)`` ``[chain, draw, row]`` and ``ℓ_i(ref)`` ``[row]``, float64."""
        numbers_of = jnp.asarray(rows, int)
        with reading_errors():
            block = _block(
                self.program, self.positions, self.reference, self.arrays, self.truth, numbers_of
            )
            excess, reference = (np.asarray(part, np.float64) for part in block)
        chains_and_draws = (*self.shape, len(numbers_of))
        return (
            excess.reshape(chains_and_draws),
            reference,
        )

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Blocks: which rows, and what :meth:`of` gives of them."""
        for first in range(0, self.num_rows, self.block_rows):
            # The last block is filled up, so that it compiles nothing.
            rows = np.minimum(np.arange(first, first + self.block_rows), self.num_rows - 1)
            excess, reference = self.of(rows)
            last = min(first + self.block_rows, self.num_rows)
            yield slice(first, last), excess[..., : last - first], reference[: last - first]

    @property
    def inverse_temperature(self) -> float:
        """β of the draws; 1 of an ordinary posterior."""
        return float(self.draws.attrs.get("inverse_temperature", 1.0))

    def localization(self) -> dict[str, float]:
        """γ by site; an error for an ordinary posterior."""
        gamma = RunReport.from_attrs(self.draws.attrs).localization
        if gamma is None:
            raise ValueError("These draws are not localized: they have no `localization`.")
        if isinstance(gamma, dict):
            return gamma
        return dict.fromkeys(self.program.parameters, float(gamma))


def pointwise_losses(
    idata: InferenceData,
    model: LocalizedModel | Callable,
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
    *,
    in_axes: InAxes = None,
    max_memory: float = MAX_MEMORY,
) -> PointwiseLosses:
    """Losses of each datum at each draw of a result, evaluated when they are asked for.

    Parameters
    ----------
    idata
        A result of :func:`~numpyro_llc.estimate_llc` with all sites (``store_sites=True`` for the
        stochastic-gradient kernels), or the posterior of the model itself, as
        ``arviz.from_numpyro(mcmc)`` gives it.
    model : LocalizedModel or callable
        What :func:`~numpyro_llc.localize` returned, of the result. A plain model will do, for its
        own posterior or where no centre is needed, as :func:`susceptibilities` does.
    model_args, model_kwargs
        The data of the result.
    in_axes : sequence or dict, optional
        Which axis of each argument holds the rows, where that is in doubt.
    max_memory : float
        Bytes for a block: draws times data in it, a few times over. The whole of draws times data
        is never held. Where rows cannot be taken out of the model, each block costs an evaluation
        of all data.

    Returns
    -------
    PointwiseLosses

    Raises
    ------
    ValueError
        If a site is not stored, or the losses are not those that the result recorded.
    """
    check_positive("max_memory", max_memory, meaning="It is a number of bytes.")
    draws, is_center = posterior(idata), isinstance(model, LocalizedModel)
    if isinstance(model, LocalizedModel):
        reading = model.read(model_args, model_kwargs, in_axes)
    else:
        reading = read_model(model, model_args, model_kwargs, center={}, init_strategy=_ANYWHERE)
    z = unconstrained_samples(reading, _stored(reading, draws))
    shape = (draws.sizes["chain"], draws.sizes["draw"])
    z = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), z)
    program, num_rows = _with_rows(reading, in_axes)
    rows = int(max_memory // (8 * COPIES * shape[0] * shape[1]))
    losses = PointwiseLosses(
        program=program,
        arrays=reading.arrays,
        positions=z,
        reference=jax.tree.map(lambda leaf: leaf[0], z) if not is_center else reading.center,
        is_center=is_center,
        truth=_truth(model, replace(reading, program=program)),
        draws=draws,
        shape=shape,
        weights=_weights_of_rows(reading, program, num_rows),
        num_rows=num_rows,
        block_rows=int(np.clip(rows, 1, num_rows)),
    )
    _check_recorded(losses, statistics(idata))
    return losses


def _truth(model: LocalizedModel | Callable, reading: ModelReading) -> Truth | None:
    return model.truth_of(reading) if isinstance(model, LocalizedModel) else None


def _stored(reading: ModelReading, draws: xr.Dataset) -> dict[str, np.ndarray]:
    """Samples ``[chain, draw, ...]`` by the model's names, of those that are stored."""
    names = {name: variable_name(name) for name in named_leaves(reading.center)}
    return {
        name: draws[stored].transpose("chain", "draw", ...).to_numpy()
        for name, stored in names.items()
        if stored in draws
    }


def _with_rows(reading: ModelReading, in_axes: InAxes) -> tuple[Program, int]:
    """A program whose rows can be taken out, or the program as it is; and how many data."""
    try:
        program = with_batches(reading, in_axes)
    except ValueError:
        if in_axes is not None or len(reading.center_losses) > 1:
            raise
        program = reading.program
    if program.batching is not None:
        return program, program.batching.num_rows
    return program, int(np.size(next(iter(reading.center_losses.values()))))


def _weights_of_rows(reading: ModelReading, program: Program, num_rows: int) -> np.ndarray:
    """How many data each row counts as; NaN where its losses differ in that."""
    axes = dict(program.batching.site_axes) if program.batching is not None else {}
    by_row = np.concatenate(
        [
            np.moveaxis(np.asarray(weights, np.float64), axes[name], 0).reshape(num_rows, -1)
            if axes
            else np.asarray(weights, np.float64).reshape(num_rows, 1)
            for name, weights in reading.data_weights.items()
        ],
        axis=1,
    )
    differ = np.ptp(by_row, axis=1) > 0
    return np.where(differ, np.nan, by_row[:, 0])


def _losses_of(
    program: Program, arrays: Sequence[jax.Array], truth: Truth | None, rows: jax.Array
) -> Callable[[Parameters], jax.Array]:
    """From z to the losses of `rows`."""
    if program.batching is not None:
        return row_loss_function(program, arrays, truth, rows)
    losses = loss_function(program, arrays, truth)

    def at(z: Parameters) -> jax.Array:
        (of_site,) = losses(z).values()
        return of_site.ravel()[rows]

    return at


@partial(jax.jit, static_argnums=0)
def _block(
    program: Program,
    z: Parameters,
    reference: Parameters,
    arrays: Sequence[jax.Array],
    truth: Truth | None,
    rows: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    losses = _losses_of(program, arrays, truth, rows)
    at_reference = losses(reference)

    def excess(one: Parameters) -> jax.Array:
        return losses(one) - at_reference

    return jax.lax.map(excess, z, batch_size=DRAWS_AT_ONCE), at_reference


def _check_recorded(losses: PointwiseLosses, recorded: xr.Dataset) -> None:
    """The difference of two draws' losses must be the one that the run recorded."""
    if "excess_loss" not in recorded or losses.draws.attrs.get("evaluation_error", 0.0):
        return
    wanted = recorded["excess_loss"].transpose("chain", "draw").to_numpy().reshape(-1)[[0, -1]]
    ends = jax.tree.map(lambda leaf: leaf[jnp.asarray([0, -1])], losses.positions)
    short = replace(losses, positions=ends, shape=(1, 2))
    got = sum(excess[0].sum(axis=1) for _, excess, _ in short)
    scale = 1.0 + np.abs(wanted).max()
    if not abs((got[1] - got[0]) - (wanted[1] - wanted[0])) < SAME_LOSS * scale:
        raise ValueError(
            f"The losses of this model and data differ by {got[1] - got[0]:.4g} nats between the "
            f"first and the last draw; the result recorded {wanted[1] - wanted[0]:.4g}. Give the "
            "model and the data that the result is of."
        )
