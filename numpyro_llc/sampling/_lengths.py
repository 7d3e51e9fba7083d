"""From a schedule to a finished run: lengths as given, or chosen from what the chains do."""

from math import ceil

import jax
import numpy as np

from numpyro_llc.errors import CheckpointError, DataError
from numpyro_llc.inference_data import MonteCarlo, monte_carlo
from numpyro_llc.local import (
    ROWS_ALWAYS_AFFORDABLE,
    EvaluationRows,
    rows_to_evaluate,
    shuffled_rows,
)
from numpyro_llc.sampling._compiled import records_slope
from numpyro_llc.sampling._draws import Finished, NonFiniteDraw
from numpyro_llc.sampling._interrupts import interrupts_after
from numpyro_llc.sampling._plan import Plan
from numpyro_llc.sampling._run import Run
from numpyro_llc.sampling._schedule import Schedule, Until

MAX_DRAWS = 20_000
"""Most draws that an automatic run keeps of a chain; even."""
MORE_DRAWS = 10
"""Times as many where `until` asks for an error of the user's own."""
WORK_LIMIT = 2e11
"""Parameters times rows, summed over steps and chains, after which an automatic run ends."""
STEPS_AT_LEAST, STEPS_AT_MOST = 8192, 4_000_000
LEAST_NUMBERS = 20_000
"""Parameters times rows that a step costs at the least: the cost of starting it."""
WARMUP_DRAWS = 64
"""Draws of a round of the warm-up, by which it is judged."""
FIRST_ROUND = 512
"""Steps of the first round of a warm-up; each further one is twice as long."""
WARMUP_PART = 3
"""A warm-up that finds no end may take one part in this of the budget of steps."""
WARMUP_SHARE = 0.5
"""A warm-up may take this share of the seconds that a run is given."""
TIMED_DRAWS = 50
"""Draws of a chain that should fit into these seconds, where the thinning is chosen: of 20 or less
no error can be told (``LEAST_DRAWS`` of ``inference_data``)."""
WARMUP_R_HAT = 1.05
"""R-hat of a round whose chains agree: 1.01 cannot be had from 64 draws a chain."""
DRIFT_ERRORS, ROUND_ERRORS = 4.0, 3.0
"""Standard errors by which the halves of a round, and two rounds, may differ."""
DRIFT_SHARE, ROUND_SHARE = 0.005, 0.01
"""What they may differ by besides, relative to the loss: half the error that automatic runs want,
and all of it."""
FIRST_DRAWS = 250
"""Draws of a chain after which the error is looked at for the first time."""
INDEPENDENT = 0.25
"""Effective draws per draw below which draws are correlated so much that half are dropped."""
SURPLUS = 1.1
"""Draws made over what the error so far asks for, which is itself uncertain by some 10 %."""
LEAST_GROWTH, MOST_GROWTH = 0.25, 2.0
"""Of the draws so far, the least and the most that are made before the error is looked at again."""
NEAR = 2.0
"""A run that ends at a limit came near its error within this factor."""
GRADIENT_COST = 3
"""What a gradient costs, in evaluations of the loss on the same rows; the loss with its derivative
along one direction, which a draw records, costs as much (each 2.5 times the operations of a loss,
on a perceptron)."""
LEAST_DRAWS = 25
"""Draws of a chain that a given number of steps keeps, where the thinning is chosen."""
LEAST_ROWS = 1024
"""Rows that a recorded loss is evaluated on at the least, where their number is chosen."""


def finish(run: Run) -> Finished:
    """Warm up and sample. Ctrl-C after the warm-up ends the run and keeps what was drawn.

    Of several processes it ends in all of them, whichever is told.
    """
    if not run.processes.are_several:
        return _finish(run)
    with interrupts_after() as run.pressed:
        try:
            return _finish(run)
        finally:
            run.pressed.clear()


def _finish(run: Run) -> Finished:
    schedule = run.plan.schedule
    budget = _budget(run)
    failure: CheckpointError | DataError | None = None
    ended_by, near, cut, thinning = "", True, False, recording_interval(run.plan)
    try:
        apart, most_bias, cut = _warm_up(run, schedule, budget)
        run.end_warmup(most_bias)
        thinning = run.thinning = run.thinning or _thinning(run, apart / run.step_scale)
        thinning, ended_by, near = _sample(run, schedule, thinning, budget + run.warmed)
    except KeyboardInterrupt:
        if not run.is_sampling or not run.chunks:
            raise
        ended_by, thinning = "interrupt", run.dropped * thinning
    except NonFiniteDraw:
        ended_by = "non-finite"  # `assemble` raises, with the draws
    except (CheckpointError, DataError) as error:
        if not run.is_sampling or not run.chunks:
            raise
        is_of_folder, thinning = isinstance(error, CheckpointError), run.dropped * thinning
        ended_by, failure = "output" if is_of_folder else "data", error
    finally:
        failure = run.close(failure)
    return Finished(
        run.collect(),
        run.warmed if run.is_sampling else 0,
        thinning,
        run.num_evaluated,
        run.plan.num_rows,
        run.steps,
        run.clock.seconds,
        run.clock.compiling,
        ended_by,
        ended_at_limit=not near,
        warmup_was_cut=cut,
        failure=failure,
    )


def _thinning(run: Run, apart: float) -> int:
    """Steps between draws: half of those between nearly independent ones, where it is chosen.

    Of a run that is given seconds, such that ``TIMED_DRAWS`` fit into what is left of them.
    """
    schedule, thinning = run.plan.schedule, recording_interval(run.plan)
    if schedule.thinning is not None or schedule.num_samples is not None:
        return thinning
    thinning = max(thinning, ceil(apart / 2))
    seconds = (schedule.until or Until()).seconds
    if seconds is None:
        return thinning
    steps = run.pace.rate * max(seconds - run.working, 0.0)
    return int(np.clip(steps / TIMED_DRAWS, 1, thinning))


def recording_interval(plan: Plan) -> int:
    """Steps between two draws: as given, or such that recording them is the smaller cost.

    A step takes the gradient on a batch; a draw evaluates the losses of `evaluation_rows`, with
    their derivative along the offset from the centre. Of a given number of steps ``LEAST_DRAWS``
    are kept all the same.
    """
    schedule = plan.schedule
    if schedule.thinning is not None:
        return schedule.thinning
    affordable = _rows_for_a_step(plan)
    wanted = ceil(min(plan.target.num_rows, ROWS_ALWAYS_AFFORDABLE) / affordable)
    if schedule.num_samples is not None:
        wanted = min(wanted, schedule.num_samples // LEAST_DRAWS)
    return max(1, wanted)


def _rows_for_a_step(plan: Plan) -> int:
    """Rows of which a draw can be recorded at the cost of a step."""
    evaluations = 1 if records_slope(plan.sampler, plan.target) else GRADIENT_COST
    return evaluations * plan.rows_of_a_step


def evaluation_rows(plan: Plan, rng_key: jax.Array) -> EvaluationRows | None:
    """Rows on which the loss of a draw is recorded: all where that is the smaller cost.

    Else a fixed part of them, drawn with `rng_key`. Of a stream all in `evaluation`.
    """
    if plan.target.stream:
        return shuffled_rows(plan.target, rng_key)
    schedule = plan.schedule
    affordable = _rows_for_a_step(plan) * recording_interval(plan)
    is_open = schedule.thinning is None and schedule.num_samples is not None
    floor = LEAST_ROWS if is_open else ROWS_ALWAYS_AFFORDABLE
    return rows_to_evaluate(plan.target, max(floor, affordable), rng_key)


def _budget(run: Run) -> int:
    numbers = run.target.dimension * run.plan.rows_of_a_step
    work = run.num_chains * max(numbers, LEAST_NUMBERS)
    return int(np.clip(WORK_LIMIT / work, STEPS_AT_LEAST, STEPS_AT_MOST))


def _warm_up(run: Run, schedule: Schedule, budget: int) -> tuple[float, float, bool]:
    """Run the warm-up.

    Returns the steps between nearly independent draws, the bias that the finite step may have (no
    more than the error that is wanted), and whether the time ended the warm-up before its end. 1
    and infinite if not measured.

    An automatic warm-up runs in rounds, each twice as long as the last, until the loss of a round
    shows no drift: its halves agree, the chains agree, and it agrees with the round before.
    """
    run.bar.describe("warm-up", schedule.num_warmup)
    seconds = (schedule.until or Until()).seconds
    deadline = np.inf if seconds is None else WARMUP_SHARE * seconds
    if schedule.num_warmup is not None:
        run.walk(schedule.num_warmup, deadline=deadline)
        return 1.0, np.inf, run.steps < schedule.num_warmup
    steps, before, cut = FIRST_ROUND, None, False
    while True:
        run.forget_draws()
        count = run.draw(WARMUP_DRAWS, steps // WARMUP_DRAWS, deadline=deadline)
        now = _stable(run.collect().excess_loss)
        if now is not None and before is not None and _agree(before, now):
            break
        before, cut = now, count < WARMUP_DRAWS or run.is_over(deadline)
        if cut or run.steps + 2 * steps > budget / WARMUP_PART:
            break
        steps *= 2
    last = monte_carlo(run.collect().excess_loss)
    apart = steps * run.num_chains / max(last.ess, 1.0) if np.isfinite(last.ess) else float(steps)
    llc = float(run.target.inverse_temperature) * np.fmax(abs(last.mean), last.error)
    wanted = (schedule.until or Until()).relative_error
    return apart, wanted * float(llc) if llc > 0 else np.inf, cut


def _stable(loss: np.ndarray) -> tuple[float, float] | None:
    """Mean and standard error of a round, or None if it drifts, or is too short to tell."""
    if loss.shape[1] < 2:
        return None
    result = monte_carlo(loss)
    half = loss.shape[1] // 2
    drift = abs(float(loss[:, half:].mean() - loss[:, :half].mean()))
    # R-hat is NaN of one chain, as the error is where nothing moves, as at a step size of 0.
    limit = DRIFT_ERRORS * result.error + DRIFT_SHARE * abs(result.mean)
    if result.r_hat >= WARMUP_R_HAT or not drift < limit:
        return (result.mean, 0.0) if np.ptp(loss) == 0 else None
    return result.mean, result.error


def _agree(one: tuple[float, float], two: tuple[float, float]) -> bool:
    return abs(one[0] - two[0]) <= ROUND_ERRORS * np.hypot(one[1], two[1]) + ROUND_SHARE * abs(
        two[0]
    )


def _sample(run: Run, schedule: Schedule, thinning: int, last_step: int) -> tuple[int, str, bool]:
    """Sample as long as asked, or until λ̂ is known as well as asked.

    Returns the thinning, what ended it, and whether the error is at least near what is wanted.

    Where ``MAX_DRAWS`` are too few because they are correlated, every other one is dropped, and
    half as many are kept from then on.
    """
    if schedule.num_samples is not None:
        run.bar.describe("sampling", run.steps + schedule.num_samples)
        run.draw(schedule.num_samples // thinning, thinning)
        return thinning, "num_samples", True
    until, most = schedule.until or Until(), MAX_DRAWS * (MORE_DRAWS if schedule.until else 1)
    last_step = last_step if until.steps is None else run.warmed + until.steps
    deadline = np.inf if until.seconds is None else until.seconds
    drawn, more = 0, FIRST_DRAWS
    while True:
        more = max(min(more, most - drawn, (last_step - run.steps) // thinning), 1)
        run.bar.describe("sampling", run.steps + more * thinning)
        drawn += run.draw(more, thinning, deadline=deadline)
        result = run.llc()
        run.bar.show(result)
        missing = _missing(result, until)
        if missing <= 1.0:
            return thinning, "relative_error", True
        if drawn >= most and result.ess < INDEPENDENT * drawn * run.num_chains:
            run.drop_every_other()
            drawn, thinning = drawn // 2, 2 * thinning
        limits = {
            "seconds": run.is_over(deadline),
            "steps": run.steps + thinning > last_step,
            "draws": drawn >= most,
        }
        if any(limits.values()):
            return thinning, next(name for name in limits if limits[name]), missing <= NEAR
        needed = SURPLUS * drawn * (missing**2 - 1.0)
        needed = needed if np.isfinite(needed) else drawn
        more = int(np.clip(needed, LEAST_GROWTH * drawn, MOST_GROWTH * drawn))


def _missing(result: MonteCarlo, until: Until) -> float:
    """The error over what is wanted; infinite while R-hat is too high."""
    if result.error == 0:
        return 0.0
    if result.r_hat > until.r_hat:  # it is NaN of one chain
        return np.inf
    return result.error / max(until.relative_error * abs(result.mean), 1e-300)
