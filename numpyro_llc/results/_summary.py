"""The summary of a result: λ̂ and its error, and other estimators of the same draws beside it."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from numpyro_llc.errors import warn
from numpyro_llc.estimators import rows_of
from numpyro_llc.inference_data import (
    LEAST_DRAWS,
    Groups,
    InferenceData,
    checked_posterior,
    draws_of,
    moments,
    monte_carlo,
    posterior,
)
from numpyro_llc.results._budget import error_budget
from numpyro_llc.results._intervals import check_probability, half_width, named, table_of_rows
from numpyro_llc.results._penalty import penalty_of, share_columns, virial_of
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
        Names in :data:`numpyro_llc.estimators.ESTIMATORS`, or ``"all"`` for those that the draws
        and `multiplicity` allow. Each is a row, instead of the variables, from the same draws.
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
        ``ess_bulk``, ``ess_tail``, ``r_hat``. All these but the interval are ArviZ's. Then
        ``localization_share``, the share of λ̂ that γ takes, and its error ``mcse_share``, NaN where
        they are not known: near 1, γ and not the loss bounds the draws. For estimators, ``mean``
        is the estimate, and the other columns, without ``sd`` and ``ess_tail``, are of what each
        draw contributes to it. If an estimator takes a root, its interval is not symmetric, and
        ``mcse_mean`` is half the width of the interval of one standard error. Doubts about an
        estimator come as an ``LLCWarning``. If mean and variance disagree, it names the cause: the
        centre, γ, a multiplicity, or the mixing. For homogeneous losses such as ``(w1 w2)²``, γ
        alone bounds a flat set, and a multiplicity above one cannot be told from γ; the warning
        then names γ.

    Warns
    -----
    LLCWarning
        With fewer than 20 draws a chain, of which no error can be told: all but ``mean`` and ``sd``
        are NaN. What is doubtful about estimators.

    Notes
    -----
    The interval is of λ̂, not of the draws. It covers the Monte Carlo error only: not the data
    (another data set gives another λ̂), nor the effect of γ or of a finite n.
    """
    ci_prob = check_probability(ci_prob)
    if not isinstance(var_names, str | Iterable):
        raise TypeError(f"`var_names` must be one or more names; got {var_names!r}.")
    names = [var_names] if isinstance(var_names, str) else list(var_names)
    draws = checked_posterior("idata", idata)
    if estimators is not None:
        if budget:
            raise ValueError(
                "`budget` adds columns to the row of `llc`, and `estimators` has rows of its own. "
                "Leave one of them out."
            )
        if names != ["llc"]:
            raise ValueError(
                f"`estimators` estimate λ from `llc` alone; leave out `var_names` ({names})."
            )
        return named(_estimates(idata, estimators, multiplicity, half_width(ci_prob)), ci_prob)
    if multiplicity is not None:
        raise ValueError("`multiplicity` is for `estimators`; name them, or leave it out.")
    if unknown := [name for name in names if name not in draws]:
        raise ValueError(f"`var_names` names {unknown}; the posterior has {list(draws)}.")
    table = moments(draws, names)
    if too_few := few_draws(draws):
        warn(too_few)
    half = half_width(ci_prob) * table["mcse_mean"]
    place = table.columns.get_loc("mcse_mean")
    table.insert(place + 1, "lower", table["mean"] - half)
    table.insert(place + 2, "upper", table["mean"] + half)
    of_llc = share_columns(idata)
    if budget:
        for source, row in error_budget(idata).drop(index="monte_carlo").iterrows():
            of_llc[f"{source}_{row['kind']}"] = row["value"]
    for name, value in of_llc.items():
        table[name] = np.where(table.index == "llc", value, np.nan)
    return named(table, ci_prob)


def few_draws(draws: xr.Dataset) -> str:
    """Say so if the draws are too few for errors."""
    if draws.sizes["draw"] >= LEAST_DRAWS:
        return ""
    return (
        f"Each chain has {draws.sizes['draw']} draw(s) (want at least {LEAST_DRAWS}): the "
        "errors, the effective sample sizes and R-hat cannot be told from so few, and are NaN. "
        "Raise `num_samples`."
    )


def _estimates(
    idata: InferenceData | Groups,
    estimators: str | Sequence[str],
    multiplicity: int | None,
    errors: float,
) -> pd.DataFrame:
    """Rows of the estimators; warns of what is doubtful."""
    penalty, remedy = penalty_of(idata)
    llc, virial = draws_of(posterior(idata), "llc"), virial_of(idata)
    rows, findings = rows_of(
        estimators,
        llc,
        {"penalty": penalty, "multiplicity": multiplicity, "virial": virial},
        {"penalty": remedy},
        monte_carlo,
        errors=errors,
    )
    if {"mean", "variance"} <= rows.keys():
        findings += explain_disagreement(llc, penalty, virial, monte_carlo=monte_carlo)
    else:
        findings += standing_still(llc)
    if too_few := few_draws(posterior(idata)):
        findings = [too_few]  # what else there is says no more
    if findings:
        warn(" ".join(findings))
    return table_of_rows(rows)
