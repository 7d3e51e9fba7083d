"""Checks of the centre: is it a local minimum, and the lowest point that was seen."""

import numpy as np

from numpyro_llc._checks import percent
from numpyro_llc.estimators import RESOLVED
from numpyro_llc.inference_data import error_of_mean
from numpyro_llc.local import (
    AT_THE_EDGE,
    BY_THE_PRIOR,
    DENSE_LIMIT,
    edge_of,
    lowest_curvature,
    rounding,
    without_effect_text,
)
from numpyro_llc.results.checks._check import (
    SURE,
    CheckInput,
    NotMeasured,
    Outcome,
    at_least,
    at_most,
)

SHIFT_TOLERANCE = 0.01
"""Shift of λ̂ (relative to the Laplace value, and absolute below 1) that a centre may cause."""
SLOPE_LIMIT = 0.1
"""Share of λ̂ at the minimum near by that a slope which the draws tell of may take: as of the other
biases of minibatches."""
BELOW_CENTER = -0.05
"""An `llc` that no rounding explains: the loss there is below the centre's."""
NO_HESSIAN = (
    "A root, a norm or an absolute value at zero has no second derivative: move the centre a "
    "little off that point to have it measured."
)
GO_THERE = "Start find_center at nllc.lowest_point(idata)"
OF_THE_FUNCTION = (
    "; of a checkpoint of training, truth='center' in localize measures the function that is "
    "computed there"
)

NOT_CHECKED = (
    "Not checked: with a stochastic-gradient kernel the Hessian at the centre is measured up to "
    f"{DENSE_LIMIT} parameters only. Whether `center` is a saddle of the loss is not known; "
    "center_gradient looks for a slope"
)
TO_CHECK = (
    "find_center from this point measures both where it ends; truth='center' in localize needs no "
    "minimum."
)


def center_edge(e: CheckInput) -> Outcome:
    """The loss has a minimum inside: it does not fall to the edge of the support of a site."""
    e.number("center_smallest_eigenvalue")
    if e.report.center_edge is None:
        said = "From the centre the loss falls to no edge of a support."
        return Outcome(0.0, 0.0, False, said, "")
    sites = e.report.center_edge.split(", ")
    said = (
        f"`center` is no local minimum of the loss, and there is none nearby: {edge_of(sites)}. γ "
        "and not the loss bounds the draws there, and λ̂ may be negative."
    )
    return Outcome(float(len(sites)), 0.0, True, said, f"{AT_THE_EDGE} {BY_THE_PRIOR}")


def center_curvature(e: CheckInput) -> Outcome:
    """The smallest eigenvalue of the Hessian at the centre, of nL; of large models a note."""
    if e.report.center_smallest_eigenvalue is None and e.report.truth != "center":
        slope = e.number("center_gradient_norm")
        if np.isfinite(slope):
            said = f"{NOT_CHECKED}; the gradient norm of nL is {slope:.4g}."
            return Outcome(np.nan, np.nan, False, said, TO_CHECK)
    smallest, largest = (
        e.number(f"center_{which}_eigenvalue") for which in ("smallest", "largest")
    )
    if np.isnan(smallest):
        raise NotMeasured("a Hessian")
    return at_least(
        smallest,
        _lowest(e),
        "The smallest Hessian eigenvalue of nL at the centre",
        f"`center` is no local minimum of the loss (the largest is {largest:.4g}), so λ̂ may be "
        "negative",
        f"Start find_center here, or choose another point{_or_function(e)}.",
    )


def center_gradient(e: CheckInput) -> Outcome:
    """By how much a slope at the centre lowers λ̂ below that of the minimum near by."""
    if e.report.center_edge is not None:
        raise NotMeasured("a minimum near by")  # the check of the edge says why
    if e.report.center_shift is None:
        return _slope_of_draws(e)
    drop, expected = -e.number("center_shift"), e.report.center_expected_llc
    if expected is None:  # of more parameters than the Hessian is formed of
        expected = 0.5 * e.number("num_parameters")
    norm, smallest = (e.report.center_gradient_norm, e.report.center_smallest_eigenvalue)
    if smallest is not None and np.isfinite(smallest):
        if np.isnan(drop) or smallest < _lowest(e):
            raise NotMeasured("a minimum near by")  # the curvature's check says why
    elif np.isnan(drop):
        said = (
            "The Hessian of nL at the centre is not finite, so whether `center` is a local minimum "
            f"is not known; the gradient norm of nL is {norm:.4g}."
        )
        return Outcome(drop, SHIFT_TOLERANCE * max(expected, 1.0), True, said, NO_HESSIAN)
    return at_most(
        drop,
        SHIFT_TOLERANCE * max(expected, 1.0),
        "The drop of λ̂ from the slope at the centre",
        f"`center` is no local minimum of the loss: the gradient norm of nL is {norm:.4g}",
        f"Use find_center, unless you want this point{_or_function(e)}.",
    )


def _slope_of_draws(e: CheckInput) -> Outcome:
    """What the slope at the centre takes of λ̂, by the draws: the Hessian is not known.

    With g = β ∇nL(z*), draws of a quadratic loss have ``E[g·(z - z*)] = -Q``, where
    ``Q = g'(βH + γ)⁻¹g``, and λ̂ is below that of the minimum by Q/2, and by more with γ.
    """
    slope, llc = e.draws("center_slope"), e.of_llc("mean")
    drop, error = -0.5 * float(np.mean(slope)), 0.5 * error_of_mean(slope)
    return at_most(
        drop,
        SLOPE_LIMIT * max(llc + drop, 1.0) + SURE * error,
        "The drop of λ̂ from the slope at the centre, by the draws,",
        "`center` is no local minimum of the loss: the gradient norm of nL is "
        f"{e.number('center_gradient_norm'):.4g}",
        f"Use find_center, unless you want this point{_or_function(e)}.",
    )


def constant_loss(e: CheckInput) -> Outcome:
    """The loss changes close to the centre: where it does not, λ is 0."""
    if e.report.constant_loss is None:
        raise NotMeasured("a centre without a slope")
    if not e.report.constant_loss:
        return Outcome(0.0, 0.0, False, "The loss changes close to the centre.", "")
    said = (
        "A thousandth of the way to the draws the loss is exactly that of the centre: where it is "
        "constant λ is 0. λ̂ tells how it grows farther out, where the draws are."
    )
    remedy = (
        "Take a loss that is not constant around its minimum, as cross-entropy in the place of a "
        "hinge loss."
    )
    return Outcome(1.0, 0.0, True, said, remedy)


def below_center(e: CheckInput) -> Outcome:
    """The lowest `llc` of any draw."""
    slack = RESOLVED * (e.report.evaluation_error or 0.0)
    if e.llc.size == 0:
        raise NotMeasured("draws")
    if e.report.from_stream:
        raise NotMeasured("the loss of all rows")
    share = float(np.mean(e.llc < BELOW_CENTER - slack))
    return at_least(
        float(np.min(e.llc)),
        BELOW_CENTER - slack,
        "The lowest `llc` of a draw",
        f"{percent(share, 2)} of the draws lie below the loss at the centre{_depth(e)}, which is "
        "not the minimum",
        _go_there(e),
    )


def _go_there(e: CheckInput) -> str:
    if e.report.center_edge is not None:
        return "See the finding of the edge: a lower point is no minimum either."
    return f"{GO_THERE}, and run again from there{_or_function(e)}."


def _or_function(e: CheckInput) -> str:
    return "" if e.report.truth == "center" else OF_THE_FUNCTION


def _depth(e: CheckInput) -> str:
    beta = e.report.inverse_temperature
    return f" (by up to {-np.min(e.llc) / beta:.3g} nats of nL)" if beta else ""


def negative(e: CheckInput) -> Outcome:
    """λ̂ is not negative beyond its error; λ of a minimum never is."""
    return at_least(
        e.of_llc("mean"),
        -RESOLVED * np.hypot(e.of_llc("mcse_mean"), e.report.evaluation_error or 0.0),
        "λ̂",
        "it is negative beyond its error, so the centre is far from a minimum",
        _go_there(e),
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
        "if the set of minima is unbounded, p(z) cannot be normalized, and the draws drift away",
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


def _lowest(e: CheckInput) -> float:
    """The eigenvalue below which the centre is a saddle."""
    largest, beta = e.number("center_largest_eigenvalue"), e.number("inverse_temperature")
    return lowest_curvature(largest, beta, e.smallest_localization)


def _eigenvalues(e: CheckInput) -> tuple[float, float]:
    smallest, largest = (e.number(f"center_{end}_eigenvalue") for end in ("smallest", "largest"))
    if np.isnan(smallest):
        raise NotMeasured("a Hessian")
    return smallest, largest
