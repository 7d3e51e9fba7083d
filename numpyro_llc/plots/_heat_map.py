"""A heat map of λ̂ over two axes of a sweep; ``plot_sweep`` imports it when it draws one."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

Style = dict[str, Any]
"""Of artists: keywords of matplotlib."""
_COLORS = colormaps["viridis"]
_LEAST_SPAN = 0.1
"""Of the colours, either way, relative to λ̂."""
_DOUBTFUL: Style = {"fill": False, "hatch": "///", "edgecolor": "0.7", "linewidth": 0}
_DIVERGED: Style = {"color": "C3", "linewidth": 1.5}
_RECOMMENDED: Style = {"fill": False, "edgecolor": "C3", "linewidth": 2.5}
_PLATEAU: Style = {"color": "black", "linewidth": 2.5}


def norm_of(grid: xr.Dataset) -> Normalize:
    """Colours that span λ̂ of the cells without findings, or of all if there is none.

    At least 10 % either way, so that noise does not look like structure.
    """
    llc = grid["llc"].to_numpy()
    sound = llc[(grid["status"] == "ok").to_numpy() & np.isfinite(llc)]
    shown = sound if sound.size else llc[np.isfinite(llc)]
    if not shown.size:
        return Normalize(0.0, 1.0)
    middle = 0.5 * (shown.min() + shown.max())
    half = max(shown.max() - middle, _LEAST_SPAN * abs(middle))
    return Normalize(middle - half, middle + half)


def draw_heat_map(axes: Axes, grid: xr.Dataset, x: str, y: str, norm: Normalize) -> None:
    """One panel: `grid` has the dimensions `x` and `y` only."""
    grid = grid.transpose(y, x)
    axes.pcolormesh(grid["llc"].to_numpy(), cmap=_COLORS, norm=norm, edgecolors="white")
    for row, column in np.ndindex(grid["llc"].shape):
        _draw_cell(axes, grid.isel({y: row, x: column}), row, column, norm)
    edges = _border(grid["on_plateau"].to_numpy())
    axes.add_collection(LineCollection(edges, capstyle="projecting", zorder=4, **_PLATEAU))
    for axis, name in ((axes.xaxis, x), (axes.yaxis, y)):
        values = grid[name].to_numpy()
        axis.set_ticks(np.arange(len(values)) + 0.5, [f"{value:.3g}" for value in values])
        axis.set_label_text(name)
    axes.tick_params(length=0)


def _draw_cell(axes: Axes, cell: xr.Dataset, row: int, column: int, norm: Normalize) -> None:
    llc, mcse, status = float(cell["llc"]), float(cell["mcse_mean"]), str(cell["status"].item())
    if status == "doubtful":
        axes.add_patch(Rectangle((column, row), 1, 1, **_DOUBTFUL))
    if status == "diverged":
        corners = ([column + 0.2, column + 0.8], [row + 0.2, row + 0.8])
        axes.plot(corners[0], corners[1], **_DIVERGED)
        axes.plot(corners[0], corners[1][::-1], **_DIVERGED)
    if bool(cell["is_recommended"]):
        axes.add_patch(Rectangle((column + 0.07, row + 0.07), 0.86, 0.86, zorder=5, **_RECOMMENDED))
    if np.isfinite(llc):
        red, green, blue, _ = color = _COLORS(norm(llc))
        is_dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
        axes.text(
            column + 0.5,
            row + 0.5,
            f"{llc:#.3g}".rstrip(".") + f"\n± {mcse:.1g}",
            ha="center",
            va="center",
            fontsize="small",
            color="white" if is_dark else "black",
            bbox={"facecolor": color, "edgecolor": "none", "pad": 1.0},
        )


def _border(cells: np.ndarray) -> list[list[tuple[int, int]]]:
    """Lines between the cells that are True and those that are not, or nothing."""
    padded = np.pad(cells, 1)
    lines = []
    for row, column in np.argwhere(padded[:, 1:] != padded[:, :-1]):
        lines.append([(int(column), int(row) - 1), (int(column), int(row))])
    for row, column in np.argwhere(padded[1:] != padded[:-1]):
        lines.append([(int(column) - 1, int(row)), (int(column), int(row))])
    return lines


def heat_map_legend(axes: np.ndarray, grid: xr.Dataset, norm: Normalize) -> None:
    """The colour bar of all panels, and what the marks mean that there are."""
    figure, shades = axes[0].figure, norm(grid["llc"].to_numpy())
    beyond = bool(np.any(shades < 0)), bool(np.any(shades > 1))
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}
    scale = ScalarMappable(norm, _COLORS)
    figure.colorbar(scale, ax=list(axes), label="λ̂", extend=extend.get(beyond, "neither"))
    cross = Line2D([], [], marker="x", linestyle="none", color=_DIVERGED["color"])
    marks: list[tuple[xr.DataArray, Artist, str]] = [
        (grid["on_plateau"].any(), Line2D([], [], **_PLATEAU), "plateau"),
        (grid["is_recommended"].any(), Patch(**_RECOMMENDED), "recommended"),
        ((grid["status"] == "doubtful").any(), Patch(**_DOUBTFUL), "with findings"),
        ((grid["status"] == "diverged").any(), cross, "diverged"),
    ]
    shown = [(artist, text) for is_there, artist, text in marks if is_there]
    if shown:
        figure.legend(*zip(*shown, strict=True), loc="outside lower center", ncols=4, frameon=False)
