"""``CheckInput``, what a check looks at; ``Outcome``, what it says."""

import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from numpyro_llc._checks import number as as_number
from numpyro_llc._checks import percent as as_percent
from numpyro_llc.estimators import Estimate
from numpyro_llc.inference_data import MonteCarlo, error_of_llc, error_of_mean
from numpyro_llc.results._penalty import is_of_density
from numpyro_llc.results._report import RunReport

SURE = 4.0
"""Monte Carlo errors that a number must be beyond its limit by: one in 30 000, were it normal."""
MOST_DIGITS = 12
"""Of a value near its limit."""


class NotMeasured(LookupError):
    """A result does not hold what a check needs."""


@dataclass(frozen=True)
class CheckInput:
    """A finished run, as arrays and numbers.

    Attributes
    ----------
    llc : array [chain, draw]
        The draws before the first that is not finite in any chain.
    statistics : mapping of str to array [chain, draw]
        Of the same draws: ``penalty``, ``distance``, ``diverging``, ...
    report : RunReport
        What the run reports of itself.
    row : mapping
        The row ``llc`` of :func:`~numpyro_llc.summary`; empty with fewer than ``LEAST_DRAWS``.
    monte_carlo : callable
        Draws ``[chain, draw]`` to an object with ``mean``, ``error`` (its own), ``ess``, ``r_hat``.
    broken : tuple (chain, draw) or None
        Where the first draw is that is not finite.
    """

    llc: np.ndarray
    statistics: Mapping[str, np.ndarray]
    report: RunReport
    row: Mapping[str, float]
    monte_carlo: Callable[[np.ndarray], MonteCarlo]
    broken: tuple[int, int] | None = None

    def number(self, name: str) -> float:
        """A field of the report that is a number."""
        value = getattr(self.report, name)
        if not isinstance(value, numbers.Real):
            raise NotMeasured(name)
        return float(value)

    def draws(self, name: str) -> np.ndarray:
        """A statistic of each draw, all finite."""
        values = self.statistics.get(name)
        if values is None or values.size == 0 or not np.all(np.isfinite(values)):
            raise NotMeasured(name)
        return np.asarray(values, np.float64)

    def draws_if_known(self, name: str) -> np.ndarray | None:
        """A statistic of each draw, or None."""
        try:
            return self.draws(name)
        except NotMeasured:
            return None

    @property
    def virial(self) -> np.ndarray | None:
        """The virial of each draw, or None where it is not known, or of too few rows."""
        found = self.draws_if_known("virial")
        level, unseen = float(np.mean(self.llc)), self.report.evaluation_error
        return found if found is not None and is_of_density(found, level, unseen) else None

    def of_llc(self, name: str) -> float:
        """A column of the summary of `llc`."""
        if not self.row:
            raise NotMeasured(name)
        return float(self.row[name])

    def error_of_llc(self) -> float:
        """Monte Carlo error of λ̂, slow directions included where the draws' penalty is known."""
        error, penalty = self.of_llc("mcse_mean"), self.draws_if_known("penalty")
        return error if penalty is None else error_of_llc(self.llc, penalty)

    def relative(self, amount: float) -> float:
        """`amount` as a share of λ̂."""
        value = abs(self.of_llc("mean"))
        if amount == 0:
            return 0.0
        return abs(amount) / value if value > 0 else float("inf")

    def error_of(self, estimate: Estimate) -> float:
        """Monte Carlo error of an estimate."""
        return error_of_mean(estimate.influence)

    @property
    def smallest_localization(self) -> float:
        """The smallest γ of any site."""
        gamma = self.report.smallest_localization
        if gamma is None:
            raise NotMeasured("localization")
        return gamma


class Outcome(NamedTuple):
    """A check that was made.

    Attributes
    ----------
    value, threshold : float
        What was measured, and beyond which value the check triggers.
    found : bool
        Whether it triggers.
    meaning : str
        The two numbers in words; if it triggers, also what that says of λ̂.
    remedy : str
        What to do; empty if there is nothing to do.
    """

    value: float
    threshold: float
    found: bool
    meaning: str
    remedy: str


def at_most(
    value: float, threshold: float, what: str, wrong: str, remedy: str, *, percent: bool = False
) -> Outcome:
    """Trigger if `value` is above `threshold` or NaN."""
    return _judged(not value <= threshold, "<", value, threshold, what, wrong, remedy, percent)


def at_least(value: float, threshold: float, what: str, wrong: str, remedy: str) -> Outcome:
    """Trigger if `value` is below `threshold` or NaN."""
    return _judged(not value >= threshold, ">", value, threshold, what, wrong, remedy, False)


def _judged(
    found: bool,
    sign: str,
    value: float,
    threshold: float,
    what: str,
    wrong: str,
    remedy: str,
    percent: bool,
) -> Outcome:
    one, other = _apart(value, threshold, percent)
    said = f"{what} is {one} (want {sign} {other})"
    meaning = f"{said}: {wrong}." if found else f"{said}."
    return Outcome(float(value), float(threshold), bool(found), meaning, remedy if found else "")


def _apart(value: float, threshold: float, percent: bool) -> tuple[str, str]:
    """Both in words, with as many digits as it takes to tell them apart."""
    written = as_percent if percent else as_number
    for digits in range(3 if percent else 4, MOST_DIGITS):
        one = written(value, digits)
        if one != written(threshold, digits) or value == threshold:
            break
    return one, written(threshold)
