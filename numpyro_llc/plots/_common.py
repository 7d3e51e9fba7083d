"""What pictures share: matplotlib, the draws they show, and axes to draw on."""

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from numpyro_llc.inference_data import Groups, InferenceData, draws_of, posterior

if TYPE_CHECKING:
    from types import ModuleType

    from matplotlib.axes import Axes

Result: TypeAlias = "InferenceData | Groups"
"""What a picture is of: a result, or its groups."""
LEAST_DRAWS = 4
"""Fewer draws a chain have no effective sample size."""


def pyplot() -> "ModuleType":
    """``matplotlib.pyplot``, imported when the first picture is drawn."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "numpyro_llc.plots needs matplotlib. Install it: python -m pip install matplotlib."
        ) from error
    return plt


def sound_draws(idata: Result) -> np.ndarray:
    """``llc`` [chain, draw], of a run that broke only the draws before.

    Raises
    ------
    ValueError
        If there is no `llc`, or fewer than ``LEAST_DRAWS`` draws a chain.
    """
    llc = draws_of(posterior(idata), "llc")
    is_sound = np.isfinite(llc).all(axis=0)
    if not is_sound.all():
        llc = llc[:, : int(np.argmin(is_sound))]
    if llc.shape[1] < LEAST_DRAWS:
        raise ValueError(
            f"A picture needs at least {LEAST_DRAWS} finite draws a chain; got {llc.shape[1]}. "
            "Raise `num_samples`."
        )
    return llc


def axes_or_new(axes: "Axes | None", width: float, height: float) -> "Axes":
    """The axes given, or those of a new figure of that many inches."""
    if axes is not None:
        return axes
    made: Axes = pyplot().subplots(figsize=(width, height), layout="constrained")[1]
    return made
