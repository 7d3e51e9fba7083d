"""The spectrum of the Hessian of nL at the centre, as far as sums over it need it."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from numpyro_llc.local._curvature import DENSE_LIMIT
from numpyro_llc.local._derivatives import hessian_product
from numpyro_llc.local._evaluation import EvaluationRows
from numpyro_llc.local._lanczos import tridiagonal
from numpyro_llc.local._target import LocalTarget
from numpyro_llc.models import Rows

PROBES, NODES = 8, 48
"""Random vectors, whose spread is the error of a sum over eigenvalues, and products for each."""


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of the Hessian of nL, and how many parameters each stands for.

    Attributes
    ----------
    values, weights : arrays [probe, node]
        The weights of a probe add up to d. Exact, with one probe, up to ``DENSE_LIMIT`` parameters.
    """

    values: np.ndarray
    weights: np.ndarray

    def trace(self) -> tuple[float, float]:
        """``tr H`` and its standard error, in nats."""
        return self._sum(self.values)

    def expected_llc(self, inverse_temperature: float, localization: float) -> tuple[float, float]:
        """``½ tr βH (βH + γ)⁻¹``, λ̂ were the loss quadratic, and its standard error.

        NaN where βH + γ is not positive: the Gaussian of γ does not hold the draws.
        """
        curved = inverse_temperature * self.values
        if np.any((curved + localization <= 0) & (self.weights > 0)):
            return float("nan"), float("nan")
        return self._sum(0.5 * curved / (curved + localization))

    def _sum(self, terms: np.ndarray) -> tuple[float, float]:
        by_probe = (terms * self.weights).sum(axis=1)
        error = by_probe.std(ddof=1) / len(by_probe) ** 0.5 if len(by_probe) > 1 else 0.0
        return float(by_probe.mean()), float(error)


def spectrum_at_center(
    target: LocalTarget, rng_key: jax.Array, rows: EvaluationRows | None
) -> Spectrum:
    """The spectrum, from Hessian-vector products on `rows` (None: the full data).

    Above ``DENSE_LIMIT`` parameters by stochastic Lanczos quadrature (Ubaru, Chen and Saad 2017,
    SIAM Journal on Matrix Analysis and Applications 38:1075-1099).
    """
    dimension = target.dimension
    if dimension <= DENSE_LIMIT:
        values = np.linalg.eigvalsh(np.asarray(_dense(target, rows), np.float64))
        return Spectrum(values[None], np.ones((1, dimension)))
    values, weights = (np.asarray(x, np.float64) for x in _quadrature(target, rng_key, rows))
    return Spectrum(values, dimension * weights)


def _product(target: LocalTarget, rows: EvaluationRows | None, v: jax.Array) -> jax.Array:
    """``H v`` of a raveled vector; slices of the rows one after the other."""
    center, unravel = ravel_pytree(target.center)
    forward = target.program.has_forward_mode
    if rows is None:
        gradient = jax.grad(lambda flat: target.excess_loss(unravel(flat)))
        return hessian_product(gradient, center, v, forward=forward)

    def add(total: jax.Array, part: tuple[Rows, jax.Array]) -> tuple[jax.Array, None]:
        numbers, weights = part
        gradient = jax.grad(lambda flat: weights @ target.row_losses(unravel(flat), numbers))
        return total + hessian_product(gradient, center, v, forward=forward), None

    return jax.lax.scan(add, jnp.zeros_like(center), (rows.rows, rows.weights))[0]


@jax.jit
def _dense(target: LocalTarget, rows: EvaluationRows | None) -> jax.Array:
    eye = jnp.eye(target.dimension, dtype=jnp.result_type(float))
    hessian = jax.lax.map(partial(_product, target, rows), eye)
    return 0.5 * (hessian + hessian.T)


@jax.jit
def _quadrature(
    target: LocalTarget, rng_key: jax.Array, rows: EvaluationRows | None
) -> tuple[jax.Array, jax.Array]:
    shape = (PROBES, target.dimension)
    probes = jax.random.rademacher(rng_key, shape, jnp.result_type(float))

    def one(probe: jax.Array) -> tuple[jax.Array, jax.Array]:
        small = tridiagonal(partial(_product, target, rows), probe, NODES)
        values, vectors = jnp.linalg.eigh(small)
        return values, vectors[0] ** 2

    return jax.lax.map(one, probes)
