"""How blocks of chains go through the compiled code: in turn, side by side, over devices."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from numpyro_llc.local import CHAINS, chains_on, with_last_again
from numpyro_llc.models import Parameters, PyTree
from numpyro_llc.sampling._placement import Placement
from numpyro_llc.sampling._plan import Plan


class Layout(NamedTuple):
    """How blocks of chains go through the compiled code.

    `method` is "map" (one block after the other), "vmap" (all at once) or "devices" (a share of the
    blocks on each device along the axis "chain" of the mesh, there all at once). Where there is a
    `placement`, XLA partitions all else over the mesh.
    """

    method: str
    num_blocks: int
    placement: Placement | None = None

    def tracing(self) -> AbstractContextManager[None]:
        """Where code is traced whose chains lie on several devices."""
        return chains_on(None if self.within is None else self.within.mesh)

    @property
    def within(self) -> Placement | None:
        """Where the chains of a block lie; a block that is on one device has them there."""
        return None if self.method == "devices" else self.placement

    def between_calls(self, progress: PyTree, center: Parameters, chains: int) -> PyTree:
        """Progress of all blocks, of `chains` chains each, as compiled code takes and gives it."""
        if self.placement is None:
            return progress
        evenly = partial(self.placement.along_chains, evenly=True)
        along, blocks = evenly(chains), None
        if self.method == "devices":
            along, blocks = None, evenly(self.num_blocks)
        return self.placement.laid(progress, center, chains, along, (blocks,))


def layout_of(plan: Plan, cells: list[jax.Array]) -> Layout:
    """The layout that a plan asks for; each of the `cells`, if there are any, is a block."""
    method, chains = plan.schedule.chain_method, plan.schedule.num_chains
    placement = plan.placement
    if cells:
        of_cells = "vmap" if method == "vectorized" else "map"
        return Layout(of_cells, cells[0].shape[0], placement)
    if plan.sampler.is_ensemble or method == "vectorized":
        return Layout("map", 1, placement)
    is_spread = method == "parallel" and placement is not None and CHAINS in placement.mesh.shape
    return Layout("devices" if is_spread else "map", chains, placement)


def over_blocks(function: Callable, layout: Layout, axes: tuple[PyTree, PyTree]) -> Callable:
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
    assert layout.placement is not None
    mesh, devices = layout.placement.mesh, layout.placement.chain_devices
    pad = -layout.num_blocks % devices

    def padded(axis: int | None, part: PyTree) -> PyTree:
        """The last block as often as it takes for all devices to have as many."""
        return part if axis is None else jax.tree.map(lambda x: with_last_again(x, pad), part)

    def cut(axis: int | None, part: PyTree) -> PyTree:
        return part if axis is None else jax.tree.map(lambda leaf: leaf[: layout.num_blocks], part)

    def on_devices(mapped: PyTree, *shared: PyTree) -> PyTree:
        done = jax.shard_map(
            side_by_side,
            mesh=mesh,
            in_specs=(_specs(in_axes), *(PartitionSpec() for _ in shared)),
            out_specs=_specs(out_axes),
            axis_names={CHAINS},
            check_vma=False,
        )(_over_axes(padded, in_axes, mapped), *shared)
        return _over_axes(cut, out_axes, done)

    return on_devices


def _one_by_one(function: Callable, mapped: PyTree, *shared: PyTree) -> PyTree:
    if jax.tree.leaves(mapped)[0].shape[0] == 1:
        one = function(jax.tree.map(lambda leaf: leaf[0], mapped), *shared)
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], one)
    return jax.lax.map(lambda one: function(one, *shared), mapped)


def _over_axes(function: Callable, axes: PyTree, *trees: PyTree) -> PyTree:
    """``function(axis, *parts)`` for each axis and the parts of the trees that it is of."""
    return jax.tree.map(function, axes, *trees, is_leaf=lambda axis: axis is None)


def _specs(axes: PyTree) -> PyTree:
    """Where blocks go, from the axis that they are along: to devices, and what has none to all."""

    def spec(axis: int | None) -> PartitionSpec:
        return PartitionSpec() if axis is None else PartitionSpec(CHAINS)

    return _over_axes(spec, axes)
