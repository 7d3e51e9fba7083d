"""λ as the shape of a Gamma distribution with rate one."""

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from numpyro_llc._checks import check_positive, percent
from numpyro_llc.estimators._estimate import Estimate, average, checked

FLOOR = 1e-3
"""Below this a draw's `llc` may be rounding, and only that it is small is used. Half a unit in the
last place of 10⁴ nats in float32 is 5e-4."""
MOST_BELOW = 0.1
"""Share of draws below zero, and more than rounding so, at which the law does not hold."""
WIDEST_LOG = 40.0
"""λ is sought between ``exp(-40)`` and ``exp(40)``, or higher where the draws are."""
LOG_TOLERANCE = 1e-14
"""Relative error of the root, near that of float64."""


def gamma_fit(llc: ArrayLike, *, floor: float = FLOOR) -> Estimate:
    r"""Maximum likelihood of λ where X is Gamma(λ, 1), as it is for large n and m = 1.

    Of draws below `floor` ε, some of which rounding puts below zero, only ``X < ε`` is used, whose
    probability is ``ε^λ / Γ(λ + 1)`` up to a factor ``1 + O(ε)``. With p their share, the
    likelihood is largest where::

        ψ(λ) + p/λ = E[ln max(X, ε)],

    ψ the digamma function; for p = 0 the usual equation of a Gamma shape.

    Parameters
    ----------
    llc : array [chain, draw]
        ``β [nL(z) - nL(z*)]`` of each draw.
    floor : positive float
        ε, above the rounding of `llc` and well below 1.

    Notes
    -----
    The density of the loss near its minimum, ``e^(λ-1) (-ln e)^(m-1)`` (Watanabe 2009, Algebraic
    Geometry and Statistical Learning Theory), gives the Gamma law. Its error is smaller than the
    mean's by ``sqrt(λ ψ'(λ))``, for λ = 1/4 a factor of 2. Where the law does not hold (γ, m > 1,
    small n) its bias is its own; draws far below zero count as small ones, and many of them are a
    doubt. All draws below ε give 0.
    """
    floor = check_positive("floor", floor, meaning="It is where rounding of `llc` begins.")
    x = checked("llc", llc)
    small = average((x < floor).astype(float))
    below = float(np.mean(x < -floor))
    doubts: tuple[str, ...] = ()
    if below > MOST_BELOW:
        doubts = (
            f"{percent(below)} of the draws lie below zero by more than {floor:g} (want < "
            f"{percent(MOST_BELOW)}), which no draw of a Gamma law does: the centre is not the "
            "minimum, or rounding of `llc` is larger. Raise `floor`, or run find_center.",
        )
    if small.value == 1.0:
        return Estimate(0.0, np.zeros_like(x), doubts=doubts)
    logs = average(np.log(np.maximum(x, floor)))
    shape = _solve(small.value, logs.value)
    slope = float(polygamma(1, shape)) - small.value / shape**2
    found = (logs - small * (1.0 / shape)).through(shape, 1.0 / slope)
    return replace(found, doubts=doubts)


def _solve(share: float, target: float) -> float:
    """The root of ``ψ(x) + share/x = target``, whose left side rises from -∞ to ∞."""

    def gap(log_x: float) -> float:
        x = np.exp(log_x)
        return float(digamma(x) + share / x - target)

    # ψ(x) < ln x bounds the root from below, and ψ(x) > ln x - 1 from above for x > 1.
    highest = max(WIDEST_LOG, target + 1.0)
    return float(np.exp(brentq(gap, -WIDEST_LOG, highest, xtol=LOG_TOLERANCE)))
