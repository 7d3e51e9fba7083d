"""A folder of results that several processes make together."""

from collections.abc import Callable
from typing import Generic, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc.models import PyTree, on_host
from numpyro_llc.sampling._files import Arrays
from numpyro_llc.sampling._folder import Entry, Form, Numbers, RunFolder
from numpyro_llc.sampling._output import OutputFolder
from numpyro_llc.sampling._processes import Processes

F = TypeVar("F", bound=OutputFolder)
T = TypeVar("T")


class CommonFolder(Generic[F]):
    """A folder that the first process reads and writes, which tells the others.

    What it cannot read or write is an error of all of them. Each process makes the same calls.

    Parameters
    ----------
    opened : callable
        Opens the folder; called on the first process.
    processes : Processes
    """

    def __init__(self, opened: Callable[[], F], processes: Processes) -> None:
        self.processes = processes
        self.folder: F | None = None
        self.can_write = processes.of_first(lambda: self._open(opened))

    def _open(self, opened: Callable[[], F]) -> bool:
        self.folder = opened()
        return self.folder.can_write

    def of_first(self, function: Callable[[F], T]) -> T:
        """What ``function(folder)`` gives on the first process, or raises there, on all of them."""
        return self.processes.of_first(lambda: function(self._own))

    @property
    def _own(self) -> F:
        """Of the first process, which alone asks for it."""
        assert self.folder is not None
        return self.folder

    def check_writable(self) -> None:
        """Refuse a folder that can be read alone, before anything is computed for it."""
        if not self.can_write:
            self.of_first(lambda folder: folder.check_writable())

    def close(self) -> None:
        """Let others in."""
        if self.folder is not None:
            self.folder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class CommonRunFolder(CommonFolder[RunFolder]):
    """The folder of a run."""

    def load(self, like: PyTree) -> tuple[PyTree, Numbers, list[Entry]] | None:
        """State in the form of `like`, numbers that were saved with it, and all entries so far."""
        forms = list(map(_form, jax.tree.leaves(like)))
        found = self.of_first(lambda folder: folder.load(forms))
        if found is None:
            return None
        saved, numbers, entries = found
        leaves, structure = jax.tree.flatten(like)
        return jax.tree.unflatten(structure, map(_restored, leaves, saved)), numbers, entries

    def add(self, arrays: Arrays, steps: int) -> None:
        """Keep draws, a flat dict of arrays, for the next write."""
        if self.folder is not None:
            self.folder.add(arrays, steps)

    @property
    def is_due(self) -> bool:
        """Whether enough time has passed since the last write, as the first process sees it."""
        return self.folder is not None and self.folder.is_due

    def write(self, state: PyTree, numbers: Numbers) -> None:
        """Write the draws that are kept, then the state that they lead to."""
        leaves = list(map(on_host, jax.tree.leaves(state)))
        self.of_first(lambda folder: folder.write(leaves, numbers))

    def write_rest(self, state: PyTree, numbers: Numbers) -> None:
        """Write, if draws are left."""
        if self.of_first(lambda folder: bool(folder.pending)):
            self.write(state, numbers)


def _form(leaf: jax.Array) -> Form:
    """Shape and type of a leaf on the host, which is not brought there for it."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return leaf.shape, np.dtype(leaf.dtype)


def _restored(like: jax.Array, saved: np.ndarray) -> jax.Array:
    """A leaf as it was saved, where another lies."""
    is_key = jnp.issubdtype(like.dtype, jax.dtypes.prng_key)
    if like.is_fully_addressable and not is_key:
        return jax.device_put(saved, like.sharding)

    def put(data: jax.Array) -> jax.Array:
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(like)) if is_key else data

    # Not by `device_put`, for which NaN of one process is not that of another.
    return jax.jit(put, out_shardings=like.sharding)(saved)
