"""``compare``: models, or phases of one model, by their free energy."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import xarray as xr

from numpyro_llc._checks import shown
from numpyro_llc.errors import warn
from numpyro_llc.evidence._criteria import FreeEnergy, bic, local_free_energy, wbic
from numpyro_llc.inference_data import InferenceData, comparison_columns, group_of
from numpyro_llc.results import findings, report_of

Result = InferenceData | FreeEnergy
"""What is compared."""

CRITERIA: dict[str, Callable[..., FreeEnergy]] = {
    "local_free_energy": local_free_energy,
    "wbic": wbic,
    "bic": bic,
}
"""Functions of a result by name."""
WEIGHT_DRAWS = 10_000
"""Of the errors: a weight's mean is then known to 1 % of its own spread."""


def compare(
    results: Mapping[str, Result],
    criterion: str = "local_free_energy",
    *,
    multiplicity: int | Mapping[str, int] | None = None,
) -> pd.DataFrame:
    r"""Rank models of the same data, or phases of one model, by their free energy.

    Parameters
    ----------
    results : dict
        By name, what :func:`~numpyro_llc.estimate_llc` or ``from_numpyro`` returned, of different
        models or of different centres of one model; or a
        :class:`~numpyro_llc.evidence.FreeEnergy` each, as of ``free_energy``, in which case
        `criterion` is theirs.
    criterion : {"local_free_energy", "wbic", "bic"}
    multiplicity : int or dict of str to int, optional
        m of all, or by name, for "local_free_energy".

    Returns
    -------
    pandas.DataFrame
        Best first: ``rank``; the criterion F (nats, smaller is better); ``p_<criterion>``, the part
        of it that is not loss at the centre; ``<criterion>_diff`` to the best; ``weight``,
        ``exp(-F)`` normalized, averaged over the Monte Carlo errors taken as normal, and
        ``weight_se``, its standard deviation over them; ``se``, the Monte Carlo error; ``dse``,
        that of the difference; ``warning``, whether a result has findings (see ``diagnose``) or no
        error. Then what ``arviz.plot_compare`` reads, under the names of the installed ArviZ, with
        the sign of a log density (larger is better): ``elpd``, ``p``, ``elpd_diff`` for ArviZ 1.x;
        ``elpd_loo``, ``p_loo``, ``elpd_diff``, ``scale`` for ArviZ 0.x.

    Raises
    ------
    ValueError, TypeError
        If nothing is given, or the data or the criteria differ.

    Warns
    -----
    LLCWarning
        If γ or β differ, on which λ̂ depends.

    Notes
    -----
    The weights are posterior probabilities of the models, for equal ones before the data, if the
    free energies are right: to what the criterion leaves out (see it) they are blind, and a
    constant of order 1 changes them by a factor. Unlike the ``se`` of ``arviz.compare`` the errors
    are of sampling, not of the data: the free energy is a statement about these data.

    ``elpd`` is ``-F``, an estimate of the log evidence, and no leave-one-out density. The two are
    of one kind: the log evidence is the sum of the log predictive densities of the data one after
    another, each given those before it.
    """
    if not isinstance(results, Mapping) or isinstance(results, InferenceData):
        raise TypeError(f"`results` must be a dict {{name: result}}; got {shown(results)}.")
    if not results:
        raise ValueError("`results` is empty: give at least one {name: result}.")
    energies = _energies(results, criterion, multiplicity)
    criterion = next(iter(energies.values())).criterion
    values = np.array([energy.value for energy in energies.values()])
    errors = np.array([energy.error for energy in energies.values()])
    penalties = np.array([energy.complexity for energy in energies.values()])
    weights, spread = _weights(values, np.nan_to_num(errors))
    best = int(np.argmin(values))
    difference_error = np.where(np.arange(len(values)) == best, 0.0, np.hypot(errors, errors[best]))
    doubtful = [_has_findings(result) for result in results.values()]
    table = pd.DataFrame(
        {
            criterion: values,
            f"p_{criterion}": penalties,
            f"{criterion}_diff": values - values[best],
            "weight": weights,
            "weight_se": spread,
            "se": errors,
            "dse": difference_error,
            "warning": np.isnan(errors) | doubtful,
            **comparison_columns(-values, penalties, values - values[best]),
        },
        index=list(energies),
    ).sort_values(criterion)
    table.insert(0, "rank", np.arange(len(table)))
    return table


def _energies(
    results: Mapping[str, Result], criterion: str, multiplicity: int | Mapping[str, int] | None
) -> dict[str, FreeEnergy]:
    """The free energy of each, checked to be of the same kind and data."""
    if criterion not in CRITERIA:
        raise ValueError(f"`criterion` must be one of {list(CRITERIA)}; got {criterion!r}.")
    if multiplicity is not None and criterion != "local_free_energy":
        raise ValueError("`multiplicity` is for the criterion 'local_free_energy'; leave it out.")
    given = _multiplicities(results, multiplicity)
    energies = {}
    for name, result in results.items():
        if isinstance(result, FreeEnergy):
            energies[name] = result
        elif criterion == "local_free_energy":
            energies[name] = local_free_energy(result, given[name])
        else:
            energies[name] = CRITERIA[criterion](result)
    _check_alike(results, energies)
    if criterion != "bic":
        _warn_of_settings(results)
    return energies


def _multiplicities(
    results: Mapping[str, Result], multiplicity: int | Mapping[str, int] | None
) -> Mapping[str, int | None]:
    """The multiplicity of each, where it is known."""
    if not isinstance(multiplicity, Mapping):
        return dict.fromkeys(results, multiplicity)
    if set(multiplicity) != set(results):
        raise ValueError(
            f"`multiplicity` must be a number or name each of {list(results)}; got "
            f"{list(multiplicity)}."
        )
    return {**multiplicity}


def _warn_of_settings(results: Mapping[str, Result]) -> None:
    """Warn of λ̂ at different γ or β: they are not of one kind."""
    reports = {k: report_of(x) for k, x in results.items() if not isinstance(x, FreeEnergy)}
    for what in ("localization", "inverse_temperature"):
        found = {name: getattr(report, what) for name, report in reports.items()}
        if len({value for value in found.values() if isinstance(value, float)}) > 1:
            warn(
                f"The results were drawn at different `{what}`: {found}. λ̂ depends on it, and so "
                "does the ranking. Estimate all at one value."
            )


def _check_alike(results: Mapping[str, Result], energies: Mapping[str, FreeEnergy]) -> None:
    for what in ("criterion", "num_data"):
        found = {name: getattr(energy, what) for name, energy in energies.items()}
        if len(set(found.values())) > 1:
            raise ValueError(
                f"`results` must have the same `{what}`; got {found}. Free energies compare models "
                "of the same data by the same criterion."
            )
    observed = {
        name: group_of(result, "observed_data")
        for name, result in results.items()
        if not isinstance(result, FreeEnergy)
    }
    known = {name: data for name, data in observed.items() if data is not None}
    for name, data in known.items():
        first = next(iter(known))
        if _differ(known[first], data):
            raise ValueError(
                f"`results` {first!r} and {name!r} hold different observed data; free energies "
                "compare models of the same data."
            )


def _differ(one: xr.Dataset, two: xr.Dataset) -> bool:
    """Whether values that were observed under the same name are not the same."""
    return any(
        one[name].shape != two[name].shape or not np.array_equal(one[name], two[name])
        for name in set(one) & set(two)
    )


def _weights(values: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``exp(-F)`` normalized: mean and standard deviation over normal errors."""
    noise = np.random.default_rng(0).standard_normal((WEIGHT_DRAWS, len(values)))
    energies = values - values.min() + errors * noise
    drawn = np.exp(energies.min(axis=1, keepdims=True) - energies)
    drawn /= drawn.sum(axis=1, keepdims=True)
    return drawn.mean(axis=0), drawn.std(axis=0)


def _has_findings(result: Result) -> bool:
    return not isinstance(result, FreeEnergy) and bool(findings(result))
