"""Overdamped Langevin dynamics on minibatches: SGLD, preconditioned SGLD, and plain SGD."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from numpyro_llc.kernels._rule import Step
from numpyro_llc.models import Parameters


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
    stiffness: float = 0.09
    quadratic_stiffness: float = 0.5
    noise_limit: float = 0.03

    def start(self, z: Parameters, noise: Any) -> None:
        return None

    def advance(self, z: Parameters, inner: Any, step: Step) -> tuple[Parameters, Any, Any]:
        if self.temperature == 0:
            gradient = step.gradient(z)
            return _drift(z, gradient, step), None, gradient
        root, noise = jnp.sqrt(step.step_size), step.noise(z)
        xi = _scaled(noise, step.metric)
        if not self.is_corrected:
            gradient = step.gradient(z)
            z = jax.tree.map(lambda new, x: new + root * x, _drift(z, gradient, step), xi)
            return z, None, gradient
        seen = jax.tree.map(lambda a, x: a + 0.5 * root * x, z, xi)
        gradient = step.gradient(seen)
        # The noise that the gradient brings along. At `z`: `seen` depends on the noise, and where V
        # varies, E[V(seen) ξ] = √ε/2 div V would pull the chain towards small V.
        brought = step.noise_product(z, noise, step.step_size / 8.0)
        xi = _scaled(jax.tree.map(jnp.subtract, noise, brought), step.metric)
        z = jax.tree.map(lambda new, x: new + root * x, _drift(z, gradient, step), xi)
        return z, None, gradient

    def observed(self, z: Parameters, noise: Any, metric: Any, step_size: jax.Array) -> Parameters:
        if not self.is_corrected or self.temperature == 0:
            return z
        half = 0.5 * jnp.sqrt(step_size)
        return jax.tree.map(lambda a, x: a + half * x, z, _scaled(noise(z), metric))

    def stiffness_of(self, step_size: Any, curvature: Any) -> Any:
        return 0.5 * step_size * curvature

    def step_of(self, stiffness: Any, curvature: Any) -> Any:
        return 2.0 * stiffness / curvature

    def substeps_of(self, stiffness: Any) -> Any:
        return stiffness

    def step_bias(self, step_size: float, square: float, spread: float) -> float:
        if self.temperature == 0:
            return 0.0  # there is no posterior that it could be off from
        # Euler on a quadratic: Σ ε A_j / 8, and |∇U|² has the mean Σ A_j, gradient noise included.
        euler = step_size / 8.0 * square
        return 0.2 * min(1.0, spread) * euler if self.is_corrected else euler

    def noise_share(self, step_size: Any, noise: Any) -> Any:
        return step_size / 8.0 * noise


def _drift(z: Parameters, gradient: Parameters, step: Step) -> Parameters:
    half = 0.5 * step.step_size
    if step.metric is None:
        return jax.tree.map(lambda a, g: a - half * g, z, gradient)
    return jax.tree.map(lambda a, g, m: a - half * m * g, z, gradient, step.metric)


def _scaled(noise: Parameters, metric: Any) -> Parameters:
    return noise if metric is None else jax.tree.map(lambda x, m: x * jnp.sqrt(m), noise, metric)
