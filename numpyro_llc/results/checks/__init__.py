"""Checks of a finished run: arrays and numbers in, outcomes out.

A check is a function of :class:`CheckInput` and a line of :data:`CHECKS`; one that lacks what it
needs raises :class:`NotMeasured` and is left out.
"""

from numpyro_llc.results.checks._center import BELOW_CENTER
from numpyro_llc.results.checks._check import CheckInput, NotMeasured, Outcome
from numpyro_llc.results.checks._explain import explain_disagreement, standing_still
from numpyro_llc.results.checks._region import ABOVE_HALF_D
from numpyro_llc.results.checks._table import CHECKS, outcomes

__all__ = [
    "ABOVE_HALF_D",
    "BELOW_CENTER",
    "CHECKS",
    "CheckInput",
    "NotMeasured",
    "Outcome",
    "explain_disagreement",
    "outcomes",
    "standing_still",
]
