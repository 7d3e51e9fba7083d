"""What a sweep depends on, and what it has on disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from numpyro_llc._identity import check_same_settings, fingerprint
from numpyro_llc.problem import Problem
from numpyro_llc.rows import TEXTS
from numpyro_llc.schedule import Schedule


def identity(rng_key: jax.Array, given: Mapping[str, Any], schedule: Schedule) -> dict[str, Any]:
    """What the cells depend on beside the problem, by name."""
    axes = {k: np.asarray(v).tolist() for k, v in given.items() if k != "center" and v is not None}
    return {
        **axes,
        "center": fingerprint(given["center"]),
        **schedule._asdict(),
        "rng_key": jax.random.key_data(rng_key).tolist(),
        "x64": bool(jax.config.read("jax_enable_x64")),
    }


def resumed(
    output: str | Path, grid: xr.Dataset, problem: Problem, settings: dict[str, Any]
) -> xr.Dataset:
    """The grid as the folder has it, or the empty one."""
    settings = {**settings, **problem.identity, "kernel": problem.sampler.description}
    path = check_same_settings(output, settings, what="sweep", argument="output") / "sweep.nc"
    if not path.exists():
        return grid
    found = xr.load_dataset(path, engine="h5netcdf")
    # As read they have a fixed width, to which longer ones would be cut.
    return found.assign({name: found[name].astype(object) for name in TEXTS})
