"""Checks of a finished run: numbers in, findings out."""

import math
from collections.abc import Mapping

R_HAT_LIMIT = 1.02
ESS_LIMIT = 100.0
DIVERGENCE_LIMIT = 0.005


def check_convergence(
    row: Mapping[str, float], *, num_chains: int, divergent_share: float
) -> list[str]:
    """What is doubtful about a run: messages with number, threshold and remedy, or none.

    Parameters
    ----------
    row : mapping
        The row ``llc`` of :func:`~numpyro_llc.summary`.
    num_chains : int
    divergent_share : float
        Share of the draws that ended in a divergence.
    """
    findings = []
    if math.isnan(row["r_hat"]):
        findings.append(
            f"R-hat of `llc` cannot be judged from {num_chains} chain(s) this short. Raise "
            "`num_chains` (to 4) or `num_samples`."
        )
    elif row["r_hat"] > R_HAT_LIMIT:
        findings.append(
            f"R-hat of `llc` is {row['r_hat']:.4g} (want < {R_HAT_LIMIT}) over {num_chains} "
            "chains: they disagree. Raise `num_warmup` and `num_samples`, or `localization`."
        )
    if not row["ess_bulk"] >= ESS_LIMIT:  # or it is NaN
        findings.append(
            f"The bulk effective sample size of `llc` is {row['ess_bulk']:.0f} (want > "
            f"{ESS_LIMIT:.0f}): its error is itself uncertain. Raise `num_samples`."
        )
    if divergent_share > DIVERGENCE_LIMIT:
        findings.append(
            f"{100 * divergent_share:.1f} % of the draws diverged (want < "
            f"{100 * DIVERGENCE_LIMIT:g} %): a region may be missed. Use a kernel object with a "
            "higher target_accept_prob, or raise `localization`."
        )
    return findings
