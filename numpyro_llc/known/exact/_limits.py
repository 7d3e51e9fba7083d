"""Where a quadrature ends: at the edge of its box, and at the last digit of the loss."""

import math

import numpy as np

from numpyro_llc.known.exact._cells import Cells, Integrand

_EPS = float(np.finfo(float).eps)
_NO_MASS = 25.0
"""Exponent above the least one from which on the edge of the box holds no mass."""
_ROUNDING = 1e-6
"""Rounding of a value of f, relative to its size, that averages out to 1e-8 over the nodes."""


def check_edge(integrand: Integrand, cells: Cells, radius: float) -> None:
    """Refuse where the density has not fallen off at the edge of the box."""
    ends, middles = cells.boxes, cells.boxes.mean(axis=-1)
    outer = [middles[:0]]
    for axis in range(ends.shape[1]):
        for side in range(2):
            touches = np.abs(ends[:, axis, side]) >= radius
            faces = middles[touches]
            faces[:, axis] = ends[touches, axis, side]
            outer.append(faces)
    if integrand.exponent(np.concatenate(outer)).min() < cells.lowest[0] + _NO_MASS:
        raise ArithmeticError(
            f"`center` is too far from the mass: it reaches the edge of the box of ± {radius:.4g} "
            "around `center`, beyond which quadrature does not look. Start at the minimum of "
            "`loss`, or lower `localization` for a wider box."
        )


def check_digits(integrand: Integrand, cells: Cells) -> None:
    """Refuse where rounding of the loss, or of the point, shows in f."""
    points = integrand.center + cells.boxes.mean(axis=-1)
    steps = np.abs(integrand.values(np.nextafter(points, math.inf)) - integrand.values(points))
    weight, _, second = cells.total()
    rounding = integrand.c * (
        float(cells.moments[:, 0] @ steps) / weight + _EPS * abs(integrand.origin)
    )
    if rounding > _ROUNDING * (math.sqrt(second / weight) or 1.0):
        raise ArithmeticError(
            f"`loss` is not precise enough: its rounding, or that of its arguments, is "
            f"{rounding:.1e} of nβ (L(w) - L(w*)). Subtract from `loss` its value at the minimum, "
            "move the minimum to 0, or lower nβ."
        )
