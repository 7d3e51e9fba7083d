"""``diagnose``: what is doubtful about a result, from the result alone."""

import numpy as np
import pandas as pd

from numpyro_llc.inference_data import (
    LEAST_DRAWS,
    Groups,
    InferenceData,
    checked_posterior,
    draws_of,
    moments_of_draws,
    monte_carlo,
    statistics,
)
from numpyro_llc.results._findings import Finding
from numpyro_llc.results._penalty import penalty_of
from numpyro_llc.results._report import RunReport
from numpyro_llc.results.checks import CheckInput, Outcome, outcomes


def diagnose(idata: InferenceData, *, all_checks: bool = False) -> pd.DataFrame:
    """What is doubtful about a result: its chains, kernel, centre and γ.

    Parameters
    ----------
    idata
        What :func:`~numpyro_llc.estimate_llc` or :func:`~numpyro_llc.from_numpyro` returned, its
        file read back with ArviZ, or ``error.idata`` of a
        :class:`~numpyro_llc.NonFiniteLossError`.
    all_checks : bool
        Also list the checks that found nothing. Those that lack their numbers in this result,
        such as the step size of NUTS, are left out.

    Returns
    -------
    pandas.DataFrame
        A row for each finding, by the name of its ``check``; none if the run is healthy. Columns
        ``value`` and ``threshold`` (as of the check), ``found``, ``meaning`` (both numbers in
        words, and what they say of λ̂), ``remedy``. Causes come before what they may have caused.

    Raises
    ------
    ValueError
        If the posterior holds no `llc`.

    Notes
    -----
    The same findings are in the attribute ``findings`` of a result, as JSON, and were its warning.
    No finding is no proof: a region that no chain has visited shows in no check.
    """
    made = outcomes(_check_input(idata))
    shown = {name: one for name, one in made.items() if all_checks or one.found}
    table = pd.DataFrame(list(shown.values()), index=list(shown), columns=list(Outcome._fields))
    types = {"value": float, "threshold": float, "found": bool}
    return table.astype(types).rename_axis("check")


def diagnosed(idata: InferenceData | Groups) -> list[Finding]:
    """What the checks find in a result."""
    return [
        Finding(name, one.value, one.threshold, one.meaning, one.remedy)
        for name, one in outcomes(_check_input(idata)).items()
        if one.found
    ]


def _check_input(idata: InferenceData | Groups) -> CheckInput:
    data = checked_posterior("idata", idata)
    llc = draws_of(data, "llc")
    bad = np.argwhere(~np.isfinite(llc).T)
    broken = (int(bad[0, 1]), int(bad[0, 0])) if len(bad) else None
    llc = llc[:, : broken[1]] if broken else llc
    enough = llc.shape[1] >= LEAST_DRAWS
    return CheckInput(
        llc=llc,
        statistics={name: values[:, : llc.shape[1]] for name, values in _kept(idata).items()},
        report=RunReport.from_attrs(data.attrs),
        row=moments_of_draws(llc) if enough else {},
        monte_carlo=monte_carlo,
        broken=broken,
    )


def _kept(idata: InferenceData | Groups) -> dict[str, np.ndarray]:
    """The statistics that are one number a draw, the penalty among them if it can be had."""
    data = statistics(idata)
    kept = {
        str(name): draws_of(data, str(name))
        for name, values in data.items()
        if set(values.dims) == {"chain", "draw"}
    }
    penalty, _ = penalty_of(idata)
    return kept if penalty is None else {**kept, "penalty": penalty}
