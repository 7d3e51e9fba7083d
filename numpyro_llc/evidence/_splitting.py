"""Multilevel splitting: volumes of nested sublevel sets under a Gaussian."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from numpyro_llc.local import LocalTarget

MOST_HALVINGS = 60
"""Shrinkings of the arc of a move, after which the point stays: ``2⁻⁶⁰`` of it, below rounding."""
STEEPEST = 4.0
"""The most that a bound may fall from one level to the next: a small λ would have few levels."""


class Levels(NamedTuple):
    """Sublevel sets of the excess loss a datum, from wide to narrow.

    Attributes
    ----------
    epsilon : array [level]
        Their bounds, nats a datum.
    log_volume : array [replica, level]
        Log of the probability of ``L(z) - L(z*) <= epsilon`` under the Gaussian, by each replica.
    lowest : float
        The lowest excess that any point had, nats a datum.
    """

    epsilon: np.ndarray
    log_volume: np.ndarray
    lowest: float


def split(
    rng_key: jax.Array,
    target: LocalTarget,
    num_data: int,
    *,
    least: float,
    num_particles: int,
    num_replicas: int,
    num_moves: int,
    kept: float,
) -> Levels:
    """Descend from the Gaussian to ``epsilon = least``, keeping the lowest `kept` at each level.

    The bound of a level is the quantile over all replicas, or higher if that falls by more than
    ``STEEPEST``; the volume is each replica's own product of the shares below.
    """
    key, rng_key = jax.random.split(rng_key)
    size = ravel_pytree(target.center)[0].size
    points = jax.random.normal(key, (num_replicas, num_particles, size))
    excess = _evaluate(target, points) / num_data
    bounds: list[float] = []
    volumes = [np.zeros(num_replicas)]
    lowest = float(excess.min())
    while not bounds or bounds[-1] > least:
        steepest = bounds[-1] / STEEPEST if bounds else 0.0
        bound = max(float(np.quantile(np.asarray(excess, np.float64), kept)), steepest, least)
        share = np.mean(np.asarray(excess) <= bound, axis=1)
        if not np.all(share > 0) or (bounds and bound >= bounds[-1]):
            break
        bounds.append(bound)
        volumes.append(volumes[-1] + np.log(share))
        key, rng_key = jax.random.split(rng_key)
        points, raw = _refill(num_moves, key, target, points, excess, bound, num_data)
        excess = raw / num_data
        lowest = min(lowest, float(excess.min()))
    return Levels(np.asarray(bounds), np.stack(volumes[1:], axis=1), lowest)


def _point(target: LocalTarget, standard: jax.Array) -> jax.Array:
    """Excess loss, in nats, at a point given in units of the Gaussian's scale, from its centre."""
    center, unravel = ravel_pytree(target.center)
    scales = {
        name: jax.tree.map(lambda leaf, g=target.localization[name]: jnp.zeros_like(leaf) + g, z)
        for name, z in target.center.items()
    }
    return target.excess_loss(unravel(center + standard * ravel_pytree(scales)[0] ** -0.5))


@jax.jit
def _evaluate(target: LocalTarget, points: jax.Array) -> jax.Array:
    return _within(jax.vmap(jax.vmap(partial(_point, target)))(points))


def _within(excess: jax.Array) -> jax.Array:
    """A loss that is no number lies above every level."""
    return jnp.where(jnp.isnan(excess), jnp.inf, excess)


@partial(jax.jit, static_argnums=0)
def _refill(
    num_moves: int,
    rng_key: jax.Array,
    target: LocalTarget,
    points: jax.Array,
    excess: jax.Array,
    bound: float,
    num_data: int,
) -> tuple[jax.Array, jax.Array]:
    """Points above `bound` become copies of those below; then all move within the set."""

    def replica(key: jax.Array, own: jax.Array, values: jax.Array) -> tuple[jax.Array, jax.Array]:
        key_copy, key_move = jax.random.split(key)
        below = values <= bound
        chosen = jax.random.choice(key_copy, len(own), (len(own),), p=below / below.sum())
        places = jnp.where(below, jnp.arange(len(own)), chosen)
        keys = jax.random.split(key_move, len(own))
        move = partial(_move, num_moves, target, bound * num_data)
        return jax.vmap(move)(keys, own[places], values[places] * num_data)

    keys = jax.random.split(rng_key, len(points))
    return jax.vmap(replica)(keys, points, excess)


Arc = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]
"""Of a move under way: key, angle, the ends of the arc, point, its excess loss, shrinkings."""


def _move(
    num_moves: int,
    target: LocalTarget,
    bound: jax.Array | float,
    key: jax.Array,
    point: jax.Array,
    value: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Elliptical slice moves, which leave the Gaussian within the set as it is; nothing to tune."""

    def one(_: int, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        key, point, value = carry
        key, key_normal, key_angle, key_shrink = jax.random.split(key, 4)
        other = jax.random.normal(key_normal, point.shape)
        angle = jax.random.uniform(key_angle, maxval=2 * jnp.pi)

        def at(angle: jax.Array) -> tuple[jax.Array, jax.Array]:
            moved = jnp.cos(angle) * point + jnp.sin(angle) * other
            return moved, _within(_point(target, moved))

        def going(state: Arc) -> jax.Array:
            return (state[-2] > bound) & (state[-1] < MOST_HALVINGS)

        def shrink(state: Arc) -> Arc:
            key, angle, low, high, _, _, count = state
            low, high = jnp.where(angle < 0, angle, low), jnp.where(angle < 0, high, angle)
            key, key_angle = jax.random.split(key)
            angle = low + (high - low) * jax.random.uniform(key_angle)
            return key, angle, low, high, *at(angle), count + 1

        start: Arc = (key_shrink, angle, angle - 2 * jnp.pi, angle, *at(angle), jnp.zeros((), int))
        moved, new = jax.lax.while_loop(going, shrink, start)[4:6]
        stays = new > bound
        return key, jnp.where(stays, point, moved), jnp.where(stays, value, new)

    _, point, value = jax.lax.fori_loop(0, num_moves, one, (key, point, value))
    return point, value
