"""``plot_complexity``: what models of growing size cost, by d/2 and by λ̂."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from numpyro_llc.plots._common import pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CRITERIA = {
    "bic": ("BIC: d/2 log n", "s"),
    "local_free_energy": ("local free energy: λ̂ log n", "o"),
    "evidence": ("minus the log evidence", "^"),
}
"""Label and marker of the criteria that have a name of their own."""


def plot_complexity(
    table: pd.DataFrame, *, criteria: Sequence[str] = tuple(CRITERIA)
) -> np.ndarray:
    """λ̂ against d/2, and criteria of model choice, by the size of the model.

    Parameters
    ----------
    table : pandas.DataFrame
        A row for each model, its size as the index. Columns ``d/2``, ``llc`` and ``llc_se``, where
        known ``λ``, and `criteria` in nats, smaller being better. A column ``<name>_se`` holds the
        Monte Carlo error of another.
    criteria : sequence of str
        Columns to compare on the right.

    Returns
    -------
    numpy.ndarray of matplotlib.axes.Axes [2]
        Left: d/2, λ, and λ̂ ± 2 errors. Right: how far each model is above the best, in nats, by
        each criterion, ± 2 errors.

    Raises
    ------
    ValueError
        If a column is missing.
    """
    if missing := [name for name in ("d/2", "llc", "llc_se", *criteria) if name not in table]:
        raise ValueError(f"`table` must have the columns {missing}; it has {list(table)}.")
    _, (left, right) = pyplot().subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    left.plot(table.index, table["d/2"], "--", color="0.4", label="d/2, half the parameters")
    if "λ" in table:
        left.plot(table.index, table["λ"], color="black", linewidth=1, label="λ, exact")
    _points(left, table, "llc", "λ̂ ± 2 errors", "o", "C0")
    left.set(ylabel="complexity", title="How complex is the model?", ylim=(0, None))
    for place, name in enumerate(criteria):
        label, marker = CRITERIA.get(name, (name, "osd^vx"[place % 6]))
        shifted = table.assign(**{name: table[name] - table[name].min()})
        _points(right, shifted, name, label, marker, ("C3", "C0", "C2")[place % 3], line="-")
    right.set(ylabel="nats above the best", title="Which model do the data prefer?")
    for axes in (left, right):
        axes.set_xlabel(table.index.name or "model")
        axes.set_xticks(table.index)
        axes.legend(frameon=False)
    return np.array([left, right])


def _points(
    axes: "Axes",
    table: pd.DataFrame,
    name: str,
    label: str,
    marker: str,
    color: str,
    line: str = "none",
) -> None:
    """A column with its errors, where there are any."""
    errors = 2.0 * table[f"{name}_se"] if f"{name}_se" in table else None
    axes.errorbar(
        table.index,
        table[name],
        yerr=errors,
        marker=marker,
        linestyle=line,
        linewidth=1,
        markersize=5,
        capsize=2,
        color=color,
        label=label,
    )
