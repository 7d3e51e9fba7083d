"""What the stochastic-gradient kernels share: minibatches, warm-up, step size, noise.

A kernel is a :class:`Rule`, one file each; :class:`StochasticSampler` runs it. Chains are stacked,
and each step's batch serves all of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc.kernels._calibration import (
    EARLY_STEPS,
    calibrated_along,
    calibration_period,
    calibration_point,
)
from numpyro_llc.kernels._correction import Correction, leaving_all
from numpyro_llc.kernels._noise import (
    FIRST_SUBSTEP,
    LARGE,
    OBSERVING,
    START,
    at_step,
    in_turns,
    standard_noise,
    two_purposes,
)
from numpyro_llc.kernels._rule import Rule, Step, TakingOff
from numpyro_llc.kernels._state import BLOCK_AXES, StochasticState
from numpyro_llc.kernels._step_bias import step_bias, step_scale
from numpyro_llc.kernels._tuning import (
    Tuning,
    above_zero,
    clipped,
    ended,
    isotropic,
    learned,
    shortened,
    start_tuning,
    summarized,
    wanted_step,
)
from numpyro_llc.local import (
    LocalTarget,
    chain_size,
    draw_rows,
    later_drawn,
    make_anchor,
    potential_gradient,
    replaced_in_turn,
    square_norm,
)
from numpyro_llc.models import Fields, Parameters, PyTree, Rows

MAX_DOUBLINGS = 6
"""A step is cut into 2, 4, ... at most 64 substeps; beyond, the gradient is shortened."""
GROWTH = 1.05
"""By how much the step size may grow from one step of the warm-up to the next: tenfold in 47 steps,
so that one calibration at a flat point cannot make a step far too long."""
STIFF_REGION = 2.0
"""A step is cut where the stiffness met is above the usual one by this factor."""


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

    rule: Rule
    batch_size: int | None
    step_size: float | None = None
    control_variates: bool | None = None

    is_ensemble = False
    uses_gradient = gradient_is_of_center = True
    block_axes = BLOCK_AXES

    @property
    def description(self) -> str:
        return repr(self)

    @property
    def is_adaptive(self) -> bool:
        return self.step_size is None

    def init(self, keys: jax.Array, z: Parameters, target: LocalTarget) -> StochasticState:
        # What is calibrated at the start is so in the first step, to be compiled once.
        inner = self.rule.start(z, partial(standard_noise, at_step(keys, START)))
        begin, on, anchor = jnp.zeros((), jnp.int32), jnp.array(True), make_anchor(target)
        tuning = start_tuning(self.rule, self.step_size, z, keys.shape[0])
        return StochasticState(z, inner, keys, begin, on, anchor, tuning)

    def step(
        self, state: StochasticState, target: LocalTarget, batch: Rows | None = None
    ) -> StochasticState:
        """One transition of each chain, of which the first `batch` may have been read before."""
        i, warming = state.i, state.warming & self.is_adaptive
        keys = at_step(state.rng_key, i)
        period = calibration_period(i, warming, chain_size(state.z))
        tuning = jax.lax.cond(
            i % period == 0,
            lambda: self._recalibrated(state, target, keys, period),
            lambda: state.tuning,
        )
        state = state._replace(tuning=tuning)
        count, part = self._part(state.tuning)

        def drawn(k: jax.Array) -> Rows | None:
            _, (for_rows, *_) = two_purposes(keys, FIRST_SUBSTEP + 2 * k)
            return draw_rows(for_rows, target, self.batch_size)

        def substep(k: jax.Array, state: StochasticState) -> StochasticState:
            for_noise, _ = two_purposes(keys, FIRST_SUBSTEP + 2 * k)
            rows = drawn(k) if batch is None else later_drawn(k, batch, drawn)
            return self._substep(for_noise, rows, state, target, part)

        state = jax.lax.fori_loop(0, count, substep, state)
        return state._replace(i=i + 1, tuning=shortened(state.tuning, count, i))

    def gradient(self, state: StochasticState) -> Parameters | None:
        return state.anchor.gradient

    def position(self, state: StochasticState) -> Parameters:
        keys, (_, part) = at_step(state.rng_key, state.i), self._part(state.tuning)
        keys = at_step(keys, OBSERVING)
        return self.rule.observed(
            state.z, lambda like: standard_noise(keys, like), state.tuning.metric, part
        )

    def statistics(self, state: StochasticState) -> dict[str, jax.Array]:
        return {"square_gradient": state.tuning.square_gradient}

    def step_scale(
        self,
        state: StochasticState,
        target: LocalTarget,
        statistics: Mapping[str, np.ndarray],
        most_bias: float,
    ) -> float:
        if not self.is_adaptive:
            return 1.0
        return step_scale(self.rule, state.tuning, target, statistics, most_bias)

    def end_warmup(self, state: StochasticState, step_scale: float) -> StochasticState:
        warming, step_size = ended(state.warming, state.tuning.step_size, step_scale)
        return state._replace(warming=warming, tuning=state.tuning._replace(step_size=step_size))

    def with_step_sizes(self, state: StochasticState, step_sizes: jax.Array) -> StochasticState:
        dtype = state.tuning.step_size.dtype
        return state._replace(tuning=state.tuning._replace(step_size=step_sizes.astype(dtype)))

    def report(
        self, state: StochasticState, target: LocalTarget, statistics: Mapping[str, np.ndarray]
    ) -> Fields:
        tuning = summarized(state.tuning)
        anchored = tuning.lowers_noise if self.control_variates is None else self.control_variates
        noise = tuning.noise if anchored else tuning.raw_noise
        return {
            "step_size_bias": step_bias(self.rule, state.tuning, target, statistics),
            "batch_size": self.batch_size or 0,
            "step_size": tuning.step_size,
            "step_size_is_automatic": self.is_adaptive,
            "curvature_along_chains": tuning.curvature,
            "curvature_spread": tuning.spread,
            "gradient_evaluations": tuning.gradients,
            "gradient_noise": tuning.noise,
            "gradient_noise_raw": tuning.raw_noise,
            "control_variates": anchored,
            "gradient_noise_bias": self.rule.noise_share(
                tuning.step_size, tuning.noise_left if self._has_correction(target) else noise
            ),
        }

    def _has_correction(self, target: LocalTarget) -> bool:
        """Whether gradient noise that matters is corrected for: two rows of a shard tell it."""
        enough = self.batch_size is None or self.batch_size >= 2 * target.num_shards
        return self.is_adaptive and self.rule.corrects_noise and enough

    def _recalibrated(
        self, state: StochasticState, target: LocalTarget, keys: jax.Array, period: jax.Array
    ) -> Tuning:
        """The tuning after one more calibration, and the step it leads to."""
        first, old = state.i == 0, state.tuning
        point = calibration_point(target, state.anchor, keys, self.batch_size)
        before, tuning = calibrated_along(old, state.z, point, self._uses_anchor, first)
        largest = jnp.maximum(before.curvature, tuning.curvature)
        careful = before._replace(curvature=largest, curvature_change=largest**2)
        if self.rule.has_metric:
            scale = jnp.where(first, above_zero(largest), 1.0)
            careful, tuning = isotropic(careful, scale), isotropic(tuning, scale)
        if not self.is_adaptive:
            return tuning
        longest = old.step_size * GROWTH ** period.astype(float)
        grown = jnp.minimum(self._wanted_step(tuning), longest)
        moved = jnp.where(state.warming, grown, old.step_size)
        return tuning._replace(step_size=jnp.where(first, self._wanted_step(careful), moved))

    def _wanted_step(self, tuning: Tuning) -> jax.Array:
        return wanted_step(self.rule, tuning, self._used_noise(tuning))

    def _part(self, tuning: Tuning) -> tuple[jax.Array, jax.Array]:
        """Into how many substeps the next step is cut, and their size.

        More than one where the gradients have been longer than they usually are.
        """
        if not self.is_adaptive:
            one = jnp.minimum(tuning.calibrations, 1)  # is 1, in a form that keeps the loop a loop
            return one, tuning.step_size
        stiffness = self.rule.stiffness_of
        local = stiffness(tuning.step_size, tuning.curvature_where(jnp.max(tuning.steepness)))
        usual = stiffness(tuning.step_size, tuning.curvature)
        limit = STIFF_REGION * jnp.clip(usual, self.rule.stiffness, self.rule.quadratic_stiffness)
        doublings = jnp.ceil(jnp.log2(self.rule.substeps_of(local / limit)))
        doublings = jnp.clip(jnp.nan_to_num(doublings), 0, MAX_DOUBLINGS).astype(jnp.int32)
        count = jnp.left_shift(1, doublings)
        return count, tuning.step_size / count

    def _substep(
        self,
        for_noise: jax.Array,
        rows: Rows | None,
        state: StochasticState,
        target: LocalTarget,
        step_size: jax.Array,
    ) -> StochasticState:
        tuning, use_anchor = state.tuning, self._uses_anchor(state.tuning)
        size = chain_size(state.z)
        square = left = jnp.zeros(jax.tree.leaves(state.z)[0].shape[0])

        def gradient(z: Parameters) -> Parameters:
            nonlocal square
            found = potential_gradient(target, z, rows, state.anchor, use_anchor)
            square = square_norm(tuning.scaled(found))
            if self.is_adaptive:
                found, square = clipped(self.rule, tuning, step_size, found, square)
            return found

        taking_off: TakingOff = leaving_all
        if rows is not None and self._has_correction(target):
            noise = self._used_noise(tuning)
            taking_off = Correction(
                self.rule, target, rows, tuning, use_anchor, noise, size > LARGE
            ).taken_off

        def moved(function: Callable[..., PyTree], x: PyTree, *others: PyTree) -> PyTree:
            def turn(both: PyTree, *others: PyTree) -> PyTree:
                return function(taking_off, both[0], *others)

            nonlocal left
            x, left = replaced_in_turn(turn, (x, left), others, in_turns(size))
            return x

        given = Step(
            gradient=gradient,
            moved=moved,
            noise=partial(standard_noise, for_noise),
            metric=tuning.metric,
            localization=jnp.mean(jnp.stack(list(target.localization.values()))),
            step_size=step_size,
            whole_step=tuning.step_size,
            warming=state.warming,
        )
        z, inner, used = self.rule.advance(state.z, state.inner, given)
        since = state.i - EARLY_STEPS
        tuning = learned(tuning, used, square, left, state.i, since, state.warming)
        return state._replace(z=z, inner=inner, tuning=tuning)

    def _uses_anchor(self, tuning: Tuning) -> jax.Array:
        if self.control_variates is not None:
            return jnp.array(self.control_variates)
        return tuning.noise < tuning.raw_noise

    def _used_noise(self, tuning: Tuning) -> jax.Array:
        """``tr V`` of the batch gradients that the steps are made with."""
        return jnp.where(self._uses_anchor(tuning), tuning.noise, tuning.raw_noise)
