"""The rows of one checkpoint, one for each truth."""

from collections.abc import Mapping, Sequence

import jax
from numpyro.infer.mcmc import MCMCKernel

from numpyro_llc.errors import NonFiniteCenterError, NonFiniteLossError
from numpyro_llc.models import PyTree
from numpyro_llc.sampling import Plan, Run, RunKeys, evaluation_rows, finish, run_keys
from numpyro_llc.studies._carry import Carried, carried_from, carry
from numpyro_llc.studies._checkpoint_texts import explained
from numpyro_llc.studies._recipe import Recipe
from numpyro_llc.studies._rows import Row, failed_row, row_of
from numpyro_llc.studies._trajectory_table import BROKEN


class Checkpoints:
    """From a checkpoint to its rows: the work of a trajectory, here or in another process.

    Parameters
    ----------
    recipe : Recipe
        Of the first of the `truths`.
    kernel : MCMCKernel
    truths : sequence of str
        What the losses are measured against, a row for each.

    Attributes
    ----------
    first : pytree
        The first centre that is finite, at which the model is read; None while there is none.
    """

    def __init__(self, recipe: Recipe, kernel: MCMCKernel, truths: Sequence[str]) -> None:
        self.recipe, self.kernel, self.truths = recipe, kernel, truths
        self.first: PyTree = None
        self._plan: Plan | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_plan": None}  # it holds compiled code

    def read_at(self, center: PyTree) -> None:
        """Read the model at this centre, if it is finite."""
        self._plan = self.recipe.plan(self.kernel, center)
        self.first = center

    @property
    def plan(self) -> Plan:
        """The plan at the first centre."""
        if self._plan is None:
            self.read_at(self.first)
        assert self._plan is not None
        return self._plan

    def __call__(self, task: tuple[jax.Array, PyTree]) -> dict[str, Row]:
        """The rows of a key and a centre, whose chains begin anew."""
        rows, _ = self.rows(*task, {})
        return rows

    def rows(
        self, rng_key: jax.Array, center: PyTree, carried: Mapping[str, Carried]
    ) -> tuple[dict[str, Row], dict[str, Carried]]:
        """The rows by truth, and where chains ended, if they did not diverge."""
        try:
            here = self.plan.varied(center=center)
        except (NonFiniteCenterError, NonFiniteLossError) as error:
            return self.failed(error), {}
        rows, ended = {}, {}
        for truth in self.truths:
            own = here if truth == here.local.truth else here.varied(truth=truth)
            rows[truth], chains = _row(run_keys(rng_key), own, carried.get(truth))
            if chains is not None:
                ended[truth] = chains
        return explained(rows), ended

    def failed(self, reason: Exception | str) -> dict[str, Row]:
        """The rows of a checkpoint that has no λ̂."""
        return {truth: {**failed_row(reason), "carried": 0.0} for truth in self.truths}


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
