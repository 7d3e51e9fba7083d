"""The Lanczos recurrence: a symmetric matrix, known by its products, as a small tridiagonal one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

_Carry = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def tridiagonal(
    product: Callable[[jax.Array], jax.Array], start: jax.Array, iterations: int
) -> jax.Array:
    """The matrix ``[iterations, iterations]`` in the basis of the Krylov space of `start`.

    It ends where the Krylov space is exhausted, as that of a multiple of the identity is after one
    product: the places past the end are not coupled to the others. Without reorthogonalization,
    eigenvalues may come twice, and share the weight of one (Paige 1980); memory is that of three
    vectors.
    """
    unit = start / jnp.linalg.norm(start)
    eps = jnp.finfo(start.dtype).eps * start.size**0.5

    def step(carry: _Carry, _: None) -> tuple[_Carry, tuple[jax.Array, ...]]:
        v, before, off, scale = carry
        w = product(v) - off * before
        along = v @ w
        w = w - along * v
        w = w - (v @ w) * v
        norm = jnp.linalg.norm(w)
        scale = jnp.maximum(scale, jnp.abs(along) + norm)
        goes_on = norm > eps * scale
        after = jnp.where(goes_on, w / jnp.where(goes_on, norm, 1.0), 0.0)
        norm = jnp.where(goes_on, norm, 0.0)
        return (after, v, norm, scale), (along, norm, jnp.any(v != 0))

    zero = jnp.zeros((), start.dtype)
    carry = (unit, jnp.zeros_like(unit), zero, zero)
    _, (diagonal, off, is_on) = jax.lax.scan(step, carry, length=iterations)
    # A diagonal entry is within the spectrum: the first one fills the places past the end.
    diagonal = jnp.where(is_on, diagonal, diagonal[0])
    off = jnp.where(is_on[1:], off[:-1], 0.0)
    return jnp.diag(diagonal) + jnp.diag(off, 1) + jnp.diag(off, -1)
