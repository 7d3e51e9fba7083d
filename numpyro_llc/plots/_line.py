"""λ̂ along one axis of a sweep."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LABELS = 6
"""More labels than these are turned, so that they do not run into each other."""


def draw_line(axes: "Axes", grid: xr.Dataset, x: str) -> None:
    """λ̂ ± 2 Monte Carlo errors of each cell; `grid` has the dimension `x` only."""
    place = _scale(axes, x, grid[x].to_numpy())
    llc, bar = grid["llc"].to_numpy(), 2.0 * grid["mcse_mean"].to_numpy()
    status = grid["status"].to_numpy()
    flat = grid["on_plateau"].to_numpy()
    if flat.any():
        low, high = (llc - bar)[flat].min(), (llc + bar)[flat].max()
        axes.fill_between(place[flat], low, high, color="0.85", zorder=0, label="plateau")
    for name, label, color, fill in (
        ("ok", "λ̂ ± 2 mcse", "C0", "C0"),
        ("doubtful", "with findings", "C1", "white"),
    ):
        of = status == name
        if of.any():
            axes.errorbar(
                place[of],
                llc[of],
                yerr=bar[of],
                fmt="o",
                capsize=3,
                color=color,
                markerfacecolor=fill,
                label=label,
            )
    broke = place[status == "diverged"]
    if broke.size:
        bottom = axes.get_xaxis_transform()
        axes.plot(broke, 0.04 + 0 * broke, "x", color="C3", transform=bottom, label="diverged")
    best = grid["is_recommended"].to_numpy()
    if best.any():
        axes.plot(
            place[best],
            llc[best],
            "o",
            color="C3",
            markersize=13,
            markerfacecolor="none",
            linestyle="none",
            label="recommended",
        )
    axes.set(xlabel=x, ylabel="λ̂")
    axes.figure.legend(loc="outside lower center", ncols=3, frameon=False)


def _scale(axes: "Axes", name: str, values: np.ndarray) -> np.ndarray:
    """Where the values lie: by their logarithm if they are quantities, centres by number."""
    if name != "center":
        positive = values[values > 0]
        if positive.size == values.size:
            axes.set_xscale("log")
        elif positive.size:
            axes.set_xscale("symlog", linthresh=positive.min())
    axes.set_xticks(values, [f"{value:.3g}" for value in values])
    axes.minorticks_off()
    if len(values) > _MOST_LABELS:
        axes.tick_params(axis="x", labelrotation=45)
    return values
