"""What the warm-up of the stochastic-gradient kernels measures, and the step size it leads to."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from numpyro_llc.kernels._rule import Metric, Rule, Scalar
from numpyro_llc.local import inner, square_norm
from numpyro_llc.models import Parameters, PyTree

QUADRATIC_SPREAD = 0.05
"""Relative change, squared, of the curvature up to which a model counts as quadratic."""
LEAST_STIFFNESS = 0.02
"""However noisy the gradient, a step is not made shorter than this."""
MAX_STIFFNESS = 4.0
"""Gradients are clipped where a step along them would have a larger stiffness: the limit at which
the scheme with a momentum is unstable, and twice that of Langevin steps."""
METRIC_DAMPING = 0.05
"""What a metric adds to the squared gradient of each coordinate, relative to their mean."""
METRIC_DELAY = 64
"""Steps that the metric counts as already seen when its mean begins, so that it starts gently."""
REMAINING_NOISE = 0.05
"""Share that the correction may leave of what gradient noise adds to λ̂, of the part beyond what the
step was shortened for: found 0.02 to 0.06 on a regression, by batches of 2, 5 and 20 of 500 rows
with and without control variates, against the exact value."""
SQUARE_WEIGHT = 0.1
"""Weight of a step in the running means of ``|∇U|²``: they look back on about ten steps."""
SQUARE_FLOOR = 0.3
"""The mean by which steps are cut is at least this share of the newest ``|∇U|²``."""
MOST_JUMP = 30.0
"""A squared gradient enters the metric's mean cut at this multiple of it."""


class Tuning(NamedTuple):
    """What the warm-up learns; shared by the chains, but for two means of the squared gradient.

    Curvature, gradients and noise are in the kernel's metric, that is, of ``G^½ ∇U``.

    Attributes
    ----------
    step_size : scalar
        ε, in the kernel's own convention.
    curvature, curvature_change : scalar
        Running means of the largest eigenvalue of ``∇²U`` along the chains, and of
        ``|(∇²U(z) - ∇²U(z*)) v|²``, v its eigenvector.
    typical_square : scalar
        Running mean of ``|∇U|²`` at the same points.
    square_gradient : array [chain]
        Running mean of ``|∇U|²`` over the last few steps.
    steepness : array [chain]
        The same, but at least a share of the newest, so that steep places count at once.
    noise, raw_noise : scalar
        Running means of ``tr V``, V the covariance of a batch gradient, with and without control
        variates.
    square_by_coordinate : dict, or None
        Running mean of the squared gradient by coordinate, of a kernel that has a metric, which
        is its inverse.
    calibrations : scalar
    gradients : scalar
        Batch gradients evaluated so far by each chain, calibration included.
    """

    step_size: jax.Array
    curvature: jax.Array
    curvature_change: jax.Array
    typical_square: jax.Array
    square_gradient: jax.Array
    steepness: jax.Array
    noise: jax.Array
    raw_noise: jax.Array
    square_by_coordinate: Metric
    calibrations: jax.Array
    gradients: jax.Array

    @property
    def metric(self) -> Metric:
        """The diagonal preconditioner G by coordinate; None if there is none.

        ``1 / (E[(∂U)²] + damping)``: without the damping, a coordinate that was flat where the
        chains have been would take steps far too long where it is not.
        """
        squares = self.square_by_coordinate
        if squares is None:
            return None
        leaves = jax.tree.leaves(squares)
        total = sum((jnp.sum(leaf) for leaf in leaves), jnp.zeros(()))
        damping = above_zero(METRIC_DAMPING * total / sum(leaf.size for leaf in leaves))
        return jax.tree.map(lambda m: 1.0 / (m + damping), squares)

    @property
    def spread(self) -> jax.Array:
        """Relative change of the curvature along the chains, squared; 0 on a quadratic.

        Of the Hessian, not of its eigenvalues alone: where chains wander along flat directions, as
        those of a linear network's symmetries, it turns, and long steps are off as much.
        """
        return self.curvature_change / above_zero(jnp.square(self.curvature))

    def scaled(self, tree: Parameters) -> Parameters:
        """``G^½`` times a stacked vector."""
        metric = self.metric
        return tree if metric is None else jax.tree.map(lambda a, g: a * jnp.sqrt(g), tree, metric)

    def curvature_where(self, square: jax.Array) -> jax.Array:
        """A guess of the largest curvature where ``|∇U|²`` is `square`: they go together."""
        return self.curvature * square / above_zero(self.typical_square)


def start_tuning(rule: Rule, step_size: float | None, z: Parameters, chains: int) -> Tuning:
    """Nothing learned yet."""
    zero = jnp.zeros((), jnp.result_type(float))
    ones = jax.tree.map(lambda leaf: jnp.ones_like(leaf[0]), z)
    return Tuning(
        step_size=zero if step_size is None else zero + step_size,
        curvature=zero,
        curvature_change=zero,
        typical_square=zero,
        square_gradient=jnp.zeros(chains, zero.dtype),
        steepness=jnp.zeros(chains, zero.dtype),
        noise=zero,
        raw_noise=zero,
        square_by_coordinate=ones if rule.has_metric else None,
        calibrations=jnp.zeros((), jnp.int32),
        gradients=jnp.zeros((), jnp.int32),
    )


def wanted_step(rule: Rule, tuning: Tuning, noise: jax.Array) -> jax.Array:
    """The step size that curvature allows, and `noise`, ``tr V`` of the gradient that is used."""
    share = noise_ratio(tuning.typical_square, noise)
    # The schemes are exact on quadratics, so the less the Hessian changes, the longer a step.
    by_spread = jnp.clip(
        rule.quadratic_stiffness * QUADRATIC_SPREAD / above_zero(tuning.spread),
        rule.stiffness,
        rule.quadratic_stiffness,
    )
    by_noise = rule.noise_limit / above_zero(share)
    stiffness = jnp.maximum(jnp.minimum(by_spread, by_noise), LEAST_STIFFNESS)
    return jnp.asarray(rule.step_of(stiffness, above_zero(tuning.curvature)))


def noise_ratio(square: Scalar, noise: Scalar) -> jax.Array:
    """Variance of a batch gradient, ``tr V``, in parts of the square of its mean."""
    return noise / above_zero(square - noise)


def remaining_noise(rule: Rule, found: "TuningSummary", noise: float) -> float:
    """What corrected gradient noise may still add to λ̂, in nats.

    The correction is of first order in it. A step is shortened until that suffices, but not below
    ``LEAST_STIFFNESS``.
    """
    stiffness = rule.stiffness_of(found.step_size, found.curvature)
    met = float(noise_ratio(found.typical_square, noise) * stiffness)
    beyond = max(0.0, 1.0 - rule.noise_limit / met) if met > 0 else 0.0
    return REMAINING_NOISE * beyond * float(rule.noise_share(found.step_size, noise))


def isotropic(tuning: Tuning, scale: jax.Array) -> Tuning:
    """The tuning in a metric that is `scale` times shorter in all directions."""
    return tuning._replace(
        square_by_coordinate=jax.tree.map(lambda m: m * scale, tuning.square_by_coordinate),
        curvature=tuning.curvature / scale,
        curvature_change=tuning.curvature_change / scale**2,
        typical_square=tuning.typical_square / scale,
        noise=tuning.noise / scale,
        raw_noise=tuning.raw_noise / scale,
    )


@jax.jit
def ended(
    warming: jax.Array, step_size: jax.Array, scale: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
    """No warm-up any more, and the step size of sampling."""
    return jnp.zeros_like(warming), scale * step_size


class TuningSummary(NamedTuple):
    """Means over the blocks of chains, scalars; `trace` is of the metric by site, if there is one.

    `lowers_noise` says whether control variates do, in all blocks.
    """

    step_size: float
    curvature: float
    spread: float
    typical_square: float
    noise: float
    raw_noise: float
    gradients: float
    lowers_noise: bool
    trace: dict[str, float] | None


def summarized(tuning: Tuning) -> TuningSummary:
    """What a tuning with a leading axis of blocks comes to, by one compiled function."""
    return TuningSummary(*jax.tree.map(lambda leaf: leaf.item(), _summary(tuning)))


@jax.jit
def _summary(tuning: Tuning) -> tuple[PyTree, ...]:
    metric = tuning.metric
    if metric is not None:
        metric = {
            name: sum(jnp.sum(leaf) / leaf.shape[0] for leaf in jax.tree.leaves(tree))
            for name, tree in metric.items()
        }
    means = (
        jnp.mean(value)
        for value in (
            tuning.step_size,
            tuning.curvature,
            tuning.spread,
            tuning.typical_square,
            tuning.noise,
            tuning.raw_noise,
            tuning.gradients,
        )
    )
    return *means, jnp.all(tuning.noise < tuning.raw_noise), metric


def above_zero(x: Scalar) -> jax.Array:
    """`x`, or the least positive number."""
    return jnp.maximum(x, jnp.finfo(jnp.result_type(float)).tiny)


def by_chain(value: jax.Array, like: jax.Array) -> jax.Array:
    """A number for each chain, in a shape to go with `like`."""
    return value.reshape(-1, *[1] * (like.ndim - 1))


def clipped(rule: Rule, tuning: Tuning, step_size: jax.Array, gradient: Parameters) -> Parameters:
    """The gradient, clipped where a step along it would be unstable."""
    curvature = tuning.curvature_where(square_norm(tuning.scaled(gradient)))
    excess = rule.stiffness_of(step_size, curvature) / MAX_STIFFNESS
    factor = jax.lax.rsqrt(jnp.maximum(excess, 1.0))
    return jax.tree.map(lambda g: g * by_chain(factor, g), gradient)


def contracting(share: jax.Array, pushed: Parameters, v: Parameters) -> Parameters:
    """``share V v``, shortened where ``v - share V v`` would overshoot: far out, V is huge."""
    square, along = inner(pushed, pushed), inner(pushed, v)
    largest = share * square / above_zero(along)  # of V's eigenvalues, were it of rank 1
    factor = share / jnp.maximum(largest, 1.0)
    return jax.tree.map(lambda leaf: factor * leaf, pushed)


def learned(
    tuning: Tuning, gradient: Parameters, i: jax.Array, since: jax.Array, warming: jax.Array
) -> Tuning:
    """Running means of the squared gradient, from step `i`; `since` the metric began."""
    squares, new = tuning.square_by_coordinate, square_norm(tuning.scaled(gradient))
    # The first steps count alike, so that a mean of few is none of zeros.
    share = jnp.maximum(SQUARE_WEIGHT, 1.0 / (i + 1.0))
    steep = (1.0 - SQUARE_WEIGHT) * tuning.steepness + SQUARE_WEIGHT * new
    if squares is not None:
        weight = jnp.where(since > 0, 2.0 / (since + METRIC_DELAY), 0.0) * warming
        squares = jax.tree.map(partial(toward, weight), squares, gradient)
    return tuning._replace(
        square_gradient=tuning.square_gradient + share * (new - tuning.square_gradient),
        steepness=jnp.maximum(steep, SQUARE_FLOOR * new),
        square_by_coordinate=squares,
        gradients=tuning.gradients + 1,
    )


def toward(weight: jax.Array, mean: jax.Array, gradient: jax.Array) -> jax.Array:
    """A running mean of squares over steps and chains, of which one counts up to ``MOST_JUMP``."""
    new = jnp.mean(jnp.square(gradient), axis=0)
    return mean + weight * (jnp.minimum(new, MOST_JUMP * (mean + jnp.mean(mean))) - mean)
