"""Finding and checking the centre."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import regression
from numpyro.infer import init_to_value

import numpyro_llc as nllc
from numpyro_llc.inference_data import monte_carlo
from numpyro_llc.local import _curvature as curvature
from numpyro_llc.local._curvature import curvature_at_center
from numpyro_llc.local._target import make_target
from numpyro_llc.models import read_model
from numpyro_llc.results._assemble import curvature_settings
from numpyro_llc.results.checks import CHECKS, Evidence

DATA = (regression.X, regression.Y)


def test_mle_of_a_linear_regression_is_least_squares():
    center = nllc.find_center(jax.random.key(0), regression.model, DATA, num_starts=3)
    np.testing.assert_allclose(center.params["w"], regression.OLS, atol=2e-4)
    residual = regression.Y - regression.X @ regression.OLS
    loss = 0.5 * np.sum(residual**2) + 250 * np.log(2 * np.pi)
    eigenvalues = np.linalg.eigvalsh(regression.X.T @ regression.X)
    assert center.loss == pytest.approx(loss, rel=1e-6)
    assert center.smallest_eigenvalue == pytest.approx(eigenvalues[0], rel=1e-3)
    assert center.largest_eigenvalue == pytest.approx(eigenvalues[-1], rel=1e-3)
    assert center.converged
    found = np.asarray(center.params["w"], float)
    gradient = regression.X.T @ (regression.X @ found - regression.Y)
    assert center.gradient_norm == pytest.approx(np.linalg.norm(gradient), abs=0.01)
    assert gradient @ np.linalg.solve(regression.X.T @ regression.X, gradient) < 1e-4  # nats
    assert center.objective == "mle"
    assert center.start_objectives.shape == (3,)
    assert center.start_objectives[center.start] == 0.0


def test_map_of_a_linear_regression_is_ridge():
    center = nllc.find_center(
        jax.random.key(0), regression.model, DATA, objective="map", num_starts=2
    )
    x, y = DATA
    ridge = np.linalg.solve(x.T @ x + np.eye(5), x.T @ y)  # the prior is Normal(0, 1)
    np.testing.assert_allclose(center.params["w"], ridge, atol=2e-4)
    assert np.abs(ridge - regression.OLS).max() > 0.01


def test_map_of_a_constrained_site_ignores_the_jacobian():
    def model(y):
        rate = numpyro.sample("rate", dist.Gamma(3.0, 2.0))
        numpyro.sample("y", dist.Exponential(rate), obs=y)

    y = jnp.array([0.5, 1.0, 1.5])
    center = nllc.find_center(jax.random.key(0), model, (y,), objective="map", num_starts=2)
    assert float(center.params["rate"]) == pytest.approx((3 + 3 - 1) / (2 + 3.0), rel=1e-4)


def test_the_best_of_several_starts_wins():
    def model(y):
        w = numpyro.sample("w", dist.Normal(0.0, 2.0))
        numpyro.sample("y", dist.Normal((w**2 - 1) ** 2 + 0.3 * w, 1.0), obs=y)

    center = nllc.find_center(jax.random.key(1), model, (-jnp.ones(50),), num_starts=8)
    assert float(center.params["w"]) == pytest.approx(-1.03, abs=0.05)
    assert np.nanmax(center.start_objectives) > 1.0  # some starts ended in the other well


def saddle(y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(w[0] * w[1], 1.0), obs=y)


def test_a_saddle_is_no_center():
    at_saddle = {"w": np.zeros(2)}
    # nL = ½ Σ (1 - w1 w2)²: the Hessian at 0 is -20 on the anti-diagonal, 0 on the diagonal.
    with pytest.warns(nllc.LLCWarning, match="eigenvalue of nL at the centre is -20 "):
        idata = nllc.estimate_llc(
            jax.random.key(0),
            saddle,
            (np.ones(20),),
            center=at_saddle,
            num_warmup=200,
            num_samples=400,
            progress_bar=False,
        )
    assert "center_curvature" in nllc.diagnose(idata).index
    assert "no local minimum" in idata.attrs["findings"]
    assert idata.attrs["center_smallest_eigenvalue"] == pytest.approx(-20, rel=1e-4)
    with pytest.warns(nllc.LLCWarning, match="no local minimum"):
        center = nllc.find_center(
            jax.random.key(0),
            saddle,
            (np.ones(20),),
            num_starts=1,
            init_strategy=init_to_value(values={"w": jnp.zeros(2)}),
        )
    assert not center.converged


def test_the_shift_of_a_center_off_the_minimum_is_the_exact_one():
    reading = read_model(regression.model, DATA, None, center={"w": regression.TRUTH})
    target = make_target(
        reading.program,
        reading.arrays,
        reading.center,
        inverse_temperature=1 / np.log(500),
        localization={"w": 1.0},
    )
    found = curvature_at_center(target, jax.random.key(0))
    expected = regression.exact(regression.TRUTH, 1.0) - regression.exact(regression.OLS, 1.0)
    assert found.newton_shift == pytest.approx(expected, rel=1e-3)
    gradient = regression.X.T @ (regression.X @ regression.TRUTH - regression.Y)
    assert found.gradient_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-4)


def test_krylov_and_dense_curvature_agree(monkeypatch):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(300, 40)), rng.normal(size=300)
    reading = read_model(regression.model, (x, y), None, center={"w": np.zeros(40)})
    target = make_target(
        reading.program,
        reading.arrays,
        reading.center,
        inverse_temperature=0.2,
        localization={"w": 1.0},
    )
    dense = curvature_at_center(target, jax.random.key(0))
    monkeypatch.setattr(curvature, "DENSE_LIMIT", 10)
    krylov = curvature_at_center(target, jax.random.key(0))
    assert krylov.hessian is None
    assert krylov.largest == pytest.approx(dense.largest, rel=1e-3)
    assert krylov.smallest == pytest.approx(dense.smallest, rel=2e-2)
    assert krylov.newton_shift == pytest.approx(dense.newton_shift, rel=1e-3)
    assert krylov.gradient_norm == pytest.approx(dense.gradient_norm, rel=1e-5)


def test_every_start_failing_raises():
    def model(y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(jnp.sqrt(-1.0 - w**2), 1.0), obs=y)

    with pytest.raises(nllc.NonFiniteLossError, match="Every start of `find_center` ended at"):
        nllc.find_center(jax.random.key(0), model, (jnp.ones(5),), num_starts=2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"objective": "mean"}, "`objective` must be 'mle' or 'map'; got 'mean'"),
        ({"num_starts": 0}, "`num_starts` must be at least 1; got 0"),
        ({"max_steps": 1.5}, "`max_steps` must be an integer; got 1.5"),
    ],
)
def test_bad_arguments_are_refused(wrong, message):
    with pytest.raises((ValueError, TypeError), match=message):
        nllc.find_center(jax.random.key(0), regression.model, DATA, **wrong)


def test_a_found_center_and_its_estimate_share_compiled_code():
    center = nllc.find_center(jax.random.key(0), regression.model, DATA, num_starts=2)
    compiled = curvature._gradient_and_hessian._cache_size()
    nllc.estimate_llc(
        jax.random.key(0), regression.model, DATA, center=center, num_warmup=200, progress_bar=False
    )
    assert curvature._gradient_and_hessian._cache_size() == compiled


def test_a_prior_that_changes_outside_the_model_changes_the_map():
    prior = {"scale": 1.0}

    def model(y):
        w = numpyro.sample("w", dist.Normal(0.0, prior["scale"]))
        numpyro.sample("y", dist.Normal(w, 1.0), obs=y)

    for scale in (1.0, 0.01):
        prior["scale"] = scale
        center = nllc.find_center(
            jax.random.key(0), model, (np.ones(200),), objective="map", num_starts=2
        )
        expected = 200 / (200 + scale**-2)
        assert float(center.params["w"]) == pytest.approx(expected, rel=1e-3)


def test_a_likelihood_without_maximum_is_said_so():
    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Bernoulli(logits=w * x), obs=y)

    x = np.linspace(-1, 1, 40)
    with pytest.warns(nllc.LLCWarning, match="loss is flat.*objective='map'"):
        center = nllc.find_center(jax.random.key(0), model, (x, (x > 0).astype(float)))
    assert not center.converged


def test_a_slope_is_seen_without_localization():
    def model(y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal(w[0] + w[1] ** 3, 1.0), obs=y)

    reading = read_model(model, (np.ones(200),), None, center={"w": np.zeros(2)})
    target = make_target(
        reading.program,
        reading.arrays,
        reading.center,
        inverse_temperature=0.2,
        localization={"w": 0.0},
    )
    found = curvature_at_center(target, jax.random.key(0))
    assert found.newton_shift == pytest.approx(-0.5 * 0.2 * 200, rel=1e-3)
    attrs = {**curvature_settings(found), "inverse_temperature": 0.2, "localization": 0.0}
    evidence = Evidence(np.zeros((1, 0)), {}, attrs, {}, monte_carlo)
    outcome = CHECKS["center_gradient"](evidence)
    assert outcome.found
    assert "gradient norm of nL is 200" in outcome.meaning
