"""How the parameters and chains of a run lie over the axes of a mesh of devices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from numpyro_llc.local import CHAINS
from numpyro_llc.models import Parameters, PyTree


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
    if missing := set().union(*map(names_of, specs)) - set(mesh.shape):
        raise ValueError(
            f"`center` is sharded along {sorted(missing)}; `mesh` has {dict(mesh.shape)}. Add the "
            "axes to `mesh`, or move `center` with jax.device_put."
        )
    return Placement(mesh, tuple(specs))


def names_of(spec: PartitionSpec) -> set[str]:
    """The axes of a mesh that a spec speaks of."""
    groups = [(names,) if isinstance(names, str) else names or () for names in spec]
    return {name for names in groups for name in names}


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
