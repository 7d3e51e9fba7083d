"""The rungs of a ladder: given, or chosen so that neighbours overlap."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq

from numpyro_llc._checks import check_positive

KEPT = 0.5
"""Share of the draws (Kish) that weights from a rung to the next should leave."""
WIDEST = 4.0
"""The largest ratio of neighbours: of one parameter the share alone would let it grow beyond."""
FLAT = 1e-3
"""Nats between the best and the worst draw at β = 0, of which weights leave all."""


def default_rungs(base_excess: np.ndarray, dimension: int) -> np.ndarray:
    """A geometric series up to 1, from where half of the finite draws at β = 0 would be left.

    Parameters
    ----------
    base_excess : array [chain, draw]
        ``nL(z) - nL(z*)`` of draws at β = 0; may be infinite.
    dimension : int
        d. Of Gamma(λ, 1) draws weights to ρ times the temperature leave ``((2ρ - 1)/ρ²)^λ``.
    """
    finite = base_excess[np.isfinite(base_excess)]
    if not finite.size:
        raise ValueError(
            f"The loss is finite at none of {base_excess.size} draws at β = 0, so no rung can be "
            "chosen. Use a narrower prior or a larger `localization`."
        )
    excess = finite - finite.min()
    kept = KEPT * finite.size / base_excess.size  # of draws whose loss is infinite none is left

    def too_many(log_beta: float) -> float:
        weights = np.exp(-np.exp(log_beta) * excess)
        return float(np.sum(weights) ** 2 / np.sum(weights**2)) / base_excess.size - kept

    lowest = 1.0
    if too_many(0.0) < 0:
        unweighted = np.log(FLAT) - np.log(excess.max())  # all weights are 1, or almost
        lowest = float(np.exp(brentq(too_many, unweighted, 0.0)))
    share = KEPT ** (2.0 / dimension)
    ratio = min((1.0 + np.sqrt(1.0 - share)) / share, WIDEST)
    count = int(np.ceil(-np.log(lowest) / np.log(ratio))) + 1
    rungs = np.geomspace(lowest, 1.0, count)
    rungs[-1] = 1.0
    return rungs


def check_rungs(inverse_temperatures: Sequence[float]) -> np.ndarray:
    """The rungs as floats, positive and increasing, or an error."""
    meaning = "It is β of a rung; the rung 0 is added."
    rungs = [
        check_positive("inverse_temperatures", value, meaning=meaning)
        for value in inverse_temperatures
    ]
    if not rungs or np.any(np.diff(rungs) <= 0):
        raise ValueError(f"`inverse_temperatures` must be increasing, at least one; got {rungs}.")
    return np.asarray(rungs)
