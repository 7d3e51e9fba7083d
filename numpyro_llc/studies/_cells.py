"""Cells of a grid: their plans, which run side by side, and what each gave."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.mcmc import MCMCKernel

from numpyro_llc.kernels import RECOMMENDED, StochasticKernel, bytes_ahead, kernel_of
from numpyro_llc.models import Parameters, PyTree
from numpyro_llc.sampling import Plan, Run, RunKeys, evaluation_rows, finish, run_keys
from numpyro_llc.studies._recipe import Recipe
from numpyro_llc.studies._rows import Row, row_of

Axes = Mapping[str, list[PyTree]]
"""The values of each axis: numbers, centres, or γ by site."""
Cell = Mapping[str, PyTree]
"""One value of each axis."""
VARIED = ("center", "localization", "inverse_temperature")
"""Axes that are fields of the localized model; the others are settings of the kernel."""


def is_axis(value: object) -> bool:
    """Whether an argument holds several values, not one."""
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


class Plans:
    """The plan of a cell; the model is read once for each batch size.

    Parameters
    ----------
    kernel, batch_size
        As ``estimate_llc`` takes them.
    axes : dict of str to list
        The values of each axis.
    recipe : Recipe
    """

    def __init__(
        self,
        kernel: str | MCMCKernel | None,
        batch_size: int | None,
        axes: Axes,
        recipe: Recipe,
    ) -> None:
        if kernel is None and "step_size" in axes:
            kernel = RECOMMENDED
        self.kernel, self.batch_size, self.axes, self.recipe = kernel, batch_size, axes, recipe
        self.known: dict[int | None, Plan] = {}

    def __call__(self, cell: Cell) -> Plan:
        size = cell.get("batch_size", self.batch_size)
        if size not in self.known:
            first = self.axes["center"][0] if "center" in self.axes else None
            self.known[size] = self.recipe.plan(self._kernel(size), first)
        changes = {name: cell[name] for name in VARIED if name in cell}
        return self.known[size].varied(**changes) if changes else self.known[size]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "known": {}}  # plans hold compiled code

    def _kernel(self, batch_size: int | None) -> MCMCKernel:
        """The kernel of a batch size. Of several step sizes any will do: cells put in their own."""
        kernel = self.kernel
        if isinstance(kernel, StochasticKernel) and "batch_size" in self.axes:
            kernel = kernel.replace(batch_size=batch_size)
        else:
            kernel = kernel_of(kernel, batch_size, self.recipe.model_args)
        if "step_size" not in self.axes:
            return kernel
        if not isinstance(kernel, StochasticKernel):
            raise ValueError(
                f"`step_size` cannot be an axis with {type(kernel).__name__}, which adapts it. Use "
                "a stochastic-gradient kernel, without `batch_size` for the full data."
            )
        return kernel.replace(step_size=self.axes["step_size"][0])


def groups(
    cells: Sequence[Cell], todo: list[int], plan_of: Plans, max_memory: float
) -> Iterator[list[int]]:
    """Places of the cells to run at once; all groups of a batch size are equally long."""
    for _, same in itertools.groupby(todo, key=lambda k: cells[k].get("batch_size")):
        places = list(same)
        plan = plan_of(cells[places[0]])
        given = plan.schedule.num_warmup is not None and plan.schedule.num_samples is not None
        size = 1
        # Steps of NUTS are of unequal cost: side by side, all cells would wait for the longest.
        if given and plan.is_stochastic and plan.schedule.chain_method == "vectorized":
            own = _bytes(plan) + (_bytes_of_truth(plan) if "center" in cells[places[0]] else 0)
            size = int(np.clip(max_memory // own, 1, len(places)))
            size = -(-len(places) // -(-len(places) // size))  # groups as even as they can be
        for k in range(0, len(places), size):
            group = places[k : k + size]
            yield group + group[-1:] * (size - len(group))


def _bytes(plan: Plan) -> int:
    """What the chains of a cell take: states, gradients, noise, evaluated losses, and batches.

    The last if they are read ahead, for each cell has its own.
    """
    rows = min(plan.rows_of_a_step, plan.target.slice_rows)
    numbers = plan.schedule.num_chains * (16 * plan.target.dimension + 8 * rows)
    size = numbers * jnp.zeros((), jnp.result_type(float)).dtype.itemsize
    return size + bytes_ahead(plan.sampler, plan.target)


def _bytes_of_truth(plan: Plan) -> int:
    """What the model's distributions at a centre take."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(plan.target.truth))


class Group(NamedTuple):
    """Cells that run side by side, under one key."""

    rng_key: jax.Array
    cells: list[Cell]


def run_group(plan_of: Plans, group: Group) -> list[Row]:
    """Rows of cells that run side by side."""
    rng_key, cells = group
    plans = [plan_of(cell) for cell in cells]
    keys = run_keys(rng_key)
    starts = [_starts(plan, keys) for plan in plans]
    fields = ["inverse_temperature", "localization"]
    if "center" in cells[0]:
        fields += ["center", "center_losses"]
        fields += [k for k in ("fixed", "truth") if getattr(plans[0].target, k) is not None]
    own = [{name: getattr(plan.target, name) for name in fields} for plan in plans]
    run = Run(
        plans[0],
        jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *starts),
        keys.chains,
        rows=evaluation_rows(plans[0], keys.rows),
        cells=jax.tree.map(lambda *leaves: jnp.stack(leaves), *own),
    )
    if "step_size" in cells[0]:
        run.set_step_sizes([cell["step_size"] for cell in cells])
    finished = finish(run)
    if finished.ended_by == "interrupt":
        raise KeyboardInterrupt
    return [row_of(plan, run, finished, keys.report, k) for k, plan in enumerate(plans)]


def _starts(plan: Plan, keys: RunKeys) -> Parameters:
    return plan.starts(None if plan.is_stochastic else plan.curvature(keys.curvature), keys.starts)
