"""Designed data: rows that count as many points as their weights say, so that any n is free."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist


@contextmanager
def weighted_rows(weights: jax.Array) -> Iterator[None]:
    """A plate whose rows count `weights` times each."""
    with numpyro.plate("rows", weights.shape[0]), numpyro.handlers.scale(scale=weights):
        yield


def weights_of(probabilities: np.ndarray, num_data: int) -> np.ndarray:
    """What each row counts: the shares of `probabilities` in `num_data`."""
    shares = np.asarray(probabilities, float)
    return num_data * shares / shares.sum()


def coefficients(name: str, *shape: int) -> jax.Array:
    """A latent site of real parameters of this shape."""
    return numpyro.sample(name, dist.Normal(0.0, 3.0).expand(shape).to_event(len(shape)))
