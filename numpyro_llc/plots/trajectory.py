"""``plot_trajectory``: loss and λ̂ along a training run."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from numpyro_llc.plots._common import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import ErrorbarContainer
    from matplotlib.lines import Line2D


def plot_trajectory(trajectory: xr.Dataset, *, axes: "Axes | None" = None) -> np.ndarray:
    """Loss and λ̂ with its errors, over the steps of a training run.

    Parameters
    ----------
    trajectory : xarray.Dataset
        What :func:`~numpyro_llc.llc_trajectory` returned, or its file read back.
    axes : matplotlib.axes.Axes, optional
        Where to draw the loss; a new figure by default.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes [2]
        The loss per datum at each checkpoint, in nats, on the left axis, and on its twin λ̂ ± 2
        Monte Carlo errors, hollow where there are findings. Checkpoints without λ̂ are left out.
    """
    missing = {"llc", "mcse_mean", "center_loss", "status"} - set(trajectory)
    if missing:
        raise ValueError(
            f"`trajectory` must be what `llc_trajectory` returns; it lacks {sorted(missing)}."
        )
    left = axes_or_new(axes, 6.5, 4.0)
    right = left.twinx()
    step = trajectory["step"].to_numpy()
    loss = trajectory["center_loss"].to_numpy() / trajectory.attrs["num_data"]
    (line,) = left.plot(step, loss, color="C0", label="loss")
    left.set(xlabel="step", ylabel="loss per datum [nats]")
    right.set_ylabel("λ̂")
    is_ok = (trajectory["status"] == "ok").to_numpy()
    llc, error = trajectory["llc"].to_numpy(), 2.0 * trajectory["mcse_mean"].to_numpy()
    right.plot(step, llc, color="C1", linewidth=0.8, alpha=0.6)
    handles: list[Line2D | ErrorbarContainer] = [line]
    for chosen, fill, label in ((is_ok, "C1", "λ̂"), (~is_ok, "white", "λ̂, with findings")):
        if chosen.any():
            bars = right.errorbar(
                step[chosen],
                llc[chosen],
                yerr=error[chosen],
                fmt="o",
                markersize=4,
                color="C1",
                markerfacecolor=fill,
                label=label,
            )
            handles.append(bars)
    right.legend(handles=handles, loc="best")
    return np.array([left, right])
