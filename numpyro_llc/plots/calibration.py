"""``plot_calibration``: kernels against known answers."""

from typing import TYPE_CHECKING

import numpy as np

from numpyro_llc.plots._common import pyplot

if TYPE_CHECKING:
    import pandas as pd


def plot_calibration(table: "pd.DataFrame") -> np.ndarray:
    """λ̂ against its exact value, and their ratio by kernel.

    Parameters
    ----------
    table : pandas.DataFrame
        What :func:`~numpyro_llc.calibrate` returned, or its CSV read back.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes [2]
        Left: λ̂ with 2 Monte Carlo errors either way, on log axes, the diagonal being exact. Right:
        λ̂ over its exact value, with the same bars, one column of points a kernel.
    """
    table = table.reset_index() if "kernel" in table.index.names else table
    table = table[(table["exact"] > 0) & (table["llc"] > 0)]
    kernels = list(dict.fromkeys(table["kernel"]))
    axes: np.ndarray
    _, axes = pyplot().subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    for k, kernel in enumerate(kernels):
        rows = table[table["kernel"] == kernel]
        exact, llc, bar = rows["exact"], rows["llc"], 2.0 * rows["mcse_mean"]
        style = {"fmt": "o", "markersize": 3, "linewidth": 1, "color": f"C{k}"}
        axes[0].errorbar(exact, llc, yerr=bar, label=kernel, **style)
        place = k + np.linspace(-0.35, 0.35, len(rows)) if len(rows) > 1 else [k]
        axes[1].errorbar(place, llc / exact, yerr=bar / exact, **style)
    if len(table):
        ends = [0.8 * table["exact"].min(), 1.25 * table["exact"].max()]
        axes[0].plot(ends, ends, color="black", linewidth=1)
    axes[0].set(xscale="log", yscale="log", xlabel="exact E[llc]", ylabel="λ̂")
    if kernels:
        axes[0].legend()
    axes[1].axhline(1.0, color="black", linewidth=1)
    axes[1].set(ylabel="λ̂ / exact")
    axes[1].set_xticks(range(len(kernels)), kernels)
    return axes
