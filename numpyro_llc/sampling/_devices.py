"""Where a run lies: chains, rows of the data and parameters over the axes of a mesh of devices."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from numpyro_llc.errors import warn
from numpyro_llc.local import CHAINS, DATA
from numpyro_llc.models import ModelReading, Parameters, PyTree, check_in_memory


class Placement(NamedTuple):
    """The mesh of a run, and how each leaf of its parameters lies on it; hashable."""

    mesh: Mesh
    specs: tuple[PartitionSpec, ...]

    @property
    def chain_devices(self) -> int:
        """Devices, or groups of them, that share the chains."""
        return int(self.mesh.shape.get(CHAINS, 1))

    def along_chains(self, count: int, *, evenly: bool = False) -> str | None:
        """The axis for `count` chains, or for as many blocks of them.

        Where compiled code takes and gives arrays these lie `evenly`, or whole on all devices.
        """
        if CHAINS not in self.mesh.shape or (evenly and count % self.chain_devices):
            return None
        return CHAINS

    def laid(
        self,
        state: PyTree,
        center: Parameters,
        chains: int,
        along: str | None,
        lead: tuple[str | None, ...] = (),
    ) -> PyTree:
        """A state as it should lie, inside compiled code.

        What has the form of the parameters, as a momentum, lies as the parameters do; its chains,
        and those of all else that is stacked by chain, lie `along` an axis. `lead` are the axes
        before these, of blocks.
        """
        form: PyTree = jax.tree.structure(center)
        depth = len(lead)
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(center)]

        def put(leaf: jax.Array, *spec: str | None) -> jax.Array:
            sharding = NamedSharding(self.mesh, PartitionSpec(*spec))
            return jax.lax.with_sharding_constraint(leaf, sharding)

        def lay(leaf: jax.Array, shape: tuple[int, ...], spec: PartitionSpec) -> jax.Array:
            own = leaf.shape[depth:]
            if own == (chains, *shape):
                return put(leaf, *lead, along, *spec)
            return put(leaf, *lead, *spec) if own == shape else put(leaf)

        def is_parameters(part: PyTree) -> bool:
            return bool(jax.tree.structure(part) == form)

        def part(one: PyTree) -> PyTree:
            if is_parameters(one):
                leaves = map(lay, jax.tree.leaves(one), shapes, self.specs)
                return jax.tree.unflatten(form, leaves)
            is_stacked = one.shape[depth : depth + 1] == (chains,)
            return put(one, *lead, along) if is_stacked else put(one)

        return jax.tree.map(part, state, is_leaf=is_parameters)


def check_mesh(mesh: object, chain_method: str, num_chains: int) -> Mesh | None:
    """The mesh with axes that XLA partitions along by itself, or None."""
    if mesh is None:
        return None
    if not isinstance(mesh, Mesh):
        raise TypeError(
            "`mesh` must be a jax.sharding.Mesh, such as jax.make_mesh((4, 2), ('chain', 'data')); "
            f"got {type(mesh).__name__}."
        )
    if mesh.empty:
        raise ValueError("`mesh` has no devices. Leave it out to run on one.")
    devices = mesh.shape.get(CHAINS, 1)
    if devices > 1 and chain_method == "sequential":
        raise ValueError(
            f"`mesh` has an axis {CHAINS!r}, but chain_method='sequential' runs chains one after "
            "the other. Use 'vectorized' or 'parallel'."
        )
    if devices > num_chains:
        raise ValueError(
            f"`mesh` has {devices} devices along {CHAINS!r}, more than `num_chains`, {num_chains}. "
            "Run more chains, or give the devices to the data."
        )
    return Mesh(mesh.devices, mesh.axis_names)


def mesh_of_chains(num_chains: int) -> Mesh:
    """The devices of this process, or as many of them as there are chains."""
    devices = jax.local_devices()[:num_chains]
    if len(devices) == 1 < num_chains:
        warn(
            f"`chain_method='parallel'` spreads {num_chains} chains over 1 device. On CPUs call "
            f"numpyro.set_host_device_count({num_chains}) first."
        )
    return Mesh(np.array(devices), (CHAINS,))


def automatic(tree: PyTree) -> PyTree:
    """The arrays of a pytree with the axes of their meshes left to XLA; no data move.

    ``jax.make_mesh`` makes meshes whose axes are part of an array's type, for which models are not
    written.
    """

    def one(leaf: PyTree) -> PyTree:
        own = sharding_of(leaf)
        return leaf if own is None else jax.device_put(leaf, NamedSharding(plain(own), own.spec))

    is_several = any(sharding_of(leaf) is not None for leaf in jax.tree.leaves(tree))
    return jax.tree.map(one, tree) if is_several else tree


def plain(sharding: NamedSharding) -> Mesh:
    """The mesh of a sharding, with axes that XLA partitions along by itself."""
    return Mesh(sharding.mesh.devices, sharding.mesh.axis_names)


def sharding_of(leaf: object) -> NamedSharding | None:
    """How an array lies over several devices by names of axes; None if it does not."""
    if not isinstance(leaf, jax.Array) or isinstance(leaf, jax.core.Tracer):
        return None
    own = leaf.sharding
    return own if isinstance(own, NamedSharding) and own.num_devices > 1 else None


def placed(
    reading: ModelReading, mesh: Mesh | None, *, evenly: bool = True
) -> tuple[ModelReading, Mesh | None]:
    """A reading with its arrays on a mesh: the one given, or that on which they lie already.

    Rows lie along the axis "data" where they do not lie along some axis yet. Rows that the devices
    do not divide are refused, or lie on all devices where not `evenly`.

    Raises
    ------
    ValueError
        If the mesh does not fit the arrays.
    """
    given = [*reading.arrays, *jax.tree.leaves(reading.center)]
    own = [sharding for sharding in map(sharding_of, given) if sharding is not None]
    if mesh is None and own:
        mesh = max(map(plain, own), key=lambda one: len(one.axis_names))
    if mesh is None:
        return reading, None
    check_in_memory(reading.arrays, "`mesh`, or chain_method='parallel', takes")
    if reading.stream:
        raise ValueError(
            "`mesh`, or arrays on several devices, are not for a stream of batches, which runs on "
            "one device. Leave it out."
        )
    for sharding in own:
        if list(sharding.mesh.devices.flat) != list(mesh.devices.flat):
            raise ValueError(
                f"`mesh` {dict(mesh.shape)} has other devices than those on which arguments of the "
                f"model or `center` lie, {dict(sharding.mesh.shape)}. Make one mesh for all."
            )
    used = {CHAINS, DATA}.union(*(_names(sharding.spec) for sharding in own))
    if unused := [name for name, size in mesh.shape.items() if name not in used and size > 1]:
        raise ValueError(
            f"`mesh` has the axes {unused}, which nothing uses. {CHAINS!r} divides the chains, "
            f"{DATA!r} the rows of the data, and any other axis the parameters, as the arrays of "
            "`center` are sharded (jax.device_put(center, ...)). Leave the axes out."
        )
    axes = row_axes(reading)
    arrays = tuple(
        _laid_rows(array, axis, mesh, evenly)
        for array, axis in zip(reading.arrays, axes, strict=True)
    )
    counts = [_num_shards(array, axis) for array, axis in zip(arrays, axes, strict=True)]
    if evenly and mesh.shape.get(DATA, 1) > 1 and max(counts, default=1) == 1:
        raise ValueError(
            f"`mesh` has an axis {DATA!r}, but no argument of the model has the rows of the data "
            "as its first axis. Pass the data as arguments, or leave the axis out."
        )
    program = reading.program
    if program.batching is not None:
        batching = replace(program.batching, shards=max(counts, default=1))
        program = replace(program, batching=batching)
    center, losses = jax.tree.map(
        lambda leaf: _kept(leaf, mesh), (reading.center, reading.center_losses)
    )
    return (
        replace(reading, program=program, arrays=arrays, center=center, center_losses=losses),
        mesh,
    )


def row_axes(reading: ModelReading) -> tuple[int | None, ...]:
    """The axis of each array that holds the rows of the data: as batches take it, or the first."""
    batching = reading.program.batching
    if batching is not None and not batching.indexed:
        return batching.axes
    rows = {loss.shape[:1] for loss in reading.center_losses.values()} - {()}
    return tuple(0 if array.shape[:1] in rows else None for array in reading.arrays)


def _laid_rows(array: jax.Array, axis: int | None, mesh: Mesh, evenly: bool) -> jax.Array:
    devices = mesh.shape.get(DATA, 1)
    if axis is None or devices == 1 or _num_shards(array, axis) > 1:
        return _kept(array, mesh)
    axis = axis % array.ndim
    if array.shape[axis] % devices == 0:
        spec = PartitionSpec(*(None,) * axis, DATA)
        return jax.device_put(array, NamedSharding(mesh, spec))
    if not evenly:
        return _kept(array, mesh)
    raise ValueError(
        f"`mesh` has {devices} devices along {DATA!r}, which do not divide the "
        f"{array.shape[axis]} rows of the data. Use a number of devices that does, or leave "
        f"{array.shape[axis] % devices} rows out."
    )


def _num_shards(array: jax.Array, axis: int | None) -> int:
    """Into how many parts the rows of an array are cut."""
    own = sharding_of(array)
    if own is None or axis is None:
        return 1
    return int(array.shape[axis] // own.shard_shape(array.shape)[axis])


def _kept(leaf: jax.Array, mesh: Mesh) -> jax.Array:
    """A leaf as it lies on the devices of a mesh, or whole on all of them."""
    if isinstance(leaf, jax.core.Tracer) or sharding_of(leaf) is not None:
        return leaf
    return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec()))


def placement_of(center: Parameters, mesh: Mesh) -> Placement:
    """How a run lies on a mesh, once what it is given lies there.

    Raises
    ------
    ValueError
        If parameters lie along an axis that the mesh does not have.
    """
    specs = []
    for leaf in jax.tree.leaves(center):
        own = sharding_of(leaf)
        specs.append(PartitionSpec() if own is None else own.spec)
    if missing := set().union(*map(_names, specs)) - set(mesh.shape):
        raise ValueError(
            f"`center` is sharded along {sorted(missing)}; `mesh` has {dict(mesh.shape)}. Add the "
            "axes to `mesh`, or move `center` with jax.device_put."
        )
    return Placement(mesh, tuple(specs))


def _names(spec: PartitionSpec) -> set[str]:
    """The axes of a mesh that a spec speaks of."""
    groups = [(names,) if isinstance(names, str) else names or () for names in spec]
    return {name for names in groups for name in names}


def check_shares(batch_size: int | None, shards: int) -> None:
    """Refuse a batch that has not as many rows of each shard."""
    if batch_size is not None and batch_size % shards:
        raise ValueError(
            f"`batch_size` must be a multiple of the {shards} parts in which the rows of the data "
            f"lie on the devices, each of which draws its own; got {batch_size}."
        )


def moved_as(reading: ModelReading, other: ModelReading) -> ModelReading:
    """The reading with its centre, and the losses there, where those of another lie."""

    def put(leaf: jax.Array, like: jax.Array) -> jax.Array:
        return jax.device_put(leaf, like.sharding)

    return replace(
        reading,
        center=jax.tree.map(put, reading.center, other.center),
        center_losses=jax.tree.map(put, reading.center_losses, other.center_losses),
    )
