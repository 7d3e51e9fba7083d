"""The loss of chains, centred datum by datum, over the full data or a large fixed part of it."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc.local._derivatives import Function, Vector, value_and_slope
from numpyro_llc.local._shards import over_devices
from numpyro_llc.local._target import LocalTarget
from numpyro_llc.models import (
    DRAW_PARTS,
    Batch,
    Parameters,
    PyTree,
    Rows,
    ShardsOfRows,
    batch_on_host,
)

NUM_PARTS = 16
"""Least parts of a fixed batch, whose disagreement tells its error."""
NUM_CONTRASTS = 16
"""Random signings of the data, whose spread tells what another data set would give."""
CONTRAST_SEED = 0
"""The seed of the signs. No key of the user's: every draw of every chain, in every call, must have
the same signs, since λ̂'s data error is the covariance of a contrast with `llc` over draws."""


class EvaluationRows(NamedTuple):
    """Rows to evaluate, in slices, and weights that add up to all rows: ``[slices, rows]``."""

    rows: Rows
    weights: jax.Array


def all_rows(target: LocalTarget) -> EvaluationRows | None:
    """All rows of the data, in slices; None if rows cannot be taken out of the model."""
    if target.program.batching is None:
        return None
    # In NumPy: each of these operations would be compiled on its own.
    return EvaluationRows(*map(jnp.asarray, target.row_slices(np)))


def some_rows(target: LocalTarget, count: int, rng_key: jax.Array) -> EvaluationRows:
    """About `count` rows without repetition, as many of each shard.

    In ``NUM_PARTS`` slices, or a multiple of them where these would be too long.
    """
    places = target.program.require_batching().places
    parts = min(_num_parts(target, count), target.num_rows // places.count)
    shape = parts, max(1, count // (parts * places.count))
    chosen = _chosen(rng_key, places, shape)
    weights = jnp.full(chosen.shape, target.num_rows / chosen.size)
    return EvaluationRows(chosen, weights * places.weights(chosen) if places.is_padded else weights)


def shuffled_rows(target: LocalTarget, rng_key: jax.Array) -> EvaluationRows:
    """All rows, in parts drawn at random, of one length or one row less."""
    rows = np.asarray(_chosen(rng_key, ShardsOfRows(target.num_rows, 1), (1, target.num_rows)))[0]
    parts = np.array_split(rows, min(_num_parts(target, rows.size), rows.size))
    length = len(parts[0])
    padded = [np.pad(part, (0, length - len(part)), mode="edge") for part in parts]
    weights = [(np.arange(length) < len(part)).astype(float) for part in parts]
    return EvaluationRows(jnp.asarray(padded), jnp.asarray(weights, jnp.result_type(float)))


def _num_parts(target: LocalTarget, count: int) -> int:
    return NUM_PARTS * -(-count // (NUM_PARTS * target.slice_rows))


@partial(jax.jit, static_argnums=(1, 2))  # else each operation would be compiled on its own
def _chosen(rng_key: jax.Array, places: ShardsOfRows, shape: tuple[int, int]) -> jax.Array:
    """Places without repetition, ``[slices, rows]``, each slice with as many of each part."""
    size = shape[0] * shape[1]

    def of_part(key: jax.Array, part: jax.Array, length: jax.Array) -> jax.Array:
        order = jax.random.permutation(key, places.length)
        # A place that does not count, the last, gives way to the next that was not chosen.
        chosen = jnp.where(order[:size] < length, order[:size], order[size % places.length])
        return part * places.length + chosen.reshape(shape)

    keys = rng_key[None] if places.count == 1 else jax.random.split(rng_key, places.count)
    parts = jnp.arange(places.count), jnp.asarray(places.lengths)
    return jax.vmap(of_part, out_axes=1)(keys, *parts).reshape(shape[0], -1)


HELD_BYTES = 2**25
"""Of rows that lie elsewhere and are evaluated again and again, so much is held in memory."""
ROWS_ALWAYS_AFFORDABLE = 65_536
"""Up to this many rows the loss of a draw is evaluated on all of them."""


def rows_to_evaluate(target: LocalTarget, most: int, rng_key: jax.Array) -> EvaluationRows | None:
    """All rows if they are at most `most`, else about `most` of them."""
    rows = all_rows(target) if target.num_rows <= most else some_rows(target, most, rng_key)
    return None if rows is None else _held(target, rows)


def _held(target: LocalTarget, rows: EvaluationRows) -> EvaluationRows:
    """Rows that lie elsewhere with what they hold, which is read once, if it is not too much."""
    size = rows.weights.size * target.row_bytes
    if not target.is_elsewhere or size > HELD_BYTES:
        return rows
    return rows._replace(rows=batch_on_host(target.arrays, np.asarray(rows.rows)))


class OtherData(NamedTuple):
    """Other data on which the same draws are evaluated.

    Attributes
    ----------
    target : LocalTarget
        With that data, and the same centre.
    rows : EvaluationRows or None
    scale : scalar
        n over the number of those data, so that the loss counts n of them.
    """

    target: LocalTarget
    rows: EvaluationRows | None
    scale: jax.Array


class Evaluation(NamedTuple):
    """The loss of stacked points against that of the centre.

    Attributes
    ----------
    excess : array [chain]
        ``nL(z) - nL(z*)`` in nats.
    by_part : array [chain, part]
        The same by slices of the rows.
    contrasts : array [chain, NUM_CONTRASTS]
        ``Σ_i η_i [ℓ_i(z) - ℓ_i(z*)]`` with fixed random signs η: what one more data set would add.
    slope : array [chain]
        ``(z - z*)·∇nL(z)`` in nats; 0 where it was not asked for.
    by_draws : array [chain, DRAW_PARTS]
        `excess` by parts of the draws from the truth; ``[chain, 0]`` where losses take none.
    """

    excess: jax.Array
    by_part: jax.Array
    contrasts: jax.Array
    slope: jax.Array
    by_draws: jax.Array


def excess_losses(
    target: LocalTarget,
    z: Parameters,
    rows: EvaluationRows | None,
    *,
    with_slope: bool = False,
) -> Evaluation:
    """Evaluate the stacked points `z` on `rows`, or on the full data (None).

    The centre is evaluated beside the chains, on each device beside its own, by the same compiled
    code on the same rows, so that a chain that stands at the centre gives exactly 0, in every
    precision.
    """
    if rows is None:
        losses_at = target.loss_function(by_part=target.has_draws)
        shapes = jax.eval_shape(target.loss_function(), target.center)
        ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)
        losses, slope, by_draws = _less_center(target, losses_at, z, ones, with_slope)
        sites = [x.reshape(len(x), -1) for x in losses.values()]
        total = sum((x.sum(axis=1) for x in sites), jnp.zeros(()))
        contrasts = sum(map(_contrasts, sites), jnp.zeros(()))
        return Evaluation(total, total[:, None], contrasts, slope, by_draws)

    def one_slice(
        part: tuple[EvaluationRows, jax.Array | None, jax.Array],
    ) -> tuple[jax.Array, ...]:
        (numbers, weights), upcoming, slice_number = part
        here = target.fetched(numbers, upcoming)
        losses_at = target.row_loss_function(here, by_part=target.has_draws)
        excess, slope, by_draws = _less_center(target, losses_at, z, weights, with_slope)
        # A row that stands for w rows adds w times its variance, not w² times.
        contrasts = _contrasts(excess * jnp.sqrt(weights), slice_number)
        return excess @ weights, contrasts, slope, by_draws

    is_at_hand = isinstance(rows.rows, Batch) or not target.is_elsewhere
    upcoming = None if is_at_hand else jax.tree.map(lambda leaf: jnp.roll(leaf, -1, 0), rows.rows)
    slices = rows, upcoming, jnp.arange(len(rows.weights))
    by_slice, *others = jax.lax.map(one_slice, slices)
    return Evaluation(by_slice.sum(axis=0), by_slice.T, *(x.sum(axis=0) for x in others))


def _less_center(
    target: LocalTarget, losses: Function, z: Parameters, weights: Vector, with_slope: bool
) -> PyTree:
    """Losses of the chains, one after the other, less those of the centre; slope, by draws."""
    of_parts = jax.tree.map(partial(_by_part, target), weights)

    def one(point: Parameters) -> tuple[Vector, jax.Array, jax.Array]:
        if with_slope:
            offset = jax.tree.map(jnp.subtract, point, target.center)
            forward = target.program.has_forward_mode
            value, slope = value_and_slope(losses, point, offset, of_parts, forward=forward)
        else:
            value, slope = losses(point), jnp.zeros(())
        if not target.has_draws:
            return value, slope, jnp.zeros(0)
        mean = jax.tree.map(partial(jnp.mean, axis=0), value)
        return mean, slope, _total_by_part(value, weights)

    def of_some(z: Parameters) -> PyTree:
        chains = jax.tree.leaves(z)[0].shape[0]

        def turn(k: jax.Array) -> PyTree:
            """Chain `k`, or after the last the centre: no array of them all."""
            place = jnp.minimum(k, chains - 1)
            chain = jax.tree.map(partial(jnp.take, indices=place, axis=0, mode="clip"), z)
            point = jax.tree.map(lambda a, c: jnp.where(k < chains, a, c), chain, target.center)
            return one(point)

        return jax.tree.map(_less_last, jax.lax.map(turn, jnp.arange(chains + 1)))

    return over_devices(of_some, z)


OF_DRAWS = "excess_loss of draws "
"""What stands before the number of a part of the draws from the truth, among the statistics."""


def statistics_of_draws(found: Evaluation) -> dict[str, jax.Array]:
    """The loss of each chain by parts of the draws from the truth, ``[chain]`` each."""
    return {f"{OF_DRAWS}{k}": part for k, part in enumerate(jnp.moveaxis(found.by_draws, -1, 0))}


def _by_part(target: LocalTarget, weights: jax.Array) -> jax.Array:
    """Weights of losses by part of the draws, of which each counts alike."""
    if not target.has_draws:
        return weights
    return jnp.broadcast_to(weights / DRAW_PARTS, (DRAW_PARTS, *weights.shape))


def _total_by_part(losses: Vector, weights: Vector) -> jax.Array:
    """The weighted sum of each part, ``[DRAW_PARTS]``."""
    totals = jax.tree.map(
        lambda x, w: jnp.sum((x * w).reshape(DRAW_PARTS, -1), axis=1), losses, weights
    )
    return sum(jax.tree.leaves(totals), jnp.zeros(DRAW_PARTS))


def _contrasts(excess: jax.Array, slice_number: int | jax.Array = 0) -> jax.Array:
    """Sums over data, ``[chain, datum]``, with random signs that are the same at every call."""
    key = jax.random.key(CONTRAST_SEED + slice_number)
    bits = jax.random.bits(key, excess.shape[1:], jnp.uint16)

    def one(k: jax.Array) -> jax.Array:
        sign = 2.0 * ((bits >> k) & 1).astype(excess.dtype) - 1.0
        return excess @ sign

    return jax.lax.map(one, jnp.arange(NUM_CONTRASTS, dtype=jnp.uint16)).T


def _less_last(values: jax.Array) -> jax.Array:
    return values[:-1] - values[-1:]
