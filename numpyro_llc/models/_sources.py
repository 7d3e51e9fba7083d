"""Arguments that stay on the host or on disk: their rows are read as they are needed.

In compiled code such an argument is a :class:`Source`, a number that names it in this process, and
rows of it are what a callback reads. What is read next is read ahead, while the device works.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc.errors import DataError
from numpyro_llc.models._host_array import Form, HostArray, host_of
from numpyro_llc.models._types import PyTree

KEPT = 2
"""Reads of one shape that are kept: the last, which is asked for again after a draw, and the next.
"""
VALUES_BYTES = 2**26
"""Most bytes of the rows by which data are known again."""
_ATTRIBUTES = ("shape", "dtype", "ndim", "__getitem__")
_failures: list[DataError] = []


@jax.tree_util.register_pytree_node_class
class Source:
    """A :class:`HostArray` among a model's arrays: a pytree of its number alone.

    JAX keeps what is no leaf of a pytree as long as code that was compiled with it. That is the
    form, without the array.
    """

    def __init__(self, number: jax.Array, form: Form, host: HostArray | None = None) -> None:
        self.number, self.form, self._host = number, form, host

    @classmethod
    def of(cls, array: PyTree, name: str) -> "Source":
        """The source of an array-like."""
        host = HostArray(array, name)
        return cls(jnp.asarray(host.number, jnp.int32), host.form, host)

    def tree_flatten(self) -> tuple[tuple[jax.Array], Form]:
        return (self.number,), self.form

    @classmethod
    def tree_unflatten(cls, form: Form, leaves: tuple[jax.Array]) -> "Source":
        return cls(*leaves, form)

    @property
    def host(self) -> HostArray:
        """What its number names; not in compiled code."""
        return self._host or host_of(int(self.number))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole."""
        return self.form.shape

    @property
    def dtype(self) -> np.dtype:
        """What JAX holds it as."""
        return self.form.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)


def is_source(leaf: PyTree) -> bool:
    """Whether an argument stays where it is: a memory map, or an array-like that is no array."""
    if isinstance(leaf, jax.Array | np.generic | jax.ShapeDtypeStruct | type):
        return False
    if isinstance(leaf, np.ndarray) and not isinstance(leaf, np.memmap):
        return False
    if type(leaf).__module__.split(".")[0] in ("pandas", "scipy", "xarray"):
        return False
    if not all(hasattr(leaf, name) for name in _ATTRIBUTES) or not leaf.ndim:
        return False
    return isinstance(leaf.dtype, np.dtype) and leaf.dtype.kind in "biufc"


def sources_of(arrays: Sequence[PyTree]) -> list[Source]:
    """Those of a model's arrays that are sources."""
    return [array for array in arrays if isinstance(array, Source)]


def shapes_of(arrays: Sequence[PyTree]) -> tuple[PyTree, ...]:
    """A model's arrays, with shapes and types in place of sources."""
    return tuple(
        jax.ShapeDtypeStruct(x.shape, x.dtype) if isinstance(x, Source) else x for x in arrays
    )


def stand_ins(arrays: Sequence[PyTree]) -> tuple[PyTree, ...]:
    """A model's arrays, with zeros in place of sources, for what does not depend on these.

    In compiled code alone, which does not make arrays that nothing depends on.
    """
    return tuple(jnp.zeros(x.shape, x.dtype) if isinstance(x, Source) else x for x in arrays)


def check_in_memory(
    arrays: Sequence[PyTree],
    what: str,
    remedy: str = "Pass np.asarray(...) of it, to hold it in memory.",
) -> None:
    """Refuse sources, for `what`."""
    if found := sources_of(arrays):
        form = found[0].form
        raise ValueError(
            f"{what} the whole of {form.name}, a {form.kind} of shape "
            f"{form.shape}, of which rows are read as they are needed. {remedy}"
        )


def fetched(
    sources: Sequence[Source], rows: jax.Array, upcoming: jax.Array | None = None
) -> tuple[jax.Array, ...]:
    """Rows of sources, ``[*rows.shape, ...]``, in compiled code; `upcoming` are read ahead."""
    if not sources:
        return ()
    shapes = [jax.ShapeDtypeStruct(rows.shape + x.shape[1:], x.dtype) for x in sources]
    numbers = jnp.stack([source.number for source in sources])
    upcoming = rows if upcoming is None else upcoming
    return tuple(
        jax.pure_callback(_answer, shapes, numbers, rows, upcoming, vmap_method="expand_dims")
    )


def _answer(numbers: jax.Array, rows: jax.Array, upcoming: jax.Array) -> list[np.ndarray]:
    """What the callback gives; under ``vmap`` each has axes in front, of length 1 or the same."""
    names, wanted, coming = (np.asarray(x) for x in (numbers, rows, upcoming))
    try:
        hosts = [host_of(number) for number in names.reshape(-1, names.shape[-1])[0].tolist()]
        found = read_ahead(hosts, wanted, coming)
    except DataError as error:
        _failures.append(error)
        raise
    depth = names.ndim - 1
    lead = np.broadcast_shapes(names.shape[:-1], wanted.shape[:depth], coming.shape[:depth])
    return [np.broadcast_to(x, lead + x.shape[depth:]) for x in found]


def read_ahead(
    hosts: Sequence[HostArray], rows: np.ndarray, upcoming: np.ndarray
) -> list[np.ndarray]:
    """The same rows of several arrays; `upcoming`, if others, are then read in the background."""
    first = hosts[0]
    with first.lock:
        reads = first.reads.setdefault(rows.shape, OrderedDict())
        key, coming = rows.tobytes(), upcoming.tobytes()
        mine = reads.pop(key, None)
        if mine is first.ahead:
            first.ahead = None
    if mine is None:  # by the one thread that reads ahead, for a stream has one order
        mine = first.reader.submit(read_all, hosts, rows)
    found: list[np.ndarray] = mine.result()  # a read that failed is not kept
    with first.lock:
        reads[key] = mine
        if coming not in reads:
            reads[coming] = first.ahead = first.reader.submit(read_all, hosts, upcoming)
        while len(reads) > KEPT:
            reads.popitem(last=False)
    return found


def read_all(hosts: Sequence[HostArray], rows: np.ndarray) -> list[np.ndarray]:
    """The same rows of several arrays."""
    return [host.rows(rows) for host in hosts]


@contextmanager
def reading_errors() -> Iterator[None]:
    """What went wrong where rows were read in compiled code, in place of what JAX makes of it."""
    _failures.clear()
    try:
        yield
    except Exception as error:  # of one kind here, of another where a later program waits for it
        if not _failures:
            raise
        raise _failures[0] from error
    finally:
        _failures.clear()


def values_at_rows(array: PyTree, count: int) -> PyTree:
    """Of a source its form and about `count` rows, evenly spaced; another array as it is.

    Fewer, if they have more than ``VALUES_BYTES``.
    """
    if not isinstance(array, Source):
        return array
    row_bytes = array.dtype.itemsize * array.size // array.shape[0]
    count = min(count, max(1, VALUES_BYTES // max(1, row_bytes)), array.shape[0])
    rows = np.linspace(0, array.shape[0] - 1, count).astype(int)
    return array.shape, str(array.dtype), array.host.rows(rows)
