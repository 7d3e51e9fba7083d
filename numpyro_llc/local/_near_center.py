"""The loss close to the centre, far inside of where the draws lie."""

import jax
import jax.numpy as jnp

from numpyro_llc.local._evaluation import EvaluationRows, excess_losses
from numpyro_llc.local._target import LocalTarget
from numpyro_llc.models import Parameters

SHARE = 1e-3
"""Of the way from the centre to a draw."""


def is_constant(
    target: LocalTarget, offsets: Parameters, rows: EvaluationRows | None
) -> bool | None:
    """Whether the loss does not change at all from the centre to ``SHARE`` of the offsets.

    `offsets` ``[chain, ...]`` lead from the centre to draws. Told by slopes, which are products
    and exact where differences of losses are rounded away: at w^8 too they are not zero. None where
    the points cannot be told from the centre, as near a centre of 1000 in 32 bits.
    """
    has_slope, is_apart = _looked(target, offsets, rows)
    return not bool(has_slope) if is_apart else None


@jax.jit
def _looked(
    target: LocalTarget, offsets: Parameters, rows: EvaluationRows | None
) -> tuple[jax.Array, jax.Array]:
    """Whether any point near the centre has a slope, and whether all leaves of all moved."""
    near = jax.tree.map(lambda c, leaf: c + SHARE * leaf, target.center, offsets)
    moved = jax.tree.map(lambda point, c: jnp.linalg.norm(point - c), near, target.center)
    wanted = jax.tree.map(lambda leaf: SHARE * jnp.linalg.norm(leaf), offsets)
    apart = jax.tree.map(lambda one, other: one > 0.5 * other, moved, wanted)
    has_slope = jnp.any(excess_losses(target, near, rows, with_slope=True).slope != 0)
    return has_slope, jnp.all(jnp.stack(jax.tree.leaves(apart)))
