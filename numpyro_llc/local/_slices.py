"""Rows of the data cut into slices, which are looked at one after the other."""

from collections.abc import Callable
from types import ModuleType

import jax
import jax.numpy as jnp

from numpyro_llc.models import PyTree, Rows


def cut_rows(xp: ModuleType, rows: PyTree, shards: int, most: int) -> tuple[PyTree, PyTree]:
    """Row numbers in slices of at most `most`, and weights, by functions of `xp` (NumPy or JAX's).

    Two arrays ``[slices, rows]``, each slice with as many rows of each shard.
    """
    parts = rows.reshape(shards, -1)
    count = -(-rows.size // most)
    length = -(-parts.shape[1] // count)
    pad = (0, 0), (0, count * length - parts.shape[1])
    padded, weights = xp.pad(parts, pad, mode="edge"), xp.pad(xp.ones(parts.shape), pad)

    def slices(of_parts: PyTree) -> PyTree:
        return xp.moveaxis(of_parts.reshape(-1, count, length), 1, 0).reshape(count, -1)

    return slices(padded), slices(weights)


def sum_over_parts(
    terms: Callable[[Rows, jax.Array], PyTree], rows: jax.Array, weights: jax.Array
) -> PyTree:
    """The sum of ``terms(rows, weights)`` over slices ``[slice, row]`` of rows in memory.

    Derivatives evaluate a slice again: of one nothing is kept.
    """

    def add(total: PyTree, part: tuple[jax.Array, jax.Array]) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, terms(*part)), None

    nothing = _zeros_like(jax.eval_shape(terms, rows[0], weights[0]))
    return jax.lax.scan(jax.checkpoint(add, prevent_cse=False), nothing, (rows, weights))[0]


def sum_over_slices(
    num_rows: int,
    most: int,
    fetch: Callable[[jax.Array, jax.Array], Rows],
    terms: Callable[[Rows, jax.Array], PyTree],
) -> PyTree:
    """The sum of ``terms(rows, weights)`` over slices of all rows, of which one is held at a time.

    A slice has at most `most` rows.
    ``fetch(rows, upcoming)`` reads them. Derivatives read them again: nothing of a slice is kept.
    """
    count = -(-num_rows // most)
    length = -(-num_rows // count)

    def numbers(k: jax.Array) -> jax.Array:
        return (k % count) * length + jnp.arange(length, dtype=jnp.int32)

    def of_slice(k: jax.Array) -> PyTree:
        here, last = numbers(k), num_rows - 1
        rows = fetch(jnp.minimum(here, last), jnp.minimum(numbers(k + 1), last))
        return terms(rows, (here <= last).astype(jnp.result_type(float)))

    def add(total: PyTree, k: jax.Array) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, of_slice(k)), None

    nothing = _zeros_like(jax.eval_shape(of_slice, jnp.zeros((), jnp.int32)))
    places = jnp.arange(count, dtype=jnp.int32)
    return jax.lax.scan(jax.checkpoint(add, prevent_cse=False), nothing, places)[0]


def _zeros_like(shapes: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
