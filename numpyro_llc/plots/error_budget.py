"""``plot_error_budget``: λ̂, and what it is uncertain by."""

from typing import TYPE_CHECKING

import numpy as np

from numpyro_llc.plots._common import Result, axes_or_new, sound_draws
from numpyro_llc.results import error_budget

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = {"error": "C0", "bias": "C3"}
_LABELS = {"error": "one standard error either way", "bias": "without this bias (estimated)"}


def plot_error_budget(idata: Result, *, axes: "Axes | None" = None) -> "Axes":
    """λ̂ with its error budget, a row for each source.

    Parameters
    ----------
    idata
        A result, or its file read back.
    axes : matplotlib.axes.Axes, optional
        To draw on; by default of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        For an error λ̂ plus and minus one standard error; for a bias an arrow from λ̂ to where λ̂
        would be without. At the right the values of :func:`~numpyro_llc.error_budget`, a dash where
        one is not known.
    """
    llc, table = float(sound_draws(idata).mean()), error_budget(idata)
    axes = axes_or_new(axes, 7.0, 1.4 + 0.42 * len(table))
    for row, (value, kind) in enumerate(zip(table["value"], table["kind"], strict=True)):
        color = _COLORS[kind]
        is_drawn = np.isfinite(value) and value != 0
        if is_drawn and kind == "error":
            axes.errorbar(llc, row, xerr=value, color=color, capsize=4, linewidth=2)
        elif is_drawn:
            axes.plot([llc, llc - value], [row, row], color=color, linewidth=2)
            axes.plot(llc - value, row, "<" if value > 0 else ">", color=color)
        axes.text(1.02, row, _said(value, kind), transform=axes.get_yaxis_transform(), va="center")
    axes.plot([llc, llc], [-0.6, len(table) - 0.5], color="black", linewidth=1, zorder=0)
    for kind in dict.fromkeys(table["kind"]):
        axes.plot([], [], color=_COLORS[kind], linewidth=2, label=_LABELS[kind])
    names = [str(name).replace("_", " ") for name in table.index]
    axes.set_yticks(range(len(table)), names)
    axes.set(xlabel="λ̂", title=f"λ̂ = {llc:.3g}", ylim=(len(table) + 0.9, -0.6))
    axes.set_xmargin(0.1)
    axes.legend(loc="lower left", fontsize="small", framealpha=1.0, edgecolor="none")
    return axes


def _said(value: float, kind: str) -> str:
    if not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    return f"± {value:.2g}" if kind == "error" else f"{value:+.2g}"
