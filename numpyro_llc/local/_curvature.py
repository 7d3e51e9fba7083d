"""Gradient and curvature of the tempered loss at the centre, from Hessian-vector products."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg

from numpyro_llc.local._derivatives import gradient_and_product, inner
from numpyro_llc.local._edge import edge_sites
from numpyro_llc.local._gradients import make_anchor
from numpyro_llc.local._lanczos import tridiagonal
from numpyro_llc.local._slope import above_none, count_not_finite
from numpyro_llc.local._target import LocalTarget
from numpyro_llc.models import Parameters, Rows, on_host

DENSE_LIMIT = 128
"""Up to this many parameters the Hessian is formed, a product a column; above, Krylov methods."""

FLAT = {4: 1e-5, 8: 1e-9}
"""Eigenvalues below this share of the largest are rounding, by bytes of the float type."""

LANCZOS_ITERATIONS, CG_ITERATIONS = 180, 60
"""Hessian-vector products for the extreme eigenvalues, and for the Newton step."""
LEAST_SHARE = 1e-6
"""Of the largest eigenvalue, what one that is not positive is raised to in a Newton step."""
SADDLE = 0.05
"""A tempered eigenvalue below minus this share of γ makes a point a saddle; above, γ hides it."""


def rounding(largest: float) -> float:
    """How far from zero rounding alone may put an eigenvalue of a Hessian with this largest one."""
    return FLAT[jnp.result_type(float).itemsize] * abs(largest)


def lowest_curvature(largest: float, inverse_temperature: float, localization: float) -> float:
    """The eigenvalue of the Hessian of nL below which a point is a saddle: ``-γ/(20 β)``."""
    return -max(SADDLE * localization / inverse_temperature, rounding(largest))


@dataclass(frozen=True)
class Curvature:
    """What the loss ``β nL`` looks like at the centre; NumPy float64, parameters raveled.

    Attributes
    ----------
    gradient_norm : float
        ``|∇ nL(z*)|``, nats per unit of unconstrained space.
    largest, smallest : float
        Extreme eigenvalues of the Hessian of ``nL``.
    newton_shift : float
        By how much a quadratic model expects λ̂ to be shifted because `z*` is no stationary point:
        ``g·m + m'Hm/2`` (tempered) at the mode ``m = -(H + Γ)^-1 g`` of the localized density.
        NaN where a direction curves down by more than γ holds: the quadratic has no density then.
    expected_llc : float
        λ̂ of a quadratic loss of this Hessian, ``½ tr βH (βH + γ)⁻¹``, NaN as above; d/2 if `d` is
        above ``DENSE_LIMIT``.
    hessian : array [d, d] or None
        Hessian of ``nL``, if `d` is at most ``DENSE_LIMIT``.
    undefined : dict of str to int
        By site, how many derivatives of the loss are NaN or infinite; empty where all are finite.
    edge : tuple of str
        Sites along which the loss falls to the edge of their support: see ``edge_sites``.
    """

    gradient_norm: float
    largest: float
    smallest: float
    newton_shift: float
    expected_llc: float
    hessian: np.ndarray | None = None
    undefined: Mapping[str, int] = field(default_factory=dict)
    edge: tuple[str, ...] = ()


UNKNOWN = Curvature(*(float("nan"),) * 5)
"""Of a loss without derivatives."""


def precision(target: LocalTarget) -> jax.Array:
    """γ of each raveled parameter, an array [d]."""
    gamma = {
        name: jax.tree.map(lambda leaf, g=g: jnp.full(jnp.shape(leaf), g), target.center[name])
        for name, g in target.localization.items()
    }
    return ravel_pytree(gamma)[0]


def precision_on_host(target: LocalTarget) -> np.ndarray:
    """:func:`precision` in NumPy, float64: nothing is compiled for it."""
    return np.concatenate(
        [
            np.full(np.size(leaf), float(target.localization[name]))
            for name, tree in sorted(target.center.items())
            for leaf in jax.tree.leaves(tree)
        ]
    )


_Function = Callable[[jax.Array], jax.Array]


def _products(target: LocalTarget) -> tuple[jax.Array, _Function]:
    """The gradient of nL at the centre, raveled, and products with its Hessian."""
    center, unravel = ravel_pytree(target.center)
    gradient = jax.grad(lambda flat: target.excess_loss(unravel(flat)))
    return gradient_and_product(gradient, center, forward=target.program.has_forward_mode)


@jax.jit
def _gradient_and_hessian(target: LocalTarget) -> tuple[jax.Array, jax.Array]:
    center, unravel = ravel_pytree(target.center)
    eye = jnp.eye(center.size, dtype=center.dtype)

    def of_slice(rows: Rows, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
        gradient = jax.grad(lambda flat: weights @ target.row_losses(unravel(flat), rows))
        forward = target.program.has_forward_mode
        found, product = gradient_and_product(gradient, center, forward=forward)
        return found, jax.lax.map(product, eye)

    if target.is_elsewhere:
        found: tuple[jax.Array, jax.Array] = target.over_slices(of_slice)
        return found
    gradient, product = _products(target)  # a product a row, never more than one in memory
    return gradient, jax.lax.map(product, eye)


@jax.jit
def _krylov(target: LocalTarget, rng_key: jax.Array) -> tuple[jax.Array, ...]:
    center = ravel_pytree(target.center)[0]
    gradient, product = _products(target)
    beta, gamma = target.inverse_temperature, precision(target)
    start = jax.random.normal(rng_key, (center.size,), center.dtype)
    smallest, largest = extreme_eigenvalues(product, start)
    mode, _ = cg(lambda v: beta * product(v) + gamma * v, -beta * gradient, maxiter=CG_ITERATIONS)
    shift = beta * (gradient @ mode + 0.5 * mode @ product(mode))
    return gradient, largest, smallest, shift


def extreme_eigenvalues(product: _Function, start: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The smallest and the largest eigenvalue of a symmetric matrix, by the Lanczos recurrence."""
    values = jnp.linalg.eigvalsh(tridiagonal(product, start, LANCZOS_ITERATIONS))
    return values[0], values[-1]


def _mode(values: np.ndarray, vectors: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """``-curved⁻¹ slope``, with eigenvalues that are not positive raised to a small one."""
    values = np.maximum(values, LEAST_SHARE * max(np.abs(values).max(), 1e-300))
    return -vectors @ ((vectors.T @ slope) / values)


def _of_quadratic(values: np.ndarray, vectors: np.ndarray, gamma: np.ndarray) -> float:
    """λ̂ of a quadratic loss, by the spectrum of ``βH + γ``; NaN where γ bounds no density.

    In a direction v of eigenvalue c it is ``½ (1 - v'γv/c)``, and 0 where nothing curves.
    """
    if values[0] < -rounding(values[-1]):
        return float("nan")
    is_bound = values > 0.0
    share = 1.0 - (gamma @ vectors**2)[is_bound] / values[is_bound]
    return float(0.5 * np.sum(share))


@jax.jit
def _gradient(
    target: LocalTarget, tempered: Parameters | None
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The norm of the gradient of nL, and how many derivatives of each site are not finite."""
    if tempered is None:
        tempered = make_anchor(target).gradient
    tempered = jax.tree.map(lambda g, c: g[(0,) * (g.ndim - jnp.ndim(c))], tempered, target.center)
    norm = jnp.sqrt(inner(tempered, tempered)) / target.inverse_temperature
    return norm, count_not_finite(tempered)


def gradient_at_center(target: LocalTarget, tempered: Parameters | None = None) -> Curvature:
    """The gradient alone, for models too large for more.

    From one pass over the data, or from `tempered`, ``β ∇nL(z*)``, if it is known; its leaves may
    be stacked.
    """
    norm, counts = _gradient(target, tempered)
    return replace(UNKNOWN, gradient_norm=float(norm), undefined=above_none(counts))


def _undefined(target: LocalTarget, gradient: np.ndarray) -> dict[str, int]:
    if np.all(np.isfinite(gradient)):
        return {}
    _, unravel = ravel_pytree(target.center)
    return above_none(count_not_finite(unravel(jnp.asarray(gradient, jnp.result_type(float)))))


def curvature_at_center(target: LocalTarget, rng_key: jax.Array) -> Curvature:
    """Measure the loss around the centre."""
    beta = float(target.inverse_temperature)
    gamma = precision_on_host(target)
    if gamma.size > DENSE_LIMIT:
        gradient, *numbers = _krylov(target, rng_key)
        largest, smallest, shift = map(float, numbers)
        if not beta * smallest + gamma.min() > 0:
            shift = float("nan")
        hessian, expected = None, 0.5 * gamma.size
    else:
        gradient, hessian = (on_host(x).astype(np.float64) for x in _gradient_and_hessian(target))
        hessian = 0.5 * (hessian + hessian.T)
        smallest = largest = shift = expected = float("nan")
        if np.all(np.isfinite(hessian)):
            values = np.linalg.eigvalsh(hessian)
            smallest, largest = map(float, values[[0, -1]])
            curved = np.linalg.eigh(beta * hessian + np.diag(gamma))
            expected = _of_quadratic(*curved, gamma)
            if np.isfinite(expected):
                mode = _mode(*curved, beta * gradient)
                shift = float(beta * (gradient @ mode + 0.5 * mode @ hessian @ mode))
    return Curvature(
        gradient_norm=float(np.linalg.norm(gradient)),
        largest=largest,
        smallest=smallest,
        newton_shift=shift,
        expected_llc=expected,
        hessian=hessian,
        undefined=_undefined(target, gradient),
        edge=edge_sites(target, hessian),
    )
