"""From checkpoint to checkpoint: the problem, the chains, the rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import xarray as xr

from numpyro_llc.errors import NonFiniteCenterError, NonFiniteLossError
from numpyro_llc.sampling import Problem, Run, finish
from numpyro_llc.studies._carry import Carried, carried_from, carry
from numpyro_llc.studies._rows import failed_row, row_of
from numpyro_llc.studies._trajectory_table import Record


class Walk:
    """A trajectory under way: its problem, read at the first centre that is finite, and its rows.

    Parameters
    ----------
    rng_key : jax.Array
    prepared : callable
        From the first centre to the problem.
    output : path, optional
    warm_start : bool
    """

    def __init__(
        self,
        rng_key: jax.Array,
        prepared: Callable[[Any], Problem],
        output: str | Path | None,
        warm_start: bool,
    ) -> None:
        self.rng_key, self.prepared = rng_key, prepared
        self.output, self.warm_start = output, warm_start
        self.problem: Problem | None = None
        self.record: Record | None = None
        self.carried: Carried | None = None
        self.failed: list[tuple[float, Any, Exception]] = []

    @property
    def num_rows(self) -> int:
        """How many there are so far."""
        return 0 if self.record is None else len(self.record.rows)

    def visit(self, step: float, center: Any) -> None:
        """Make the row of a checkpoint, or take it from the folder."""
        if self.problem is None:
            try:
                self.problem = self.prepared(center)
            except (NonFiniteCenterError, NonFiniteLossError) as error:
                self.failed.append((step, center, error))  # until it is known of what run
                return
            settings = {**self.problem.run_identity(self.rng_key), "warm_start": self.warm_start}
            self.record = Record(self.output, settings)
            for earlier, bad, why in self.failed:
                if not self.record.recall(bad, earlier):
                    self.record.add({**failed_row(why), "carried": 0.0, "step": earlier}, bad)
        assert self.record is not None
        if self.record.recall(center, step):
            return
        if self.warm_start and self.carried is None:
            form = jax.tree.structure(self.problem.target.center)
            self.carried = self.record.carried(form)
        key = jax.random.fold_in(self.rng_key, self.num_rows)
        row, ended = _checkpoint(key, self.problem, center, self.carried)
        self.carried = ended if self.warm_start else None
        self.record.add({**row, "step": step}, center, self.carried)

    def table(self) -> xr.Dataset:
        """The rows so far."""
        if self.problem is None or self.record is None:
            if self.failed:
                raise self.failed[0][2]  # none of them could be read
            raise ValueError("`centers` holds no checkpoint.")
        return self.record.table(_attrs(self.problem))


def _checkpoint(
    rng_key: jax.Array, problem: Problem, center: Any, carried: Carried | None
) -> tuple[dict[str, Any], Carried | None]:
    """The row of one checkpoint, and where its chains ended, if they are sound."""
    try:
        here = problem.at(center)
    except (NonFiniteCenterError, NonFiniteLossError) as error:
        return {**failed_row(error), "carried": 0.0}, None
    key_check, key_starts, key_chains = jax.random.split(rng_key, 3)
    starts = here.starts(None if here.is_stochastic else here.curvature(key_check), key_starts)
    num_carried = 0.0
    if carried is not None:
        starts, count = carry(here.target, starts, carried)
        num_carried = float(count)
    run = Run(here.sampler, here.target, starts, key_chains, here.schedule, sites=())
    finished = finish(run, here.schedule, here.rows_of_a_step, key_starts)
    if finished.ended_by == "interrupt":
        raise KeyboardInterrupt
    row = {**row_of(here, run, finished, key_check), "carried": num_carried}
    return row, None if row["status"] == "diverged" else carried_from(run, finished.draws)


def _attrs(problem: Problem) -> dict[str, Any]:
    target = problem.target
    localization = {name: float(gamma) for name, gamma in target.localization.items()}
    same = len(set(localization.values())) == 1
    return {
        "kernel": problem.kernel,
        "num_data": problem.num_data,
        "num_parameters": target.dimension,
        "inverse_temperature": float(target.inverse_temperature),
        "localization": next(iter(localization.values())) if same else json.dumps(localization),
    }
