"""The rows of a trajectory, in memory and on disk."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.tree_util import PyTreeDef

from numpyro_llc.errors import CheckpointError
from numpyro_llc.models import PyTree
from numpyro_llc.sampling import (
    OutputFolder,
    damaged,
    fingerprint,
    read_arrays,
    write_arrays,
    write_bytes,
)
from numpyro_llc.studies._carry import Carried
from numpyro_llc.studies._rows import NUMBERS, TEXTS, Row, save

BROKEN = ("failed", "diverged")
"""States of rows from which no chains are carried over."""
COLUMNS = (*NUMBERS, "carried", "step", *TEXTS)


class TrajectoryTable:
    """Rows as they come: ``trajectory.jsonl``, and what the next checkpoint starts from.

    A kill loses the checkpoint under way alone.
    """

    def __init__(self, output: str | Path | None, settings: dict[str, object]) -> None:
        self.rows: list[Row] = []
        self.known: list[Row] = []
        self.folder: OutputFolder | None = None
        if output is not None:
            self.folder = OutputFolder(output, settings, what="trajectory")
            try:
                self.known = _rows_of(self._table)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Let other processes in."""
        if self.folder is not None:
            self.folder.close()

    @property
    def _table(self) -> Path:
        assert self.folder is not None
        return self.folder.path / "trajectory.jsonl"

    @property
    def _chains(self) -> Path:
        """Of the last row; those of the row before stay, lest a kill comes before the row."""
        assert self.folder is not None
        return self.folder.path / f"chains-{len(self.rows) % 2}.npz"

    def recall(self, center: PyTree, step: float) -> bool:
        """Take the next row from the folder, if it is there; it must be of the same centre."""
        place = len(self.rows)
        if place >= len(self.known):
            if self.folder is not None:
                self.folder.check_writable()
            return False
        row = self.known[place]
        if row["center"] != fingerprint(center) or row["step"] != step:
            raise CheckpointError(
                f"`output` {str(self._table.parent)!r} holds another checkpoint {place} (step "
                f"{row['step']:g}) than `centers` now gives (step {step:g}). Choose another folder."
            )
        self.rows.append(row)
        return True

    def carried(self, form: PyTreeDef) -> Carried | None:
        """Where the chains of the last row ended, if there is a last row and it did not break.

        `form` is the pytree structure of the parameters.
        """
        if self.folder is None or not self.rows or self.rows[-1]["status"] in BROKEN:
            return None
        arrays = read_arrays(self._chains)
        try:
            if int(arrays["rows"]) != len(self.rows):
                raise ValueError(f"it is of row {int(arrays['rows'])}, not {len(self.rows)}")
            offsets = [jnp.asarray(arrays[f"offsets_{k}"]) for k in range(form.num_leaves)]
            return Carried(jax.tree.unflatten(form, offsets), jnp.asarray(arrays["highest"]))
        except (KeyError, ValueError) as error:
            raise damaged(self._chains, error) from error

    def add(self, row: Row, center: PyTree, carried: Carried | None = None) -> None:
        """Keep a row, and on disk the chains that the next one starts from."""
        row = {**row, "center": fingerprint(center)}
        self.rows.append(row)
        if self.folder is None:
            return
        if carried is not None:
            leaves = map(np.asarray, jax.tree.leaves(carried.offsets))
            offsets = {f"offsets_{k}": leaf for k, leaf in enumerate(leaves)}
            numbers = {"rows": np.asarray(len(self.rows)), "highest": np.asarray(carried.highest)}
            write_arrays(self._chains, {**numbers, **offsets})
        write_bytes(self._table, "".join(json.dumps(one) + "\n" for one in self.rows).encode())

    def table(self, attrs: dict[str, object]) -> xr.Dataset:
        """The rows so far, over ``checkpoint``."""
        columns: dict[str, tuple[str, np.ndarray]] = {
            name: ("checkpoint", np.asarray([row[name] for row in self.rows], _kind(name)))
            for name in COLUMNS
        }
        step = columns.pop("step")
        coords = {"checkpoint": np.arange(len(self.rows)), "step": step}
        return xr.Dataset(columns, coords=coords, attrs=attrs)

    def save(self, table: xr.Dataset) -> None:
        """Write ``trajectory.nc``; a folder that is complete may be read alone."""
        if self.folder is None:
            return
        if self.folder.can_write or len(self.rows) > len(self.known):
            save(table, self.folder.path / "trajectory.nc")


def _rows_of(path: Path) -> list[Row]:
    """The rows of a file; the last may be cut short, and is then made again."""
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
        for row in rows:
            if missing := {*COLUMNS, "center"} - set(row):
                raise ValueError(f"a row lacks {min(missing)}")
    except (OSError, TypeError, ValueError) as error:
        raise damaged(path, error) from error
    return rows


def _kind(name: str) -> type:
    return object if name in TEXTS else float
