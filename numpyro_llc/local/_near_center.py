"""The loss close to the centre, far inside of where the draws lie."""

import jax
import jax.numpy as jnp

from numpyro_llc.local._evaluation import EvaluationRows, excess_losses
from numpyro_llc.local._target import LocalTarget
from numpyro_llc.models import Parameters

SHARE = 1e-3
"""Of the way from the centre to a draw."""


def is_constant(target: LocalTarget, offsets: Parameters, rows: EvaluationRows | None) -> bool:
    """Whether the loss does not change at all from the centre to ``SHARE`` of the offsets.

    `offsets` ``[chain, ...]`` lead from the centre to draws. Told by slopes, which are products
    and exact where differences of losses are rounded away: at w^8 too they are not zero.
    """
    return not bool(_has_slope(target, offsets, rows))


@jax.jit
def _has_slope(target: LocalTarget, offsets: Parameters, rows: EvaluationRows | None) -> jax.Array:
    near = jax.tree.map(lambda c, leaf: c + SHARE * leaf, target.center, offsets)
    return jnp.any(excess_losses(target, near, rows, with_slope=True).slope != 0)
