"""The estimators by name, what each needs, and their rows of a table."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from numpyro_llc.estimators._estimate import RESOLVED, Estimate
from numpyro_llc.estimators._formulas import (
    check_multiplicity,
    corrected,
    localization_corrected,
    mean,
    multiplicity_corrected,
    variance,
)
from numpyro_llc.estimators._gamma import gamma_fit
from numpyro_llc.estimators._temperatures import two_temperatures

ESTIMATORS: dict[str, tuple[Callable[..., Estimate], tuple[str, ...]]] = {
    "mean": (mean, ()),
    "variance": (variance, ()),
    "two_temperatures": (two_temperatures, ()),
    "gamma_fit": (gamma_fit, ()),
    "localization_corrected": (localization_corrected, ("penalty",)),
    "multiplicity_corrected": (multiplicity_corrected, ("multiplicity",)),
    "corrected": (corrected, ("penalty", "multiplicity")),
}
"""A function of `llc` and of the quantities named after it."""
HELPED_BY = {"localization_corrected": ("virial",), "corrected": ("virial",)}
"""Quantities that make the error of an estimator smaller, where they are known."""


class MeanOfDraws(Protocol):
    """What Monte Carlo statistics say of the mean of draws: its error, their ESS and R-hat."""

    @property
    def error(self) -> float: ...
    @property
    def ess(self) -> float: ...
    @property
    def r_hat(self) -> float: ...


Statistics = Callable[[np.ndarray], MeanOfDraws]
"""Of draws ``[chain, draw]``."""


class Row(NamedTuple):
    """An estimate, its Monte Carlo error, the ends of its interval; ESS and R-hat are of draws.

    That is, of what each draw contributes. The error of a root is half the width of its interval at
    one error; the interval is not symmetric.
    """

    mean: float
    mcse_mean: float
    lower: float
    upper: float
    ess_bulk: float
    r_hat: float


def choose(names: str | Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    """Resolve ``"all"`` (those whose needs are `known`), one name or several to names.

    Raises
    ------
    ValueError, TypeError
        For an unknown name, listing the known ones, or no names.
    """
    if isinstance(names, str) and names == "all":
        have = set(known)
        return tuple(name for name, (_, needs) in ESTIMATORS.items() if have.issuperset(needs))
    if not isinstance(names, str | Iterable):
        raise TypeError(
            f"`estimators` must be 'all' or names of {list(ESTIMATORS)}; got {names!r}."
        )
    chosen = (names,) if isinstance(names, str) else tuple(names)
    unknown = [name for name in chosen if name not in ESTIMATORS]
    if unknown or not chosen:
        raise ValueError(
            f"`estimators` must be 'all' or among {list(ESTIMATORS)}; got {unknown or '()'}."
        )
    return chosen


def rows_of(
    names: str | Sequence[str],
    llc: ArrayLike,
    known: Mapping[str, object],
    remedies: Mapping[str, str],
    monte_carlo: Statistics,
    *,
    errors: float,
) -> tuple[dict[str, Row], list[str]]:
    """Rows of estimators of the same draws, and what is doubtful about them.

    Parameters
    ----------
    names : str or sequence of str
        "all" (those whose needs are `known`), one name or several.
    llc : array [chain, draw]
    known : dict
        ``penalty``, ``multiplicity`` and ``virial``, or None for what is not known.
    remedies : dict of str to str
        What to do about a quantity that is not known.
    monte_carlo : callable
        Draws ``[chain, draw]`` to an object with ``error`` (of their mean), ``ess``, ``r_hat``.
    errors : float
        Half the width of an interval, in errors.

    Raises
    ------
    ValueError
        For an unknown name, and for an estimator that needs what is not known.
    """
    rows, findings = {}, []
    have = {name: value for name, value in known.items() if value is not None}
    if "multiplicity" in have:
        check_multiplicity(have["multiplicity"])
    for name in choose(names, have):
        function, needs = ESTIMATORS[name]
        for need in needs:
            if need not in have:
                remedy = remedies.get(need, "Give it, or leave the estimator out.")
                raise ValueError(f"The estimator {name!r} needs `{need}`. {remedy}")
        helps = {key: have[key] for key in HELPED_BY.get(name, ()) if key in have}
        result = function(llc, *(have[need] for need in needs), **helps)
        rows[name], doubts = _judged(name, result, monte_carlo, errors)
        findings += doubts
    return rows, findings


def _judged(
    name: str, result: Estimate, monte_carlo: Statistics, errors: float
) -> tuple[Row, list[str]]:
    """Row of an estimate, and what is doubtful about it."""
    numbers = monte_carlo(result.influence)
    value, error, root = result.value, numbers.error, result.root
    ends = value - errors * error, value + errors * error
    findings = [f"{name}: {doubt}" for doubt in result.doubts]
    if root is not None:

        def error_of(influence: np.ndarray) -> float:
            return float(monte_carlo(influence).error)

        error = 0.5 * (root.end(1.0, error_of) - root.end(-1.0, error_of))
        ends = root.end(-errors, error_of), root.end(errors, error_of)
        gap, spread = root.gap.value, error_of(root.gap.influence)
        if not spread > 0:
            findings.append(
                f"{name}: the draws do not vary, so that neither the correction nor its error is "
                "known. Raise `num_warmup` and `num_samples`."
            )
        elif not gap > RESOLVED * spread:
            findings.append(
                f"{name}: the difference that its root is taken of is {gap:.3g} ± {spread:.2g} "
                f"(want more than {RESOLVED:g} errors above zero), so the correction is hardly "
                "known. Raise `num_samples`, or use an estimator without a multiplicity."
            )
    return Row(value, error, *ends, numbers.ess, numbers.r_hat), findings
