"""``plot_trace``, ``plot_traces``: the draws in their order, and how λ̂ settles."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from numpyro_llc.inference_data import posterior
from numpyro_llc.plots._common import sound_draws
from numpyro_llc.results import summary


def plot_trace(idata: Any, *, half_dimension: float | None = None) -> np.ndarray:
    """Trace of ``llc`` and running λ̂ of each chain, of one result.

    Parameters
    ----------
    idata
        A result, or its file read back.
    half_dimension : float, optional
        d/2, where it is not half the number of the model's parameters.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes [2]
        As a row of :func:`plot_traces`.
    """
    chains, draws = sound_draws(idata).shape
    label = f"{chains} chain{'s' * (chains > 1)} of {draws} draws"
    given = {} if half_dimension is None else {label: half_dimension}
    return plot_traces({label: idata}, half_dimensions=given)[0]


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
        its 90 % interval as a band and d/2 as a dashed line. Of a run that broke, the draws before.
    """
    if not results:
        raise ValueError("`results` is empty; give {label: inference data}.")
    given = {} if half_dimensions is None else half_dimensions
    height = max(2.2 * len(results), 2.8)
    figure, axes = plt.subplots(
        len(results), 2, figsize=(9, height), squeeze=False, layout="constrained"
    )
    for (trace, running), (label, idata) in zip(axes, results.items(), strict=True):
        llc = sound_draws(idata)
        draws = np.arange(1, llc.shape[1] + 1)
        is_broken = llc.shape[1] < posterior(idata).sizes["draw"]
        trace.plot(draws, llc.T, linewidth=0.4)
        trace.set(ylabel="llc", title=f"{label}, then it broke" if is_broken else label)
        running.plot(draws, (llc.cumsum(axis=1) / draws).T, linewidth=1)
        half = 0.5 * float(posterior(idata).attrs.get("num_parameters", np.nan))
        _mark_estimate(running, idata, len(draws), given.get(label, half))
    for bottom in axes[-1]:
        bottom.set_xlabel("draw")
    figure.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside lower right", ncols=3)
    figure.align_ylabels()
    return axes


def _mark_estimate(axes: Axes, idata: Any, num_draws: int, half_dimension: float) -> None:
    row = summary({"posterior": posterior(idata).isel(draw=slice(num_draws))}).loc["llc"]
    axes.axhspan(row["ci90_lb"], row["ci90_ub"], color="0.8", label="90 % interval")
    axes.axhline(row["mean"], color="black", linewidth=1, label="λ̂")
    top = row["ci90_ub"]
    if np.isfinite(half_dimension):
        axes.axhline(half_dimension, color="black", linestyle="--", linewidth=1, label="d/2")
        top = max(half_dimension, top)
    axes.set_ylim(min(0.0, 1.25 * row["ci90_lb"]), 1.25 * max(top, 0.0) or None)
    axes.set(ylabel="running λ̂", title=f"λ̂ = {row['mean']:.2f} ± {row['mcse_mean']:.2f}")
