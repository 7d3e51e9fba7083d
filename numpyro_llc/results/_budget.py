"""The error budget of λ̂: what it is uncertain by, source by source."""

import numpy as np
import pandas as pd

from numpyro_llc.estimators import localization_pull
from numpyro_llc.inference_data import (
    Groups,
    InferenceData,
    draws_of,
    error_of_mean,
    posterior,
)
from numpyro_llc.results._penalty import penalty_of, virial_of
from numpyro_llc.results._report import report_of


def error_budget(idata: InferenceData | Groups) -> pd.DataFrame:
    """What λ̂ is uncertain by, source by source.

    Parameters
    ----------
    idata
        A result of :func:`~numpyro_llc.estimate_llc`; of ``from_numpyro`` as far as is known.

    Returns
    -------
    pandas.DataFrame
        A row for each source: ``value`` in units of λ̂, NaN if not known; ``kind``, "error" (a
        standard error) or "bias" (about what the source has added to λ̂); ``share``, the value
        over λ̂; ``mcse``, the Monte Carlo error of `value`, where it has one. ``monte_carlo``: too
        few draws. ``evaluation``: the recorded loss saw a part of the data. ``step_size``: the step
        is not zero (0 for NUTS and HMC, which are exact; with automatic steps an upper bound).
        ``localization``: what γ takes from λ̂, to first order. ``data``: the standard deviation of
        λ̂ over data sets of this size at the same ``w*``, see
        :func:`numpyro_llc.estimators.data_error`; with ``truth="center"`` over their inputs.
        ``draws``, only where divergences take draws from the truth at ``w*``: their number.

    Notes
    -----
    Not covered: a multiplicity above one and other terms in ``1 / log n``, a centre that is no
    minimum, regions that no chain visited, gradient noise that is not corrected (see ``diagnose``),
    rounding, and data sets each with its own minimum, over which λ̂ varies less than ``data`` says.
    """
    report, llc = report_of(idata), draws_of(posterior(idata), "llc")
    penalty, _ = penalty_of(idata)
    taken = taken_error = np.nan
    if penalty is not None:
        pull = localization_pull(llc, penalty, virial_of(idata))
        taken, taken_error = pull.value, error_of_mean(pull.influence)
    rows = {
        "monte_carlo": (error_of_mean(llc), "error"),
        "evaluation": (report.evaluation_error or 0.0, "error"),
        "step_size": (report.step_size_bias or 0.0, "bias"),
        "localization": (-taken, "bias"),
        "data": (np.nan if report.data_error is None else report.data_error, "error"),
    }
    if report.draws_error is not None:
        rows["draws"] = (report.draws_error, "error")
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "kind"])
    mean = float(np.mean(llc))
    table["share"] = table["value"] / mean if mean else np.nan
    table["mcse"] = np.where(table.index == "localization", taken_error, np.nan)
    return table
