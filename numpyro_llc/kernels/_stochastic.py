"""What the stochastic-gradient kernels share: minibatches, warm-up, step size, noise.

A kernel is a :class:`Rule`, one file each; :class:`StochasticSampler` runs it. Chains are stacked,
and each step's batch serves all of them.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from numpyro_llc.gradients import (
    Anchor,
    curvature_product,
    draw_rows,
    make_anchor,
    noise_product,
    noise_sample,
    potential_gradient,
    square_norm,
)
from numpyro_llc.models import Parameters
from numpyro_llc.target import LocalTarget

MAX_SUBSTEPS = 64
"""At most so many substeps of one step; a region stiffer still is left to the gradient's own pull."""
TAMED = 4.0
"""A gradient that makes a step of a stiffness above this is shortened."""
QUADRATIC_SPREAD = 0.05
"""Relative variance of the curvature along the chains up to which a model passes for quadratic."""
POWER_ITERATIONS = 4
MEMORY = 32
"""Number of calibrations that the running means of curvature and noise look back on."""
GROWTH = 1.05
"""By how much the step size may grow from one step of the warm-up to the next."""
EXACT_NORMAL_LIMIT = 65536
"""Up to this many coordinates a draw of noise is Gaussian; above, a sum of 32 fair coins."""


class Tuning(NamedTuple):
    """What the warm-up learns; shared by the chains, but for `square_gradient`.

    Attributes
    ----------
    step_size : scalar
        ε, in the kernel's own convention.
    curvature : scalar
        Running mean of the largest eigenvalue of ``∇²U`` (in the kernel's metric) along the chains.
    curvature_square : scalar
        Running mean of its square.
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
    curvature_square: jax.Array
    typical_square: jax.Array
    square_gradient: jax.Array
    noise: jax.Array
    raw_noise: jax.Array
    square_by_coordinate: Any
    calibrations: jax.Array
    gradients: jax.Array


class StochasticState(NamedTuple):
    """State of all chains.

    Attributes
    ----------
    z : dict
        Unconstrained parameters, leaves ``[chain, ...]``.
    inner : pytree
        The kernel's own variables, such as a momentum.
    rng_key : array of keys [chain]
        Never changed: the keys of a step are folded in from `i`.
    i : scalar
        Steps so far.
    warming : scalar
        Whether the warm-up is on, that is, whether the step size and the metric move.
    anchor : Anchor
    tuning : Tuning
    """

    z: Parameters
    inner: Any
    rng_key: jax.Array
    i: jax.Array
    warming: jax.Array
    anchor: Anchor
    tuning: Tuning


class Step(NamedTuple):
    """What a rule is given for one step.

    ``gradient(z)`` is ``∇U(z)`` of each chain from one batch; ``noise_product(z, v)`` estimates
    ``V v``, or is zero where the noise is too small to matter. `metric` is the diagonal of a
    preconditioner, or None. `localization` is the mean γ of the sites. `step_size` is ε of this
    substep, `whole_step` that of the whole step.
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
        The same where the curvature hardly varies along the chains.
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

    def noise_share(self, step_size: Any, noise: Any) -> Any:
        """Nats by which uncorrected gradient noise of variance ``tr V`` raises λ̂."""
        ...


def standard_noise(keys: jax.Array, like: Parameters) -> Parameters:
    """Independent noise of mean 0 and variance 1 for each coordinate of each chain.

    A Gaussian costs several times the random bits that it is made of, so for large models it is
    the centred number of ones among 32 bits: moments as the Gaussian's up to the third, a fourth of
    2.94 instead of 3. The order of the discretization stays (Milstein & Tretyakov 2004, ch. 2).
    """
    paths, treedef = jax.tree.flatten(like)
    size = sum(leaf[0].size for leaf in paths)

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        if size <= EXACT_NORMAL_LIMIT:
            return jax.random.normal(key, shape, dtype)
        ones = jax.lax.population_count(jax.random.bits(key, shape, jnp.uint32))
        return (ones.astype(dtype) - 16.0) * (8.0**-0.5)

    drawn = [
        jax.vmap(lambda key, k=k, leaf=leaf: draw(jax.random.fold_in(key, k), leaf.shape[1:], leaf.dtype))(keys)
        for k, leaf in enumerate(paths)
    ]
    return jax.tree.unflatten(treedef, drawn)


@dataclass(frozen=True)
class StochasticSampler:
    """Runs a rule on minibatches.

    Attributes
    ----------
    rule : Rule
    batch_size : int or None
        Rows of a batch; None for the full data.
    step_size : float or None
        ε, fixed; or None: chosen from the curvature along the warm-up, cut into substeps where the
        chains meet a stiffer region, with the gradient noise corrected for.
    control_variates : bool or None
        None: where they lower the noise.
    """

    rule: Any
    batch_size: int | None
    step_size: float | None = None
    control_variates: bool | None = None

    is_ensemble = True

    @property
    def is_adaptive(self) -> bool:
        return self.step_size is None

    # --- the interface of the loop -------------------------------------------------------------

    def init(self, rng_key: jax.Array, z: Parameters, target: LocalTarget) -> StochasticState:
        keys, dtype = rng_key, jnp.result_type(float)
        zero, chains = jnp.zeros((), dtype), keys.shape[0]
        anchor = make_anchor(target)
        tuning = Tuning(
            step_size=jnp.asarray(0.0 if self.step_size is None else self.step_size, dtype),
            curvature=zero,
            curvature_square=zero,
            typical_square=zero,
            square_gradient=jnp.zeros(chains, dtype),
            noise=zero,
            raw_noise=zero,
            square_by_coordinate=jax.tree.map(lambda leaf: jnp.ones_like(leaf[0]), z)
            if self.rule.has_metric
            else None,
            calibrations=jnp.zeros((), jnp.int32),
            gradients=zero,
        )
        inner = self.rule.start(z, lambda like: standard_noise(_fold(keys, 0, 1), like))
        state = StochasticState(
            z, inner, keys, jnp.zeros((), jnp.int32), jnp.array(True), anchor, tuning
        )
        # The curvature at a point as far out as the chains will go: at a singular centre it is 0.
        there = self._calibrated(state, self._displaced(state, target), target)
        here = self._calibrated(state, z, target)
        curvature = jnp.maximum(here.curvature, there.curvature)
        tuning = there._replace(curvature=curvature, curvature_square=2.0 * curvature**2)
        if self.rule.has_metric:
            tuning = self._isotropic(tuning)
        if self.is_adaptive:
            tuning = tuning._replace(step_size=self._wanted(tuning))
        return state._replace(tuning=tuning)

    def _wanted(self, tuning: Tuning) -> jax.Array:
        """The step size that curvature and noise allow."""
        noise = jnp.minimum(tuning.noise, tuning.raw_noise)
        share = noise / _above_zero(tuning.typical_square - noise)
        # Both schemes are exact on quadratics, so the less the curvature varies, the longer a step.
        spread = tuning.curvature_square / _above_zero(jnp.square(tuning.curvature)) - 1.0
        least, most = self.rule.stiffness, self.rule.quadratic_stiffness
        by_spread = jnp.clip(most * QUADRATIC_SPREAD / _above_zero(spread), least, most)
        by_noise = self.rule.noise_limit / _above_zero(share)
        stiffness = jnp.maximum(jnp.minimum(by_spread, by_noise), 0.02)
        return self.rule.step_of(stiffness, tuning.curvature)

    def _isotropic(self, tuning: Tuning) -> Tuning:
        """The metric to begin with: that in which the largest curvature is 1 everywhere."""
        scale = _above_zero(tuning.curvature)
        return tuning._replace(
            square_by_coordinate=jax.tree.map(lambda m: m * scale, tuning.square_by_coordinate),
            curvature=tuning.curvature / scale,
            curvature_square=tuning.curvature_square / scale**2,
            typical_square=tuning.typical_square / scale,
            noise=tuning.noise / scale,
            raw_noise=tuning.raw_noise / scale,
        )

    def step(self, state: StochasticState, target: LocalTarget) -> StochasticState:
        i = state.i
        state = jax.lax.cond(
            _is_due(i, state.warming), lambda: self._recalibrate(state, target), lambda: state
        )
        if not self.is_adaptive:
            return self._substep(0, state, target, state.tuning.step_size)._replace(i=i + 1)
        count, part = self._part(state.tuning)
        state = jax.lax.fori_loop(
            0, count, lambda k, s: self._substep(k, s, target, part), state
        )
        return state._replace(i=i + 1)

    def position(self, state: StochasticState) -> Parameters:
        keys = _fold(state.rng_key, state.i, 2)
        return self.rule.observed(
            state.z,
            lambda like: standard_noise(keys, like),
            self._metric(state.tuning),
            self._part(state.tuning)[1],
        )

    def statistics(self, state: StochasticState) -> dict[str, jax.Array]:
        tuning = state.tuning
        return {
            "step_size": tuning.step_size,
            "n_gradients": tuning.gradients,
            "square_gradient": tuning.square_gradient,
        }

    def end_warmup(self, state: StochasticState) -> StochasticState:
        """Freeze step size and metric."""
        return state._replace(warming=jnp.zeros_like(state.warming))

    def report(self, state: StochasticState, target: LocalTarget) -> dict[str, Any]:
        tuning = state.tuning

        def mean(value: jax.Array) -> float:
            return float(jnp.mean(value))

        return {
            "batch_size": self.batch_size or 0,
            "step_size": mean(tuning.step_size),
            "step_size_is_automatic": self.is_adaptive,
            "curvature_along_chains": mean(tuning.curvature),
            "gradient_evaluations": mean(tuning.gradients),
            "gradient_noise": mean(tuning.noise),
            "gradient_noise_raw": mean(tuning.raw_noise),
            "control_variates": bool(jnp.all(self._uses_anchor(tuning))),
        }

    # --- one step ------------------------------------------------------------------------------

    def _substep(
        self, k: Any, state: StochasticState, target: LocalTarget, step_size: jax.Array
    ) -> StochasticState:
        keys, tuning = _fold(state.rng_key, state.i, 3 + k), state.tuning
        rows = draw_rows(jax.random.fold_in(keys[0], 1), target, self.batch_size)
        use_anchor, correct = self._uses_anchor(tuning), self._corrects(tuning)

        def product(z: Parameters, v: Parameters) -> Parameters:
            if rows is None or not self.is_adaptive or rows.size < 2:
                return jax.tree.map(jnp.zeros_like, v)
            some = rows[: max(2, rows.size // 4)]
            return jax.lax.cond(
                correct,
                lambda: noise_product(target, z, v, some, rows.size, use_anchor),
                lambda: jax.tree.map(jnp.zeros_like, v),
            )

        def gradient(z: Parameters) -> Parameters:
            raw = potential_gradient(target, z, rows, state.anchor, use_anchor)
            return self._tamed(tuning, step_size, raw)

        given = Step(
            gradient=gradient,
            noise_product=product,
            noise=lambda like: standard_noise(keys, like),
            metric=self._metric(tuning),
            localization=jnp.mean(jnp.stack(list(target.localization.values()))),
            step_size=step_size,
            whole_step=tuning.step_size,
        )
        z, inner, used = self.rule.advance(state.z, state.inner, given)
        return state._replace(z=z, inner=inner, tuning=self._learned(state, used))

    def _learned(self, state: StochasticState, gradient: Parameters) -> Tuning:
        """Running means of the squared gradient, from one more step."""
        tuning = state.tuning
        new = square_norm(self._scaled(tuning, gradient))
        recent = jnp.maximum(0.9 * tuning.square_gradient + 0.1 * new, 0.3 * new)
        squares = tuning.square_by_coordinate
        if squares is not None:
            weight = jnp.maximum(1.0 / (state.i + 32), 1.0 / 512) * state.warming
            squares = jax.tree.map(
                lambda m, g: m + weight * (jnp.mean(jnp.square(g), axis=0) - m), squares, gradient
            )
        return tuning._replace(
            square_gradient=recent,
            square_by_coordinate=squares,
            gradients=tuning.gradients + 1,
        )

    def _part(self, tuning: Tuning) -> tuple[jax.Array, jax.Array]:
        """Into how many substeps the next step is cut, and their size.

        More than one where the gradients have been longer than they usually are.
        """
        if not self.is_adaptive:
            return jnp.ones((), jnp.int32), tuning.step_size
        local = self._stiffness(tuning, tuning.step_size, jnp.max(tuning.square_gradient))
        usual = self.rule.stiffness_of(tuning.step_size, tuning.curvature)
        limit = 2.0 * jnp.maximum(self.rule.stiffness, usual)
        count = jnp.ceil(self.rule.substeps_of(local / limit))
        count = jnp.clip(jnp.nan_to_num(count, nan=1.0), 1, MAX_SUBSTEPS).astype(jnp.int32)
        return count, tuning.step_size / count

    def _stiffness(self, tuning: Tuning, step_size: jax.Array, square: jax.Array) -> jax.Array:
        """Stiffness where ``|∇U|²`` is `square`."""
        local = tuning.curvature * square / _above_zero(tuning.typical_square)
        return self.rule.stiffness_of(step_size, local)

    def _tamed(self, tuning: Tuning, step_size: jax.Array, gradient: Parameters) -> Parameters:
        """The gradient, shortened where a step along it would be far too long: no chain explodes."""
        if not self.is_adaptive:
            return gradient
        square = square_norm(self._scaled(tuning, gradient))
        excess = self._stiffness(tuning, step_size, square) / TAMED
        factor = jax.lax.rsqrt(jnp.maximum(excess, 1.0))
        return jax.tree.map(lambda g: g * factor.reshape(-1, *[1] * (g.ndim - 1)), gradient)

    def _uses_anchor(self, tuning: Tuning) -> jax.Array:
        if self.control_variates is not None:
            return jnp.array(self.control_variates)
        return tuning.noise < tuning.raw_noise

    def _corrects(self, tuning: Tuning) -> jax.Array:
        """Whether uncorrected noise would matter against the rest of λ̂'s error."""
        used = jnp.where(self._uses_anchor(tuning), tuning.noise, tuning.raw_noise)
        # ½ |∇U|² / curvature is what the stiffest directions alone hold of λ̂.
        least = 0.5 * tuning.typical_square / _above_zero(tuning.curvature)
        return self.rule.noise_share(tuning.step_size, used) > 0.002 * least

    def _metric(self, tuning: Tuning) -> Any:
        """The diagonal preconditioner, ``1 / E[(∂U)²]`` by coordinate; None if there is none."""
        if tuning.square_by_coordinate is None:
            return None
        return jax.tree.map(lambda m: 1.0 / _above_zero(m), tuning.square_by_coordinate)

    def _scaled(self, tuning: Tuning, tree: Parameters) -> Parameters:
        """Times the root of the metric."""
        metric = self._metric(tuning)
        return tree if metric is None else jax.tree.map(lambda a, g: a * jnp.sqrt(g), tree, metric)

    # --- calibration ---------------------------------------------------------------------------

    def _recalibrate(self, state: StochasticState, target: LocalTarget) -> StochasticState:
        tuning = self._calibrated(state, state.z, target)
        if self.is_adaptive:
            grown = tuning.step_size * GROWTH ** _steps_between(state.i)
            moved = jnp.minimum(self._wanted(tuning), grown)
            step_size = jnp.where(state.warming, moved, tuning.step_size)
            tuning = tuning._replace(step_size=step_size)
        return state._replace(tuning=tuning)

    def _calibrated(self, state: StochasticState, z: Parameters, target: LocalTarget) -> Tuning:
        """Measure curvature and noise at `z`, and take them into the running means."""
        tuning, key = state.tuning, jax.random.fold_in(state.rng_key[0], 2 * state.i + 1)
        keys = jax.random.split(key, POWER_ITERATIONS + 2)
        rows = draw_rows(keys[0], target, self.batch_size)
        gradient = potential_gradient(target, z, rows, state.anchor, self._uses_anchor(tuning))
        square = square_norm(self._scaled(tuning, gradient))
        v = standard_noise(_fold(state.rng_key, state.i, 0), z)
        largest = jnp.zeros_like(square)
        for k in range(POWER_ITERATIONS):
            batch = draw_rows(keys[k + 1], target, self.batch_size)
            direction = self._scaled(tuning, _normalized(v))
            v = self._scaled(tuning, curvature_product(target, z, direction, batch))
            largest = jnp.sqrt(square_norm(v))
        noise, raw = self._noise(state, z, target, keys[-1])
        weight = 1.0 / jnp.minimum(tuning.calibrations + 1, MEMORY)

        def mean(old: jax.Array, new: jax.Array) -> jax.Array:
            new = jnp.mean(new)
            return jnp.where(jnp.isfinite(new), old + weight * (new - old), old)

        return tuning._replace(
            curvature=mean(tuning.curvature, largest),
            curvature_square=mean(tuning.curvature_square, jnp.square(largest)),
            typical_square=mean(tuning.typical_square, square),
            noise=mean(tuning.noise, noise),
            raw_noise=mean(tuning.raw_noise, raw),
            calibrations=tuning.calibrations + 1,
            gradients=tuning.gradients + 3 * POWER_ITERATIONS + 3,
        )

    def _noise(
        self, state: StochasticState, z: Parameters, target: LocalTarget, key: jax.Array
    ) -> tuple[Any, Any]:
        if self.batch_size is None:
            return jnp.zeros(()), jnp.zeros(())
        size = max(2, self.batch_size)
        rows = draw_rows(key, target, size)

        def variance(use_anchor: bool) -> jax.Array:
            sample = noise_sample(target, z, rows, state.anchor, jnp.array(use_anchor))
            return size / self.batch_size * square_norm(self._scaled(state.tuning, sample))

        return variance(True), variance(False)

    def _displaced(self, state: StochasticState, target: LocalTarget) -> Parameters:
        """Points around the start as far as the localizing Gaussian and the loss allow."""
        keys = _fold(state.rng_key, 0, 1)
        rows = draw_rows(jax.random.fold_in(keys[0], 5), target, self.batch_size)
        noise = {
            name: jax.tree.map(lambda leaf, g=g: leaf * jnp.maximum(g, 1.0) ** -0.5, part)
            for (name, part), g in zip(
                standard_noise(keys, state.z).items(), target.localization.values(), strict=True
            )
        }
        size = sum(leaf[0].size for leaf in jax.tree.leaves(state.z))

        def at(scale: jax.Array) -> Parameters:
            return jax.tree.map(lambda z, x: z + scale * x, state.z, noise)

        def too_high(scale: jax.Array) -> jax.Array:
            def potential(z: Parameters) -> jax.Array:
                rise = target.tempered_loss(z, rows) - target.tempered_loss(target.center, rows)
                return rise + target.penalty(z)

            return ~(jnp.mean(jax.vmap(potential)(at(scale))) <= 2.0 * size + 10.0) & (scale > 1e-9)

        return at(jax.lax.while_loop(too_high, lambda scale: 0.7 * scale, jnp.ones(())))


def _fold(keys: jax.Array, i: Any, k: Any) -> jax.Array:
    def one(key: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(key, i), k)

    return jax.vmap(one)(keys)


def _is_due(i: jax.Array, warming: jax.Array) -> jax.Array:
    return jnp.where(warming, i % _period(i) == 0, i % 1024 == 0)


def _period(i: jax.Array) -> jax.Array:
    return jnp.where(i < 256, 8, 64)


def _steps_between(i: jax.Array) -> jax.Array:
    return _period(i - 1).astype(jnp.result_type(float))


def _above_zero(x: jax.Array) -> jax.Array:
    return jnp.maximum(x, jnp.finfo(x.dtype).tiny)


def _normalized(v: Any) -> Any:
    norm = jnp.sqrt(square_norm(v))
    return jax.tree.map(
        lambda leaf: leaf / _above_zero(norm).reshape(-1, *[1] * (leaf.ndim - 1)), v
    )
