"""A table of runs that goes on where it stopped."""

import math
import os
from pathlib import Path
from typing import Any

import pandas as pd

from numpyro_llc.errors import CheckpointError
from numpyro_llc.inference_data import attributes
from numpyro_llc.sampling import check_same_settings, plain

Row = dict[str, Any]
"""Cells of a problem and kernel by column, numbers and texts; those not known yet are left out."""
COLUMNS = {
    "problem": str,
    "kernel": str,
    "parameters": float,
    "learning_coefficient": float,
    "exact": float,
    "exact_error": float,
    "llc": float,
    "mcse_mean": float,
    "z": float,
    "relative_error": float,
    "r_hat": float,
    "ess_bulk": float,
    "gradient_evaluations": float,
    "seconds": float,
    "findings": str,
    "failure": str,
    "fingerprint": str,
    "exact_fingerprint": str,
}
TEXTS = [name for name, kind in COLUMNS.items() if kind is str]
KEY = ["problem", "kernel"]


class CalibrationTable:
    """Rows so far, on disk too if there is a folder.

    ``settings.json`` says what they are of, ``calibration.csv`` has them as they come, and
    ``calibration.nc`` all of them at the end.
    """

    def __init__(self, output: str | Path | None, settings: dict[str, object]) -> None:
        self.rows: dict[tuple[str, str], Row] = {}
        self.own: dict[tuple[str, str], None] = {}  # a set in order
        self.settings = plain(settings)
        self.folder: Path | None = None
        if output is not None:
            self.folder = check_same_settings(
                output, self.settings, what="calibration", argument="output"
            )
            self._read()

    @property
    def _table_path(self) -> Path:
        assert self.folder is not None
        return self.folder / "calibration.csv"

    def get(self, problem: str, kernel: str | None, fingerprint: str) -> Row | None:
        """The row of a problem and kernel, if it has a λ̂; it must be of the same problem."""
        row = self.rows.get((problem, kernel or ""))
        if row is None or math.isnan(row.get("llc", math.nan)):
            return None
        if row["fingerprint"] != fingerprint:
            raise ValueError(
                f"`output` {str(self.folder)!r} holds a row of another problem called {problem!r}: "
                "its model (or Python's version), data or centre differ. Give it another `name`, "
                "or choose another folder."
            )
        return row

    def add(self, row: Row) -> None:
        """Keep a row, among those that other processes have added to the file since."""
        key = row["problem"], row["kernel"]
        self.rows[key] = row
        self.own[key] = None
        if self.folder is not None:
            self._read()
            self._write()

    def _read(self) -> None:
        """Take the rows of the file, but for those that are our own."""
        for row in read_table(self._table_path).to_dict("records"):
            key = row["problem"], row["kernel"]
            if key not in self.own:
                self.rows[key] = row

    def _write(self) -> None:
        """The file is replaced as a whole, so that a kill leaves the old or the new."""
        part = self._table_path.with_suffix(f".{os.getpid()}.part")
        as_table(list(self.rows.values())).to_csv(part, index=False)
        part.replace(self._table_path)

    def finish(self, keys: list[tuple[str, str]]) -> pd.DataFrame:
        """The rows of `keys` as a table, indexed by problem and kernel."""
        table = as_table([self.rows[key] for key in keys]).set_index(KEY)
        table = table.drop(columns=["fingerprint", "exact_fingerprint"])
        if self.folder is not None:
            self._read()  # another process may have written between our last reading and writing
            self._write()
            data = table.to_xarray().assign_attrs(attributes(self.settings))
            part = self.folder / "calibration.nc.part"  # someone may have the last one open
            data.to_netcdf(part, engine="h5netcdf")
            part.replace(self.folder / "calibration.nc")
        return table


def read_table(path: Path) -> pd.DataFrame:
    """The rows of a file, texts as they were written; none if there is no file or it is empty."""
    if not path.exists() or path.stat().st_size == 0:
        return as_table([])
    try:
        table = pd.read_csv(
            path,
            dtype=dict.fromkeys(TEXTS, str),
            keep_default_na=False,
            na_values={name: [""] for name in COLUMNS if name not in TEXTS},
        )
        if list(table) == list(COLUMNS) and isinstance(table.index, pd.RangeIndex):
            return as_table(table)
        fault = f"its columns are not {', '.join(COLUMNS)}"
    except ValueError as error:  # those of pandas and of decoding are among them
        fault = str(error)
    raise CheckpointError(
        f"`output` {str(path.parent)!r} holds a {path.name} that cannot be read: {fault}. Mend the "
        "file, or choose another folder."
    )


def as_table(rows: list[Row] | pd.DataFrame) -> pd.DataFrame:
    """All columns in their order; numbers that are not known are NaN, texts are empty."""
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in COLUMNS:
        column = table[name].astype(object if name in TEXTS else float)
        table[name] = column.fillna("") if name in TEXTS else column
    return table


def compared(row: Row, exact: float, error: float) -> dict[str, float]:
    """Cells that say how far the λ̂ of a row, if it has one, is from what it should be."""
    off = row.get("llc", math.nan) - exact
    return {
        "exact": exact,
        "exact_error": error,
        "z": _ratio(off, math.hypot(row.get("mcse_mean", math.nan), error)),
        "relative_error": _ratio(off, exact),
    }


def _ratio(a: float, b: float) -> float:
    if b:
        return a / b
    return a if a == 0 or math.isnan(a) else math.copysign(math.inf, a)
