"""What is compiled: chunks of steps and draws of chains in blocks."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from numpyro_llc.errors import warn
from numpyro_llc.kernels import Sampler
from numpyro_llc.local import (
    EvaluationRows,
    LocalTarget,
    OtherData,
    PosteriorTarget,
    excess_by_draws,
    excess_losses,
)
from numpyro_llc.models import Fields, Parameters, PyTree
from numpyro_llc.sampling._schedule import Schedule

Seen = dict[str, PyTree]
"""What is recorded of a draw, by name: arrays, and under ``z`` the positions by site."""
Lowest = tuple[jax.Array, Parameters]
"""``nL(z) - nL(z*)`` in nats, at most 0, and z; the centre, where nothing lower was seen."""

CHUNK_DRAWS = 64
"""Most draws between two visits to Python: the length of the compiled buffer."""
OTHER_DATA = "excess_loss on "
"""What stands before the name of other data, among a draw's statistics."""


class Layout(NamedTuple):
    """How blocks of chains go through the compiled code.

    `method` is "map" (one block after the other), "vmap" (all at once) or "devices" (a share of the
    blocks on each of `num_devices`, there all at once).
    """

    method: str
    num_blocks: int
    num_devices: int = 1


def layout_of(sampler: Sampler, schedule: Schedule, cells: list[jax.Array]) -> Layout:
    """The layout that a schedule asks for; each of the `cells`, if there are any, is a block."""
    method, chains = schedule.chain_method, schedule.num_chains
    if cells:
        return Layout("vmap" if method == "vectorized" else "map", cells[0].shape[0])
    if sampler.is_ensemble or method == "vectorized":
        return Layout("map", 1)
    if method == "sequential":
        return Layout("map", chains)
    available = min(len(jax.devices()), chains)
    devices = max(k for k in range(1, available + 1) if chains % k == 0)
    if devices < chains:
        warn(
            f"`chain_method='parallel'` spreads {chains} chains over {devices} device(s). On CPUs "
            f"call numpyro.set_host_device_count({chains}) first."
        )
    return Layout("devices", chains, devices)


class Progress(NamedTuple):
    """Where a block of chains is: the sampler's state, and the lowest loss that a draw had.

    Attributes
    ----------
    state : pytree
    lowest : tuple of a scalar and a dict
    """

    state: PyTree
    lowest: Lowest


def _observe(
    sampler: Sampler,
    sites: tuple[str, ...],
    state: PyTree,
    target: LocalTarget,
    rows: EvaluationRows | None,
    other_data: dict[str, OtherData],
) -> tuple[Seen, Parameters]:
    z = sampler.position(state)
    has_slope = sampler.uses_gradient and not isinstance(target, PosteriorTarget)
    found = excess_losses(target, z, rows, with_slope=has_slope)
    excess, by_part, contrasts, slope = found
    virial = {"virial": target.inverse_temperature * slope} if has_slope else {}
    chains = excess.shape[0]
    statistics = {
        name: jnp.broadcast_to(value, (chains,))
        for name, value in sampler.statistics(state).items()
    }
    others = {
        OTHER_DATA + name: other.scale * excess_losses(other.target, z, other.rows).excess
        for name, other in other_data.items()
    }
    seen = {
        "excess_loss": excess,
        "by_part": by_part if rows is not None and by_part.shape[1] > 1 else by_part[:, :1],
        "contrasts": contrasts,
        **jax.vmap(target.displacement)(z),
        **virial,
        "z": {name: z[name] for name in sites},
        **statistics,
        **others,
        **excess_by_draws(target, z, rows),
    }
    return seen, z


def _lower(lowest: Lowest, excess: jax.Array, z: Parameters) -> Lowest:
    """The lower of `lowest` and the lowest of the chains."""
    chain = jnp.argmin(jnp.where(jnp.isnan(excess), jnp.inf, excess))
    new = excess[chain], jax.tree.map(lambda leaf: leaf[chain], z)
    return jax.tree.map(partial(jnp.where, new[0] < lowest[0]), new, lowest)


def _chunk(
    sampler: Sampler,
    sites: tuple[str, ...],
    progress: Progress,
    target: LocalTarget,
    rows: EvaluationRows | None,
    other_data: dict[str, OtherData],
    num_draws: jax.Array,
    thinning: jax.Array,
    observes: jax.Array,
    counts: jax.Array,
) -> tuple[Progress, Seen]:
    """`num_draws` draws, each after `thinning` steps, into a buffer of ``CHUNK_DRAWS``.

    Without `observes` they are not looked at; without `counts` they may not be the lowest point.
    """
    shapes, _ = jax.eval_shape(
        partial(_observe, sampler, sites), progress.state, target, rows, other_data
    )

    def body(i: jax.Array, carry: tuple[Progress, Seen]) -> tuple[Progress, Seen]:
        (state, lowest), buffer = carry
        state = jax.lax.fori_loop(0, thinning, lambda _, s: sampler.step(s, target), state)

        def look() -> tuple[Lowest, Seen]:
            seen, z = _observe(sampler, sites, state, target, rows, other_data)
            return _lower(lowest, jnp.where(counts, seen["excess_loss"], jnp.inf), z), seen

        def look_away() -> tuple[Lowest, Seen]:
            return lowest, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

        lowest, seen = jax.lax.cond(observes, look, look_away)
        buffer = jax.tree.map(lambda kept, new: kept.at[:, i].set(new), buffer, seen)
        return Progress(state, lowest), buffer

    buffer = jax.tree.map(
        lambda leaf: jnp.zeros((leaf.shape[0], CHUNK_DRAWS, *leaf.shape[1:]), leaf.dtype), shapes
    )
    return jax.lax.fori_loop(0, num_draws, body, (progress, buffer))


def _over_blocks(function: Callable, layout: Layout, axes: tuple[PyTree, PyTree]) -> Callable:
    """Map ``function(a block's part, *shared)`` over the leading axis of its first argument.

    `axes` are those of the first argument and of the result, where blocks run side by side.
    """
    in_axes, out_axes = axes
    if layout.method == "map":
        return partial(_one_by_one, function)

    def side_by_side(mapped: PyTree, *shared: PyTree) -> PyTree:
        return jax.vmap(lambda one: function(one, *shared), in_axes=(in_axes,), out_axes=out_axes)(
            mapped
        )

    if layout.method == "vmap":
        return side_by_side
    mesh = Mesh(np.array(jax.devices()[: layout.num_devices]), ("chain",))
    return lambda mapped, *shared: jax.shard_map(
        side_by_side,
        mesh=mesh,
        in_specs=(_specs(in_axes), *(PartitionSpec() for _ in shared)),
        out_specs=_specs(out_axes),
        check_vma=False,
    )(mapped, *shared)


def _one_by_one(function: Callable, mapped: PyTree, *shared: PyTree) -> PyTree:
    if jax.tree.leaves(mapped)[0].shape[0] == 1:
        one = function(jax.tree.map(lambda leaf: leaf[0], mapped), *shared)
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], one)
    return jax.lax.map(lambda one: function(one, *shared), mapped)


def _specs(axes: PyTree) -> PyTree:
    """Where blocks go, from the axis that they are along: to devices, and what has none to all."""
    return jax.tree.map(
        lambda axis: PartitionSpec() if axis is None else PartitionSpec("chain"),
        axes,
        is_leaf=lambda axis: axis is None,
    )


@partial(jax.jit, static_argnums=(0, 1))
def start(
    sampler: Sampler,
    layout: Layout,
    keys: jax.Array,
    z: Parameters,
    own: Fields,
    target: LocalTarget,
) -> Progress:
    """Start chains ``[chain, ...]``; `own` are fields of the target that each block has its own."""

    def one(block: PyTree, target: LocalTarget) -> Progress:
        keys, z, own = block
        target = replace(target, **own)
        return Progress(sampler.init(keys, z, target), (jnp.zeros(()), target.center))

    shape = (layout.num_blocks, keys.shape[0] // layout.num_blocks)  # a site may be empty
    blocks = jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), (keys, z))
    return _over_blocks(one, layout, (0, _axes(sampler)))((*blocks, own), target)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def advance(
    sampler: Sampler,
    layout: Layout,
    sites: tuple[str, ...],
    progress: Progress,
    own: Fields,
    target: LocalTarget,
    rows: EvaluationRows | None,
    other_data: dict[str, OtherData],
    num_draws: int | jax.Array,
    thinning: int | jax.Array,
    observes: bool | jax.Array,
    counts: bool | jax.Array,
) -> tuple[Progress, Seen]:
    """Make draws of all chains: the progress, and a buffer ``[chain, CHUNK_DRAWS, ...]``."""

    def one(block: PyTree, target: LocalTarget, *shared: PyTree) -> tuple[Progress, Seen]:
        progress, own = block
        return _chunk(sampler, sites, progress, replace(target, **own), *shared)

    axes = (_axes(sampler), 0)
    run = _over_blocks(one, layout, (axes, axes))
    shared = target, rows, other_data, num_draws, thinning, observes, counts
    progress, buffer = run((progress, own), *shared)
    return progress, jax.tree.map(lambda leaf: jax.lax.collapse(leaf, 0, 2), buffer)


def _axes(sampler: Sampler) -> PyTree:
    axis: PyTree = 0
    return Progress(sampler.block_axes, axis)


def forget_compiled() -> None:
    """Free the compiled code of all runs; each holds memory maps, whose number a process limits."""
    compiled: list[PyTree] = [start, advance]  # mypy knows no more than that they are functions
    for function in compiled:
        function.clear_cache()
