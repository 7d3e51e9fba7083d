"""``plot_phases``: which phase the posterior prefers at which n."""

from typing import TYPE_CHECKING

import numpy as np

from numpyro_llc.evidence import Phases
from numpyro_llc.plots._common import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_phases(found: Phases, *, axes: "Axes | None" = None) -> "Axes":
    """Free energies of phases by n, against that of the first, and where they cross.

    Parameters
    ----------
    found : Phases
        What :func:`numpyro_llc.evidence.phases` returned.
    axes : matplotlib.axes.Axes, optional
        To draw on; by default of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        A line for each phase, with a band of 2 Monte Carlo errors either way: the lowest is
        preferred. At each crossing a dashed line with its own band, of 2 errors.
    """
    axes = axes_or_new(axes, 6.5, 4.0)
    sizes = found["num_data"].to_numpy()
    energies, errors = found["free_energy"].to_numpy(), found["error"].to_numpy()
    for k, name in enumerate(found["phase"].to_numpy()):
        apart = energies[k] - energies[0]
        band = 2.0 * (np.hypot(errors[k], errors[0]) if k else np.zeros(len(sizes)))
        axes.plot(sizes, apart, color=f"C{k}", label=str(name))
        axes.fill_between(sizes, apart - band, apart + band, color=f"C{k}", alpha=0.25, linewidth=0)
    for one in found.crossings:
        axes.axvline(one.num_data, color="black", linestyle="--", linewidth=1)
        ends = one.num_data + 2.0 * one.error * np.array([-1.0, 1.0])
        axes.axvspan(*ends, color="0.6", alpha=0.3, linewidth=0)
        axes.annotate(
            f" n* = {one.num_data:.3g} ± {one.error:.1g}",
            (one.num_data, 0.02),
            xycoords=axes.get_xaxis_transform(),
        )
    axes.set(
        xscale="log",
        xlabel="n",
        ylabel=f"free energy less that of {found['phase'].to_numpy()[0]} (nats)",
    )
    axes.legend(frameon=False)
    return axes
