"""What takes the noise of batch gradients off again."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from numpyro_llc.kernels._rule import Rule
from numpyro_llc.kernels._tuning import Tuning, above_zero
from numpyro_llc.local import LocalTarget, inner, noise_product, part_of
from numpyro_llc.models import Parameters, Rows

WORTH_CORRECTING = 0.002
"""Noise that adds less than this share of λ̂ is left: a fifth of what automatic runs want."""
PERIOD = 4
"""Of large models noise is taken off at one of this many steps, as many times as strongly."""
MOST_LEFT = 0.02
"""Share of the noise that this may leave; where it leaves more, noise is taken off at each step."""
GOLDEN = 2654435769
"""2³² over the golden ratio: multiples of it, modulo 2³², are spread as evenly as can be."""


class Correction(NamedTuple):
    """How the gradients of one step's batch are corrected for their noise.

    Attributes
    ----------
    rule : Rule
    target : LocalTarget
    rows : Rows
        Of the batch; V is estimated from a quarter of them.
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
    def period(self) -> jax.Array:
        """At one of how many steps noise is taken off."""
        can_wait = self.is_large & (self.tuning.noise_left <= MOST_LEFT * self.noise)
        return jnp.where(can_wait, PERIOD, 1)

    @property
    def is_now(self) -> jax.Array:
        """Whether noise is taken off at this step: at times that keep step with nothing."""
        turn = self.tuning.gradients.astype(jnp.uint32) * jnp.uint32(GOLDEN) // jnp.uint32(2**16)
        return self.is_worthwhile & (turn * self.period.astype(jnp.uint32) < 2**16)

    def taken_off(
        self, z: Parameters, v: Parameters, share: jax.Array, is_momentum: bool
    ) -> tuple[Parameters, jax.Array]:
        """A ``TakingOff``."""
        some = max(2, len(self.rows) // (4 * self.target.num_shards))
        rows, scaled = part_of(self.target, self.rows, 0, some), self.tuning.scaled
        square = jnp.mean(self.tuning.square_gradient)

        def one(z: Parameters, v: Parameters) -> tuple[Parameters, jax.Array]:
            pushed = noise_product(self.target, z, scaled(v), rows, len(self.rows), self.use_anchor)
            less, left = contracted(v, scaled(pushed), self.period * share, is_momentum)
            return less, jnp.where(square > 0, left / above_zero(square), 0.0)

        def none() -> tuple[Parameters, jax.Array]:
            left = jnp.where(self.is_worthwhile, self.tuning.left_share, 0.0)
            return v, jnp.full(jax.tree.leaves(v)[0].shape[0], left)

        return jax.lax.cond(self.is_now, lambda: jax.vmap(one)(z, v), none)


def contracted(
    v: Parameters, pushed: Parameters, share: jax.Array, is_momentum: bool
) -> tuple[Parameters, jax.Array]:
    """``v - c V v`` whose square is ``|v|² - 2 share v·Vv``, or the least that it can be.

    `pushed` is an estimate of ``V v`` from a few rows, itself noisy: with c equal to `share` its
    square would put back a part of what is taken off. Second, how much of ``v·Vv`` is left.

    By a momentum, the position moves before and after. In one direction, with ``b = share V``, a
    kick of variance 2b and then ``p - c p`` leave it a momentum of variance ``2b / (2c - c²)`` and
    a temperature ``(1 - c/2) b / c``, which is 1 for ``c = b / (1 + b/2)``, that is, if
    ``2b / (1 + b/2)²`` of ``p²`` is taken off.
    """
    along = jnp.maximum(inner(pushed, v), 0.0)  # below it only by rounding
    if is_momentum:
        share = share / jnp.square(1.0 + 0.5 * share * along / above_zero(inner(v, v)))
    ratio = along / above_zero(inner(pushed, pushed))  # the c that takes off most
    wanted = 2.0 * share / above_zero(ratio)
    factor = 2.0 * share / (1.0 + jnp.sqrt(jnp.maximum(1.0 - wanted, 0.0)))
    left = along * (1.0 - 1.0 / jnp.maximum(wanted, 1.0))
    return jax.tree.map(lambda a, b: a - jnp.minimum(factor, ratio) * b, v, pushed), left


def leaving_all(
    z: Parameters, v: Parameters, share: jax.Array, is_momentum: bool
) -> tuple[Parameters, jax.Array]:
    """A ``TakingOff`` where there is no noise, or none is corrected for."""
    return v, jnp.zeros(jax.tree.leaves(v)[0].shape[0])
