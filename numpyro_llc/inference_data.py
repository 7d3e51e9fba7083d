"""Draws to labelled data: the only file that knows ArviZ's container and its two majors."""

import datetime
import json
import numbers
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
import xarray as xr

with warnings.catch_warnings():
    # ArviZ 0.23 announces ArviZ 1 at its import, once a day, to users who did not import it.
    warnings.simplefilter("ignore", FutureWarning)
    import arviz as az

_IS_DATATREE = int(version("arviz").split(".")[0]) >= 1


def variable_name(site: str) -> str:
    """A site's or plate's name as netCDF and Zarr allow it: ``net/Dense_0`` is ``net.Dense_0``."""
    return site.replace("/", ".")


def flatten_sites(values: Mapping[str, Any]) -> dict[str, Any]:
    """Pytrees to arrays, a leaf at ``params['a']['b']`` under the name ``params.a.b``."""
    flat = {}
    for name, value in values.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(value):
            keys = [jax.tree_util.keystr((key,), simple=True) for key in path]
            flat[".".join([name, *keys])] = leaf
    return flat


def labelled(
    arrays: Mapping[str, Any],
    *,
    lead: Sequence[str] = (),
    plate_axes: Mapping[str, Mapping[int, str]] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Arrays as a dataset: leading dims `lead`, plates by name, others ``<site>_dim_<k>``."""
    variables: dict[str, Any] = {}
    coords: dict[str, Any] = {}
    for site, array in arrays.items():
        value, name = np.asarray(array), variable_name(site)
        own = value.ndim - len(lead)
        dims = [f"{name}_dim_{k}" for k in range(own)]
        for axis, plate in (plate_axes or {}).get(site, {}).items():
            if -axis <= own and value.shape[axis] > 1:
                dims[axis] = variable_name(plate)
        variables[name] = ((*lead, *dims), value)
        coords.update(zip((*lead, *dims), map(np.arange, value.shape), strict=True))
    return xr.Dataset(variables, coords=coords, attrs=dict(attrs or {}))


def attributes(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers and strings as they are, truth values as 0 and 1, anything else as JSON."""
    common = {
        "inference_library": "numpyro_llc",
        "inference_library_version": version("numpyro_llc"),
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(),
    }
    plain = {
        key: int(value)
        if isinstance(value, bool | np.bool_)
        else value
        if isinstance(value, int | float | str)
        else json.dumps(value)
        for key, value in settings.items()
    }
    return {**common, **plain}


def inference_data(groups: Mapping[str, xr.Dataset], attrs: Mapping[str, Any]) -> Any:
    """Datasets by group to what the installed ArviZ calls its inference data.

    Returns
    -------
    arviz.InferenceData (ArviZ 0.x) or xarray.DataTree (ArviZ 1.x)
        With `attrs` on the whole and on the group ``posterior``.
    """
    kept = {name: data for name, data in groups.items() if data.data_vars}
    kept["posterior"] = kept["posterior"].assign_attrs(attrs)
    if _IS_DATATREE:
        tree = xr.DataTree.from_dict(kept)
        tree.attrs.update(attrs)
        return tree
    by_name: dict[str, Any] = kept
    return az.InferenceData(attrs=dict(attrs), **by_name)


def posterior(idata: Any) -> xr.Dataset:
    """The posterior group as a dataset, on both majors."""
    return _dataset(idata["posterior"])


def statistics(idata: Any) -> xr.Dataset:
    """The group ``sample_stats`` as a dataset, empty if there is none, on both majors."""
    found = group_of(idata, "sample_stats")
    return xr.Dataset() if found is None else found


def group_of(idata: Any, name: str) -> xr.Dataset | None:
    """A group as a dataset, or None, on both majors."""
    try:
        return _dataset(idata[name])
    except KeyError:
        return None


def _dataset(group: Any) -> xr.Dataset:
    return group if isinstance(group, xr.Dataset) else group.to_dataset()


def draws_of(data: xr.Dataset, name: str) -> np.ndarray:
    """A variable as float64 ``[chain, draw]``, or an error that says what there is."""
    if name not in data:
        raise ValueError(f"The draws hold {list(data)}, but no `{name}`, which is needed here.")
    return data[name].transpose("chain", "draw").to_numpy().astype(np.float64)


def penalty_of(idata: Any) -> tuple[np.ndarray | None, str]:
    """``½ Σ_s γ_s |z_s - z*_s|²`` of each draw, or None and what to do about it."""
    kept, gamma = statistics(idata), posterior(idata).attrs.get("localization")
    if "penalty" in kept:
        return draws_of(kept, "penalty"), ""
    if not isinstance(gamma, numbers.Real):
        return None, (
            f"γ is {gamma}, and the distances by site are not stored. Use one `localization` for "
            "all sites, or store ½ Σ γ_s |z_s - z*_s|² as `penalty` in sample_stats."
        )
    if "distance" not in kept:
        return None, "sample_stats must hold `distance`, from the centre in unconstrained space."
    return 0.5 * float(gamma) * draws_of(kept, "distance") ** 2, ""


def moments(data: xr.Dataset, names: Sequence[str]) -> pd.DataFrame:
    """ArviZ's mean, error, effective sample sizes and R-hat of variables, a row each."""
    copy = data.copy()  # ArviZ 1 writes into the attrs of what it is given.
    with np.errstate(invalid="ignore", divide="ignore"):  # of draws that are all alike
        table = az.summary(copy, var_names=list(names), round_to="none")
    return table[["mean", "sd", "mcse_mean", "ess_bulk", "ess_tail", "r_hat"]].astype(float)


def loo_of(draws: xr.Dataset, log_likelihood: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ArviZ's PSIS-LOO, datum by datum: expected log density, and the Pareto shape.

    Parameters
    ----------
    draws : xarray.Dataset
        The posterior, from which the efficiency of the draws is.
    log_likelihood : array [chain, draw, datum]
    """
    values = xr.Dataset({"x": (("chain", "draw", "datum"), log_likelihood)})
    # On both majors the numbers say whether it failed; that is for the caller to judge.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: Any = az.loo(
            inference_data({"posterior": draws, "log_likelihood": values}, draws.attrs),
            pointwise=True,
        )
    by_datum = found.elpd_i if _IS_DATATREE else found.loo_i
    return np.asarray(by_datum, np.float64), np.asarray(found.pareto_k, np.float64)


class MonteCarlo(NamedTuple):
    """Mean of a quantity over draws, its Monte Carlo error, effective sample size and R-hat."""

    mean: float
    error: float
    ess: float
    r_hat: float


def monte_carlo(values: np.ndarray) -> MonteCarlo:
    """ArviZ's numbers for draws ``[chain, draw]``; NaN where they cannot be had."""
    if values.shape[1] < 4 or not np.all(np.isfinite(values)):
        return MonteCarlo(float(np.mean(values)), *(float("nan"),) * 3)
    one_chain = len(values) == 1
    if np.ptp(values) == 0:
        r_hat = float("nan") if one_chain else 1.0
        return MonteCarlo(float(values.flat[0]), 0.0, float(values.size), r_hat)
    data = xr.Dataset({"x": (("chain", "draw"), values)})

    def number(function: Any, **options: Any) -> float:
        with np.errstate(invalid="ignore", divide="ignore"):  # of chains that stand still
            return float(function(data, **options)["x"])

    return MonteCarlo(
        float(np.mean(values)),
        number(az.mcse, method="mean"),
        number(az.ess, method="bulk"),
        float("nan") if one_chain else number(az.rhat),
    )
