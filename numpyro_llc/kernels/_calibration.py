"""Calibration: curvature and noise where the chains are, taken into running means."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from numpyro_llc.kernels._noise import (
    CALIBRATING,
    LARGE,
    in_turns,
    standard_noise,
    two_purposes,
    unpacked,
)
from numpyro_llc.kernels._tuning import FORGETTING, Tuning, above_zero, by_chain
from numpyro_llc.local import (
    Anchor,
    LocalTarget,
    chain_size,
    curvature_product,
    draw_batches,
    drawn,
    in_turn,
    noise_samples,
    part_of,
    potential_gradient,
    square_norm,
)
from numpyro_llc.models import Parameters, Rows

POWER_ITERATIONS = 4
"""Hessian-vector products by which the largest curvature is found at one point."""
MEMORY = 32
"""Number of calibrations that the running means of curvature and noise look back on."""
EARLY_STEPS, EARLY_PERIOD, WARMUP_PERIOD, PERIOD = 256, 8, 64, 1024
"""Steps between calibrations: at the start, later in the warm-up, and in sampling."""
LARGE_PERIOD = 32
"""In place of the first for large models, of which one calibration, a sum over many coordinates,
tells more, and takes as long as several steps."""
NATS_PER_PARAMETER, NATS_FREE = 2.0, 10.0
"""Points to calibrate at have a potential below this; the density's own mean is ½ a parameter."""
STEP_BACK = 0.7
"""By which a point whose potential is higher moves towards the chain."""


class CalibrationPoint(NamedTuple):
    """What a calibration depends on beside the position.

    Attributes
    ----------
    target : LocalTarget
    anchor : Anchor
    keys : array of keys [chain]
        Of the directions in which each chain looks.
    rows : Rows or None
        For the gradient, each Hessian-vector product, and the noise; leaves ``[batch, row, ...]``.
    batch_size : int or None
        Rows of a batch; the noise takes two rows of a shard at the least.
    """

    target: LocalTarget
    anchor: Anchor
    keys: jax.Array
    rows: Rows | None
    batch_size: int | None

    def batch(self, k: int | jax.Array) -> Rows | None:
        """Rows of batch `k`; None for the full data."""
        if self.rows is None or self.batch_size is None:
            return None
        last = self.batch_size // self.target.num_shards
        return part_of(self.target, _batch(self.rows, k), 0, last)


def calibration_period(i: jax.Array, warming: jax.Array, size: int) -> jax.Array:
    """Steps between calibrations at step `i`, of chains of `size` coordinates."""
    early = EARLY_PERIOD if size <= LARGE else LARGE_PERIOD
    return jnp.where(warming, jnp.where(i < EARLY_STEPS, early, WARMUP_PERIOD), PERIOD)


def calibration_point(
    target: LocalTarget, anchor: Anchor, keys: jax.Array, batch_size: int | None
) -> CalibrationPoint:
    """Draw the rows of a calibration, the same for all chains, by the keys of a step."""
    for_directions, for_rows = two_purposes(keys, CALIBRATING)
    rows = None
    if batch_size is not None:
        size = max(2 * target.num_shards, batch_size)
        rows = drawn(target, draw_batches(for_rows[0], target, POWER_ITERATIONS + 2, size))
    return CalibrationPoint(target, anchor, for_directions, rows, batch_size)


def calibrated_along(
    tuning: Tuning,
    z: Parameters,
    point: CalibrationPoint,
    uses_anchor: Callable[[Tuning], jax.Array],
    first: jax.Array,
) -> tuple[Tuning, Tuning]:
    """The tuning before and after one more calibration at `z`.

    The `first` time there is one before it at a point as far out as the chains will go: at a
    singular centre the curvature is 0. Both are turns of one loop, to be compiled once.
    """

    def turn(k: jax.Array, carry: tuple[Tuning, Tuning]) -> tuple[Tuning, Tuning]:
        is_far = first & (k == 0)
        directions = standard_noise(point.keys, z)
        reach = jax.lax.cond(is_far, lambda: farthest(z, directions, point), lambda: jnp.zeros(()))
        use_anchor = is_far | uses_anchor(carry[1])
        return carry[1], calibrated(carry[1], z, directions, point, use_anchor, reach)

    return jax.lax.fori_loop(0, jnp.where(first, 2, 1), turn, (tuning, tuning))


def calibrated(
    tuning: Tuning,
    z: Parameters,
    directions: jax.Array,
    point: CalibrationPoint,
    use_anchor: jax.Array,
    reach: float | jax.Array,
) -> Tuning:
    """Measure curvature and noise at :func:`displaced` points, and take them into running means.

    The search for the direction of largest curvature begins with the `directions`.
    """
    means = jnp.stack(
        [
            tuning.curvature,
            tuning.curvature_change,
            tuning.typical_square,
            tuning.noise,
            tuning.raw_noise,
        ]
    )

    def look(chains: tuple[Parameters, jax.Array]) -> jax.Array:
        def at() -> Parameters:
            return displaced(*chains, point.target, reach)

        def square() -> tuple[jax.Array, jax.Array]:
            rows = point.batch(0)
            gradient = potential_gradient(point.target, at(), rows, point.anchor, use_anchor)
            found = square_norm(tuning.scaled(gradient))
            return found, found

        # Each makes the point anew, which the first writes over.
        parts = (
            lambda: _curvature(tuning, at(), unpacked(chains[1], chains[0]), point),
            square,
            lambda: _noise(tuning, at(), point),
        )

        def part(k: jax.Array) -> jax.Array:
            return jax.lax.switch(k, [partial(_pair, of, means.dtype) for of in parts])

        # Each in a branch of its own, so that what one needs is not held for the next.
        return jnp.swapaxes(jax.lax.map(part, jnp.arange(len(parts))), 0, 1)

    found = in_turn(look, (z, directions), in_turns(chain_size(z))).mean(axis=0)
    seen = jnp.stack([*found[0], found[1, 0], *found[2]])
    weight = 1.0 / jnp.clip(tuning.calibrations / FORGETTING, 1.0, MEMORY)
    # Not the mean plus a share of the difference: far out, numbers may be 10⁸ times as large.
    mixed = (1.0 - weight) * means + weight * seen
    new = jnp.unstack(jnp.where(jnp.isfinite(seen), mixed, means))
    return tuning._replace(
        curvature=new[0],
        curvature_change=new[1],
        typical_square=new[2],
        noise=new[3],
        raw_noise=new[4],
        calibrations=tuning.calibrations + 1,
        gradients=tuning.gradients + 2 * POWER_ITERATIONS + 4,
    )


def _pair(of: Callable[[], tuple[jax.Array, jax.Array]], dtype: jnp.dtype) -> jax.Array:
    """Two numbers of each chain, ``[chain, 2]``."""
    return jnp.stack(of(), axis=-1).astype(dtype)


def _batch(rows: Rows, k: int | jax.Array) -> Rows:
    return jax.tree.map(lambda leaf: leaf[k], rows)


def _curvature(
    tuning: Tuning, z: Parameters, directions: Parameters, point: CalibrationPoint
) -> tuple[jax.Array, jax.Array]:
    """``|∇²U(z) v|`` of each chain, and ``|(∇²U(z) - ∇²U(z*)) v|²``; v by power iteration."""
    last = POWER_ITERATIONS - 1
    Carry = tuple[Parameters, Parameters, Parameters, jax.Array, jax.Array]

    def turn(k: jax.Array, carry: Carry) -> Carry:
        """A product at the point, or after the last of these at the centre on the same rows.

        Each leaf of a product is written over one of the carry at once: of `v`, which is for that
        divided by its length only afterwards, or at the end of `change`.
        """
        at, v, change, length, _ = carry
        at = jax.tree.map(lambda a, c: jnp.where(k > last, c, a), at, point.target.center)
        rows = point.batch(1 + jnp.minimum(k, last))
        product = tuning.scaled(curvature_product(point.target, at, tuning.scaled(v), rows))
        new = jax.tree.map(lambda b: b / by_chain(above_zero(length), b), product)
        largest = jnp.where(k > last, carry[-1], jnp.sqrt(square_norm(new)))
        change = jax.tree.map(lambda a, b: jnp.where(k > last, a - b, b), change, new)
        v = jax.tree.map(lambda a, b: jnp.where(k < last, b, a), v, new)
        return at, v, change, jnp.where(k < last, largest, length), largest

    length = jnp.sqrt(square_norm(directions))
    start = z, directions, jax.tree.map(jnp.zeros_like, directions), length, length
    _, _, change, _, largest = jax.lax.fori_loop(0, last + 2, turn, start)
    return largest, square_norm(change)


def _noise(tuning: Tuning, z: Parameters, point: CalibrationPoint) -> tuple[jax.Array, jax.Array]:
    """``tr V`` of a batch with and without control variates, ``[chain]``."""
    if point.rows is None or point.batch_size is None:
        nothing = jnp.zeros(jax.tree.leaves(z)[0].shape[0])
        return nothing, nothing
    shards = point.target.num_shards
    size = 2 * shards * max(1, point.batch_size // (2 * shards))
    share = size / point.batch_size
    noise, raw = (
        share * square_norm(tuning.scaled(sample))
        for sample in noise_samples(point.target, z, _batch(point.rows, -1))
    )
    return noise, raw


def displaced(
    z: Parameters, directions: jax.Array, target: LocalTarget, reach: float | jax.Array
) -> Parameters:
    """Points around `z`, `reach` times as far out as the localizing Gaussian, or 1, is wide."""
    wide = {name: jnp.maximum(gamma, 1.0) ** -0.5 for name, gamma in target.localization.items()}
    away = unpacked(directions, z)
    return {
        name: jax.tree.map(lambda a, x, w=wide[name]: a + reach * w * x, z[name], away[name])
        for name in z
    }


def farthest(z: Parameters, directions: jax.Array, point: CalibrationPoint) -> jax.Array:
    """How far out :func:`displaced` points may be for the loss, at most 1."""
    target, rows = point.target, point.batch(0)
    size = chain_size(z)

    def too_high(reach: jax.Array) -> jax.Array:
        def potential(chains: tuple[Parameters, jax.Array]) -> jax.Array:
            at = displaced(*chains, target, reach)
            return jax.vmap(lambda one: target.tempered_loss(one, rows) + target.penalty(one))(at)

        found = in_turn(potential, (z, directions), in_turns(size))
        rise = jnp.mean(found - target.tempered_loss(target.center, rows))
        return ~(rise <= NATS_PER_PARAMETER * size + NATS_FREE) & (reach > 1e-9)

    return jax.lax.while_loop(too_high, lambda reach: STEP_BACK * reach, jnp.ones(()))
