"""The loop: chains of one sampler on one target, in compiled chunks."""

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from tqdm.auto import tqdm

from numpyro_llc._checks import check_integer
from numpyro_llc.errors import LLCWarning
from numpyro_llc.kernels import Sampler
from numpyro_llc.models import Parameters
from numpyro_llc.target import LocalTarget, distance_from_center

CHAIN_METHODS = ("vectorized", "sequential", "parallel")
CHUNK_DRAWS = 64
"""Most draws between two visits to Python: the length of the compiled buffer."""
CHUNK_SECONDS = 0.3
"""About how often the progress bar moves; chunk lengths change nothing else."""


class Schedule(NamedTuple):
    """How long to run, how many chains, and how."""

    num_warmup: int
    num_samples: int
    num_chains: int
    thinning: int
    chain_method: str
    progress_bar: bool


def check_schedule(
    num_warmup: Any,
    num_samples: Any,
    num_chains: Any,
    thinning: Any,
    chain_method: Any,
    progress_bar: Any,
) -> Schedule:
    """Refuse what cannot be run, by name."""
    steps, chains = "It counts steps of one chain.", "R-hat wants at least 2, better 4."
    kept = "Every thinning-th step is kept."
    schedule = Schedule(
        check_integer("num_warmup", num_warmup, minimum=0, meaning=steps),
        check_integer("num_samples", num_samples, minimum=1, meaning=steps),
        check_integer("num_chains", num_chains, minimum=1, meaning=chains),
        check_integer("thinning", thinning, minimum=1, meaning=kept),
        chain_method,
        bool(progress_bar),
    )
    if schedule.thinning > schedule.num_samples:
        raise ValueError(
            f"`thinning` must be at most `num_samples`; got {thinning} > {num_samples}. "
            "num_samples // thinning draws are kept."
        )
    if chain_method not in CHAIN_METHODS:
        raise ValueError(f"`chain_method` must be one of {CHAIN_METHODS}; got {chain_method!r}.")
    return schedule


@dataclass(frozen=True)
class Draws:
    """What a run kept, chain axis first: ``[chain, draw, ...]`` NumPy arrays.

    Attributes
    ----------
    excess_loss : float array [chain, draw]
        ``nL(z_t) - nL(z*)`` in nats.
    statistics : dict of str to array [chain, draw]
    positions : dict
        Unconstrained parameters of the sites that were asked for.
    seconds : float
        Wall time, compilation included.
    interrupted : bool
        Whether Ctrl-C ended the run early.
    """

    excess_loss: np.ndarray
    statistics: dict[str, np.ndarray]
    positions: dict[str, Any]
    seconds: float
    interrupted: bool


def _observe(target: LocalTarget, sites: tuple[str, ...], z: Parameters) -> dict[str, Any]:
    return {
        "excess_loss": target.excess_loss(z),
        "distance": distance_from_center(z, target.center),
        "z": {name: z[name] for name in sites},
    }


def _chunk(
    sampler: Sampler,
    sites: tuple[str, ...],
    state: Any,
    target: LocalTarget,
    num_draws: jax.Array,
    thinning: jax.Array,
) -> tuple[Any, dict[str, Any]]:
    """`num_draws` draws, each after `thinning` steps, into a buffer of ``CHUNK_DRAWS``."""

    def observe(state: Any) -> dict[str, Any]:
        z, one = sampler.position(state), partial(_observe, target, sites)
        seen = jax.vmap(one)(z) if sampler.is_ensemble else one(z)
        return {**seen, **sampler.statistics(state)}

    def body(i: jax.Array, carry: Any) -> Any:
        state, buffer = carry
        state = jax.lax.fori_loop(0, thinning, lambda _, s: sampler.step(s, target), state)
        buffer = jax.tree.map(lambda kept, new: kept.at[i].set(new), buffer, observe(state))
        return state, buffer

    buffer = jax.tree.map(
        lambda leaf: jnp.zeros((CHUNK_DRAWS, *leaf.shape), leaf.dtype),
        jax.eval_shape(observe, state),
    )
    state, buffer = jax.lax.fori_loop(0, num_draws, body, (state, buffer))
    if sampler.is_ensemble:
        chains = buffer["excess_loss"].shape[1]
        buffer = jax.tree.map(
            lambda leaf: (
                jnp.swapaxes(leaf, 0, 1)
                if leaf.ndim > 1
                else jnp.broadcast_to(leaf, (chains, CHUNK_DRAWS))
            ),
            buffer,
        )
    return state, buffer


def _over_chains(function: Callable, method: str, num_chains: int) -> Callable:
    """Map ``function(chain's part, *shared)`` over the leading axis of its first argument."""
    if method == "sequential":
        return lambda mapped, *shared: jax.lax.map(lambda one: function(one, *shared), mapped)

    def vectorized(mapped: Any, *shared: Any) -> Any:
        return jax.vmap(lambda one: function(one, *shared))(mapped)

    if method == "vectorized":
        return vectorized
    devices = jax.devices()[: _devices_to_use(num_chains)]
    chains, everywhere = PartitionSpec("chain"), PartitionSpec()
    return lambda mapped, *shared: jax.shard_map(
        vectorized,
        mesh=Mesh(np.array(devices), ("chain",)),
        in_specs=(chains, *(everywhere for _ in shared)),
        out_specs=chains,
        check_vma=False,
    )(mapped, *shared)


def _devices_to_use(num_chains: int) -> int:
    available = min(len(jax.devices()), num_chains)
    return max(k for k in range(1, available + 1) if num_chains % k == 0)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _start(
    sampler: Sampler, method: str, num_chains: int, keys: jax.Array, z: Parameters, target: Any
) -> Any:
    if sampler.is_ensemble:
        return sampler.init(keys, z, target)
    run = _over_chains(lambda own, t: sampler.init(own[0], own[1], t), method, num_chains)
    return run((keys, z), target)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _advance(
    sampler: Sampler,
    method: str,
    num_chains: int,
    sites: tuple[str, ...],
    state: Any,
    target: LocalTarget,
    num_draws: Any,
    thinning: Any,
) -> tuple[Any, dict[str, Any]]:
    if sampler.is_ensemble:
        return _chunk(sampler, sites, state, target, num_draws, thinning)
    run = _over_chains(partial(_chunk, sampler, sites), method, num_chains)
    return run(state, target, num_draws, thinning)


def run_chains(
    sampler: Sampler,
    target: LocalTarget,
    starts: Parameters,
    rng_key: jax.Array,
    schedule: Schedule,
    *,
    sites: tuple[str, ...],
) -> Draws:
    """Run the warm-up, then keep each thinning-th step, with the positions of `sites`.

    Ctrl-C after the warm-up ends the run and keeps what was drawn.
    """
    num_chains, thinning, method = schedule.num_chains, schedule.thinning, schedule.chain_method
    num_draws = schedule.num_samples // thinning
    _warn_of_few_devices(method, num_chains)
    began = time.perf_counter()
    state = _start(
        sampler, method, num_chains, jax.random.split(rng_key, num_chains), starts, target
    )
    advance = partial(_advance, sampler, method, num_chains, sites)
    chunks: list[dict[str, Any]] = []
    interrupted = False
    total = schedule.num_warmup + num_draws * thinning
    with tqdm(total=total, disable=not schedule.progress_bar, unit="step") as bar:
        for steps in _pace(schedule.num_warmup, limit=schedule.num_warmup):
            bar.set_description("warm-up", refresh=False)
            state, _ = jax.block_until_ready(advance(state, target, 1, steps))
            bar.update(steps)
        try:
            for draws in _pace(num_draws, limit=CHUNK_DRAWS):
                bar.set_description("sampling", refresh=False)
                state, buffer = advance(state, target, draws, thinning)
                chunks.append(jax.tree.map(lambda leaf, k=draws: np.asarray(leaf)[:, :k], buffer))
                bar.update(draws * thinning)
        except KeyboardInterrupt:
            if not chunks:
                raise
            interrupted = True
    return _collect(chunks, time.perf_counter() - began, interrupted)


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


def _collect(chunks: list[dict[str, Any]], seconds: float, interrupted: bool) -> Draws:
    joined = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *chunks)
    positions = joined.pop("z")
    excess = joined.pop("excess_loss").astype(np.float64)
    return Draws(excess, joined, positions, seconds, interrupted)
