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

from numpyro_llc._checks import check_positive
from numpyro_llc.errors import LLCWarning
from numpyro_llc.estimators import Row, explain_disagreement, rows_of, two_runs

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
    return _dataset(idata["posterior"])


def _statistics(idata: Any) -> xr.Dataset:
    try:
        return _dataset(idata["sample_stats"])
    except KeyError:
        return xr.Dataset()


def _dataset(group: Any) -> xr.Dataset:
    return group if isinstance(group, xr.Dataset) else group.to_dataset()


def summary(
    idata: Any,
    *,
    var_names: str | Sequence[str] = ("llc",),
    ci_prob: float = 0.9,
    estimators: str | Sequence[str] | None = None,
    multiplicity: int | None = None,
) -> pd.DataFrame:
    """λ̂ and its Monte Carlo error, one row a variable; or one row an estimator.

    Parameters
    ----------
    idata
        What :func:`~numpyro_llc.estimate_llc` or :func:`~numpyro_llc.from_numpyro` returned, or
        its file read back with ArviZ.
    var_names : str or sequence of str
        Posterior variables to list.
    ci_prob : float in (0, 1)
        Probability of the interval.
    estimators : str or sequence of str, optional
        Names in :data:`numpyro_llc.estimators.ESTIMATORS`, or ``"all"`` that the draws and
        `multiplicity` suffice for: rows of these, all from the same draws, instead of variables.
    multiplicity : int, optional
        m, for the estimators that correct for it.

    Returns
    -------
    pandas.DataFrame
        Columns ``mean`` (λ̂ in row ``llc``), ``sd`` of the draws, ``mcse_mean``, an interval
        ``ci<percent>_lb`` and ``ci<percent>_ub`` for the mean (normal, from ``mcse_mean``),
        ``ess_bulk``, ``ess_tail``, ``r_hat``. All but the interval are ArviZ's. Of estimators,
        ``mean`` is the estimate and the rest is of what each draw contributes to it, without
        ``sd`` and ``ess_tail``; what is doubtful about one comes as an ``LLCWarning``.

    Notes
    -----
    The interval is of λ̂, not of the draws. It covers the Monte Carlo error only: not the data
    (another data set gives another λ̂), nor the effect of γ or of a finite n.
    """
    ci_prob = _check_probability(ci_prob)
    names = [var_names] if isinstance(var_names, str) else list(var_names)
    if estimators is not None:
        if names != ["llc"]:
            raise ValueError(f"`estimators` are of `llc` alone; leave out `var_names` ({names}).")
        return _with_interval(_estimates(idata, estimators, multiplicity), ci_prob)
    if multiplicity is not None:
        raise ValueError("`multiplicity` is for `estimators`; name them, or leave it out.")
    unknown = [name for name in names if name not in posterior(idata)]
    if unknown:
        raise ValueError(
            f"`var_names` names {unknown}; the posterior has {list(posterior(idata))}."
        )
    data = posterior(idata).copy()  # ArviZ 1 writes into the attrs of what it is given.
    with np.errstate(invalid="ignore", divide="ignore"):  # of draws that are all alike
        table = az.summary(data, var_names=names, round_to="none")
    table = table[["mean", "sd", "mcse_mean", "ess_bulk", "ess_tail", "r_hat"]].astype(float)
    return _with_interval(table, ci_prob)


def two_run_summary(idata: Any, other: Any, *, ci_prob: float = 0.9) -> pd.DataFrame:
    """λ from two runs at different inverse temperatures, without the centre's loss.

    Parameters
    ----------
    idata, other
        Runs on the same data, around the same centre and with the same γ, at two values of
        ``inverse_temperature``, such as ``1 / log(n)`` and ``1.5 / log(n)``.
    ci_prob : float in (0, 1)
        Probability of the interval.

    Returns
    -------
    pandas.DataFrame
        One row ``two_temperatures``, with the columns of ``summary`` for estimators;
        ``ess_bulk`` is the smaller, ``r_hat`` the larger of the two.

    Raises
    ------
    ValueError
        If the runs differ in anything else, or not in temperature.

    Notes
    -----
    Watanabe (2013), JMLR 14:867-897: ``(E_b1[nL] - E_b2[nL]) / (1/b1 - 1/b2)``.
    """
    ci_prob = _check_probability(ci_prob)
    runs = (posterior(idata).attrs, posterior(other).attrs)
    for name in ("num_data", "num_parameters", "localization", "center_loss"):
        if not _same(*(run.get(name) for run in runs)):
            raise ValueError(
                f"The runs must have the same `{name}`; got {runs[0].get(name)} and "
                f"{runs[1].get(name)}. They may differ in `inverse_temperature` only."
            )
    first, second = (_draws(_statistics(run), "loss") for run in (idata, other))
    betas: list[Any] = [run.get("inverse_temperature") for run in runs]
    parts = two_runs(first, betas[0], second, betas[1])
    one, two = (monte_carlo(part.influence) for part in parts)
    row = Row(
        parts[0].value + parts[1].value,
        float(np.hypot(one.error, two.error)),
        min(one.ess, two.ess),
        max(one.r_hat, two.r_hat),
    )
    return _with_interval(_rows({"two_temperatures": row}), ci_prob)


def explain(idata: Any) -> list[str]:
    """Why the estimators of a run disagree, if they do.

    See :func:`numpyro_llc.estimators.explain_disagreement`.
    """
    penalty, _ = _penalty(idata)
    return explain_disagreement(_draws(posterior(idata), "llc"), penalty, monte_carlo=monte_carlo)


def _check_probability(ci_prob: Any) -> float:
    ci_prob = check_positive("ci_prob", ci_prob, meaning="It is a probability, such as 0.9.")
    if ci_prob >= 1:
        raise ValueError(f"`ci_prob` must be below 1; got {ci_prob}. It is a probability.")
    return ci_prob


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, numbers.Real) and isinstance(two, numbers.Real):
        return bool(np.isclose(float(one), float(two), rtol=1e-5, atol=0.0))
    return bool(one == two)


def _rows(rows: Mapping[str, Row]) -> pd.DataFrame:
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(Row._fields)).astype(float)


def _estimates(
    idata: Any, estimators: str | Sequence[str], multiplicity: int | None
) -> pd.DataFrame:
    """Rows of the estimators, without the interval; warns of what is doubtful."""
    penalty, remedy = _penalty(idata)
    rows, findings = rows_of(
        estimators,
        _draws(posterior(idata), "llc"),
        {"penalty": penalty, "multiplicity": multiplicity},
        {"penalty": remedy},
        monte_carlo,
    )
    if findings:
        warnings.warn(" ".join(findings), LLCWarning, stacklevel=3)
    return _rows(rows)


def _draws(data: xr.Dataset, name: str) -> np.ndarray:
    if name not in data:
        raise ValueError(f"The draws hold {list(data)}, but no `{name}`, which is needed here.")
    return data[name].transpose("chain", "draw").to_numpy().astype(np.float64)


def _penalty(idata: Any) -> tuple[np.ndarray | None, str]:
    """``½ Σ_s γ_s |z_s - z*_s|²`` of each draw, or None and what to do about it."""
    statistics, gamma = _statistics(idata), posterior(idata).attrs.get("localization")
    if "penalty" in statistics:
        return _draws(statistics, "penalty"), ""
    if not isinstance(gamma, numbers.Real):
        return None, (
            f"γ is {gamma}, and the distances by site are not stored. Use one `localization` for "
            "all sites, or store ½ Σ γ_s |z_s - z*_s|² as `penalty` in sample_stats."
        )
    if "distance" not in statistics:
        return None, "sample_stats must hold `distance`, from the centre in unconstrained space."
    return 0.5 * float(gamma) * _draws(statistics, "distance") ** 2, ""


def _with_interval(table: pd.DataFrame, ci_prob: float) -> pd.DataFrame:
    half = _normal_quantile(0.5 + 0.5 * ci_prob) * table["mcse_mean"]
    percent = f"{100 * ci_prob:g}"
    place = table.columns.get_loc("mcse_mean")
    table.insert(place + 1, f"ci{percent}_lb", table["mean"] - half)
    table.insert(place + 2, f"ci{percent}_ub", table["mean"] + half)
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
