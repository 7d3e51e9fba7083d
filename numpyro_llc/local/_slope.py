"""Whether the loss has a gradient that a kernel can follow: at all, and finite at the centre."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from numpyro_llc.errors import NonFiniteLossError
from numpyro_llc.local._derivatives import UNDEFINED
from numpyro_llc.local._target import LocalTarget
from numpyro_llc.models import Parameters, is_traced

TRAP = (
    "A root or a norm at zero has no finite derivative, nor has a jnp.where whose other branch is "
    "not finite there: move the centre off that point, or give the unused branch a safe argument "
    "(jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0)). Rows whose rate or scale is "
    "zero, as counts without exposure: mask them, with a positive filler in its place"
)
"""Why a gradient is NaN where the loss is finite, and what helps."""

_REASONS = {
    "Reverse-mode differentiation does not work": (
        "it runs lax.while_loop, or lax.fori_loop with bounds that are not Python numbers, which "
        "JAX cannot differentiate in reverse mode. Use lax.scan, or bounds that are Python "
        "numbers, or give the function a rule of its own with jax.custom_vjp"
    ),
    "allbacks do not support JVP": (
        "it calls Python through jax.pure_callback or io_callback, of which JAX knows no "
        "derivative. Give the function a rule of its own with jax.custom_vjp"
    ),
    "vmap": (
        "what it calls cannot be mapped over chains. Give jax.pure_callback a `vmap_method`, such "
        "as 'sequential'"
    ),
}
"""By a part of what JAX says, what that means."""


def check_differentiable(target: LocalTarget) -> None:
    """Refuse a loss that JAX cannot differentiate; nothing is compiled.

    Raises
    ------
    ValueError
        With the reason, from the error that JAX raises.
    """
    try:
        jax.eval_shape(_stacked_gradient, target)
    except UNDEFINED as error:
        said = str(error).splitlines()[0]
        reason = next((why for part, why in _REASONS.items() if part in said), f"JAX says: {said}")
        raise ValueError(f"The loss of the model has no gradient: {reason}.") from error


def _stacked_gradient(target: LocalTarget) -> Parameters:
    """As of one chain; JAX remembers the trace of a function of the module, by its argument."""
    z = jax.tree.map(lambda leaf: leaf[None], target.center)
    return jax.vmap(jax.grad(target.potential))(z)


def is_differentiable(target: LocalTarget) -> bool:
    """Whether JAX can differentiate the loss."""
    try:
        check_differentiable(target)
    except ValueError:
        return False
    return True


def count_not_finite(gradient: Parameters) -> dict[str, jax.Array]:
    """By site, how many derivatives are NaN or infinite."""
    return {
        name: sum(
            (jnp.sum(~jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)), jnp.zeros((), int)
        )
        for name, tree in gradient.items()
    }


def above_none(counts: Mapping[str, jax.Array]) -> dict[str, int]:
    """The counts that are not 0."""
    return {name: int(count) for name, count in counts.items() if count}


def bad_gradient(counts: dict[str, int], where: str) -> NonFiniteLossError:
    """The error for derivatives that are not finite."""
    return NonFiniteLossError(
        f"The gradient of the loss {where} is not finite, though the loss is: {counts} NaN or "
        f"infinite derivatives by site. {TRAP}."
    )


def check_start(gradient: Parameters | None, center: Parameters) -> None:
    """Refuse starts at which no chain has a finite gradient, if its numbers are there.

    Its leaves may be stacked over chains.
    """
    if gradient is None or is_traced(gradient):
        return

    if counts := above_none(_not_finite_in_all(gradient, center)):
        raise bad_gradient(counts, "where the chains start")


@jax.jit
def _not_finite_in_all(gradient: Parameters, center: Parameters) -> dict[str, jax.Array]:
    """By site, how many derivatives no chain has; where they are, that none is moved or copied."""

    def of_all(leaf: jax.Array, like: jax.Array) -> jax.Array:
        lead = tuple(range(leaf.ndim - like.ndim))
        return jnp.where(jnp.isfinite(leaf).any(axis=lead), 0.0, jnp.nan)

    return count_not_finite(jax.tree.map(of_all, gradient, center))
