"""A model's arguments, split into arrays (runtime) and everything else (compile time)."""

import hashlib
import inspect
import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import KeyPath, PyTreeDef

from numpyro_llc._checks import shown
from numpyro_llc.models._host import on_host
from numpyro_llc.models._leaves import named_leaves
from numpyro_llc.models._sources import Source, check_in_memory, is_source
from numpyro_llc.models._stream import Arguments, Stream, without_stream
from numpyro_llc.models._types import Arrays, PyTree


class _Array:
    """Stands where an array leaf was."""


@dataclass(frozen=True)
class Held:
    """An array that is structure, for the model reads its values; compared by value.

    The model gets it as it was given (`as_given`), or as a JAX array of known values.
    """

    digest: str
    value: np.ndarray = field(compare=False, repr=False)
    as_given: bool = True

    def array(self) -> np.ndarray | jax.Array:
        """What the model gets; a JAX array only under ``jax.ensure_compile_time_eval``."""
        return self.value if self.as_given else jnp.asarray(self.value)


@dataclass(frozen=True)
class StaticArguments:
    """The part of ``(args, kwargs)`` that is fixed when the model is compiled; hashable."""

    treedef: PyTreeDef
    leaves: tuple[Hashable, ...]

    def join(self, arrays: Sequence[PyTree]) -> tuple[tuple[object, ...], dict[str, object]]:
        """Put the arrays back; returns ``(args, kwargs)``."""
        remaining = iter(arrays)
        leaves = [
            next(remaining) if leaf is _Array else leaf.array() if isinstance(leaf, Held) else leaf
            for leaf in self.leaves
        ]
        return jax.tree.unflatten(self.treedef, leaves)

    def bound(self, function: Callable, arrays: Sequence[PyTree]) -> dict[str, object]:
        """The arguments under the names of the function's parameters, in their order."""
        args, kwargs = self.join(arrays)
        return dict(inspect.signature(function).bind(*args, **kwargs).arguments)

    def names(
        self, function: Callable, arrays: Sequence[jax.Array]
    ) -> dict[str, jax.Array | np.ndarray]:
        """All arrays under the names of the function's parameters (a path within, if nested).

        Without those that lie in files.
        """
        in_memory = [None if isinstance(array, Source) else array for array in arrays]
        named = named_leaves(self.bound(function, in_memory))
        return {k: leaf for k, leaf in named.items() if isinstance(leaf, jax.Array | np.ndarray)}

    @property
    def has_held(self) -> bool:
        """Whether any array is structure."""
        return any(isinstance(leaf, Held) for leaf in self.leaves)

    def held_names(self, function: Callable) -> list[str]:
        """Names of the arrays that are structure."""
        stand_ins = [leaf if isinstance(leaf, Held) else None for leaf in self.leaves]
        args, kwargs = jax.tree.unflatten(self.treedef, stand_ins)
        bound = inspect.signature(function).bind(*args, **kwargs).arguments
        return [name for name, leaf in named_leaves(bound).items() if isinstance(leaf, Held)]

    def as_given(self, args: Sequence[object], kwargs: Mapping[str, object] | None) -> list:
        """The runtime arrays of arguments of the same structure, as the user gave them."""
        leaves = jax.tree.leaves((tuple(args), dict(kwargs or {})))
        pairs = zip(self.leaves, leaves, strict=True)
        return [leaf for mine, leaf in pairs if mine is _Array]

    def arrays_of(self, args: Sequence[object], kwargs: Mapping[str, object] | None) -> Arrays:
        """The runtime arrays of arguments of the same structure."""
        given = self.as_given(args, kwargs)
        return tuple(
            Source.of(leaf, "data") if is_source(leaf) else jnp.asarray(leaf) for leaf in given
        )

    def holding(self, values: Mapping[int, object], *, as_given: bool) -> "StaticArguments":
        """The same with the runtime arrays at these places, counted from 0, as structure."""
        places = itertools.count()
        kept = [
            held(values[place], as_given=as_given)
            if leaf is _Array and (place := next(places)) in values
            else leaf
            for leaf in self.leaves
        ]
        return replace(self, leaves=tuple(kept))


def held(array: object, *, as_given: bool = True) -> Held:
    """An array as structure."""
    value = on_host(array)
    content = repr(value.tolist()).encode() if value.dtype == object else value.tobytes()
    header = f"{value.dtype} {value.shape} ".encode()
    given = as_given and not isinstance(array, jax.Array)
    return Held(hashlib.sha256(header + content).hexdigest(), value, given)


def split_arguments(
    args: Sequence[object], kwargs: Mapping[str, object] | None
) -> tuple[StaticArguments, Arrays]:
    """Split ``(args, kwargs)`` into a hashable part and its arrays.

    Arrays (JAX or NumPy, numeric or boolean) are data: they may change without compiling again.
    Python numbers, strings, arrays of strings and callables are structure: they may be used as
    shapes or in ``if``. Memory maps, and array-likes that are no arrays, become sources of rows.
    """
    check_no_stream(args, "What is computed here takes")
    if isinstance(args, str) or not isinstance(args, Sequence):
        raise TypeError(
            f"`model_args` must be a tuple; got {type(args).__name__}. "
            "Write model_args=(x,) for a model of one argument."
        )
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"`model_kwargs` must be a dict; got {type(kwargs).__name__}.")
    paths, treedef = jax.tree.flatten_with_path((tuple(args), dict(kwargs or {})))
    static: list[Hashable] = []
    arrays: list[PyTree] = []
    for path, leaf in paths:
        if isinstance(leaf, Stream):
            raise TypeError(
                f"{_where(path)} is a stream of batches, which stands in the place of all "
                "arguments with rows. Give it without a tuple around it: estimate_llc(rng_key, "
                "model, stream, ...)."
            )
        if is_source(leaf):
            static.append(_Array)
            arrays.append(Source.of(leaf, _where(path)))
        elif isinstance(leaf, jax.Array) or (isinstance(leaf, np.ndarray) and _is_data(path, leaf)):
            static.append(_Array)
            arrays.append(jnp.asarray(leaf))
        else:
            static.append(_structure_of(path, leaf))
    return StaticArguments(treedef, tuple(static)), tuple(arrays)


def check_given_in_memory(args: Arguments, kwargs: Mapping[str, object] | None, what: str) -> None:
    """Refuse arguments that are not held in memory, for `what`."""
    remedy = (
        "Pass np.asarray(...) of it, to hold it in memory; or sample by `estimate_llc` with a "
        "`batch_size`."
    )
    check_no_stream(args, what)
    paths, _ = jax.tree.flatten_with_path((tuple(without_stream(args)), dict(kwargs or {})))
    sources = [Source.of(leaf, _where(path)) for path, leaf in paths if is_source(leaf)]
    check_in_memory(sources, what, remedy)


def check_no_stream(args: object, what: str) -> None:
    """Refuse a stream of batches, for `what`."""
    if isinstance(args, Stream):
        raise ValueError(
            f"{what} all the data, and `model_args` is a stream of batches. Pass arrays, such as "
            "its `evaluation`; or call estimate_llc, sweep or llc_trajectory with a kernel that "
            "takes batches, such as 'sgnht', in this process."
        )


def check_model(model: object) -> Callable:
    """Return `model` if it is a callable that can key compiled code."""
    if not callable(model):
        raise TypeError(
            f"`model` must be a NumPyro model (a callable); got {shown(model)}. "
            "Of a result, give the model that it was made with."
        )
    try:
        hash(model)
    except TypeError:
        raise TypeError(
            f"`model` is a {type(model).__name__} that cannot be hashed. Give a function, or make "
            "the class hashable (a dataclass with eq=False or frozen=True)."
        ) from None
    return model


def _where(path: KeyPath) -> str:
    """The leaf as the user types it."""
    name = "model_args" if path[0].idx == 0 else "model_kwargs"
    return f"`{name}{jax.tree_util.keystr(path[1:])}`"


def _is_data(path: KeyPath, array: np.ndarray) -> bool:
    """Whether a NumPy array is one of numbers or truth values that JAX holds as they are."""
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{_where(path)} is a masked array, which JAX does not know. Pass array.filled(0.0) "
            "and array.mask, and use numpyro.handlers.mask; or drop the masked rows."
        )
    if not jnp.issubdtype(array.dtype, jnp.number) and array.dtype != bool:
        return False
    held_as = jax.dtypes.canonicalize_dtype(array.dtype)
    if array.dtype.kind in "iu" and array.dtype != held_as and array.size:
        limits, largest = np.iinfo(held_as), max(int(array.max()), -int(array.min()))
        if array.min() < limits.min or array.max() > limits.max:
            raise ValueError(
                f"{_where(path)} holds integers up to {largest}, too large for {held_as}. Give "
                "them as floats, number identifiers from 0, or enable 64 bits "
                "(jax.config.update('jax_enable_x64', True))."
            )
    return True


def _structure_of(path: KeyPath, leaf: object) -> Hashable:
    """What is not data, hashable: texts by value, plain values as they are."""
    if isinstance(leaf, np.ndarray):
        is_text = leaf.dtype.kind in "US" or all(isinstance(x, str) for x in leaf.flat)
        if is_text and leaf.size:
            return held(leaf)
        raise TypeError(
            f"{_where(path)} is an array of dtype {leaf.dtype}; it must hold numbers, truth values "
            "or texts. Convert it, for numbers with array.astype(float)."
        )
    try:
        hash(leaf)
    except TypeError:
        library = type(leaf).__module__.split(".")[0]
        what = f"{library} {type(leaf).__name__}" if library == "pandas" else type(leaf).__name__
        remedy = (
            "Pass its columns as arrays, as by table['x'].to_numpy()"
            if library == "pandas"
            else "Convert it with numpy.asarray(...) (numbers only)"
        )
        raise TypeError(
            f"{_where(path)} is a {what}, neither an array nor a plain value. {remedy}."
        ) from None
    return leaf
