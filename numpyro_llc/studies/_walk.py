"""From checkpoint to checkpoint: the chains that are carried on, and the rows so far."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

import jax
import xarray as xr

from numpyro_llc.errors import (
    CheckpointError,
    ExecutorError,
    NonFiniteCenterError,
    NonFiniteLossError,
    give,
)
from numpyro_llc.local import reason_of
from numpyro_llc.models import PyTree
from numpyro_llc.results import RunReport, one_or_by_site, report_of_software
from numpyro_llc.sampling import Executor, Failed, Plan, fingerprint, outcomes
from numpyro_llc.studies._carry import Carried
from numpyro_llc.studies._checkpoint import Checkpoints
from numpyro_llc.studies._trajectory_table import Place, TrajectoryTable


class Walk:
    """A trajectory under way.

    Parameters
    ----------
    rng_key : jax.Array
    checkpoints : Checkpoints
        From a centre to its rows.
    output : path, optional
    warm_start : bool
    is_stacked : bool
        Whether the table has the truths along a dimension of their own.

    Attributes
    ----------
    at : int
        The place of the checkpoint that was taken from the centres last, or is to be next.
    """

    def __init__(
        self,
        rng_key: jax.Array,
        checkpoints: Checkpoints,
        output: str | Path | None,
        warm_start: bool,
        is_stacked: bool,
    ) -> None:
        self.rng_key, self.checkpoints = rng_key, checkpoints
        self.output, self.warm_start, self.is_stacked = output, warm_start, is_stacked
        self.at = 0
        self.record: TrajectoryTable | None = None
        self.carried: dict[str, Carried] = {}
        self.failed: list[tuple[Place, Exception]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.record is not None:
            self.record.close()
        if isinstance(error, CheckpointError | ExecutorError):
            error.table = self.rows_so_far()
        if isinstance(error, Warning):
            give(error, self.rows_so_far())

    @property
    def num_rows(self) -> int:
        """How many checkpoints have rows so far."""
        return 0 if self.record is None else len(self.record.checkpoints)

    def visit(
        self, given: Iterable[tuple[float, PyTree]], executor: Executor | None
    ) -> Iterator[int]:
        """Make the rows of all checkpoints, or take them from the folder; yield how many are."""
        new = self._new(given)
        if executor is None:
            for place, center in new:
                self._add(place, center)
                yield self.num_rows
        elif (first := next(new, None)) is not None:  # the model is read at it
            yield from self._spread(itertools.chain([first], new), executor)

    def _new(self, given: Iterable[tuple[float, PyTree]]) -> Iterator[tuple[Place, PyTree]]:
        """Checkpoints that are not in the folder, from the first that is finite on."""
        for step, center in given:
            place = Place(self.at, step, fingerprint(center))
            if self.record is None:
                self._read(place, center)
            if self.record is not None and not self.record.recall(place):
                yield place, center
            self.at += 1

    def _read(self, place: Place, center: PyTree) -> None:
        """Read the model at a centre, if it is finite, and begin the table."""
        try:
            self.checkpoints.read_at(center)
        except (NonFiniteCenterError, NonFiniteLossError) as error:
            self.failed.append((place, error))  # until it is known of what run
            return
        settings = {
            **self.checkpoints.plan.run_identity(self.rng_key),
            "warm_start": self.warm_start,
            "truth": list(self.checkpoints.truths),
        }
        truths, processes = self.checkpoints.truths, self.checkpoints.plan.processes
        record = TrajectoryTable(self.output, settings, truths, self.is_stacked, processes)
        self.record = record
        for earlier, why in self.failed:
            if not record.recall(earlier):
                record.add(earlier, self.checkpoints.failed(why))

    def _add(self, place: Place, center: PyTree) -> None:
        """Sample at a checkpoint, by the chains of the one before if there are any."""
        assert self.record is not None
        if self.warm_start and not self.carried:
            form = jax.tree.structure(self.checkpoints.plan.target.center)
            self.carried = self.record.carried(form)
        rows, ended = self.checkpoints.rows(self._key(place), center, self.carried)
        self.carried = ended if self.warm_start else {}
        self.record.add(place, rows, self.carried)

    def _spread(self, new: Iterable[tuple[Place, PyTree]], executor: Executor) -> Iterator[int]:
        """Sample at checkpoints by workers, each by itself."""
        assert self.record is not None
        tasks = ((place, (self._key(place), center)) for place, center in new)
        with closing(outcomes(executor, self.checkpoints, tasks)) as found:
            for place, rows in found:
                if isinstance(rows, Failed):
                    self.record.mark(place, self.checkpoints.failed(rows.reason))
                else:
                    self.record.add(place, rows)
                yield self.num_rows

    def _key(self, place: Place) -> jax.Array:
        return jax.random.fold_in(self.rng_key, place.number)

    def rows(self) -> xr.Dataset:
        """The rows so far."""
        if self.record is None:
            if self.failed:
                raise self.failed[0][1]  # none of them could be read
            raise ValueError("`centers` holds no checkpoint.")
        return self.record.table(_attrs(self.checkpoints.plan, self.checkpoints.truths))

    def rows_so_far(self) -> xr.Dataset | None:
        """The rows so far, if there are any."""
        return self.rows() if self.num_rows else None

    def table(self) -> xr.Dataset:
        """The rows so far, written to the folder too, if there is one."""
        table = self.rows()
        assert self.record is not None
        self.record.save(table)
        return table


def _attrs(plan: Plan, truths: Sequence[str]) -> dict[str, object]:
    return RunReport(
        kernel=plan.kernel,
        num_data=plan.num_data,
        num_parameters=plan.target.dimension,
        inverse_temperature=float(plan.target.inverse_temperature),
        localization=one_or_by_site(plan.target.localization),
        localization_reason=reason_of(plan.local.localization),
        truth=", ".join(truths),
        **report_of_software(plan.target),
    ).to_attrs()
