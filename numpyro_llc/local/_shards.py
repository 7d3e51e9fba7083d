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


def chain_size(stacked: PyTree) -> int:
    """Coordinates of one chain."""
    return sum(leaf[0].size for leaf in jax.tree.leaves(stacked))


def in_turn(function: Callable[[PyTree], PyTree], stacked: PyTree, is_large: bool) -> PyTree:
    """``function`` of stacked chains; where they are large, of one after the other.

    `function` takes and gives leaves ``[chain, ...]``, of any number of chains. What it needs
    beside these is then held for one chain at a time.
    """
    if not is_large:
        return function(stacked)

    def one(chain: PyTree) -> PyTree:
        found = function(jax.tree.map(lambda leaf: leaf[None], chain))
        return jax.tree.map(lambda leaf: leaf[0], found)

    def of_device(some: PyTree) -> PyTree:
        return function(some) if _is_one(some) else jax.lax.map(one, some)

    return over_devices(of_device, stacked)


def replaced_in_turn(
    function: Callable[..., PyTree],
    stacked: PyTree,
    others: tuple[PyTree, ...],
    is_large: bool,
) -> PyTree:
    """``function(stacked, *others)``, of the form of `stacked`; see :func:`in_turn`.

    Large chains are written over one by one: those before and after are not held together.
    """
    if not is_large:
        return function(stacked, *others)

    def of_device(part: tuple[PyTree, tuple[PyTree, ...]]) -> PyTree:
        if _is_one(part):
            return function(part[0], *part[1])

        def turn(k: jax.Array, replaced: PyTree) -> PyTree:
            def take(leaf: jax.Array) -> jax.Array:
                return jax.lax.dynamic_slice_in_dim(leaf, k, 1)

            new = function(*jax.tree.map(take, (replaced, *part[1])))
            return jax.tree.map(
                lambda leaf, x: jax.lax.dynamic_update_slice_in_dim(leaf, x, k, 0), replaced, new
            )

        return jax.lax.fori_loop(0, jax.tree.leaves(part[0])[0].shape[0], turn, part[0])

    return over_devices(of_device, (stacked, others))


def _is_one(stacked: PyTree) -> bool:
    return bool(jax.tree.leaves(stacked)[0].shape[0] == 1)


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
