"""The search for a minimum: L-BFGS from several starts, and where they end."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from numpyro_llc.errors import NonFiniteLossError
from numpyro_llc.models import Arrays, Losses, Parameters, Program, PyTree

TIE_NATS, TIE_SHARE = 1e-2, 1e-6
"""Two ends are one minimum if their objectives differ by less: in nats, and relative to the loss,
of which float32 tells no more."""
AS_LOW = 1e-4
"""Nats, by less than which ends that are equally good differ: a tenth of what one that has
converged may still gain."""
_LBFGS = tuple[Parameters, PyTree, jax.Array]
"""Where the search is: the point, the optimizer's state, and whether it moved last."""


class Minimum(NamedTuple):
    """Ends of the search that share one value of the objective.

    Attributes
    ----------
    excess : float
        The objective, less that of the best end, in nats.
    num_starts : int
        How many starts ended there.
    distance : float
        How far from the best end, in unconstrained space, the furthest of them lies. Where it is
        large at an excess of 0, the best value is that of several points: of a valley along which
        parameters trade, if the smallest eigenvalue is zero within rounding, or else of copies.
    """

    excess: float
    num_starts: int
    distance: float


@partial(jax.jit, static_argnums=(0, 1))
def minimize(program: Program, max_steps: int, starts: Parameters, arrays: Arrays) -> Parameters:
    """Where L-BFGS ends from each of the stacked `starts`."""
    optimizer = optax.lbfgs()

    def run(start: Parameters) -> Parameters:
        reference = program.losses(start, arrays)

        def objective(z: Parameters) -> jax.Array:
            losses = program.losses(z, arrays)
            return sum((jnp.sum(losses[k] - reference[k]) for k in losses), jnp.zeros(()))

        value_and_grad = optax.value_and_grad_from_state(objective)

        def going(carry: _LBFGS) -> jax.Array:
            _, state, moved = carry
            return (optax.tree.get(state, "count") < max_steps) & moved

        def step(carry: _LBFGS) -> _LBFGS:
            z, state, _ = carry
            value, gradient = value_and_grad(z, state=state)
            updates, state = optimizer.update(
                gradient, state, z, value=value, grad=gradient, value_fn=objective
            )
            new = optax.apply_updates(z, updates)
            moved = optax.tree.norm(optax.tree.sub(new, z)) > 0
            return new, state, moved

        return jax.lax.while_loop(going, step, (start, optimizer.init(start), jnp.array(True)))[0]

    return jax.vmap(run)(starts)


@partial(jax.jit, static_argnums=0)
def losses_at(program: Program, ends: Parameters, arrays: Arrays) -> Losses:
    """Losses of each datum at stacked points, one after the other."""
    return jax.lax.map(lambda z: program.losses(z, arrays), ends)


def best_of(losses: Losses, ends: Parameters) -> tuple[np.ndarray, int]:
    """The objective of each end, less that of the best and at least 0, and which is best.

    That is, of those as low as the lowest, the one nearest to zero in unconstrained space: not the
    one that gained a millionth of a nat on its way to an edge.
    """
    totals = [np.asarray(v, np.float64).reshape(len(v), -1).sum(axis=1) for v in losses.values()]
    objective = np.sum(totals, axis=0)
    if not np.any(np.isfinite(objective)):
        raise NonFiniteLossError(
            "Every start of `find_center` ended at a non-finite loss. Is each observation inside "
            "the support of its likelihood, and finite? (Labels of K classes run from 0 to K - 1.) "
            "If so, scale the data, give priors that can be sampled near it, or pass `init`."
        )
    objective = np.where(np.isfinite(objective), objective, np.nan)
    lowest = np.nanmin(objective)
    is_low = objective - lowest <= AS_LOW
    best = int(np.argmin(np.where(is_low, np.linalg.norm(_flat(ends), axis=1), np.inf)))
    return np.maximum(objective - objective[best], 0.0), best


def minima_of(excess: np.ndarray, distances: np.ndarray, loss: float) -> tuple[Minimum, ...]:
    """The different values that starts ended at, the best first; `loss` is the size of nL."""
    order = np.argsort(excess)[: np.isfinite(excess).sum()]  # NaN comes last
    tie = TIE_NATS + TIE_SHARE * abs(loss)
    groups = np.split(order, 1 + np.flatnonzero(np.diff(excess[order]) > tie))
    return tuple(
        Minimum(float(excess[group[0]]), len(group), float(distances[group].max()))
        for group in groups
    )


def distances_from(ends: Parameters, best: int) -> np.ndarray:
    """How far each of the stacked points lies from one of them."""
    flat = _flat(ends)
    found: np.ndarray = np.linalg.norm(flat - flat[best], axis=1)
    return found


def _flat(ends: Parameters) -> np.ndarray:
    """Stacked points as vectors, ``[start, d]``."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(ends)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)
