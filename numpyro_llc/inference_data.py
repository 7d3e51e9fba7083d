"""Draws to labelled data: the only file that knows ArviZ's container and its two majors."""

import datetime
import json
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
import xarray as xr

from numpyro_llc._checks import check_positive

with warnings.catch_warnings():
    # ArviZ 0.23 announces ArviZ 1 at its import, once a day, to users who did not import it.
    warnings.simplefilter("ignore", FutureWarning)
    import arviz as az

_IS_DATATREE = int(version("arviz").split(".")[0]) >= 1


def variable_name(site: str) -> str:
    """Site name as netCDF and Zarr allow it: ``net/Dense_0.kernel`` is ``net.Dense_0.kernel``."""
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
                dims[axis] = plate
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
    group = idata["posterior"]
    return group if isinstance(group, xr.Dataset) else group.to_dataset()


def summary(
    idata: Any, *, var_names: str | Sequence[str] = ("llc",), ci_prob: float = 0.9
) -> pd.DataFrame:
    """λ̂ and its Monte Carlo error, one row a variable.

    Parameters
    ----------
    idata
        What :func:`~numpyro_llc.estimate_llc` or :func:`~numpyro_llc.from_numpyro` returned, or
        its file read back with ArviZ.
    var_names : str or sequence of str
        Posterior variables to list.
    ci_prob : float in (0, 1)
        Probability of the interval.

    Returns
    -------
    pandas.DataFrame
        Columns ``mean`` (λ̂ in row ``llc``), ``sd`` of the draws, ``mcse_mean``, an interval
        ``ci<percent>_lb`` and ``ci<percent>_ub`` for the mean (normal, from ``mcse_mean``),
        ``ess_bulk``, ``ess_tail``, ``r_hat``. All but the interval are ArviZ's.

    Notes
    -----
    The interval is of λ̂, not of the draws. It covers the Monte Carlo error only: not the data
    (another data set gives another λ̂), nor the effect of γ or of a finite n.
    """
    ci_prob = check_positive("ci_prob", ci_prob, meaning="It is a probability, such as 0.9.")
    if ci_prob >= 1:
        raise ValueError(f"`ci_prob` must be below 1; got {ci_prob}. It is a probability.")
    names = [var_names] if isinstance(var_names, str) else list(var_names)
    unknown = [name for name in names if name not in posterior(idata)]
    if unknown:
        raise ValueError(
            f"`var_names` names {unknown}; the posterior has {list(posterior(idata))}."
        )
    data = posterior(idata).copy()  # ArviZ 1 writes into the attrs of what it is given.
    with np.errstate(invalid="ignore", divide="ignore"):  # of draws that are all alike
        table = az.summary(data, var_names=names, round_to="none")
    table = table[["mean", "sd", "mcse_mean", "ess_bulk", "ess_tail", "r_hat"]].astype(float)
    half = _normal_quantile(0.5 + 0.5 * ci_prob) * table["mcse_mean"]
    percent = f"{100 * ci_prob:g}"
    table.insert(3, f"ci{percent}_lb", table["mean"] - half)
    table.insert(4, f"ci{percent}_ub", table["mean"] + half)
    return table


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
    if np.ptp(values) == 0:
        return MonteCarlo(float(values.flat[0]), 0.0, float(values.size), 1.0)
    data = xr.Dataset({"x": (("chain", "draw"), values)})

    def number(function: Any, **options: Any) -> float:
        return float(function(data, **options)["x"])

    return MonteCarlo(
        float(np.mean(values)),
        number(az.mcse, method="mean"),
        number(az.ess, method="bulk"),
        number(az.rhat) if values.shape[0] > 1 else 1.0,
    )


def _normal_quantile(probability: float) -> float:
    return float(jax.scipy.special.ndtri(probability))
