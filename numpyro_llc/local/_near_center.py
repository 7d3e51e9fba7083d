"""The loss close to the centre, far inside of where the draws lie."""

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc.local._evaluation import EvaluationRows, excess_losses
from numpyro_llc.local._target import LocalTarget
from numpyro_llc.models import Parameters, on_host

SHARES = (1e-3, 1e-2, 1e-1, 1.0)
"""Of the way from the centre to a draw."""
LOST = 1e-36
"""Slopes that may be too small for 32 bits."""


def is_constant_nearby(
    target: LocalTarget, offsets: Parameters, rows: EvaluationRows | None
) -> bool | None:
    """Whether the loss does not change at all from the centre to a thousandth of the offsets.

    `offsets` ``[chain, ...]`` lead from the centre to draws. Told by slopes, which are products,
    and not rounded away as differences of losses are. None where that is not known: the points
    cannot be told from the centre, as near a centre of 1000 in 32 bits; or the slope falls inward
    so fast that it may be too small a number, as of w^12.
    """
    slopes, is_apart = _slopes(target, offsets, rows)
    size = on_host(slopes).astype(np.float64)
    if not is_apart or not np.isfinite(size).all():
        return None
    if size[0] > 0.0 or not size.any():
        return not size.any()
    first = int(np.argmax(size > 0.0))
    is_lost = first < len(SHARES) - 1 and size[first] ** 2 / size[first + 1] < LOST
    return None if is_lost else True


@jax.jit
def _slopes(
    target: LocalTarget, offsets: Parameters, rows: EvaluationRows | None
) -> tuple[jax.Array, jax.Array]:
    """The largest slope of any chain at each of the ``SHARES``, and whether all leaves moved."""

    def at(share: jax.Array) -> tuple[jax.Array, jax.Array]:
        near = jax.tree.map(lambda c, leaf: c + share * leaf, target.center, offsets)
        moved = jax.tree.map(lambda point, c: jnp.linalg.norm(point - c), near, target.center)
        wanted = jax.tree.map(lambda leaf: share * jnp.linalg.norm(leaf), offsets)
        apart = jax.tree.map(lambda one, other: one >= 0.5 * other, moved, wanted)
        slope = excess_losses(target, near, rows, with_slope=True).slope
        return jnp.max(jnp.abs(slope)), jnp.all(jnp.stack(jax.tree.leaves(apart)))

    slopes, apart = jax.lax.map(at, jnp.asarray(SHARES))
    return slopes, jnp.all(apart)
