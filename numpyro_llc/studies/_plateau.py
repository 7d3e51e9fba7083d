"""The plateau of a sweep: where λ̂ does not depend on the settings."""

import itertools
import json
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

from numpyro_llc._checks import percent

WIDTH = 0.05
"""Relative difference of λ̂ within a plateau, beside ``ERRORS`` Monte Carlo errors."""
ERRORS = 3.0
LEAST_CELLS = 3
"""Cells that a plateau has at the least."""


class Plateau(NamedTuple):
    """A plateau and the cell that it is a plateau around.

    Attributes
    ----------
    cells : bool array of the grid's shape
        All False if there is no plateau.
    chosen : tuple of int
        The cell with which all of them agree; empty if there is no plateau.
    change : float
        The largest difference of λ̂ from that of the chosen cell, relative to it.
    """

    cells: np.ndarray
    chosen: tuple[int, ...]
    change: float


def plateau(
    llc: np.ndarray,
    error: np.ndarray,
    is_trusted: np.ndarray,
    is_usable: np.ndarray | None = None,
    *,
    takes_first: bool = False,
) -> Plateau:
    """The largest connected set of cells whose λ̂ all agree with that of the chosen one.

    Parameters
    ----------
    llc, error : arrays [center, *grid]
        λ̂ of each cell and its Monte Carlo error. Of several centres, cells must agree at each.
    is_trusted : bool array [center, *grid]
        Cells that may belong to it, if their error is below ``WIDTH`` of λ̂: one noisy cell would
        connect cells that differ.
    is_usable : bool array of the grid's shape, optional
        Cells to choose from, where one of them has a plateau; by default all.
    takes_first : bool
        Choose, of the cells of the largest set, the first that has such a set of its own, which is
        then the plateau: where a setting biases λ̂ the more the larger it is.

    Returns
    -------
    Plateau
        None if no such set has ``LEAST_CELLS`` cells. Neighbours differ by one step on one axis.
        The chosen cell is the innermost of those with the largest set, and of several innermost
        ones that with the smallest error.
    """
    trusted = np.all(is_trusted & (error <= WIDTH * np.abs(llc)), axis=0)
    usable = trusted if is_usable is None else trusted & is_usable
    agreeing = {cell: _agreeing(llc, error, trusted, cell) for cell in _cells(trusted)}
    for places in (usable, trusted):
        largest = max((agreeing[cell].sum() for cell in _cells(places)), default=0)
        if largest >= LEAST_CELLS:
            ends = [cell for cell in _cells(places) if agreeing[cell].sum() == largest]
            chosen = _innermost(ends, agreeing, places, error.max(axis=0))
            if takes_first:
                own = _cells(agreeing[chosen] & places)
                chosen = next(cell for cell in own if agreeing[cell].sum() >= LEAST_CELLS)
            change = np.abs(llc / _at(chosen, llc) - 1.0)[:, agreeing[chosen]].max()
            return Plateau(agreeing[chosen], chosen, float(change))
    return Plateau(np.zeros(trusted.shape, bool), (), np.nan)


def _cells(places: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(map(int, place)) for place in np.argwhere(places)]


def _at(cell: tuple[int, ...], values: np.ndarray) -> np.ndarray:
    """The values of one cell at each centre, beside those of all cells."""
    index: tuple[slice, ...] = tuple(slice(place, place + 1) for place in cell)
    found: np.ndarray = values[(slice(None), *index)]
    return found


def _agreeing(
    llc: np.ndarray, error: np.ndarray, trusted: np.ndarray, cell: tuple[int, ...]
) -> np.ndarray:
    """The cells connected with `cell` whose λ̂ agrees with its own at each centre."""
    own, own_error = (_at(cell, values) for values in (llc, error))
    limit = WIDTH * np.abs(own) + ERRORS * np.hypot(error, own_error)
    with np.errstate(invalid="ignore"):  # cells without λ̂ agree with none
        agree = np.all(np.abs(llc - own) <= limit, axis=0)
    return _connected(trusted & agree, cell)


def _innermost(
    cells: list[tuple[int, ...]],
    agreeing: Mapping[tuple[int, ...], np.ndarray],
    places: np.ndarray,
    error: np.ndarray,
) -> tuple[int, ...]:
    """The cell nearest to the middle of those `places` that agree with it, of least error."""
    apart = [
        np.abs(cell - np.argwhere(agreeing[cell] & places).mean(axis=0)).sum() for cell in cells
    ]
    near = [cell for cell, one in zip(cells, apart, strict=True) if one <= min(apart) + 0.5]
    return min(near, key=lambda cell: float(error[cell]))


def _connected(cells: np.ndarray, start: tuple[int, ...]) -> np.ndarray:
    found, open_cells = np.zeros(cells.shape, bool), [start]
    while open_cells:
        cell = open_cells.pop()
        if found[cell]:
            continue
        found[cell] = True
        for axis, step in itertools.product(range(cells.ndim), (-1, 1)):
            other = list(cell)
            other[axis] += step
            if 0 <= other[axis] < cells.shape[axis] and cells[tuple(other)]:
                open_cells.append(tuple(other))
    return found


def recommend(grid: xr.Dataset, axes: list[str]) -> dict[str, str]:
    """What to choose, and why: ``recommendation`` (text) and ``recommended`` (JSON).

    `grid` has `axes` as its only dimensions. The cell recommended is that which the others of the
    plateau agree with.
    """
    grid = grid.transpose(*axes)
    llc, error = grid["llc"].to_numpy(), grid["mcse_mean"].to_numpy()
    flat, cell, change = plateau(llc[None], error[None], (grid["status"] == "ok").to_numpy()[None])
    if not cell:
        clean = int((grid["status"] == "ok").sum())
        return {
            "recommendation": f"No plateau: no {LEAST_CELLS} neighbouring cells without a finding "
            f"agree with one of them within {100 * WIDTH:g} % and three errors ({clean} of "
            f"{llc.size} cells are without one). Look at the findings, widen the grid, or run "
            "longer.",
            "recommended": "{}",
        }
    chosen = {name: grid[name].to_numpy()[k].item() for name, k in zip(axes, cell, strict=True)}
    ranges = [
        _range(name, grid[name].to_numpy()[places])
        for name, places in zip(axes, np.nonzero(flat), strict=True)
    ]
    said = ", ".join(
        f"{name}={value}" if isinstance(value, str) else f"{name}={value:.4g}"
        for name, value in chosen.items()
    )
    return {
        "recommendation": f"λ̂ is {llc[flat].min():.4g} to {llc[flat].max():.4g} on a plateau of "
        f"{flat.sum()} of {llc.size} cells ({', '.join(ranges)}). Take {said}, in its middle: "
        f"{llc[cell]:.4g} ± {error[cell]:.2g}, from which the others differ by at most "
        f"{percent(change, 2)}.",
        "recommended": json.dumps(chosen),
    }


def _range(name: str, values: np.ndarray) -> str:
    """The values of an axis on the plateau; γ by site is a text, which has no order."""
    if values.dtype.kind == "U":
        return f"{len(set(values))} of {name}"
    return f"{name} {values.min():.3g} to {values.max():.3g}"
