"""λ from volumes: the volumes are exact ones, and the slope is λ."""

from functools import cache

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.integrate import quad
from scipy.stats import norm

import numpyro_llc as nllc
from numpyro_llc import evidence, zoo
from numpyro_llc.evidence import _volume
from numpyro_llc.evidence._splitting import Levels


@cache
def volume_of(name, **settings):
    problem = zoo.load(name, 1_000)
    local = nllc.localize(problem.model, center=problem.center, num_data=1_000)
    return evidence.volume_scaling(jax.random.key(0), local, problem.model_args, **settings)


def fourth_power(epsilon):
    return 2 * norm.cdf(epsilon**0.25) - 1


def product_of_two(epsilon):
    """``P(½ (w1 w2)² <= ε)``."""
    bound = np.sqrt(2 * epsilon)
    return quad(
        lambda t: 2 * np.exp(t) * norm.pdf(np.exp(t)) * (2 * norm.cdf(bound / np.exp(t)) - 1),
        -30.0,
        2.5,
        limit=400,
    )[0]


@pytest.mark.parametrize(
    ("name", "exact", "other"),
    [
        pytest.param("fourth_power", fourth_power, 1 / 2, marks=pytest.mark.slow),
        ("product_of_two", product_of_two, 1 / 4),
    ],
)
def test_volumes_are_exact(name, exact, other):
    curve = volume_of(name, least=1e-5).curve
    wanted = np.log([exact(epsilon) for epsilon in curve["epsilon"].to_numpy()])
    z = ((curve["log_volume"] - wanted) / curve["error"]).to_numpy()
    assert np.abs(z).max() < 4.5  # errors of 8 replicas, of levels that depend on each other
    assert float(curve["error"][-1]) < 0.1
    slopes = np.diff(wanted[::2]) / np.diff(np.log(curve["epsilon"].to_numpy()[::2]))
    np.testing.assert_allclose(
        curve["slope"][:-2:2], slopes[: len(curve["slope"][:-2:2])], atol=0.1
    )
    assert np.abs((curve["log_volume"] - other * np.log(curve["epsilon"])) - wanted).max() > 1.0


@pytest.mark.parametrize(
    ("name", "most_error"),
    [pytest.param("fourth_power", 0.02, marks=pytest.mark.slow), ("product_of_two", 0.1)],
)
def test_the_slope_is_the_learning_coefficient(name, most_error):
    known = zoo.load(name, 1_000).learning_coefficient
    found = volume_of(name, least=1e-5, multiplicity=known.multiplicity)
    assert found.multiplicity == known.multiplicity
    assert abs(found.learning_coefficient - float(known.value)) < 4 * found.error
    assert found.error < most_error


@pytest.mark.slow
def test_the_slope_of_a_regular_model_is_half_its_dimension():
    found = volume_of("gaussian", least=1e-4)
    known = zoo.load("gaussian", 1_000).learning_coefficient
    assert abs(found.learning_coefficient - float(known.value)) < 4 * found.error
    assert found.error < 0.05


def levels_of(log_volume, *, scatter=0.0):
    """Twenty levels of these exact log volumes; replicas differ in their slope."""
    epsilon = np.geomspace(0.1, 1e-6, 20)
    replica = scatter * np.random.default_rng(0).normal(size=(8, 1))
    wanted = log_volume(np.log(epsilon))
    return Levels(epsilon, wanted + (replica - replica.mean()) * np.log(epsilon), 0.0)


def test_the_fit_finds_the_exponents_of_exact_volumes():
    """Over the narrower half; the others bend."""

    def bent(order):
        return 0.75 * order + np.maximum(order - np.log(1e-3), 0.0)

    value, error = _volume._fit(levels_of(bent), 1)
    assert (value, error) == (pytest.approx(0.75), pytest.approx(0.0, abs=1e-9))
    for multiplicity in (2, 3):
        levels = levels_of(
            lambda order, m=multiplicity: 0.5 * order + (m - 1) * np.log(6.0 - order) - 1.3
        )
        value, error = _volume._fit(levels, multiplicity)
        assert value == pytest.approx(0.5, abs=1e-4)
        assert error < 1e-4
        assert _volume._fit(levels, 1)[0] < 0.45


def test_the_error_of_the_slope_is_the_spread_of_replicas():
    levels = levels_of(lambda order: 0.5 * order, scatter=0.1)
    slopes = [np.polyfit(np.log(levels.epsilon), own, 1)[0] for own in levels.log_volume]
    value, error = _volume._fit(levels, 1)
    assert value == pytest.approx(0.5)
    assert error == pytest.approx(np.std(slopes, ddof=1) / np.sqrt(8))
    curve = _volume._curve(levels)
    np.testing.assert_allclose(curve["log_volume"], levels.log_volume.mean(axis=0))
    np.testing.assert_allclose(curve["error"], levels.log_volume.std(axis=0, ddof=1) / np.sqrt(8))
    np.testing.assert_allclose(curve["slope"][:-2], 0.5)
    assert np.isnan(curve["slope"][-2:]).all()
    np.testing.assert_array_equal(curve["epsilon"], levels.epsilon)


def test_five_levels_are_too_few_and_six_suffice():
    levels = levels_of(lambda order: 0.5 * order)

    def first(count, lowest=0.0):
        return Levels(levels.epsilon[:count], levels.log_volume[:, :count], lowest)

    _volume._check(first(6, lowest=-0.9e-5), 1000)
    with pytest.raises(ValueError, match="there are 5 down to"):
        _volume._check(first(5), 1000)
    with pytest.raises(ValueError, match="the loss falls 0.011 nats below"):
        _volume._check(first(6, lowest=-1.1e-5), 1000)


def test_levels_fall_by_no_more_than_a_factor_of_four():
    """Half of the points would be left by a larger one, where λ is 1/2 and m is 2."""
    curve = volume_of("product_of_two", least=1e-5).curve
    epsilon = curve["epsilon"].to_numpy()
    shares = np.exp(np.diff(curve["log_volume"], prepend=0.0))
    np.testing.assert_allclose(epsilon[:-2] / epsilon[1:-1], 4.0, rtol=1e-5)
    assert epsilon[-1] == pytest.approx(1e-5)
    assert shares[0] == pytest.approx(0.5, abs=0.01)
    assert np.all(shares[1:] > 0.5)


def test_with_the_wrong_multiplicity_the_slope_is_lower():
    found = volume_of("product_of_two", least=1e-5)
    assert found.learning_coefficient < 0.5 - 4 * found.error
    assert found.curve["slope"][-3] > found.curve["slope"][2]  # and still rises


def regression(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with numpyro.plate("N", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 2))
Y = X @ [1.0, -1.0] + RNG.normal(size=200)
OLS = np.linalg.lstsq(X, Y, rcond=None)[0]


def test_noisy_data_and_gamma():
    local = nllc.localize(regression, center={"w": OLS}, localization=0.1)
    settings = {"least": 1e-4, "num_particles": 200}
    found = evidence.volume_scaling(jax.random.key(1), local, (X, Y), **settings)
    assert abs(found.learning_coefficient - 1.0) < 4 * found.error
    # Half the volume of the disc for half the excess, γ/(2π) at its centre.
    area = 2 * np.pi * 1e-4 / np.sqrt(np.linalg.det(X.T @ X / 200))
    shares = np.exp(np.diff(found.curve["log_volume"], prepend=0.0))
    np.testing.assert_allclose(shares[:-1], 0.5, atol=0.02)
    last = found.curve.isel(epsilon=-1)
    assert abs(float(last["log_volume"]) - np.log(area * 0.1 / (2 * np.pi))) < 4 * last["error"]


@pytest.mark.parametrize(
    ("where", "settings", "message"),
    [
        ({"center": {"w": OLS + 0.3}}, {}, "`center` is not the minimum: the loss falls"),
        ({}, {"least": 0.0}, "`least` must be finite and positive"),
        ({}, {"least": 1e-9}, "`least` must be above the rounding of the losses"),
        ({}, {"least": 0.5}, "Six levels are needed to fit λ; there are"),
        ({"localization": 0.0}, {}, "`localization` must be positive"),
        ({}, {"num_replicas": 1}, "`num_replicas` must be at least 2"),
        ({}, {"multiplicity": 0}, "`multiplicity` must be at least 1"),
    ],
)
def test_what_gives_no_slope_is_said(where, settings, message):
    local = nllc.localize(regression, **{"center": {"w": OLS}, **where})
    settings = {"num_particles": 200, **settings}
    with pytest.raises(ValueError, match=message):
        evidence.volume_scaling(jax.random.key(0), local, (X, Y), **settings)


def test_volumes_against_the_truth_at_any_centre():
    """The divergences are ½ (x·(w - w*))²: the volumes of the least-squares point, anywhere."""
    center = {"w": OLS + 1.0}
    local = nllc.localize(regression, center=center, localization=0.1, truth="center")
    settings = {"least": 1e-4, "num_particles": 200}
    found = evidence.volume_scaling(jax.random.key(1), local, (X, Y), **settings)
    assert abs(found.learning_coefficient - 1.0) < 4 * found.error < 0.3
    area = 2 * np.pi * 1e-4 / np.sqrt(np.linalg.det(X.T @ X / 200))
    last = found.curve.isel(epsilon=-1)
    assert abs(float(last["log_volume"]) - np.log(area * 0.1 / (2 * np.pi))) < 4 * last["error"]
    by_data = nllc.localize(regression, center=center, localization=0.1)
    with pytest.raises(ValueError, match="`center` is not the minimum"):
        evidence.volume_scaling(jax.random.key(1), by_data, (X, Y), **settings)
