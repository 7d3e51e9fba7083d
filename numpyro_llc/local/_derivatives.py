"""Products with derivatives, also of functions that have a reverse rule of their own alone.

``jax.custom_vjp`` (as in ``jax.experimental.ode.odeint``) forbids forward mode. Each product here
is taken in forward mode where there is one (`forward`), else in reverse mode twice, or by a central
difference where the reverse rule has no derivative itself.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from numpyro_llc.models import PyTree

Vector = PyTree
"""A pytree of float arrays."""
Function = Callable[[Vector], Vector]
UNDEFINED = (TypeError, ValueError, NotImplementedError)
"""What JAX raises of a derivative that a function does not have."""


def push_and_pull(
    function: Function, z: Vector, v: Vector, *, forward: bool = True
) -> tuple[Vector, Function]:
    """``J v``, and the map from u to ``Jᵀ u``, J the Jacobian of `function` at `z`."""
    if forward:
        _, push = jax.linearize(function, z)
        transposed = jax.linear_transpose(push, z)
        return push(v), lambda u: transposed(u)[0]
    value, pull = jax.vjp(function, z)
    try:  # u ↦ Jᵀ u is linear, and its own transpose is J.
        pushed = jax.vjp(lambda u: pull(u)[0], value)[1](v)[0]
    except UNDEFINED:
        pushed = central_difference(function, z, v)
    return pushed, lambda u: pull(u)[0]


def value_and_slope(
    function: Function, z: Vector, v: Vector, weights: Vector, *, forward: bool = True
) -> tuple[Vector, jax.Array]:
    """The value at `z`, and ``weights · J v``, the derivative of its weighted sum along `v`."""
    if forward:
        value, change = jax.jvp(function, (z,), (v,))
        return value, inner(weights, change)
    value, pull = jax.vjp(function, z)
    return value, inner(pull(weights)[0], v)


def gradient_and_product(
    gradient: Function, z: Vector, *, forward: bool = True
) -> tuple[Vector, Function]:
    """The gradient at `z`, and the map from v to ``H v``, H the Jacobian of `gradient`."""
    if forward:
        return jax.linearize(gradient, z)
    return gradient(z), lambda v: hessian_product(gradient, z, v, forward=False)


def hessian_product(gradient: Function, z: Vector, v: Vector, *, forward: bool = True) -> Vector:
    """``H v``, H the Jacobian of `gradient` at `z`, which is symmetric."""
    if forward:
        return jax.jvp(gradient, (z,), (v,))[1]
    try:
        return jax.grad(lambda x: inner(gradient(x), v))(z)
    except UNDEFINED:
        return central_difference(gradient, z, v)


def central_difference(function: Function, z: Vector, v: Vector) -> Vector:
    """``[f(z + h v) - f(z - h v)] / 2h``; h balances rounding and the next order."""
    eps = float(jnp.finfo(jnp.result_type(*jax.tree.leaves(v))).eps)
    size = jnp.sqrt(jnp.maximum(inner(v, v), jnp.finfo(jnp.result_type(float)).tiny))
    h = eps ** (1 / 3) * jnp.maximum(1.0, jnp.sqrt(inner(z, z))) / size
    up, down = (function(jax.tree.map(lambda a, b, s=s: a + s * h * b, z, v)) for s in (1.0, -1.0))
    return jax.tree.map(lambda a, b: (a - b) / (2.0 * h), up, down)


def inner(a: Vector, b: Vector) -> jax.Array:
    """The scalar product of two pytrees."""
    # Not `vdot`, whose arrays of one axis would gather parameters that lie on several devices.
    products = jax.tree.map(lambda one, other: jnp.sum(one * other), a, b)
    return sum(jax.tree.leaves(products), jnp.zeros(()))
