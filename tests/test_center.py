"""Finding and checking the centre."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import regression
from metropolis import FITTED
from numpyro.infer import init_to_value
from targets import target_of

import numpyro_llc as nllc
from numpyro_llc.inference_data import monte_carlo
from numpyro_llc.local import _curvature as curvature
from numpyro_llc.local._curvature import Curvature, curvature_at_center
from numpyro_llc.local._doubt import doubt_of, remedy_of
from numpyro_llc.local._search import best_of, distances_from, minima_of
from numpyro_llc.results import RunReport
from numpyro_llc.results._report import report_of_center
from numpyro_llc.results.checks import CHECKS, CheckInput

DATA = (regression.X, regression.Y)
N = 50
Y = np.ones(N)
WELLS = np.sort(np.roots([4.0, 0.0, -4.0, 0.3]).real)[[0, 2]]
"""Minima of (w² - 1)² + 0.3 w."""
COEFFICIENTS = ("constant", "linear", "cubic", "product", "wells", "saturated", "exploding")


def shaped(y, coefficients):
    """One program for many losses: the mean is a sum of terms."""
    w = numpyro.sample("w", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    terms = [
        1.0,
        w[0],
        w[1] ** 3,
        w[0] * w[1],
        (w[0] ** 2 - 1) ** 2 + 0.3 * w[0],
        jnp.tanh(w[0]),
    ]
    mean = coefficients[:-1] @ jnp.stack(terms) + jnp.expm1(coefficients[-1] * w[1])
    numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def of(**named):
    """Data, and the coefficients of the terms that are there."""
    return Y, np.array([named.get(name, 0.0) for name in COEFFICIENTS])


def find(seed=0, init=None, **named):
    strategy = None if init is None else init_to_value(values={"w": jnp.asarray(init, float)})
    return nllc.find_center(jax.random.key(seed), shaped, of(**named), init=strategy)


@pytest.fixture(scope="module")
def found():
    """The maximum of the likelihood of a linear regression."""
    return nllc.find_center(jax.random.key(0), regression.model, DATA, num_starts=3)


def test_mle_of_a_linear_regression_is_least_squares(found):
    np.testing.assert_allclose(found.params["w"], regression.OLS, atol=2e-4)
    residual = regression.Y - regression.X @ regression.OLS
    loss = 0.5 * np.sum(residual**2) + 250 * np.log(2 * np.pi)
    eigenvalues = np.linalg.eigvalsh(regression.X.T @ regression.X)
    assert found.loss == pytest.approx(loss, rel=1e-6)
    assert found.smallest_eigenvalue == pytest.approx(eigenvalues[0], rel=1e-3)
    assert found.largest_eigenvalue == pytest.approx(eigenvalues[-1], rel=1e-3)
    assert found.converged
    w = np.asarray(found.params["w"], float)
    gradient = regression.X.T @ (regression.X @ w - regression.Y)
    assert found.gradient_norm == pytest.approx(np.linalg.norm(gradient), abs=0.01)
    assert gradient @ np.linalg.solve(regression.X.T @ regression.X, gradient) < 1e-4  # nats
    assert found.objective == "mle"
    assert found.start_objectives.shape == (3,)
    assert found.start_objectives[found.start] == 0.0
    assert np.all(found.start_objectives < 1e-3)  # one minimum, which all reach


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")  # of so few draws
def test_a_found_center_and_its_estimate_share_compiled_code(found):
    compiled = curvature._gradient_and_hessian._cache_size()
    assert compiled > 0
    nllc.estimate_llc(
        jax.random.key(0),
        regression.model,
        DATA,
        center=found,
        kernel=FITTED,
        num_warmup=100,
        num_samples=8,
        progress_bar=False,
    )
    assert curvature._gradient_and_hessian._cache_size() == compiled


def test_map_ignores_the_jacobian_and_sees_a_prior_that_changes_outside_the_model():
    prior = {"rate": 2.0}

    def model(y):
        rate = numpyro.sample("rate", dist.Gamma(3.0, prior["rate"]))
        numpyro.sample("y", dist.Exponential(rate), obs=y)

    y = np.array([0.5, 1.0, 1.5])
    for prior["rate"] in (2.0, 20.0):
        center = nllc.find_center(jax.random.key(0), model, (y,), objective="map", num_starts=2)
        mode = (3 + 3 - 1) / (prior["rate"] + 3.0)
        assert float(center.params["rate"]) == pytest.approx(mode, rel=1e-4)
        assert center.loss == pytest.approx(3 * mode - 3 * np.log(mode), rel=1e-5)  # of the data
        # In log rate the objective is (b + Σy) e^z - 5 z.
        assert center.smallest_eigenvalue == pytest.approx(5.0, rel=1e-3)
        assert center.objective == "map"


def test_the_best_of_several_starts_wins():
    center = find(1, wells=1.0, constant=2.0)
    assert float(center.params["w"][0]) == pytest.approx(WELLS[0], abs=1e-3)
    loss = 0.5 * N * (1.0 + (WELLS**2 - 1) ** 2 + 0.3 * WELLS) ** 2
    assert center.loss == pytest.approx(loss[0] + 0.5 * N * np.log(2 * np.pi), rel=1e-5)
    ends = np.sort(center.start_objectives)
    is_other = ends > 1.0
    assert 0 < is_other.sum() < 8
    wanted = np.where(is_other, loss[1] - loss[0], 0.0)
    np.testing.assert_allclose(ends, wanted, rtol=1e-4, atol=1e-3)
    assert center.start_objectives[center.start] == 0.0
    best, other = center.minima
    assert (best.excess, other.num_starts) == (0.0, is_other.sum())
    assert other.excess == pytest.approx(loss[1] - loss[0], rel=1e-4)
    assert best.num_starts + other.num_starts == 8


def test_ends_of_equal_value_that_lie_apart_are_said_to():
    ends = {"a": np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 2.0], [9.0, 9.0]]), "b": np.zeros(4)}
    ends["b"][1] = 12.0
    excess = np.array([0.0, 2e-3, 5.0, np.nan])
    found = minima_of(excess, distances_from(ends, best=0), loss=1.0)
    assert found == ((0.0, 2, 13.0), (5.0, 1, 2.0))


def test_values_that_are_known_are_the_first_start():
    """Such as a posterior mean, in the well whose loss is higher than that of the other."""
    known = {"w": np.array([WELLS[1] + 0.1, 0.0])}
    data = of(wells=1.0, constant=2.0)
    loss = 0.5 * N * (1.0 + (WELLS**2 - 1) ** 2 + 0.3 * WELLS) ** 2
    for init, above in ((known, loss[1] - loss[0]), (find(1, wells=1.0, constant=2.0), 0.0)):
        center = nllc.find_center(jax.random.key(0), shaped, data, init=init)
        assert center.start_objectives[0] == pytest.approx(above, rel=1e-4, abs=1e-3)
        assert center.minima[0].excess == 0.0
    with pytest.raises(ValueError, match="The values to start at are no point.*lacks 'w'"):
        nllc.find_center(jax.random.key(0), shaped, of(constant=2.0), init={"v": 0.0})


def test_starts_that_fail_are_nan_and_no_best():
    center = find(0, linear=1.0, exploding=1e3)
    failed = np.isnan(center.start_objectives)
    assert 0 < failed.sum() < 8
    assert not failed[center.start]
    assert center.loss == pytest.approx(0.5 * N * np.log(2 * np.pi), rel=1e-5)


def test_every_start_failing_raises():
    with pytest.raises(nllc.NonFiniteLossError, match="Every start of `find_center` ended at"):
        find(constant=np.nan)


def outcome_of(check, found, beta, gamma):
    """What a check of a result says of this curvature."""
    report = RunReport(**report_of_center(found), inverse_temperature=beta, localization=gamma)
    return CHECKS[check](CheckInput(np.zeros((1, 0)), {}, report, {}, monte_carlo))


def test_a_saddle_is_no_center():
    # nL = ½ Σ (1 - w1 w2)²: the Hessian at 0 is -50 on the anti-diagonal, 0 on the diagonal.
    told = "no local minimum.*smallest Hessian eigenvalue -50 "
    with pytest.raises(nllc.LLCWarning, match=told) as warning:  # in tests they are errors
        find(init=np.zeros(2), product=1.0)
    center = warning.value.result
    assert not center.converged
    assert (center.smallest_eigenvalue, center.largest_eigenvalue) == pytest.approx((-50, 50))
    target = target_of(shaped, of(product=1.0), {"w": np.zeros(2)}, beta=0.2)
    outcome = outcome_of("center_curvature", curvature_at_center(target, jax.random.key(0)), 0.2, 1)
    assert outcome.found
    assert "eigenvalue of nL at the centre is -50 " in outcome.meaning
    assert "no local minimum" in outcome.meaning


def test_a_saddle_shallower_than_a_localization_of_one_is_a_center():
    assert find(init=np.zeros(2), product=0.04 / N).converged
    with pytest.warns(nllc.LLCWarning, match="no local minimum"):
        assert not find(init=np.zeros(2), product=0.06 / N).converged


def test_a_likelihood_without_maximum_is_said_so():
    with pytest.warns(nllc.LLCWarning, match="is constant there, .* no minimum.*objective='map'"):
        center = find(saturated=1.0)
    assert not center.converged


MINIMUM = {"gradient_norm": 1.0, "largest": 9.0, "smallest": 1.0, "newton_shift": -0.9e-3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"newton_shift": -1.1e-3}, "no local minimum.*0.0011 nats to gain"),
        ({"newton_shift": np.nan}, "no local minimum"),
        ({"smallest": -0.24}, None),
        ({"smallest": -0.26}, "no local minimum.*smallest Hessian eigenvalue -0.26"),
        ({"largest": 1.2e-6}, None),
        ({"largest": 0.8e-6}, "loss is flat"),
        ({"largest": np.nan}, "derivatives of the loss are not finite"),
    ],
)
def test_what_a_newton_step_gains_and_what_curves_down_say_whether_it_converged(change, message):
    target = target_of(shaped, of(linear=1.0), {"w": np.zeros(2)}, beta=0.2, gamma=1.0)
    found = Curvature(**{**MINIMUM, **change}, expected_llc=1.0, hessian=None)
    doubt = doubt_of(found, target, "mle")
    assert re.search(message, doubt) if message else not doubt


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"objective": "mean"}, ValueError, "`objective` must be 'mle' or 'map'; got 'mean'"),
        ({"num_starts": 0}, ValueError, "`num_starts` must be at least 1; got 0"),
        ({"max_steps": 1.5}, TypeError, "`max_steps` must be an integer; got 1.5"),
    ],
)
def test_bad_arguments_are_refused(wrong, error, message):
    with pytest.raises(error, match=message):
        nllc.find_center(jax.random.key(0), regression.model, DATA, **wrong)


def test_the_shift_of_a_center_off_the_minimum_is_the_exact_one():
    target = target_of(regression.model, DATA, {"w": regression.TRUTH}, beta=1 / np.log(500))
    found = curvature_at_center(target, jax.random.key(0))
    expected = regression.exact(regression.TRUTH, 1.0) - regression.exact(regression.OLS, 1.0)
    assert found.newton_shift == pytest.approx(expected, rel=1e-3)


def test_a_slope_is_seen_without_localization():
    data = of(linear=1.0, cubic=1.0)
    target = target_of(shaped, data, {"w": np.zeros(2)}, beta=0.2, gamma=0.0)
    found = curvature_at_center(target, jax.random.key(0))
    assert found.newton_shift == pytest.approx(-0.5 * 0.2 * N, rel=1e-3)
    outcome = outcome_of("center_gradient", found, 0.2, 0.0)
    assert outcome.found
    assert "gradient norm of nL is 50" in outcome.meaning


@pytest.mark.parametrize(("loss", "says"), [(5e-4, "there is no minimum"), (2e-3, "`max_steps`")])
def test_a_loss_that_is_all_but_gone_has_no_minimum_to_search_for(loss, says):
    target = target_of(regression.model, DATA, {"w": regression.OLS}, beta=1.0)
    gone = {"y": np.full(500, loss, np.float32)}
    assert says in remedy_of(replace(target, center_losses=gone))


def test_a_localized_model_is_searched_from_its_center():
    """(w² - 1)² + 0.3 w has two minima: the first start ends in that of the centre's basin."""
    data = of(wells=1.0, constant=2.0)
    for start, is_lower in ((-1.0, True), (1.0, False)):
        local = nllc.localize(shaped, center={"w": np.array([start, 0.0])}, localization=3.0)
        found = nllc.find_center(jax.random.key(0), local, data)
        assert (found.start_objectives[0] < 1.0) == is_lower


def test_separated_classes_have_no_minimum_though_the_search_ends():
    """Where the loss is 0 in float32, so are its derivatives."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 2)).astype(np.float32), np.arange(60) % 3
    x += 4.0 * np.eye(3)[y, :2].astype(np.float32)
    params = {"w": rng.normal(size=(2, 64)), "b": np.zeros(64)}
    params["v"] = rng.normal(size=(64, 3))

    def apply(p, x):
        return jnp.tanh(x @ p["w"] + p["b"]) @ p["v"]

    model = nllc.network_model(apply, params, "categorical")
    with pytest.warns(nllc.LLCWarning, match="there is no minimum.*truth='center'"):
        center = nllc.find_center(jax.random.key(0), model, (x, y), init={"params": params})
    assert not center.converged
    assert 0.0 <= center.loss < 0.06


def test_rare_events_have_their_minimum():
    """Of 10⁵ data the loss of each is small, and the curvature of all is not."""
    y = (np.arange(100_000) < 8).astype(int)

    def model(y):
        b = numpyro.sample("b", dist.Normal(0.0, 10.0))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Bernoulli(logits=b), obs=y)

    center = nllc.find_center(jax.random.key(0), model, (y,))
    assert center.converged
    assert float(center.params["b"]) == pytest.approx(np.log(8 / (1e5 - 8)), abs=1e-3)


def test_a_minimum_that_is_lower_is_taken_and_of_equal_ones_the_nearest():
    def best(*losses):
        return best_of({"y": np.array(losses)}, {"m": np.array([[1.0], [4.0]])})

    excess, place = best(1e6 + 2e-4, 1e6)
    assert place == 1
    np.testing.assert_allclose(excess, [2e-4, 0.0], rtol=1e-3)
    excess, place = best(1e6 + 0.5e-4, 1e6)
    assert (place, excess.tolist()) == (0, [0.0, 0.0])
