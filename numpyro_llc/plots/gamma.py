"""``plot_gamma``: whether ``llc`` has the law that theory gives it."""

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import gamma

from numpyro_llc.estimators import variance
from numpyro_llc.inference_data import error_of_mean, monte_carlo
from numpyro_llc.plots._common import Result, axes_or_new, sound_draws

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_gamma(idata: Result, *, axes: "Axes | None" = None) -> "Axes":
    """Quantiles of ``llc`` against those of Gamma(λ̂, 1), with mean and variance.

    Parameters
    ----------
    idata
        A result, or its file read back.
    axes : matplotlib.axes.Axes, optional
        To draw on; by default of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        Points: all draws, at the probabilities ``(k - ½)/N``; thin lines: each chain alone, whose
        spread is that of chance. The title has mean and variance, which are equal for
        Gamma(λ, 1).

    Raises
    ------
    ValueError
        If λ̂ is not positive: then there is no such law, and the centre is no minimum.

    Notes
    -----
    The law holds for large n where the multiplicity is 1 and γ does not matter. Above the diagonal
    at the right: a tail that is too heavy (a centre off the minimum, chains that have left);
    below: a short one (γ, m > 1).
    """
    llc = sound_draws(idata)
    center, spread = monte_carlo(llc), variance(llc)
    if not center.mean > 0:
        raise ValueError(
            f"Gamma(λ̂, 1) needs a positive λ̂; got {center.mean:.3g}. The centre is not the lowest "
            "point: see `diagnose` and `lowest_point`."
        )
    axes = axes_or_new(axes, 5.0, 5.0)
    for chain, own in enumerate(llc):
        axes.plot(*_quantiles(own, center.mean), color=f"C{chain}", linewidth=0.8, alpha=0.7)
    theory, sample = _quantiles(llc.ravel(), center.mean)
    axes.plot(theory, sample, "k.", markersize=3, label="all chains")
    ends = [0.0, theory[-1]]
    axes.plot(ends, ends, color="black", linestyle="--", linewidth=1, label="equal")
    axes.plot([], [], color="C0", linewidth=0.8, label="one chain")
    error = error_of_mean(spread.influence)
    axes.set(xlabel=f"quantile of Gamma({center.mean:.3g}, 1)", ylabel="quantile of llc")
    axes.set_title(
        f"mean {center.mean:.3g} ± {center.error:.1g}, variance {spread.value:.3g} ± {error:.1g}"
    )
    is_heavy = sample[-1] > theory[-1]  # then the points go up steeply, and the right is free
    axes.legend(loc="lower right" if is_heavy else "upper left", frameon=False)
    return axes


def _quantiles(llc: np.ndarray, shape: float) -> tuple[np.ndarray, np.ndarray]:
    probabilities = (np.arange(len(llc)) + 0.5) / len(llc)
    return gamma.ppf(probabilities, shape), np.sort(llc)
