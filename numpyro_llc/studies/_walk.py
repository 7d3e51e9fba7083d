"""From checkpoint to checkpoint: the plan, the chains, the rows."""

from collections.abc import Callable
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
from numpyro_llc.studies._rows import Row, failed_row, row_of
from numpyro_llc.studies._trajectory_table import TrajectoryTable


class Walk:
    """A trajectory under way: its plan, read at the first centre that is finite, and its rows.

    Parameters
    ----------
    rng_key : jax.Array
    plan_at : callable
        From the first centre to the plan.
    output : path, optional
    warm_start : bool
    """

    def __init__(
        self,
        rng_key: jax.Array,
        plan_at: Callable[[PyTree], Plan],
        output: str | Path | None,
        warm_start: bool,
    ) -> None:
        self.rng_key, self.plan_at = rng_key, plan_at
        self.output, self.warm_start = output, warm_start
        self.plan: Plan | None = None
        self.record: TrajectoryTable | None = None
        self.carried: Carried | None = None
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
        """How many there are so far."""
        return 0 if self.record is None else len(self.record.rows)

    def visit(self, step: float, center: PyTree) -> None:
        """Make the row of a checkpoint, or take it from the folder."""
        if self.plan is None:
            try:
                self.plan = self.plan_at(center)
            except (NonFiniteCenterError, NonFiniteLossError) as error:
                self.failed.append((step, center, error))  # until it is known of what run
                return
            settings = {**self.plan.run_identity(self.rng_key), "warm_start": self.warm_start}
            self.record = TrajectoryTable(self.output, settings)
            for earlier, bad, why in self.failed:
                if not self.record.recall(bad, earlier):
                    self.record.add({**failed_row(why), "carried": 0.0, "step": earlier}, bad)
        assert self.record is not None
        if self.record.recall(center, step):
            return
        if self.warm_start and self.carried is None:
            form = jax.tree.structure(self.plan.target.center)
            self.carried = self.record.carried(form)
        key = jax.random.fold_in(self.rng_key, self.num_rows)
        row, ended = _checkpoint(key, self.plan, center, self.carried)
        self.carried = ended if self.warm_start else None
        self.record.add({**row, "step": step}, center, self.carried)

    def rows(self) -> xr.Dataset:
        """The rows so far."""
        if self.plan is None or self.record is None:
            if self.failed:
                raise self.failed[0][2]  # none of them could be read
            raise ValueError("`centers` holds no checkpoint.")
        return self.record.table(_attrs(self.plan))

    def table(self) -> xr.Dataset:
        """The rows so far, written to the folder too, if there is one."""
        table = self.rows()
        assert self.record is not None
        self.record.save(table)
        return table


def _checkpoint(
    rng_key: jax.Array, plan: Plan, center: PyTree, carried: Carried | None
) -> tuple[Row, Carried | None]:
    """The row of one checkpoint, and where its chains ended, if they did not diverge."""
    keys = run_keys(rng_key)
    try:
        run, num_carried = _begun(keys, plan.varied(center=center), carried)
    except (NonFiniteCenterError, NonFiniteLossError) as error:
        return {**failed_row(error), "carried": 0.0}, None
    finished = finish(run)
    if finished.ended_by == "interrupt":
        raise KeyboardInterrupt
    row = {**row_of(run.plan, run, finished, keys.report), "carried": num_carried}
    return row, None if row["status"] == "diverged" else carried_from(run, finished.draws)


def _begun(keys: RunKeys, here: Plan, carried: Carried | None) -> tuple[Run, float]:
    """A run at its starts, and how many chains are carried over from the checkpoint before."""
    curvature = None if here.is_stochastic else here.curvature(keys.curvature)
    rows = evaluation_rows(here, keys.rows)
    starts, num_carried = here.starts(curvature, keys.starts), 0.0
    if carried is not None:
        starts, count = carry(here.target, starts, carried, rows)
        num_carried = float(count)
    return Run(here, starts, keys.chains, rows=rows), num_carried


def _attrs(plan: Plan) -> dict[str, object]:
    return RunReport(
        kernel=plan.kernel,
        num_data=plan.num_data,
        num_parameters=plan.target.dimension,
        inverse_temperature=float(plan.target.inverse_temperature),
        localization=one_or_by_site(plan.target.localization),
        localization_reason=reason_of(plan.local.localization),
    ).to_attrs()
