"""What the warm-up of the stochastic-gradient kernels measures, and the step size it leads to."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from numpyro_llc.kernels._rule import Metric, Rule, Scalar
from numpyro_llc.models import Parameters, PyTree

QUADRATIC_SPREAD = 0.05
"""Relative change, squared, of the curvature up to which a model counts as quadratic."""
LEAST_STIFFNESS = 0.02
"""However noisy the gradient, a step is not made shorter than this, if noise can be taken off."""
MAX_STIFFNESS = 4.0
"""Gradients are clipped where a step along them would have a larger stiffness: the limit at which
the scheme with a momentum is unstable, and twice that of Langevin steps."""
METRIC_DAMPING = 0.05
"""What a metric adds to the squared gradient of each coordinate, relative to their mean."""
METRIC_DELAY = 64
"""Steps that the metric counts as already seen when its mean begins, so that it starts gently."""
MOST_NOISE_LEFT = 0.02
"""Share of λ̂ that noise which cannot be taken off may add: steps are shortened until it is less."""
SQUARE_WEIGHT = 0.1
"""Weight of a step in the running means of ``|∇U|²``: they look back on about ten steps."""
SQUARE_FLOOR = 0.3
"""The mean by which steps are cut is at least this share of the newest ``|∇U|²``."""
LEAST_STEPS_CUT, SHARE_CUT = 8, 1 / 16
"""Steps in a row that are cut, and the share of all steps so far, beyond which ε is halved."""
FORGETTING = 3.0
"""A running mean looks back on a third of what was seen so far: the start is soon forgotten."""
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
    left_share : scalar
        Running mean, over the last third of the steps, of what could not be taken off of it, in
        parts of `square_gradient`: far out both are huge.
    square_by_coordinate : dict, or None
        Running mean of the squared gradient by coordinate, of a kernel that has a metric, which
        is its inverse.
    calibrations : scalar
    gradients : scalar
        Batch gradients evaluated so far by each chain, calibration included.
    steps_cut : scalar
        How many of the last steps in a row were cut into substeps.
    """

    step_size: jax.Array
    curvature: jax.Array
    curvature_change: jax.Array
    typical_square: jax.Array
    square_gradient: jax.Array
    steepness: jax.Array
    noise: jax.Array
    raw_noise: jax.Array
    left_share: jax.Array
    square_by_coordinate: Metric
    calibrations: jax.Array
    gradients: jax.Array
    steps_cut: jax.Array

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

    @property
    def least(self) -> jax.Array:
        """What the stiffest directions alone hold of λ̂: ``½ |∇U|²`` over the curvature."""
        return 0.5 * self.typical_square / above_zero(self.curvature)

    @property
    def noise_left(self) -> jax.Array:
        """What could not be taken off of ``tr V`` where the chains usually are."""
        return self.left_share * self.typical_square

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
        left_share=zero,
        square_by_coordinate=ones if rule.has_metric else None,
        calibrations=jnp.zeros((), jnp.int32),
        gradients=jnp.zeros((), jnp.int32),
        steps_cut=jnp.zeros((), jnp.int32),
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
    curvature = above_zero(tuning.curvature)
    added = rule.noise_share(rule.step_of(1.0, curvature), tuning.noise_left)
    by_left = jnp.where(added > 0, MOST_NOISE_LEFT * tuning.least / above_zero(added), jnp.inf)
    return jnp.asarray(rule.step_of(jnp.minimum(stiffness, by_left), curvature))


def shortened(tuning: Tuning, count: jax.Array, i: jax.Array) -> Tuning:
    """The tuning after step `i` was cut into `count` substeps; ε is halved where all have been cut.

    That is so where the warm-up ended before the chains had arrived. In a long run it takes a long
    stretch, which becomes ever less likely, so that ε settles.
    """
    cut = jnp.where(count > 1, tuning.steps_cut + 1, 0)
    lasting = cut > jnp.maximum(LEAST_STEPS_CUT, SHARE_CUT * i)
    halved = jnp.where(lasting, 0.5, 1.0) * tuning.step_size
    return tuning._replace(steps_cut=cut, step_size=halved)


def noise_ratio(square: Scalar, noise: Scalar) -> jax.Array:
    """Variance of a batch gradient, ``tr V``, in parts of the square of its mean."""
    return noise / above_zero(square - noise)


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
    noise_left: float
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
            tuning.noise_left,
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


def clipped(
    rule: Rule, tuning: Tuning, step_size: jax.Array, gradient: Parameters, square: jax.Array
) -> tuple[Parameters, jax.Array]:
    """The gradient, clipped where a step along it would be unstable, and its `square`."""
    stiffness = rule.stiffness_of(step_size, tuning.curvature_where(square))
    excess = jnp.maximum(stiffness / MAX_STIFFNESS, 1.0)
    return jax.tree.map(lambda g: g * by_chain(excess**-0.5, g), gradient), square / excess


def learned(
    tuning: Tuning,
    gradient: Parameters,
    square: jax.Array,
    left_share: jax.Array,
    i: jax.Array,
    since: jax.Array,
    warming: jax.Array,
) -> Tuning:
    """Running means of the gradient's `square` and `left_share`; `since` the metric began."""
    squares = tuning.square_by_coordinate
    # The first steps count alike, so that a mean of few is none of zeros.
    share = jnp.maximum(SQUARE_WEIGHT, 1.0 / (i + 1.0))
    steep = (1.0 - SQUARE_WEIGHT) * tuning.steepness + SQUARE_WEIGHT * square
    if squares is not None:
        weight = jnp.where(since > 0, 2.0 / (since + METRIC_DELAY), 0.0) * warming
        squares = jax.tree.map(partial(toward, weight), squares, gradient)
    return tuning._replace(
        square_gradient=tuning.square_gradient + share * (square - tuning.square_gradient),
        steepness=jnp.maximum(steep, SQUARE_FLOOR * square),
        left_share=tuning.left_share
        + FORGETTING / (i + FORGETTING) * (jnp.mean(left_share) - tuning.left_share),
        square_by_coordinate=squares,
        gradients=tuning.gradients + 1,
    )


def toward(weight: jax.Array, mean: jax.Array, gradient: jax.Array) -> jax.Array:
    """A running mean of squares over steps and chains, of which one counts up to ``MOST_JUMP``."""
    new = jnp.mean(jnp.square(gradient), axis=0)
    return mean + weight * (jnp.minimum(new, MOST_JUMP * (mean + jnp.mean(mean))) - mean)
