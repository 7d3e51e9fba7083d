"""Where chains are, and the lowest point that a draw had: in compiled code, or beside it."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc.kernels import HUGE, Sampler
from numpyro_llc.local import LocalTarget
from numpyro_llc.models import Parameters, PyTree, on_host
from numpyro_llc.sampling._layout import Layout, over_blocks

Lowest = tuple[jax.Array, Parameters | None]
"""``nL(z) - nL(z*)`` in nats, at most 0, and z, if compiled code holds it; the centre, where
nothing lower was seen."""


class Progress(NamedTuple):
    """Where a block of chains is: the sampler's state, and the lowest loss that a draw had.

    Attributes
    ----------
    state : pytree
    lowest : tuple of a scalar, and of a dict or None
    """

    state: PyTree
    lowest: Lowest

    @property
    def holds_point(self) -> bool:
        """Whether the lowest point is here, and not beside."""
        return self.lowest[1] is not None

    def state_of_block(self, block: int) -> PyTree:
        """The sampler's state of one block, with a leading axis of length 1."""
        own = slice(block, block + 1)
        return jax.tree.map(lambda leaf: leaf[own] if leaf.ndim else leaf, self.state)

    def with_point(self, point: Parameters) -> "Progress":
        """The same with the lowest point, `point` where it is beside."""
        return self if self.holds_point else self._replace(lowest=(self.lowest[0], point))

    def apart(self, holds_point: bool) -> tuple["Progress", Parameters | None]:
        """Progress that holds the lowest point, or progress without it and the point."""
        depth, point = self.lowest
        return (self, None) if holds_point else (self._replace(lowest=(depth, None)), point)


def center_as_lowest(target: LocalTarget) -> Lowest:
    """Of chains that have not drawn.

    Of huge chains no copy goes through compiled code: it is made beside when a draw is lower, for
    which Python sees each draw by itself.
    """
    return jnp.zeros(()), target.center if target.dimension <= HUGE else None


def lower(lowest: Lowest, excess: jax.Array, z: Parameters) -> Lowest:
    """The lower of `lowest` and the lowest of the chains."""
    chain = jnp.argmin(jnp.where(jnp.isnan(excess), jnp.inf, excess))
    new = _of_chain((excess, None if lowest[1] is None else z), chain)
    return jax.tree.map(partial(jnp.where, new[0] < lowest[0]), new, lowest)


def _of_chain(stacked: PyTree, chain: int | jax.Array) -> PyTree:
    """One of stacked chains: by a sum, which chains on several devices add up."""

    def one(leaf: jax.Array) -> jax.Array:
        chosen = (jnp.arange(leaf.shape[0]) == chain).reshape(-1, *(1,) * (leaf.ndim - 1))
        return jnp.sum(jnp.where(chosen, leaf, 0), axis=0)

    return jax.tree.map(one, stacked)


def point_after(
    sampler: Sampler,
    layout: Layout,
    progress: Progress,
    seen: Mapping[str, PyTree],
    point: Parameters | None,
) -> Parameters | None:
    """The lowest point beside compiled code after one more draw, of which this was `seen`.

    None where no draw was lower than the centre.
    """
    depth = np.min(on_host(progress.lowest[0]))
    excess = seen["excess_loss"].reshape(-1)
    found = np.where(np.isnan(excess), np.inf, excess)
    if progress.holds_point or not depth < 0 or found.min() != depth:
        return point
    return _position(sampler, layout, progress.state, int(found.argmin()))


@partial(jax.jit, static_argnums=(0, 1))
def _position(
    sampler: Sampler, layout: Layout, state: PyTree, chain: int | jax.Array
) -> Parameters:
    """Where one of the chains of all blocks is."""
    with layout.tracing():
        z = over_blocks(sampler.position, layout, (sampler.block_axes, 0))(state)
    chains: Parameters = jax.tree.map(lambda leaf: jax.lax.collapse(leaf, 0, 2), z)
    return _of_chain(chains, chain)


def lowest_of(progress: Progress, point: Parameters | None) -> tuple[float, Parameters | None]:
    """The lowest loss that a draw of any block had, as ``Draws.lowest``; None for the centre.

    `point` is what lies beside.
    """
    depths = on_host(progress.lowest[0])
    block = int(np.argmin(depths))
    depth = float(depths[block])
    if depth < 0 and progress.holds_point:
        point = _at(progress.lowest[1], block)
    return depth, point if depth < 0 else None


@jax.jit
def _at(stacked: PyTree, place: int | jax.Array) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[place], stacked)
