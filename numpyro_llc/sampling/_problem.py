"""From a user's arguments to a density to sample, a sampler, and where its chains start."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc._checks import (
    check_localization,
    check_num_data,
    check_other_data,
    inverse_temperature_or_default,
)
from numpyro_llc._identity import fingerprint
from numpyro_llc.errors import NonFiniteLossError
from numpyro_llc.kernels import (
    Sampler,
    StochasticSampler,
    check_batch_size,
    in_axes_of,
    make_sampler,
)
from numpyro_llc.local import (
    DENSE_LIMIT,
    ROWS_ALWAYS_AFFORDABLE,
    Curvature,
    Elsewhere,
    Held,
    LocalTarget,
    curvature_at_center,
    gradient_at_center,
    make_target,
    rows_to_evaluate,
    split,
    spread_starts,
    total_loss,
)
from numpyro_llc.models import (
    ModelReading,
    NetworkModel,
    Parameters,
    check_rows_apart,
    read_model,
    with_batches,
)
from numpyro_llc.sampling._schedule import DEFAULT_STEPS, Schedule, with_defaults

FORMAT = 2
"""Of what runs leave on disk; raised where the same settings would go on to other draws."""


@dataclass(frozen=True)
class Problem:
    """All that a run needs but a key.

    Attributes
    ----------
    sampler : Sampler
    kernel : str
        Its name.
    schedule : Schedule
    reading : ModelReading
    target : LocalTarget
    num_data : int
        n.
    elsewhere : dict of str to Elsewhere
        Other data on which the draws are evaluated, by name.
    sites
        What is sampled, as the user said it; None is all.
    """

    sampler: Sampler
    kernel: str
    schedule: Schedule
    reading: ModelReading
    target: LocalTarget
    num_data: int
    elsewhere: dict[str, Elsewhere]
    sites: Any = None

    @property
    def is_stochastic(self) -> bool:
        """Whether the kernel is of the stochastic-gradient ones."""
        return isinstance(self.sampler, StochasticSampler)

    @property
    def rows_of_a_step(self) -> int:
        """Rows that a step evaluates: of the full data as many as losses, whatever they count."""
        return getattr(self.sampler, "batch_size", None) or _num_rows(self.reading)

    @property
    def identity(self) -> dict[str, Any]:
        """What tells the model and its data from others, by name."""
        program = self.target.program
        return {
            "format": FORMAT,
            "model": fingerprint(program.model) + program.fingerprint,
            "arguments": fingerprint(program.arguments.leaves),
            "data": fingerprint(self.target.arrays),
            "num_data": self.num_data,
            "sites": fingerprint(self.target.held),
            "evaluate_on": {k: fingerprint(x.target.arrays) for k, x in self.elsewhere.items()},
        }

    def run_identity(self, rng_key: jax.Array) -> dict[str, Any]:
        """What the draws of a run depend on beside its centre, by name."""
        target = self.target
        return {
            **self.identity,
            "inverse_temperature": float(target.inverse_temperature),
            "localization": {name: float(gamma) for name, gamma in target.localization.items()},
            "kernel": self.sampler.description,
            **self.schedule._replace(progress_bar=False)._asdict(),
            "rng_key": jax.random.key_data(rng_key).tolist(),
            "x64": bool(jax.config.read("jax_enable_x64")),
        }

    def at(self, center: Any) -> "Problem":
        """The same problem at another centre: nothing is read or compiled again."""
        if self.elsewhere:
            raise ValueError("A problem with other data to evaluate on has one centre.")
        reading = self.reading.at(getattr(center, "params", center))
        _refuse_non_finite(reading, "at `center`")
        z, held = _split(reading, self.sites)
        losses = reading.center_losses
        target = replace(self.target, center=z, center_losses=losses, held=held)
        return replace(self, reading=reading, target=target)

    def curvature(self, rng_key: jax.Array) -> Curvature:
        """Curvature at the centre; of a large batched model the gradient."""
        if self.is_stochastic and self.target.dimension > DENSE_LIMIT:
            return gradient_at_center(self.target)
        return curvature_at_center(self.target, rng_key)

    def starts(self, curvature: Curvature | None, rng_key: jax.Array) -> Parameters:
        """Around the centre; of stochastic-gradient kernels, whose warm-up is long, at it."""
        chains, center = self.schedule.num_chains, self.target.center
        if self.is_stochastic or curvature is None:
            return jax.tree.map(lambda x: jnp.broadcast_to(x, (chains, *x.shape)), center)
        return spread_starts(self.target, curvature, rng_key, chains)


def prepare(
    model: Callable,
    model_args: Sequence[Any],
    model_kwargs: Mapping[str, Any] | None,
    schedule: Schedule,
    *,
    center: Any,
    kernel: Any,
    num_data: int | None,
    inverse_temperature: float | None,
    localization: float | Mapping[str, float],
    batch_size: int | None,
    in_axes: Any,
    step_size: float | None,
    sites: Any = None,
    evaluate_on: Mapping[str, Any] | None = None,
    likelihood_factors: Sequence[str] = (),
    prior_factors: Sequence[str] = (),
) -> Problem:
    """Read the model and check the arguments, which are those of ``estimate_llc``."""
    sampler = make_sampler(
        kernel,
        num_warmup=DEFAULT_STEPS if schedule.num_warmup is None else schedule.num_warmup,
        num_chains=schedule.num_chains,
        step_size=step_size,
        batch_size=batch_size,
    )
    if not isinstance(sampler, StochasticSampler):
        schedule = with_defaults(schedule)
    if num_data is not None:
        num_data = check_num_data(num_data)
    inverse_temperature_or_default(inverse_temperature, num_data or 2)

    def read(args: Any, kwargs: Any) -> ModelReading:
        return read_model(
            model,
            args,
            kwargs,
            center=getattr(center, "params", center),
            likelihood_factors=likelihood_factors,
            prior_factors=prior_factors,
        )

    axes = in_axes_of(kernel, in_axes)
    reading = _batched(read(model_args, model_kwargs), sampler, axes)
    target, num_data = target_of(reading, num_data, inverse_temperature, localization, sites)
    name = kernel if isinstance(kernel, str) else type(kernel).__name__
    elsewhere = {}
    for key, data in check_other_data(evaluate_on).items():
        is_named = isinstance(data, Mapping)
        try:
            other = read(
                model_args if is_named else data,
                {**(model_kwargs or {}), **data} if is_named else model_kwargs,
            )
            if _num_rows(other) > ROWS_ALWAYS_AFFORDABLE and reading.program.batching is not None:
                other = replace(other, program=with_batches(other, axes))
        except (ValueError, TypeError, IndexError, AssertionError) as error:
            raise ValueError(f"`evaluate_on[{key!r}]` does not fit the model: {error}") from error
        _refuse_non_finite(other, f"on the data of `evaluate_on[{key!r}]`")
        elsewhere[key] = _elsewhere(target, reading, other)
    return Problem(sampler, name, schedule, reading, target, num_data, elsewhere, sites)


def _num_rows(reading: ModelReading) -> int:
    """Losses of the full data, of the site that has most."""
    return max(map(np.size, reading.center_losses.values()))


def _elsewhere(target: LocalTarget, reading: ModelReading, other: ModelReading) -> Elsewhere:
    """The target with other data."""
    there = replace(
        target,
        program=other.program,
        arrays=other.arrays,
        center_losses=other.center_losses,
    )
    here, count = (max(map(int, one.data_counts.values())) for one in (reading, other))
    rows = rows_to_evaluate(there, ROWS_ALWAYS_AFFORDABLE, jax.random.key(0))
    return Elsewhere(there, rows, jnp.asarray(here / count, jnp.result_type(float)))


def _batched(reading: ModelReading, sampler: Sampler, in_axes: Any) -> ModelReading:
    """The reading with rows that can be taken out, for a sampler that takes batches."""
    batch_size = getattr(sampler, "batch_size", None)
    if batch_size is None:
        if isinstance(reading.program.model, NetworkModel):
            check_rows_apart(reading, in_axes)
        elif in_axes is not None:
            raise ValueError("`in_axes` says where a batch's rows are; give `batch_size` too.")
        return reading
    program = with_batches(reading, in_axes)
    check_batch_size(batch_size, program.batching.num_rows)  # type: ignore[union-attr]
    return replace(reading, program=program)


def target_of(
    reading: ModelReading,
    num_data: int | None,
    inverse_temperature: Any,
    localization: Any,
    sites: Any = None,
) -> tuple[LocalTarget, int]:
    """The local target and n; refuses a centre where the loss is not finite."""
    num_data = check_num_data(reading.num_data(num_data))
    _refuse_non_finite(reading, "at `center`")
    center, held = _split(reading, sites)
    target = make_target(
        reading.program,
        reading.arrays,
        center,
        inverse_temperature=inverse_temperature_or_default(inverse_temperature, num_data),
        localization=check_localization(localization, reading.center),
        center_losses=reading.center_losses,
        held=held,
    )
    return target, num_data


def _split(reading: ModelReading, sites: Any) -> tuple[Parameters, Held | None]:
    return (reading.center, None) if sites is None else split(reading.center, sites)


def _refuse_non_finite(reading: ModelReading, where: str) -> None:
    if not np.isfinite(total_loss(reading.center_losses)):
        bad = {k: int(np.sum(~np.isfinite(v))) for k, v in reading.center_losses.items()}
        raise NonFiniteLossError(
            f"The loss {where} is not finite: {bad} non-finite values by observed site. Is "
            "each observation inside the support of its likelihood there?"
        )
