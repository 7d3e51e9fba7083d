"""Pictures of a result, with matplotlib (the extra ``plots``); each returns its axes.

A result is what ``estimate_llc`` or ``from_numpyro`` returned, or its file read back, on both ArviZ
majors.
"""

try:
    import matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError(
        "numpyro_llc.plots needs matplotlib: pip install 'numpyro_llc[plots]'."
    ) from error

from numpyro_llc.plots._budget import plot_error_budget
from numpyro_llc.plots._calibration import plot_calibration
from numpyro_llc.plots._gamma import plot_gamma
from numpyro_llc.plots._landscape import plot_landscape
from numpyro_llc.plots._phases import plot_phases
from numpyro_llc.plots._rank import plot_rank
from numpyro_llc.plots._sweep import plot_sweep
from numpyro_llc.plots._trace import plot_trace, plot_traces
from numpyro_llc.plots._trajectory import plot_trajectory

__all__ = [
    "plot_calibration",
    "plot_error_budget",
    "plot_gamma",
    "plot_landscape",
    "plot_phases",
    "plot_rank",
    "plot_sweep",
    "plot_trace",
    "plot_traces",
    "plot_trajectory",
]
