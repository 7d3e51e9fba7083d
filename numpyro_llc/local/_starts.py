"""Where chains start: around the centre, as wide as the local curvature allows."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from numpyro_llc.local._curvature import Curvature, precision_on_host
from numpyro_llc.local._target import LocalTarget
from numpyro_llc.models import Parameters, all_finite

NATS_PER_PARAMETER, NATS_FREE = 5.0, 20.0
"""A start has a potential of at most this: ten times the density's own mean of ½ a parameter, for
starts are to be spread out, and room where there are few parameters."""
MAX_HALVINGS = 40


def spread_starts(
    target: LocalTarget,
    curvature: Curvature,
    rng_key: jax.Array,
    num_chains: int,
    *,
    with_gradient: bool = True,
) -> Parameters:
    """Starts of the chains, drawn around the centre; leaves ``[chain, ...]``.

    Drawn from the Gaussian of precision ``β max(H, 0) + Γ``, the local posterior if the loss were
    quadratic, which is wider than it in directions that are flat at the centre: R-hat sees chains
    that began apart. A start is pulled in by halves until its potential is finite and no more than
    a few times the number of parameters, and its gradient finite, if the kernel uses it; or it is
    the centre itself.
    """
    gamma = precision_on_host(target)
    floor = np.where(gamma > 0, gamma, 1.0)
    if curvature.hessian is None or not np.all(np.isfinite(curvature.hessian)):
        root = floor**-0.5
    else:
        values, vectors = np.linalg.eigh(float(target.inverse_temperature) * curvature.hessian)
        curved = (vectors * np.clip(values, 0.0, None)) @ vectors.T + np.diag(floor)
        root = np.linalg.inv(np.linalg.cholesky(curved))
    mixing = root.astype(jnp.result_type(float))
    return _draw(num_chains, with_gradient, target, mixing, rng_key)


@partial(jax.jit, static_argnums=(0, 1))
def _draw(
    num_chains: int,
    with_gradient: bool,
    target: LocalTarget,
    root: jax.Array,
    rng_key: jax.Array,
) -> Parameters:
    """`root` is a matrix whose rows mix standard normals, or its diagonal."""
    center, unravel = ravel_pytree(target.center)
    highest = NATS_PER_PARAMETER * center.size + NATS_FREE
    normal = jax.random.normal(rng_key, (num_chains, center.size), center.dtype)
    offsets = normal * root if root.ndim == 1 else normal @ root

    def is_fine(z: Parameters) -> jax.Array:
        if not with_gradient:
            return target.potential(z) <= highest
        potential, gradient = jax.value_and_grad(target.potential)(z)
        return (potential <= highest) & all_finite(gradient)

    def start(offset: jax.Array) -> Parameters:
        def too_high(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
            scale, halvings = carry
            return ~is_fine(unravel(center + scale * offset)) & (halvings < MAX_HALVINGS)

        def halve(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            return 0.5 * carry[0], carry[1] + 1

        first = (jnp.ones((), center.dtype), jnp.zeros((), int))
        scale, halvings = jax.lax.while_loop(too_high, halve, first)
        return unravel(center + jnp.where(halvings < MAX_HALVINGS, scale, 0.0) * offset)

    return jax.vmap(start)(offsets)
