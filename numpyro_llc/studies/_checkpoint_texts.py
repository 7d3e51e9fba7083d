"""What a row of a trajectory says where its checkpoint is no minimum of the loss."""

from collections.abc import Mapping

import numpy as np

from numpyro_llc.results import Finding
from numpyro_llc.studies._rows import FOUND, Row

NO_MINIMUM = frozenset(
    {"center_edge", "center_curvature", "center_gradient", "below_center", "negative"}
)
"""The checks that find so. What others find may follow from it, and their remedies do not help."""


def explained(rows: Mapping[str, Row]) -> dict[str, Row]:
    """The rows of a checkpoint by truth, with the texts of those that are of no minimum."""
    own = {truth: {k: v for k, v in row.items() if k != FOUND} for truth, row in rows.items()}
    found: list[Finding] = rows["data"].get(FOUND, []) if "data" in rows else []
    if any(one.check in NO_MINIMUM for one in found):
        meanings = " ".join(one.meaning for one in found)
        own["data"]["findings"] = f"{meanings} {_remedy(own['data'], own.get('center'))}"
    return own


def _remedy(data: Row, center: Row | None) -> str:
    text = (
        "This checkpoint is no minimum of the loss, so that λ̂ by the data is no learning "
        "coefficient. truth='center' measures the function that is computed here"
    )
    if center is None:
        return f"{text}: pass truth=('data', 'center') to llc_trajectory."
    return f"{text}: λ̂ is {_number(center)} by it, and {_number(data)} by the data."


def _number(row: Row) -> str:
    if not np.isfinite(row["llc"]):
        return "not known"
    error = f" ± {row['error']:.2g}" if np.isfinite(row["error"]) else ""
    return f"{row['llc']:.4g}{error}"
