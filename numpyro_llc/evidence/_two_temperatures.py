"""``two_temperature_summary``: λ from two runs, without the loss at the centre."""

import numbers

import numpy as np
import pandas as pd

from numpyro_llc.estimators import Row, two_runs
from numpyro_llc.inference_data import (
    InferenceData,
    checked_posterior,
    draws_of,
    monte_carlo,
    statistics,
)
from numpyro_llc.results import (
    RunReport,
    check_probability,
    half_width,
    named,
    report_of,
    table_of_rows,
)

SAME = 1e-5
"""Relative difference of two numbers, γ or losses in float32, that counts as none."""


def two_temperature_summary(
    idata: InferenceData, other: InferenceData, *, ci_prob: float = 0.9
) -> pd.DataFrame:
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
        One row ``two_temperatures``, with the columns of :func:`~numpyro_llc.summary` for
        estimators; ``ess_bulk`` is the smaller, ``r_hat`` the larger of the two.

    Raises
    ------
    ValueError
        If n, the number of parameters, γ or the loss at the centre differ, or if β does not. Data
        and centre themselves are not compared.

    Notes
    -----
    Watanabe (2013), JMLR 14:867-897: ``(E_b1[nL] - E_b2[nL]) / (1/b1 - 1/b2)``.
    """
    ci_prob = check_probability(ci_prob)
    for name, run in (("idata", idata), ("other", other)):
        checked_posterior(name, run)
    first, second = report_of(idata), report_of(other)
    _check_alike(first, second)
    parts = two_runs(
        draws_of(statistics(idata), "loss"),
        first.number("inverse_temperature"),
        draws_of(statistics(other), "loss"),
        second.number("inverse_temperature"),
    )
    one, two = (monte_carlo(part.influence) for part in parts)
    value, error = parts[0].value + parts[1].value, float(np.hypot(one.error, two.error))
    half = half_width(ci_prob) * error
    ess, r_hat = min(one.ess, two.ess), max(one.r_hat, two.r_hat)
    row = Row(value, error, value - half, value + half, ess, r_hat)
    return named(table_of_rows({"two_temperatures": row}), ci_prob)


def _check_alike(first: RunReport, second: RunReport) -> None:
    for name in ("truth", "num_data", "num_parameters", "localization", "center_loss"):
        one, two = getattr(first, name), getattr(second, name)
        if not _same(one, two):
            raise ValueError(
                f"The runs must have the same `{name}`; got {one} and {two}. They may differ in "
                "`inverse_temperature` only."
            )


def _same(one: object, two: object) -> bool:
    if isinstance(one, numbers.Real) and isinstance(two, numbers.Real):
        return bool(np.isclose(float(one), float(two), rtol=SAME, atol=0.0))
    return one == two
