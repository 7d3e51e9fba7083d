"""Checks of the region that was sampled: β, its size, γ's part in it, and the law of `llc`."""

import numpy as np

from numpyro_llc._checks import number
from numpyro_llc.estimators import RESOLVED, localization_share, mean, variance
from numpyro_llc.inference_data import error_of_mean
from numpyro_llc.results.checks._check import SURE, CheckInput, NotMeasured, Outcome, at_most
from numpyro_llc.results.checks._explain import explain_disagreement

ABOVE_HALF_D = 1.05
"""λ is at most d/2; the next order in 1/n was seen to add 0.1 % to λ̂ of regular models."""
PULL_LIMIT, PULL_SURE = 1 / 3, 2 / 3
"""Shares of λ̂ that γ may take, to first order: a finding above the first, if that is resolved, and
where the draws do not exclude the second. In the zoo at n = 1000 and γ = 1 at most 29 %."""
GAMMA_LAW = (0.5, 1.25)
"""Variance over mean of `llc`; in the zoo at n = 1000 from 0.90 (γ, m > 1) to 1.01 (small n), where
λ > 0. Below 1/2, λ̂ grows by more than half of itself with each factor e in n."""


def inverse_temperature(e: CheckInput) -> Outcome:
    """β above that of the posterior, 1: an nβ of a tool that multiplies the mean loss, perhaps."""
    beta, count = e.number("inverse_temperature"), e.number("num_data")
    usual = 1.0 / np.log(count)
    return at_most(
        beta,
        max(1.0, usual),
        "`inverse_temperature`",
        "it multiplies the loss summed over the data, so that the density is narrower than the "
        f"posterior; 1/log n is {usual:.3g} for n = {count:g}",
        "Leave it out for 1/log n. nβ of other tools, which multiplies a mean loss: divide it by "
        f"n, here {beta / count:.3g}.",
    )


def above_half_dimension(e: CheckInput) -> Outcome:
    """λ̂ against d/2, which no λ exceeds."""
    limit, value = 0.5 * e.number("num_parameters"), e.of_llc("mean")
    unseen = e.report.evaluation_error or 0.0
    threshold = ABOVE_HALF_D * limit + RESOLVED * float(np.hypot(e.of_llc("mcse_mean"), unseen))
    cause, remedy = _why_above(e, 2.0 * limit) if value > threshold else ("", "")
    return at_most(
        value,
        threshold,
        "λ̂",
        f"λ is at most d/2 = {limit:g} where the loss is smooth, {cause}",
        remedy,
    )


def _why_above(e: CheckInput, dimension: float) -> tuple[str, str]:
    """Why λ̂ is above d/2, and what to do.

    With V = (z - z*)·∇βnL, ``E[V + 2P] = d`` whatever the loss, and ``V = k β [nL(z) - nL(z*)]``
    where it grows as the power k of the distance. So where draws are as they should be, λ̂ is above
    d/2 only where k is below 2.
    """
    virial, penalty = e.virial, e.draws_if_known("penalty")
    if virial is None or penalty is None:
        return (
            "so the step is too long, n too small, or the chains have left the basin",
            f"{e.report.shorter_steps}, raise `localization`, or look at the other findings.",
        )
    reached = virial + 2.0 * penalty
    if np.mean(reached) > dimension + RESOLVED * error_of_mean(reached):
        return (
            f"and the draws reach too far: the mean of (z - z*)·∇U is {np.mean(reached):.4g}, "
            f"where d = {dimension:g} is exact",
            f"{e.report.shorter_steps}, or warm up longer.",
        )
    power = np.mean(virial) / e.of_llc("mean")
    return (
        f"and at the draws it grows as the power {power:.2g} of the distance from the centre, less "
        "than the square: at this n β they reach beyond the minimum, into a funnel, another basin, "
        "or where components overlap (or the loss has a kink, as |z|, of which λ may be d)",
        "Of a smooth loss give more data, or a larger `inverse_temperature` (1 is the posterior): "
        "draws are then nearer, and λ̂ goes to λ. A higher `localization` too brings them nearer, "
        "but is itself a part of λ̂.",
    )


def basin(e: CheckInput) -> Outcome:
    """The mean of ``γ |z - z*|²``, of each chain, against d.

    Exactly ``E[(z - z*)·∇U] = d``, so beyond d the loss falls outward on average.
    """
    if not e.smallest_localization > 0:
        raise NotMeasured("localization")
    pull = 2.0 * e.draws("penalty")
    limit = e.number("num_parameters")
    means, errors = pull.mean(axis=1), np.array([error_of_mean(one[None]) for one in pull])
    if np.isnan(errors).any():
        raise NotMeasured("draws")
    beyond = (means - limit) / np.maximum(errors, 1e-9 * limit)  # a chain may stand still
    worst = int(np.argmax(beyond))
    return at_most(
        float(means[worst]),
        limit + SURE * float(errors[worst]),
        f"The mean of γ |z - z*|² of chain {worst}",
        f"it is above d = {limit:g} beyond its error, so that the loss falls outward on average: "
        "the chain has left the basin of the centre",
        "Raise `localization`, or estimate at the minimum that it went to.",
    )


def localization(e: CheckInput) -> Outcome:
    """Share of λ̂ that γ takes, ``-d ln λ̂/d ln γ``; that it cannot be told is a finding too."""
    value = e.of_llc("mean")
    if not value > RESOLVED * e.of_llc("mcse_mean"):
        raise NotMeasured("λ̂ above zero")
    found = localization_share(e.llc, e.draws("penalty"), e.virial)
    share, error = found.value, RESOLVED * e.error_of(found)
    what = "The share of λ̂ that γ takes, to first order,"
    if share <= PULL_LIMIT + error and not share <= PULL_SURE - error:
        said = (
            f"{what} is {number(share, 2)} ± {number(error / RESOLVED, 2)}: too few draws to tell "
            f"whether it is below {number(PULL_LIMIT, 2)}, and whether γ or the loss bounds what "
            "was sampled."
        )
        return Outcome(share, PULL_SURE - error, True, said, "Raise `num_samples`.")
    remedy = (
        "Lower `localization`, as far as nllc.choose_localization finds that chains arrive, or see "
        "summary(idata, estimators='localization_corrected')."
    )
    if e.report.localization_reason is not None:
        remedy = "Compare it with λ̂ at the same γ alone; why it was chosen is in the attributes."
    return at_most(
        share,
        PULL_LIMIT + error,
        what,
        "γ and not the loss bounds much of what was sampled, and λ̂ is of this γ alone",
        remedy,
    )


def gamma_law(e: CheckInput) -> Outcome:
    """Variance over mean of `llc`: 1 for Gamma(λ, 1), its law for large n.

    It is ``1 - d ln λ̂ / d ln(n β)``: below 1, λ̂ still grows with n.
    """
    value = e.of_llc("mean")
    if e.report.from_stream:
        raise NotMeasured("the loss of all rows")
    if not value > RESOLVED * e.of_llc("mcse_mean"):
        raise NotMeasured("λ̂ above zero")
    first, second = mean(e.llc), variance(e.llc)
    ratio = second.value / value
    error = SURE * e.error_of((second - first * ratio) * (1.0 / value))
    low, high = GAMMA_LAW
    found = not low - error <= ratio <= high + error
    limit = high + error if ratio > 1 else low - error
    said = (
        f"The variance of `llc` over its mean is {ratio:.3g} (want {low:g} to {high:g}, give or "
        f"take {number(error, 2)})"
    )
    if not found:
        return Outcome(ratio, limit, False, f"{said}.", "")
    causes = explain_disagreement(
        e.llc,
        e.statistics.get("penalty"),
        e.virial,
        monte_carlo=e.monte_carlo,
    )
    meaning = f"{said}: it is not nearly Gamma(λ, 1), whose ratio is 1, as it is for large n."
    return Outcome(ratio, limit, True, meaning, " ".join(causes))
