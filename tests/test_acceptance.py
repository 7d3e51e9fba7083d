"""``mala_acceptance``: what a Metropolis test would give Langevin steps, against its definition."""

from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import regression

from numpyro_llc.kernels import SGD, SGLD, SGNHT, metropolis_report
from numpyro_llc.kernels._acceptance import _of_chain
from numpyro_llc.local._evaluation import all_rows
from numpyro_llc.local._target import make_target
from numpyro_llc.models import read_model, with_batches

DATA = (regression.X, regression.Y)


def curvature_and_target():
    """A = βH + γ at least squares, and the target, whose rows can be taken out."""
    reading = read_model(regression.model, DATA, None, center={"w": regression.OLS})
    target = make_target(
        with_batches(reading),
        reading.arrays,
        reading.center,
        inverse_temperature=0.16,
        localization={"w": 1.0},
    )
    return 0.16 * regression.X.T @ regression.X + np.eye(5), target


def acceptances(curved, z, step, g, rng, count=40_000):
    """Of proposals from the offset z, from the ratio of densities: ``U = ½ z'Az``."""
    there = z - 0.5 * step * g * (curved @ z) + np.sqrt(step * g) * rng.normal(size=(count, 5))

    def log_density(x, y):
        """Of going from x to y, times that of x."""
        off = y - x + 0.5 * step * g * (x @ curved)
        return -0.5 * np.sum(x * (x @ curved), -1) - 0.5 * np.sum(off**2 / (step * g), -1)

    return np.exp(np.minimum(log_density(there, z) - log_density(z, there), 0.0))


@pytest.mark.parametrize("metric", [None, np.array([0.5, 2.0, 1.0, 3.0, 8.0])])
def test_acceptance_is_that_of_metropolis_adjusted_langevin(metric):
    curved, target = curvature_and_target()
    step, g, rng = 1.0 / 323, np.ones(5) if metric is None else metric, np.random.default_rng(0)
    z = np.linalg.cholesky(np.linalg.inv(curved)) @ rng.normal(size=5)
    exact = acceptances(curved, z, step, g, rng)
    tuning = SimpleNamespace(step_size=step, metric=None if metric is None else {"w": metric})
    keys = jax.random.split(jax.random.key(1), 4001)
    center = np.asarray(target.center["w"])
    accepted = _of_chain(target, None, tuning, {"w": jnp.asarray(center + z)}, keys)
    error = np.std(exact) / np.sqrt(4000)
    assert accepted.shape == (4000,)
    assert abs(float(np.mean(accepted)) - exact.mean()) < 4.5 * error
    assert 0.2 < exact.mean() < 0.98


class Steps(NamedTuple):
    step_size: jax.Array
    metric: None = None


def test_the_report_is_the_mean_over_blocks_and_chains_on_all_rows(monkeypatch):
    """Each block has its own step; slices of the rows add up to the data."""
    monkeypatch.setattr("numpyro_llc.models._plates.SLICE_ROWS", 200)
    monkeypatch.setattr("numpyro_llc.kernels._acceptance.PROPOSALS", 4 * 1000 - 3)
    (curved, target), rng = curvature_and_target(), np.random.default_rng(0)
    steps, root = np.array([1.0, 4.0]) / 323, np.linalg.cholesky(np.linalg.inv(curved))
    z = rng.normal(size=(2, 2, 5)) @ root.T
    exact = [
        acceptances(curved, z[block, chain], steps[block], np.ones(5), rng)
        for block in range(2)
        for chain in range(2)
    ]
    place = jnp.asarray(np.asarray(target.center["w"]) + z)
    state = SimpleNamespace(z={"w": place}, tuning=Steps(jnp.asarray(steps)))
    rows, key = all_rows(target), jax.random.key(1)
    assert rows.rows.shape == (3, 167)
    found = metropolis_report(SGLD(batch_size=9).sampler, state, target, rows, key)
    error = np.sqrt(np.mean([np.var(one) for one in exact]) / 4000)
    assert abs(found["mala_acceptance"] - np.mean(exact)) < 4.5 * error
    assert abs(np.mean(exact[0]) - np.mean(exact)) > 9 * error
    for none in (SGNHT(), SGD()):  # no Langevin steps with noise
        assert metropolis_report(none.sampler, state, target, rows, key) == {}
