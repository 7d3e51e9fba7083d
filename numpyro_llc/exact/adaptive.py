"""Expectations under any loss of one or two parameters, by adaptive quadrature."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from numpyro_llc._checks import check_positive
from numpyro_llc.exact._cells import Problem, halves, measure, mesh, to_split, worse_axis
from numpyro_llc.exact.values import Expectation, effective_number

_MAX_CELLS = 400_000


def quadrature(
    loss: Callable[..., Any],
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
    ValueError
        If there are more than two parameters, or the loss is not finite.
    ArithmeticError
        If two resolutions do not agree; the message holds both.

    Notes
    -----
    Gauss rules on cells that grow geometrically from the center and are halved, along the worse
    axis, until the highest Legendre coefficients are negligible, and until no valley can hide
    between the nodes. A far valley so narrow that nothing points to it is missed, and kinks of the
    loss converge slowly.
    """
    point = np.atleast_1d(np.asarray(center, float))
    if point.shape not in ((1,), (2,)) or not np.isfinite(point).all():
        raise ValueError(
            f"`center` must be one or two finite numbers; got {center!r}. "
            "For more parameters see product_of_powers, rank_two_product and independent."
        )
    gamma = check_positive(
        "localization", localization, meaning="It is the precision of the Gaussian around w*."
    )
    c = effective_number(num_data, inverse_temperature)
    start = Problem(loss, point, 0.0, 1.0, gamma).excess(np.zeros((1, len(point))))
    problem = Problem(loss, point, float(start[0]), c, gamma)
    previous = _expectation(problem, reach=9.5, tolerance=1e-7)
    for level in range(1, 4):
        found = _expectation(problem, reach=9.5 + level, tolerance=1e-7 * 30.0**-level)
        if _agree(previous, found):
            return found
        previous, before = found, previous
    raise ArithmeticError(
        f"`loss` is too rough for quadrature: two resolutions give {tuple(before)} and "
        f"{tuple(previous)}. Raise `localization`, or lower nβ."
    )


def _agree(one: Expectation, other: Expectation) -> bool:
    spread = math.sqrt(other.variance + other.mean**2)
    return (
        abs(one.mean - other.mean) <= 1e-8 * spread
        and abs(one.variance - other.variance) <= 1e-8 * spread**2
    )


def _expectation(problem: Problem, reach: float, tolerance: float) -> Expectation:
    """Integrate within `reach` standard deviations of the localizing Gaussian."""
    radius, shift, lowest = reach / math.sqrt(problem.gamma), math.inf, 0.0
    while lowest < shift - 30.0:  # The exponents are taken relative to about the least of them.
        shift = lowest
        cells = measure(problem, mesh(problem, radius), shift)
        while (lowest := cells.lowest) >= shift - 30.0:
            split = to_split(cells, tolerance)
            if not split.any():
                break
            rough = cells.take(split)
            finer = measure(problem, halves(rough.boxes, worse_axis(rough)), shift)
            cells = cells.take(~split).join(finer)
            if len(cells.boxes) > _MAX_CELLS:
                raise ArithmeticError(
                    f"`loss` is too rough for quadrature: {len(cells.boxes)} cells do not resolve "
                    f"it to {tolerance:.0e}. Raise `localization`, or lower nβ."
                )
    weight, first, second = cells.total()
    return Expectation(float(first / weight), float(second / weight - (first / weight) ** 2))
