"""From checkpoint to checkpoint: the plan, the chains, the rows."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import jax
import xarray as xr

from numpyro_llc.errors import CheckpointError, NonFiniteCenterError, NonFiniteLossError
from numpyro_llc.local import reason_of
from numpyro_llc.models import PyTree
from numpyro_llc.results import RunReport, one_or_by_site
from numpyro_llc.sampling import Plan, Run, RunKeys, evaluation_rows, finish, run_keys
from numpyro_llc.studies._carry import Carried, carried_from, carry
from numpyro_llc.studies._checkpoint_texts import explained
from numpyro_llc.studies._rows import Row, failed_row, row_of
from numpyro_llc.studies._trajectory_table import BROKEN, TrajectoryTable


class Walk:
    """A trajectory under way: its plan, read at the first centre that is finite, and its rows.

    Parameters
    ----------
    rng_key : jax.Array
    plan_at : callable
        From the first centre to the plan, of the first of the `truths`.
    output : path, optional
    warm_start : bool
    truths : sequence of str
        What the losses are measured against, a row of each checkpoint for each.
    is_stacked : bool
        Whether the table has them along a dimension of their own.
    """

    def __init__(
        self,
        rng_key: jax.Array,
        plan_at: Callable[[PyTree], Plan],
        output: str | Path | None,
        warm_start: bool,
        truths: Sequence[str],
        is_stacked: bool,
    ) -> None:
        self.rng_key, self.plan_at = rng_key, plan_at
        self.output, self.warm_start = output, warm_start
        self.truths, self.is_stacked = truths, is_stacked
        self.plan: Plan | None = None
        self.record: TrajectoryTable | None = None
        self.carried: dict[str, Carried] = {}
        self.failed: list[tuple[float, PyTree, Exception]] = []

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
        if isinstance(error, CheckpointError) and self.num_rows:
            error.table = self.rows()

    @property
    def num_rows(self) -> int:
        """How many checkpoints there are so far."""
        return 0 if self.record is None else len(self.record.checkpoints)

    def visit(self, step: float, center: PyTree) -> None:
        """Make the rows of a checkpoint, or take them from the folder."""
        if self.plan is None:
            try:
                self.plan = self.plan_at(center)
            except (NonFiniteCenterError, NonFiniteLossError) as error:
                self.failed.append((step, center, error))  # until it is known of what run
                return
            self.record = self._begun_record(self.plan)
        assert self.record is not None
        if self.record.recall(center, step):
            return
        if self.warm_start and not self.carried:
            self.carried = self.record.carried(jax.tree.structure(self.plan.target.center))
        key = jax.random.fold_in(self.rng_key, self.num_rows)
        rows, ended = self._checkpoint(key, self.plan, center)
        self.carried = ended if self.warm_start else {}
        self.record.add(step, center, explained(rows), self.carried)

    def _begun_record(self, plan: Plan) -> TrajectoryTable:
        """The table, with the checkpoints that could not be read before the first that could."""
        settings = {**plan.run_identity(self.rng_key), "warm_start": self.warm_start}
        settings["truth"] = list(self.truths)
        record = TrajectoryTable(self.output, settings, self.truths, self.is_stacked)
        for earlier, bad, why in self.failed:
            if not record.recall(bad, earlier):
                record.add(earlier, bad, self._failed_rows(why))
        return record

    def _failed_rows(self, error: Exception) -> dict[str, Row]:
        return {truth: {**failed_row(error), "carried": 0.0} for truth in self.truths}

    def _checkpoint(
        self, rng_key: jax.Array, plan: Plan, center: PyTree
    ) -> tuple[dict[str, Row], dict[str, Carried]]:
        """The rows of one checkpoint, and where its chains ended, if they did not diverge."""
        try:
            here = plan.varied(center=center)
        except (NonFiniteCenterError, NonFiniteLossError) as error:
            return self._failed_rows(error), {}
        rows, ended = {}, {}
        for truth in self.truths:
            own = here if truth == here.local.truth else here.varied(truth=truth)
            rows[truth], chains = _row(run_keys(rng_key), own, self.carried.get(truth))
            if chains is not None:
                ended[truth] = chains
        return rows, ended

    def rows(self) -> xr.Dataset:
        """The rows so far."""
        if self.plan is None or self.record is None:
            if self.failed:
                raise self.failed[0][2]  # none of them could be read
            raise ValueError("`centers` holds no checkpoint.")
        return self.record.table(_attrs(self.plan, self.truths))

    def table(self) -> xr.Dataset:
        """The rows so far, written to the folder too, if there is one."""
        table = self.rows()
        assert self.record is not None
        self.record.save(table)
        return table


def _row(keys: RunKeys, here: Plan, carried: Carried | None) -> tuple[Row, Carried | None]:
    """The row of one checkpoint and truth, and where its chains ended."""
    try:
        run, num_carried = _begun(keys, here, carried)
    except (NonFiniteCenterError, NonFiniteLossError) as error:
        return {**failed_row(error), "carried": 0.0}, None
    finished = finish(run)
    if finished.ended_by == "interrupt":
        raise KeyboardInterrupt
    row = {**row_of(run.plan, run, finished, keys.report), "carried": num_carried}
    return row, None if row["status"] in BROKEN else carried_from(run, finished.draws)


def _begun(keys: RunKeys, here: Plan, carried: Carried | None) -> tuple[Run, float]:
    """A run at its starts, and how many chains are carried over from the checkpoint before."""
    curvature = None if here.is_stochastic else here.curvature(keys.curvature)
    rows = evaluation_rows(here, keys.rows)
    starts, num_carried = here.starts(curvature, keys.starts), 0.0
    if carried is not None:
        starts, count = carry(here.target, starts, carried, rows)
        num_carried = float(count)
    return Run(here, starts, keys.chains, rows=rows), num_carried


def _attrs(plan: Plan, truths: Sequence[str]) -> dict[str, object]:
    return RunReport(
        kernel=plan.kernel,
        num_data=plan.num_data,
        num_parameters=plan.target.dimension,
        inverse_temperature=float(plan.target.inverse_temperature),
        localization=one_or_by_site(plan.target.localization),
        localization_reason=reason_of(plan.local.localization),
        truth=", ".join(truths),
    ).to_attrs()
