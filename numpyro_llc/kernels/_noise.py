"""Random numbers of the stochastic-gradient kernels."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc.local import over_devices, whole
from numpyro_llc.models import Parameters, PyTree

LARGE = 65_536
"""Above this many coordinates, noise is a sum of 32 fair coins, and chains are taken in turn."""

START = 2**32 - 1
"""In place of a step's number, for the momenta at the start."""
CALIBRATING, OBSERVING, FIRST_SUBSTEP = 0, 2, 3
"""Purposes of a step's keys: calibration has two, and each substep."""


def at_step(keys: jax.Array, i: int | jax.Array) -> jax.Array:
    """The key of each chain for step `i`, or of a step's keys those for purpose `i`."""
    return jax.vmap(lambda key: jax.random.fold_in(key, i))(keys)


def two_purposes(keys: jax.Array, first: int | jax.Array) -> jax.Array:
    """Of a step's keys those for purpose `first` and the next, ``[2, chain]``.

    From one call of the generator, each of which takes long to compile.
    """
    return jax.vmap(at_step, in_axes=(None, 0))(keys, first + jnp.arange(2))


def chain_map(
    function: Callable[[PyTree], PyTree], stacked: PyTree, size: int | None = None
) -> PyTree:
    """`function` of each chain: of all at once, or, where they are large, of one after the other.

    Random bits and products of the noise take several times the memory of what comes out.
    `size` is the number of coordinates of a chain, that of `stacked` if left out.
    """
    if size is None:
        size = sum(leaf[0].size for leaf in jax.tree.leaves(stacked))
    if size <= LARGE:
        return jax.vmap(function)(stacked)
    return over_devices(partial(jax.lax.map, function), stacked)


def standard_noise(keys: jax.Array, like: Parameters) -> Parameters:
    """Independent noise of mean 0 and variance 1 for each coordinate of each chain.

    A Gaussian costs about twice the random bits that it is made of, so for large models it is the
    centred number of ones among 32 bits: moments as the Gaussian's up to the third, a fourth of
    2.94 instead of 3. The order of the discretization stays (Milstein & Tretyakov 2004, ch. 2).
    """
    leaves, treedef = jax.tree.flatten(like)
    ends = np.cumsum([leaf[0].size for leaf in leaves])
    size, dtype = int(ends[-1]), jnp.result_type(*leaves)

    def draw(key: jax.Array) -> jax.Array:
        if size <= LARGE:
            return jax.random.normal(key, (size,), dtype)
        ones = jax.lax.population_count(jax.random.bits(key, (size,), jnp.uint32))
        return (ones.astype(dtype) - 16.0) * (8.0**-0.5)

    # One vector for all leaves: a generator for each takes seconds to compile.
    parts = map(whole, jnp.split(whole(chain_map(draw, keys, size)), ends[:-1], axis=1))
    noise = [
        x.reshape(leaf.shape).astype(leaf.dtype) for x, leaf in zip(parts, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, noise)
