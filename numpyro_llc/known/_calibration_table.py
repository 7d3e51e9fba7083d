"""A table of runs that goes on where it stopped."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from numpyro_llc.errors import CheckpointError
from numpyro_llc.inference_data import attributes
from numpyro_llc.sampling import OutputFolder, plain, write_bytes, write_netcdf

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
        self.folder: OutputFolder | None = None
        if output is not None:
            self.folder = OutputFolder(output, self.settings, what="calibration", shared=True)
            self._read()

    @property
    def _table_path(self) -> Path:
        assert self.folder is not None
        return self.folder.path / "calibration.csv"

    def get(self, problem: str, kernel: str | None, fingerprint: str) -> Row | None:
        """The row of a problem and kernel, if it has a λ̂; it must be of the same problem."""
        row = self.rows.get((problem, kernel or ""))
        if row is None or math.isnan(row.get("llc", math.nan)):
            return None
        if row["fingerprint"] != fingerprint:
            raise ValueError(
                f"`output` {str(self._table_path.parent)!r} holds a row of another problem called "
                f"{problem!r}: its model (or Python's version), data or centre differ. Give it "
                "another `name`, or choose another folder."
            )
        return row

    def add(self, row: Row) -> None:
        """Keep a row, among those that other processes have added to the file since."""
        key = row["problem"], row["kernel"]
        self.rows[key] = row
        self.own[key] = None
        self._merge()

    def _merge(self) -> None:
        """Put our rows among those of the file."""
        if self.folder is None:
            return
        try:
            with self.folder.change():
                self._read()
                content = as_table(list(self.rows.values())).to_csv(index=False)
                write_bytes(self._table_path, content.encode())
        except CheckpointError as error:
            error.table = as_table(list(self.rows.values()))
            raise

    def _read(self) -> None:
        """Take the rows of the file, but for those that are our own."""
        for row in read_table(self._table_path).to_dict("records"):
            key = row["problem"], row["kernel"]
            if key not in self.own:
                self.rows[key] = row

    def finish(self, keys: list[tuple[str, str]]) -> pd.DataFrame:
        """The rows of `keys` as a table, indexed by problem and kernel."""
        table = as_table([self.rows[key] for key in keys]).set_index(KEY)
        table = table.drop(columns=["fingerprint", "exact_fingerprint"])
        self._merge()
        if self.folder is not None:
            data = table.to_xarray().assign_attrs(attributes(self.settings))
            with self.folder.change():
                write_netcdf(self.folder.path / "calibration.nc", data)
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
        is_whole = path.read_bytes().endswith(b"\n")
        if list(table) != list(COLUMNS) or not isinstance(table.index, pd.RangeIndex):
            fault = f"its columns are not {', '.join(COLUMNS)}"
        elif is_whole:
            return as_table(table)
        else:
            fault = "its last line is cut short"
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
