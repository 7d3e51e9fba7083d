"""Draws at one inverse temperature, weighted so that they stand for another."""

import numpy as np

from numpyro_llc._checks import check_positive, percent

NARROW, WIDE = 1.5, 8.0
"""Ratios of inverse temperatures: Watanabe's (2013), and one that shows how λ̂ bends in ln c."""
SHARE_KEPT, SHARE_LIMIT = 0.5, 0.25
"""Shares of the draws that weights may leave: chosen for, and trusted at the least. Errors are then
larger by factors of 1.4 and 2 than those of as many draws without weights."""
BISECTIONS = 30
"""Halvings of ``ln 8``, down to 2e-9."""


def tempering_weights(
    llc: np.ndarray, ratio: float | None, *, widest: float
) -> tuple[np.ndarray, float, tuple[str, ...]]:
    r"""Weights ``exp(-(ρ - 1) X)``, which take draws from β to ρβ, ρ itself, and doubts.

    The share of the draws left is Kish's, ``(Σ w)²/(N Σ w²)``; for Gamma(λ, 1) draws it is
    ``((2ρ - 1)/ρ²)^λ``.

    Parameters
    ----------
    llc : array [chain, draw]
    ratio : float above 1 or None
        ρ; None for the largest up to `widest` that leaves half of the draws.
    """
    if ratio is None:
        ratio = _widest(llc, widest)
    elif check_positive("ratio", ratio, meaning=_MEANING) <= 1:
        raise ValueError(f"`ratio` must be above 1; got {ratio}. {_MEANING}")
    weights = _weights(llc, ratio)
    share = _share(weights)
    if share >= SHARE_LIMIT:
        return weights, float(ratio), ()
    doubt = (
        f"Weights to {ratio:g} times the inverse temperature leave {percent(share, 2)} of the "
        f"draws (want > {percent(SHARE_LIMIT)}): use a smaller `ratio` or a second run."
    )
    return weights, float(ratio), (doubt,)


_MEANING = "It is the second inverse temperature over the first, such as 1.5."


def _weights(llc: np.ndarray, ratio: float) -> np.ndarray:
    exponent = -(ratio - 1.0) * llc
    return np.exp(exponent - exponent.max())


def _share(weights: np.ndarray) -> float:
    return float(np.mean(weights) ** 2 / np.mean(weights**2))


def _widest(llc: np.ndarray, widest: float) -> float:
    """By bisection in ``ln ρ``: the share falls as ρ grows."""
    if _share(_weights(llc, widest)) >= SHARE_KEPT:
        return widest
    low, high = 0.0, float(np.log(widest))
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        if _share(_weights(llc, np.exp(middle))) >= SHARE_KEPT:
            low = middle
        else:
            high = middle
    return float(np.exp(high))  # never 1, where there would be nothing between the two
