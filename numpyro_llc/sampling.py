"""The loop: chains of one sampler on one target, in compiled chunks."""

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from tqdm.auto import tqdm

from numpyro_llc.errors import LLCWarning
from numpyro_llc.evaluation import EvaluationRows, excess_losses
from numpyro_llc.kernels import Sampler
from numpyro_llc.models import Parameters
from numpyro_llc.schedule import Schedule
from numpyro_llc.target import LocalTarget

CHUNK_DRAWS = 64
"""Most draws between two visits to Python: the length of the compiled buffer."""
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
    statistics : dict of str to array [chain, draw]
    positions : dict
        Unconstrained parameters of the sites that were asked for.
    """

    excess_loss: np.ndarray
    by_part: np.ndarray
    statistics: dict[str, np.ndarray]
    positions: dict[str, Any]


def _observe(
    sampler: Sampler,
    sites: tuple[str, ...],
    state: Any,
    target: LocalTarget,
    rows: EvaluationRows | None,
) -> dict[str, Any]:
    z = sampler.position(state)
    excess, by_part = excess_losses(target, z, rows)
    chains = excess.shape[0]
    statistics = {
        name: jnp.broadcast_to(value, (chains,))
        for name, value in sampler.statistics(state).items()
    }
    return {
        "excess_loss": excess,
        "by_part": by_part if rows is not None and by_part.shape[1] > 1 else by_part[:, :1],
        **jax.vmap(target.displacement)(z),
        "z": {name: z[name] for name in sites},
        **statistics,
    }


def _chunk(
    sampler: Sampler,
    sites: tuple[str, ...],
    state: Any,
    target: LocalTarget,
    rows: EvaluationRows | None,
    num_draws: jax.Array,
    thinning: jax.Array,
) -> tuple[Any, dict[str, Any]]:
    """`num_draws` draws, each after `thinning` steps, into a buffer of ``CHUNK_DRAWS``."""
    observe = partial(_observe, sampler, sites)

    def body(i: jax.Array, carry: Any) -> Any:
        state, buffer = carry
        state = jax.lax.fori_loop(0, thinning, lambda _, s: sampler.step(s, target), state)
        seen = observe(state, target, rows)
        buffer = jax.tree.map(lambda kept, new: kept.at[:, i].set(new), buffer, seen)
        return state, buffer

    buffer = jax.tree.map(
        lambda leaf: jnp.zeros((leaf.shape[0], CHUNK_DRAWS, *leaf.shape[1:]), leaf.dtype),
        jax.eval_shape(observe, state, target, rows),
    )
    return jax.lax.fori_loop(0, num_draws, body, (state, buffer))


def _over_blocks(function: Callable, method: str, num_blocks: int) -> Callable:
    """Map ``function(a block's part, *shared)`` over the leading axis of its first argument."""

    def mapped_here(mapped: Any, *shared: Any) -> Any:
        if jax.tree.leaves(mapped)[0].shape[0] == 1:
            one = function(jax.tree.map(lambda leaf: leaf[0], mapped), *shared)
            return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], one)
        return jax.lax.map(lambda one: function(one, *shared), mapped)

    if method != "parallel":
        return mapped_here
    blocks, everywhere = PartitionSpec("chain"), PartitionSpec()
    return lambda mapped, *shared: jax.shard_map(
        mapped_here,
        mesh=Mesh(np.array(jax.devices()[:num_blocks]), ("chain",)),
        in_specs=(blocks, *(everywhere for _ in shared)),
        out_specs=blocks,
        check_vma=False,
    )(mapped, *shared)


def _devices_to_use(num_chains: int) -> int:
    available = min(len(jax.devices()), num_chains)
    return max(k for k in range(1, available + 1) if num_chains % k == 0)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _start(
    sampler: Sampler, method: str, num_blocks: int, keys: jax.Array, z: Parameters, target: Any
) -> Any:
    run = _over_blocks(lambda own, t: sampler.init(own[0], own[1], t), method, num_blocks)
    blocks = jax.tree.map(lambda leaf: leaf.reshape(num_blocks, -1, *leaf.shape[1:]), (keys, z))
    return run(blocks, target)


@partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=4)
def _advance(
    sampler: Sampler,
    method: str,
    num_blocks: int,
    sites: tuple[str, ...],
    state: Any,
    target: LocalTarget,
    rows: EvaluationRows | None,
    num_draws: Any,
    thinning: Any,
) -> tuple[Any, dict[str, Any]]:
    run = _over_blocks(partial(_chunk, sampler, sites), method, num_blocks)
    state, buffer = run(state, target, rows, num_draws, thinning)
    return state, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), buffer)


def forget_compiled() -> None:
    """Let go of the compiled code of all runs: each maps memory, of which a process has so much."""
    _start.clear_cache()  # type: ignore[attr-defined]
    _advance.clear_cache()  # type: ignore[attr-defined]


class NonFiniteDraw(Exception):  # noqa: N818
    """The loss of a chain is not finite: the run stops, with that draw as its last."""


class Run:
    """Chains under way: moves them on, and keeps what they draw.

    Chains go through the compiled code in blocks: all in one (vectorized), one by one
    (sequential), or one block a device (parallel).
    """

    def __init__(
        self,
        sampler: Sampler,
        target: LocalTarget,
        starts: Parameters,
        rng_key: jax.Array,
        schedule: Schedule,
        *,
        sites: tuple[str, ...],
    ) -> None:
        self.sampler, self.target, self.sites = sampler, target, sites
        self.num_chains, self.method = schedule.num_chains, schedule.chain_method
        _warn_of_few_devices(self.method, self.num_chains)
        self.num_blocks = 1
        if not sampler.is_ensemble:
            parallel = _devices_to_use(self.num_chains)
            self.num_blocks = {"sequential": self.num_chains, "parallel": parallel}.get(
                self.method, 1
            )
        self.rows: EvaluationRows | None = None
        self.chunks: list[dict[str, Any]] = []
        self.steps = 0
        self.began = time.perf_counter()
        self.bar = tqdm(disable=not schedule.progress_bar, unit="step")
        keys = jax.random.split(rng_key, self.num_chains)
        self.state = _start(sampler, self.method, self.num_blocks, keys, starts, target)

    @property
    def seconds(self) -> float:
        """Wall time so far, compilation included."""
        return time.perf_counter() - self.began

    def _advance(self, draws: int, thinning: int) -> None:
        self.state, buffer = _advance(
            self.sampler,
            self.method,
            self.num_blocks,
            self.sites,
            self.state,
            self.target,
            self.rows,
            draws,
            thinning,
        )
        kept = jax.tree.map(lambda leaf: np.asarray(leaf)[:, :draws], buffer)
        self.steps += draws * thinning
        self.bar.update(draws * thinning)
        self.chunks.append(kept)
        if not np.all(np.isfinite(kept["excess_loss"])):
            raise NonFiniteDraw

    def walk(self, steps: int) -> None:
        """Steps without draws: one is made at the end of each chunk and thrown away."""
        for part in _pace(steps, limit=steps):
            self.chunks = []
            self._advance(1, part)

    def draw(self, num_draws: int, thinning: int) -> None:
        """Keep `num_draws` more draws, each after `thinning` steps."""
        for draws in _pace(num_draws, limit=CHUNK_DRAWS):
            self._advance(draws, thinning)

    def drop_every_other(self) -> None:
        """Keep the second, fourth, ... of the draws so far."""
        joined = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *self.chunks)
        self.chunks = [jax.tree.map(lambda leaf: leaf[:, 1::2], joined)]

    def end_warmup(self) -> None:
        """Tell the sampler that sampling begins, and forget the draws so far."""
        self.state = self.sampler.end_warmup(self.state)
        self.chunks = []

    def describe(self, phase: str, total: int | None) -> None:
        """Name the phase on the progress bar, and the steps it will have at its end."""
        self.bar.set_description(phase, refresh=False)
        self.bar.total = total

    def collect(self) -> Draws:
        """The draws so far."""
        joined = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *self.chunks)
        positions, by_part = joined.pop("z"), joined.pop("by_part")
        excess = joined.pop("excess_loss").astype(np.float64)
        return Draws(excess, by_part.astype(np.float64), joined, positions)


def _warn_of_few_devices(method: str, num_chains: int) -> None:
    if method == "parallel" and _devices_to_use(num_chains) < num_chains:
        warnings.warn(
            f"`chain_method='parallel'` spreads {num_chains} chains over "
            f"{_devices_to_use(num_chains)} device(s). On CPUs call "
            f"numpyro.set_host_device_count({num_chains}) first.",
            LLCWarning,
            stacklevel=4,
        )


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
