"""Stochastic-gradient Nosé-Hoover thermostat: underdamped Langevin dynamics on minibatches."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from numpyro_llc.kernels._rule import Step
from numpyro_llc.kernels._tuning import by_chain
from numpyro_llc.local import square_norm
from numpyro_llc.models import Parameters


@dataclass(frozen=True)
class ThermostatRule:
    r"""``dz = p dt, dp = -∇U dt - ξ p dt + √(2a) dW, dξ = (|p|²/d - 1) dt``.

    Ding, Fang, Babbush, Chen, Skeel & Neven (2014), in the symmetric splitting of Leimkuhler &
    Shang (2016), which is of second order. Beside the scalar ξ, which holds the mean kinetic energy
    at d/2, each kick carries the friction ``ε²/2 V p`` that balances the gradient noise in each
    direction (SGHMC, Chen, Fox & Guestrin 2014, with V from the batch).

    Attributes
    ----------
    friction : float or None
        a; None takes ``2 √γ + 0.014/ε``, a fiftieth of the largest frequency above what damps the
        slowest.
    """

    friction: float | None = None
    stiffness: float = 0.08
    quadratic_stiffness: float = 0.4
    noise_limit: float = 0.02
    has_metric: bool = False

    def start(self, z: Parameters, noise: Any) -> Any:
        chains = jax.tree.leaves(z)[0].shape[0]
        return noise(z), jnp.zeros(chains)  # of ξ, what it is above the friction

    def advance(self, z: Parameters, inner: Any, step: Step) -> tuple[Parameters, Any, Any]:
        (p, above), h = inner, step.step_size
        friction = self._friction(step)
        z, above = _move(z, p, 0.5 * h), above + 0.5 * h * _heat(p)
        xi = friction + above
        decay = jnp.exp(-h * xi)
        safe = jnp.where(jnp.abs(xi) < 1e-6, 1.0, xi)
        spread = jnp.where(jnp.abs(xi) < 1e-6, 2.0 * h, -jnp.expm1(-2.0 * h * safe) / safe)
        root = jnp.sqrt(friction * spread)
        p = jax.tree.map(
            lambda a, x: by_chain(decay, a) * a + by_chain(root, a) * x, p, step.noise(p)
        )
        above, z = above + 0.5 * h * _heat(p), _move(z, p, 0.5 * h)
        gradient = step.gradient(z)
        # At the momentum in the middle of the kick: then noise and friction leave the positions of
        # a quadratic as exact as the splitting has them.
        middle = jax.tree.map(lambda a, g: a - 0.5 * h * g, p, gradient)
        damped = step.noise_product(z, middle, 0.5 * h * h)
        p = jax.tree.map(lambda a, g, e: a - h * g - e, p, gradient, damped)
        return z, (p, above), gradient

    def _friction(self, step: Step) -> jax.Array:
        if self.friction is not None:
            return jnp.asarray(self.friction)
        slowest, fastest = (
            2.0 * jnp.sqrt(step.localization),
            0.014 / jnp.maximum(step.whole_step, 1e-30),
        )
        return slowest + fastest

    def observed(self, z: Parameters, noise: Any, metric: Any, step_size: jax.Array) -> Parameters:
        return z

    def stiffness_of(self, step_size: Any, curvature: Any) -> Any:
        return jnp.square(step_size) * curvature

    def step_of(self, stiffness: Any, curvature: Any) -> Any:
        return jnp.sqrt(stiffness / curvature)

    def substeps_of(self, stiffness: Any) -> Any:
        return jnp.sqrt(stiffness)

    def step_bias(self, step_size: float, square: float, spread: float) -> float:
        return 0.4 * min(1.0, spread) * step_size**2 / 8.0 * square

    def noise_share(self, step_size: Any, noise: Any) -> Any:
        return step_size / 4.0 * noise * step_size / 0.014


def _move(z: Parameters, p: Parameters, time: jax.Array) -> Parameters:
    return jax.tree.map(lambda a, b: a + time * b, z, p)


def _heat(p: Parameters) -> jax.Array:
    """``|p|²/d - 1`` of each chain."""
    size = sum(leaf[0].size for leaf in jax.tree.leaves(p))
    return square_norm(p) / size - 1.0
