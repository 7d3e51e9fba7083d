"""The folder of a run that several processes make together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc.models import PyTree, on_host
from numpyro_llc.sampling._files import Arrays
from numpyro_llc.sampling._folder import Entry, Form, Numbers, RunFolder
from numpyro_llc.sampling._processes import Processes


class CommonFolder:
    """The :class:`RunFolder` of a run: the first process reads and writes it, and tells the others.

    What it cannot read or write is an error of all of them. Each process makes the same calls.

    Parameters
    ----------
    folder, settings
        As of ``RunFolder``.
    processes : Processes
    """

    def __init__(
        self, folder: str | Path, settings: Mapping[str, object], processes: Processes
    ) -> None:
        self.processes = processes
        self.folder: RunFolder | None = None
        self.can_write = processes.of_first(lambda: self._open(folder, settings))

    def _open(self, folder: str | Path, settings: Mapping[str, object]) -> bool:
        self.folder = RunFolder(folder, settings)
        return self.folder.can_write

    @property
    def _own(self) -> RunFolder:
        """Of the first process, which alone asks for it."""
        assert self.folder is not None
        return self.folder

    def load(self, like: PyTree) -> tuple[PyTree, Numbers, list[Entry]] | None:
        """State in the form of `like`, numbers that were saved with it, and all entries so far."""
        forms = list(map(_form, jax.tree.leaves(like)))
        found = self.processes.of_first(lambda: self._own.load(forms))
        if found is None:
            return None
        saved, numbers, entries = found
        leaves, structure = jax.tree.flatten(like)
        return jax.tree.unflatten(structure, map(_restored, leaves, saved)), numbers, entries

    def check_writable(self) -> None:
        """Refuse a folder that can be read alone, before anything is computed for it."""
        if not self.can_write:
            self.processes.of_first(lambda: self._own.check_writable())

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
        self.processes.of_first(lambda: self._own.write(leaves, numbers))

    def write_rest(self, state: PyTree, numbers: Numbers) -> None:
        """Write, if draws are left."""
        if self.processes.of_first(lambda: self.folder is not None and bool(self.folder.pending)):
            self.write(state, numbers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if self.folder is not None:
            self.folder.close()


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
