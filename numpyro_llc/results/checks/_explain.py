"""Why estimators of the same draws disagree: numbers in, findings out."""

from collections.abc import Callable

import numpy as np

from numpyro_llc._checks import percent
from numpyro_llc.estimators import (
    RESOLVED,
    Estimate,
    localization_pull,
    mean,
    two_temperatures,
    variance,
)
from numpyro_llc.inference_data import MonteCarlo
from numpyro_llc.results.checks._center import BELOW_CENTER, GO_THERE
from numpyro_llc.results.checks._chains import ESS_LIMIT, R_HAT_LIMIT

DISAGREE = 4.0
"""Errors at which a difference counts as a disagreement; a cause needs fewer, ``RESOLVED``."""

Judge = Callable[[np.ndarray], MonteCarlo]
"""From draws ``[chain, draw]`` to their mean and how well it is known."""


def explain_disagreement(
    llc: np.ndarray,
    penalty: np.ndarray | None = None,
    virial: np.ndarray | None = None,
    *,
    monte_carlo: Judge,
) -> list[str]:
    r"""What makes the mean differ from the estimators that do not use the centre's loss.

    With X, P, μ, σ of a draw's `llc` and `penalty`, in this order:

    - chains that stand still, whose draws have no error that could be judged;
    - chains that disagree or mix badly, in X or in ``(X - μ)²``: the errors are not to be trusted;
    - a centre that is not the minimum: draws below its loss, or ``μ < σ``; for a quadratic loss
      ``σ - μ`` is β times the drop of nL to the minimum near by, if γ is small;
    - ``μ - σ = dμ/d ln c`` above ``Cov(X, P) = -dμ/d ln γ``: more than γ explains, since what γ
      takes varies as a power of γ at least as high as that of 1/c (in a regular direction as
      γ/c, at ``w^(2k)`` as ``γ c^(-1/k)``); the mark of a multiplicity above one, or at small n
      of a next term in 1/n that γ has no part in;
    - ``Cov(X, P)`` above zero, otherwise: γ holds the draws back.

    Parameters
    ----------
    llc : array [chain, draw]
        ``β [nL(z) - nL(z*)]`` of each draw.
    penalty : array [chain, draw], optional
        ``½ Σ_s γ_s |z_s - z*_s|²`` of each draw; without it γ is not told from multiplicity.
    virial : array [chain, draw], optional
        ``β (z - z*)·∇nL(z)`` of each draw, with which what γ takes is known better.
    monte_carlo : callable
        Draws ``[chain, draw]`` to an object with ``error`` (of their mean), ``ess``, ``r_hat``.

    Returns
    -------
    list of str
        Empty if mean, variance and two temperatures agree within four errors of their difference,
        which is of the same draws, so that what they share cancels.

    Notes
    -----
    What it does not cover: a bias common to all, such as γ or a multiplicity too weak to show at
    this number of draws; a flat set that γ alone bounds, where a multiplicity above one looks like
    γ (the loss is then a function of ``c/γ^k``); noise in the evaluated loss.
    """
    x, first = np.asarray(llc, np.float64), mean(llc)
    if still := standing_still(x):
        return still
    others = {"variance": variance(x), "two_temperatures": two_temperatures(x)}
    findings = _mixing({"mean": first, **others}, monte_carlo)
    if findings:
        return findings
    gaps = {name: _with_error(first - other, monte_carlo) for name, other in others.items()}
    name = max(gaps, key=lambda key: abs(gaps[key][0].value) / max(gaps[key][1], 1e-300))
    gap, error = gaps[name]
    if abs(gap.value) <= DISAGREE * error:
        return []
    said = (
        f"The mean of `llc` is {first.value:.4g}, {name} {others[name].value:.4g}: they differ by "
        f"{gap.value:.3g} ± {error:.2g}. "
    )
    if gap.value < 0 or np.min(x) < BELOW_CENTER:
        return [said + _center(x)]
    taken = None if penalty is None else localization_pull(x, penalty, virial)
    return [said + _bias(x, taken, gap, monte_carlo)]


def standing_still(llc: np.ndarray) -> list[str]:
    """Say so if a chain has the same `llc` in all of its draws."""
    x = np.asarray(llc, np.float64)
    still = x[np.ptp(x, axis=1) == 0, 0]
    if x.shape[1] < 2 or not len(still):
        return []
    return [
        f"The draws of {len(still)} of {len(x)} chains do not vary (`llc` is {still[0]:.4g} at all "
        "of one): these stand still, or the loss does not depend on the parameters. The errors "
        "are not to be trusted. Check `step_size`, and raise `num_warmup`."
    ]


def _with_error(estimate: Estimate, monte_carlo: Judge) -> tuple[Estimate, float]:
    return estimate, monte_carlo(estimate.influence).error


def _mixing(estimates: dict[str, Estimate], monte_carlo: Judge) -> list[str]:
    findings = []
    for name, estimate in estimates.items():
        numbers = monte_carlo(estimate.influence)
        if numbers.r_hat > R_HAT_LIMIT or not numbers.ess >= ESS_LIMIT:  # R-hat of one chain is NaN
            findings.append(
                f"The draws do not determine {name}: R-hat {numbers.r_hat:.3g} (want <= "
                f"{R_HAT_LIMIT}), effective sample size {numbers.ess:.0f} (want >= "
                f"{ESS_LIMIT:.0f}). Raise `num_warmup` and `num_samples` before estimators are "
                "compared."
            )
    return findings


def _center(x: np.ndarray) -> str:
    below = float(np.mean(x < BELOW_CENTER))
    drop = float(np.var(x) - np.mean(x))
    if below > 0:
        return (
            f"{percent(below, 2)} of the draws lie below the loss at the centre (the lowest `llc` "
            f"is {np.min(x):.3g}): the centre is not the minimum. {GO_THERE}."
        )
    return (
        "A mean below the variance says that the loss has a slope at the centre: it is not the "
        f"minimum, by about {drop:.2g} of β nL. Run find_center from it."
    )


def _bias(x: np.ndarray, taken: Estimate | None, gap: Estimate, monte_carlo: Judge) -> str:
    if taken is None:
        return (
            "A mean above the variance is caused by γ or by a multiplicity above one. Only the "
            "distances of the draws from the centre, which are not known here, can tell which."
        )
    first = mean(x)
    pull, error = _with_error(taken, monte_carlo)
    rest, rest_error = _with_error(gap - pull, monte_carlo)
    if rest.value > RESOLVED * rest_error:
        return (
            f"γ explains at most {pull.value:.2g} ± {error:.2g} of it: the rest indicates a "
            "multiplicity m above one, too small an n, or chains that left the centre along a "
            "valley. A multiplicity lowers the mean by a term of order (m - 1)/log n that no γ "
            "removes; give `multiplicity` if it is known."
        )
    if pull.value > RESOLVED * error:
        return (
            f"γ holds the draws back: to first order the mean without γ is "
            f"{first.value + pull.value:.4g} "
            f"(from {first.value:.4g}). Lower `localization`. If the mean still rises "
            "slowly at smaller γ, a multiplicity above one is a cause too."
        )
    return (
        "A mean above the variance is caused by γ or by a multiplicity above one; these draws are "
        "too few to tell which. Raise `num_samples`."
    )
