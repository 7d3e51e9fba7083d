"""The summary of a result: λ̂ and its error, and other estimators of the same draws beside it."""

import numbers
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from numpyro_llc._checks import check_positive
from numpyro_llc.errors import warn
from numpyro_llc.estimators import Row, rows_of, two_runs
from numpyro_llc.inference_data import (
    Groups,
    InferenceData,
    draws_of,
    moments,
    monte_carlo,
    penalty_of,
    posterior,
    statistics,
)
from numpyro_llc.results._budget import error_budget
from numpyro_llc.results.checks import explain_disagreement, standing_still


def summary(
    idata: InferenceData | Groups,
    *,
    var_names: str | Sequence[str] = ("llc",),
    ci_prob: float = 0.9,
    estimators: str | Sequence[str] | None = None,
    multiplicity: int | None = None,
    budget: bool = False,
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
    budget : bool
        Add the other errors of λ̂ as columns ``evaluation_error``, ``step_size_bias``,
        ``localization_bias`` and ``data_error``; see :func:`error_budget`.

    Returns
    -------
    pandas.DataFrame
        Columns ``mean`` (λ̂ in row ``llc``), ``sd`` of the draws, ``mcse_mean``, an interval
        ``ci<percent>_lb`` and ``ci<percent>_ub`` for the mean (normal, from ``mcse_mean``),
        ``ess_bulk``, ``ess_tail``, ``r_hat``. All but the interval are ArviZ's. Of estimators,
        ``mean`` is the estimate and the rest is of what each draw contributes to it, without
        ``sd`` and ``ess_tail``; the interval of one that takes a root is not symmetric, and its
        ``mcse_mean`` is half the width of the interval of one standard error. What is doubtful
        about one comes as an ``LLCWarning``, and so does the reason if mean and variance disagree:
        the centre, γ, a multiplicity, or the mixing; :func:`diagnose` says that too. Where γ
        alone bounds a flat set, as for homogeneous losses such as ``(w1 w2)²``, a multiplicity
        above one looks like γ, and γ is named: the mean then goes on rising slowly as γ falls.

    Notes
    -----
    The interval is of λ̂, not of the draws. It covers the Monte Carlo error only: not the data
    (another data set gives another λ̂), nor the effect of γ or of a finite n.
    """
    ci_prob = _check_probability(ci_prob)
    if not isinstance(var_names, str | Iterable):
        raise TypeError(f"`var_names` must be one or more names; got {var_names!r}.")
    names = [var_names] if isinstance(var_names, str) else list(var_names)
    draws = _posterior("idata", idata)
    if estimators is not None:
        if budget:
            raise ValueError("`budget` is of variables; leave it or `estimators` out.")
        if names != ["llc"]:
            raise ValueError(f"`estimators` are of `llc` alone; leave out `var_names` ({names}).")
        return _named(_estimates(idata, estimators, multiplicity, _errors(ci_prob)), ci_prob)
    if multiplicity is not None:
        raise ValueError("`multiplicity` is for `estimators`; name them, or leave it out.")
    if unknown := [name for name in names if name not in draws]:
        raise ValueError(f"`var_names` names {unknown}; the posterior has {list(draws)}.")
    table = moments(draws, names)
    half = _errors(ci_prob) * table["mcse_mean"]
    place = table.columns.get_loc("mcse_mean")
    table.insert(place + 1, "lower", table["mean"] - half)
    table.insert(place + 2, "upper", table["mean"] + half)
    if budget:
        for source, (value, kind) in error_budget(idata).drop(index="monte_carlo").iterrows():
            table[f"{source}_{kind}"] = np.where(table.index == "llc", value, np.nan)
    return _named(table, ci_prob)


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
        If n, the number of parameters, γ or the loss at the centre differ, or if β does not. Data
        and centre themselves are not compared.

    Notes
    -----
    Watanabe (2013), JMLR 14:867-897: ``(E_b1[nL] - E_b2[nL]) / (1/b1 - 1/b2)``.
    """
    ci_prob = _check_probability(ci_prob)
    runs = (_posterior("idata", idata).attrs, _posterior("other", other).attrs)
    for name in ("num_data", "num_parameters", "localization", "center_loss"):
        if not _same(*(run.get(name) for run in runs)):
            raise ValueError(
                f"The runs must have the same `{name}`; got {runs[0].get(name)} and "
                f"{runs[1].get(name)}. They may differ in `inverse_temperature` only."
            )
    first, second = (draws_of(statistics(run), "loss") for run in (idata, other))
    betas: list[Any] = [run.get("inverse_temperature") for run in runs]
    parts = two_runs(first, betas[0], second, betas[1])
    one, two = (monte_carlo(part.influence) for part in parts)
    value, error = parts[0].value + parts[1].value, float(np.hypot(one.error, two.error))
    half = _errors(ci_prob) * error
    ess, r_hat = min(one.ess, two.ess), max(one.r_hat, two.r_hat)
    row = Row(value, error, value - half, value + half, ess, r_hat)
    return _named(_rows({"two_temperatures": row}), ci_prob)


def _posterior(name: str, result: InferenceData | Groups) -> xr.Dataset:
    try:
        return posterior(result)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise TypeError(
            f"`{name}` must be a result with draws, as estimate_llc and from_numpyro return it; "
            f"got {type(result).__name__} without a group `posterior`."
        ) from None


def _check_probability(ci_prob: float) -> float:
    ci_prob = check_positive("ci_prob", ci_prob, meaning="It is a probability, such as 0.9.")
    if ci_prob >= 1:
        raise ValueError(f"`ci_prob` must be below 1; got {ci_prob}. It is a probability.")
    return ci_prob


def _same(one: object, two: object) -> bool:
    if isinstance(one, numbers.Real) and isinstance(two, numbers.Real):
        return bool(np.isclose(float(one), float(two), rtol=1e-5, atol=0.0))
    return bool(one == two)


def _rows(rows: Mapping[str, Row]) -> pd.DataFrame:
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(Row._fields)).astype(float)


def _estimates(
    idata: InferenceData | Groups,
    estimators: str | Sequence[str],
    multiplicity: int | None,
    errors: float,
) -> pd.DataFrame:
    """Rows of the estimators; warns of what is doubtful."""
    penalty, remedy = penalty_of(idata)
    llc = draws_of(posterior(idata), "llc")
    rows, findings = rows_of(
        estimators,
        llc,
        {"penalty": penalty, "multiplicity": multiplicity},
        {"penalty": remedy},
        monte_carlo,
        errors=errors,
    )
    if {"mean", "variance"} <= rows.keys():
        findings += explain_disagreement(llc, penalty, monte_carlo=monte_carlo)
    else:
        findings += standing_still(llc)
    if findings:
        warn(" ".join(findings))
    return _rows(rows)


def _errors(ci_prob: float) -> float:
    """Half the width of an interval, in standard errors."""
    return NormalDist().inv_cdf(0.5 + 0.5 * ci_prob)


def _named(table: pd.DataFrame, ci_prob: float) -> pd.DataFrame:
    percent = f"{100 * ci_prob:g}"
    return table.rename(columns={"lower": f"ci{percent}_lb", "upper": f"ci{percent}_ub"})
