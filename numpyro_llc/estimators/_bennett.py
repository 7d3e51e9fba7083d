"""The ratio of two normalizing constants, from draws of both densities."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit

from numpyro_llc.estimators._estimate import Estimate

LEAST_OVERLAP = 0.02
"""Overlap ``∫ p0 p1/(p0 + p1)`` of two densities, at most 1/2; below, their ratio is doubtful.
Klimovich, Shirts and Mobley (2015), Journal of Computer-Aided Molecular Design 29:397-411, advise
0.03 of neighbours."""
ROOT_TOLERANCE = 1e-10
"""Nats, far below any Monte Carlo error."""


def bennett(work: ArrayLike, other_work: ArrayLike) -> tuple[Estimate, Estimate]:
    r"""``-log(Z1/Z0)`` of densities ``p1 ∝ p0 exp(-work)``, from draws of each: Bennett's ratio.

    The root x of ``E_0[s(x - work)] = E_1[s(work - x)]``, s the logistic function.

    Parameters
    ----------
    work : array [chain, draw]
        At draws of p0; may be infinite where p1 is zero, but not at all draws.
    other_work : array [chain, draw]
        At draws of p1.

    Returns
    -------
    tuple of two Estimate
        Both have the root as `value`, and their influences, of the draws of p0 and of p1, add to
        its error in squares. Doubtful if the densities hardly overlap; not finite if they do not.

    Notes
    -----
    Bennett (1976), Journal of Computational Physics 22:245-268: of all ratios of means the one of
    least variance, for equally many draws. There is no error of discretization, as thermodynamic
    integration has.
    """
    first, second = np.asarray(work, np.float64), np.asarray(other_work, np.float64)
    if np.isnan(first).any() or not np.isfinite(second).all():
        raise ValueError(
            "`work` must hold no NaN, and `other_work` be finite: the loss broke at a draw. Lower "
            "the step size, narrow the prior, or raise `localization`."
        )

    if np.isposinf(first).all():
        raise ValueError(
            f"`work` is infinite at all {first.size} draws: the densities do not overlap. Give a "
            "density between them, narrow the prior, or raise `localization`."
        )

    def gap(x: float) -> float:
        return float(np.mean(expit(x - first)) - np.mean(expit(second - x)))

    root = _root(gap, float(np.median(second)))
    up, down = expit(root - first), expit(second - root)
    slope = np.mean(up * (1.0 - up)) + np.mean(down * (1.0 - down))
    doubts: tuple[str, ...] = ()
    if np.mean(up) < LEAST_OVERLAP:
        doubts = (
            f"two neighbouring densities overlap by {np.mean(up):.2g} (want > {LEAST_OVERLAP:g})",
        )
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # of no overlap at all
        below, above = -(up - np.mean(up)) / slope, (down - np.mean(down)) / slope
    return Estimate(root, below, doubts=doubts), Estimate(root, above)


def _root(rising: Callable[[float], float], start: float) -> float:
    """The root of a rising function, in a bracket that doubles away from `start`.

    The root is far closer to typical works than to the largest ones, which a wide prior makes huge.
    """
    low = high = start
    step = 1.0
    while rising(low) > 0:
        low, step = low - step, 2.0 * step
    step = 1.0
    while rising(high) < 0:
        high, step = high + step, 2.0 * step
    return low if low == high else float(brentq(rising, low, high, xtol=ROOT_TOLERANCE))
