"""Overdamped Langevin dynamics on minibatches: SGLD, preconditioned SGLD, and plain SGD."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from numpyro_llc.kernels._noise import unpacked
from numpyro_llc.kernels._rule import Metric, Noise, Scalar, Step, TakingOff
from numpyro_llc.models import Parameters

STIFFNESS = 0.09
"""``½ ε A`` of a step that is found: at most 0.9 % of λ̂ by ``step_bias``, where Euler's steps would
add half the stiffness. Automatic runs want 1 %."""
QUADRATIC_STIFFNESS = 0.5
"""The same where the Hessian hardly changes: a quarter of what is stable, 0.25 % of λ̂."""
NOISE_LIMIT = 0.03
"""Stiffness times the noise's share of ``|∇U|²``. Half of it, 1.5 %, is what such noise would add
to λ̂ if it were not corrected (``noise_share``). ``tests/benchmarks/minibatch.py`` and
``deep_linear_networks.py`` check all three by the λ̂ that comes out."""
REMAINING_BIAS = 0.2
"""Share of Euler's bias that the corrected scheme may leave, at a curvature spread of 1 or more: an
upper limit of the shifts seen on singular models with short and long steps
(``docs/explanation/sgld.md``)."""
Pair = tuple[Parameters, Parameters]
"""The position, and the point at which the gradient is evaluated."""


@dataclass(frozen=True)
class LangevinRule:
    r"""``z ← z - ε/2 G ∇U + √ε G^½ ξ`` with a frozen diagonal G.

    Attributes
    ----------
    is_corrected : bool
        False is SGLD as it was published (Welling & Teh 2011): Euler-Maruyama, whose stationary
        variance on a quadratic of curvature A is ``1 / (A (1 - εA/4))``. True shifts the point at
        which gradient and loss are evaluated by half of the noise to come, ``√ε/2 ξ``: the method
        of Leimkuhler & Matthews (2013) in the form of Vilmart (2015), exact on quadratics for
        every stable ε and of second order otherwise; and takes the gradient noise off the injected
        noise, ``√ε G^½ (I - ε/8 G^½ V G^½) ξ``.
    has_metric : bool
        Whether G is learned in the warm-up; otherwise it is the identity.
    temperature : float
        1, or 0 for gradient descent.
    """

    is_corrected: bool
    has_metric: bool = False
    temperature: float = 1.0
    stiffness: float = STIFFNESS
    quadratic_stiffness: float = QUADRATIC_STIFFNESS
    noise_limit: float = NOISE_LIMIT

    @property
    def corrects_noise(self) -> bool:
        return self.is_corrected

    def start(self, z: Parameters, noise: Noise) -> None:
        return None

    def advance(
        self, z: Parameters, inner: None, step: Step
    ) -> tuple[Parameters, None, Parameters]:
        if self.temperature == 0:
            gradient = step.gradient(z)
            return _drift(z, gradient, step), None, gradient
        root, noise = jnp.sqrt(step.step_size), step.noise(z)
        if not self.is_corrected:
            gradient = step.gradient(z)
            xi = unpacked(noise, z)
            return _pushed(_drift(z, gradient, step), root, xi, step.metric), None, gradient

        def pushed(taking_off: TakingOff, both: Pair, noise: jax.Array) -> tuple[Pair, jax.Array]:
            # Less the noise that the gradient brings along. At `z`: `seen` depends on the noise,
            # and where V varies, E[V(seen) ξ] = √ε/2 div V would pull the chain towards small V.
            z, _ = both
            xi = unpacked(noise, z)
            _, less, left = taking_off(z, xi, step.step_size / 8.0, None)
            moved = _pushed(z, root, less, step.metric)
            return (moved, _pushed(z, 0.5 * root, xi, step.metric)), left

        # Both at once, so that no third copy is held.
        nothing = jax.tree.map(jnp.zeros_like, z)
        z, seen = step.moved(pushed, (z, nothing), noise)
        gradient = step.gradient(seen)
        return _drift(z, gradient, step), None, gradient

    def observed(
        self, z: Parameters, noise: Noise, metric: Metric, step_size: jax.Array
    ) -> Parameters:
        if not self.is_corrected or self.temperature == 0:
            return z
        return _pushed(z, 0.5 * jnp.sqrt(step_size), unpacked(noise(z), z), metric)

    def stiffness_of(self, step_size: Scalar, curvature: Scalar) -> Scalar:
        return 0.5 * step_size * curvature

    def step_of(self, stiffness: Scalar, curvature: Scalar) -> Scalar:
        return 2.0 * stiffness / curvature

    def substeps_of(self, stiffness: jax.Array) -> jax.Array:
        return stiffness

    def step_bias(self, step_size: float, square: float, spread: float) -> float:
        if self.temperature == 0:
            return 0.0  # there is no posterior that it could be off from
        # Euler on a quadratic: Σ ε A_j / 8, and |∇U|² has the mean Σ A_j, gradient noise included.
        euler = step_size / 8.0 * square
        return REMAINING_BIAS * min(1.0, spread) * euler if self.is_corrected else euler

    def noise_share(self, step_size: Scalar, noise: Scalar) -> Scalar:
        return self.temperature * step_size / 8.0 * noise  # without a posterior it is no bias


def _drift(z: Parameters, gradient: Parameters, step: Step) -> Parameters:
    half = 0.5 * step.step_size
    if step.metric is None:
        return jax.tree.map(lambda a, g: a - half * g, z, gradient)
    return jax.tree.map(lambda a, g, m: a - half * m * g, z, gradient, step.metric)


def _pushed(z: Parameters, size: Scalar, xi: Parameters, metric: Metric) -> Parameters:
    """``z + size G^½ ξ``."""
    return jax.tree.map(lambda a, x: a + size * x, z, _scaled(xi, metric))


def _scaled(noise: Parameters, metric: Metric) -> Parameters:
    return noise if metric is None else jax.tree.map(lambda x, m: x * jnp.sqrt(m), noise, metric)
