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

from numpyro_llc.errors import CheckpointError, DataError, LLCWarning, NonFiniteLossError
from numpyro_llc.inference_data import (
    InferenceData,
    attributes,
    draws_of,
    error_of_llc,
    moments_of_draws,
    posterior,
    statistics,
)
from numpyro_llc.models import PyTree
from numpyro_llc.results import (
    findings,
    names_of,
    one_or_by_site,
    report_of,
    result_of,
    share_columns,
    status_of,
    text_of,
)
from numpyro_llc.sampling import CommonFolder, Finished, OutputFolder, Plan, Run, write_netcdf

Row = dict[str, Any]
"""The cells of a run by column: numbers and texts."""
MOMENTS = ("llc", "sd", "mcse_mean", "ess_bulk", "ess_tail", "r_hat")
"""ArviZ's names for ArviZ's numbers of ``llc``, whose mean is λ̂."""
ERROR = "error"
"""The Monte Carlo error of λ̂ with slow directions, at least ``mcse_mean``."""
OF_GAMMA = ("localization_share", "mcse_share", "distance", "reached")
"""The share of λ̂ that γ takes, and its error; how far the draws lie from the centre (root mean
square), and which part of the density's spread they have: ``E[β (z - z*)·∇nL + γ |z - z*|²]/d``, 1
of draws of the density."""
NUMBERS = (
    *MOMENTS,
    ERROR,
    *OF_GAMMA,
    "center_loss",
    "step_size_used",
    "gradient_evaluations",
    "seconds",
)
TEXTS = ("status", "checks", "findings")
"""How a run went, which checks found something, and what."""
FILE = "sweep.nc"
"""The table of a sweep in its folder."""
FOUND = "found"
"""The findings of a row as such, which no table keeps."""


def row_of(plan: Plan, run: Run, finished: Finished, rng_key: jax.Array, block: int = 0) -> Row:
    """The row of one block of chains of a run, its findings as such under ``FOUND``."""
    if isinstance(finished.failure, DataError):  # with which the state went
        raise finished.failure
    own = replace(finished, draws=finished.draws.part(block, run.layout.num_blocks))
    status = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LLCWarning)  # they are the row's findings
        try:
            idata = result_of(
                run, own, rng_key, plan=plan, state=run.progress.state_of_block(block)
            )
        except NonFiniteLossError as error:
            idata, status = error.idata, "diverged"
    report, found = report_of(idata), findings(idata)
    step_size, gradients = report.step_size, report.gradient_evaluations
    return {
        **dict.fromkeys(MOMENTS, np.nan),
        **dict.fromkeys((ERROR, *OF_GAMMA), np.nan),
        **({} if status else _moments(idata)),
        **({} if status else {ERROR: error_of(idata), **of_gamma(idata)}),
        "center_loss": report.center_loss,
        "step_size_used": np.nan if step_size is None else step_size,
        "gradient_evaluations": np.nan if gradients is None else gradients,
        "seconds": finished.seconds / run.num_cells,
        "status": status or status_of(found, report),
        "checks": names_of(found),
        "findings": text_of(found),
        FOUND: found,
    }


def _moments(idata: InferenceData) -> dict[str, float]:
    """The columns ``MOMENTS`` of a result."""
    found = moments_of_draws(draws_of(posterior(idata), "llc"))
    return {name: found["mean" if name == "llc" else name] for name in MOMENTS}


def error_of(idata: InferenceData) -> float:
    """The Monte Carlo error of λ̂ of a result, with slow directions."""
    llc, penalty = draws_of(posterior(idata), "llc"), draws_of(statistics(idata), "penalty")
    return error_of_llc(llc, penalty)


def of_gamma(idata: InferenceData) -> dict[str, float]:
    """The columns ``OF_GAMMA`` of a result; NaN for what its draws do not tell."""
    found = dict.fromkeys(OF_GAMMA, np.nan) | share_columns(idata)
    kept, d = statistics(idata), report_of(idata).num_parameters
    if "distance" in kept:
        found["distance"] = float(np.sqrt(np.mean(draws_of(kept, "distance") ** 2)))
    if {"virial", "penalty"} <= set(kept) and d:
        reached = draws_of(kept, "virial") + 2.0 * draws_of(kept, "penalty")
        found["reached"] = float(np.mean(reached)) / d
    return found


def failed_row(reason: Exception | str) -> Row:
    """The row of a run that could not begin, or whose worker failed."""
    unknown = {**dict.fromkeys(NUMBERS, np.nan), "checks": ""}
    return {**unknown, "status": "failed", "findings": str(reason)}


def save(table: xr.Dataset, path: Path) -> None:
    """Write the table; the file is replaced as a whole: a kill leaves the old or the new."""
    write_netcdf(path, table.assign_attrs(attributes(table.attrs)))


def keep(table: xr.Dataset, folder: CommonFolder[OutputFolder] | None) -> None:
    """Write the table, if there is a folder for it; the error that it cannot be has the table."""
    if folder is not None:
        try:
            folder.of_first(lambda own: save(table, own.path / FILE))
        except CheckpointError as error:
            error.table = table
            raise


def empty(axes: Mapping[str, list[PyTree]]) -> xr.Dataset:
    """A table of nothing yet over named axes; a center is known by its place."""
    shape = tuple(map(len, axes.values()))
    coords = {k: np.arange(len(v)) if k == "center" else _coordinate(v) for k, v in axes.items()}
    numbers = {name: (tuple(axes), np.full(shape, np.nan)) for name in NUMBERS}
    texts = {name: (tuple(axes), np.full(shape, "", dtype=object)) for name in TEXTS}
    return xr.Dataset({**numbers, **texts}, coords=coords)


def _coordinate(values: list[PyTree]) -> np.ndarray:
    """Numbers as they are; γ by site as JSON."""
    if any(isinstance(value, Mapping) for value in values):
        return np.array([json.dumps(one_or_by_site(value)) for value in values])
    return np.asarray(values)


def write(table: xr.Dataset, place: int, row: Row) -> None:
    """Put a row at a place of the raveled table."""
    for name in (*NUMBERS, *TEXTS):
        table[name].to_numpy().reshape(-1)[place] = row[name]
