"""Cells of an adaptive quadrature in one or two dimensions: measuring and halving them."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numpyro_llc.known.exact.values import real_array

Array = NDArray[np.float64]

_ORDER = 10
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(_ORDER)
# Rows that read off the two highest Legendre coefficients of a function known at the nodes.
_TAIL = (np.polynomial.legendre.legvander(_NODES, _ORDER - 1) * _WEIGHTS[:, None]).T[-2:] * (
    np.arange(_ORDER)[-2:, None] + 0.5
)
_NEGLIGIBLE = 45.0
"""Exponent, above the least one, at which the density is dropped."""
_STEEP = 10.0
"""Step of the exponent from node to node that leaves room for a valley between them."""
_POINTS = 2**14
"""Points of one call of the loss."""


class Integrand(NamedTuple):
    """The integrand: f, and the Gaussian around the center."""

    loss: Callable[..., ArrayLike]
    center: Array
    origin: float
    """The loss at which f is 0: near the mass, lest its digits cancel."""
    c: float
    gamma: float

    def excess(self, offsets: Array) -> Array:
        """Return f at ``center + offsets``; offsets ``[points, d]``."""
        return self.c * (self.values(self.center + offsets) - self.origin)

    def exponent(self, offsets: Array) -> Array:
        """Return the negative log of the density at ``center + offsets``."""
        total: Array = self.excess(offsets) + 0.5 * self.gamma * np.sum(offsets**2, axis=-1)
        return total

    def values(self, points: Array) -> Array:
        """Return the loss at points ``[points, d]``."""
        parts = [
            real_array("loss", self.loss(*part.T), "It gives a vector of values.")
            for part in np.array_split(points, max(1, len(points) // _POINTS))
        ]
        values = np.concatenate([np.ravel(part) for part in parts])
        if values.shape != points.shape[:1]:
            raise ValueError(
                f"`loss` must give one value for each point; got {values.size} for {len(points)} "
                "points. It takes vectors of coordinates and gives a vector."
            )
        if not np.isfinite(values).all():
            raise ValueError(
                "`loss` must be finite at and around `center`; got NaN or an infinite value. "
                "Reparametrize so that it is finite everywhere, or raise `localization`."
            )
        return values


class Cells(NamedTuple):
    """Boxes ``[cell, axis, (low, high)]`` with their contributions to the integrals of 1, f, f²."""

    boxes: Array
    moments: Array
    """``[cell, 3]``."""
    tails: Array
    """``[cell, axis, 3]``: sizes of the highest Legendre coefficients."""
    drops: Array
    """``[cell, axis]``: steepest step of the exponent at a node whose neighborhood may matter."""
    lowest: tuple[float, float]
    """Least exponent met, and f there."""

    def total(self) -> Array:
        """Return the integrals of 1, f and f² against the density."""
        sums: Array = self.moments.sum(axis=0)
        return sums

    def take(self, chosen: NDArray[np.bool_]) -> "Cells":
        """Return some of the cells."""
        boxes, moments, tails, drops = (
            part[chosen] for part in (self.boxes, self.moments, self.tails, self.drops)
        )
        return Cells(boxes, moments, tails, drops, self.lowest)

    def join(self, other: "Cells") -> "Cells":
        """Return these cells and the others."""
        return Cells(
            np.concatenate([self.boxes, other.boxes]),
            np.concatenate([self.moments, other.moments]),
            np.concatenate([self.tails, other.tails]),
            np.concatenate([self.drops, other.drops]),
            min(self.lowest, other.lowest),
        )


def mesh(integrand: Integrand, radius: float) -> Array:
    """Return boxes whose sides double with the distance from the center."""
    dim = len(integrand.center)
    unit = np.linspace(-1.0, 1.0, 9)
    cube = np.stack(np.meshgrid(*[unit] * dim), axis=-1).reshape(-1, dim)
    levels = 1
    while levels < 60 and np.abs(integrand.excess(cube * radius * 0.5**levels)).max() > 0.5:
        levels += 1
    positive = radius * 0.5 ** np.arange(levels, -1, -1.0)
    edges = np.concatenate([-positive[::-1], positive])
    sides = np.stack([edges[:-1], edges[1:]], axis=-1)
    index = np.stack(np.meshgrid(*[np.arange(len(sides))] * dim), axis=-1).reshape(-1, dim)
    return sides[index]


def measure(integrand: Integrand, boxes: Array, shift: float) -> Cells:
    """Apply the Gauss rule to boxes; the density is ``exp(shift - exponent)``."""
    count, dim = boxes.shape[:2]
    half = 0.5 * (boxes[..., 1] - boxes[..., 0])
    axes = boxes.mean(axis=-1)[..., None] + half[..., None] * _NODES
    shape = (count,) + (_ORDER,) * dim
    sides = [axes[:, 0].reshape(shape[:2] + (1,) * (dim - 1)), axes[:, -1, None, :]]
    grid = np.stack([np.broadcast_to(side, shape) for side in sides[:dim]], axis=-1)
    f = integrand.excess(grid.reshape(-1, dim)).reshape(grid.shape[:-1])
    exponent = f + 0.5 * integrand.gamma * np.sum(grid**2, axis=-1)
    volume = half.prod(axis=1).reshape((count,) + (1,) * dim)
    density = volume * np.exp(np.minimum(shift - exponent, 300.0))
    values = np.stack([density, f * density, f * f * density], axis=-1)
    moments, tails, drops = values, [], []
    for axis in range(dim):
        moments = np.tensordot(moments, _WEIGHTS, axes=(1, 0))
        tails.append(_tail(values, axis))
        drops.append(_drop(exponent - shift, axis))
    least = int(exponent.argmin())
    lowest = float(exponent.flat[least]), float(f.flat[least])
    return Cells(boxes, moments, np.stack(tails, axis=1), np.stack(drops, axis=1), lowest)


def _tail(values: Array, axis: int) -> Array:
    """Return the size of the highest coefficients along an axis, summed over the other."""
    sizes = np.abs(np.tensordot(values, _TAIL, axes=(1 + axis, 1))).max(axis=-1)
    while sizes.ndim > 2:
        sizes = np.tensordot(sizes, _WEIGHTS, axes=(1, 0))
    return 2.0 * sizes


def _drop(exponent: Array, axis: int) -> Array:
    """Return the steepest step at a node next to which the exponent may fall into the mass.

    A valley between two nodes leaves no trace in the integrand, but the exponent is steep there.
    """
    steps = np.abs(np.diff(exponent, axis=1 + axis))
    wall = np.zeros_like(np.take(exponent, [0], axis=1 + axis))
    around = np.maximum(
        np.concatenate([wall, steps], axis=1 + axis), np.concatenate([steps, wall], axis=1 + axis)
    )
    matters = (exponent - around < _NEGLIGIBLE) & (around > _STEEP)
    largest: Array = np.where(matters, around, 0.0).reshape(len(exponent), -1).max(axis=1)
    return largest


def to_split(cells: Cells, tolerance: float) -> NDArray[np.bool_]:
    """Tell which cells are not resolved."""
    weight, _, second = cells.total()
    # The signed integrand of f may vanish; by Cauchy-Schwarz this is its natural size.
    totals = np.maximum(
        [weight, math.sqrt(weight) * math.sqrt(second), second], np.finfo(float).tiny
    )
    rough = np.any(cells.tails / totals > tolerance, axis=(1, 2))
    return np.asarray(rough | np.any(cells.drops > 0, axis=1))


def worse_axis(cells: Cells) -> NDArray[np.intp]:
    """Return the axis along which to halve each cell."""
    hidden = cells.drops.max(axis=1) > 0
    sizes = cells.tails / np.maximum(cells.tails.max(axis=(0, 1)), np.finfo(float).tiny)
    choice: NDArray[np.intp] = np.where(
        hidden, cells.drops.argmax(axis=1), sizes.max(axis=2).argmax(axis=1)
    )
    return choice


def halves(boxes: Array, axis: NDArray[np.intp]) -> Array:
    """Return both halves of each box, the lower ones first."""
    rows = np.arange(len(boxes))
    lower, upper = boxes.copy(), boxes.copy()
    middle = boxes[rows, axis].mean(axis=1)
    lower[rows, axis, 1] = middle
    upper[rows, axis, 0] = middle
    return np.concatenate([lower, upper])
