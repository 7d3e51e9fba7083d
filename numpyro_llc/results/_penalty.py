"""How far each draw is from the centre, in nats of the localizing Gaussian, and what that costs."""

import numpy as np

from numpyro_llc.estimators import localization_share
from numpyro_llc.inference_data import (
    Groups,
    InferenceData,
    draws_of,
    error_of_mean,
    posterior,
    statistics,
)
from numpyro_llc.results._report import report_of

UNSEEN_SHARE = 0.02
"""Of λ̂: the error for rows not evaluated up to which the virial of the others is used."""


def penalty_of(idata: InferenceData | Groups) -> tuple[np.ndarray | None, str]:
    """``½ Σ_s γ_s |z_s - z*_s|²`` of each draw, or None and what to do about it."""
    kept, gamma = statistics(idata), report_of(idata).localization
    if "penalty" in kept:
        return draws_of(kept, "penalty"), ""
    if gamma is None or isinstance(gamma, dict):
        return None, (
            f"γ is {gamma}, and the distances by site are not stored. Use one `localization` for "
            "all sites, or store ½ Σ γ_s |z_s - z*_s|² as `penalty` in sample_stats."
        )
    if "distance" not in kept:
        return None, "sample_stats must hold `distance`, from the centre in unconstrained space."
    return 0.5 * float(gamma) * draws_of(kept, "distance") ** 2, ""


def virial_of(idata: InferenceData | Groups) -> np.ndarray | None:
    """``β (z - z*)·∇nL(z)`` of each draw; None where it is not known, or of too few rows."""
    kept = statistics(idata)
    if "virial" not in kept:
        return None
    virial, llc = draws_of(kept, "virial"), draws_of(posterior(idata), "llc")
    unseen = report_of(idata).evaluation_error
    return virial if is_of_density(virial, float(np.mean(llc)), unseen) else None


def is_of_density(virial: np.ndarray, llc: float, unseen: float | None) -> bool:
    """Whether the virial is that of the density that was sampled: finite, and of enough rows.

    That of some rows is off by about twice the error `unseen` of λ̂ for the others, and what γ takes
    by as much as that error.
    """
    return bool(np.isfinite(virial).all()) and (unseen or 0.0) <= UNSEEN_SHARE * abs(llc)


def share_columns(idata: InferenceData | Groups) -> dict[str, float]:
    """The share of λ̂ that γ takes, and its Monte Carlo error; NaN where the draws do not tell."""
    llc, (penalty, _) = draws_of(posterior(idata), "llc"), penalty_of(idata)
    if penalty is None or not np.isfinite([llc, penalty]).all():
        return {"localization_share": np.nan, "mcse_share": np.nan}
    share = localization_share(llc, penalty, virial_of(idata))
    error = error_of_mean(share.influence)
    return {"localization_share": share.value, "mcse_share": error}
