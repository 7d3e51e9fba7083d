"""What a sweep has so far, in memory and on disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from numpyro_llc._identity import check_same_settings, fingerprint
from numpyro_llc.inference_data import attributes
from numpyro_llc.problem import Problem
from numpyro_llc.schedule import Schedule

NUMBERS = (
    "llc",
    "mcse",
    "sd",
    "ess_bulk",
    "ess_tail",
    "r_hat",
    "step_size_used",
    "gradient_evaluations",
    "seconds",
)
TEXTS = ("status", "findings")


def empty(axes: Mapping[str, list[Any]]) -> xr.Dataset:
    shape = tuple(map(len, axes.values()))
    coords = {k: np.arange(len(v)) if k == "center" else np.asarray(v) for k, v in axes.items()}
    numbers = {name: (tuple(axes), np.full(shape, np.nan)) for name in NUMBERS}
    texts = {name: (tuple(axes), np.full(shape, "", dtype=object)) for name in TEXTS}
    return xr.Dataset({**numbers, **texts}, coords=coords)


def write(grid: xr.Dataset, place: int, row: Mapping[str, Any]) -> None:
    for name, value in row.items():
        grid[name].to_numpy().reshape(-1)[place] = value


def identity(rng_key: jax.Array, given: Mapping[str, Any], schedule: Schedule) -> dict[str, Any]:
    axes = {k: np.asarray(v).tolist() for k, v in given.items() if k != "center" and v is not None}
    return {
        **axes,
        "center": fingerprint(given["center"]),
        **schedule._asdict(),
        "rng_key": jax.random.key_data(rng_key).tolist(),
        "x64": bool(jax.config.read("jax_enable_x64")),
    }


def resumed(
    folder: Path, grid: xr.Dataset, problem: Problem, settings: dict[str, Any]
) -> xr.Dataset:
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**settings, **problem.identity, "kernel": problem.sampler.description}
    check_same_settings(folder, settings, what="sweep", argument="output")
    path = folder / "sweep.nc"
    return xr.load_dataset(path, engine="h5netcdf") if path.exists() else grid


def save(grid: xr.Dataset, output: str | Path | None) -> None:
    if output is None:
        return
    part = Path(output) / "sweep.part"
    grid.assign_attrs(attributes(grid.attrs)).to_netcdf(part, engine="h5netcdf")
    part.replace(Path(output) / "sweep.nc")
