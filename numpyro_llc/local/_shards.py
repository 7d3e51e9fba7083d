"""Chains on several devices: each takes its own, where chains go one after the other."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from numpyro_llc.models import PyTree

CHAINS, DATA = "chain", "data"
"""The axes of a mesh along which chains and rows of the data lie."""

_mesh: ContextVar[Mesh | None] = ContextVar("mesh", default=None)


@contextmanager
def chains_on(mesh: Mesh | None) -> Iterator[None]:
    """What is traced here has its chains along an axis of this mesh, if it has such an axis."""
    token = _mesh.set(mesh)
    try:
        yield
    finally:
        _mesh.reset(token)


def over_devices(function: Callable[[PyTree], PyTree], stacked: PyTree) -> PyTree:
    """``function`` of the chains of each device, where it takes stacked chains one by one.

    Leaves ``[chain, ...]`` in, ``[chain, ...]`` out. Of one loop over all chains each device would
    run all of it. Where the devices do not divide the chains, some take the last chain again.
    """
    mesh = _mesh.get()
    devices = 1 if mesh is None else mesh.shape.get(CHAINS, 1)
    if mesh is None or devices == 1:
        return function(stacked)
    chains = jax.tree.leaves(stacked)[0].shape[0]
    pad = -chains % devices

    def split(leaf: jax.Array) -> jax.Array:
        parts = with_last_again(leaf, pad).reshape(devices, -1, *leaf.shape[1:])
        rest = (PartitionSpec.UNCONSTRAINED,) * (parts.ndim - 1)
        sharding = NamedSharding(mesh, PartitionSpec(CHAINS, *rest))
        return jax.lax.with_sharding_constraint(parts, sharding)

    done = jax.vmap(function)(jax.tree.map(split, stacked))
    return jax.tree.map(lambda leaf: jax.lax.collapse(leaf, 0, 2)[:chains], done)


def with_last_again(stacked: jax.Array, count: int) -> jax.Array:
    """An array with its last item `count` times more, so that devices divide them."""
    if not count:
        return stacked
    return jnp.concatenate([stacked, jnp.repeat(stacked[-1:], count, axis=0)])


def whole(stacked: jax.Array) -> jax.Array:
    """An array ``[chain, ...]`` of which each device holds all numbers of its chains.

    Noise is made so: a device that holds some of the parameters makes the noise of all, which takes
    no messages between devices.
    """
    mesh = _mesh.get()
    if mesh is None:
        return stacked
    spec = PartitionSpec(CHAINS if CHAINS in mesh.shape else None)
    return jax.lax.with_sharding_constraint(stacked, NamedSharding(mesh, spec))
