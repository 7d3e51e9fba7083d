"""From a localized model, its arguments and a kernel to a plan."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
from numpyro.infer.mcmc import MCMCKernel

from numpyro_llc._checks import check_other_data
from numpyro_llc.kernels import StochasticKernel, name_of, sampler_of
from numpyro_llc.local import (
    ROWS_ALWAYS_AFFORDABLE,
    LocalizedModel,
    OtherData,
    check_differentiable,
    check_finite,
    rows_to_evaluate,
)
from numpyro_llc.models import (
    Arguments,
    InAxes,
    Loader,
    ModelReading,
    NetworkModel,
    Stream,
    check_given_in_memory,
    check_num_data_of_model,
    check_rows_apart,
    with_batches,
    without_stream,
)
from numpyro_llc.sampling._devices import check_shares, placed
from numpyro_llc.sampling._on_stream import on_stream, streamed
from numpyro_llc.sampling._placement import automatic, placement_of
from numpyro_llc.sampling._plan import Plan
from numpyro_llc.sampling._schedule import DEFAULT_STEPS, Schedule, with_defaults


def make_plan(
    local: LocalizedModel,
    model_args: Arguments,
    model_kwargs: Mapping[str, object] | None,
    kernel: MCMCKernel,
    schedule: Schedule,
    evaluate_on: Mapping[str, object] | None = None,
    rows_key: jax.Array | None = None,
) -> Plan:
    """Read the model and check its arguments; `kernel` is what ``kernel_of`` gave.

    `rows_key` comes with `evaluate_on`: it draws the rows of other data that are too many.
    """
    loader = None
    if isinstance(model_args, Stream):
        local, kernel, loader = on_stream(local, model_args, kernel, schedule)
    num_warmup = DEFAULT_STEPS if schedule.num_warmup is None else schedule.num_warmup
    sampler = sampler_of(kernel, num_warmup=num_warmup, num_chains=schedule.num_chains)
    if not isinstance(kernel, StochasticKernel):
        schedule = with_defaults(schedule)
    others = check_other_data(evaluate_on)
    args, model_kwargs = automatic((without_stream(model_args), model_kwargs))
    local = replace(local, center=automatic(local.center))
    axes = getattr(kernel, "in_axes", None)
    if getattr(sampler, "batch_size", None) is None:
        check_given_in_memory(args, model_kwargs, f"`kernel` {name_of(kernel)!r} takes")
    reading = _batched(local.read(args, model_kwargs, axes), kernel, loader)
    if loader is None:
        batch_size = getattr(sampler, "batch_size", None) or 0
        check_num_data_of_model(reading, local.num_data, batch_size)
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
        if isinstance(data, Mapping):
            other = _read_other(plan, name, args, {**(model_kwargs or {}), **data}, axes)
        else:
            other = _read_other(plan, name, data, model_kwargs, axes)
        found[name] = _other_data(plan, other, jax.random.fold_in(rows_key, place))
    return replace(plan, other_data=found)


def _batched(reading: ModelReading, kernel: MCMCKernel, loader: Loader | None) -> ModelReading:
    """The reading with rows that can be taken out, if the kernel takes batches."""
    if loader is not None:
        return streamed(reading, loader)
    if isinstance(kernel, StochasticKernel) and kernel.sampler.batch_size is not None:
        return kernel.batched(reading)
    if isinstance(reading.program.model, NetworkModel):
        check_rows_apart(reading, getattr(kernel, "in_axes", None))
    return reading


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
