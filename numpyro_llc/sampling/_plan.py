"""From a localized model, its arguments and a kernel to all that a run needs but a key."""

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from numpyro_llc.kernels import Sampler, StochasticSampler
from numpyro_llc.local import (
    DENSE_LIMIT,
    UNKNOWN,
    Curvature,
    LocalizedModel,
    LocalTarget,
    OtherData,
    bad_gradient,
    curvature_at_center,
    gradient_at_center,
    is_differentiable,
    spread_starts,
)
from numpyro_llc.models import (
    Arrays,
    ModelReading,
    Parameters,
    PyTree,
    reading_errors,
    values_at_rows,
)
from numpyro_llc.sampling._devices import moved_as
from numpyro_llc.sampling._identity import fingerprint
from numpyro_llc.sampling._placement import Placement
from numpyro_llc.sampling._processes import Processes
from numpyro_llc.sampling._schedule import Schedule

STEPS_OF_A_LOOK, LOOK_SHARE = 8, 0.1
"""Of so many steps of the warm-up one is looked at, or of so many that looks evaluate this share of
the rows that steps do."""
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

    def steps_of_a_look(self, evaluated: int) -> int:
        """Steps of the warm-up between two looks, each at `evaluated` rows, 0 for all."""
        rows = evaluated or self.reading.num_losses
        return max(STEPS_OF_A_LOOK, int(rows / (LOOK_SHARE * self.rows_of_a_step)))

    @property
    def num_rows(self) -> int:
        """Rows of the data, those of a stream included; 0 if rows cannot be taken out."""
        batching = self.target.program.batching
        return 0 if batching is None else batching.stream_rows or batching.num_rows

    @property
    def identity(self) -> dict[str, object]:
        """What tells the model and its data from others, by name."""
        program = self.target.program
        return {
            "model": fingerprint(program.model) + program.computes,
            "arguments": fingerprint(program.arguments.leaves),
            "data": _data_print(self.reading.data),
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
