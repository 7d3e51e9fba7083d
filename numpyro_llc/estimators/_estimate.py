"""``Estimate``: a number and what each draw contributes to it; means, and what is made of them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

RESOLVED = 3.0
"""Errors above zero at which a quantity counts as positive: of a normal error, one in 700."""


@dataclass(frozen=True)
class Estimate:
    r"""A smooth function of means over draws, linearized: ``T̂ - T ≈ mean of influence``.

    Estimates of the same draws are added and subtracted as numbers are; their correlation is kept,
    since influences are added draw by draw.

    Attributes
    ----------
    value : float
    influence : float array [chain, draw]
        Of mean zero. The Monte Carlo error of its mean is that of `value` (delta method): to first
        order in 1/ESS, so not where the function has a kink, such as a root near zero.
    root : Root or None
        What `value` is a root of, if it is one.
    doubts : tuple of str
        Why `value` is not to be trusted, as far as the draws alone tell.
    """

    value: float
    influence: np.ndarray
    root: "Root | None" = None
    doubts: tuple[str, ...] = ()

    def __add__(self, other: "Estimate") -> "Estimate":
        return Estimate(
            self.value + other.value,
            self.influence + other.influence,
            doubts=self.doubts + other.doubts,
        )

    def __mul__(self, factor: float) -> "Estimate":
        return Estimate(factor * self.value, factor * self.influence, doubts=self.doubts)

    def __sub__(self, other: "Estimate") -> "Estimate":
        return self + other * -1.0

    def through(self, value: float, slope: float) -> "Estimate":
        """``f(self)``, where ``f(self.value)`` is `value` and f' there is `slope`."""
        return Estimate(value, slope * self.influence, doubts=self.doubts)


@dataclass(frozen=True)
class Root:
    """``first + f(gap)``, f concave and rising from f(0) = 0, where its slope has no bound.

    Within the error of `gap` from zero the slope at `gap` says nothing of that of the sum.
    """

    first: Estimate
    gap: Estimate
    function: Callable[[float], float]

    def end(self, errors: float, error_of: Callable[[np.ndarray], float]) -> float:
        """End of the interval that many errors up, or down if negative; NaN if draws do not vary.

        f is linearized by its chord over as many errors of `gap` (in the manner of Zou and Donner
        2008, Statistics in Medicine 27:1693-1702), so that gap and first are correlated as they
        are. Where f is nearly straight that is the delta method.
        """
        here, step = self.gap.value, errors * error_of(self.gap.influence)
        if not step:
            return float("nan")
        value = self._at(here)
        slope = (self._at(here + step) - value) / step
        return (
            self.first.value
            + value
            + errors * error_of(self.first.influence + slope * self.gap.influence)
        )

    def _at(self, gap: float) -> float:
        return float(self.function(max(gap, 0.0)))


def checked(name: str, values: ArrayLike) -> np.ndarray:
    """Finite float64 draws ``[chain, draw]``, or an error that names them."""
    array = np.asarray(values, np.float64)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"`{name}` must be draws of shape [chain, draw]; got shape {array.shape}.")
    if not np.all(np.isfinite(array)):
        raise ValueError(
            f"`{name}` has {int(np.sum(~np.isfinite(array)))} non-finite values among "
            f"{array.size}: the run broke. Leave out the draws from there on."
        )
    return array


def like(name: str, values: ArrayLike, llc: ArrayLike) -> np.ndarray:
    """Draws as :func:`checked` has them, of the shape of `llc`."""
    array = checked(name, values)
    if array.shape != np.shape(llc):
        raise ValueError(
            f"`{name}` must have the shape of `llc`, {np.shape(llc)}; got {array.shape}."
        )
    return array


def average(x: np.ndarray, weights: np.ndarray | None = None) -> Estimate:
    """``E[x]``, or under weights ``E[w x] / E[w]``; a ratio's influence is ``w (x - value)``."""
    relative = np.ones_like(x) if weights is None else weights / np.mean(weights)
    value = float(np.mean(relative * x))
    return Estimate(value, relative * (x - value))


def covariance(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> Estimate:
    """``E[(x - Ex)(y - Ey)]``, biased by 1/ESS of itself, under weights if they are given.

    The means' own errors do not enter: the covariance is stationary in them.
    """
    centered = x - average(x, weights).value
    return average(centered * (y - average(y, weights).value), weights)
