"""Stochastic-gradient Nosé-Hoover thermostat: underdamped Langevin dynamics on minibatches."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from numpyro_llc.kernels._correction import moved
from numpyro_llc.kernels._noise import unpacked
from numpyro_llc.kernels._rule import Metric, Noise, Scalar, Step, TakingOff
from numpyro_llc.kernels._tuning import by_chain
from numpyro_llc.local import square_norm
from numpyro_llc.models import Parameters

STIFFNESS = 0.08
"""``ε² A`` of a step that is found: at most 0.8 % of λ̂ by ``step_bias``; an automatic run wants
1 %."""
QUADRATIC_STIFFNESS = 0.4
"""The same where the Hessian hardly changes, a tenth of what is stable, 0.2 % of λ̂."""
NOISE_LIMIT = 0.02
"""Stiffness times the noise's share of ``|∇U|²``. ``tests/benchmarks/minibatch.py`` and
``deep_linear_networks.py`` check all three by the λ̂ that comes out."""
REMAINING_BIAS = 0.4
"""Share of ``ε²/8 E|∇U|²`` that the splitting may add at a curvature spread of 1 or more: an upper
limit of the shifts seen on singular models with short and long steps
(``docs/explanation/sgld.md``)."""
FRICTION_OF_STEP = 0.014
"""ε times the friction beside what damps the slowest direction. It is a fiftieth of the highest
frequency, which is √0.4/ε at the longest steps: momenta persist over many oscillations."""
SLOW = 1e-6
"""A friction below this is 0 in the formula of the noise, whose limit it then takes."""
Pair = tuple[Parameters, Parameters]
"""Position and momentum."""
Thermostat = tuple[Parameters, jax.Array]
"""Momenta, and ξ of each chain less the friction."""


@dataclass(frozen=True)
class ThermostatRule:
    r"""``dz = p dt, dp = -∇U dt - ξ p dt + √(2a) dW, dξ = (|p|²/d - 1) dt``.

    Ding, Fang, Babbush, Chen, Skeel & Neven (2014), in the symmetric splitting of Leimkuhler &
    Shang (2016), which is of second order. Beside the scalar ξ, which holds the mean kinetic energy
    at d/2, each kick carries the friction ``ε²/2 V p`` that balances the gradient noise in each
    direction (SGHMC, Chen, Fox & Guestrin 2014, with V from the batch).

    In the warm-up ξ also falls back to a at the rate a. A chain that begins E nats too high heats
    it to about ``√(2E/d)``, from which it otherwise falls by at most 1 in a unit of time, that is
    ``1/ε`` steps: so long the chain would be too cold.

    Attributes
    ----------
    friction : float or None
        a; None takes ``2 √γ``, what damps the slowest direction, and ``FRICTION_OF_STEP / ε``.
    """

    friction: float | None = None
    stiffness: float = STIFFNESS
    quadratic_stiffness: float = QUADRATIC_STIFFNESS
    noise_limit: float = NOISE_LIMIT
    has_metric: bool = False

    @property
    def corrects_noise(self) -> bool:
        return True

    def start(self, z: Parameters, noise: Noise) -> Thermostat:
        chains = jax.tree.leaves(z)[0].shape[0]
        return unpacked(noise(z), z), jnp.zeros(chains)  # of ξ, what it is above the friction

    def advance(
        self, z: Parameters, inner: Thermostat, step: Step
    ) -> tuple[Parameters, Thermostat, Parameters]:
        (p, above), h = inner, step.step_size
        friction = self._friction(step)
        kept = jnp.exp(-0.5 * h * jnp.where(step.warming, friction, 0.0))
        above = kept * above + 0.5 * h * _heat(p)
        xi = friction + above
        decay = jnp.exp(-h * xi)
        safe = jnp.where(jnp.abs(xi) < SLOW, 1.0, xi)
        spread = jnp.where(jnp.abs(xi) < SLOW, 2.0 * h, -jnp.expm1(-2.0 * h * safe) / safe)
        root = jnp.sqrt(friction * spread)

        def pushed(
            taking_off: TakingOff, both: Pair, *thermal: jax.Array
        ) -> tuple[Pair, jax.Array]:
            # Damped at a momentum that does not depend on the batch: in the middle of the kick it
            # would, and `E[V̂ g]` of one batch is more than `V E[g]` and weakens the force.
            z, p = both
            after = _thermal(p, *thermal)
            z = jax.tree.map(lambda a, b, c: a + 0.5 * h * (b + c), z, p, after)
            z, p, left = taking_off(z, after, 0.5 * h * h, 0.5 * h)
            return (z, p), left

        z, p = step.moved(pushed, (z, p), step.noise(p), decay, root)
        gradient, above = step.gradient(z), kept * above + 0.5 * h * _heat(p)
        return z, (moved(p, gradient, -h), above), gradient

    def _friction(self, step: Step) -> jax.Array:
        if self.friction is not None:
            return jnp.asarray(self.friction)
        slowest, fastest = (
            2.0 * jnp.sqrt(step.localization),
            FRICTION_OF_STEP / jnp.maximum(step.whole_step, 1e-30),
        )
        return slowest + fastest

    def observed(
        self, z: Parameters, noise: Noise, metric: Metric, step_size: jax.Array
    ) -> Parameters:
        return z

    def stiffness_of(self, step_size: Scalar, curvature: Scalar) -> Scalar:
        return jnp.square(step_size) * curvature

    def step_of(self, stiffness: Scalar, curvature: Scalar) -> Scalar:
        return jnp.sqrt(stiffness / curvature)

    def substeps_of(self, stiffness: jax.Array) -> jax.Array:
        return jnp.sqrt(stiffness)

    def step_bias(self, step_size: float, square: float, spread: float) -> float:
        return REMAINING_BIAS * min(1.0, spread) * step_size**2 / 8.0 * square

    def noise_share(self, step_size: Scalar, noise: Scalar) -> Scalar:
        return step_size / 4.0 * noise * step_size / FRICTION_OF_STEP


def _thermal(p: Parameters, noise: jax.Array, decay: jax.Array, root: jax.Array) -> Parameters:
    """Momenta after friction and packed noise, `decay` and `root` of each chain."""
    return jax.tree.map(
        lambda a, x: by_chain(decay, a) * a + by_chain(root, a) * x, p, unpacked(noise, p)
    )


def _heat(p: Parameters) -> jax.Array:
    """``|p|²/d - 1`` of each chain."""
    size = sum(leaf[0].size for leaf in jax.tree.leaves(p))
    return square_norm(p) / size - 1.0
