"""Random numbers of the stochastic-gradient kernels."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc.local import chain_size, in_turn, whole
from numpyro_llc.models import Parameters

LARGE = 65_536
"""Above this many coordinates, noise is made of 8 random bits each."""
SIDE_BY_SIDE = 2**24
"""Up to this many, chains are taken side by side on GPUs, which one of them would leave idle, where
several vectors of a chain are held at once; CPUs take them in turn above ``LARGE``."""
HUGE = 2**22
"""Above this many, a chain does without what holds vectors of it beside the steps: a copy of the
lowest point in compiled code, and the acceptance of a Metropolis test."""
ATOM, TAIL = (256 / 86) ** 0.5, 43
"""Noise of 8 bits is ±ATOM for ``TAIL`` of the 256 codes each, and 0 for the others."""
BLOCK = 2**18
"""Most words of random bits that one key gives: few enough for the cache of a CPU, which makes
those of one key at once. Other devices make those of some keys."""
KEYS_AT_ONCE = 16

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


def in_turns(size: int) -> bool:
    """Whether chains of `size` coordinates are taken one after the other, for their memory."""
    return size > (LARGE if jax.default_backend() == "cpu" else SIDE_BY_SIDE)


def standard_noise(keys: jax.Array, like: Parameters) -> jax.Array:
    """Independent noise of mean 0 and variance 1 for each coordinate of each chain, packed.

    A vector ``[chain, coordinate]``, of which `unpacked` gives the numbers. A Gaussian takes 32
    random bits and many operations, so for large models the noise has three values, held as -1, 0
    and 1 in a byte each. Its first, second, third and fifth moments are the Gaussian's; the fourth
    is 2.98 instead of 3. The order of the discretization stays (Milstein & Tretyakov 2004, ch. 2).
    """
    size, dtype = chain_size(like), jnp.result_type(*jax.tree.leaves(like))

    def draw(keys: jax.Array) -> jax.Array:
        if size <= LARGE:
            return jax.vmap(lambda key: jax.random.normal(key, (size,), dtype))(keys)
        signs = partial(_signs, size=size)
        return jax.lax.map(signs, keys) if in_turns(size) else jax.vmap(signs)(keys)

    # One vector for all leaves: a generator for each takes seconds to compile.
    return whole(in_turn(draw, keys, in_turns(size)))


def _signs(key: jax.Array, size: int) -> jax.Array:
    """-1, 0 and 1 with the probabilities 43, 170 and 43 of 256, ``[size]`` bytes."""
    words = -(-size // 4)
    blocks = -(-words // BLOCK)

    def block(key: jax.Array) -> jax.Array:
        bits = jax.random.bits(key, (-(-words // blocks),), jnp.uint32)
        return signs_of(jax.lax.bitcast_convert_type(bits, jnp.uint8)).reshape(-1)

    at_once = None if jax.default_backend() == "cpu" else KEYS_AT_ONCE
    keys = jax.random.split(key, blocks)
    return jax.lax.map(block, keys, batch_size=at_once).reshape(-1)[:size]


def signs_of(codes: jax.Array) -> jax.Array:
    """The sign, or 0, of the noise of each code of 8 random bits."""
    return (codes < TAIL).astype(jnp.int8) - (codes >= 256 - TAIL).astype(jnp.int8)


def unpacked(noise: jax.Array, like: Parameters) -> Parameters:
    """The numbers of noise, in the form and the float types of `like`."""
    leaves, treedef = jax.tree.flatten(like)
    ends = np.cumsum([leaf[0].size for leaf in leaves])

    def one(x: jax.Array, like: jax.Array) -> jax.Array:
        numbers = x.astype(like.dtype).reshape(like.shape)
        return ATOM * numbers if x.dtype == jnp.int8 else numbers

    parts = map(whole, jnp.split(noise, ends[:-1], axis=1))
    return jax.tree.unflatten(treedef, map(one, parts, leaves))
