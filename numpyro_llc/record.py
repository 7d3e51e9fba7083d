"""A table of runs that goes on where it stopped."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from numpyro_llc._identity import check_same_settings
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
TEXTS = [name for name, kind in COLUMNS.items() if kind is str]
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
        check_same_settings(self.folder, self.settings, what="calibration", argument="output")
        for row in read_table(self._table_path).to_dict("records"):
            self.rows[row["problem"], row["kernel"]] = row

    @property
    def _table_path(self) -> Path:
        assert self.folder is not None
        return self.folder / "calibration.csv"

    def get(self, problem: str, kernel: str | None, fingerprint: str) -> dict[str, Any] | None:
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
            part = self.folder / "calibration.nc.part"  # someone may have the last one open
            data.to_netcdf(part, engine="h5netcdf")
            part.replace(self.folder / "calibration.nc")
        return table


def read_table(path: Path) -> pd.DataFrame:
    """The rows of a file, texts as they were written; none if there is no file or it is empty."""
    if not path.exists() or path.stat().st_size == 0:
        return as_table([])
    table = pd.read_csv(
        path,
        dtype=dict.fromkeys(TEXTS, str),
        keep_default_na=False,
        na_values={name: [""] for name in COLUMNS if name not in TEXTS},
    )
    return as_table(table)


def as_table(rows: Any) -> pd.DataFrame:
    """All columns in their order; numbers that are not known are NaN, texts are empty."""
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in COLUMNS:
        column = table[name].astype(object if name in TEXTS else float)
        table[name] = column.fillna("") if name in TEXTS else column
    return table
