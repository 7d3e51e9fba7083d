"""Expectations under losses that are products of powers, by a Mellin-Barnes integral."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import digamma, loggamma, polygamma

from numpyro_llc._checks import check_positive
from numpyro_llc.known.exact.values import Expectation, check_integers, effective_number

Array = NDArray[np.float64]

_NEGLIGIBLE = 45.0
"""Logarithm of the ratio below which the tails of an integrand are dropped."""

_WIDEST = 10**9
"""Exponent or size at which 5 digits are left."""
_LARGEST = 1e5
"""λ̂ at which the variance, a difference of squares, has 5 digits left."""


def product_of_powers(
    exponents: Sequence[int],
    *,
    sizes: Sequence[int] | None = None,
    scale: float = 1.0,
    num_data: int,
    localization: float = 1.0,
    inverse_temperature: float | None = None,
) -> Expectation:
    r"""Return mean and variance of ``llc`` for ``L = κ prod_i |w_i|^(2 k_i)`` at ``w* = 0``.

    The block w_i has n_i coordinates. With ``X = nβ κ prod_i (2/γ)^(k_i)`` and
    ``Z(X) = E exp(-X prod_i t_i^(k_i))`` over independent ``t_i ~ Gamma(n_i / 2)``,

    .. math:: Z(X) \propto \int_{σ - i \infty}^{σ + i \infty} Γ(s) X^{-s}
              \prod_i Γ(n_i/2 - k_i s)\, ds, \qquad 0 < σ < \min_i \frac{n_i}{2 k_i},

    ``mean = -X Z'/Z`` and ``variance = X² Z''/Z - mean²``: integrals with Γ(s + 1) and Γ(s + 2).

    Parameters
    ----------
    exponents
        k_i, at least 1.
    sizes
        n_i, at least 1; 1 for all when left out.
    scale
        κ > 0.
    num_data
        n.
    localization
        γ > 0, the precision of the Gaussian around 0.
    inverse_temperature
        β; 1 / log n when left out.

    Returns
    -------
    Expectation
        Mean and variance.

    Notes
    -----
    Each integral runs through its own saddle point, where nothing cancels; the trapezoid rule is
    then good to about 12 digits. The variance is a difference of squares of the mean: its relative
    error grows from 1e-12 at a mean of some tens to 3e-8 at 5e3 and 3e-5 at 1e5. Beside a small
    block, one of 1e6 coordinates leaves 9 digits, one of 1e9 leaves 5.

    Reduced-rank regression with one hidden unit is ``exponents=[1, 1], sizes=[inputs, outputs]``.
    It covers the center 0 only.
    """
    c = effective_number(num_data, inverse_temperature)
    k = check_integers("exponents", exponents, minimum=1, meaning="It gives the powers 2 k_i.")
    n = check_integers(
        "sizes",
        [1] * len(k) if sizes is None else sizes,
        minimum=1,
        meaning="It gives the number of coordinates of each w_i.",
        length=len(k),
    )
    kappa = check_positive("scale", scale, meaning="It multiplies the product.")
    gamma = check_positive(
        "localization", localization, meaning="It is the precision of the Gaussian around 0."
    )
    if max(*k, *n) > _WIDEST:
        raise ValueError(
            f"`exponents` and `sizes` must be at most {_WIDEST:.0e}, beyond which rounding takes "
            "over; got a larger one. Their limit is normal_crossing."
        )
    powers, halves = np.array(k, float), np.array(n, float) / 2.0
    if (largest := float(np.min(halves / powers))) > _LARGEST:
        raise ValueError(
            f"`sizes` must leave min n_i / (2 k_i) at most {_LARGEST:g}, beyond which the variance "
            f"is lost in rounding; got {largest:g}."
        )
    log_x = np.log(c) + np.log(kappa) + powers.sum() * (np.log(2.0) - np.log(gamma))
    logs = [_Barnes(powers, halves, log_x, shift).log_integral() for shift in (0, 1, 2)]
    mean, second = (float(np.exp(log - logs[0])) for log in logs[1:])
    return Expectation(mean, second - mean**2)


class _Barnes(NamedTuple):
    """The integrand ``Γ(s + shift) X^-s prod Γ(n_i/2 - k_i s)``, on a vertical line."""

    powers: Array
    halves: Array
    log_x: float
    shift: int

    def log_value(self, s: NDArray[np.complex128]) -> NDArray[np.complex128]:
        terms = loggamma(self.halves - self.powers * s[:, None]).sum(axis=1)
        value: NDArray[np.complex128] = loggamma(s + self.shift) - s * self.log_x + terms
        return value

    def slope(self, s: float) -> float:
        terms = self.powers * digamma(self.halves - self.powers * s)
        return float(digamma(s + self.shift) - self.log_x - terms.sum())

    def curvature(self, s: float) -> float:
        terms = self.powers**2 * polygamma(1, self.halves - self.powers * s)
        return float(polygamma(1, s + self.shift) + terms.sum())

    def log_integral(self) -> float:
        """Return the log of the integral, but for a constant factor that all shifts share."""
        saddle = self._saddle()
        # The width is below the distance to either pole, on which the error of the rule depends.
        step = self.curvature(saddle) ** -0.5 / 8.0
        height = self.log_value(np.array([saddle + 0j])).real[0]
        count = 256
        while self._log_height(saddle, step * count) > height - _NEGLIGIBLE:
            count *= 2
        line = self.log_value(saddle + 1j * step * np.arange(count)) - height
        values = np.exp(line).real
        return float(height + np.log(step * (2.0 * values.sum() - values[0])))

    def _log_height(self, saddle: float, distance: float) -> float:
        return float(self.log_value(np.array([saddle + 1j * distance])).real[0])

    def _saddle(self) -> float:
        """Return where the integrand is least on the real axis, between the two nearest poles."""
        low, high = -float(self.shift), float(np.min(self.halves / self.powers))
        inset = 0.25 * (high - low)
        while self.slope(low + inset) > 0 or self.slope(high - inset) < 0:
            inset /= 2.0
        return float(brentq(self.slope, low + inset, high - inset, xtol=1e-3 * inset))
