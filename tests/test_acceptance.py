"""``mala_acceptance``: what a Metropolis test would give Langevin steps, against its definition."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import regression

from numpyro_llc.kernels._acceptance import _of_chain
from numpyro_llc.local._target import make_target
from numpyro_llc.models import read_model

DATA = (regression.X, regression.Y)


@pytest.mark.parametrize("metric", [None, np.array([0.5, 2.0, 1.0, 3.0, 8.0])])
def test_acceptance_is_that_of_metropolis_adjusted_langevin(metric):
    """Against the ratio of densities, in NumPy: ``U = ½ (z - z*)'A(z - z*)`` at least squares."""
    reading = read_model(regression.model, DATA, None, center={"w": regression.OLS})
    target = make_target(
        reading.program,
        reading.arrays,
        reading.center,
        inverse_temperature=0.16,
        localization={"w": 1.0},
    )
    curved = 0.16 * regression.X.T @ regression.X + np.eye(5)
    step, g, rng = 1.0 / 323, np.ones(5) if metric is None else metric, np.random.default_rng(0)
    z = np.linalg.cholesky(np.linalg.inv(curved)) @ rng.normal(size=5)
    there = z - 0.5 * step * g * (curved @ z) + np.sqrt(step * g) * rng.normal(size=(40_000, 5))

    def log_density(x, y):
        """Of going from x to y, times that of x."""
        off = y - x + 0.5 * step * g * (x @ curved)
        return -0.5 * np.sum(x * (x @ curved), -1) - 0.5 * np.sum(off**2 / (step * g), -1)

    exact = np.exp(np.minimum(log_density(there, z) - log_density(z, there), 0.0))
    tuning = SimpleNamespace(step_size=step, metric=None if metric is None else {"w": metric})
    keys = jax.random.split(jax.random.key(1), 4001)
    center = np.asarray(reading.center["w"])
    accepted = _of_chain(target, None, tuning, {"w": jnp.asarray(center + z)}, keys)
    error = np.std(exact) / np.sqrt(4000)
    assert abs(float(np.mean(accepted)) - exact.mean()) < 4.5 * error
    assert 0.2 < exact.mean() < 0.98
