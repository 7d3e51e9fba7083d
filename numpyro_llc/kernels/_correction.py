"""What takes the noise of batch gradients off again."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from numpyro_llc.kernels._rule import Rule, Scalar
from numpyro_llc.kernels._tuning import Tuning, above_zero
from numpyro_llc.local import LocalTarget, inner, noise_product, part_of
from numpyro_llc.models import Parameters, Rows

WORTH_CORRECTING = 0.002
"""Noise that adds less than this share of λ̂ is left: a fifth of what automatic runs want."""
PART = 4
"""V is estimated from one of this many rows of the batch. Of large models it is from all of them,
at one of as many steps and as many times as strongly. That is by as many rows, of which more at
once tell V better, and at less of what a product with V costs beside its rows."""
GOLDEN = 2654435769
"""2³² over the golden ratio: multiples of it, modulo 2³², are spread as evenly as can be."""
Found = tuple[Parameters, Parameters, jax.Array]
"""What a ``TakingOff`` returns."""


class Correction(NamedTuple):
    """How the gradients of one step's batch are corrected for their noise.

    Attributes
    ----------
    rule : Rule
    target : LocalTarget
    rows : Rows
        Of the batch.
    tuning : Tuning
    use_anchor : scalar
        Whether the gradients have control variates.
    noise : scalar
        ``tr V`` of these gradients.
    is_large : bool
        Whether chains are.
    """

    rule: Rule
    target: LocalTarget
    rows: Rows
    tuning: Tuning
    use_anchor: jax.Array
    noise: jax.Array
    is_large: bool

    @property
    def is_worthwhile(self) -> jax.Array:
        """Whether the noise would matter against the rest of λ̂'s error if it were left."""
        tuning = self.tuning
        largest = jnp.maximum(self.noise, tuning.noise_left)  # rare rows show in the second alone
        added = self.rule.noise_share(tuning.step_size, largest)
        return jnp.asarray(added > WORTH_CORRECTING * tuning.least)

    @property
    def num_rows(self) -> int:
        """Rows of a shard that V is estimated from, spread over all steps."""
        return max(2, len(self.rows) // (PART * self.target.num_shards))

    @property
    def period(self) -> int:
        """At one of how many steps noise is taken off."""
        most = len(self.rows) // self.target.num_shards
        return most // self.num_rows if self.is_large else 1

    @property
    def is_now(self) -> jax.Array:
        """Whether noise is taken off at this step: at times that keep step with nothing."""
        turn = self.tuning.gradients.astype(jnp.uint32) * jnp.uint32(GOLDEN) // jnp.uint32(2**16)
        return self.is_worthwhile & (turn * jnp.uint32(self.period) < 2**16)

    def taken_off(
        self, z: Parameters, v: Parameters, share: jax.Array, time: Scalar | None
    ) -> Found:
        """A ``TakingOff``."""
        rows = part_of(self.target, self.rows, 0, self.period * self.num_rows)
        scaled = self.tuning.scaled
        square = jnp.mean(self.tuning.square_gradient)

        def one(z: Parameters, v: Parameters) -> tuple[Parameters, jax.Array]:
            size, use_anchor = len(self.rows), self.use_anchor
            pushed, along = noise_product(self.target, z, scaled(v), rows, size, use_anchor)
            is_momentum, strength = time is not None, self.period * share
            less, left = contracted(v, scaled(pushed), along, strength, is_momentum)
            return less, jnp.where(square > 0, left / above_zero(square), 0.0)

        def turn(_: jax.Array, found: Found) -> Found:
            # What does not depend on the turn, XLA would move out of the loop.
            z, v, _ = jax.lax.optimization_barrier(found)
            if time is None:
                return z, *jax.vmap(one)(z, v)
            z = moved(z, v, -time)
            v, left = jax.vmap(one)(z, v)
            return moved(z, v, time), v, left

        left = jnp.where(self.is_worthwhile, self.tuning.left_share, 0.0)
        begin = z, v, jnp.full(jax.tree.leaves(v)[0].shape[0], left)
        # One turn or none: both branches of a `cond` would write all anew.
        return jax.lax.fori_loop(0, self.is_now.astype(jnp.int32), turn, begin)


def moved(z: Parameters, v: Parameters, time: Scalar) -> Parameters:
    """``z + time v``."""
    return jax.tree.map(lambda a, b: a + time * b, z, v)


def contracted(
    v: Parameters, pushed: Parameters, along: jax.Array, share: jax.Array, is_momentum: bool
) -> tuple[Parameters, jax.Array]:
    """``v - c V v`` whose square is ``|v|² - 2 share v·Vv``, or the least that it can be.

    `pushed` and `along` are estimates of ``V v`` and ``v·Vv`` from a few rows, themselves noisy:
    with c equal to `share` its square would put back a part of what is taken off. Second, how much
    of ``v·Vv`` is left.

    By a momentum, the position moves before and after. In one direction, with ``b = share V``, a
    kick of variance 2b and then ``p - c p`` leave it a momentum of variance ``2b / (2c - c²)`` and
    a temperature ``(1 - c/2) b / c``, which is 1 for ``c = b / (1 + b/2)``, that is, if
    ``2b / (1 + b/2)²`` of ``p²`` is taken off.
    """
    along = jnp.maximum(along, 0.0)  # below it only by rounding
    if is_momentum:
        share = share / jnp.square(1.0 + 0.5 * share * along / above_zero(inner(v, v)))
    ratio = along / above_zero(inner(pushed, pushed))  # the c that takes off most
    wanted = 2.0 * share / above_zero(ratio)
    factor = 2.0 * share / (1.0 + jnp.sqrt(jnp.maximum(1.0 - wanted, 0.0)))
    left = along * (1.0 - 1.0 / jnp.maximum(wanted, 1.0))
    return jax.tree.map(lambda a, b: a - jnp.minimum(factor, ratio) * b, v, pushed), left


def leaving_all(z: Parameters, v: Parameters, share: jax.Array, time: Scalar | None) -> Found:
    """A ``TakingOff`` where there is no noise, or none is corrected for."""
    return z, v, jnp.zeros(jax.tree.leaves(v)[0].shape[0])
