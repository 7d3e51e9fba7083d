"""The stochastic-gradient kernels as NumPyro's: the same sampler under ``numpyro.infer.MCMC``."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from numpyro.infer.initialization import init_to_uniform
from numpyro.infer.mcmc import MCMCKernel

from numpyro_llc._checks import check_integer, check_positive
from numpyro_llc.kernels._rule import Rule
from numpyro_llc.kernels._state import StochasticState
from numpyro_llc.kernels._stochastic import StochasticSampler
from numpyro_llc.local import (
    Fixed,
    LocalizedModel,
    LocalTarget,
    PosteriorTarget,
    check_differentiable,
    check_start,
)
from numpyro_llc.models import (
    Fields,
    InAxes,
    ModelReading,
    Parameters,
    Program,
    check_counted_once,
    check_given_in_memory,
    draw_starts,
    read_model,
    with_batches,
)

_ANYWHERE = init_to_uniform()


def make_stochastic_sampler(
    rule: Rule,
    step_size: float | None,
    batch_size: int | None,
    control_variates: bool | None = None,
) -> StochasticSampler:
    """Check the numbers of a stochastic-gradient kernel."""
    if step_size is not None:
        meaning = "Leave it out to have it found in the warm-up."
        step_size = check_positive("step_size", step_size, meaning=meaning, zero=True)
    if batch_size is not None:
        meaning = "It counts rows of a minibatch; leave it out for the full data."
        batch_size = check_integer("batch_size", batch_size, minimum=1, meaning=meaning)
    return StochasticSampler(rule, batch_size, step_size, control_variates)


def check_batch_size(batch_size: int | None, num_rows: int) -> None:
    """Refuse a batch larger than the data."""
    if batch_size is not None and batch_size > num_rows:
        raise ValueError(
            f"`batch_size` must be at most the {num_rows} rows of the data; got {batch_size}. "
            "Leave it out for the full data."
        )


class KernelState(NamedTuple):
    """State under ``numpyro.infer.MCMC``.

    Attributes
    ----------
    z : dict
        Unconstrained parameters at which the chain is observed.
    i : scalar
        Steps so far, those of the warm-up included.
    rng_key : key, or array of keys [chain]
    num_warmup : scalar
    inner : StochasticState
        Always with a leading axis of chains, of length 1 under one key.
    target : LocalTarget
        Less the data, which come with each call.
    """

    z: Parameters
    i: jax.Array
    rng_key: jax.Array
    num_warmup: jax.Array
    inner: StochasticState
    target: LocalTarget


class StochasticKernel(MCMCKernel):
    """Base of the stochastic-gradient kernels: a :class:`StochasticSampler` with a model.

    Alone in ``numpyro.infer.MCMC`` it samples the density of what ``localize`` returned, starting
    at the centre, or the posterior of any other NumPyro model.
    """

    sample_field = "z"
    default_fields = ("z",)

    def __init__(
        self,
        model: Callable | None,
        rule: Rule,
        *,
        step_size: float | None,
        batch_size: int | None,
        control_variates: bool | None,
        in_axes: InAxes | None,
        **own: float | None,
    ) -> None:
        self._model = model
        self._settings: Fields = {
            "step_size": step_size,
            "batch_size": batch_size,
            "control_variates": control_variates,
            "in_axes": in_axes,
            **own,
        }
        self.sampler = make_stochastic_sampler(rule, step_size, batch_size, control_variates)
        self.in_axes = in_axes
        self._sample_fn: Callable | None = None
        self._program: Program | None = None
        self._fixed: Fixed | None = None

    @property
    def model(self) -> Callable | None:
        """The model given."""
        return self._model

    def replace(self, **settings: object) -> "StochasticKernel":
        """The same kernel with other settings."""
        return type(self)(self._model, **{**self._settings, **settings})

    def init(
        self,
        rng_key: jax.Array,
        num_warmup: int,
        init_params: Parameters | None,
        model_args: tuple = (),
        model_kwargs: dict | None = None,
    ) -> KernelState:
        """State of one chain, or of stacked chains under stacked keys."""
        target = self._read(model_args, model_kwargs)
        check_differentiable(target)
        self._program, self._fixed = target.program, target.fixed
        self._sample_fn = self._advance
        single = _is_single(rng_key)
        keys = rng_key[None] if single else rng_key
        if init_params is None:
            z = self._starts(target, keys)
        else:
            z = jax.tree.map(lambda leaf: leaf[None], init_params) if single else init_params
        inner = self.sampler.init(keys, z, target)
        check_start(self.sampler.gradient(inner), target.center)
        return self._wrapped(
            inner, rng_key, jnp.asarray(num_warmup), replace(target, arrays=(), center_losses={})
        )

    def sample(
        self, state: KernelState, model_args: tuple = (), model_kwargs: dict | None = None
    ) -> KernelState:
        """One step."""
        return self._advance(state, model_args, model_kwargs)

    def _advance(
        self, state: KernelState, model_args: tuple, model_kwargs: dict | None
    ) -> KernelState:
        arrays = state.target.program.arguments.arrays_of(model_args, model_kwargs)
        target = replace(state.target, arrays=arrays)
        keys = state.rng_key[None] if _is_single(state.rng_key) else state.rng_key
        inner = state.inner._replace(rng_key=keys, warming=state.i < state.num_warmup)
        inner = self.sampler.step(inner, target)
        return self._wrapped(inner, state.rng_key, state.num_warmup, state.target)

    def postprocess_fn(self, model_args: tuple, model_kwargs: dict | None) -> Callable:
        """From unconstrained to constrained parameters."""
        program, fixed = self._program, self._fixed

        def constrain(z: Parameters) -> Parameters:
            if program is None:
                raise ValueError("The kernel has no state yet: `init` comes first.")
            whole = z if fixed is None else fixed.whole(z)
            arrays = program.arguments.arrays_of(model_args, model_kwargs)
            return program.constrain(whole, arrays, program.parameters)

        return constrain

    def get_diagnostics_str(self, state: KernelState) -> str:
        """Step size, for the progress bar."""
        return f"step size {float(jnp.max(state.inner.tuning.step_size)):.2e}"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_sample_fn": None}  # `init` sets it again

    def _wrapped(
        self, inner: StochasticState, rng_key: jax.Array, num_warmup: jax.Array, target: LocalTarget
    ) -> KernelState:
        z = self.sampler.position(inner)
        if _is_single(rng_key):
            z = jax.tree.map(lambda leaf: leaf[0], z)
        return KernelState(z, inner.i, rng_key, num_warmup, inner, target)

    def _read(self, args: tuple, kwargs: dict | None) -> LocalTarget:
        model = self._model
        if model is None:
            raise ValueError("The kernel has no model: give it what numpyro_llc.localize returned.")
        check_given_in_memory(args, kwargs, "A kernel under NumPyro takes")
        if isinstance(model, LocalizedModel):
            reading = self.batched(model.read(args, kwargs))
            return model.target(reading)[0]
        reading = read_model(model, args, kwargs, center={}, init_strategy=_ANYWHERE)
        reading = self.batched(reading)
        return PosteriorTarget(
            reading.program,
            reading.arrays,
            reading.center,
            reading.center_losses,
            jnp.ones(()),
            dict.fromkeys(reading.center, jnp.ones(())),
        )

    def batched(self, reading: ModelReading) -> ModelReading:
        """The reading with rows that can be taken out, if the kernel takes batches."""
        if self.sampler.batch_size is None:
            return reading
        program = with_batches(reading, self.in_axes)
        num_rows = program.require_batching().num_rows
        check_batch_size(self.sampler.batch_size, num_rows)
        check_counted_once(reading, num_rows, self.sampler.batch_size)
        return replace(reading, program=program)

    def _starts(self, target: LocalTarget, keys: jax.Array) -> Parameters:
        if isinstance(target, PosteriorTarget):
            return draw_starts(target.program, _ANYWHERE, target.arrays, keys)
        chains = keys.shape[0]
        return jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (chains, *leaf.shape)), target.center
        )


def _is_single(rng_key: jax.Array) -> bool:
    """Whether this is one key, of the new or of the old style."""
    typed = jnp.issubdtype(rng_key.dtype, jax.dtypes.prng_key)
    return rng_key.ndim == (0 if typed else 1)
