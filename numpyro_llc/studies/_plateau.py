"""The plateau of a sweep: where λ̂ does not depend on the settings."""

import itertools
import json

import numpy as np
import xarray as xr

WIDTH = 0.05
"""Relative difference of λ̂ within a plateau, beside ``ERRORS`` Monte Carlo errors."""
ERRORS = 3.0
LEAST_CELLS = 3
"""Cells that a plateau has at the least."""


def plateau(llc: np.ndarray, error: np.ndarray, is_trusted: np.ndarray) -> np.ndarray:
    """The largest connected set of cells whose λ̂ all agree with that of one of them.

    Parameters
    ----------
    llc, error : arrays of the grid's shape
        λ̂ of each cell and its Monte Carlo error.
    is_trusted : bool array
        Cells that may belong to it, if their error is below ``WIDTH`` of λ̂: one noisy cell would
        connect cells that differ.

    Returns
    -------
    bool array
        All False if no such set has ``LEAST_CELLS`` cells. Neighbours differ by one step on one
        axis.
    """
    best = np.zeros(llc.shape, bool)
    is_trusted = is_trusted & (error <= WIDTH * np.abs(llc))
    for cell in zip(*np.nonzero(is_trusted), strict=True):
        limit = WIDTH * abs(llc[cell]) + ERRORS * np.hypot(error, error[cell])
        found = _connected(is_trusted & (np.abs(llc - llc[cell]) <= limit), cell)
        if found.sum() > best.sum():
            best = found
    return best if best.sum() >= LEAST_CELLS else np.zeros(llc.shape, bool)


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

    `grid` has `axes` as its only dimensions. The cell recommended is the innermost of the plateau,
    and of several the one with the smallest error.
    """
    grid = grid.transpose(*axes)
    llc, error = grid["llc"].to_numpy(), grid["mcse_mean"].to_numpy()
    flat = plateau(llc, error, (grid["status"] == "ok").to_numpy())
    if not flat.any():
        clean = int((grid["status"] == "ok").sum())
        return {
            "recommendation": f"No plateau: no {LEAST_CELLS} neighbouring cells without a finding "
            f"agree within {100 * WIDTH:g} % of λ̂ and their errors ({clean} of {llc.size} cells "
            "are without one). Look at the findings, widen the grid, or run longer.",
            "recommended": "{}",
        }
    cell = _innermost(flat, error)
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
        f"{llc[cell]:.4g} ± {error[cell]:.2g}.",
        "recommended": json.dumps(chosen),
    }


def _range(name: str, values: np.ndarray) -> str:
    """The values of an axis on the plateau; γ by site is a text, which has no order."""
    if values.dtype.kind == "U":
        return f"{len(set(values))} of {name}"
    return f"{name} {values.min():.3g} to {values.max():.3g}"


def _innermost(flat: np.ndarray, error: np.ndarray) -> tuple[int, ...]:
    """The cell with most neighbours within, nearest to the middle, of the smallest error."""
    places = np.argwhere(flat)
    apart = np.abs(places - places.mean(axis=0)).sum(axis=1)
    nearest = places[apart <= apart.min() + 0.5]
    best = min(nearest, key=lambda place: error[tuple(place)])
    return tuple(int(k) for k in best)
