"""A run on disk: its settings, its draws as they come, and the state to go on from."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from numpyro_llc.errors import CheckpointError
from numpyro_llc.sampling._files import Arrays, damaged, read_arrays, write_arrays
from numpyro_llc.sampling._output import OutputFolder

Form = tuple[tuple[int, ...], np.dtype]
"""Shape and type of an array."""
Numbers = dict[str, float]
"""Of a run under way, truth values and counts among them."""

SHARE_OF_TIME = 0.05
"""The share of a run's time that writing may take, from the second write on."""
STATE = "state.npz"


class Entry(NamedTuple):
    """Draws that were made at once.

    Attributes
    ----------
    arrays : dict of str to array [chain, draw, ...]
    steps : int
        Steps of each chain that they took. Where there are no draws, these are a part of the next.
    """

    arrays: Arrays
    steps: int


class RunFolder(OutputFolder):
    """A folder: ``settings.json``, ``draws-0.npz``, ``draws-1.npz``, ... and ``state.npz``.

    ``state.npz`` is replaced as a whole after the draws that lead to it are written, and says how
    many files of draws count: a process killed at any moment leaves a consistent folder. Each file
    says after how many steps it begins, so that files of two processes are not taken for one run.

    Parameters
    ----------
    folder : path
    settings : dict
        What the draws depend on, by name. A folder that was begun with others is refused.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, object]) -> None:
        super().__init__(folder, settings, what="run")
        self.num_files, self.steps = 0, 0
        self.pending: list[Entry] = []
        self.written, self.cost = time.perf_counter(), 0.0
        self.mark = self._mark()

    def load(self, forms: list[Form]) -> tuple[list[np.ndarray], Numbers, list[Entry]] | None:
        """Leaves of a state of these forms, numbers saved with it, and all entries so far."""
        self.mark = self._mark()
        if self.mark is None:
            if self._draws_path(1).exists():  # a kill leaves one file without a state, not two
                read_arrays(self._state_path)  # which says that it is missing
            return None
        arrays = read_arrays(self._state_path)
        try:
            numbers: Numbers = json.loads(str(arrays.pop("numbers")))
            num_files, end = int(numbers.pop("num_files")), numbers.pop("steps")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise damaged(self._state_path, error) from error
        leaves = self._leaves_of(arrays, forms)
        entries: list[Entry] = []
        for k in range(num_files):
            first, found = self._draws(k)
            if first != self.steps:
                raise self._of_two(f"draws-{k}.npz begins", first)
            entries += found
            self.steps += sum(entry.steps for entry in found)
        if self.steps != end:
            raise self._of_two(f"{STATE} is", int(end))
        self.num_files = num_files
        return leaves, numbers, entries

    def add(self, arrays: Arrays, steps: int) -> None:
        """Keep draws, a flat dict of arrays, for the next write."""
        self.pending.append(Entry(arrays, steps))

    @property
    def is_due(self) -> bool:
        """Whether enough time has passed since the last write."""
        return time.perf_counter() - self.written > self.cost / SHARE_OF_TIME

    def write(self, leaves: list[np.ndarray], numbers: Numbers) -> None:
        """Write the pending entries, then the leaves of the state that they lead to."""
        began = time.perf_counter()
        if self._mark() != self.mark:
            raise CheckpointError(
                f"`output` {str(self.path)!r}: another process has written to it since this one "
                "began. End one of them."
            )
        if self.pending:
            write_arrays(self._draws_path(self.num_files), _packed(self.pending, self.steps))
            self.steps += sum(entry.steps for entry in self.pending)
            self.num_files, self.pending = self.num_files + 1, []
        arrays = {f"leaf_{k}": leaf for k, leaf in enumerate(leaves)}
        numbers = {**numbers, "num_files": self.num_files, "steps": self.steps}
        write_arrays(self._state_path, {**arrays, "numbers": np.asarray(json.dumps(numbers))})
        self.mark = self._mark()
        self.written = time.perf_counter()
        self.cost = self.written - began

    @property
    def _state_path(self) -> Path:
        return self.path / STATE

    def _draws_path(self, k: int) -> Path:
        return self.path / f"draws-{k}.npz"

    def _mark(self) -> tuple[int, ...] | None:
        """What tells the state on disk from a later one, or None if there is none."""
        try:
            found = self._state_path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _leaves_of(self, arrays: Arrays, forms: list[Form]) -> list[np.ndarray]:
        saved = [arrays.get(f"leaf_{k}", np.empty(0, object)) for k in range(len(forms))]
        if len(arrays) != len(forms) or [(one.shape, one.dtype) for one in saved] != forms:
            raise damaged(self._state_path, "it is of chains of another form")
        return saved

    def _draws(self, k: int) -> tuple[int, list[Entry]]:
        """After how many steps a file of draws begins, and its entries."""
        path = self._draws_path(k)
        arrays = read_arrays(path)
        try:
            return int(arrays.pop("first")), _unpacked(arrays)
        except (KeyError, ValueError, TypeError) as error:
            raise damaged(path, error) from error

    def _of_two(self, what: str, steps: int) -> CheckpointError:
        return CheckpointError(
            f"`output` {str(self.path)!r}: {what} at step {steps}, but the draws before it end at "
            f"step {self.steps}. Two processes have written to it, or a file is of another time. "
            "Choose another folder."
        )


def _packed(entries: list[Entry], first: int) -> Arrays:
    """Entries ``[chain, draw, ...]`` side by side, and the draws and steps of each."""
    parts = [entry.arrays for entry in entries if entry.arrays]
    names = parts[0] if parts else {}
    joined = {name: np.concatenate([one[name] for one in parts], axis=1) for name in names}
    numbers = {
        "lengths": np.asarray([_length(entry) for entry in entries]),
        "steps": np.asarray([entry.steps for entry in entries]),
        "first": np.asarray(first),
    }
    return {**numbers, **{_ARRAY + name: array for name, array in joined.items()}}


def _length(entry: Entry) -> int:
    return next(iter(entry.arrays.values())).shape[1] if entry.arrays else 0


_ARRAY = "array "


def _unpacked(arrays: Arrays) -> list[Entry]:
    lengths, steps = arrays["lengths"], arrays["steps"]
    ends = np.cumsum(lengths)[:-1]
    found: list[Arrays] = [{} for _ in lengths]
    for name, array in arrays.items():
        if name.startswith(_ARRAY):
            if array.shape[1] != lengths.sum():
                raise ValueError(f"{name} has {array.shape[1]} draws")
            for one, part in zip(found, np.split(array, ends, axis=1), strict=True):
                one[name.removeprefix(_ARRAY)] = part
    return [
        Entry(one if length else {}, int(count))
        for one, length, count in zip(found, lengths, steps, strict=True)
    ]
