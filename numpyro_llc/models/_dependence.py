"""Which results of a traced function depend on its arguments."""

from collections.abc import Callable

import jax

from numpyro_llc.models._types import PyTree


def sources(function: Callable, argument: dict[str, PyTree]) -> dict[str, frozenset[str]]:
    """For each entry of the result the entries of `argument` that it is computed from.

    What a loop, a branch or a call inside computes depends on all that goes into it.
    """
    form = []

    def flat(argument: dict[str, PyTree]) -> list[jax.Array]:
        result = function(argument)
        form.append([name for name in result for _ in jax.tree.leaves(result[name])])
        return [leaf for tree in result.values() for leaf in jax.tree.leaves(tree)]

    jaxpr = jax.make_jaxpr(flat)(argument).jaxpr
    names = [name for name in sorted(argument) for _ in jax.tree.leaves(argument[name])]
    reached = {id(v): frozenset({name}) for v, name in zip(jaxpr.invars, names, strict=True)}
    nothing: frozenset[str] = frozenset()
    for equation in jaxpr.eqns:
        into = nothing.union(*(reached.get(id(variable), nothing) for variable in equation.invars))
        reached |= {id(variable): into for variable in equation.outvars}
    found: dict[str, frozenset[str]] = {}
    for name, variable in zip(form[0], jaxpr.outvars, strict=True):
        found[name] = found.get(name, nothing) | reached.get(id(variable), nothing)
    return found
