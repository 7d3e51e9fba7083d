"""What is compiled: chunks of steps and draws of chains in blocks."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp

from numpyro_llc.kernels import Sampler, steps
from numpyro_llc.local import (
    EvaluationRows,
    LocalTarget,
    OtherData,
    PosteriorTarget,
    excess_losses,
    inner,
    statistics_of_draws,
)
from numpyro_llc.models import Fields, Parameters, PyTree
from numpyro_llc.sampling._layout import Layout, over_blocks
from numpyro_llc.sampling._placement import Placement
from numpyro_llc.sampling._progress import Lowest, Progress, center_as_lowest, lower

Seen = dict[str, PyTree]
"""What is recorded of a draw, by name: arrays, and under ``z`` the positions by site."""

CHUNK_DRAWS = 64
"""Most draws between two visits to Python: the length of the compiled buffer."""
OTHER_DATA = "excess_loss on "
"""What stands before the name of other data, among a draw's statistics."""


def records_slope(sampler: Sampler, target: LocalTarget) -> bool:
    """Whether a draw records the derivative of its loss along its offset, for the share of γ.

    Not of a stream, where that of the evaluated rows is not that of the density.
    """
    is_other = isinstance(target, PosteriorTarget) or bool(target.stream)
    return sampler.uses_gradient and not is_other


def _slope_at_center(
    sampler: Sampler, state: PyTree, target: LocalTarget, z: Parameters
) -> dict[str, jax.Array]:
    """``β ∇nL(z*) · (z - z*)`` of each chain, of kernels that hold the gradient at the centre.

    Not of a stream, of which that gradient is of the evaluated rows alone.
    """
    if not sampler.gradient_is_of_center or target.truth is not None or target.stream:
        return {}
    gradient = sampler.gradient(state)

    def one(point: Parameters) -> jax.Array:
        return inner(gradient, jax.tree.map(jnp.subtract, point, target.center))

    return {"center_slope": jax.vmap(one)(z)}


def _observe(
    sampler: Sampler,
    sites: tuple[str, ...],
    state: PyTree,
    target: LocalTarget,
    rows: EvaluationRows | None,
    other_data: dict[str, OtherData],
) -> tuple[Seen, Parameters]:
    z = sampler.position(state)
    has_slope = records_slope(sampler, target)
    found = excess_losses(target, z, rows, with_slope=has_slope)
    virial = {"virial": target.inverse_temperature * found.slope} if has_slope else {}
    by_part, chains = found.by_part, found.excess.shape[0]
    statistics = {
        name: jnp.broadcast_to(value, (chains,))
        for name, value in sampler.statistics(state).items()
    }
    others = {
        OTHER_DATA + name: other.scale * excess_losses(other.target, z, other.rows).excess
        for name, other in other_data.items()
    }
    seen = {
        "excess_loss": found.excess,
        "by_part": by_part if rows is not None and by_part.shape[1] > 1 else by_part[:, :1],
        "contrasts": found.contrasts,
        **jax.vmap(target.displacement)(z),
        **virial,
        **_slope_at_center(sampler, state, target, z),
        "z": {name: z[name] for name in sites},
        **statistics,
        **others,
        **statistics_of_draws(found),
    }
    return seen, z


def _chunk(
    sampler: Sampler,
    placement: Placement | None,
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
    chains = jax.tree.leaves(sampler.position(progress.state))[0].shape[0]
    laid = partial(_laid, placement, target.center, chains)
    progress = laid(progress)
    shapes, _ = jax.eval_shape(
        partial(_observe, sampler, sites), progress.state, target, rows, other_data
    )

    def body(i: jax.Array, carry: tuple[Progress, Seen]) -> tuple[Progress, Seen]:
        (state, lowest), buffer = carry
        state = steps(sampler, state, target, thinning, laid)

        def look() -> tuple[Lowest, Seen]:
            seen, z = _observe(sampler, sites, state, target, rows, other_data)
            return lower(lowest, jnp.where(counts, seen["excess_loss"], jnp.inf), z), seen

        def look_away() -> tuple[Lowest, Seen]:
            return lowest, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

        lowest, seen = jax.lax.cond(observes, look, look_away)
        lowest = laid(lowest)
        buffer = jax.tree.map(
            lambda kept, new: jax.lax.dynamic_update_index_in_dim(kept, new, i, 1), buffer, seen
        )
        return Progress(state, lowest), buffer

    buffer = jax.tree.map(
        lambda leaf: jnp.zeros((leaf.shape[0], CHUNK_DRAWS, *leaf.shape[1:]), leaf.dtype), shapes
    )
    return jax.lax.fori_loop(0, num_draws, body, (progress, buffer))


def _laid(placement: Placement | None, center: Parameters, chains: int, part: PyTree) -> PyTree:
    """A part of the progress of a block where it should lie."""
    if placement is None:
        return part
    return placement.laid(part, center, chains, placement.along_chains(chains))


@partial(jax.jit, static_argnums=(0, 1))
def start(
    sampler: Sampler,
    layout: Layout,
    rng_key: jax.Array,
    z: Parameters,
    own: Fields,
    target: LocalTarget,
) -> Progress:
    """Start chains at `z`, ``[chain, ...]``; `own` are fields of the target, a block's own each."""

    def one(block: PyTree, target: LocalTarget) -> Progress:
        keys, z, own = block
        target = replace(target, **own)
        keys, z = _laid(layout.within, target.center, chains, (keys, z))
        return Progress(sampler.init(keys, z, target), center_as_lowest(target))

    keys = jax.random.split(rng_key, jax.tree.leaves(z)[0].shape[0])
    chains = keys.shape[0] // layout.num_blocks
    shape = (layout.num_blocks, chains)  # a site may be empty
    blocks = jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), (keys, z))
    with layout.tracing():
        progress = over_blocks(one, layout, (0, _axes(sampler)))((*blocks, own), target)
    return layout.between_calls(_strong(progress), target.center, chains)


def _strong(progress: Progress) -> Progress:
    """The same numbers as arrays of a fixed type, where a state began or goes on with Python's.

    The type is part of what compiled code is for: the second chunk would compile all once more.
    """

    def strong(leaf: jax.Array) -> jax.Array:
        return jax.lax.convert_element_type(leaf, leaf.dtype) if leaf.weak_type else leaf

    return jax.tree.map(strong, progress)


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
        return _chunk(sampler, layout.within, sites, progress, replace(target, **own), *shared)

    axes = (_axes(sampler), 0)
    run = over_blocks(one, layout, (axes, axes))
    shared = target, rows, other_data, num_draws, thinning, observes, counts
    with layout.tracing():
        progress, buffer = run((progress, own), *shared)
    chains = buffer["excess_loss"].shape[1]
    progress = layout.between_calls(_strong(progress), target.center, chains)
    return progress, jax.tree.map(lambda leaf: jax.lax.collapse(leaf, 0, 2), buffer)


def _axes(sampler: Sampler) -> PyTree:
    axis: PyTree = 0
    return Progress(sampler.block_axes, axis)


def forget_compiled() -> None:
    """Free the compiled code of all runs; each holds memory maps, whose number a process limits."""
    compiled: list[PyTree] = [start, advance]  # mypy knows no more than that they are functions
    for function in compiled:
        function.clear_cache()


@partial(jax.jit, static_argnums=0)
def last_offsets(sampler: Sampler, state: PyTree, center: Parameters) -> Parameters:
    """From the centre to where the chains are, ``[chain, ...]``.

    Leaves of `state` have a leading axis of blocks, or are scalars that blocks share.
    """
    axes = jax.tree.map(lambda leaf: 0 if leaf.ndim else None, state)
    z = jax.vmap(sampler.position, in_axes=(axes,))(state)
    flat = jax.tree.map(lambda leaf: jax.lax.collapse(leaf, 0, 2), z)
    return jax.tree.map(jnp.subtract, flat, center)
