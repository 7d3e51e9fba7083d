"""What a sweep depends on, and what it has on disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from numpyro_llc._identity import check_same_settings, fingerprint
from numpyro_llc.problem import Problem
from numpyro_llc.schedule import Schedule


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
