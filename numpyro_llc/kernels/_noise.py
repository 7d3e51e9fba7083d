"""Random numbers of the stochastic-gradient kernels."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from numpyro_llc.models import Parameters

LARGE = 65_536
"""Above this many coordinates, noise is a sum of 32 fair coins, and chains are taken in turn."""


def fold(keys: jax.Array, i: Any, k: Any) -> jax.Array:
    """The keys of each chain for purpose `k` of step `i`."""

    def one(key: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(key, i), k)

    return jax.vmap(one)(keys)


def chain_map(function: Callable[[Any], Any], stacked: Any, size: int | None = None) -> Any:
    """`function` of each chain: of all at once, or of one after the other where they are large.

    Random bits and products of the noise take several times the memory of what comes out.
    `size` is the number of coordinates of a chain, that of `stacked` if left out.
    """
    if size is None:
        size = sum(leaf[0].size for leaf in jax.tree.leaves(stacked))
    return (jax.vmap(function) if size <= LARGE else partial(jax.lax.map, function))(stacked)


def standard_noise(keys: jax.Array, like: Parameters) -> Parameters:
    """Independent noise of mean 0 and variance 1 for each coordinate of each chain.

    A Gaussian costs about twice the random bits that it is made of, so for large models it is the
    centred number of ones among 32 bits: moments as the Gaussian's up to the third, a fourth of
    2.94 instead of 3. The order of the discretization stays (Milstein & Tretyakov 2004, ch. 2).
    """
    paths, treedef = jax.tree.flatten(like)
    size = sum(leaf[0].size for leaf in paths)

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        if size <= LARGE:
            return jax.random.normal(key, shape, dtype)
        ones = jax.lax.population_count(jax.random.bits(key, shape, jnp.uint32))
        return (ones.astype(dtype) - 16.0) * (8.0**-0.5)

    def leaf_noise(k: int, leaf: jax.Array) -> jax.Array:
        def one(key: jax.Array) -> jax.Array:
            return draw(jax.random.fold_in(key, k), leaf.shape[1:], leaf.dtype)

        return chain_map(one, keys, size)

    return jax.tree.unflatten(treedef, [leaf_noise(k, leaf) for k, leaf in enumerate(paths)])
