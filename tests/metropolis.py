"""Random-walk Metropolis: a kernel that compiles in a moment, for what no kernel changes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import regression
from jax.flatten_util import ravel_pytree
from numpyro.infer.mcmc import MCMCKernel


class State(NamedTuple):
    z: dict
    potential: jax.Array
    rng_key: jax.Array


class Metropolis(MCMCKernel):
    """Proposals are Gaussian, of one standard deviation or one for each coordinate.

    Kernels of one scale are equal, those from pickles included, so that they are traced once.
    """

    sample_field = "z"

    def __init__(self, scale):
        self._potential_fn, self._scale = None, scale

    def __eq__(self, other):
        return type(self) is type(other) and self._scale == other._scale

    def __hash__(self):
        return hash((type(self), self._scale))

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs):
        return State(init_params, self._potential_fn(init_params), rng_key)

    def sample(self, state, model_args, model_kwargs):
        key, key_move, key_accept = jax.random.split(state.rng_key, 3)
        flat, unravel = ravel_pytree(state.z)
        there = unravel(flat + jnp.asarray(self._scale) * jax.random.normal(key_move, flat.shape))
        potential = self._potential_fn(there)
        accepts = jnp.log(jax.random.uniform(key_accept)) < state.potential - potential
        z, potential = jax.tree.map(
            lambda new, old: jnp.where(accepts, new, old), (there, potential), state[:2]
        )
        return State(z, potential, key)


class AtManyScales(Metropolis):
    """Proposals of a scale that is drawn at each step, up to a given one and 1/100 of it.

    For densities of a few parameters whose widths are not known, as those of a ladder.
    """

    def sample(self, state, model_args, model_kwargs):
        key, own = jax.random.split(state.rng_key)
        walk = Metropolis(self._scale * 0.01 ** jax.random.uniform(own))
        walk._potential_fn = self._potential_fn
        return walk.sample(state._replace(rng_key=key), model_args, model_kwargs)


METROPOLIS = Metropolis(0.03)
"""For the regression: all that use it share what is compiled, if the warm-up is as long: 100
steps."""
WIDTHS = (np.sum(regression.X**2, axis=0) / np.log(500) + 1.0) ** -0.5
FITTED = Metropolis(tuple(WIDTHS))
"""The same with steps as wide as the density at γ = 1, for its moments: ESS is draws / 15."""
