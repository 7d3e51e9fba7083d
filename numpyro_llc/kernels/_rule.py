"""What tells one stochastic-gradient kernel from another."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax

from numpyro_llc.models import Parameters, PyTree

Scalar = float | jax.Array
Noise = Callable[[Parameters], jax.Array]
"""Standard normal noise for stacked parameters, packed: ``[chain, coordinate]`` (``unpacked`` gives
its numbers in their form); the same each time."""
TakingOff = Callable[
    [Parameters, Parameters, jax.Array, Scalar | None], tuple[Parameters, Parameters, jax.Array]
]
"""``(z, v, share, time)`` to `z`, to `v` less an estimate of ``share G^½ V G^½ v``, V at `z` the
covariance of the gradients of a batch, and to a number for each chain that is to be handed on.

With a `time`, v is a momentum that has moved `z` for so long: V is then at ``z - time v``, and the
new `z` is where the new `v` moves it from there. So it takes no copy of `z` as it was before."""
Metric = Parameters | None
"""The diagonal G of a preconditioner by coordinate; None for the identity."""


class Step(NamedTuple):
    """What a rule is given for one step.

    ``gradient(z)`` is ``∇U(z)`` of each chain from one batch. ``moved(function, x, *others)`` is
    ``function(taking_off, x, *others)`` with a ``TakingOff`` whose V is at the rows of that batch:
    what replaces `x`, and the number that is handed on, of chains ``[chain, ...]`` as all arguments
    are, which it may take one by one and write in their place; ``moved`` returns what replaces
    `x`. `metric` is the diagonal G of a preconditioner, or None. `localization` is the mean γ of
    the sites. `step_size` is ε of this substep, `whole_step` that of the whole step; `warming`
    whether it is of the warm-up.
    """

    gradient: Callable[[Parameters], Parameters]
    moved: Callable[..., PyTree]
    noise: Noise
    metric: Metric
    localization: jax.Array
    step_size: jax.Array
    whole_step: jax.Array
    warming: jax.Array


class Rule(Protocol):
    """One stochastic-gradient kernel: hashable, no arrays."""

    @property
    def stiffness(self) -> float:
        """The value of `stiffness_of` that an automatic step size aims at."""
        ...

    @property
    def quadratic_stiffness(self) -> float:
        """The same where the Hessian hardly changes between the centre and the chains."""
        ...

    @property
    def noise_limit(self) -> float:
        """The share of the gradient noise in ``|∇U|²``, times the stiffness, to keep below."""
        ...

    @property
    def has_metric(self) -> bool:
        """Whether a diagonal preconditioner is learned in the warm-up."""
        ...

    @property
    def corrects_noise(self) -> bool:
        """Whether `advance` takes gradient noise off again, by ``Step.moved``.

        If not, λ̂ is reported with what the noise adds to it, and longer steps bias it.
        """
        ...

    def start(self, z: Parameters, noise: Noise) -> PyTree:
        """The kernel's own variables at its start."""
        ...

    def advance(
        self, z: Parameters, inner: PyTree, step: Step
    ) -> tuple[Parameters, PyTree, Parameters]:
        """One step: new `z`, new variables, and the gradient that was used."""
        ...

    def observed(
        self, z: Parameters, noise: Noise, metric: Metric, step_size: jax.Array
    ) -> Parameters:
        """The position at which to observe the chain."""
        ...

    def stiffness_of(self, step_size: Scalar, curvature: Scalar) -> Scalar:
        """How near a step is to instability, which is at about 2 (Langevin) or 4 (momentum)."""
        ...

    def step_of(self, stiffness: Scalar, curvature: Scalar) -> Scalar:
        """The inverse of `stiffness_of` in the step size."""
        ...

    def substeps_of(self, stiffness: jax.Array) -> jax.Array:
        """Into how many parts to cut a step of a stiffness above 1."""
        ...

    def step_bias(self, step_size: float, square: float, spread: float) -> float:
        """What the finite step may shift λ̂ by, from the mean of ``∇U · ∇(β nL)``."""
        ...

    def noise_share(self, step_size: Scalar, noise: Scalar) -> Scalar:
        """Nats by which uncorrected gradient noise of variance ``tr V`` raises λ̂."""
        ...
