"""Regressions with unit-variance Gaussian noise in the model and none in the data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpy.typing import ArrayLike

from numpyro_llc.known import exact
from numpyro_llc.known.zoo import _designed_data
from numpyro_llc.known.zoo._problem import FiniteN, Problem
from numpyro_llc.known.zoo._registry import register
from numpyro_llc.models import PyTree

Values = np.ndarray | jax.Array
"""Of NumPy for exact values, of JAX in a model; one function serves both."""
Outputs = Callable[..., Values]
"""Of parameters and inputs: an array [rows, columns]."""
_NO_INPUTS = np.zeros((4, 1))  # equal rows, so that a kernel that takes batches has some to take


@dataclass(frozen=True)
class Features:
    """Outputs that do not depend on inputs: `functions(w)` is a sequence of scalars."""

    functions: Callable[[PyTree], Sequence[Values]]

    def __call__(self, w: jax.Array, x: jax.Array) -> jax.Array:
        """The same row for each of `x`."""
        row = jnp.stack([jnp.asarray(f) for f in self.functions(w)])
        return jnp.broadcast_to(row, (x.shape[0], row.size))

    def loss(self, *w: np.ndarray) -> ArrayLike:
        """``½ Σ f_j(w)²`` of coordinate arrays: the loss per datum if outputs are zero at w*."""
        return 0.5 * sum(f**2 for f in self.functions(w))


def regression(outputs: Outputs, size: int, x: jax.Array, y: jax.Array, weights: jax.Array) -> None:
    """Rows around ``outputs(w, x)``, an array [rows, columns], with `size` parameters w."""
    w = _designed_data.coefficients("w", size)
    with _designed_data.weighted_rows(weights):
        numpyro.sample("y", dist.Normal(outputs(w, x), 1.0).to_event(1), obs=y)


def noise_free(
    outputs: Outputs,
    x: np.ndarray,
    center: Sequence[float],
    known: exact.LearningCoefficient,
    finite_n: FiniteN | None,
    source: str,
    num_data: int,
) -> Problem:
    """The problem whose data are the outputs at `center`."""
    w = np.asarray(center, float)
    y = np.asarray(outputs(w, x))
    return Problem(
        model=regression,
        model_args=(outputs, w.size, x, y, _designed_data.weights_of(np.ones(len(x)), num_data)),
        center={"w": w},
        num_data=num_data,
        learning_coefficient=known,
        finite_n=finite_n,
        source=source,
    )


def add(
    name: str,
    description: str,
    outputs: Outputs,
    center: Sequence[float],
    known: exact.LearningCoefficient,
    finite_n: FiniteN | None = None,
    *,
    x: np.ndarray = _NO_INPUTS,
    source: str,
) -> None:
    """Register a noise-free regression."""
    build = partial(noise_free, outputs, x, center, known, finite_n, source)
    register(build, name=name, description=description)
