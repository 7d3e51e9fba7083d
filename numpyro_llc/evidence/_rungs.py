"""The rungs of a ladder: given, or chosen so that neighbours overlap."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq

from numpyro_llc._checks import check_positive

KEPT = 0.5
"""Share of the draws (Kish) that weights from a rung to the next should leave."""
WIDEST = 4.0
"""The largest ratio of neighbours: of one parameter the share alone would let it grow beyond."""
LOWEST_LOG = -80.0
"""The lowest ``ln β`` of a first rung; ``exp(80)`` nats are near the end of float32."""


def default_rungs(base_excess: np.ndarray, dimension: int) -> np.ndarray:
    """A geometric series up to 1, from where half of the draws at β = 0 would be left.

    Parameters
    ----------
    base_excess : array [chain, draw]
        ``nL(z) - nL(z*)`` of draws at β = 0; may be infinite.
    dimension : int
        d. Of Gamma(λ, 1) draws weights to ρ times the temperature leave ``((2ρ - 1)/ρ²)^λ``.
    """
    excess = base_excess - base_excess.min()

    def too_many(log_beta: float) -> float:
        weights = np.exp(-np.exp(log_beta) * excess)
        return float(np.mean(weights) ** 2 / np.mean(weights**2)) - KEPT

    lowest = 1.0
    if too_many(0.0) < 0:
        lowest = float(np.exp(brentq(too_many, LOWEST_LOG, 0.0)))
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
