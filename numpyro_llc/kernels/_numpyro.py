"""Any NumPyro kernel as a :class:`Sampler`: its settings kept, its model replaced by the target."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import HMC, MCMC, BarkerMH
from numpyro.infer.mcmc import MCMCKernel

from numpyro_llc.local import LocalTarget
from numpyro_llc.models import Fields, Parameters, PyTree, on_host

_STATISTICS = {
    "diverging": "diverging",
    "n_steps": "num_steps",
    "acceptance_rate": "accept_prob",
    "energy": "energy",
    "step_size": "adapt_state.step_size",
}


_OF_A_RUN = {
    "_model",
    "_potential_fn",
    "_potential_fn_gen",
    "_postprocess_fn",
    "_init_fn",
    "_sample_fn",
    "_init_strategy",
    "_inv_transforms",
    "_dynamic_support",
    "_batch_log_density",
    "_num_warmup",
    "_num_chains",
}
"""Attributes of NumPyro kernels that a run sets, or that the local density takes the place of."""


MOST_LEAPFROGS = 1024
"""Of HMC, in one draw: as of NUTS at its default depth. Its number of steps is the length of the
trajectory over the step, which has no bound where the adapted step goes to zero."""


class Counted(NamedTuple):
    """The kernel's own state, and the gradients evaluated so far by each chain; NaN if unknown."""

    own: PyTree
    gradients: jax.Array


@dataclass(frozen=True)
class NumpyroSampler:
    """A NumPyro kernel run on the target's potential. Equal if it is the same kernel object."""

    kernel: MCMCKernel
    num_warmup: int

    block_axes = 0
    gradient_is_of_center = False

    @property
    def is_ensemble(self) -> bool:
        return bool(self.kernel.is_ensemble_kernel)

    @property
    def uses_gradient(self) -> bool:
        return isinstance(self.kernel, HMC | BarkerMH)  # NUTS is an HMC

    @property
    def description(self) -> str:
        plain = int | float | str | None
        known = {k: v for k, v in self.settings.items() if isinstance(v, plain)}
        return f"{type(self.kernel).__name__} {sorted(known.items())}"

    @property
    def settings(self) -> dict[str, object]:
        """What the kernel was given: arrays, lists and functions too, not what a run adds."""
        return {k: v for k, v in vars(self.kernel).items() if k not in _OF_A_RUN}

    def _bind(self, target: LocalTarget) -> MCMCKernel:
        # Bound afresh in each trace, so that the target stays a runtime argument of it.
        kernel = copy.copy(self.kernel)
        kernel._model = None
        kernel._potential_fn = target.potential
        for closure in ("_init_fn", "_sample_fn", "_postprocess_fn"):
            if hasattr(kernel, closure):
                setattr(kernel, closure, None)
        return kernel

    def init(self, keys: jax.Array, z: Parameters, target: LocalTarget) -> Counted:
        def init(key: jax.Array, z: Parameters) -> PyTree:
            kernel = self._bind(target)
            return kernel.init(key, self.num_warmup, z, model_args=(), model_kwargs={})

        own = init(keys, z) if self.is_ensemble else jax.vmap(init)(keys, z)
        return Counted(own, jnp.zeros(keys.shape[:1]))

    def step(self, state: Counted, target: LocalTarget) -> Counted:
        def step(own: PyTree) -> PyTree:
            kernel, z, key = self._bind(target), getattr(own, self.kernel.sample_field), own.rng_key
            if self.is_ensemble:
                key = jax.random.split(key, jax.tree.leaves(z)[0].shape[0])
            # `init` sets the closures that `sample` calls; its result is unused, compiled away.
            kernel.init(key, self.num_warmup, z, (), {})
            return kernel.sample(self._bounded(own), (), {})

        own = step(state.own) if self.is_ensemble else jax.vmap(step)(state.own)
        return Counted(own, state.gradients + getattr(own, "num_steps", jnp.nan))

    def gradient(self, state: Counted) -> Parameters | None:
        return getattr(state.own, "z_grad", None)

    def _bounded(self, own: PyTree) -> PyTree:
        """The state with trajectories of at most ``MOST_LEAPFROGS`` steps, of HMC by its length."""
        length = getattr(self.kernel, "_trajectory_length", None)
        if type(self.kernel) is not HMC or length is None:
            return own
        longest = MOST_LEAPFROGS * own.adapt_state.step_size
        return own._replace(trajectory_length=jnp.minimum(length, longest))

    def position(self, state: Counted) -> Parameters:
        return getattr(state.own, self.kernel.sample_field)

    def statistics(self, state: Counted) -> dict[str, jax.Array]:
        return _read_statistics(state.own)

    def step_scale(
        self,
        state: Counted,
        target: LocalTarget,
        statistics: Mapping[str, np.ndarray],
        most_bias: float,
    ) -> float:
        return 1.0

    def end_warmup(self, state: Counted, step_scale: float) -> Counted:
        own = state.own
        adapts = hasattr(getattr(own, "adapt_state", None), "ss_state")
        if not adapts or np.all(on_host(own.i) >= self.num_warmup):
            return state  # The kernel counts its steps itself.
        return state._replace(own=_adapted(own, self.num_warmup))

    def with_step_sizes(self, state: Counted, step_sizes: jax.Array) -> Counted:
        raise ValueError(
            f"`step_size` cannot be an axis with {type(self.kernel).__name__}, which adapts it. "
            "Use a stochastic-gradient kernel, without `batch_size` for the full data."
        )

    def report(
        self, state: Counted, target: LocalTarget, statistics: Mapping[str, np.ndarray]
    ) -> Fields:
        gradients = float(np.mean(state.gradients))
        return {} if math.isnan(gradients) else {"gradient_evaluations": gradients}


def _adapted(state: PyTree, num_warmup: int) -> PyTree:
    """The state of NumPyro's HMC with its adaptation ended before its time.

    The step size is then the mean that dual averaging has made of its tries, as at the end.
    """
    adapted = state.adapt_state
    _, log_average, _, count, _ = adapted.ss_state
    step_size = jnp.where(count > 0, jnp.exp(log_average), adapted.step_size)
    return state._replace(
        i=jnp.maximum(state.i, num_warmup), adapt_state=adapted._replace(step_size=step_size)
    )


def _read_statistics(state: PyTree) -> dict[str, jax.Array]:
    found = {}
    for name, field in _STATISTICS.items():
        try:
            found[name] = attrgetter(field)(state)
        except AttributeError:
            continue
    return found


def kernel_statistics(mcmc: MCMC) -> dict[str, np.ndarray]:
    """The extra fields that an ``MCMC`` run collected, under ArviZ's names, ``[chain, draw]``."""
    fields = mcmc.get_extra_fields(group_by_chain=True)
    names = {field: name for name, field in _STATISTICS.items()}
    return {names[field]: np.asarray(v) for field, v in fields.items() if field in names}


def check_kernel(kernel: MCMCKernel) -> None:
    """Refuse kernels that cannot be given another potential (those that wrap an inner kernel)."""
    if hasattr(kernel, "inner_kernel") or not hasattr(kernel, "_potential_fn"):
        raise TypeError(
            f"`kernel` {type(kernel).__name__} cannot be moved to the localized density (it wraps "
            "another kernel or a model). Use NUTS or HMC; or, for full-data kernels, run "
            "numpyro.infer.MCMC on numpyro_llc.localize(model, ...) yourself, then "
            "numpyro_llc.from_numpyro(mcmc)."
        )
