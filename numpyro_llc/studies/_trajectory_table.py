"""The rows of a trajectory, in memory and on disk."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jax.tree_util import PyTreeDef

from numpyro_llc.errors import CheckpointError
from numpyro_llc.models import on_host
from numpyro_llc.sampling import (
    CommonFolder,
    OutputFolder,
    Processes,
    damaged,
    read_arrays,
    write_arrays,
    write_bytes,
)
from numpyro_llc.studies._carry import Carried
from numpyro_llc.studies._rows import NUMBERS, TEXTS, Row, save

LINES = "trajectory.jsonl"
"""The checkpoints of a folder, one a line."""
BROKEN = ("failed", "diverged")
"""States of rows from which no chains are carried over."""
COLUMNS = (*NUMBERS, "carried", *TEXTS)
Checkpoint = dict[str, Any]
"""A checkpoint: its ``number`` and ``step``, the fingerprint of its ``center``, and its ``rows`` by
truth."""


class Place(NamedTuple):
    """Which checkpoint it is: its number, its step, and the fingerprint of its centre."""

    number: int
    step: float
    center: str


class TrajectoryTable:
    """Checkpoints as they come: ``trajectory.jsonl``, and what the next one starts from.

    They may come in any order. A kill loses those under way alone. With `is_stacked` the table has
    the truths along a dimension of their own.
    """

    def __init__(
        self,
        output: str | Path | None,
        settings: dict[str, object],
        truths: Sequence[str],
        is_stacked: bool,
        processes: Processes,
    ) -> None:
        self.output, self.truths, self.is_stacked = output, tuple(truths), is_stacked
        self.checkpoints: dict[int, Checkpoint] = {}
        self.marked: set[int] = set()
        self.known: dict[int, Checkpoint] = {}
        self.folder: CommonFolder[OutputFolder] | None = None
        if output is not None:
            opened = partial(OutputFolder, output, settings, what="trajectory")
            self.folder = CommonFolder(opened, processes)
            try:
                self.known = self.folder.of_first(lambda own: _read(own.path / LINES, self.truths))
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Let other processes in."""
        if self.folder is not None:
            self.folder.close()

    @property
    def _chains(self) -> str:
        """The file of the last checkpoint; the one before stays until its line is written."""
        return f"chains-{len(self.checkpoints) % 2}.npz"

    def recall(self, place: Place) -> bool:
        """Take a checkpoint from the folder, if it is there; its centre must be the same."""
        known = self.known.get(place.number)
        if known is None:
            if self.folder is not None:
                self.folder.check_writable()
            return False
        if known["center"] != place.center or known["step"] != place.step:
            raise CheckpointError(
                f"`output` {str(self.output)!r} holds another checkpoint {place.number} "
                f"(step {known['step']:g}) than `centers` now gives (step {place.step:g}). Choose "
                "another folder."
            )
        self.checkpoints[place.number] = known
        return True

    def carried(self, form: PyTreeDef) -> dict[str, Carried]:
        """Where the chains of the last checkpoint ended, of each truth whose row did not break.

        `form` is the pytree structure of the parameters.
        """
        if self.folder is None or not self.checkpoints:
            return {}
        rows = self.checkpoints[max(self.checkpoints)]["rows"]
        whole = [truth for truth, row in rows.items() if row["status"] not in BROKEN]
        if not whole:
            return {}
        count = len(self.checkpoints)

        def read(own: OutputFolder) -> dict[str, Carried]:
            path = own.path / self._chains
            arrays = read_arrays(path)
            try:
                if int(arrays["rows"]) != count:
                    raise ValueError(f"it is of row {int(arrays['rows'])}, not {count}")
                return {truth: _carried(arrays, truth, form) for truth in whole}
            except (KeyError, ValueError) as error:
                raise damaged(path, error) from error

        return self.folder.of_first(read)

    def add(
        self,
        place: Place,
        rows: Mapping[str, Row],
        carried: Mapping[str, Carried] | None = None,
    ) -> None:
        """Keep a checkpoint, and on disk the chains that the next one starts from."""
        self.checkpoints[place.number] = {**place._asdict(), "rows": dict(rows)}
        if self.folder is None:
            return
        arrays = {"rows": np.asarray(len(self.checkpoints))}
        for truth, chains in (carried or {}).items():
            leaves = map(on_host, jax.tree.leaves(chains.offsets))
            arrays |= {f"{truth} offsets {k}": leaf for k, leaf in enumerate(leaves)}
            arrays[f"{truth} highest"] = np.asarray(chains.highest)
        # What is known and was not recalled yet, behind a row that was missing, stays.
        both = sorted({**self.known, **self.checkpoints}.items())
        lines = "".join(json.dumps(one) + "\n" for k, one in both if k not in self.marked)

        def written(own: OutputFolder) -> None:
            if carried:
                write_arrays(own.path / self._chains, arrays)
            write_bytes(own.path / LINES, lines.encode())

        self.folder.of_first(written)

    def mark(self, place: Place, rows: Mapping[str, Row]) -> None:
        """Keep a checkpoint whose worker failed, but not on disk: the next call tries it again."""
        self.checkpoints[place.number] = {**place._asdict(), "rows": dict(rows)}
        self.marked.add(place.number)

    def table(self, attrs: dict[str, object]) -> xr.Dataset:
        """The rows so far, over ``checkpoint``, and ``truth`` if it is a dimension."""
        numbers = sorted(self.checkpoints)
        found = [self.checkpoints[k] for k in numbers]
        coords: dict[str, Any] = {
            "checkpoint": np.asarray(numbers),
            "step": ("checkpoint", np.asarray([one["step"] for one in found])),
        }
        columns: dict[str, Any] = {
            name: (
                ("checkpoint", "truth"),
                np.asarray(
                    [[one["rows"][k][name] for k in self.truths] for one in found],
                    _kind(name),
                ),
            )
            for name in COLUMNS
        }
        table = xr.Dataset(columns, {**coords, "truth": list(self.truths)}, attrs)
        return table if self.is_stacked else table.isel(truth=0, drop=True)

    def save(self, table: xr.Dataset) -> None:
        """Write ``trajectory.nc``; a folder that is complete may be read alone."""
        if self.folder is None:
            return
        if self.folder.can_write or len(self.checkpoints) > len(self.known):
            self.folder.of_first(lambda own: save(table, own.path / "trajectory.nc"))


def _carried(arrays: Mapping[str, np.ndarray], truth: str, form: PyTreeDef) -> Carried:
    offsets = [arrays[f"{truth} offsets {k}"] for k in range(form.num_leaves)]
    return Carried(jax.tree.unflatten(form, offsets), arrays[f"{truth} highest"])


def _read(path: Path, truths: Sequence[str]) -> dict[int, Checkpoint]:
    """The checkpoints of a file by number; the last may be cut short, and is then made again."""
    if not path.exists():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        for one in found:
            if missing := {"number", "step", "center", "rows"} - set(one):
                raise ValueError(f"a line lacks {min(missing)}")
            for truth in truths:
                if missing := set(COLUMNS) - set(one["rows"].get(truth, {})):
                    raise ValueError(f"a row lacks {min(missing)}")
    except (OSError, TypeError, ValueError, AttributeError) as error:
        raise damaged(path, error) from error
    return {one["number"]: one for one in found}


def _kind(name: str) -> type:
    return object if name in TEXTS else float
