"""What a sweep depends on, and what it has on disk."""

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import xarray as xr

from numpyro_llc.models import PyTree
from numpyro_llc.sampling import Plan, check_same_settings, fingerprint
from numpyro_llc.studies._rows import TEXTS


def identity(axes: Mapping[str, list[PyTree]]) -> dict[str, object]:
    """What the cells depend on beside the plan of one of them, by name."""
    values = {k: v if k == "localization" else np.asarray(v).tolist() for k, v in axes.items()}
    return {
        **{f"{name} (axis)": value for name, value in values.items() if name != "center"},
        "centers": fingerprint(axes.get("center")),
    }


def resumed(
    output: str | Path,
    grid: xr.Dataset,
    rng_key: jax.Array,
    plan: Plan,
    settings: dict[str, object],
) -> xr.Dataset:
    """The grid as the folder has it, or the empty one."""
    own = {"center": fingerprint(plan.target.center)}
    settings = {**plan.run_identity(rng_key), **own, **settings}
    path = check_same_settings(output, settings, what="sweep", argument="output") / "sweep.nc"
    if not path.exists():
        return grid
    found = xr.load_dataset(path, engine="h5netcdf")
    # As read they have a fixed width, to which longer ones would be cut.
    return found.assign({name: found[name].astype(object) for name in TEXTS})
