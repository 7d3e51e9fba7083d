"""Choices made from the local curvature: where chains start."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from numpyro_llc.curvature import Curvature, precision
from numpyro_llc.models import Parameters
from numpyro_llc.target import LocalTarget


def spread_starts(
    target: LocalTarget, curvature: Curvature, rng_key: jax.Array, num_chains: int
) -> Parameters:
    """Starts of the chains, drawn around the centre; leaves ``[chain, ...]``.

    Drawn from the Gaussian of precision ``β max(H, 0) + Γ``, the local posterior if the loss were
    quadratic, which is wider than it in directions that are flat at the centre: R-hat sees chains
    that began apart. A start is pulled in by halves until its potential is finite and no more than
    a few times the number of parameters.
    """
    gamma = np.asarray(precision(target), np.float64)
    beta = float(target.inverse_temperature)
    floor = np.where(gamma > 0, gamma, 1.0)
    offsets = np.asarray(jax.random.normal(rng_key, (num_chains, gamma.size)))
    if curvature.hessian is None or not np.all(np.isfinite(curvature.hessian)):
        offsets = offsets / np.sqrt(floor)
    else:
        values, vectors = np.linalg.eigh(beta * curvature.hessian)
        curved = (vectors * np.clip(values, 0.0, None)) @ vectors.T + np.diag(floor)
        offsets = np.linalg.solve(np.linalg.cholesky(curved).T, offsets.T).T
    return _pull_in(target, jnp.asarray(offsets, jnp.result_type(float)))


@jax.jit
def _pull_in(target: LocalTarget, offsets: jax.Array) -> Parameters:
    center, unravel = ravel_pytree(target.center)
    highest = 5.0 * center.size + 20.0

    def start(offset: jax.Array) -> Parameters:
        def too_high(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
            scale, tries = carry
            potential = target.potential(unravel(center + scale * offset))
            return ~(potential <= highest) & (tries < 40)

        scale, _ = jax.lax.while_loop(
            too_high, lambda carry: (0.5 * carry[0], carry[1] + 1), (jnp.ones(()), jnp.zeros((), int))
        )
        return unravel(center + scale * offset)

    return jax.vmap(start)(offsets)
