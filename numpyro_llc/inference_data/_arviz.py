"""Draws to labelled data: the only file that knows ArviZ's container and its two majors."""

import datetime
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

with warnings.catch_warnings():
    # ArviZ 0.23 announces ArviZ 1 at its import, once a day, to users who did not import it.
    warnings.simplefilter("ignore", FutureWarning)
    import arviz as az

_IS_DATATREE = int(version("arviz").split(".")[0]) >= 1
COUNTS_UNNAMED_AXES = _IS_DATATREE
"""``w_dim_k`` is the axis k of a variable with ArviZ 0, and its k-th axis without a name with 1."""

if TYPE_CHECKING:
    InferenceData: TypeAlias = "az.InferenceData | xr.DataTree"
else:
    InferenceData = xr.DataTree if _IS_DATATREE else az.InferenceData
"""A result: ``arviz.InferenceData`` under ArviZ 0, ``xarray.DataTree`` under ArviZ 1."""

Table = pd.DataFrame
"""A row for each quantity, its numbers in columns."""
Groups = Mapping[str, xr.Dataset]
"""The groups of a result before they are put together."""


LEAST_DRAWS = 20
"""Draws of a chain from which its autocorrelation can be told. Of 4 chains of 8 the effective
sample size is ArviZ's cap whatever the draws, and the error up to three times too small; of 20
independent draws it is the cap in 8 % of runs, and of 25 in none."""


def attributes(settings: Mapping[str, object]) -> dict[str, object]:
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


def inference_data(groups: Groups, attrs: Mapping[str, object]) -> InferenceData:
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


def read_netcdf(path: str | os.PathLike[str]) -> InferenceData:
    """A saved result; both majors read the files of either.

    Raises
    ------
    ValueError
        If there is no such file, if it is not netCDF, or if it holds no group ``posterior`` with
        ``llc``, as the tables of sweeps do.
    """
    if not os.path.isfile(path):
        raise ValueError(f"There is no file {os.fspath(path)}.")
    try:
        found = az.from_netcdf(os.fspath(path))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{os.fspath(path)} cannot be read as netCDF ({type(error).__name__}). Give a file "
            "that `to_netcdf` of a result wrote."
        ) from error
    draws = group_of(found, "posterior")
    if draws is None or "llc" not in draws:
        raise ValueError(
            f"{os.fspath(path)} holds no draws of `llc` in a group `posterior`: it is not the "
            "result of one run. Give a file that `to_netcdf` of a result wrote."
        )
    return found


def posterior(idata: InferenceData | Groups) -> xr.Dataset:
    """The posterior group as a dataset, on both majors."""
    return _dataset(idata["posterior"])


def checked_posterior(name: str, result: InferenceData | Groups) -> xr.Dataset:
    """The posterior group of an argument called `name`, or an error that says what it must be."""
    try:
        return posterior(result)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise TypeError(
            f"`{name}` must be a result with draws, as estimate_llc and from_numpyro return it; "
            f"got {type(result).__name__} without a group `posterior`."
        ) from None


def statistics(idata: InferenceData | Groups) -> xr.Dataset:
    """The group ``sample_stats`` as a dataset, empty if there is none, on both majors."""
    found = group_of(idata, "sample_stats")
    return xr.Dataset() if found is None else found


def group_of(idata: InferenceData | Groups, name: str) -> xr.Dataset | None:
    """A group as a dataset, or None, on both majors."""
    try:
        return _dataset(idata[name])
    except KeyError:
        return None


def _dataset(group: xr.Dataset | xr.DataTree | xr.DataArray) -> xr.Dataset:
    return group if isinstance(group, xr.Dataset) else group.to_dataset()


def draws_of(data: xr.Dataset, name: str) -> np.ndarray:
    """A variable as float64 ``[chain, draw]``, or an error that says what there is."""
    if name not in data:
        raise ValueError(f"The draws hold {list(data)}, but no `{name}`, which is needed here.")
    return data[name].transpose("chain", "draw").to_numpy().astype(np.float64)


MOMENTS = ["mean", "sd", "mcse_mean", "ess_bulk", "ess_tail", "r_hat"]


def moments(data: xr.Dataset, names: Sequence[str]) -> pd.DataFrame:
    """ArviZ's mean, error, effective sample sizes and R-hat of variables, a row each.

    Of fewer than ``LEAST_DRAWS`` draws a chain all but mean and standard deviation are NaN.
    """
    if data.sizes["draw"] < LEAST_DRAWS:
        return _short_moments(data, names)
    copy = data.copy()  # ArviZ 1 writes into the attrs of what it is given.
    with np.errstate(invalid="ignore", divide="ignore"):  # of draws that are all alike
        table = az.summary(copy, var_names=list(names), round_to="none")
    return table[MOMENTS].astype(float)


def _short_moments(data: xr.Dataset, names: Sequence[str]) -> pd.DataFrame:
    """The table with the labels that ArviZ gives its rows: ``w``, ``w[0]``, ``w[0, 1]``, ..."""
    rows: dict[str, tuple[float, ...]] = {}
    for name in names:
        values = data[name].transpose("chain", "draw", ...).to_numpy().astype(np.float64)
        coords = [data[name][dim].to_numpy() for dim in data[name].dims if dim not in _DRAWS]
        for place in np.ndindex(values.shape[2:]):
            label = ", ".join(str(coord[k]) for coord, k in zip(coords, place, strict=True))
            row = moments_of_draws(values[(..., *place)])
            rows[f"{name}[{label}]" if place else name] = tuple(row.values())
    return pd.DataFrame.from_dict(rows, orient="index", columns=MOMENTS).astype(float)


def moments_of_draws(values: np.ndarray) -> dict[str, float]:
    """The row of :func:`moments` of one quantity ``[chain, draw]``, without a table of it."""
    row = dict.fromkeys(MOMENTS, float("nan"))
    row["mean"] = float(np.mean(values))
    if values.size > 1:
        row["sd"] = float(np.std(values, ddof=1))
    if values.shape[1] < LEAST_DRAWS:
        return row
    data = xr.Dataset({"x": (("chain", "draw"), values)})  # whose tail both majors choose
    with np.errstate(invalid="ignore", divide="ignore"):
        row["mcse_mean"] = float(az.mcse(values, method="mean"))
        row["ess_bulk"] = float(az.ess(values, method="bulk"))
        row["ess_tail"] = float(az.ess(data, method="tail")["x"])
        if len(values) > 1:
            row["r_hat"] = float(az.rhat(values))
    return row


_DRAWS = ("chain", "draw")


def comparison_columns(
    elpd: np.ndarray, penalty: np.ndarray, below_best: np.ndarray
) -> dict[str, ArrayLike]:
    """What ``arviz.plot_compare`` reads beside ``rank``, ``se`` and ``dse``, by its names for it.

    Parameters
    ----------
    elpd, penalty, below_best : array [model]
        A log density of the data, how much less it is than that of the fit, and than the best.
    """
    if _IS_DATATREE:
        return {"elpd": elpd, "p": penalty, "elpd_diff": -below_best}
    return {"elpd_loo": elpd, "p_loo": penalty, "elpd_diff": below_best, "scale": "log"}


def loo_of(draws: xr.Dataset, log_likelihood: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ArviZ's PSIS-LOO, datum by datum: expected log density, and the Pareto shape.

    A datum that is the same at all draws, as behind a mask, has that value and the shape 0; ArviZ 1
    takes none of these.

    Parameters
    ----------
    draws : xarray.Dataset
        The posterior, from which the efficiency of the draws is.
    log_likelihood : array [chain, draw, datum]
    """
    by_datum, shapes = log_likelihood[0, 0].astype(np.float64), np.zeros(log_likelihood.shape[2])
    varies = np.ptp(log_likelihood, axis=(0, 1)) > 0
    if varies.any():
        by_datum[varies], shapes[varies] = _arviz_loo(draws, log_likelihood[..., varies])
    return by_datum, shapes


def _arviz_loo(draws: xr.Dataset, log_likelihood: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
    if not _can_be_judged(values):
        return MonteCarlo(float(np.mean(values)), *(float("nan"),) * 3)
    error, one_chain = error_of_mean(values), len(values) == 1
    if np.ptp(values) == 0:
        r_hat = float("nan") if one_chain else 1.0
        return MonteCarlo(float(values.flat[0]), error, float(values.size), r_hat)
    with np.errstate(invalid="ignore", divide="ignore"):  # of chains that stand still
        ess = float(az.ess(values, method="bulk"))
        r_hat = float("nan") if one_chain else float(az.rhat(values))
    return MonteCarlo(float(np.mean(values)), error, ess, r_hat)


def error_of_mean(values: np.ndarray) -> float:
    """The error of :func:`monte_carlo` alone, for a third of the time."""
    if not _can_be_judged(values):
        return float("nan")
    if np.ptp(values) == 0:
        return 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(az.mcse(values, method="mean"))


def _can_be_judged(values: np.ndarray) -> bool:
    return values.shape[1] >= LEAST_DRAWS and bool(np.all(np.isfinite(values)))
