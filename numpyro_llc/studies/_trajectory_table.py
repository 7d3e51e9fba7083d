"""The rows of a trajectory, in memory and on disk."""

import json
from pathlib import Path
from zipfile import BadZipFile

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.tree_util import PyTreeDef

from numpyro_llc.errors import CheckpointError
from numpyro_llc.models import PyTree
from numpyro_llc.sampling import check_same_settings, fingerprint, write_arrays
from numpyro_llc.studies._carry import Carried
from numpyro_llc.studies._rows import NUMBERS, TEXTS, Row, save

COLUMNS = (*NUMBERS, "carried", "step", *TEXTS)


class TrajectoryTable:
    """Rows as they come: ``trajectory.jsonl``, and what the next checkpoint starts from.

    A kill loses the checkpoint under way alone.
    """

    def __init__(self, output: str | Path | None, settings: dict[str, object]) -> None:
        self.folder: Path | None = None
        self.rows: list[Row] = []
        self.known: list[Row] = []
        if output is None:
            return
        self.folder = check_same_settings(output, settings, what="trajectory", argument="output")
        if self._table.exists():
            lines = self._table.read_text().splitlines(keepends=True)
            try:
                self.known = [json.loads(line) for line in lines if line.endswith("\n")]
            except json.JSONDecodeError as error:
                raise CheckpointError(
                    f"`output`: {str(self._table)!r} is damaged ({error}). Remove its bad lines "
                    "and those after, or choose another folder."
                ) from None

    @property
    def _table(self) -> Path:
        assert self.folder is not None
        return self.folder / "trajectory.jsonl"

    @property
    def _chains(self) -> Path:
        """Of the last row; those of the row before stay, lest a kill comes before the row."""
        assert self.folder is not None
        return self.folder / f"chains-{len(self.rows) % 2}.npz"

    def recall(self, center: PyTree, step: float) -> bool:
        """Take the next row from the folder, if it is there; it must be of the same centre."""
        place = len(self.rows)
        if place >= len(self.known):
            return False
        row = self.known[place]
        if row["center"] != fingerprint(center) or row["step"] != step:
            raise CheckpointError(
                f"`output` {str(self.folder)!r} holds another checkpoint {place} (step "
                f"{row['step']:g}) than `centers` now gives (step {step:g}). Choose another folder."
            )
        self.rows.append(row)
        return True

    def carried(self, form: PyTreeDef) -> Carried | None:
        """Where the chains of the last row ended, if the folder holds it.

        `form` is the pytree structure of the parameters.
        """
        if self.folder is None or not self._chains.exists():
            return None
        try:
            with np.load(self._chains) as file:
                if int(file["rows"]) != len(self.rows):
                    return None
                offsets = [jnp.asarray(file[f"offsets_{k}"]) for k in range(form.num_leaves)]
                return Carried(jax.tree.unflatten(form, offsets), jnp.asarray(file["highest"]))
        except (ValueError, KeyError, OSError, BadZipFile):
            return None  # it is damaged: a cold start, which changes no expectation

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
        part = self._table.with_suffix(".part")
        part.write_text("".join(json.dumps(one) + "\n" for one in self.rows))
        part.replace(self._table)

    def table(self, attrs: dict[str, object]) -> xr.Dataset:
        """The rows so far, over ``checkpoint``; written to ``trajectory.nc`` too."""
        columns: dict[str, tuple[str, np.ndarray]] = {
            name: ("checkpoint", np.asarray([row[name] for row in self.rows], _kind(name)))
            for name in COLUMNS
        }
        step = columns.pop("step")
        coords = {"checkpoint": np.arange(len(self.rows)), "step": step}
        table = xr.Dataset(columns, coords=coords, attrs=attrs)
        if self.folder is not None:
            save(table, self.folder / "trajectory.nc")
        return table


def _kind(name: str) -> type:
    return object if name in TEXTS else float
