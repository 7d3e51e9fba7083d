"""Expectations under any loss of one or two parameters, by adaptive quadrature."""

import inspect
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from numpyro_llc._checks import check_positive
from numpyro_llc.known.exact._cells import (
    Array,
    Cells,
    Integrand,
    halves,
    measure,
    mesh,
    to_split,
    worse_axis,
)
from numpyro_llc.known.exact._limits import check_digits, check_edge
from numpyro_llc.known.exact.values import Expectation, effective_number, real_array

_MAX_CELLS = 400_000
_REACH = 9.5
"""Standard deviations of the localizing Gaussian from the center to the edge of the box."""


def quadrature(
    loss: Callable[..., ArrayLike],
    center: ArrayLike,
    *,
    num_data: int,
    localization: float = 1.0,
    inverse_temperature: float | None = None,
) -> Expectation:
    r"""Return mean and variance of ``llc`` for any loss of one or two parameters.

    .. math:: \mu = \frac{\int f e^{-f - γ|w - w^*|^2/2}\, dw}{\int e^{-f - γ|w - w^*|^2/2}\, dw},
              \qquad f(w) = nβ\, (L(w) - L(w^*))

    and the variance of f likewise.

    Parameters
    ----------
    loss
        L in nats, average over the data: ``loss(a)`` or ``loss(a, b)`` of equally long vectors of
        coordinates, to the vector of values. Smooth, and finite everywhere.
    center
        ``w*``: a number, or one or two of them.
    num_data
        n.
    localization
        γ > 0.
    inverse_temperature
        β; 1 / log n when left out.

    Returns
    -------
    Expectation
        Mean and variance, to a relative error of about 1e-8 where the loss itself has the digits.

    Raises
    ------
    ValueError, TypeError
        If there are more than two parameters, or the loss is not real and finite.
    ArithmeticError
        If two resolutions do not agree (the message holds both), the mass reaches the edge of the
        box, or rounding of the loss shows.

    Notes
    -----
    Gauss rules on cells that grow geometrically from the center and are halved, along the worse
    axis, until the highest Legendre coefficients are negligible, and until no valley can hide
    between the nodes. A far valley so narrow that nothing points to it is missed, and kinks of the
    loss converge slowly. Nothing beyond a box of ``± 9.5 / sqrt(γ)`` around the center, 12.5 at the
    most, is ever looked at: start at the minimum.
    """
    point = _point(center)
    _check_loss(loss, len(point))
    gamma = check_positive(
        "localization", localization, meaning="It is the precision of the Gaussian around w*."
    )
    c = effective_number(num_data, inverse_temperature)
    start = Integrand(loss, point, 0.0, c, gamma)
    start = start._replace(origin=float(start.values(point[None])[0]))
    previous = _expectation(start, reach=_REACH, tolerance=1e-7)
    for level in range(1, 4):
        found = _expectation(start, reach=_REACH + level, tolerance=1e-7 * 30.0**-level)
        if _agree(previous, found, c):
            return _from(start, found)
        previous, before = found, previous
    raise ArithmeticError(
        f"`loss` is too rough for quadrature: two resolutions give {tuple(_from(start, before))} "
        f"and {tuple(_from(start, previous))}. Raise `localization`, or lower nβ."
    )


class _Found(NamedTuple):
    """Mean and variance of ``c (L - origin)``."""

    origin: float
    mean: float
    variance: float

    @property
    def size(self) -> float:
        return math.sqrt(self.variance + self.mean**2)


def _from(start: Integrand, found: _Found) -> Expectation:
    """Return the expectation relative to the loss at the center."""
    return Expectation(start.c * (found.origin - start.origin) + found.mean, found.variance)


def _agree(one: _Found, other: _Found, c: float) -> bool:
    apart = c * (one.origin - other.origin) + one.mean - other.mean
    return (
        abs(apart) <= 1e-8 * other.size
        and abs(one.variance - other.variance) <= 1e-8 * other.size**2
    )


def _point(center: ArrayLike) -> Array:
    remedy = "For more parameters see product_of_powers, rank_two_product and independent."
    point = np.atleast_1d(real_array("center", center, "It is w*, one or two of them."))
    if point.shape not in ((1,), (2,)) or not np.isfinite(point).all():
        raise ValueError(f"`center` must be one or two finite numbers; got {center!r}. {remedy}")
    return point


def _check_loss(loss: object, dim: int) -> None:
    """Refuse what does not take `dim` vectors, as far as its signature tells."""
    takes = f"`loss` must be a function of {dim} vector{'s' * (dim > 1)} of coordinates"
    if not callable(loss):
        raise TypeError(f"{takes}; got {loss!r}.")
    try:
        inspect.signature(loss).bind(*range(dim))
    except TypeError as error:
        raise TypeError(f"{takes}, one for each number of `center`; {error}.") from None
    except ValueError:  # some functions in C have no signature
        return


def _expectation(integrand: Integrand, reach: float, tolerance: float) -> _Found:
    """Integrate within `reach` standard deviations of the localizing Gaussian."""
    radius, shift = reach / math.sqrt(integrand.gamma), 0.0
    boxes = mesh(integrand, radius)
    while True:
        cells = _resolved(integrand, boxes, shift, tolerance)
        least, f = cells.lowest
        if least >= shift - 1.0:
            break
        # f and its exponents are taken relative to about where the density is highest.
        integrand, shift = integrand._replace(origin=integrand.origin + f / integrand.c), least - f
    check_edge(integrand, cells, radius)
    check_digits(integrand, cells)
    weight, first, second = cells.total()
    mean = float(first / weight)
    return _Found(integrand.origin, mean, float(second / weight) - mean**2)


def _resolved(integrand: Integrand, boxes: Array, shift: float, tolerance: float) -> Cells:
    """Halve cells until they are resolved, or the density turns out to be far higher somewhere."""
    cells = measure(integrand, boxes, shift)
    while cells.lowest[0] >= shift - 30.0:
        split = to_split(cells, tolerance)
        if not split.any():
            break
        rough = cells.take(split)
        finer = measure(integrand, halves(rough.boxes, worse_axis(rough)), shift)
        cells = cells.take(~split).join(finer)
        if len(cells.boxes) > _MAX_CELLS:
            check_digits(integrand, cells)
            raise ArithmeticError(
                f"`loss` is too rough for quadrature: {len(cells.boxes)} cells do not resolve "
                f"it to {tolerance:.0e}. Raise `localization`, or lower nβ."
            )
    return cells
