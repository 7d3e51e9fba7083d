"""Pictures of a result, with matplotlib (the extra ``plots``); each returns its axes.

A result is what ``estimate_llc`` or ``from_numpyro`` returned, or its file read back, on both ArviZ
majors. matplotlib is imported when the first picture is drawn.
"""

from numpyro_llc.plots.calibration import plot_calibration
from numpyro_llc.plots.complexity import plot_complexity
from numpyro_llc.plots.error_budget import plot_error_budget
from numpyro_llc.plots.gamma import plot_gamma
from numpyro_llc.plots.landscape import plot_landscape
from numpyro_llc.plots.localization import plot_localization
from numpyro_llc.plots.phases import plot_phases
from numpyro_llc.plots.rank import plot_rank
from numpyro_llc.plots.sweep import plot_sweep
from numpyro_llc.plots.trace import plot_trace
from numpyro_llc.plots.traces import plot_traces
from numpyro_llc.plots.trajectory import plot_trajectory

__all__ = [
    "plot_calibration",
    "plot_complexity",
    "plot_error_budget",
    "plot_gamma",
    "plot_landscape",
    "plot_localization",
    "plot_phases",
    "plot_rank",
    "plot_sweep",
    "plot_trace",
    "plot_traces",
    "plot_trajectory",
]
