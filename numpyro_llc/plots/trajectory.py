"""``plot_trajectory``: loss and λ̂ along a training run."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from numpyro_llc.plots._common import axes_or_new
from numpyro_llc.plots._negative import compress_negative

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import ErrorbarContainer
    from matplotlib.lines import Line2D

    Handles = list[Line2D | ErrorbarContainer]

_COLORS = {"data": "C1", "center": "C2"}
_NAMES = {"data": "λ̂ from the data", "center": "λ̂, truth at the centre"}


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
        Monte Carlo errors by each truth, hollow where there are findings. Far below 0 the axis of λ̂
        is logarithmic, so that the values above stay readable. Checkpoints without λ̂ are left out.
    """
    missing = {"llc", "error", "center_loss", "status"} - set(trajectory)
    if missing:
        raise ValueError(
            f"`trajectory` must be what `llc_trajectory` returns; it lacks {sorted(missing)}."
        )
    if "truth" not in trajectory.coords:
        trajectory = trajectory.assign_coords(truth=trajectory.attrs.get("truth", "data"))
    if "truth" not in trajectory.dims:
        trajectory = trajectory.expand_dims("truth")
    left = axes_or_new(axes, 6.5, 4.0)
    right = left.twinx()
    step = trajectory["step"].to_numpy()
    loss = trajectory["center_loss"].isel(truth=0).to_numpy() / trajectory.attrs["num_data"]
    (line,) = left.plot(step, loss, color="C0", label="loss")
    left.set(xlabel="step", ylabel="loss per datum [nats]")
    right.set_ylabel("λ̂")
    handles: Handles = [line]
    for truth in trajectory["truth"].to_numpy():
        name = "λ̂" if trajectory.sizes["truth"] == 1 else _NAMES[str(truth)]
        handles += _curve(right, trajectory.sel(truth=truth), _COLORS[truth], name)
    llc, error = (trajectory[k].to_numpy().ravel() for k in ("llc", "error"))
    compress_negative(right, llc, 2.0 * error)
    left.set_zorder(right.get_zorder() - 1)
    right.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        frameon=False,
        ncols=2,
        fontsize="small",
    )
    return np.array([left, right])


def _curve(axes: "Axes", rows: xr.Dataset, color: str, name: str) -> "Handles":
    """One λ̂ over the steps: a line, and points with errors, full where nothing is found."""
    step, is_ok = rows["step"].to_numpy(), (rows["status"] == "ok").to_numpy()
    llc, error = rows["llc"].to_numpy(), 2.0 * rows["error"].to_numpy()
    axes.plot(step, llc, color=color, linewidth=0.8, alpha=0.6)
    handles: Handles = []
    for chosen, fill, label in ((is_ok, color, name), (~is_ok, "white", f"{name}, with findings")):
        if chosen.any():
            bars = axes.errorbar(
                step[chosen],
                llc[chosen],
                yerr=error[chosen],
                fmt="o",
                markersize=4,
                color=color,
                markerfacecolor=fill,
                label=label,
            )
            handles.append(bars)
    return handles
