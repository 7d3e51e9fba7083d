"""Trained networks as they are, under the names that NumPyro gives their parameters.

``{"net": trained}`` stands for the param site ``net$params`` of ``flax_module`` and its sisters,
and for the sample sites ``net/Dense_0.kernel``, ... of ``random_flax_module`` and its sisters.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.tree_util import DictKey, KeyPath, keystr, tree_leaves_with_path

from numpyro_llc.models._types import Parameters, PyTree

PARAMS = "$params"
"""What NumPyro appends to the name of a module for the param site of its parameters."""


def module_leaf_name(path: KeyPath) -> str:
    """The name that ``random_*_module`` gives a leaf: of dicts ``a.b``, else as in the code."""
    if all(isinstance(key, DictKey) for key in path):
        return ".".join(str(key.key) for key in path)
    return keystr(path)[1:]


def pure_parameters(value: PyTree) -> PyTree:
    """The pytree of parameters of a trained module or of its state; anything else as it is."""
    libraries = {base.__module__.split(".")[0] for base in type(value).__mro__}
    if "equinox" in libraries:
        import equinox as eqx

        return eqx.filter(value, eqx.is_inexact_array)
    if "flax" in libraries:
        from flax import nnx

        if isinstance(value, nnx.Module):
            return nnx.to_pure_dict(nnx.state(value, nnx.Param))
        if isinstance(value, nnx.State):
            return nnx.to_pure_dict(nnx.filter_state(value, nnx.Param))
    if (
        isinstance(value, Mapping)
        and set(value) == {"params"}
        and isinstance(value["params"], Mapping)
    ):
        return value["params"]  # the variables of a Linen module
    return value


SPLIT = (
    "graph, params, rest = nnx.split(net, nnx.Param, ...), and give lambda p, x: "
    "nnx.merge(graph, p, rest)(x) with these params"
)
"""How an NNX module becomes a function of its parameters."""


def check_is_function(name: str, function: object) -> None:
    """Refuse a module of Flax where a function of parameters and inputs is wanted."""
    kinds = {base.__module__ for base in type(function).__mro__}
    if any(kind.startswith("flax.nnx") for kind in kinds):
        raise TypeError(
            f"`{name}` must be a function of (params, x); got the NNX module "
            f"{type(function).__name__}. After net.eval(), take it apart: {SPLIT}."
        )
    if any(kind.startswith("flax.linen") for kind in kinds):
        raise TypeError(
            f"`{name}` must be a function of (params, x); got the Linen module "
            f"{type(function).__name__}. Give its method, module.apply, with the variables."
        )


def called(name: str, function: Callable[..., PyTree], *args: PyTree) -> PyTree:
    """What a user's function returns; refused if its module changes state of its own."""
    try:
        return function(*args)
    except Exception as error:
        if type(error).__name__ != "TraceContextError":
            shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(args[1:])]
            error.add_note(
                f"`{name}` raised this of the parameters given and of arrays of shapes {shapes}. "
                "Call it so by itself: the parameters must be those of the same module (of Flax "
                "Linen with their level, {'params': ...}), and the inputs of the shape it takes."
            )
            raise
        raise TypeError(
            f"`{name}` changes the state of its NNX module, as dropout and batch norm do in "
            f"training mode: {error}. Call net.eval() before nnx.split(net, nnx.Param, ...)."
        ) from error


def plain_dicts(tree: PyTree) -> PyTree:
    """The same tree, its mappings (such as Flax's frozen ones) as dicts."""
    if isinstance(tree, Mapping):
        return {name: plain_dicts(part) for name, part in tree.items()}
    return tree


def _leaves(name: str, tree: PyTree) -> Parameters:
    """The leaves of a module's pytree by the sites of ``random_*_module``; none of an array."""
    paths = tree_leaves_with_path(tree)
    if name.endswith(PARAMS) or not paths or not paths[0][0]:
        return {}
    return {f"{name}/{module_leaf_name(path)}": leaf for path, leaf in paths}


def with_module_leaves(center: Mapping[str, PyTree]) -> Parameters:
    """The centre, and the leaves of each pytree in it also by the sites of a random module."""
    return {**center, **{k: v for name in center for k, v in _leaves(name, center[name]).items()}}


def as_array(value: PyTree) -> PyTree:
    """A list of arrays as one array: what a sample site takes, which no pytree can be."""
    return jnp.asarray(value) if isinstance(value, list | tuple) else value


def by_site(
    center: Mapping[str, PyTree], parameters: Sequence[str], latents: Sequence[str]
) -> Parameters:
    """The centre as given, each module of it replaced by the sites that it stands for.

    `parameters` are the sites of the model, `latents` those that are sample sites.
    """
    sites = set(parameters)
    resolved: Parameters = {}
    for name, tree in center.items():
        leaves, whole = _leaves(name, tree), name + PARAMS
        if name in sites or not (whole in sites or sites & leaves.keys()):
            resolved[name] = tree
        elif whole in sites:  # of leaves without a prior
            resolved |= {whole: tree, **{k: v for k, v in leaves.items() if k in sites}}
        else:
            resolved |= leaves
    return {name: as_array(v) if name in latents else v for name, v in resolved.items()}
