"""``plot_traces``: the draws of several results in their order, and how each λ̂ settles."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from numpyro_llc.inference_data import posterior
from numpyro_llc.plots._common import Result, pyplot, sound_draws
from numpyro_llc.results import summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_traces(
    results: Mapping[str, Result], *, half_dimensions: Mapping[str, float] | None = None
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
    figure, axes = pyplot().subplots(
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


def _mark_estimate(axes: "Axes", idata: Result, num_draws: int, half_dimension: float) -> None:
    row = summary({"posterior": posterior(idata).isel(draw=slice(num_draws))}).loc["llc"]
    axes.axhspan(row["ci90_lb"], row["ci90_ub"], color="0.8", label="90 % interval")
    axes.axhline(row["mean"], color="black", linewidth=1, label="λ̂")
    top = row["ci90_ub"]
    if np.isfinite(half_dimension):
        axes.axhline(half_dimension, color="black", linestyle="--", linewidth=1, label="d/2")
        top = max(half_dimension, top)
    axes.set_ylim(min(0.0, 1.25 * row["ci90_lb"]), 1.25 * max(top, 0.0) or None)
    axes.set(ylabel="running λ̂", title=f"λ̂ = {row['mean']:.2f} ± {row['mcse_mean']:.2f}")
