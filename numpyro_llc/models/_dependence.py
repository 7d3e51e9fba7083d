"""Which results of a traced function depend on its arguments."""

from collections.abc import Callable

import jax

from numpyro_llc.models._types import PyTree


def depends(function: Callable, argument: PyTree) -> PyTree:
    """A pytree like the result, of whether each leaf is computed from any of `argument`.

    What a loop, a branch or a call inside computes depends on all that goes into it.
    """
    form = []

    def flat(argument: PyTree) -> list[jax.Array]:
        leaves, treedef = jax.tree.flatten(function(argument))
        form.append(treedef)
        return leaves

    jaxpr = jax.make_jaxpr(flat)(argument).jaxpr
    reached = set(map(id, jaxpr.invars))
    for equation in jaxpr.eqns:
        if any(id(variable) in reached for variable in equation.invars):
            reached |= set(map(id, equation.outvars))
    return jax.tree.unflatten(form[0], [id(variable) in reached for variable in jaxpr.outvars])
