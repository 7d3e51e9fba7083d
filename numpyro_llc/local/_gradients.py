"""Gradients of the local potential from the full data or from rows, and the noise of the latter.

All functions see the chains stacked: leaves of `z` are ``[chain, ...]``. One batch of rows serves
all chains, so that what depends on the rows alone is computed once.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc.local._derivatives import Function, hessian_product, push_and_pull
from numpyro_llc.local._target import LocalTarget
from numpyro_llc.models import Batch, Parameters, PyTree, Rows, ShardsOfRows, fetched

NUMBERS = 2**31 - 1
"""Of the rows of a stream: so many that no two batches have the same."""


class Anchor(NamedTuple):
    """What control variates need of the centre.

    Attributes
    ----------
    gradient : dict
        ``β ∇nL(z*)`` over the full data.
    """

    gradient: Parameters


def make_anchor(target: LocalTarget) -> Anchor:
    """Gradient at the centre, summed over the data in slices of rows."""
    center = target.center
    if target.truth is not None:  # of divergences from the centre it is 0, datum by datum
        return Anchor(jax.tree.map(jnp.zeros_like, center))
    if target.program.batching is None:
        return Anchor(jax.grad(lambda z: target.tempered_loss(z, None))(center))

    def of_slice(rows: Rows, weights: jax.Array) -> Parameters:
        beta = target.inverse_temperature
        return jax.grad(lambda z: beta * (weights @ target.row_losses(z, rows)))(center)

    return Anchor(target.over_slices(of_slice))


def draw_rows(key: jax.Array, target: LocalTarget, batch_size: int | None) -> Rows | None:
    """`batch_size` rows, with replacement, in O(`batch_size`); None for the full data."""
    if batch_size is None:
        return None
    return drawn(target, draw_batches(key, target, 1, batch_size)[0])


def drawn(target: LocalTarget, rows: jax.Array, upcoming: jax.Array | None = None) -> Rows:
    """The rows of batches, ``[..., row]``: of these numbers, or the next of a stream.

    A stream gives other batches for other numbers, and for the same numbers soon after the same.
    `upcoming` are read ahead.
    """
    if not target.stream:
        return target.fetched(rows, upcoming)
    read = fetched(target.stream, rows, upcoming)
    return Batch(rows, read + (None,) * (len(target.arrays) - len(read)))


def later_drawn(
    k: jax.Array, first: Rows, drawn: Callable[[jax.Array], Rows | None]
) -> Rows | None:
    """`first` for substep 0, then ``drawn(k)``: by a loop of one turn or none.

    Side by side, blocks of chains take both branches of a ``cond``, and would read at each step.
    """
    # A draw that did not depend on the turn, XLA would move out of the loop.
    begin: tuple[jax.Array, Rows | None] = jnp.maximum(k - 1, 0), first
    return jax.lax.while_loop(
        lambda at: at[0] < k, lambda at: (at[0] + 1, drawn(at[0] + 1)), begin
    )[1]


def draw_batches(key: jax.Array, target: LocalTarget, count: int, size: int) -> jax.Array:
    """Row numbers of `count` batches, ``[count, size]``.

    As many of each shard of the rows, that is, a stratified sample. A row is the remainder of 32
    random bits, so that it is drawn more often than another by at most `num_rows` / 2³².
    ``jax.random.randint`` calls the generator three times, each of which takes as long to compile
    as the gradient of a small model.
    """
    parts = ShardsOfRows(NUMBERS, 1)
    if not target.stream:
        parts = target.program.require_batching().places
    bits = jax.random.bits(key, (count, parts.count, size // parts.count), jnp.uint32)
    places = (bits % parts.lengths.astype(np.uint32)[:, None]).astype(jnp.int32)
    return (places + parts.length * jnp.arange(parts.count)[:, None]).reshape(count, -1)


def part_of(target: LocalTarget, rows: Rows, first: int, last: int) -> Rows:
    """Those of a batch from place `first` to before `last` in each shard."""
    if isinstance(rows, Batch):  # of which there are no shards
        return jax.tree.map(lambda leaf: leaf[first:last], rows)
    return rows.reshape(target.num_shards, -1)[:, first:last].reshape(-1)


def potential_gradient(
    target: LocalTarget,
    z: Parameters,
    rows: Rows | None,
    anchor: Anchor,
    use_anchor: bool | jax.Array,
) -> Parameters:
    """``∇U(z)`` of each chain, unbiased from `rows`; with control variates if `use_anchor`."""
    own = jax.vmap(_gradient_at(target, rows))(z)
    if rows is None or target.truth is not None:
        return own

    def anchored() -> tuple[Parameters, jax.Array]:
        there = jax.grad(lambda one: target.tempered_loss(one, rows))(target.center)
        return there, jnp.ones(())

    def plain() -> tuple[Parameters, jax.Array]:
        return jax.tree.map(jnp.zeros_like, target.center), jnp.zeros(())

    # What is chosen is the centre's own part: the gradients of all chains would be held twice.
    there, share = jax.lax.cond(use_anchor, anchored, plain)
    return jax.tree.map(lambda g, t, full: g - t + share * full, own, there, anchor.gradient)


def _gradient_at(target: LocalTarget, rows: Rows | None) -> Function:
    """From z of one chain to ``∇U(z)``, from `rows`."""

    def gradient(z: Parameters) -> Parameters:
        of_loss = jax.grad(lambda one: target.tempered_loss(one, rows))(z)
        return jax.tree.map(jnp.add, of_loss, target.penalty_gradient(z))

    return gradient


def noise_product(
    target: LocalTarget,
    z: Parameters,
    direction: Parameters,
    rows: Rows,
    batch_size: int,
    use_anchor: bool | jax.Array,
) -> tuple[Parameters, jax.Array]:
    """Unbiased estimates of ``V v`` and ``v·Vv``, V the covariance of a batch gradient at `z`.

    Of one chain.

    ``V = Cov_i[β N ∇ℓ_i] / batch_size`` (with control variates, of the differences from the
    centre); its product with `direction` takes one Jacobian-vector product, which gives
    ``s_i = β N ∇ℓ_i · v``, and one vector-Jacobian product with the centred `s`. Of a batch with
    as many rows of each of k shards, V is ``Σ_s Cov_s / (k batch_size)``, s the shards.
    """
    shards = target.num_shards

    def weighted(value: jax.Array) -> jax.Array:
        parts = value.reshape(shards, -1)
        centered = parts - jnp.mean(parts, axis=1, keepdims=True)
        return centered.reshape(-1) / ((parts.shape[1] - 1) * shards * batch_size)

    def plain(z: Parameters, v: Parameters) -> tuple[Parameters, jax.Array]:
        along, back = push_and_pull(
            lambda one: target.row_terms(one, rows), z, v, forward=target.program.has_forward_mode
        )
        return back(weighted(along)), jnp.sum(along * weighted(along))

    def anchored(z: Parameters, v: Parameters) -> tuple[Parameters, jax.Array]:
        def difference(both: tuple[Parameters, Parameters]) -> jax.Array:
            return target.row_terms(both[0], rows) - target.row_terms(both[1], rows)

        along, back = push_and_pull(
            difference, (z, target.center), (v, v), forward=target.program.has_forward_mode
        )
        product = jax.tree.map(jnp.add, *back(weighted(along)))
        return product, jnp.sum(along * weighted(along))

    if target.truth is not None:
        return plain(z, direction)
    return jax.lax.cond(use_anchor, lambda: anchored(z, direction), lambda: plain(z, direction))


def square_norm(tree: PyTree) -> jax.Array:
    """Sum of squares over all but the leading axis, ``[chain]``."""
    parts = [
        jnp.sum(jnp.square(leaf), axis=tuple(range(1, leaf.ndim))) for leaf in jax.tree.leaves(tree)
    ]
    return sum(parts[1:], parts[0])


def noise_samples(target: LocalTarget, z: Parameters, rows: Rows) -> tuple[Parameters, Parameters]:
    """Draws of zero mean whose covariance is V of a gradient from this many rows.

    The first with control variates, the second without: half the difference of the gradients from
    two halves of the rows, in which full gradients and the localization cancel. Of a signed sum
    over the rows, so that one gradient is held and not two.
    """
    half = len(rows) // (2 * target.num_shards)
    both = part_of(target, rows, 0, 2 * half)
    signs = jnp.tile(jnp.repeat(jnp.array([1.0, -1.0]), half), target.num_shards) / len(both)

    def sample(point: Parameters) -> Parameters:
        return jax.grad(lambda one: target.row_terms(one, both) @ signs)(point)

    here = jax.vmap(sample)(z)
    if target.truth is not None:  # the gradient of each row at the centre is 0
        return here, here
    return jax.tree.map(jnp.subtract, here, sample(target.center)), here


def curvature_product(
    target: LocalTarget, z: Parameters, v: Parameters, rows: Rows | None
) -> Parameters:
    """``∇²U(z) v`` of each chain, from `rows`."""

    def one(z: Parameters, v: Parameters) -> Parameters:
        forward = target.program.has_forward_mode
        return hessian_product(_gradient_at(target, rows), z, v, forward=forward)

    return jax.vmap(one)(z, v)
