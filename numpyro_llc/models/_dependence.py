"""Which arguments of a traced function its results depend on."""

from collections.abc import Callable, Mapping

import jax

Names = frozenset[str]


def depends(
    function: Callable, arguments: Mapping[str, jax.Array | jax.ShapeDtypeStruct]
) -> dict[str, Names]:
    """For each result of `function`, by name, the names of the arguments that it is computed from.

    What a loop, a branch or a call inside computes depends on all that goes into it.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(dict(arguments))
    jaxpr, nothing = closed.jaxpr, frozenset[str]()
    # JAX sorts the entries of a dict.
    origins = {id(v): frozenset({k}) for v, k in zip(jaxpr.invars, sorted(arguments), strict=True)}
    for equation in jaxpr.eqns:
        own = nothing.union(*(origins.get(id(variable), nothing) for variable in equation.invars))
        origins |= {id(variable): own for variable in equation.outvars}
    results = iter(jaxpr.outvars)
    return {
        name: nothing.union(
            *(origins.get(id(next(results)), nothing) for _ in jax.tree.leaves(shapes[name]))
        )
        for name in sorted(shapes)
    }
