"""``plot_rank``: whether all chains draw from the same distribution."""

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from numpyro_llc.inference_data import monte_carlo
from numpyro_llc.plots._common import Result, axes_or_new, sound_draws

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW = 0.4
"""Height of a bar as high as expected, where the rows of chains are 1 apart, or less if one of the
bars would reach the next row."""


def plot_rank(idata: Result, *, num_bins: int | None = None, axes: "Axes | None" = None) -> "Axes":
    """Histograms of the ranks of ``llc`` among the draws of all chains, a row for each chain.

    Parameters
    ----------
    idata
        A result, or its file read back.
    num_bins : int, optional
        Bins of ranks; by default 20, or fewer if a chain has fewer than 200 draws.
    axes : matplotlib.axes.Axes, optional
        To draw on; by default of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        Bars from zero; the dashed line is the expected count. The band holds 95 % of the bars of a
        chain that has as many independent draws from the common distribution as this one has
        effective draws (by itself).

    Notes
    -----
    Vehtari, Gelman, Simpson, Carpenter, Bürkner (2021), Bayesian Analysis 16:667-718. A slope is a
    chain that lies lower or higher than the others, a hill or a valley one of another spread.
    """
    llc = sound_draws(idata)
    bins = min(20, max(2, llc.shape[1] // 10)) if num_bins is None else num_bins
    if bins < 2:
        raise ValueError(f"`num_bins` must be at least 2; got {bins}.")
    axes = axes_or_new(axes, 7.0, 1.2 + 0.6 * len(llc))
    ranks = rankdata(llc).reshape(llc.shape)
    edges = np.linspace(0.5, llc.size + 0.5, bins + 1)
    middle, width = 0.5 * (edges[1:] + edges[:-1]), edges[1] - edges[0]
    heights = np.stack([np.histogram(own, edges)[0] * bins / len(own) for own in ranks])
    unit = min(_ROW, 0.9 / heights.max())
    for chain, height in enumerate(heights):
        axes.bar(middle, unit * height, 0.9 * width, bottom=chain, color=f"C{chain}")
        half, expected = unit * _half_width(llc[chain], bins), chain + unit
        axes.fill_between(
            edges[[0, -1]], max(expected - half, chain), expected + half, color="black", alpha=0.15
        )
        axes.axhline(expected, color="black", linestyle="--", linewidth=1)
    _label(axes, len(llc), unit)
    return axes


def _half_width(llc: np.ndarray, bins: int) -> float:
    """Two standard deviations of a bar over its mean, of effective draws; 0 if not known."""
    ess = monte_carlo(llc[None]).ess
    return 1.96 * float(np.sqrt((bins - 1) / ess)) if np.isfinite(ess) and ess > 0 else 0.0


def _label(axes: "Axes", chains: int, unit: float) -> None:
    axes.set_yticks(np.arange(chains) + unit, [str(chain) for chain in range(chains)])
    axes.set(xlabel="rank of llc among all draws", ylabel="chain", ylim=(-0.1, chains + 0.5))
    axes.set_xmargin(0.01)
    band, line = axes.collections[-1], axes.lines[-1]
    labels = ["95 % of bars if the chains agree", "expected"]
    axes.legend([band, line], labels, loc="upper center", ncols=2, frameon=False)
