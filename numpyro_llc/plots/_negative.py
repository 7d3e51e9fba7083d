"""An axis on which values far below zero leave room for those above."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARE = 0.6
"""What values below zero may take of the axis, against what those above take."""
MARGIN = 1.08
"""The ends of the axis, over the values farthest out."""


def compress_negative(axes: "Axes", values: np.ndarray, errors: np.ndarray) -> None:
    """Make the y axis logarithmic below zero, if values are farther below than above."""
    known = np.isfinite(values)
    ends = np.stack([values - np.nan_to_num(errors), values + np.nan_to_num(errors)])[:, known]
    top, low = (MARGIN * float(np.max(part, initial=0.0)) for part in (ends, -ends))
    if not top > 0.0 or low <= SHARE * top:
        return
    width = _width(low, SHARE * top)

    def shown(y: np.ndarray) -> np.ndarray:
        return np.where(y < 0, -width * np.log1p(np.maximum(-y, 0.0) / width), y)

    def value(place: np.ndarray) -> np.ndarray:
        return np.where(place < 0, -width * np.expm1(np.maximum(-place, 0.0) / width), place)

    axes.set_yscale("function", functions=(shown, value))
    axes.set_ylim(-low, top)
    below = _decades(low, width)
    above = [tick for tick in _steps(top) if tick <= top]
    axes.set_yticks([*below, *above], [f"{tick:g}".replace("-", "−") for tick in (*below, *above)])
    axes.axhline(0.0, color="gray", linewidth=0.6, linestyle=":")
    axes.set_ylabel(f"{axes.get_ylabel()} (logarithmic below 0)")


def _width(low: float, room: float) -> float:
    """The s at which ``s log(1 + low/s)`` is `room`; it grows with s, up to `low`."""
    small, large = 1e-12 * low, 1e12 * low
    for _ in range(200):
        middle = np.sqrt(small * large)
        small, large = (
            (middle, large) if middle * np.log1p(low / middle) < room else (small, middle)
        )
    return float(middle)


def _decades(low: float, width: float) -> list[float]:
    """Powers of ten from the end of the axis to where it is no more logarithmic; a few."""
    powers = range(int(np.floor(np.log10(low))), int(np.floor(np.log10(width))), -1)
    return [-(10.0**k) for k in powers][:4]


def _steps(top: float) -> list[float]:
    """Round numbers from 0, about five of them."""
    rough = top / 5.0
    size = 10.0 ** np.floor(np.log10(rough))
    step = size * next(k for k in (1.0, 2.0, 2.5, 5.0, 10.0) if k * size >= rough)
    return [step * k for k in range(7)]
