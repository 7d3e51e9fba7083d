"""A table of runs that goes on where it stopped."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from numpyro_llc.inference_data import attributes

COLUMNS = {
    "problem": str,
    "kernel": str,
    "parameters": float,
    "learning_coefficient": float,
    "exact": float,
    "exact_error": float,
    "llc": float,
    "mcse": float,
    "z": float,
    "relative_error": float,
    "r_hat": float,
    "ess": float,
    "gradient_evaluations": float,
    "seconds": float,
    "findings": str,
    "failure": str,
    "fingerprint": str,
}
KEY = ["problem", "kernel"]


class Record:
    """Rows so far, on disk too if there is a folder.

    ``settings.json`` says what they are of, ``calibration.csv`` has them as they come, and
    ``calibration.nc`` all of them at the end.
    """

    def __init__(self, output: str | Path | None, settings: dict[str, Any]) -> None:
        self.folder = None if output is None else Path(output)
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        self.settings = json.loads(json.dumps(settings, default=str))
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._settings_path.exists():
            self._check_settings()
        else:
            self._settings_path.write_text(json.dumps(self.settings, indent=1))
        if self._table_path.exists():
            for row in as_table(pd.read_csv(self._table_path)).to_dict("records"):
                self.rows[row["problem"], row["kernel"]] = row

    @property
    def _settings_path(self) -> Path:
        assert self.folder is not None
        return self.folder / "settings.json"

    @property
    def _table_path(self) -> Path:
        assert self.folder is not None
        return self.folder / "calibration.csv"

    def _check_settings(self) -> None:
        before = json.loads(self._settings_path.read_text())
        for name in sorted(before.keys() | self.settings.keys()):
            if before.get(name) != self.settings.get(name):
                raise ValueError(
                    f"`output` {str(self.folder)!r} holds a calibration with `{name}` "
                    f"{before.get(name)}; got {self.settings.get(name)}. Choose another folder."
                )

    def get(self, problem: str, kernel: str | None, fingerprint: str) -> dict[str, Any] | None:
        """The row of a problem and kernel, if it is known; it must be of the same problem."""
        row = self.rows.get((problem, kernel or ""))
        if row is not None and row["fingerprint"] != fingerprint:
            raise ValueError(
                f"`output` {str(self.folder)!r} holds a row of another problem called {problem!r}: "
                "its data or its centre differ. Give it another `name`, or choose another folder."
            )
        return row

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row; the file is replaced as a whole, so that a kill leaves the old or the new."""
        self.rows[row["problem"], row["kernel"]] = row
        if self.folder is not None:
            part = self._table_path.with_suffix(".part")
            as_table(list(self.rows.values())).to_csv(part, index=False)
            part.replace(self._table_path)

    def finish(self, keys: list[tuple[str, str]]) -> pd.DataFrame:
        """The rows of `keys` as a table, indexed by problem and kernel."""
        table = as_table([self.rows[key] for key in keys]).set_index(KEY)
        table = table.drop(columns="fingerprint")
        if self.folder is not None:
            data = table.to_xarray().assign_attrs(attributes(self.settings))
            data.to_netcdf(self.folder / "calibration.nc", engine="h5netcdf")
        return table


def fingerprint(*trees: Any) -> str:
    """A short hash of pytrees: two of the same values have the same, in every process."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(trees):
        if isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | str):
            value = np.asarray(leaf)
            digest.update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
        else:  # a function, say: its address would differ from run to run
            digest.update(getattr(leaf, "__qualname__", type(leaf).__qualname__).encode())
    return digest.hexdigest()[:16]


def as_table(rows: Any) -> pd.DataFrame:
    """All columns in their order; numbers that are not known are NaN, texts are empty."""
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for name, kind in COLUMNS.items():
        column = table[name].astype(object if kind is str else float)
        table[name] = column.fillna("") if kind is str else column
    return table
