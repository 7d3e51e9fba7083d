"""``plot_sweep``: λ̂ over a grid of settings."""

import itertools
import json

import numpy as np
import xarray as xr

from numpyro_llc.plots._common import axes_or_new, pyplot
from numpyro_llc.plots._line import draw_line
from numpyro_llc.studies import plateau

_MOST_COLUMNS = 3
"""Panels side by side."""


def plot_sweep(grid: xr.Dataset, *, x: str | None = None, y: str | None = None) -> np.ndarray:
    """λ̂ over a sweep: points over one axis, or heat maps over two.

    Parameters
    ----------
    grid : xarray.Dataset
        What :func:`~numpyro_llc.sweep` returned, its file read back, or a part of it taken with
        ``sel`` or ``isel``.
    x, y : str, optional
        Axes of the sweep to go right and up; by default its last and the one before. Axes of one
        value are left out if not named.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes [panel]
        Of one axis, λ̂ ± 2 Monte Carlo errors on a log scale (linear next to a zero), hollow if the
        cell has findings, with a cross below where it diverged. Of two, λ̂ as colour, and in the
        cell with its error; cells with findings are hatched, those that diverged crossed, those
        not run empty. Colours span the cells without findings, and 10 % either way at the least.
        The plateau and the recommended cell are marked. Of further axes, a panel for each
        combination of their values.

    Notes
    -----
    The plateau is that of the whole `grid` given, by the rule of ``numpyro_llc.studies.plateau``;
    none is drawn across centres, which need not agree.
    """
    marked = _marked(_without_short_axes(grid, (x, y)))
    dims = [str(dim) for dim in marked["llc"].dims]
    if len(dims) == 1:
        x, y = _chosen(dims, x, y), None
        single = axes_or_new(None, 6.5, 4.0)
        draw_line(single, marked, x)
        return np.array([single])
    if x is None:
        x = _chosen([dim for dim in dims if dim != y])
    y = _chosen([dim for dim in dims if dim != x], y)
    x = _chosen(dims, x)
    return _heat_maps(marked, x, y, [dim for dim in dims if dim not in (x, y)])


def _heat_maps(marked: xr.Dataset, x: str, y: str, others: list[str]) -> np.ndarray:
    panels = list(itertools.product(*(range(marked.sizes[dim]) for dim in others)))
    axes = _empty_panels(marked.sizes[x], marked.sizes[y], len(panels))
    # It imports matplotlib, which ``_empty_panels`` has found.
    from numpyro_llc.plots._heat_map import draw_heat_map, heat_map_legend, norm_of

    norm = norm_of(marked)
    for panel, places in zip(axes, panels, strict=True):
        part = marked.isel(dict(zip(others, places, strict=True)))
        draw_heat_map(panel, part, x, y, norm)
        panel.set_title(", ".join(f"{dim} = {part[dim].item():.4g}" for dim in others))
    _label_outer(axes)
    heat_map_legend(axes, marked, norm)
    return axes


def _without_short_axes(grid: xr.Dataset, named: tuple[str | None, str | None]) -> xr.Dataset:
    missing = {"llc", "mcse_mean", "status"} - set(grid)
    if missing:
        raise ValueError(
            f"`grid` must be what `sweep` returns; it holds {list(grid)}, but no {sorted(missing)}."
        )
    dims = grid["llc"].dims
    if not dims:
        raise ValueError("`grid` has no axis left; keep one with `isel(axis=[0])`.")
    long = [dim for dim in dims if grid.sizes[dim] > 1 or dim in named] or dims[-1:]
    return grid.isel({dim: 0 for dim in dims if dim not in long}).transpose(*long)


def _chosen(dims: list[str], name: str | None = None, other: str | None = None) -> str:
    """The axis called `name`, or the last."""
    for given in (name, other):
        if given is not None and given not in dims:
            raise ValueError(f"`x` and `y` must be two different axes of {dims}; got {given!r}.")
    return dims[-1] if name is None else name


def _marked(grid: xr.Dataset) -> xr.Dataset:
    """The grid with ``on_plateau`` and ``is_recommended`` of each cell."""
    llc, dims = grid["llc"].to_numpy(), grid["llc"].dims
    flat = np.zeros(llc.shape, bool)
    if "center" not in dims:
        sound = (grid["status"] == "ok").to_numpy()
        flat = plateau(llc[None], grid["mcse_mean"].to_numpy()[None], sound[None]).cells
    return grid.assign(on_plateau=(dims, flat), is_recommended=(dims, _recommended(grid)))


def _recommended(grid: xr.Dataset) -> np.ndarray:
    chosen: dict[str, float] = json.loads(grid.attrs.get("recommended", "{}"))
    if not chosen or not set(chosen) <= set(grid.coords):
        return np.zeros(grid["llc"].shape, bool)
    cell = xr.ones_like(grid["llc"], dtype=bool)
    for name, value in chosen.items():
        cell = cell & (abs(grid[name] - value) <= 1e-6 * abs(value))
    return cell.transpose(*grid["llc"].dims).to_numpy()


def _empty_panels(columns: int, rows: int, count: int) -> np.ndarray:
    """As many axes, of about an inch a column of cells and half an inch a row."""
    across = min(count, _MOST_COLUMNS)
    down = -(-count // across)
    size = (across * (0.8 * columns + 0.6) + 1.6, down * (0.5 * rows + 0.8) + 0.7)
    figure, axes = pyplot().subplots(
        down, across, figsize=size, squeeze=False, layout="constrained"
    )
    for spare in axes.ravel()[count:]:
        figure.delaxes(spare)
    kept: np.ndarray = axes.ravel()[:count]
    return kept


def _label_outer(axes: np.ndarray) -> None:
    """Labels only where there is no panel further left or further down."""
    for place, panel in enumerate(axes):
        if place % _MOST_COLUMNS:
            panel.set(ylabel="", yticklabels=[])
        if place + _MOST_COLUMNS < len(axes):
            panel.set(xlabel="", xticklabels=[])
