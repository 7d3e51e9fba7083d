"""Findings: what the checks of a run came upon, as a result keeps them."""

import json
import math
from collections.abc import Iterable
from typing import NamedTuple

from numpyro_llc.inference_data import InferenceData, posterior
from numpyro_llc.results._report import RunReport


class Finding(NamedTuple):
    """One doubt about a result.

    Attributes
    ----------
    check : str
        The name of the check.
    value, threshold : float
        What was measured, and beyond which value the check triggers.
    meaning : str
        Both in words, and what they say of λ̂.
    remedy : str
        What to do.
    """

    check: str
    value: float
    threshold: float
    meaning: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.meaning} {self.remedy}"


def findings(idata: InferenceData) -> list[Finding]:
    """The findings that a result holds, causes before what they may have caused."""
    rows = json.loads(posterior(idata).attrs.get("findings", "[]"))
    return [
        Finding(**{**row, **{name: _number(row[name]) for name in ("value", "threshold")}})
        for row in rows
    ]


def status_of(found: Iterable[Finding], report: RunReport) -> str:
    """Whether the row of a run in a table is "ok" or "doubtful".

    That γ takes much of λ̂ is no doubt where this γ was chosen with that known: λ̂ is then of this γ.
    """
    is_known = report.localization_reason is not None
    doubts = [one for one in found if not (is_known and one.check == "localization")]
    return "doubtful" if doubts else "ok"


def names_of(found: Iterable[Finding]) -> str:
    """The checks of findings, by name."""
    return ", ".join(one.check for one in found)


def findings_to_json(found: Iterable[Finding]) -> str:
    """Findings as attrs hold them; a number that is not finite is null."""
    rows = [one._asdict() for one in found]
    for row in rows:
        for name in ("value", "threshold"):
            row[name] = row[name] if math.isfinite(row[name]) else None
    return json.dumps(rows)


def text_of(found: Iterable[Finding]) -> str:
    """Findings as one warning says them."""
    return " ".join(map(str, found))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
