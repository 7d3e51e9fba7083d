"""What a sweep depends on, and what it has on disk."""

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import xarray as xr

from numpyro_llc.models import PyTree
from numpyro_llc.sampling import Plan, damaged, fingerprint
from numpyro_llc.studies._rows import TEXTS


def identity(axes: Mapping[str, list[PyTree]]) -> dict[str, object]:
    """What the cells depend on beside the plan of one of them, by name."""
    values = {k: v if k == "localization" else np.asarray(v).tolist() for k, v in axes.items()}
    return {
        **{f"{name} (axis)": value for name, value in values.items() if name != "center"},
        "centers": fingerprint(axes.get("center")),
    }


def settings_of(
    axes: Mapping[str, list[PyTree]], plan: Plan, rng_key: jax.Array, max_memory: float
) -> dict[str, object]:
    """All that the cells depend on, by name; `plan` is that of one of them."""
    center = {"center": fingerprint(plan.target.center), "max_memory": max_memory}
    return {**plan.run_identity(rng_key), **center, **identity(axes)}


def resumed(path: Path, grid: xr.Dataset) -> xr.Dataset:
    """The grid as the file has it, or the empty one where there is none."""
    if not path.exists():
        return grid
    try:
        found = xr.load_dataset(path, engine="h5netcdf")
        if found.sizes != grid.sizes or set(found) != set(grid):
            raise ValueError("it is of another grid")
    except Exception as error:  # HDF5 and xarray raise much, by what is damaged
        raise damaged(path, error) from error
    # As read they have a fixed width, to which longer ones would be cut.
    return found.assign({name: found[name].astype(object) for name in TEXTS})
