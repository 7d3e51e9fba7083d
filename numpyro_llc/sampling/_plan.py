"""From a localized model, its arguments and a kernel to all that a run needs but a key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from numpyro.infer.mcmc import MCMCKernel

from numpyro_llc._checks import check_other_data
from numpyro_llc.kernels import Sampler, StochasticKernel, StochasticSampler, name_of, sampler_of
from numpyro_llc.local import (
    DENSE_LIMIT,
    ROWS_ALWAYS_AFFORDABLE,
    UNKNOWN,
    Curvature,
    LocalizedModel,
    LocalTarget,
    OtherData,
    bad_gradient,
    check_differentiable,
    check_finite,
    curvature_at_center,
    gradient_at_center,
    is_differentiable,
    rows_to_evaluate,
    spread_starts,
)
from numpyro_llc.models import (
    Arrays,
    InAxes,
    ModelReading,
    NetworkModel,
    Parameters,
    PyTree,
    check_given_in_memory,
    check_rows_apart,
    reading_errors,
    values_at_rows,
    with_batches,
)
from numpyro_llc.sampling._devices import (
    Placement,
    automatic,
    check_shares,
    moved_as,
    placed,
    placement_of,
)
from numpyro_llc.sampling._identity import fingerprint
from numpyro_llc.sampling._processes import Processes
from numpyro_llc.sampling._schedule import DEFAULT_STEPS, Schedule, with_defaults

PRINTED_ROWS = 4096
"""Rows of data that lie elsewhere, by which a folder knows them again."""


@dataclass(frozen=True)
class Plan:
    """All that a run needs but a key: what is sampled, how, and how long.

    Attributes
    ----------
    local : LocalizedModel
        What is sampled, as the user said it.
    reading : ModelReading
    target : LocalTarget
        The same as a density.
    num_data : int
        n.
    kernel : str
        The kernel's name.
    sampler : Sampler
    schedule : Schedule
    other_data : dict of str to OtherData
        Other data on which the draws are evaluated, by name.
    placement : Placement or None
        Where it lies, if on several devices.
    """

    local: LocalizedModel
    reading: ModelReading
    target: LocalTarget
    num_data: int
    kernel: str
    sampler: Sampler
    schedule: Schedule
    other_data: dict[str, OtherData]
    placement: Placement | None = None

    @property
    def is_stochastic(self) -> bool:
        """Whether the kernel is of the stochastic-gradient ones."""
        return isinstance(self.sampler, StochasticSampler)

    @property
    def processes(self) -> Processes:
        """Those that sample together."""
        return Processes(None if self.placement is None else self.placement.mesh)

    @property
    def rows_of_a_step(self) -> int:
        """Rows that a step evaluates: of the full data as many as losses, whatever they count."""
        return getattr(self.sampler, "batch_size", None) or self.reading.num_losses

    @property
    def identity(self) -> dict[str, object]:
        """What tells the model and its data from others, by name."""
        program = self.target.program
        return {
            "model": fingerprint(program.model) + program.computes,
            "arguments": fingerprint(program.arguments.leaves),
            "data": _data_print(self.target.arrays),
            "num_data": self.num_data,
            "sites": fingerprint(self.target.fixed),
            "truth": self.local.truth,
            "evaluate_on": {
                name: _data_print(other.target.arrays, place, other.target.program.arguments.leaves)
                for place, (name, other) in enumerate(self.other_data.items())
            },
        }

    def run_identity(self, rng_key: jax.Array) -> dict[str, object]:
        """What the draws of a run depend on beside its centre, by name."""
        target, schedule = self.target, self.schedule._replace(progress_bar=False)
        return {
            **self.identity,
            "inverse_temperature": float(target.inverse_temperature),
            "localization": {name: float(gamma) for name, gamma in target.localization.items()},
            "kernel": self.sampler.description,
            "kernel settings": fingerprint(getattr(self.sampler, "settings", None)),
            **{k: v for k, v in schedule._asdict().items() if k != "mesh"},
            "rng_key": jax.random.key_data(rng_key).tolist(),
            "x64": bool(jax.config.read("jax_enable_x64")),
        }

    def varied(self, **changes: PyTree) -> "Plan":
        """The same plan with another `center`, `truth`, `localization` or `inverse_temperature`.

        Nothing is read or compiled again.
        """
        if "center" in changes and self.other_data:
            raise ValueError("A plan with other data to evaluate on has one centre.")
        local = replace(self.local, **changes)
        reading = self.reading
        if "center" in changes:
            reading = reading.at(local.center)
            if self.placement is not None:
                reading = moved_as(reading, self.reading)
        target, _ = local.target(reading)
        return replace(self, local=local, reading=reading, target=target)

    @property
    def is_large(self) -> bool:
        """Whether of the curvature at the centre only the gradient is measured."""
        return self.is_stochastic and self.target.dimension > DENSE_LIMIT

    @reading_errors()
    def curvature(self, rng_key: jax.Array, tempered: Parameters | None = None) -> Curvature:
        """Curvature at the centre; of a large batched model the gradient, ``β ∇nL``, if not given.

        Raises
        ------
        NonFiniteLossError
            If the gradient is not finite, and the kernel uses it.
        """
        uses_gradient = self.sampler.uses_gradient
        if not uses_gradient and not is_differentiable(self.target):
            return UNKNOWN
        if self.is_large:
            found = gradient_at_center(self.target, tempered)
        else:
            found = curvature_at_center(self.target, rng_key)
        if uses_gradient and found.undefined:
            raise bad_gradient(dict(found.undefined), "at `center`")
        return found

    def starts(self, curvature: Curvature | None, rng_key: jax.Array) -> Parameters:
        """Around the centre; of stochastic-gradient kernels, whose warm-up is long, at it."""
        chains, center = self.schedule.num_chains, self.target.center
        if self.is_stochastic or curvature is None:
            return _repeated(center, chains)
        with_gradient = self.sampler.uses_gradient
        return spread_starts(self.target, curvature, rng_key, chains, with_gradient=with_gradient)


def _data_print(arrays: Arrays, *others: object) -> str:
    """The fingerprint of data, those that lie elsewhere by some of their rows."""
    return fingerprint(*others, tuple(values_at_rows(array, PRINTED_ROWS) for array in arrays))


@partial(jax.jit, static_argnums=1)
def _repeated(center: Parameters, chains: int) -> Parameters:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (chains, *x.shape)), center)


class RunKeys(NamedTuple):
    """A key for each use of randomness in a run."""

    curvature: jax.Array
    starts: jax.Array
    chains: jax.Array
    rows: jax.Array
    report: jax.Array
    other_rows: jax.Array


@jax.jit
def run_keys(rng_key: jax.Array) -> RunKeys:
    """The keys of a run."""
    return RunKeys(*jax.random.split(rng_key, len(RunKeys._fields)))


def make_plan(
    local: LocalizedModel,
    model_args: Sequence[object],
    model_kwargs: Mapping[str, object] | None,
    kernel: MCMCKernel,
    schedule: Schedule,
    evaluate_on: Mapping[str, object] | None = None,
    rows_key: jax.Array | None = None,
) -> Plan:
    """Read the model and check its arguments; `kernel` is what ``kernel_of`` gave.

    `rows_key` comes with `evaluate_on`: it draws the rows of other data that are too many.
    """
    num_warmup = DEFAULT_STEPS if schedule.num_warmup is None else schedule.num_warmup
    sampler = sampler_of(kernel, num_warmup=num_warmup, num_chains=schedule.num_chains)
    if not isinstance(kernel, StochasticKernel):
        schedule = with_defaults(schedule)
    others = check_other_data(evaluate_on)
    model_args, model_kwargs = automatic((model_args, model_kwargs))
    local = replace(local, center=automatic(local.center))
    axes = getattr(kernel, "in_axes", None)
    if getattr(sampler, "batch_size", None) is None:
        check_given_in_memory(model_args, model_kwargs, f"`kernel` {name_of(kernel)!r} takes")
    reading = local.read(model_args, model_kwargs, axes)
    if isinstance(kernel, StochasticKernel) and kernel.sampler.batch_size is not None:
        reading = kernel.batched(reading)
    elif isinstance(reading.program.model, NetworkModel):
        check_rows_apart(reading, axes)
    reading, mesh = placed(reading, schedule.mesh)
    target, num_data = local.target(reading)
    if sampler.uses_gradient:
        check_differentiable(target)
    placement = None if mesh is None else placement_of(target.center, mesh)
    check_shares(getattr(sampler, "batch_size", None), target.num_shards)
    plan = Plan(local, reading, target, num_data, name_of(kernel), sampler, schedule, {}, placement)
    found = {}
    for place, (name, data) in enumerate(others.items()):
        if rows_key is None:
            raise ValueError("`evaluate_on` needs a key, `rows_key`.")
        args, kwargs = model_args, model_kwargs
        if isinstance(data, Mapping):
            kwargs = {**(model_kwargs or {}), **data}
        else:
            args = data
        other = _read_other(plan, name, args, kwargs, axes)
        found[name] = _other_data(plan, other, jax.random.fold_in(rows_key, place))
    return replace(plan, other_data=found)


def _read_other(
    plan: Plan,
    name: str,
    args: Sequence[object],
    kwargs: Mapping[str, object] | None,
    in_axes: InAxes | None,
) -> ModelReading:
    """The model on other data, with rows that can be taken out where these are many."""
    try:
        other = plan.local.read(args, kwargs, in_axes)
        if other.num_losses > ROWS_ALWAYS_AFFORDABLE and plan.reading.program.batching is not None:
            other = replace(other, program=with_batches(other, in_axes))
    except (ValueError, TypeError, IndexError, AssertionError) as error:
        raise ValueError(f"`evaluate_on[{name!r}]` does not fit the model: {error}") from error
    check_finite(other, f"on the data of `evaluate_on[{name!r}]`")
    return placed(other, plan.placement.mesh, evenly=False)[0] if plan.placement else other


def _other_data(plan: Plan, other: ModelReading, rng_key: jax.Array) -> OtherData:
    """The plan's density on other data, of which the loss counts as many as of its own."""
    there = replace(
        plan.target,
        program=other.program,
        arrays=other.arrays,
        center_losses=other.center_losses,
        truth=plan.local.truth_of(other),
    )
    here, count = (max(map(int, reading.data_counts.values())) for reading in (plan.reading, other))
    rows = rows_to_evaluate(there, ROWS_ALWAYS_AFFORDABLE, rng_key)
    return OtherData(there, rows, jnp.asarray(here / count, jnp.result_type(float)))
