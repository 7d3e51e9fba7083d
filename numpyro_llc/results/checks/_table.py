"""The checks by name."""

from collections.abc import Callable

from numpyro_llc.results.checks import _center, _chains, _kernel, _region
from numpyro_llc.results.checks._check import CheckInput, NotMeasured, Outcome

CHECKS: dict[str, Callable[[CheckInput], Outcome]] = {
    "non_finite": _chains.non_finite,
    "interrupted": _chains.interrupted,
    "few_draws": _chains.few_draws,
    "warmup_limit": _chains.warmup_limit,
    "inverse_temperature": _region.inverse_temperature,
    "center_edge": _center.center_edge,
    "center_curvature": _center.center_curvature,
    "center_gradient": _center.center_gradient,
    "constant_loss": _center.constant_loss,
    "flat_directions": _center.flat_directions,
    "standing_still": _chains.standing_still,
    "without_effect": _center.without_effect,
    "step_limit": _chains.step_limit,
    "r_hat": _chains.r_hat,
    "r_hat_distance": _chains.r_hat_distance,
    "ess_bulk": _chains.ess_bulk,
    "ess_tail": _chains.ess_tail,
    "monte_carlo_error": _chains.monte_carlo_error,
    "drift": _chains.drift,
    "divergences": _kernel.divergences,
    "acceptance": _kernel.acceptance,
    "mala_acceptance": _kernel.mala_acceptance,
    "step_size": _kernel.step_size,
    "gradient_noise": _kernel.gradient_noise,
    "evaluation": _kernel.evaluation,
    "below_center": _center.below_center,
    "negative": _center.negative,
    "above_half_dimension": _region.above_half_dimension,
    "basin": _region.basin,
    "localization": _region.localization,
    "gamma_law": _region.gamma_law,
}
"""In the order of reports: a check that may explain another comes before it."""


def outcomes(run: CheckInput) -> dict[str, Outcome]:
    """Make every check whose numbers the run has."""
    made = {}
    for name, check in CHECKS.items():
        try:
            made[name] = check(run)
        except NotMeasured:
            continue
    return made
