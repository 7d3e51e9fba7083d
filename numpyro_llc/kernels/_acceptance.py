"""What acceptance a Metropolis test would give the steps of an unadjusted Langevin kernel."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from numpyro_llc.kernels._langevin import LangevinRule
from numpyro_llc.kernels._noise import HUGE
from numpyro_llc.kernels._sampler import Sampler
from numpyro_llc.kernels._stochastic import StochasticSampler
from numpyro_llc.kernels._tuning import Tuning
from numpyro_llc.local import EvaluationRows, LocalTarget
from numpyro_llc.models import Fields, Parameters, PyTree

PROPOSALS = 16
"""Proposals over all chains, about: enough to tell 0.8 from 0.95."""
_Look = tuple[jax.Array, jax.Array]
"""U at a raveled point, and ``G^½ ∇U`` there."""


def metropolis_report(
    sampler: Sampler,
    state: PyTree,
    target: LocalTarget,
    rows: EvaluationRows | None,
    rng_key: jax.Array,
) -> Fields:
    """``mala_acceptance`` of SGLD and PSGLD, from the last positions of the chains; else nothing.

    The mean of ``min(1, p(z') q(z|z') / (p(z) q(z'|z)))`` over proposals ``z' = z - ε/2 G ∇U +
    √ε G^½ ξ`` with the gradient of the full data (or of the evaluated `rows`): gradient noise has
    no part in it. Not of huge chains, where it would take longer than many steps.

    Parameters
    ----------
    state : StochasticState
        With one more leading axis, of blocks of chains.
    """
    rule = getattr(sampler, "rule", None)
    if not isinstance(sampler, StochasticSampler) or not isinstance(rule, LangevinRule):
        return {}
    if rule.temperature == 0 or target.dimension > HUGE:
        return {}
    value = float(_acceptance(target, rows, state.z, state.tuning, rng_key))
    return {"mala_acceptance": value} if jnp.isfinite(value) else {}


@jax.jit
def _acceptance(
    target: LocalTarget,
    rows: EvaluationRows | None,
    z: Parameters,
    tuning: Tuning,
    rng_key: jax.Array,
) -> jax.Array:
    blocks, chains = jax.tree.leaves(z)[0].shape[:2]
    count = -(-PROPOSALS // (blocks * chains))
    keys = jax.random.split(rng_key, (blocks, chains, 1 + count))

    def of_block(block: tuple[Parameters, Tuning, jax.Array]) -> jax.Array:
        z, tuning, keys = block

        def of_chain(chain: tuple[Parameters, jax.Array]) -> jax.Array:
            return _of_chain(target, rows, tuning, *chain)

        return jax.lax.map(of_chain, (z, keys))

    return jnp.mean(jax.lax.map(of_block, (z, tuning, keys)))


def _of_chain(
    target: LocalTarget, rows: EvaluationRows | None, tuning: Tuning, z: Parameters, keys: jax.Array
) -> jax.Array:
    """Acceptance of a proposal for each key but one from the position of one chain."""
    here, unravel = ravel_pytree(z)
    metric, step_size = tuning.metric, tuning.step_size
    root = jnp.ones_like(here) if metric is None else jnp.sqrt(ravel_pytree(metric)[0])

    def look(flat: jax.Array) -> _Look:
        potential, gradient = _potential_and_gradient(target, unravel(flat), rows)
        return potential, root * ravel_pytree(gradient)[0]

    def propose(start: _Look, at: tuple[jax.Array, jax.Array]) -> tuple[_Look, jax.Array]:
        (before, slope), (key, is_first) = start, at
        noise = jax.random.normal(key, here.shape, here.dtype)
        move = root * (jnp.sqrt(step_size) * noise - 0.5 * step_size * slope)
        after, back = look(here + jnp.where(is_first, 0.0, move))
        # The noise that would lead back is `moved - noise`.
        moved = 0.5 * jnp.sqrt(step_size) * (slope + back)
        log_ratio = before - after - 0.5 * jnp.sum(moved * (moved - 2.0 * noise))
        start = jax.tree.map(partial(jnp.where, is_first), (after, back), start)
        return start, jnp.exp(jnp.minimum(log_ratio, 0.0))

    # The first looks at the position itself: in the same loop, which then compiles one gradient.
    start = (jnp.zeros((), here.dtype), jnp.zeros_like(here))
    _, accepted = jax.lax.scan(propose, start, (keys, jnp.arange(len(keys)) == 0))
    return accepted[1:]


def _potential_and_gradient(
    target: LocalTarget, z: Parameters, rows: EvaluationRows | None
) -> tuple[jax.Array, Parameters]:
    """``U`` and its gradient, a slice of rows at a time."""
    if rows is None:
        return jax.value_and_grad(target.potential)(z)

    def tempered(z: Parameters, part: EvaluationRows) -> jax.Array:
        losses, at_center = map(target.row_loss_function(part.rows), (z, target.center))
        return target.inverse_temperature * ((losses - at_center) @ part.weights)

    def add(total: PyTree, part: EvaluationRows) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, jax.value_and_grad(tempered)(z, part)), None

    return jax.lax.scan(add, jax.value_and_grad(target.penalty)(z), rows)[0]
