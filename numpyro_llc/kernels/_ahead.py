"""Many steps of the chains; rows that lie elsewhere are read for a block of steps at once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc.kernels._noise import FIRST_SUBSTEP, at_step, two_purposes
from numpyro_llc.kernels._sampler import Sampler
from numpyro_llc.kernels._state import StochasticState
from numpyro_llc.kernels._stochastic import StochasticSampler
from numpyro_llc.local import LocalTarget, draw_batches, drawn
from numpyro_llc.models import Batch, PyTree

BLOCK_BYTES = 2**23
"""Data of a block of steps."""
MOST_STEPS = 64
"""Steps of a block: reading then starts so rarely that starting costs nothing."""


def steps(
    sampler: Sampler,
    state: PyTree,
    target: LocalTarget,
    count: int | jax.Array,
    laid: Callable[[PyTree], PyTree],
) -> PyTree:
    """The state after `count` transitions, each of them ``laid`` where it should lie."""
    if isinstance(sampler, StochasticSampler) and reads_batches(target):
        return _in_blocks(sampler, state, target, count)
    return jax.lax.fori_loop(0, count, lambda _, s: laid(sampler.step(s, target)), state)


def _in_blocks(
    sampler: StochasticSampler,
    state: StochasticState,
    target: LocalTarget,
    count: int | jax.Array,
) -> StochasticState:
    """Blocks begin at multiples of their length, so that a draw within one reads nothing twice."""
    assert sampler.batch_size is not None  # `make_plan` saw to it
    size, end = sampler.batch_size, state.i + count
    length = block_length(target, size)

    def numbers(first: jax.Array) -> jax.Array:
        """Rows of the first substeps of a block, ``[step, row]``."""

        def one(i: jax.Array) -> jax.Array:
            _, (key,) = two_purposes(at_step(state.rng_key[:1], i), FIRST_SUBSTEP)
            return draw_batches(key, target, 1, size)[0]

        return jax.vmap(one)(first + jnp.arange(length))

    def block(state: StochasticState) -> StochasticState:
        first = state.i - state.i % length
        rows = drawn(target, numbers(first), numbers(first + length))

        def step(i: jax.Array, state: StochasticState) -> StochasticState:
            of_step: Batch = jax.tree.map(lambda leaf: leaf[i - first], rows)
            return sampler.step(state, target, of_step)

        return jax.lax.fori_loop(state.i, jnp.minimum(first + length, end), step, state)

    return jax.lax.while_loop(lambda state: state.i < end, block, state)


def reads_batches(target: LocalTarget) -> bool:
    """Whether rows of batches are not in memory."""
    return target.is_elsewhere or bool(target.stream)


def block_length(target: LocalTarget, batch_size: int) -> int:
    """Steps of which the rows are read at once."""
    return int(np.clip(BLOCK_BYTES // max(1, target.row_bytes * batch_size), 1, MOST_STEPS))


def bytes_ahead(sampler: Sampler, target: LocalTarget) -> int:
    """What the rows take that are read for blocks of steps: on the device, read, being read."""
    if not isinstance(sampler, StochasticSampler) or not reads_batches(target):
        return 0
    assert sampler.batch_size is not None  # `make_plan` saw to it
    size = sampler.batch_size
    return 3 * block_length(target, size) * size * target.row_bytes
