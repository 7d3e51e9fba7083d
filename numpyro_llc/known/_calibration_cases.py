"""The problems of a calibration: their exact values, and the rows that they have so far."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import pandas as pd
from tqdm.auto import tqdm

from numpyro_llc.known import zoo
from numpyro_llc.known._calibration_runs import Task
from numpyro_llc.known._calibration_table import CalibrationTable, Row, compared
from numpyro_llc.models import Fields
from numpyro_llc.sampling import Failed, fingerprint

Place = tuple[str, str]
"""The names of a problem and a kernel."""


class Case(NamedTuple):
    """A problem, or why there is none; the exact value of λ̂, or why there is none."""

    name: str
    problem: zoo.Problem | None = None
    fingerprint: str = ""
    failure: str = ""
    exact: float = math.nan
    exact_fingerprint: str = ""
    exact_failure: str = ""


def _case_of(problem: str | zoo.Problem, num_data: int) -> Case:
    name = problem if isinstance(problem, str) else problem.name
    try:
        found = zoo.load(problem, num_data) if isinstance(problem, str) else problem
        mark = fingerprint(found.model, found.model_args, dict(found.center), found.num_data)
        return Case(name, found, mark, exact_fingerprint=fingerprint(found.finite_n))
    except Exception as error:
        return Case(name, failure=f"{type(error).__name__}: {error}")


def _known(case: Case, record: CalibrationTable, kernels: list[str], shared: Fields) -> Case:
    """The case with its exact value, which may take long: one that is on record is taken."""
    if case.problem is None:
        return case
    for kernel in kernels:
        row = record.get(case.name, kernel, case.fingerprint)
        if row and row["exact_fingerprint"] == case.exact_fingerprint != "":
            return case._replace(exact=row["exact"])
    try:
        found = case.problem.expectation(shared["localization"], shared["inverse_temperature"])
        if found is None:
            return case
        if math.isfinite(found.mean):
            return case._replace(exact=float(found.mean))
        failure = f"`finite_n` gave a mean of {found.mean}"
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
    return case._replace(exact_failure=f"No exact value: {failure}")


class Cases:
    """From problems to runs, and from what these gave to rows; the rows may come in any order.

    Parameters
    ----------
    problems : sequence of str or Problem
    num_data : int
        n of those given by name.
    kernels : list of str
    reference : str or None
    record : CalibrationTable
    shared : dict
        Settings of the runs.
    bar : tqdm
        One step for each row.

    Attributes
    ----------
    places : list
        Problem and kernel of each row, in the order of the table.
    rows : dict
        What the runs gave so far.
    """

    def __init__(
        self,
        problems: Sequence[str | zoo.Problem],
        num_data: int,
        kernels: list[str],
        reference: str | None,
        record: CalibrationTable,
        shared: Fields,
        bar: tqdm,
    ) -> None:
        self.problems, self.num_data, self.kernels = problems, num_data, kernels
        self.reference, self.record, self.shared, self.bar = reference, record, shared, bar
        self.places: list[Place] = []
        self.rows: dict[Place, Row] = {}
        self.cases: dict[str, Case] = {}

    def table(self) -> pd.DataFrame | None:
        """The rows so far, if there are any."""
        done = [place for place in self.places if place in self.rows]
        return self.record.finish(done) if done else None

    def tasks(self, by_name: bool) -> Iterator[tuple[Place, Task]]:
        """The runs to make; `by_name` sends the names of problems that every process has."""
        for given in self.problems:
            case = _case_of(given, self.num_data)
            self.bar.set_description(f"{case.name} exact value")
            case = _known(case, self.record, self.kernels, self.shared)
            self.cases[case.name] = case
            runs = self._runs(case)
            self.bar.total += len(runs) - len(self.kernels)
            for kernel in runs:
                place = case.name, kernel
                self.places.append(place)
                self.bar.set_description(f"{case.name} {kernel}")
                if case.problem is None:
                    self.add(place, {"failure": case.failure})
                elif known := self.record.get(*place, case.fingerprint):
                    self.add(place, known)
                else:
                    is_named = by_name and isinstance(given, str) and given in zoo.BUILT_IN
                    own = replace(case.problem, finite_n=None)  # the run does without it
                    yield place, Task(case.name if is_named else own, *place)

    def add(self, place: Place, found: Row | Failed) -> None:
        """Keep a row; those that a reference was lacking are compared with it."""
        name, kernel = place
        cells = {"failure": found.reason} if isinstance(found, Failed) else found
        self.rows[place] = {"problem": name, "kernel": kernel, **cells}
        self._tell(place)
        if kernel == self.reference:
            for other in self.rows:
                if other[0] == name and other != place:
                    self._tell(other)
        self.bar.update()

    def _tell(self, place: Place) -> None:
        """Put a row on record, compared with what is known by now."""
        row = self.rows[place]
        told = _compared(row, self.cases[place[0]], self.reference, self.record)
        self.record.add({**row, **told})

    def _runs(self, case: Case) -> list[str]:
        """The kernels to run, the reference first where one is needed."""
        names, reference = self.kernels, self.reference
        if not math.isnan(case.exact) or reference is None:
            return names
        return [reference, *(name for name in names if name != reference)]


def _compared(row: Row, case: Case, reference: str | None, record: CalibrationTable) -> Row:
    """What λ̂ should be, exactly or by the reference, and how far off it is."""
    exact, error, stand_in = case.exact, 0.0, None
    if math.isnan(exact):
        if case.problem is not None and row["kernel"] != reference:
            stand_in = record.get(case.name, reference, case.fingerprint)
        exact, error = (
            (stand_in["llc"], stand_in["mcse_mean"]) if stand_in else (math.nan, math.nan)
        )
    coefficient = getattr(case.problem, "learning_coefficient", None)
    failure = "" if "llc" in row else row["failure"]
    return {
        **compared(row, exact, error),
        "learning_coefficient": math.nan if coefficient is None else float(coefficient.value),
        "failure": " ".join(filter(None, [failure, case.exact_failure])),
        "fingerprint": case.fingerprint,
        "exact_fingerprint": "" if math.isnan(case.exact) else case.exact_fingerprint,
    }
