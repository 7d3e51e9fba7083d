"""Gradient and curvature at a centre, and starts drawn from them, against closed forms."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from targets import target_of

from numpyro_llc.local import _curvature as curvature
from numpyro_llc.local._curvature import (
    curvature_at_center,
    gradient_at_center,
    lowest_curvature,
    precision,
    rounding,
)
from numpyro_llc.local._starts import spread_starts

D, BETA = 8, 0.3
GAMMA = {"v": 0.5, "w": 2.0}
RNG = np.random.default_rng(0)
FACTOR = RNG.normal(size=(3 * D, D))
CONVEX = FACTOR.T @ FACTOR
LARGEST = np.linalg.eigvalsh(CONVEX)[-1]
CENTER = RNG.normal(size=D)
SLOPE = RNG.normal(size=D)
PRECISION = np.repeat([0.5, 2.0], [D - 3, 3])


def quadratic(hessian, linear):
    """NL = ½ z'Hz + b'z, of the parameters z = (v, w)."""
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    v = numpyro.sample("v", dist.Normal(0.0, 1.0).expand([D - 3]).to_event(1))
    z = jnp.concatenate([v, w])
    numpyro.factor("nll", -(0.5 * z @ hessian @ z + linear @ z))


def target(hessian, slope, gamma=GAMMA):
    """The quadratic with this Hessian, and this gradient at the centre."""
    return target_of(
        quadratic,
        (hessian, slope - hessian @ CENTER),
        {"v": CENTER[: D - 3], "w": CENTER[D - 3 :]},
        beta=BETA,
        gamma=gamma,
        likelihood_factors=["nll"],
    )


def shift(curved, hessian, slope):
    """What a quadratic model says of λ̂ at the mode of a density whose precision is `curved`."""
    mode = -np.linalg.solve(curved, BETA * slope)
    return BETA * (slope @ mode + 0.5 * mode @ hessian @ mode)


def with_lowest(value):
    """A Hessian with this smallest eigenvalue, and its eigenvector."""
    values, vectors = np.linalg.eigh(CONVEX)
    values[0] = value
    return (vectors * values) @ vectors.T, vectors[:, 0]


def test_precision_follows_the_parameters_in_their_raveled_order():
    np.testing.assert_array_equal(precision(target(CONVEX, SLOPE)), PRECISION)


def test_dense_curvature_of_a_quadratic_is_exact():
    found = curvature_at_center(target(CONVEX, SLOPE), jax.random.key(0))
    values = np.linalg.eigvalsh(CONVEX)
    assert found.gradient_norm == pytest.approx(np.linalg.norm(SLOPE), rel=1e-4)
    assert (found.smallest, found.largest) == pytest.approx(values[[0, -1]], rel=1e-4)
    np.testing.assert_allclose(found.hessian, CONVEX, rtol=1e-4, atol=1e-4 * LARGEST)
    expected = shift(BETA * CONVEX + np.diag(PRECISION), CONVEX, SLOPE)
    assert found.newton_shift == pytest.approx(expected, rel=1e-4)
    curved = BETA * CONVEX + np.diag(PRECISION)
    expected = 0.5 * np.trace(BETA * CONVEX @ np.linalg.inv(curved))
    assert found.expected_llc == pytest.approx(expected, rel=1e-4)


def test_directions_that_curve_down_count_as_long_as_gamma_holds_them():
    hessian, down = with_lowest(-0.5 / BETA)
    found = curvature_at_center(target(hessian, down, gamma=1.0), jax.random.key(0))
    mode = -BETA * down / 0.5
    expected = BETA * (down @ mode + 0.5 * mode @ hessian @ mode)
    assert found.newton_shift == pytest.approx(expected, rel=1e-3)
    values = BETA * np.linalg.eigvalsh(hessian)
    assert found.expected_llc == pytest.approx(0.5 * np.sum(values / (values + 1.0)), rel=1e-4)
    hessian, down = with_lowest(-1.01 / BETA)
    found = curvature_at_center(target(hessian, down, gamma=1.0), jax.random.key(0))
    assert found.smallest == pytest.approx(-1.01 / BETA, rel=1e-3)
    assert np.isnan([found.newton_shift, found.expected_llc]).all()


def test_curvature_that_is_not_finite_is_unknown():
    found = curvature_at_center(target(np.full((D, D), np.nan), SLOPE), jax.random.key(0))
    unknown = found.largest, found.smallest, found.newton_shift, found.expected_llc
    assert np.all(np.isnan(unknown))


@pytest.mark.parametrize("lowest", [3.0, 0.0, -1.5, -50.0])
def test_krylov_curvature_of_a_quadratic_is_exact(lowest, monkeypatch):
    monkeypatch.setattr(curvature, "DENSE_LIMIT", D - 1)
    hessian, _ = with_lowest(lowest)
    found = curvature_at_center(target(hessian, SLOPE), jax.random.key(0))
    assert found.hessian is None
    assert found.gradient_norm == pytest.approx(np.linalg.norm(SLOPE), rel=1e-4)
    assert found.largest == pytest.approx(LARGEST, rel=1e-3)
    assert found.smallest == pytest.approx(lowest, rel=1e-3, abs=1e-4 * LARGEST)
    assert found.expected_llc == 0.5 * D
    if lowest == -50.0:  # β λ = -15: no γ holds it
        assert np.isnan(found.newton_shift)
    else:
        expected = shift(BETA * hessian + np.diag(PRECISION), hessian, SLOPE)
        assert found.newton_shift == pytest.approx(expected, rel=1e-3)


def test_dense_curvature_ends_at_its_limit(monkeypatch):
    monkeypatch.setattr(curvature, "DENSE_LIMIT", D)
    assert curvature_at_center(target(CONVEX, SLOPE), jax.random.key(0)).hessian is not None


def rows_model(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


@pytest.mark.parametrize("batches", [False, True])
def test_the_gradient_alone_is_all_that_large_models_are_asked_for(batches):
    x, y, center = RNG.normal(size=(7, 2)), RNG.normal(size=7), np.array([0.3, -1.0])
    found = gradient_at_center(
        target_of(rows_model, (x, y), {"w": center}, beta=BETA, batches=batches)
    )
    norm = np.linalg.norm(x.T @ (x @ center - y))
    assert found.gradient_norm == pytest.approx(norm, rel=1e-4)
    unknown = found.largest, found.smallest, found.newton_shift, found.expected_llc
    assert np.all(np.isnan(unknown))
    assert found.hessian is None


def test_an_eigenvalue_is_negative_beyond_what_gamma_and_rounding_allow():
    assert lowest_curvature(10.0, 0.2, 1.0) == pytest.approx(-0.05 / 0.2)
    assert lowest_curvature(10.0, 0.4, 3.0) == pytest.approx(-0.15 / 0.4)
    assert lowest_curvature(1e6, 0.2, 1.0) == pytest.approx(-10.0)
    assert rounding(-1e6) == pytest.approx(10.0)
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        assert rounding(1e6) == pytest.approx(1e-3)


# --- starts -------------------------------------------------------------------------------------

CHAINS = 4096


def offsets(target, found):
    """Starts less the centre, ``[chain, d]``."""
    starts = spread_starts(target, found, jax.random.key(1), CHAINS)
    return np.concatenate([starts["v"], starts["w"]], axis=1).astype(float) - CENTER


def has_covariance(draws, wanted):
    """Whether mean and covariance are 0 and `wanted`, within 4 of their standard errors."""
    spread = np.diag(wanted)
    error = np.sqrt((wanted**2 + np.outer(spread, spread)) / CHAINS)
    is_centred = np.all(np.abs(draws.mean(axis=0)) < 4 * np.sqrt(spread / CHAINS))
    return is_centred and np.all(np.abs(draws.T @ draws / CHAINS - wanted) < 4 * error)


@pytest.mark.parametrize("gamma", [2.0, 0.0])
@pytest.mark.parametrize("lowest", [5.0, -0.3])
def test_starts_have_the_covariance_of_the_local_gaussian(gamma, lowest):
    hessian, _ = with_lowest(lowest)
    local = target(hessian, np.zeros(D), gamma)
    draws = offsets(local, curvature_at_center(local, jax.random.key(0)))
    values, vectors = np.linalg.eigh(hessian)
    floor = gamma or 1.0
    wanted = (vectors / (BETA * values.clip(0) + floor)) @ vectors.T
    assert has_covariance(draws, wanted)
    assert not has_covariance(draws, (vectors / (BETA * values.clip(0) + 2 * floor)) @ vectors.T)
    assert not has_covariance(draws, (vectors / (values.clip(0) + floor)) @ vectors.T)


@pytest.mark.parametrize("hessian", [None, np.full((D, D), np.nan)])
def test_starts_without_a_hessian_are_those_of_gamma_pulled_in_by_halves(hessian):
    flat, steep = (target(h, np.zeros(D)) for h in (0.0 * CONVEX, 100.0 * CONVEX))
    unknown = replace(curvature_at_center(flat, jax.random.key(0)), hessian=hessian)
    free, pulled = offsets(flat, unknown), offsets(steep, unknown)
    assert has_covariance(free, np.diag(1 / PRECISION))
    assert not has_covariance(free, np.diag(PRECISION))
    potential = np.sum(free @ (BETA * 100.0 * CONVEX + np.diag(PRECISION)) * free, axis=1) / 2
    halvings = np.ceil(np.log(potential / (5 * D + 20)) / np.log(4)).clip(0)
    assert {2.0, 3.0, 4.0} <= set(halvings)
    scale = np.sum(pulled * free, axis=1) / np.sum(free**2, axis=1)
    # A potential at the limit itself falls on either side of it in float32.
    assert np.mean(np.abs(scale - 0.5**halvings) < 1e-3 * 0.5**halvings) > 0.999
    np.testing.assert_allclose(pulled, free * scale[:, None], atol=1e-4)
