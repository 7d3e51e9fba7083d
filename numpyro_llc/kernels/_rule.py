"""What tells one stochastic-gradient kernel from another."""

from typing import Any, NamedTuple, Protocol

import jax

from numpyro_llc.models import Parameters


class Step(NamedTuple):
    """What a rule is given for one step.

    ``gradient(z)`` is ``∇U(z)`` of each chain from one batch. ``noise_product(z, v, share)``
    estimates ``share G^½ V G^½ v``, no longer than makes ``v`` minus it shortest, or is zero where
    the noise is too small to matter. `metric` is the diagonal G of a preconditioner, or None.
    `localization` is the mean γ of the sites. `step_size` is ε of this substep, `whole_step` that
    of the whole step.
    """

    gradient: Any
    noise_product: Any
    noise: Any
    metric: Any
    localization: jax.Array
    step_size: jax.Array
    whole_step: jax.Array


class Rule(Protocol):
    """One stochastic-gradient kernel: hashable, no arrays.

    Attributes
    ----------
    stiffness : float
        The value of `stiffness_of` that an automatic step size aims at.
    quadratic_stiffness : float
        The same where the Hessian hardly changes between the centre and the chains.
    noise_limit : float
        The share of the gradient noise in ``|∇U|²``, times the stiffness, that it keeps below.
    has_metric : bool
        Whether a diagonal preconditioner is learned in the warm-up.
    """

    stiffness: float
    quadratic_stiffness: float
    noise_limit: float
    has_metric: bool

    def start(self, z: Parameters, noise: Any) -> Any:
        """The kernel's own variables at its start."""
        ...

    def advance(self, z: Parameters, inner: Any, step: Step) -> tuple[Parameters, Any, Any]:
        """One step: new `z`, new variables, and the gradient that was used."""
        ...

    def observed(self, z: Parameters, noise: Any, metric: Any, step_size: jax.Array) -> Parameters:
        """The position at which to observe the chain."""
        ...

    def stiffness_of(self, step_size: Any, curvature: Any) -> Any:
        """How near a step is to instability, which is at about 2 (Langevin) or 4 (momentum)."""
        ...

    def step_of(self, stiffness: Any, curvature: Any) -> Any:
        """The inverse of `stiffness_of` in the step size."""
        ...

    def substeps_of(self, stiffness: Any) -> Any:
        """Into how many parts to cut a step of a stiffness above 1."""
        ...

    def step_bias(self, step_size: float, square: float, spread: float) -> float:
        """What the finite step may shift λ̂ by, from the mean of ``∇U · ∇(β nL)``."""
        ...

    def noise_share(self, step_size: Any, noise: Any) -> Any:
        """Nats by which uncorrected gradient noise of variance ``tr V`` raises λ̂."""
        ...
