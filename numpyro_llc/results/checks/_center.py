"""Checks of the centre: is it a local minimum, and the lowest point that was seen."""

import numpy as np

from numpyro_llc.estimators import RESOLVED
from numpyro_llc.local import lowest_curvature, rounding, without_effect_text
from numpyro_llc.results.checks._check import CheckInput, NotMeasured, Outcome, at_least, at_most

SHIFT_TOLERANCE = 0.01
"""Shift of λ̂ (relative to the Laplace value, and absolute below 1) that a centre may cause."""
BELOW_CENTER = -0.05
"""An `llc` that no rounding explains: the loss there is below the centre's."""
GO_THERE = "Start find_center at nllc.lowest_point(idata)"


def center_curvature(e: CheckInput) -> Outcome:
    """The smallest eigenvalue of the Hessian at the centre, of nL."""
    smallest, largest = (
        e.number(f"center_{which}_eigenvalue") for which in ("smallest", "largest")
    )
    if np.isnan(smallest):
        raise NotMeasured("a Hessian")
    limit = lowest_curvature(largest, e.number("inverse_temperature"), e.smallest_localization)
    return at_least(
        smallest,
        limit,
        "The smallest Hessian eigenvalue of nL at the centre",
        f"`center` is no local minimum of the loss (the largest is {largest:.4g}), so λ̂ may be "
        "negative",
        "Start find_center here, or choose another point.",
    )


def center_gradient(e: CheckInput) -> Outcome:
    """By how much a slope at the centre lowers λ̂ below that of the minimum near by."""
    drop, expected = -e.number("center_shift"), e.number("center_expected_llc")
    if np.isnan(drop) and np.isfinite(e.number("center_smallest_eigenvalue")):
        raise NotMeasured("a minimum near by")  # the curvature's check says why
    return at_most(
        drop,
        SHIFT_TOLERANCE * max(expected, 1.0),
        "The drop of λ̂ from the slope at the centre",
        "`center` is no local minimum of the loss: the gradient norm of nL is "
        f"{e.number('center_gradient_norm'):.4g}",
        "Use find_center, if that is not what you mean.",
    )


def below_center(e: CheckInput) -> Outcome:
    """The lowest `llc` of any draw."""
    slack = RESOLVED * (e.report.evaluation_error or 0.0)
    if e.llc.size == 0:
        raise NotMeasured("draws")
    share = float(np.mean(e.llc < BELOW_CENTER - slack))
    return at_least(
        float(np.min(e.llc)),
        BELOW_CENTER - slack,
        "The lowest `llc` of a draw",
        f"{100 * share:.2g} % of the draws lie below the loss at the centre, which is not the "
        "minimum",
        f"{GO_THERE}, and run again from there.",
    )


def negative(e: CheckInput) -> Outcome:
    """λ̂ is not negative beyond its error; λ of a minimum never is."""
    return at_least(
        e.of_llc("mean"),
        -RESOLVED * e.of_llc("mcse_mean"),
        "λ̂",
        "it is negative beyond its error, so the centre is far from a minimum",
        f"{GO_THERE}, and run again from there.",
    )


def flat_directions(e: CheckInput) -> Outcome:
    """Without γ, a direction that is flat at the centre: the draws may have no distribution."""
    if e.smallest_localization > 0:
        raise NotMeasured("γ = 0")
    smallest, largest = _eigenvalues(e)
    return at_least(
        smallest,
        rounding(largest),
        "With γ = 0, the smallest Hessian eigenvalue of nL at the centre",
        "where the set of minima has no end, p(z) cannot be normalized and the draws wander off",
        "Give a positive `localization`.",
    )


def without_effect(e: CheckInput) -> Outcome:
    """Parameters that the loss does not depend on: they count in d, and in nothing else."""
    names = e.report.without_effect
    if names is None:
        raise NotMeasured("without_effect")
    if not names:
        return Outcome(0.0, 0.0, False, "The loss depends on all parameters.", "")
    return Outcome(float(sum(names.values())), 0.0, True, *without_effect_text(names))


def _eigenvalues(e: CheckInput) -> tuple[float, float]:
    smallest, largest = (e.number(f"center_{end}_eigenvalue") for end in ("smallest", "largest"))
    if np.isnan(smallest):
        raise NotMeasured("a Hessian")
    return smallest, largest
