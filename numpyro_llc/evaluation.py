"""The loss of chains, centred datum by datum, over the full data or a large fixed part of it."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from numpyro_llc.gradients import row_slices
from numpyro_llc.models import Parameters
from numpyro_llc.target import LocalTarget

NUM_PARTS = 16
"""Parts of a fixed batch, whose disagreement tells its error."""


class EvaluationRows(NamedTuple):
    """Rows to evaluate, in slices, and weights that add up to all rows: ``[slices, rows]``."""

    rows: jax.Array
    weights: jax.Array


def all_rows(target: LocalTarget) -> EvaluationRows | None:
    """All rows of the data, in slices; None if rows cannot be taken out of the model."""
    if target.program.batching is None:
        return None
    return EvaluationRows(*row_slices(target, None))


def some_rows(target: LocalTarget, count: int, rng_key: jax.Array) -> EvaluationRows:
    """About `count` rows without repetition, in ``NUM_PARTS`` slices."""
    length = max(1, count // NUM_PARTS)
    chosen = jax.random.choice(rng_key, target.num_rows, (NUM_PARTS, length), replace=False)
    weight = target.num_rows / (NUM_PARTS * length)
    return EvaluationRows(chosen, jnp.full(chosen.shape, weight))


def excess_losses(
    target: LocalTarget, z: Parameters, rows: EvaluationRows | None
) -> tuple[jax.Array, jax.Array]:
    """``nL(z) - nL(z*)`` in nats of each of the stacked `z`, ``[chain]``, and by slice.

    The centre is evaluated beside the chains by the same compiled code on the same rows, so that a
    chain that stands at the centre gives exactly 0, in every precision.
    """
    points = jax.tree.map(lambda a, c: jnp.concatenate([a, c[None]]), z, target.center)
    if rows is None:
        losses = jax.lax.map(partial(target.program.losses, arrays=target.arrays), points)
        terms = [_less_last(x).reshape(len(x) - 1, -1).sum(axis=1) for x in losses.values()]
        total = sum(terms[1:], terms[0])
        return total, total[:, None]

    def one_slice(part: EvaluationRows) -> jax.Array:
        def losses_at(one: Parameters) -> jax.Array:
            return target.program.row_losses(one, target.arrays, part.rows)

        return _less_last(jax.lax.map(losses_at, points)) @ part.weights

    by_slice = jax.lax.map(one_slice, rows)
    return jnp.sum(by_slice, axis=0), by_slice.T


def _less_last(values: Any) -> jax.Array:
    return values[:-1] - values[-1:]
