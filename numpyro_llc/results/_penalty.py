"""``penalty_of``: how far each draw is from the centre, in nats of the localizing Gaussian."""

import numpy as np

from numpyro_llc.inference_data import Groups, InferenceData, draws_of, statistics
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
