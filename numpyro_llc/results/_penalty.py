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
    """``β (z - z*)·∇nL(z)`` of each draw; None where it is not known, or has no finite value."""
    kept = statistics(idata)
    if "virial" not in kept:
        return None
    virial = draws_of(kept, "virial")
    return virial if np.isfinite(virial).all() else None


def share_columns(idata: InferenceData | Groups) -> dict[str, float]:
    """The share of λ̂ that γ takes, and its Monte Carlo error; NaN where the draws do not tell."""
    llc, (penalty, _) = draws_of(posterior(idata), "llc"), penalty_of(idata)
    if penalty is None or not np.isfinite([llc, penalty]).all():
        return {"localization_share": np.nan, "mcse_share": np.nan}
    share = localization_share(llc, penalty, virial_of(idata))
    error = error_of_mean(share.influence)
    return {"localization_share": share.value, "mcse_share": error}
