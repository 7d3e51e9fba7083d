"""λ as the shape of a Gamma distribution with rate one."""

from typing import Any

import numpy as np

from numpyro_llc._checks import check_positive
from numpyro_llc.estimators._estimate import Estimate, average, checked

FLOOR = 1e-3
"""Below this a draw's `llc` may be rounding, and only that it is small is used."""


def gamma_fit(llc: Any, *, floor: float = FLOOR) -> Estimate:
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
    small n) its bias is its own; draws far below zero count as small ones. All draws below ε give
    0.
    """
    floor = check_positive("floor", floor, meaning="It is where rounding of `llc` begins.")
    x = checked("llc", llc)
    small = average((x < floor).astype(float))
    if small.value == 1.0:
        return Estimate(0.0, np.zeros_like(x))
    logs = average(np.log(np.maximum(x, floor)))
    shape = _solve(small.value, logs.value)
    slope = _trigamma(shape) - small.value / shape**2
    return (logs - small * (1.0 / shape)).through(shape, 1.0 / slope)


def _solve(share: float, target: float) -> float:
    """The root of ``ψ(x) + share/x = target``, whose left side rises from -∞ to ∞."""
    low, high = -40.0, 40.0  # of ln x
    for _ in range(100):
        middle = 0.5 * (low + high)
        x = float(np.exp(middle))
        low, high = (middle, high) if _digamma(x) + share / x < target else (low, middle)
    return float(np.exp(0.5 * (low + high)))


def _digamma(x: float) -> float:
    """ψ in float64: up by ``ψ(x) = ψ(x + 1) - 1/x``, then the asymptotic series."""
    below = 0.0
    while x < 10.0:
        below, x = below - 1.0 / x, x + 1.0
    y = 1.0 / x**2
    series = y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y * (1 / 240 - y / 132))))
    return below + float(np.log(x)) - 0.5 / x - series


def _trigamma(x: float) -> float:
    """ψ' likewise."""
    below = 0.0
    while x < 10.0:
        below, x = below + 1.0 / x**2, x + 1.0
    y = 1.0 / x**2
    series = 1 / 6 - y * (1 / 30 - y * (1 / 42 - y * (1 / 30 - y * 5 / 66)))
    return below + 1.0 / x + 0.5 * y + series * y / x
