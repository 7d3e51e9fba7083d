"""A model's arguments, split into arrays (runtime) and everything else (compile time)."""

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import KeyPath, PyTreeDef

from numpyro_llc.models._leaves import named_leaves
from numpyro_llc.models._types import Arrays


class _Array:
    """Stands where an array leaf was."""


@dataclass(frozen=True)
class StaticArguments:
    """The part of ``(args, kwargs)`` that is fixed when the model is compiled; hashable."""

    treedef: PyTreeDef
    leaves: tuple[Hashable, ...]

    def join(self, arrays: Sequence[jax.Array]) -> tuple[tuple[object, ...], dict[str, object]]:
        """Put the arrays back; returns ``(args, kwargs)``."""
        remaining = iter(arrays)
        leaves = [next(remaining) if leaf is _Array else leaf for leaf in self.leaves]
        return jax.tree.unflatten(self.treedef, leaves)

    def bound(self, function: Callable, arrays: Sequence[jax.Array]) -> dict[str, object]:
        """The arguments under the names of the function's parameters, in their order."""
        args, kwargs = self.join(arrays)
        return dict(inspect.signature(function).bind(*args, **kwargs).arguments)

    def names(self, function: Callable, arrays: Sequence[jax.Array]) -> dict[str, jax.Array]:
        """The arrays under the names of the function's parameters (a path within, if nested)."""
        named = named_leaves(self.bound(function, arrays))
        return {k: leaf for k, leaf in named.items() if any(leaf is array for array in arrays)}


def split_arguments(
    args: Sequence[object], kwargs: Mapping[str, object] | None
) -> tuple[StaticArguments, Arrays]:
    """Split ``(args, kwargs)`` into a hashable part and its arrays.

    Arrays (JAX or NumPy, numeric or boolean) are data: they may change without compiling again.
    Python numbers, strings and callables are structure: they may be used as shapes or in ``if``.
    """
    if isinstance(args, str) or not isinstance(args, Sequence):
        raise TypeError(
            f"`model_args` must be a tuple; got {type(args).__name__}. "
            "Write model_args=(x,) for a model of one argument."
        )
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"`model_kwargs` must be a dict; got {type(kwargs).__name__}.")
    paths, treedef = jax.tree.flatten_with_path((tuple(args), dict(kwargs or {})))
    static: list[Hashable] = []
    arrays: list[jax.Array] = []
    for path, leaf in paths:
        if isinstance(leaf, jax.Array) or (
            isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc"
        ):
            static.append(_Array)
            arrays.append(jnp.asarray(leaf))
        else:
            static.append(_check_hashable(path, leaf))
    return StaticArguments(treedef, tuple(static)), tuple(arrays)


def check_model(model: object) -> Callable:
    """Return `model` if it is a callable that can key compiled code."""
    if not callable(model):
        raise TypeError(f"`model` must be a NumPyro model (a callable); got {model!r}.")
    try:
        hash(model)
    except TypeError:
        raise TypeError(
            f"`model` is a {type(model).__name__} that cannot be hashed. Give a function, or make "
            "the class hashable (a dataclass with eq=False or frozen=True)."
        ) from None
    return model


def _check_hashable(path: KeyPath, leaf: object) -> Hashable:
    try:
        hash(leaf)
    except TypeError:
        where = "model_args" if path[0].idx == 0 else "model_kwargs"
        raise TypeError(
            f"`{where}{jax.tree_util.keystr(path[1:])}` is a {type(leaf).__name__}, neither an "
            "array nor a plain value. Convert it with numpy.asarray(...) (numbers only)."
        ) from None
    return leaf
