"""``plot_landscape``: where the draws of a two-parameter model went."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from numpyro_llc.inference_data import labelled, posterior
from numpyro_llc.local import Center
from numpyro_llc.models import named_leaves
from numpyro_llc.plots._common import Result, axes_or_new, sound_draws

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

Loss = Callable[[np.ndarray, np.ndarray], "ArrayLike"]
Place = Center | Mapping[str, object] | Sequence[float]

_POINTS = 201
"""Of the grid on which the loss is evaluated, each way."""
_MARGIN = 0.05
"""Of the square around the draws, as a share of their range."""


def plot_landscape(
    idata: Result,
    loss: Loss | xr.DataArray,
    *,
    center: Place | None = None,
    var_names: str | Sequence[str] | None = None,
    levels: Sequence[float] | None = None,
    axes: "Axes | None" = None,
) -> "Axes":
    """Draws over the contours of a two-parameter loss, with the centre.

    Parameters
    ----------
    idata
        A result that holds its parameters (``store_sites``), or its file read back.
    loss : callable or xarray.DataArray
        ``loss(a, b)`` of two arrays of one shape, elementwise (``numpy.vectorize`` makes it so);
        or values on a grid of your own, the two parameters as dimensions with coordinates.
    center : dict, Center or pair of numbers, optional
        w*, as ``estimate_llc`` took it: a result does not hold it.
    var_names : str or sequence of str, optional
        Two scalar variables of the posterior, or one of two components, whose names are then
        ``w[0]`` and ``w[1]``; by default all but ``llc``.
    levels : sequence of float, optional
        Heights of the contours above the lowest value on the grid, rising; by default 8, two to a
        power of ten: the loss is flat about a singular point.
    axes : matplotlib.axes.Axes, optional
        To draw on; by default of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        Of equal aspect, the draws coloured by chain. A callable is evaluated on a square that holds
        the centre and all draws, of a run that broke those before.

    Raises
    ------
    ValueError
        If the variables are not two numbers a draw, or the loss does not fit them.
    """
    num_draws = sound_draws(idata).shape[1]
    kept = _chosen(posterior(idata), var_names).isel(draw=slice(num_draws))
    draws = _columns(kept.transpose("chain", "draw", ...), lead=2)
    if len(draws) != 2:
        raise ValueError(
            f"A landscape has two parameters; the variables {list(kept)} are {len(draws)} numbers "
            "a draw. Choose with `var_names`; `store_sites` says what a result holds."
        )
    place = None if center is None else _place(center, list(draws))
    grid = loss if isinstance(loss, xr.DataArray) else _on_a_square(loss, draws, place)
    (a, x), (b, y) = draws.items()
    if set(grid.dims) != {a, b} or not {a, b} <= set(grid.coords):
        raise ValueError(
            f"`loss` must have the dimensions {a!r} and {b!r}, with coordinates; got dimensions "
            f"{grid.dims} and coordinates {list(grid.coords)}."
        )
    axes = axes_or_new(axes, 6.0, 5.0)
    _contours(axes, grid.transpose(b, a), levels)
    # Draw by draw, so that no chain covers the others.
    colors = np.tile([f"C{chain % 10}" for chain in range(len(x))], x.shape[1])
    axes.scatter(x.T.ravel(), y.T.ravel(), s=2, c=colors, alpha=0.6)
    axes.plot([], [], "C0o", markersize=4, label="draws, by chain")
    if place is not None:
        axes.plot(
            *place,
            marker="*",
            markersize=13,
            color="white",
            markeredgecolor="black",
            linestyle="none",
            label="centre w*",
        )
    axes.set(xlabel=a, ylabel=b, aspect="equal")
    axes.set_xlim(float(grid[a].min()), float(grid[a].max()))
    axes.set_ylim(float(grid[b].min()), float(grid[b].max()))
    axes.legend(loc="upper right", fontsize="small", framealpha=0.9)
    return axes


def _chosen(data: xr.Dataset, var_names: str | Sequence[str] | None) -> xr.Dataset:
    if var_names is None:
        return data.drop_vars("llc")
    names = [var_names] if isinstance(var_names, str) else list(var_names)
    unknown = [name for name in names if name not in data]
    if unknown:
        raise ValueError(f"`var_names` names {unknown}; the posterior has {list(data)}.")
    return data[names]


def _columns(data: xr.Dataset, lead: int) -> dict[str, np.ndarray]:
    """Scalars by name, a component ``k`` under ``<name>[k]``, after `lead` leading axes."""
    columns = {}
    for name, values in data.items():
        parts = values.to_numpy().reshape(*values.shape[:lead], -1)
        for k in range(parts.shape[-1]):
            columns[f"{name}[{k}]" if parts.shape[-1] > 1 else str(name)] = parts[..., k]
    return columns


def _place(center: Place, names: list[str]) -> list[float]:
    """The centre's two numbers."""
    if isinstance(center, Center):
        center = center.params
    if isinstance(center, Mapping):
        sites = {k: np.asarray(v) if isinstance(v, list | tuple) else v for k, v in center.items()}
        known = _columns(labelled(named_leaves(sites)), lead=0)
        missing = [name for name in names if name not in known]
        if missing:
            raise ValueError(f"`center` lacks {missing}; it has {list(known)}.")
        center = [float(known[name]) for name in names]
    if np.shape(center) != (2,):
        raise ValueError(f"`center` must be two numbers, {names}; got {center!r}.")
    return [float(number) for number in center]


def _on_a_square(
    loss: Loss,
    draws: Mapping[str, np.ndarray],
    place: list[float] | None,
) -> xr.DataArray:
    points = np.stack([values.ravel() for values in draws.values()], axis=1)
    if place is not None:
        points = np.concatenate([points, [place]])
    low, high = points.min(axis=0), points.max(axis=0)
    half = (0.5 + _MARGIN) * (float(np.max(high - low)) or 1.0)
    lines = [m + half * np.linspace(-1.0, 1.0, _POINTS) for m in 0.5 * (low + high)]
    a, b = np.meshgrid(*lines, indexing="ij")
    values = np.asarray(loss(a, b))
    if values.shape != a.shape:
        raise ValueError(
            f"`loss` must be elementwise: of two arrays {a.shape} it returned {values.shape}. "
            "numpy.vectorize(loss) makes it so."
        )
    return xr.DataArray(values, dict(zip(draws, lines, strict=True)), dims=tuple(draws))


def _contours(axes: "Axes", grid: xr.DataArray, levels: Sequence[float] | None) -> None:
    height = grid.to_numpy().astype(float)
    height = np.where(np.isfinite(height), height, np.nan)
    if np.isnan(height).all() or np.nanmin(height) == np.nanmax(height):
        raise ValueError("`loss` has fewer than two finite values on the grid; look at its range.")
    height = height - np.nanmin(height)
    marks = np.asarray(_eight_below(float(np.nanmax(height))) if levels is None else levels, float)
    x, y = (grid[name].to_numpy() for name in reversed(grid.dims))
    filled = axes.contourf(
        x,
        y,
        np.maximum(height, 1e-3 * marks[0]),  # below all marks: the log wants no 0
        levels=marks,
        cmap="Greys",
        norm="log",
        vmin=marks[0],
        vmax=marks[-1],
        alpha=0.5,
        extend="both",
    )
    axes.contour(x, y, height, colors="0.4", linewidths=0.6, levels=marks)
    beside = axes.inset_axes((1.03, 0.0, 0.05, 1.0))  # as high as axes of equal aspect
    bar = axes.figure.colorbar(filled, cax=beside, label="loss above its lowest value")
    bar.set_ticks(list(marks), labels=[f"{mark:g}" for mark in marks])
    bar.ax.minorticks_off()


def _eight_below(top: float) -> list[float]:
    """The last eight of ..., 0.1, 0.3, 1, 3, 10, ... below `top`."""
    power = int(np.floor(np.log10(top)))
    marks = [digit * 10.0**k for k in range(power - 4, power + 1) for digit in (1, 3)]
    return [mark for mark in marks if mark < top][-8:]
