"""A run on disk: its settings, its draws as they come, and the state to go on from."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc.models import PyTree
from numpyro_llc.sampling._identity import check_same_settings

Entry = dict[str, np.ndarray]
"""Draws ``[chain, draw, ...]`` by name."""
Numbers = dict[str, float]
"""Of a run under way, truth values and counts among them."""

SHARE_OF_TIME = 0.05
"""The share of a run's time that writing may take, from the second write on."""


class RunFolder:
    """A folder: ``settings.json``, ``draws-0.npz``, ``draws-1.npz``, ... and ``state.npz``.

    ``state.npz`` is replaced as a whole after the draws that lead to it are written, and says how
    many files of draws count: a process killed at any moment leaves a consistent folder.

    Parameters
    ----------
    folder : path
    settings : dict
        What the draws depend on, by name. A folder that was begun with others is refused.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, object]) -> None:
        self.folder = check_same_settings(folder, settings, what="run", argument="output")
        self.num_files = 0
        self.pending: list[Entry] = []
        self.written, self.cost = time.perf_counter(), 0.0

    def load(self, like: PyTree) -> tuple[PyTree, Numbers, list[Entry]] | None:
        """State in the form of `like`, numbers that were saved with it, and all entries so far."""
        path = self.folder / "state.npz"
        if not path.exists():
            return None
        with np.load(path) as file:
            leaves = [file[f"leaf_{k}"] for k in range(len(jax.tree.leaves(like)))]
            numbers = json.loads(str(file["numbers"]))
        self.num_files = numbers.pop("num_files")
        state = jax.tree.map(_restored, like, jax.tree.unflatten(jax.tree.structure(like), leaves))
        entries: list[Entry] = []
        for k in range(self.num_files):
            with np.load(self._draws_path(k)) as file:
                entries += _unpacked(dict(file))
        return state, numbers, entries

    def add(self, entry: Entry) -> None:
        """Keep an entry of draws, a flat dict of arrays, for the next write."""
        self.pending.append(entry)

    @property
    def is_due(self) -> bool:
        """Whether enough time has passed since the last write."""
        return time.perf_counter() - self.written > self.cost / SHARE_OF_TIME

    def write(self, state: PyTree, numbers: Numbers) -> None:
        """Write the pending entries, then the state that they lead to."""
        began = time.perf_counter()
        if self.pending:
            write_arrays(self._draws_path(self.num_files), _packed(self.pending))
            self.num_files, self.pending = self.num_files + 1, []
        arrays = {f"leaf_{k}": _plain(leaf) for k, leaf in enumerate(jax.tree.leaves(state))}
        numbers = {**numbers, "num_files": self.num_files}
        write_arrays(
            self.folder / "state.npz", {**arrays, "numbers": np.asarray(json.dumps(numbers))}
        )
        self.written = time.perf_counter()
        self.cost = self.written - began

    def _draws_path(self, k: int) -> Path:
        return self.folder / f"draws-{k}.npz"


def write_arrays(path: Path, arrays: Entry) -> None:
    """Write a file of arrays; it is replaced as a whole: a kill leaves the old or the new."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _plain(leaf: np.ndarray | jax.Array) -> np.ndarray:
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def _restored(like: jax.Array, saved: np.ndarray) -> jax.Array:
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(saved), impl=jax.random.key_impl(like))
    return jax.device_put(saved, like.sharding)


def _packed(entries: list[Entry]) -> Entry:
    """Entries ``[chain, draw, ...]`` side by side, and how many draws each has."""
    joined = {name: np.concatenate([e[name] for e in entries], axis=1) for name in entries[0]}
    lengths = [next(iter(entry.values())).shape[1] for entry in entries]
    return {**joined, "lengths": np.asarray(lengths)}


def _unpacked(arrays: Entry) -> list[Entry]:
    ends = np.cumsum(arrays.pop("lengths"))[:-1]
    parts = {name: np.split(array, ends, axis=1) for name, array in arrays.items()}
    return [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]
