"""Pictures of a result, with matplotlib (the extra ``plots``); each returns its axes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from numpyro_llc.inference_data import posterior
from numpyro_llc.summaries import summary

try:
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
except ImportError as error:
    raise ImportError(
        "numpyro_llc.plots needs matplotlib: pip install 'numpyro_llc[plots]'."
    ) from error


def plot_traces(
    results: Mapping[str, Any], *, half_dimensions: Mapping[str, float] | None = None
) -> np.ndarray:
    """Trace of ``llc`` and running λ̂ of each chain, a row of axes for each result.

    Parameters
    ----------
    results : mapping
        ``{label: inference data}``.
    half_dimensions : mapping, optional
        d/2 by label, where it is not half the number of the model's parameters.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes [result, 2]
        Left: ``llc`` against the draw. Right: the mean of the draws so far, by chain, with λ̂ and
        its 90 % interval as a band and d/2 as a dashed line.
    """
    figure, axes = plt.subplots(
        len(results), 2, figsize=(9, 2.2 * len(results)), squeeze=False, layout="constrained"
    )
    for (trace, running), (label, idata) in zip(axes, results.items(), strict=True):
        llc = posterior(idata)["llc"].transpose("chain", "draw").to_numpy()
        draws = np.arange(1, llc.shape[1] + 1)
        trace.plot(draws, llc.T, linewidth=0.4)
        trace.set(ylabel="llc", title=label)
        running.plot(draws, (llc.cumsum(axis=1) / draws).T, linewidth=1)
        parameters = float(posterior(idata).attrs["num_parameters"])
        _mark_estimate(
            running,
            idata,
            ({} if half_dimensions is None else half_dimensions).get(label, 0.5 * parameters),
        )
    for bottom in axes[-1]:
        bottom.set_xlabel("draw")
    figure.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside lower right", ncols=3)
    figure.align_ylabels()
    return axes


def plot_calibration(table: Any) -> np.ndarray:
    """λ̂ against its exact value, and the z-scores of each kernel.

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
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    for k, kernel in enumerate(kernels):
        rows = table[table["kernel"] == kernel]
        exact, llc, bar = rows["exact"], rows["llc"], 2.0 * rows["mcse"]
        style = {"fmt": "o", "markersize": 3, "linewidth": 1, "color": f"C{k}"}
        axes[0].errorbar(exact, llc, yerr=bar, label=kernel, **style)
        place = k + np.linspace(-0.35, 0.35, len(rows)) if len(rows) > 1 else [k]
        axes[1].errorbar(place, llc / exact, yerr=bar / exact, **style)
    if len(table):
        ends = [0.8 * table["exact"].min(), 1.25 * table["exact"].max()]
        axes[0].plot(ends, ends, color="black", linewidth=1)
    axes[0].set(xscale="log", yscale="log", xlabel="exact E[llc]", ylabel="λ̂")
    axes[0].legend()
    axes[1].axhline(1.0, color="black", linewidth=1)
    axes[1].set(ylabel="λ̂ / exact")
    axes[1].set_xticks(range(len(kernels)), kernels)
    return axes


def _mark_estimate(axes: Axes, idata: Any, half_dimension: float) -> None:
    row = summary(idata).loc["llc"]
    axes.axhspan(row["ci90_lb"], row["ci90_ub"], color="0.8", label="90 % interval")
    axes.axhline(row["mean"], color="black", linewidth=1, label="λ̂")
    axes.axhline(half_dimension, color="black", linestyle="--", linewidth=1, label="d/2")
    axes.set_ylim(min(0.0, 1.25 * row["ci90_lb"]), 1.25 * max(half_dimension, row["ci90_ub"]))
    axes.set(ylabel="running λ̂", title=f"λ̂ = {row['mean']:.2f} ± {row['mcse_mean']:.2f}")
