"""Cells of a grid: their problems, which run side by side, and what each gave."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc._checks import check_localization, inverse_temperature_or_default
from numpyro_llc.models import Parameters
from numpyro_llc.sampling import Problem, Run, Schedule, finish
from numpyro_llc.studies._rows import row_of


def is_axis(value: Any) -> bool:
    """Whether an argument holds several values, not one."""
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


class Problems:
    """The problem of a cell; the model is read once for each centre and batch size."""

    def __init__(self, given: Mapping[str, Any], make: Callable[..., Problem]) -> None:
        self.given, self.make = given, make
        self.known: dict[Any, Problem] = {}

    def __call__(self, cell: Mapping[str, Any]) -> Problem:
        chosen = {**self.given, **cell}
        key = (id(chosen["center"]), chosen["batch_size"])
        if key not in self.known:
            # Of several step sizes any will do: each cell's own is put into the state.
            first = self.step_sizes[0] if self.step_sizes else chosen["step_size"]
            self.known[key] = self.make(chosen["center"], chosen["batch_size"], first)
        problem = self.known[key]
        beta, gamma = chosen["inverse_temperature"], chosen["localization"]
        beta = inverse_temperature_or_default(beta, problem.num_data)
        scalar = jnp.zeros((), jnp.result_type(float))
        localization = check_localization(gamma, problem.reading.center)
        target = replace(
            problem.target,
            inverse_temperature=scalar + beta,
            localization={name: scalar + localization[name] for name in problem.target.center},
        )
        return replace(problem, target=target)

    @property
    def step_sizes(self) -> list[float]:
        """The values of the axis of step sizes; none if it is no axis."""
        steps = self.given["step_size"]
        return list(steps) if is_axis(steps) else []


def groups(
    cells: list[dict[str, Any]],
    todo: list[int],
    problem_of: Problems,
    schedule: Schedule,
    max_memory: float,
) -> Iterator[list[int]]:
    """Places of the cells to run at once; all groups of a batch size are equally long."""
    for _, same in itertools.groupby(todo, key=lambda k: cells[k].get("batch_size")):
        places = list(same)
        problem = problem_of(cells[places[0]])
        given = problem.schedule.num_warmup is not None and problem.schedule.num_samples is not None
        size = 1
        # Steps of NUTS are of unequal cost: side by side, all cells would wait for the longest.
        if given and problem.is_stochastic and schedule.chain_method == "vectorized":
            size = int(np.clip(max_memory // _bytes(problem), 1, len(places)))
            size = -(-len(places) // -(-len(places) // size))  # groups as even as they can be
        for k in range(0, len(places), size):
            group = places[k : k + size]
            yield group + group[-1:] * (size - len(group))


def _bytes(problem: Problem) -> int:
    """What the chains of a cell take: states, gradients, noise, and the evaluated losses."""
    rows = min(problem.rows_of_a_step, 8192)
    numbers = problem.schedule.num_chains * (16 * problem.target.dimension + 8 * rows)
    return numbers * jnp.zeros((), jnp.result_type(float)).dtype.itemsize


def run_group(
    rng_key: jax.Array, cells: list[dict[str, Any]], problem_of: Problems
) -> list[dict[str, Any]]:
    """Rows of cells that run side by side."""
    problems = [problem_of(cell) for cell in cells]
    key_check, key_starts, key_chains = jax.random.split(rng_key, 3)
    starts = [_starts(problem, key_check, key_starts) for problem in problems]
    fields = ["inverse_temperature", "localization"]
    if len({id(cell.get("center")) for cell in cells}) > 1 or "center" in cells[0]:
        fields += ["center", "center_losses"]
    own = [{name: getattr(problem.target, name) for name in fields} for problem in problems]
    first = problems[0]
    run = Run(
        first.sampler,
        first.target,
        jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *starts),
        key_chains,
        first.schedule,
        sites=(),
        cells=jax.tree.map(lambda *leaves: jnp.stack(leaves), *own),
    )
    if problem_of.step_sizes:
        run.set_step_sizes([cell["step_size"] for cell in cells])
    finished = finish(run, first.schedule, first.rows_of_a_step, key_starts)
    if finished.ended_by == "interrupt":
        raise KeyboardInterrupt
    return [row_of(problem, run, finished, key_check, k) for k, problem in enumerate(problems)]


def _starts(problem: Problem, key_check: jax.Array, key_starts: jax.Array) -> Parameters:
    if problem.is_stochastic:
        return problem.starts(None, key_starts)
    return problem.starts(problem.curvature(key_check), key_starts)
