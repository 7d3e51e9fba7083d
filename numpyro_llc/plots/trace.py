"""``plot_trace``: the draws of one result in their order, and how λ̂ settles."""

import numpy as np

from numpyro_llc.plots._common import Result, sound_draws
from numpyro_llc.plots.traces import plot_traces


def plot_trace(idata: Result, *, half_dimension: float | None = None) -> np.ndarray:
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
