"""What the warm-up of the stochastic-gradient kernels measures, and the step size it leads to."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from numpyro_llc.kernels._noise import chain_map, fold, standard_noise
from numpyro_llc.kernels._rule import Metric, Rule, Scalar
from numpyro_llc.local import (
    Anchor,
    LocalTarget,
    curvature_product,
    draw_batch,
    draw_rows,
    inner,
    noise_sample,
    potential_gradient,
    square_norm,
)
from numpyro_llc.models import Parameters

QUADRATIC_SPREAD = 0.05
"""Relative change, squared, of the curvature up to which a model counts as quadratic."""
LEAST_STIFFNESS = 0.02
"""However noisy the gradient, a step is not made shorter than this."""
METRIC_DAMPING = 0.05
"""What a metric adds to the squared gradient of each coordinate, relative to their mean."""
POWER_ITERATIONS = 4
"""Hessian-vector products by which the largest curvature is found at one point."""
MEMORY = 32
"""Number of calibrations that the running means of curvature and noise look back on."""
FORGETTING = 3.0
"""A running mean looks back on a third of the calibrations so far: the start is soon forgotten."""
MOST_JUMP = 30.0
"""A squared gradient enters the metric's mean cut at this multiple of it."""
NATS_PER_PARAMETER, NATS_FREE = 2.0, 10.0
"""Points to calibrate at have a potential below this; the density's own mean is ½ a parameter."""
STEP_BACK = 0.7
"""By which a point whose potential is higher moves towards the chain."""


class Tuning(NamedTuple):
    """What the warm-up learns; shared by the chains, but for `square_gradient`.

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
        ``|∇U|²`` over the last few steps.
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
        noise=zero,
        raw_noise=zero,
        square_by_coordinate=ones if rule.has_metric else None,
        calibrations=jnp.zeros((), jnp.int32),
        gradients=jnp.zeros((), jnp.int32),
    )


def wanted_step(rule: Rule, tuning: Tuning) -> jax.Array:
    """The step size that curvature and noise allow."""
    noise = jnp.minimum(tuning.noise, tuning.raw_noise)
    share = noise / above_zero(tuning.typical_square - noise)
    # The schemes are exact on quadratics, so the less the Hessian changes, the longer a step.
    by_spread = jnp.clip(
        rule.quadratic_stiffness * QUADRATIC_SPREAD / above_zero(tuning.spread),
        rule.stiffness,
        rule.quadratic_stiffness,
    )
    by_noise = rule.noise_limit / above_zero(share)
    stiffness = jnp.maximum(jnp.minimum(by_spread, by_noise), LEAST_STIFFNESS)
    return jnp.asarray(rule.step_of(stiffness, above_zero(tuning.curvature)))


def isotropic(tuning: Tuning) -> Tuning:
    """The metric to begin with: that in which the largest curvature is 1 everywhere."""
    scale = above_zero(tuning.curvature)
    return tuning._replace(
        square_by_coordinate=jax.tree.map(lambda m: m * scale, tuning.square_by_coordinate),
        curvature=tuning.curvature / scale,
        curvature_change=tuning.curvature_change / scale**2,
        typical_square=tuning.typical_square / scale,
        noise=tuning.noise / scale,
        raw_noise=tuning.raw_noise / scale,
    )


class CalibrationPoint(NamedTuple):
    """What a calibration depends on beside the position: density, anchor, keys, step and batch."""

    target: LocalTarget
    anchor: Anchor
    keys: jax.Array
    i: jax.Array
    batch_size: int | None


def calibrated(
    tuning: Tuning, z: Parameters, point: CalibrationPoint, use_anchor: jax.Array
) -> Tuning:
    """Measure curvature and noise at `z`, and take them into the running means."""
    target, size = point.target, point.batch_size
    keys = jax.random.split(
        jax.random.fold_in(point.keys[0], 2 * point.i + 1), POWER_ITERATIONS + 2
    )
    # At once, which compiles one generator of rows.
    batches = jax.vmap(lambda key: draw_rows(key, target, size))(keys)

    def rows_of(k: int | jax.Array) -> jax.Array | None:
        return None if batches is None else batches[k]

    gradient = potential_gradient(target, z, rows_of(0), point.anchor, use_anchor)
    square = square_norm(tuning.scaled(gradient))

    def product(k: int | jax.Array, at: Parameters, v: Parameters) -> Parameters:
        return tuning.scaled(curvature_product(target, at, tuning.scaled(v), rows_of(k + 1)))

    v = _normalized(standard_noise(fold(point.keys, point.i, 0), z))
    last = POWER_ITERATIONS - 1
    v = jax.lax.fori_loop(0, last, lambda k, v: _normalized(product(k, z, v)), v)
    change_of = partial(_curvature_change, tuning, target, rows_of(last + 1))
    largest, change = chain_map(change_of, (z, v))
    noise, raw = _noise(tuning, z, point, keys[-1])
    weight = 1.0 / jnp.clip(tuning.calibrations / FORGETTING, 1.0, MEMORY)

    def mean(old: jax.Array, new: jax.Array) -> jax.Array:
        new = jnp.mean(new)
        return jnp.where(jnp.isfinite(new), old + weight * (new - old), old)

    return tuning._replace(
        curvature=mean(tuning.curvature, largest),
        curvature_change=mean(tuning.curvature_change, change),
        typical_square=mean(tuning.typical_square, square),
        noise=mean(tuning.noise, noise),
        raw_noise=mean(tuning.raw_noise, raw),
        calibrations=tuning.calibrations + 1,
        gradients=tuning.gradients + 2 * POWER_ITERATIONS + 5,
    )


def _curvature_change(
    tuning: Tuning,
    target: LocalTarget,
    rows: jax.Array | None,
    chain: tuple[Parameters, Parameters],
) -> tuple[jax.Array, jax.Array]:
    """``|∇²U(z) v|`` of one chain, and ``|(∇²U(z) - ∇²U(z*)) v|²``."""
    z, v = (jax.tree.map(lambda leaf: leaf[None], part) for part in chain)
    v = tuning.scaled(v)
    here = curvature_product(target, z, v, rows)
    there = curvature_product(target, jax.tree.map(lambda x: x[None], target.center), v, rows)
    change = tuning.scaled(jax.tree.map(jnp.subtract, here, there))
    return jnp.sqrt(square_norm(tuning.scaled(here)))[0], square_norm(change)[0]


def _noise(
    tuning: Tuning, z: Parameters, point: CalibrationPoint, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """``tr V`` of a batch with and without control variates, ``[chain]``."""
    if point.batch_size is None:
        return jnp.zeros(()), jnp.zeros(())
    shards = point.target.num_shards
    size = 2 * shards * max(1, point.batch_size // (2 * shards))
    rows = draw_batch(key, point.target, size)
    share = size / point.batch_size

    def variance(use_anchor: jax.Array) -> jax.Array:
        sample = noise_sample(point.target, z, rows, point.anchor, use_anchor)
        return share * square_norm(tuning.scaled(sample))

    # One after the other, to have fewer gradients in memory at once.
    noise, raw = jax.lax.map(variance, jnp.array([True, False]))
    return noise, raw


def displaced(z: Parameters, point: CalibrationPoint) -> Parameters:
    """Points around the start as far as the localizing Gaussian and the loss allow."""
    target, keys = point.target, fold(point.keys, 0, 1)
    rows = draw_rows(jax.random.fold_in(keys[0], 5), target, point.batch_size)
    noise = standard_noise(keys, z)
    for name, gamma in target.localization.items():
        wide = jnp.maximum(gamma, 1.0) ** -0.5
        noise[name] = jax.tree.map(lambda leaf, s=wide: s * leaf, noise[name])
    size = sum(leaf[0].size for leaf in jax.tree.leaves(z))

    def at(scale: jax.Array) -> Parameters:
        return jax.tree.map(lambda a, x: a + scale * x, z, noise)

    def too_high(scale: jax.Array) -> jax.Array:
        def potential(one: Parameters) -> jax.Array:
            rise = target.tempered_loss(one, rows) - target.tempered_loss(target.center, rows)
            return rise + target.penalty(one)

        highest = NATS_PER_PARAMETER * size + NATS_FREE
        return ~(jnp.mean(jax.vmap(potential)(at(scale))) <= highest) & (scale > 1e-9)

    return at(jax.lax.while_loop(too_high, lambda scale: STEP_BACK * scale, jnp.ones(())))


def above_zero(x: Scalar) -> jax.Array:
    """`x`, or the least positive number."""
    return jnp.maximum(x, jnp.finfo(jnp.result_type(float)).tiny)


def _normalized(v: Parameters) -> Parameters:
    norm = above_zero(jnp.sqrt(square_norm(v)))
    return jax.tree.map(lambda leaf: leaf / by_chain(norm, leaf), v)


def by_chain(value: jax.Array, like: jax.Array) -> jax.Array:
    """A number for each chain, in a shape to go with `like`."""
    return value.reshape(-1, *[1] * (like.ndim - 1))


def contracting(share: jax.Array, pushed: Parameters, v: Parameters) -> Parameters:
    """``share V v``, shortened where ``v - share V v`` would overshoot: far out, V is huge."""
    square, along = inner(pushed, pushed), inner(pushed, v)
    largest = share * square / above_zero(along)  # of V's eigenvalues, were it of rank 1
    factor = share / jnp.maximum(largest, 1.0)
    return jax.tree.map(lambda leaf: factor * leaf, pushed)


def toward(weight: jax.Array, mean: jax.Array, gradient: jax.Array) -> jax.Array:
    """A running mean of squares over steps and chains, of which one counts up to ``MOST_JUMP``."""
    new = jnp.mean(jnp.square(gradient), axis=0)
    return mean + weight * (jnp.minimum(new, MOST_JUMP * (mean + jnp.mean(mean))) - mean)
