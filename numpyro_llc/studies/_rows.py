"""What a table of many runs keeps of each: λ̂, its diagnostics, and how it went."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from numpyro_llc.errors import LLCWarning, NonFiniteLossError
from numpyro_llc.inference_data import attributes, posterior
from numpyro_llc.kernels import metropolis_report
from numpyro_llc.results import assemble, run_settings, summary, text_of
from numpyro_llc.sampling import Finished, Problem, Run

NUMBERS = (
    "llc",
    "mcse",
    "sd",
    "ess_bulk",
    "ess_tail",
    "r_hat",
    "center_loss",
    "step_size_used",
    "gradient_evaluations",
    "seconds",
)
TEXTS = ("status", "findings")


def row_of(
    problem: Problem, run: Run, finished: Finished, rng_key: jax.Array, block: int = 0
) -> dict[str, Any]:
    """The row of one block of chains of a run."""
    own = replace(finished, draws=run.of_block(finished.draws, block))
    state = run.state_of_block(block)
    settings = {
        **run_settings(problem, own),
        **problem.sampler.report(state, problem.target, own.draws.statistics),
        **metropolis_report(problem.sampler, state, problem.target, run.rows, rng_key),
    }
    status = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LLCWarning)  # they are the row's findings
        try:
            idata = assemble(
                problem.reading, problem.target, own.draws, problem.num_data, (), False, settings
            )
        except NonFiniteLossError as error:
            idata, status = error.idata, "diverged"
    attrs = posterior(idata).attrs
    found = json.loads(attrs["findings"])
    row = {} if status else summary(idata).loc["llc"].to_dict()
    return {
        **{name: row.get(name, np.nan) for name in NUMBERS},
        "mcse": row.get("mcse_mean", np.nan),
        "llc": row.get("mean", np.nan),
        "center_loss": attrs["center_loss"],
        "step_size_used": float(settings.get("step_size", np.nan)),
        "gradient_evaluations": float(settings.get("gradient_evaluations", np.nan)),
        "seconds": finished.seconds / run.layout.num_blocks,
        "status": status or ("doubtful" if found else "ok"),
        "findings": " ".join(map(text_of, found)),
    }


def failed_row(error: Exception) -> dict[str, Any]:
    """The row of a run that could not begin."""
    return {**dict.fromkeys(NUMBERS, np.nan), "status": "failed", "findings": str(error)}


def save(table: xr.Dataset, path: Path) -> None:
    """Write the table; the file is replaced as a whole: a kill leaves the old or the new."""
    part = path.with_suffix(".part")
    table.assign_attrs(attributes(table.attrs)).to_netcdf(part, engine="h5netcdf")
    part.replace(path)


def empty(axes: Mapping[str, list[Any]]) -> xr.Dataset:
    """A table of nothing yet over named axes; a center is known by its place."""
    shape = tuple(map(len, axes.values()))
    coords = {k: np.arange(len(v)) if k == "center" else np.asarray(v) for k, v in axes.items()}
    numbers = {name: (tuple(axes), np.full(shape, np.nan)) for name in NUMBERS}
    texts = {name: (tuple(axes), np.full(shape, "", dtype=object)) for name in TEXTS}
    return xr.Dataset({**numbers, **texts}, coords=coords)


def write(table: xr.Dataset, place: int, row: Mapping[str, Any]) -> None:
    """Put a row at a place of the raveled table."""
    for name in (*NUMBERS, *TEXTS):
        table[name].to_numpy().reshape(-1)[place] = row[name]
