"""``Run``: chains under way."""

from collections.abc import Sequence
from types import FrameType

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc.errors import CheckpointError, DataError
from numpyro_llc.inference_data import MonteCarlo
from numpyro_llc.local import EvaluationRows, check_start
from numpyro_llc.models import Fields, Parameters, PyTree, let_go, on_host, reading_errors
from numpyro_llc.sampling._bar import Bar
from numpyro_llc.sampling._clock import Clock, Pace
from numpyro_llc.sampling._common_folder import CommonRunFolder
from numpyro_llc.sampling._compiled import CHUNK_DRAWS, Seen, advance, start
from numpyro_llc.sampling._draws import (
    Draws,
    NonFiniteDraw,
    broken_cells,
    chunk_of,
    collected,
    flat,
    llc_of,
)
from numpyro_llc.sampling._folder import Entry, Numbers
from numpyro_llc.sampling._interrupts import interrupts_after
from numpyro_llc.sampling._layout import layout_of
from numpyro_llc.sampling._plan import Plan
from numpyro_llc.sampling._progress import Progress, lowest_of, point_after

_Failure = CheckpointError | DataError | None


class Run:
    """Chains under way: moves them on, and keeps what they draw.

    Chains go through the compiled code in blocks: all in one (vectorized), or each as a block of
    its own, one by one (sequential) or side by side on the devices (parallel). With `cells`, fields
    of the target stacked by cell (its temperature, say), each cell is a block of
    ``schedule.num_chains`` chains.

    With a folder that was begun, what it holds is handed out again before anything is computed:
    the caller asks for the same steps as the first time and gets the same draws. What the clock
    decided is among the numbers of the folder: `warmed`, `thinning`.

    Attributes
    ----------
    is_sampling : bool
    warmed : int
        Steps after which the warm-up ended, here or before this was read; -1 if it has not.
    thinning : int
        That of the sampling, 0 while it is not known.
    """

    @reading_errors()
    def __init__(
        self,
        plan: Plan,
        starts: Parameters,
        rng_key: jax.Array,
        *,
        rows: EvaluationRows | None = None,
        sites: tuple[str, ...] = (),
        cells: Fields | None = None,
        folder: CommonRunFolder | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.plan, self.rows, self.sites, self.folder = plan, rows, sites, folder
        self.sampler, self.target = plan.sampler, plan.target
        self.own = cells or {}
        self.num_chains = jax.tree.leaves(starts)[0].shape[0]
        self.layout = layout_of(plan, jax.tree.leaves(self.own))
        self.chunks: list[Seen] = []
        self.steps, self.since_draw, self.dropped = 0, 0, 1
        self.clock, self.pace = clock or Clock(), Pace()
        self.processes = plan.processes
        is_shown = plan.schedule.progress_bar and self.processes.is_first
        self.bar = Bar(is_shown=is_shown, has_llc=not self.own)
        self.progress = start(plan.sampler, self.layout, rng_key, starts, self.own, plan.target)
        check_start(self.sampler.gradient(self.progress.state), self.target.center)
        self.point: Parameters | None = None  # the lowest, where it is not in the progress
        self.form = jax.tree.structure({name: starts[name] for name in sites})
        self.saved: list[Entry] = []
        self.pressed: list[FrameType | None] = []
        self.is_sampling, self.in_step = False, False
        self.warmed, self.thinning, self.step_scale = -1, 0, 1.0
        self.processes.agreed(self.clock, False, ())  # else each would count its own time so far
        if folder is not None and (found := folder.load(self._whole)):
            whole, numbers, self.saved = found
            self.progress, self.point = whole.apart(self.progress.holds_point)
            self.clock.earlier = numbers["seconds"]
            self.clock.earlier_compiling = numbers["compiling"]
            self.warmed, self.thinning = int(numbers["warmed"]), int(numbers["thinning"])
            self.step_scale = numbers["step_scale"]
            taken = sum(steps for _, steps in self.saved)
            self.bar.say(f"`output` holds {taken} steps of this run: they are read.")

    @property
    def num_cells(self) -> int:
        """Runs side by side."""
        return self.layout.num_blocks if self.own else 1

    @property
    def num_evaluated(self) -> int:
        """Rows on which the recorded loss is evaluated; 0 if rows cannot be taken out."""
        if self.rows is None:
            return 0
        return min(int(self.rows.weights.size), self.target.num_rows)  # the last slice is padded

    @property
    def state(self) -> PyTree:
        """The sampler's state, with a leading axis of blocks."""
        return self.progress.state

    @property
    def working(self) -> float:
        """Wall time so far without compilation, which is what limits of seconds are of."""
        return self.clock.working

    @property
    def is_broken(self) -> np.ndarray:
        """Of each cell, whether a draw was not finite, ``[cell]``."""
        return broken_cells(self.chunks, self.num_cells)

    @property
    def _whole(self) -> Progress:
        """What a folder holds: with the lowest point, or the centre in its place."""
        return self.progress.with_point(self.point or self.target.center)

    def is_over(self, deadline: float) -> bool:
        """Whether the phase ended here before, or the time is past the `deadline`."""
        if not self.is_sampling and self.warmed >= 0:
            return self.steps == self.warmed
        return not self.saved and self.working > deadline

    def walk(self, steps: int, *, deadline: float = np.inf) -> None:
        """Steps of the warm-up, without draws: one is made at the end of a chunk, for a look.

        Fewer, if the time passes the `deadline`, in seconds.
        """
        between = self.plan.steps_of_a_look(self.num_evaluated)
        while self._has_saved and steps > 0:
            self.chunks = [] if self.saved[0].arrays else self.chunks
            steps -= self._take_saved()[0]
        while steps > 0 and not self.is_over(deadline):
            part = min(self.pace.steps(deadline - self.working), steps)
            looks = part == steps or self.since_draw + part >= between or not self.chunks
            self.chunks = [] if looks else self.chunks
            self._advance(1, part, observes=looks, counts=False)
            steps -= part

    def draw(self, num_draws: int, thinning: int, *, deadline: float = np.inf) -> int:
        """Keep `num_draws` more draws, each after `thinning` steps; returns how many it were.

        Fewer, if the time without compilation passes the `deadline`, in seconds, but one.
        """
        left = num_draws
        while self._has_saved and left > 0:
            left -= self._take_saved()[1]
        while left > 0:
            if self.is_over(deadline):
                if not self.chunks:
                    self._advance(1, 1)
                    left -= 1
                break
            left -= self._draw_some(left, thinning, self.pace.steps(deadline - self.working))
        return num_draws - left

    @property
    def _has_saved(self) -> bool:
        """Whether the next steps of this phase are in the folder."""
        return bool(self.saved) and (self.is_sampling or self.steps != self.warmed)

    def _draw_some(self, left: int, thinning: int, steps: int) -> int:
        """Take about `steps` steps; returns how many draws were kept, none if these are too few."""
        most = CHUNK_DRAWS if self.progress.holds_point else 1
        whole = min((steps + self.since_draw) // thinning, left, most)
        if whole == 0:
            self._advance(1, steps, observes=False)
        elif self.since_draw:
            whole = 1
            self._advance(1, thinning - self.since_draw)
        else:
            self._advance(whole, thinning)
        return whole

    def forget_draws(self) -> None:
        """Let go of the draws so far; the chains stay where they are."""
        self.chunks = []

    def drop_every_other(self) -> None:
        """Keep the second, fourth, ... of the draws so far."""
        joined = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *self.chunks)
        self.chunks = [jax.tree.map(lambda leaf: leaf[:, 1::2], joined)]
        self.dropped *= 2

    def end_warmup(self, most_bias: float = np.inf) -> None:
        """Tell the sampler that sampling begins, and forget the draws so far.

        Its own steps are shortened until they bias λ̂ by no more than `most_bias`: `step_scale`.
        """
        if self.warmed < 0:
            state = self.state
            if most_bias < np.inf:
                seen = self.collect().statistics
                self.step_scale = self.sampler.step_scale(state, self.target, seen, most_bias)
            state = self.sampler.end_warmup(state, self.step_scale)
            self.progress, self.warmed = self.progress._replace(state=state), self.steps
        self.chunks, self.since_draw, self.is_sampling = [], 0, True

    def llc(self) -> MonteCarlo:
        """λ̂ of the draws so far, its Monte Carlo error, effective sample size and R-hat."""
        return llc_of(self.chunks, float(self.target.inverse_temperature))

    @property
    def is_lost(self) -> bool:
        """Whether the state is, with a step that broke off."""
        return self.in_step or any(leaf.is_deleted() for leaf in jax.tree.leaves(self.progress))

    def close(self, failure: _Failure = None) -> _Failure:
        """End reading ahead and the bar, and write what the folder lacks; returns why that failed.

        Not after a `failure` to write, nor where a step broke off and its state is lost.
        """
        if self.is_sampling and self.chunks:
            self.bar.tell(self.llc, is_last=True)
        self.bar.close()
        let_go(self.target.stream)
        if failure is None and self.folder is not None and not self.is_lost:
            try:
                self.folder.write_rest(self._whole, self._numbers)
            except CheckpointError as error:
                failure = error
        return failure

    def collect(self) -> Draws:
        """The draws so far; the lowest point is lost where a step broke off."""
        lowest = (0.0, None) if self.is_lost else lowest_of(self.progress, self.point)
        return collected(self.chunks, lowest)

    def set_step_sizes(self, step_sizes: Sequence[float]) -> None:
        """Give each block its step size, of a sampler whose step size is fixed."""
        state = self.sampler.with_step_sizes(self.state, jnp.asarray(step_sizes, float))
        self.progress = self.progress._replace(state=state)

    def _advance(
        self, draws: int, thinning: int, *, observes: bool = True, counts: bool = True
    ) -> None:
        if self.folder is not None:
            self.folder.check_writable()
        before = self.working
        # Whenever Ctrl-C comes, the state is that of the draws.
        with reading_errors(), interrupts_after() as heard:
            where = self.sampler, self.layout, self.sites, self.progress, self.own, self.target
            data = self.rows, self.plan.other_data
            self.progress, buffer = advance(*where, *data, draws, thinning, observes, counts)
            self.in_step = True  # until the draws that led here are kept
            jax.block_until_ready(self.progress)
            chunk = jax.tree.map(lambda leaf: on_host(leaf)[:, :draws], buffer)
            self.point = point_after(self.sampler, self.layout, self.progress, chunk, self.point)
            chunk = chunk if observes else {}
            is_due = self.folder is not None and self.folder.is_due
            is_due, interrupted = self.processes.agreed(self.clock, is_due, heard or self.pressed)
            self.pace.took(draws * thinning, self.working - before)
            if self.folder is not None:
                self.folder.add(flat(chunk), draws * thinning)
            self.in_step = False
            self._keep(chunk, draws * thinning)
        if is_due and self.folder is not None:
            self.folder.write(self._whole, self._numbers)
        if interrupted:
            raise KeyboardInterrupt

    def _keep(self, chunk: Seen, steps: int) -> None:
        self.steps += steps
        self.bar.update(steps)
        if not chunk:
            self.since_draw += steps
            return
        self.since_draw = 0
        self.chunks.append(chunk)
        if not np.isfinite(chunk["excess_loss"]).all() and self.is_broken.all():
            raise NonFiniteDraw
        if self.is_sampling:
            self.bar.tell(self.llc)

    def _take_saved(self) -> tuple[int, int]:
        """Hand out the next entry of the folder; returns its steps and draws."""
        arrays, steps = self.saved.pop(0)
        chunk = chunk_of(arrays, self.form)
        self._keep(chunk, steps)
        return steps, chunk["excess_loss"].shape[1] if chunk else 0

    @property
    def _numbers(self) -> Numbers:
        """What the clock decided, for the folder."""
        own = {name: getattr(self, name) for name in ("warmed", "thinning", "step_scale")}
        return {"seconds": self.clock.seconds, "compiling": self.clock.compiling, **own}
