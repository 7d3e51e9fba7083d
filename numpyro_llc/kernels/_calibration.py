"""Calibration: curvature and noise where the chains are, taken into running means."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from numpyro_llc.kernels._noise import CALIBRATING, chain_map, standard_noise, two_purposes
from numpyro_llc.kernels._tuning import Tuning, above_zero, by_chain
from numpyro_llc.local import (
    Anchor,
    LocalTarget,
    curvature_product,
    draw_batches,
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
FORGETTING = 3.0
"""A running mean looks back on a third of the calibrations so far: the start is soon forgotten."""
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


def calibration_point(
    target: LocalTarget, anchor: Anchor, keys: jax.Array, batch_size: int | None
) -> CalibrationPoint:
    """Draw the rows of a calibration, the same for all chains, by the keys of a step."""
    for_directions, for_rows = two_purposes(keys, CALIBRATING)
    rows = None
    if batch_size is not None:
        size = max(2 * target.num_shards, batch_size)
        rows = target.fetched(draw_batches(for_rows[0], target, POWER_ITERATIONS + 2, size))
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
        at = displaced(z, directions, point, is_far)
        use_anchor = is_far | uses_anchor(carry[1])
        return carry[1], calibrated(carry[1], at, directions, point, use_anchor)

    return jax.lax.fori_loop(0, jnp.where(first, 2, 1), turn, (tuning, tuning))


def calibrated(
    tuning: Tuning,
    z: Parameters,
    directions: Parameters,
    point: CalibrationPoint,
    use_anchor: jax.Array,
) -> Tuning:
    """Measure curvature and noise at `z`, and take them into the running means.

    The search for the direction of largest curvature begins with the `directions`.
    """
    gradient = potential_gradient(point.target, z, point.batch(0), point.anchor, use_anchor)
    square = square_norm(tuning.scaled(gradient))
    largest, change = _curvature(tuning, z, directions, point)
    noise, raw = _noise(tuning, z, point)
    seen = jnp.stack([largest, change, square, noise, raw]).mean(axis=1)
    means = jnp.stack(
        [
            tuning.curvature,
            tuning.curvature_change,
            tuning.typical_square,
            tuning.noise,
            tuning.raw_noise,
        ]
    )
    weight = 1.0 / jnp.clip(tuning.calibrations / FORGETTING, 1.0, MEMORY)
    new = jnp.unstack(jnp.where(jnp.isfinite(seen), means + weight * (seen - means), means))
    return tuning._replace(
        curvature=new[0],
        curvature_change=new[1],
        typical_square=new[2],
        noise=new[3],
        raw_noise=new[4],
        calibrations=tuning.calibrations + 1,
        gradients=tuning.gradients + 2 * POWER_ITERATIONS + 4,
    )


def _batch(rows: Rows, k: int | jax.Array) -> Rows:
    return jax.tree.map(lambda leaf: leaf[k], rows)


def _curvature(
    tuning: Tuning, z: Parameters, directions: Parameters, point: CalibrationPoint
) -> tuple[jax.Array, jax.Array]:
    """``|∇²U(z) v|`` of each chain, and ``|(∇²U(z) - ∇²U(z*)) v|²``; v by power iteration."""
    last = POWER_ITERATIONS - 1

    def product(k: int | jax.Array, at: Parameters, v: Parameters) -> Parameters:
        return tuning.scaled(curvature_product(point.target, at, tuning.scaled(v), point.batch(k)))

    v = _normalized(directions)
    v = jax.lax.fori_loop(0, last, lambda k, v: _normalized(product(1 + k, z, v)), v)

    def change(chain: tuple[Parameters, Parameters]) -> tuple[jax.Array, jax.Array]:
        z, v = (jax.tree.map(lambda leaf: leaf[None], part) for part in chain)
        both = jax.tree.map(lambda a, c: jnp.stack([a, c[None]]), z, point.target.center)
        # At the point and at the centre, on the same rows, by code that is compiled once.
        both = jax.lax.map(lambda at: product(1 + last, at, v), both)
        change = jax.tree.map(lambda leaf: leaf[0] - leaf[1], both)
        here = jax.tree.map(lambda leaf: leaf[0], both)
        return jnp.sqrt(square_norm(here))[0], square_norm(change)[0]

    return chain_map(change, (z, v))


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
    z: Parameters, directions: Parameters, point: CalibrationPoint, is_far: jax.Array
) -> Parameters:
    """Points around the start as far as the localizing Gaussian and the loss allow, or `z`."""
    target, rows = point.target, point.batch(0)
    wide = {name: jnp.maximum(gamma, 1.0) ** -0.5 for name, gamma in target.localization.items()}
    away = {
        name: jax.tree.map(partial(jnp.multiply, wide[name]), tree)
        for name, tree in directions.items()
    }
    size = sum(leaf[0].size for leaf in jax.tree.leaves(z))

    def at(scale: jax.Array) -> Parameters:
        return jax.tree.map(lambda a, x: a + scale * x, z, away)

    def too_high(scale: jax.Array) -> jax.Array:
        loss = jax.vmap(lambda one: target.tempered_loss(one, rows))(at(scale))
        rise = loss - target.tempered_loss(target.center, rows)
        rise += jax.vmap(target.penalty)(at(scale))
        highest = NATS_PER_PARAMETER * size + NATS_FREE
        return ~(jnp.mean(rise) <= highest) & (scale > 1e-9)

    def far() -> Parameters:
        return at(jax.lax.while_loop(too_high, lambda scale: STEP_BACK * scale, jnp.ones(())))

    return jax.lax.cond(is_far, far, lambda: z)


def _normalized(v: Parameters) -> Parameters:
    norm = above_zero(jnp.sqrt(square_norm(v)))
    return jax.tree.map(lambda leaf: leaf / by_chain(norm, leaf), v)
