"""Regressions with unit-variance Gaussian noise in the model and none in the data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from numpyro_llc.known import exact
from numpyro_llc.known.zoo import _designed_data
from numpyro_llc.known.zoo._problem import FiniteN, Problem
from numpyro_llc.known.zoo._registry import register

Outputs = Callable[[Any, Any], Any]
_NO_INPUTS = np.zeros((4, 1))  # equal rows, so that a kernel that takes batches has some to take


@dataclass(frozen=True)
class Features:
    """Outputs that do not depend on inputs: `functions(w)` is a sequence of scalars."""

    functions: Callable[[Any], Sequence[Any]]

    def __call__(self, w: Any, x: Any) -> Any:
        """The same row for each of `x`."""
        row = jnp.stack([jnp.asarray(f) for f in self.functions(w)])
        return jnp.broadcast_to(row, (x.shape[0], row.size))

    def loss(self, *w: Any) -> Any:
        """``½ Σ f_j(w)²`` of coordinate arrays: the loss per datum if outputs are zero at w*."""
        return 0.5 * sum(f**2 for f in self.functions(w))


def regression(outputs: Outputs, size: int, x: Any, y: Any, weights: Any) -> None:
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
