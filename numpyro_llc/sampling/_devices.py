"""The devices of a run: a mesh, and the rows of the data on it."""

from dataclasses import replace

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from numpyro_llc.errors import warn
from numpyro_llc.local import CHAINS, DATA
from numpyro_llc.models import ModelReading, check_in_memory, with_batches
from numpyro_llc.sampling._placement import names_of, plain, sharding_of


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


def placed(
    reading: ModelReading, mesh: Mesh | None, *, evenly: bool = True
) -> tuple[ModelReading, Mesh | None]:
    """A reading with its arrays on a mesh: the one given, or that on which they lie already.

    Rows lie along the axis "data" where they do not lie along some axis yet. Those that the devices
    do not divide are padded to as many on each, or lie on all devices where not `evenly`.

    Raises
    ------
    ValueError
        If the mesh does not fit the arrays.
    """
    mesh, own = mesh_of(reading, mesh)
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
    used = {CHAINS, DATA}.union(*(names_of(sharding.spec) for sharding in own))
    if unused := [name for name, size in mesh.shape.items() if name not in used and size > 1]:
        raise ValueError(
            f"`mesh` has the axes {unused}, which nothing uses. {CHAINS!r} divides the chains, "
            f"{DATA!r} the rows of the data, and any other axis the parameters, as the arrays of "
            "`center` are sharded (jax.device_put(center, ...)). Leave the axes out."
        )
    if evenly:
        reading = _padded(reading, mesh)
    axes = row_axes(reading)
    arrays = tuple(
        _laid_rows(array, axis, mesh) for array, axis in zip(reading.arrays, axes, strict=True)
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


def mesh_of(reading: ModelReading, mesh: Mesh | None) -> tuple[Mesh | None, list[NamedSharding]]:
    """The mesh given, or that on which arrays lie, and how these lie on several devices."""
    given = [*reading.arrays, *jax.tree.leaves(reading.center)]
    own = [sharding for sharding in map(sharding_of, given) if sharding is not None]
    if mesh is None and own:
        mesh = max(map(plain, own), key=lambda one: len(one.axis_names))
    return mesh, own


def row_axes(reading: ModelReading) -> tuple[int | None, ...]:
    """The axis of each array that holds the rows of the data: as batches take it, or the first."""
    batching = reading.program.batching
    if batching is not None and not batching.indexed:
        return batching.axes
    rows = {loss.shape[:1] for loss in reading.center_losses.values()} - {()}
    return tuple(0 if array.shape[:1] in rows else None for array in reading.arrays)


def _padded(reading: ModelReading, mesh: Mesh) -> ModelReading:
    """The reading with as many rows for each device, some of them twice, which do not count."""
    devices = mesh.shape.get(DATA, 1)
    pairs = list(zip(reading.arrays, row_axes(reading), strict=True))
    whole = [x.shape[axis] for x, axis in pairs if axis is not None and _num_shards(x, axis) == 1]
    if not any(count % devices for count in whole):
        return reading
    problem = (
        f"`mesh` has {devices} devices along {DATA!r}, which do not divide the {max(whole)} rows "
        f"of the data. Use a number of devices that does, or leave {max(whole) % devices} rows out"
    )
    if max(whole) < devices:
        raise ValueError(f"{problem}.")
    try:
        program = with_batches(reading) if reading.program.batching is None else reading.program
    except ValueError as error:
        raise ValueError(
            f"{problem}; for rows cannot be taken out of the model: {error}"
        ) from error
    batching = replace(program.require_batching(), shards=devices)
    if batching.indexed:
        raise ValueError(
            f"{problem}; or pass the data as arguments as long as the data, not indexed by the "
            "indices of a plate."
        )
    arrays = tuple(
        x if axis is None else batching.places.padded(x, axis)
        for x, axis in zip(reading.arrays, batching.axes, strict=True)
    )
    return replace(reading, program=replace(program, batching=batching), arrays=arrays)


def _laid_rows(array: jax.Array, axis: int | None, mesh: Mesh) -> jax.Array:
    devices = mesh.shape.get(DATA, 1)
    if axis is None or devices == 1 or _num_shards(array, axis) > 1:
        return _kept(array, mesh)
    axis = axis % array.ndim
    if array.shape[axis] % devices:
        return _kept(array, mesh)
    spec = PartitionSpec(*(None,) * axis, DATA)
    return jax.device_put(array, NamedSharding(mesh, spec))


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
