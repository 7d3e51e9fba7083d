"""``plot_localization``: λ̂ against γ."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from numpyro_llc.inference_data import DatasetResult, dataset_of
from numpyro_llc.plots._common import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NEEDED = {"llc", "mcse_mean", "expected_llc", "large_localization_limit", "center_norm"}


def plot_localization(choice: DatasetResult | xr.Dataset, *, axes: "Axes | None" = None) -> "Axes":
    """λ̂ against γ, with the plateau, both limits, and the γ that was chosen.

    Parameters
    ----------
    choice : LocalizationChoice
        What :func:`~numpyro_llc.choose_localization` returned, its dataset, or the file of that
        read back.
    axes : matplotlib.axes.Axes, optional
        To draw on; by default of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        On logarithmic scales. For each centre λ̂ ± 2 Monte Carlo errors at each γ, hollow where
        chains have not arrived or draws lie further from the centre than that from zero; the curve
        that a quadratic loss of the same Hessian would have; and its limit at large γ,
        ``β tr H/(2γ)``, dashed. A band marks the plateau, the limit at small γ, if there is one;
        a vertical line the choice. In the grey region ``√(d/γ) > |z*|``: draws that γ alone bounds
        would lie further from the centre than that from zero. The choice may lie there, if the
        loss bounds them.
    """
    data = dataset_of(choice)
    if missing := _NEEDED - set(data):
        raise ValueError(
            f"`choice` must be what `choose_localization` returns; it lacks {sorted(missing)}."
        )
    axes = axes_or_new(axes, 6.5, 4.4)
    data = data.transpose("center", "localization", ...)
    gamma = data["localization"].to_numpy()
    axes.set(xscale="log", yscale="log", xlabel="localization γ", ylabel="λ̂")
    for place in range(data.sizes["center"]):
        name = f", centre {place}" if data.sizes["center"] > 1 else ""
        _draw_center(axes, data.isel(center=place), f"C{place}", name)
    _draw_plateau(axes, data)
    _draw_far(axes, data, gamma)
    chosen = float(data.attrs["chosen"])
    axes.axvline(chosen, color="C3", linewidth=1.2, label=f"chosen: γ = {chosen:g}")
    axes.set_xlim(gamma.min() / 1.6, gamma.max() * 1.6)
    axes.figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return axes


def _draw_center(axes: "Axes", row: xr.Dataset, color: str, name: str) -> None:
    gamma, llc = row["localization"].to_numpy(), row["llc"].to_numpy()
    bar, usable = 2.0 * row["mcse_mean"].to_numpy(), row["is_usable"].to_numpy().astype(bool)
    positive = llc > 0
    for chosen, fill, label in (
        (usable & positive, color, f"λ̂ ± 2 mcse{name}"),
        (~usable & positive, "white", f"not arrived, or far{name}"),
    ):
        if chosen.any():
            low = np.minimum(bar, 0.9 * np.abs(llc))[chosen]  # a log scale has no zero
            axes.errorbar(
                gamma[chosen],
                llc[chosen],
                yerr=[low, bar[chosen]],
                fmt="o",
                capsize=3,
                color=color,
                markerfacecolor=fill,
                label=label,
            )
    top, bottom = np.nanmax(llc[positive], initial=1.0), np.nanmin(llc[positive], initial=1.0)
    expected = row["expected_llc"].to_numpy()
    if (expected > 0).any():
        axes.plot(gamma, expected, color=color, linewidth=1, label=f"quadratic loss{name}")
    limit = row["large_localization_limit"].to_numpy()
    shown = (limit > 0.3 * bottom) & (limit < 3.0 * top)
    if shown.any():
        label = f"β tr H/(2γ){name}"
        axes.plot(gamma[shown], limit[shown], "--", color=color, linewidth=1, label=label)


def _draw_plateau(axes: "Axes", data: xr.Dataset) -> None:
    """The range of λ̂ on the plateau of each centre."""
    llc, bar = data["llc"].to_numpy(), data["mcse_mean"].to_numpy()
    gamma, flat = data["localization"].to_numpy(), data["on_plateau"].to_numpy().astype(bool)
    label: str | None = "plateau"
    for place in range(len(llc)):
        on = flat[place]
        if on.any():
            low = float((llc[place] - 2 * bar[place])[on].min())
            high = float((llc[place] + 2 * bar[place])[on].max())
            ends = gamma[on].min() / 1.3, gamma[on].max() * 1.3
            axes.fill_between(ends, low, high, color="C2", alpha=0.25, zorder=0, label=label)
            label = None


def _draw_far(axes: "Axes", data: xr.Dataset, gamma: np.ndarray) -> None:
    norm = float(data["center_norm"].min())
    if norm > 0:
        edge = float(data.attrs["num_parameters"]) / norm**2
        if edge > gamma.min() / 1.6:
            axes.axvspan(gamma.min() / 1.6, edge, color="0.93", zorder=-1, label="√(d/γ) > |z*|")
