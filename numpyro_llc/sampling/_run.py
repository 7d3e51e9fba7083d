"""``Run``: chains under way."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from numpyro_llc.local import EvaluationRows, bad_gradient, not_finite
from numpyro_llc.models import Fields, Parameters, PyTree
from numpyro_llc.sampling._compiled import CHUNK_DRAWS, Seen, advance, layout_of, start
from numpyro_llc.sampling._folder import Entry, RunFolder
from numpyro_llc.sampling._interrupts import interrupts_after
from numpyro_llc.sampling._plan import Plan

CHUNK_SECONDS = 0.3
"""About how often the progress bar moves; chunk lengths change nothing else."""


@dataclass(frozen=True)
class Draws:
    """What a run kept, chain axis first: ``[chain, draw, ...]`` NumPy arrays.

    Attributes
    ----------
    excess_loss : float array [chain, draw]
        ``nL(z_t) - nL(z*)`` in nats.
    by_part : float array [chain, draw, part]
        The same by parts of the rows it was evaluated on, if these are not all; else one part.
    contrasts : float array [chain, draw, k]
        Differences of the losses of the data, with random signs.
    statistics : dict of str to array [chain, draw]
    positions : dict
        Unconstrained parameters of the sites that were asked for.
    lowest : float and dict
        ``nL(z) - nL(z*)`` of the lowest point, at most 0, and its unconstrained parameters.
    """

    excess_loss: np.ndarray
    by_part: np.ndarray
    contrasts: np.ndarray
    statistics: dict[str, np.ndarray]
    positions: Parameters
    lowest: tuple[float, Parameters | None]


class NonFiniteDraw(Exception):  # noqa: N818
    """The loss of a chain is not finite: the run stops, with that draw as its last."""


class Run:
    """Chains under way: moves them on, and keeps what they draw.

    Chains go through the compiled code in blocks: all in one (vectorized), one by one
    (sequential), or one block a device (parallel). With `cells`, fields of the target stacked by
    cell (its temperature, say), each cell is a block of ``schedule.num_chains`` chains.

    With a folder that was begun, what it holds is handed out again before anything is computed:
    the caller asks for the same steps as the first time and gets the same draws.
    """

    def __init__(
        self,
        plan: Plan,
        starts: Parameters,
        rng_key: jax.Array,
        *,
        rows: EvaluationRows | None = None,
        sites: tuple[str, ...] = (),
        cells: Fields | None = None,
        folder: RunFolder | None = None,
    ) -> None:
        self.plan, self.rows, self.sites = plan, rows, sites
        self.sampler, self.target = plan.sampler, plan.target
        self.own = cells or {}
        self.num_chains = jax.tree.leaves(starts)[0].shape[0]
        self.layout = layout_of(plan.sampler, plan.schedule, jax.tree.leaves(self.own))
        self.chunks: list[Seen] = []
        self.steps, self.dropped = 0, 1
        self.earlier, self.began = 0.0, time.perf_counter()
        self.bar = tqdm(disable=not plan.schedule.progress_bar, unit="step")
        keys = jax.random.split(rng_key, self.num_chains)
        self.progress = start(plan.sampler, self.layout, keys, starts, self.own, plan.target)
        self._check_gradient()
        self.form = jax.tree.structure({name: starts[name] for name in sites})
        self.folder = folder
        self.saved: list[Entry] = []
        self.has_warmed, self.step_scale = False, 1.0
        if folder is not None and (found := folder.load(self.progress)):
            self.progress, numbers, self.saved = found
            self.earlier, self.has_warmed = numbers["seconds"], bool(numbers["has_warmed"])
            self.step_scale = numbers["step_scale"]

    def _check_gradient(self) -> None:
        """Refuse starts at which no chain has a gradient."""
        gradient = self.sampler.gradient(self.progress.state)
        if gradient is None:
            return

        def of_all(leaf: jax.Array, like: jax.Array) -> np.ndarray:
            lead = tuple(range(leaf.ndim - like.ndim))
            return np.where(np.isfinite(leaf).any(axis=lead), 0.0, np.nan)

        if counts := not_finite(jax.tree.map(of_all, gradient, self.target.center)):
            raise bad_gradient(counts, "where the chains start")

    @property
    def num_evaluated(self) -> int:
        """Rows on which the recorded loss is evaluated; 0 if rows cannot be taken out."""
        if self.rows is None:
            return 0
        return min(int(self.rows.rows.size), self.target.num_rows)  # the last slice is padded

    @property
    def state(self) -> PyTree:
        """The sampler's state, with a leading axis of blocks."""
        return self.progress.state

    @property
    def seconds(self) -> float:
        """Wall time so far, compilation included."""
        return self.earlier + time.perf_counter() - self.began

    @property
    def is_broken(self) -> np.ndarray:
        """Of each block, whether a draw was not finite, ``[block]``."""
        finite = [np.isfinite(chunk["excess_loss"]).all(axis=1) for chunk in self.chunks]
        blocks = self.layout.num_blocks if self.own else 1
        return np.logical_not(np.stack(finite).reshape(len(finite), blocks, -1).all(axis=(0, 2)))

    def walk(self, steps: int) -> None:
        """Steps without draws: one is made at the end of each chunk and thrown away."""
        while self.saved and steps > 0:
            self.chunks = []
            steps -= self._take_saved()
        for part in _pace(steps, limit=steps):
            self.chunks = []
            self._advance(1, part)

    def draw(self, num_draws: int, thinning: int, *, deadline: float = np.inf) -> int:
        """Keep `num_draws` more draws, each after `thinning` steps; returns how many it were.

        Fewer, if the time so far passes the `deadline`, in seconds.
        """
        left = num_draws
        while self.saved and left > 0:
            left -= self._take_saved() // thinning
        if left < num_draws and self.seconds > deadline:
            return num_draws - left  # the run ended here before
        for draws in _pace(left, limit=CHUNK_DRAWS):
            self._advance(draws, thinning)
            left -= draws
            if self.seconds > deadline:
                break
        return num_draws - left

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
        if not self.has_warmed:
            state = self.state
            if most_bias < np.inf:
                seen = self.collect().statistics
                self.step_scale = self.sampler.step_scale(state, self.target, seen, most_bias)
            state = self.sampler.end_warmup(state, self.step_scale)
            self.progress, self.has_warmed = self.progress._replace(state=state), True
        self.chunks = []

    def describe(self, phase: str, total: int | None) -> None:
        """Name the phase on the progress bar, and the steps it will have at its end."""
        self.bar.set_description(phase, refresh=False)
        self.bar.total = total

    def close(self) -> None:
        """End the progress bar, and write what the folder lacks."""
        self.bar.close()
        if self.folder is not None and self.folder.pending:
            self._write()

    def collect(self) -> Draws:
        """The draws so far."""
        joined = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *self.chunks)
        excess, by_part, contrasts = (
            joined.pop(name).astype(np.float64) for name in ("excess_loss", "by_part", "contrasts")
        )
        positions = joined.pop("z")
        depths, points = self.progress.lowest
        block = int(np.argmin(depths))
        lowest = float(depths[block]), jax.tree.map(lambda leaf: leaf[block], points)
        return Draws(excess, by_part, contrasts, joined, positions, lowest)

    def of_block(self, draws: Draws, block: int) -> Draws:
        """The draws of one block of chains, without the lowest point."""

        def part(leaf: np.ndarray) -> np.ndarray:
            return np.split(leaf, self.layout.num_blocks)[block]

        fields = {name: value for name, value in vars(draws).items() if name != "lowest"}
        return Draws(**jax.tree.map(part, fields), lowest=(0.0, None))

    def state_of_block(self, block: int) -> PyTree:
        """The sampler's state of one block, with a leading axis of length 1."""

        def part(leaf: jax.Array) -> jax.Array:
            return leaf[block : block + 1] if leaf.ndim else leaf

        return jax.tree.map(part, self.state)

    def set_step_sizes(self, step_sizes: Sequence[float]) -> None:
        """Give each block its step size, of a sampler whose step size is fixed."""
        state = self.sampler.with_step_sizes(self.state, jnp.asarray(step_sizes, float))
        self.progress = self.progress._replace(state=state)

    def _advance(self, draws: int, thinning: int) -> None:
        with interrupts_after():  # the state is that of the draws, whenever Ctrl-C comes
            self.progress, buffer = advance(
                self.sampler,
                self.layout,
                self.sites,
                self.progress,
                self.own,
                self.target,
                self.rows,
                self.plan.other_data,
                draws,
                thinning,
            )
            chunk = jax.tree.map(lambda leaf: np.asarray(leaf)[:, :draws], buffer)
            if self.folder is not None:
                self.folder.add(_entry(chunk, thinning))
            self._keep(chunk, thinning)
        if self.folder is not None and self.folder.is_due:
            self._write()

    def _keep(self, chunk: Seen, thinning: int) -> None:
        draws = chunk["excess_loss"].shape[1]
        self.steps += draws * thinning
        self.bar.update(draws * thinning)
        self.chunks.append(chunk)
        if not np.isfinite(chunk["excess_loss"]).all() and self.is_broken.all():
            raise NonFiniteDraw

    def _take_saved(self) -> int:
        """Hand out the next entry of the folder; returns the steps it was."""
        entry, thinning = self._chunk_of(self.saved.pop(0))
        self._keep(entry, thinning)
        return entry["excess_loss"].shape[1] * thinning

    def _chunk_of(self, entry: Entry) -> tuple[Seen, int]:
        """An entry of the folder as a chunk, and its thinning: the inverse of ``_entry``."""
        leaves = [entry[name] for name in entry if name.startswith(_POSITION)]
        chunk = {name: entry[name] for name in entry if not name.startswith(_POSITION)}
        thinning = int(chunk.pop("thinning")[0, 0])
        return {**chunk, "z": jax.tree.unflatten(self.form, leaves)}, thinning

    def _write(self) -> None:
        if self.folder is not None:
            numbers = {name: getattr(self, name) for name in _NUMBERS}
            self.folder.write(self.progress, numbers)


_NUMBERS = ("seconds", "has_warmed", "step_scale")
_POSITION = "z "


def _entry(chunk: Seen, thinning: int) -> Entry:
    """A chunk as a flat dict of arrays ``[chain, draw, ...]``."""
    flat = {name: array for name, array in chunk.items() if name != "z"}
    for k, leaf in enumerate(jax.tree.leaves(chunk["z"])):
        flat[f"{_POSITION}{k:06d}"] = leaf
    return {**flat, "thinning": np.full((1, chunk["excess_loss"].shape[1]), thinning)}


def _pace(total: int, *, limit: int) -> Iterator[int]:
    """Chunk lengths that add up to `total`, each of about ``CHUNK_SECONDS`` by the clock."""
    done, length = 0, min(8, limit)
    while done < total:
        length = min(length, total - done)
        began = time.perf_counter()
        yield length
        rate = length / max(time.perf_counter() - began, 1e-9)
        done += length
        length = int(np.clip(CHUNK_SECONDS * rate, 1, min(limit, 4 * length)))
