"""A model at numbers: what its centre and its data are worth, in one compiled function."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
from numpyro.distributions import biject_to, constraints
from numpyro.infer.initialization import init_to_uniform

from numpyro_llc.models import _center_rules, _data
from numpyro_llc.models._center_values import CenterValues
from numpyro_llc.models._plates import Batch
from numpyro_llc.models._program import Program, is_real, place, site_loss, support_of
from numpyro_llc.models._sources import stand_ins
from numpyro_llc.models._types import Arrays, Losses, Parameters, PyTree

UNIFORM = init_to_uniform()
"""Stands where a strategy is wanted and the centre is given."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "z",
        "losses",
        "weights",
        "observed",
        "counts",
        "bad_observations",
        "inside",
        "finite",
    ],
    meta_fields=["as_given"],
)
@dataclass(frozen=True)
class Measured:
    """Numbers of the centre and the data; `as_given` are sites whose `z` is what was given."""

    z: Parameters
    losses: Losses
    weights: Losses
    observed: dict[str, jax.Array]
    counts: dict[str, jax.Array]
    bad_observations: dict[str, jax.Array]
    inside: dict[str, jax.Array]
    finite: dict[str, jax.Array]
    as_given: tuple[str, ...]

    def sharing(self, given: Mapping[str, PyTree] | None) -> "Measured":
        """The same, with the arrays of `given` in place of their copies."""
        own = {
            name: jax.tree.unflatten(jax.tree.structure(self.z[name]), jax.tree.leaves(tree))
            for name, tree in (given or {}).items()
            if name in self.as_given
        }
        return replace(self, z={**self.z, **own})


@partial(jax.jit, static_argnums=(0, 1))
def measure(
    program: Program,
    init_strategy: Callable,
    given: Mapping[str, PyTree] | None,
    arrays: Sequence[jax.Array],
    seed: int | jax.Array,
    rows: Batch | None = None,
) -> Measured:
    """Everything about the centre and the data that takes numbers, in one compiled function.

    Of all rows of the data, or some.
    """
    answers = CenterValues(given, init_strategy)
    as_given = jax.tree.map(lambda leaf: leaf, dict(given or {}))  # models may change the dicts
    if rows is None:
        trace = program.trace(arrays, answers, seed)
        sites = {name: trace[name] for name in program.likelihood}
    else:
        batching = program.require_batching()
        trace = program.trace(batching.take(arrays, rows), answers, seed, batching.plates(rows))
        sites = {name: batching.unscaled(trace, name, len(rows)) for name in program.likelihood}
    values = {name: trace[name]["value"] for name in program.parameters}
    supports = {name: support_of(trace[name]) for name in program.parameters}
    z = {name: _unconstrain(name, values[name], supports[name]) for name in values}
    plain = program.plain(program.likelihood)
    losses = {name: site_loss(sites[name]) for name in plain}
    joint = program.marginal_losses(arrays, partial(place, z), program.likelihood, seed)
    weights = {name: _data.data_weights(sites[name]["scale"], losses[name]) for name in plain}
    counts = {name: _data.count_data(sites[name]) for name in plain}
    return Measured(
        z=z,
        losses=losses | joint,
        weights=weights | program.marginal_weights(trace, joint),
        observed={name: site["value"] for name, site in sites.items()},
        counts=counts | program.marginal_counts(trace),
        bad_observations={name: _data.count_bad(site) for name, site in sites.items()},
        inside={k: _center_rules.is_inside(values[k], z[k], supports[k]) for k in z},
        finite={k: _center_rules.all_finite(value) for k, value in values.items()},
        as_given=tuple(name for name in z if _is_same(z[name], as_given.get(name))),
    )


@partial(jax.jit, static_argnums=0)
def unconstrain_draws(program: Program, values: Mapping[str, PyTree], arrays: Arrays) -> Parameters:
    """Unconstrained parameters of constrained ones, leaves ``[chain, draw, ...]``."""
    arrays = stand_ins(arrays)

    def one(given: Mapping[str, PyTree]) -> Parameters:
        return measure(program, UNIFORM, given, arrays, 0).z

    return jax.lax.map(partial(jax.lax.map, one), values)


@partial(jax.jit, static_argnums=(0, 1))
def draw_starts(
    program: Program, init_strategy: Callable, arrays: Arrays, keys: jax.Array
) -> Parameters:
    """Unconstrained parameters that a NumPyro initialization strategy gives, one for each key."""
    return jax.lax.map(lambda key: measure(program, init_strategy, None, arrays, key).z, keys)


def _is_same(one: PyTree, other: PyTree) -> bool:
    """Whether two pytrees hold the very same arrays."""
    try:
        return all(jax.tree.leaves(jax.tree.map(operator.is_, one, other)))
    except ValueError:  # of other structures
        return False


def _unconstrain(name: str, value: PyTree, support: constraints.Constraint) -> PyTree:
    if is_real(support):
        return value
    if len(jax.tree.leaves(value)) != 1:
        raise ValueError(
            f"numpyro.param {name!r} is a pytree with a constraint; only arrays can have one."
        )
    return biject_to(support).inv(value)
