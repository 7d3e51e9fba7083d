"""Chains carried from one checkpoint to the next."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc.local import EvaluationRows, LocalTarget, excess_losses
from numpyro_llc.models import Parameters
from numpyro_llc.sampling import Draws, Run, last_offsets

MOST_RISE = 2.0
"""A chain is carried over if its potential is within this multiple of the highest so far, and one
nat: where the loss is as before, all are; where it is steeper, those far out are not."""


class Carried(NamedTuple):
    """Where the chains of a checkpoint ended.

    Attributes
    ----------
    offsets : dict
        ``z - z*`` of each chain, leaves ``[chain, ...]``.
    highest : scalar
        The largest potential of its draws.
    """

    offsets: Parameters
    highest: np.ndarray


def carried_from(run: Run, draws: Draws) -> Carried:
    """What the next checkpoint needs of a run that ended."""
    beta = float(run.target.inverse_temperature)
    potential = beta * draws.excess_loss + draws.statistics["penalty"]
    offsets = last_offsets(run.sampler, run.state, run.target.center)
    return Carried(offsets, np.asarray(np.max(potential), jnp.result_type(float)))


@jax.jit
def carry(
    target: LocalTarget, starts: Parameters, carried: Carried, rows: EvaluationRows | None
) -> tuple[Parameters, jax.Array]:
    """Starts of the chains at a new centre, and how many of them are carried over.

    A chain keeps its offset from the centre where its potential is then no more than twice the
    highest that the last checkpoint drew; else, as where the loss has become steeper, it starts as
    it would without a checkpoint before.
    """
    moved = jax.tree.map(jnp.add, target.center, carried.offsets)
    excess = excess_losses(target, moved, rows).excess
    potential = target.inverse_temperature * excess + jax.vmap(target.penalty)(moved)
    is_low = potential <= MOST_RISE * carried.highest + 1.0  # of a NaN it is not

    def choose(one: jax.Array, other: jax.Array) -> jax.Array:
        return jnp.where(is_low.reshape(-1, *[1] * (one.ndim - 1)), one, other)

    return jax.tree.map(choose, moved, starts), jnp.sum(is_low)
