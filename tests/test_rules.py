"""The rules of the stochastic-gradient kernels: on a quadratic, by linear algebra, without draws.

There a step is linear in position and noise, so that its stationary covariance solves
``C = M C M' + N N'`` exactly; what the warm-up learns is compared with NumPy.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import regression
from scipy.linalg import solve_discrete_lyapunov

from numpyro_llc.kernels import SGLD, SGNHT, StochasticSampler, _step_bias, _stochastic
from numpyro_llc.kernels import _calibration as calibration
from numpyro_llc.kernels import _correction as correction
from numpyro_llc.kernels import _thermostat as thermostat
from numpyro_llc.kernels import _tuning as tuning
from numpyro_llc.kernels._langevin import LangevinRule
from numpyro_llc.kernels._rule import Step
from numpyro_llc.local._gradients import draw_rows, make_anchor
from numpyro_llc.local._target import make_target
from numpyro_llc.models import read_model, with_batches

CURVED = np.array([[4.0, 1.0, 0.3], [1.0, 2.0, -0.2], [0.3, -0.2, 0.7]])
NOISE = np.array([[5.0, -1.0, 0.5], [-1.0, 3.0, 0.0], [0.5, 0.0, 1.0]])
METRIC = np.array([0.5, 2.0, 1.0])
STEP = 0.1
RULES = {
    "sgld": LangevinRule(is_corrected=False),
    "corrected": LangevinRule(is_corrected=True),
    "psgld": LangevinRule(is_corrected=True, has_metric=True),
    "sgnht": thermostat.ThermostatRule(friction=0.3),
    "sgnht, its own friction": thermostat.ThermostatRule(),
}


@pytest.fixture
def no_heat(monkeypatch):
    """Of the thermostat the friction alone, with which a step is linear."""
    monkeypatch.setattr(thermostat, "_heat", lambda p: jnp.zeros(len(p["w"])))


def stacked(rows):
    return {"w": jnp.asarray(rows)}


def step_with(noise, *, metric=None, size=STEP, curved=CURVED, noisy=None, gamma=1.0):
    """What a rule is given at ``∇U = curved z``, with the noise of each chain given."""
    g = np.ones(len(curved)) if metric is None else metric
    root = np.sqrt(g)

    def taking_off(z, v, share, time):
        off = 0.0 if noisy is None else share * (v["w"] * root) @ noisy * root
        moved = {"w": z["w"] - (time or 0.0) * off}
        return moved, {"w": v["w"] - off}, jnp.zeros(len(v["w"]))

    return Step(
        gradient=lambda z: {"w": z["w"] @ curved},
        moved=lambda function, x, *others: function(taking_off, x, *others)[0],
        noise=lambda like: jnp.asarray(noise),
        metric=None if metric is None else stacked(metric),
        localization=jnp.asarray(gamma),
        step_size=jnp.asarray(size),
        whole_step=jnp.asarray(size),
        warming=jnp.array(False),
    )


def linear_maps(rule, **settings):
    """``M`` and ``N`` of ``s ← M s + N ξ``, s position (and momentum), from unit vectors."""
    dim, thermo = 3, isinstance(rule, thermostat.ThermostatRule)
    states = 2 * dim if thermo else dim
    start, noise = np.eye(states + dim, states), np.zeros((states + dim, dim))
    noise[states:] = np.eye(dim)
    inner = (stacked(start[:, dim:]), jnp.zeros(states + dim)) if thermo else None
    z, inner, _ = rule.advance(stacked(start[:, :dim]), inner, step_with(noise, **settings))
    after = np.concatenate([z["w"], inner[0]["w"]], axis=1) if thermo else np.asarray(z["w"])
    return after[:states].T, after[states:].T


def covariance_seen(rule, *, metric=None, size=STEP, extra=None, **settings):
    """Of the positions at which the chain is observed; `extra` is added at each step."""
    m, n = linear_maps(rule, metric=metric, size=size, **settings)
    added = n @ n.T + (0.0 if extra is None else extra)
    found = solve_discrete_lyapunov(m, added)[:3, :3]
    unit = jnp.eye(3)
    given = None if metric is None else stacked(metric)
    zero = stacked(np.zeros((3, 3)))
    push = np.asarray(rule.observed(zero, lambda like: unit, given, jnp.asarray(size))["w"])
    return found + push.T @ push


@pytest.fixture(autouse=True)
def in_double_precision():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", ["corrected", "psgld", "sgnht", "sgnht, its own friction"])
def test_positions_have_exactly_the_covariance_of_the_density(name, no_heat):
    metric = METRIC if name == "psgld" else None
    for size in (STEP, 3 * STEP):
        found = covariance_seen(RULES[name], metric=metric, size=size)
        np.testing.assert_allclose(found, np.linalg.inv(CURVED), atol=1e-9)


@pytest.mark.parametrize("metric", [None, METRIC])
def test_a_plain_step_has_the_covariance_of_euler(metric):
    root = np.diag(np.ones(3) if metric is None else np.sqrt(metric))
    scaled = root @ CURVED @ root
    wanted = root @ np.linalg.inv(scaled @ (np.eye(3) - STEP / 4 * scaled)) @ root
    found = covariance_seen(RULES["sgld"], metric=metric)
    np.testing.assert_allclose(found, wanted, atol=1e-9)
    bias = 0.5 * np.trace(scaled @ np.linalg.solve(root, np.linalg.solve(root, found).T)) - 1.5
    stated = RULES["sgld"].step_bias(1e-4, np.trace(scaled), 0.0)
    euler = 0.5 * np.trace(np.linalg.inv(np.eye(3) - 1e-4 / 4 * scaled)) - 1.5
    assert stated == pytest.approx(euler, rel=1e-3)
    assert bias > 1.01 * RULES["sgld"].step_bias(STEP, np.trace(scaled), 0.0)


def test_descent_is_a_gradient_step_without_noise():
    z = np.array([[1.0, -2.0, 0.5]])
    rule = LangevinRule(is_corrected=True, temperature=0.0)
    for metric in (None, METRIC):
        after, inner, used = rule.advance(stacked(z), None, step_with(z, metric=metric))
        g = 1.0 if metric is None else metric
        np.testing.assert_allclose(after["w"], z - 0.5 * STEP * g * (z @ CURVED), rtol=1e-12)
        np.testing.assert_allclose(used["w"], z @ CURVED)
    assert rule.observed(stacked(z), None, None, STEP)["w"].tolist() == z.tolist()
    assert rule.step_bias(0.1, 5.0, 1.0) == 0.0


def of_gradient_noise(rule, size):
    """What noise of the gradient adds to the covariance of a step."""
    if isinstance(rule, thermostat.ThermostatRule):
        return size**2 * np.pad(NOISE, ((3, 0), (3, 0)))
    return 0.25 * size**2 * NOISE


@pytest.mark.parametrize("name", ["corrected", "sgnht"])
def test_gradient_noise_is_balanced_to_second_order(name, no_heat):
    """λ̂ is off by the square of the noise where it is corrected for, else by the noise."""
    rule = RULES[name]

    def shift(size, noisy):
        found = covariance_seen(rule, size=size, noisy=noisy, extra=of_gradient_noise(rule, size))
        return 0.5 * np.trace(CURVED @ found) - 1.5

    left = [shift(size, NOISE) for size in (0.01, 0.02)]
    assert abs(left[1]) < 0.05 * shift(0.02, None)
    assert left[0] / left[1] < 0.3  # of first order it would be a half


@pytest.mark.parametrize("name", ["corrected", "sgnht"])
def test_the_share_of_noise_is_what_it_raises_the_estimate_by(name, no_heat):
    size = 1e-3
    friction = 0.014 / size  # of the thermostat, whose own share is for this one
    rule = thermostat.ThermostatRule(friction) if name == "sgnht" else RULES[name]
    found = covariance_seen(rule, size=size, extra=of_gradient_noise(rule, size))
    raised = 0.5 * np.trace(CURVED @ found) - 1.5
    assert rule.noise_share(size, np.trace(NOISE)) == pytest.approx(raised, rel=0.01)


def test_noise_is_taken_off_in_the_metric():
    """``√ε G^½ (I - ε/8 G^½ V G^½) ξ``, and the drift of the point that was looked at."""
    _, n = linear_maps(RULES["psgld"], metric=METRIC, noisy=NOISE)
    root = np.diag(np.sqrt(METRIC))
    less = np.eye(3) - STEP / 8 * root @ NOISE @ root
    wanted = np.sqrt(STEP) * root @ less - STEP / 4 * np.sqrt(STEP) * METRIC[:, None] * (
        CURVED @ root
    )
    np.testing.assert_allclose(n, wanted, atol=1e-12)


@pytest.mark.parametrize(("name", "limit"), [("sgld", 2.0), ("corrected", 2.0), ("sgnht", 4.0)])
def test_a_step_is_stable_up_to_the_stiffness_that_is_said(name, limit, no_heat):
    rule, largest = RULES[name], np.linalg.eigvalsh(CURVED).max()
    for stiffness in (0.97 * limit, 1.03 * limit):
        size = float(rule.step_of(stiffness, largest))
        assert float(rule.stiffness_of(size, largest)) == pytest.approx(stiffness)
        m, _ = linear_maps(rule, size=size)
        radius = abs(np.linalg.eigvals(m)).max()
        assert (radius < 1) == (stiffness < limit)
        parts = float(rule.substeps_of(stiffness))
        assert float(rule.stiffness_of(size / parts, largest)) == pytest.approx(1.0)


def thermostat_step(z, p, above, noise, friction, h=STEP):
    """One step of the thermostat in NumPy, of one chain."""
    heat = p @ p / 3 - 1
    z, above = z + h / 2 * p, above + h / 2 * heat
    rate = friction + above
    decay = np.exp(-h * rate)
    spread = 2 * h if rate == 0 else (1 - decay**2) / rate
    p = decay * p + np.sqrt(friction * spread) * noise
    above, z = above + h / 2 * (p @ p / 3 - 1), z + h / 2 * p
    return z, p - h * CURVED @ z, above


@pytest.mark.parametrize("rate", [None, 0.0])
def test_a_step_of_the_thermostat_is_its_splitting(rate):
    rng = np.random.default_rng(0)
    z, p, noise = rng.normal(size=(3, 2, 3))
    friction = 2 * np.sqrt(2.25) + 0.014 / STEP
    above = np.array([0.4, -0.2])
    if rate is not None:  # so that friction and heat cancel
        above = -friction - STEP / 2 * (np.sum(p**2, axis=1) / 3 - 1)
    given = step_with(noise, gamma=2.25)
    found = thermostat.ThermostatRule().advance(stacked(z), (stacked(p), jnp.asarray(above)), given)
    for k in range(2):
        start = z[k], p[k], above[k]
        if rate is not None:
            start = z[k], p[k], -friction - STEP / 2 * (p[k] @ p[k] / 3 - 1)
        wanted = thermostat_step(*start, noise[k], friction)
        got = found[0]["w"][k], found[1][0]["w"][k], found[1][1][k]
        for one, other in zip(got, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_bias_of_a_step_grows_with_the_change_of_curvature():
    for rule, euler in ((RULES["corrected"], STEP / 8), (RULES["sgnht"], STEP**2 / 8)):
        share = 0.2 if rule is RULES["corrected"] else 0.4
        for spread, part in ((0.0, 0.0), (0.25, 0.25), (1.0, 1.0), (7.0, 1.0)):
            found = rule.step_bias(STEP, 6.0, spread)
            assert found == pytest.approx(share * part * euler * 6.0)


def tuned(**fields):
    """What a warm-up learned, of two chains."""
    numbers = {
        "step_size": 0.1,
        "curvature": 4.0,
        "curvature_change": 0.0,
        "typical_square": 12.0,
        "noise": 0.0,
        "raw_noise": 0.0,
        "left_share": 0.0,
        "calibrations": 40,
        "gradients": 100,
        "steps_cut": 0,
    }
    squares = fields.pop("square_by_coordinate", None)
    names = ("square_gradient", "steepness")
    arrays = {name: jnp.asarray(fields.pop(name, [12.0, 12.0])) for name in names}
    numbers = {k: jnp.asarray(v) for k, v in {**numbers, **fields}.items()}
    return tuning.Tuning(**numbers, **arrays, square_by_coordinate=squares)


def test_the_metric_is_the_inverse_of_damped_squares():
    squares = {"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray([[9.0]])}
    metric, vector = tuned(square_by_coordinate=squares).metric, {"a": jnp.ones((2, 2))}
    damping = 0.05 * (1 + 2 + 9) / 3
    np.testing.assert_allclose(metric["a"], 1 / (np.array([1.0, 2.0]) + damping))
    np.testing.assert_allclose(metric["b"], [[1 / (9.0 + damping)]])
    vector["b"] = jnp.ones((2, 1, 1))
    scaled = tuned(square_by_coordinate=squares).scaled(vector)
    np.testing.assert_allclose(scaled["a"][1], np.sqrt(metric["a"]))
    assert tuned().metric is None


def test_the_first_metric_makes_the_largest_curvature_one():
    before = tuned(
        curvature_change=8.0,
        noise=3.0,
        raw_noise=6.0,
        left_share=0.5,
        square_by_coordinate=stacked(np.ones(3)),
    )
    after = tuning.isotropic(before, before.curvature)
    np.testing.assert_allclose(after.square_by_coordinate["w"], 4.0)
    names = ("curvature", "typical_square", "noise", "raw_noise", "noise_left")
    np.testing.assert_allclose([getattr(after, k) for k in names], [1.0, 3.0, 0.75, 1.5, 1.5])
    assert float(after.spread) == pytest.approx(float(before.spread)) == 0.5


@pytest.mark.parametrize("rule", [RULES["corrected"], RULES["sgnht"]], ids=["sgld", "sgnht"])
@pytest.mark.parametrize(
    ("fields", "stiffness"),
    [
        ({}, "quadratic"),
        ({"curvature_change": 16.0 * 0.08}, "between"),
        ({"curvature_change": 160.0}, "least"),
        ({"noise": 3.0, "raw_noise": 9.0}, "noise"),
        ({"noise": 9.0, "raw_noise": 3.0}, "noise"),
        ({"noise": 11.9, "raw_noise": 50.0}, "floor"),
    ],
)
def test_the_step_follows_from_curvature_and_noise(rule, fields, stiffness):
    wanted = {
        "quadratic": rule.quadratic_stiffness,
        "between": rule.quadratic_stiffness * 0.05 / 0.08,
        "least": rule.stiffness,
        "noise": rule.noise_limit / (3.0 / (12.0 - 3.0)),
        "floor": 0.02,
    }[stiffness]
    step = float(sampler_of(rule)._wanted_step(tuned(**fields)))
    assert float(rule.stiffness_of(step, 4.0)) == pytest.approx(wanted)


def sampler_of(rule, **settings):
    return StochasticSampler(rule, **{"batch_size": 10, **settings})


@pytest.mark.parametrize(("control_variates", "noise"), [(True, 9.0), (False, 3.0), (None, 3.0)])
def test_the_step_is_that_of_the_gradient_that_is_used(control_variates, noise):
    sampler = sampler_of(RULES["sgnht"], control_variates=control_variates)
    step = float(sampler._wanted_step(tuned(noise=9.0, raw_noise=3.0)))
    wanted = sampler.rule.noise_limit / (noise / (12.0 - noise))
    assert float(sampler.rule.stiffness_of(step, 4.0)) == pytest.approx(max(wanted, 0.02))


@pytest.mark.parametrize("rule", [RULES["corrected"], RULES["sgnht"]], ids=["sgld", "sgnht"])
def test_a_step_is_so_short_that_noise_which_is_left_adds_little(rule):
    """At most 2 % of ``½ |∇U|²`` over the curvature, however short the step must be."""
    usual = sampler_of(rule)._wanted_step(tuned())
    assert float(sampler_of(rule)._wanted_step(tuned(left_share=1e-5))) == float(usual)
    for left in (10.0, 1e7):
        fields = {"noise": 3.0, "raw_noise": 9.0, "left_share": left / 12.0}
        step = sampler_of(rule)._wanted_step(tuned(**fields))
        assert float(rule.noise_share(step, left)) == pytest.approx(0.02 * 0.5 * 12.0 / 4.0)


def test_running_means_of_the_squared_gradient_and_of_the_noise_left():
    state = SimpleNamespace(
        tuning=tuned(
            square_gradient=[11.0, 2.0],
            steepness=[12.0, 1.0],
            left_share=5.0,
            square_by_coordinate=stacked([1.0, 2.0]),
        ),
        i=jnp.asarray(_stochastic.EARLY_STEPS + 10),
        warming=jnp.asarray(True),
    )
    gradient = stacked([[3.0, 1.0], [1.0, 200.0]])

    def of(state):
        since = state.i - _stochastic.EARLY_STEPS
        left = jnp.asarray([1.0, 3.0])
        return tuning.learned(state.tuning, gradient, new, left, state.i, since, state.warming)

    new = jnp.asarray([5.0, 40_000.0])
    learned = of(state)
    # 0.9 of the old and 0.1 of the new, but at least 0.3 of the new.
    assert new[0] < 4.5 * 12
    wanted = [0.9 * 12 + 0.1 * new[0], 0.3 * new[1]]
    np.testing.assert_allclose(learned.steepness, wanted, rtol=1e-12)
    mean = 0.9 * np.array([11.0, 2.0]) + 0.1 * new
    np.testing.assert_allclose(learned.square_gradient, mean, rtol=1e-12)
    begun = SimpleNamespace(**{**vars(state), "i": jnp.asarray(1)})
    second = of(begun).square_gradient
    np.testing.assert_allclose(second, (np.array([11.0, 2.0]) + new) / 2, rtol=1e-12)
    weight, seen = 2 / (10 + 64), np.array([5.0, 30 * (2.0 + 1.5)])  # a wild one is cut
    old = np.array([1.0, 2.0])
    np.testing.assert_allclose(learned.square_by_coordinate["w"], old + weight * (seen - old))
    assert int(learned.gradients) == 101
    steps = _stochastic.EARLY_STEPS + 10  # it looks back on a third of them
    assert float(learned.left_share) == pytest.approx(5.0 + 3 / (steps + 3) * (2.0 - 5.0))
    for held in ({"warming": jnp.asarray(False)}, {"i": jnp.asarray(_stochastic.EARLY_STEPS)}):
        frozen = SimpleNamespace(**{**vars(state), **held})
        kept = of(frozen)
        np.testing.assert_allclose(kept.square_by_coordinate["w"], old)


def test_a_wild_gradient_is_shortened_and_a_usual_one_is_not():
    sampler, gradient = sampler_of(RULES["corrected"]), stacked([[1.0, 1.0], [60.0, 80.0]])
    given = sampler.rule, tuned(), jnp.asarray(0.1), gradient, jnp.asarray([2.0, 1e4])
    found, square = tuning.clipped(*given)
    np.testing.assert_allclose(found["w"][0], [1.0, 1.0])
    local = 0.5 * 0.1 * 4.0 * 100.0**2 / 12.0  # stiffness, were the curvature as the gradient
    np.testing.assert_allclose(found["w"][1], np.array([60.0, 80.0]) / np.sqrt(local / 4.0))
    np.testing.assert_allclose(square, np.sum(found["w"] ** 2, axis=1))


@pytest.mark.parametrize(
    ("square", "parts"), [(12.0, 1), (12.0 * 5, 1), (12.0 * 10, 4), (12.0 * 2000, 64)]
)
def test_a_step_is_cut_where_gradients_are_long(square, parts):
    """Usual stiffness 0.2 of 0.5 at most: cut where the local one is above 0.4, by powers of 2."""
    sampler = sampler_of(LangevinRule(is_corrected=True))
    # 5 times: a stiffness of 1.0 of at most 2 * 0.2 is cut by 4, not left.
    count, size = sampler._part(tuned(steepness=[12.0, square]))
    local = 0.5 * 0.1 * 4.0 * square / 12.0
    wanted = 2 ** int(np.clip(np.ceil(np.log2(local / 0.4)), 0, 6))
    assert int(count) == wanted
    assert float(size) == pytest.approx(0.1 / wanted)
    fixed = sampler_of(LangevinRule(is_corrected=False), step_size=0.3)
    assert int(fixed._part(tuned(steepness=[12.0, square], step_size=0.3))[0]) == 1


@pytest.mark.parametrize(("i", "most"), [(10, 8), (1600, 100)])
def test_a_step_that_is_cut_again_and_again_is_halved(i, most):
    """After more than 8 steps in a row, and a sixteenth of all; until it is not cut any more."""
    found = tuned()
    for _ in range(most):
        found = tuning.shortened(found, jnp.asarray(4), i)
        assert float(found.step_size) == 0.1
    for size in (0.05, 0.025):
        found = tuning.shortened(found, jnp.asarray(2), i)
        assert float(found.step_size) == size
    found = tuning.shortened(found, jnp.asarray(1), i)
    assert float(tuning.shortened(found, jnp.asarray(2), i).step_size) == 0.025


def correction_of(noise, *, is_large=True, num_rows=32, num_shards=1, **fields):
    given = RULES["corrected"], SimpleNamespace(num_shards=num_shards), range(num_rows)
    return correction.Correction(*given, tuned(**fields), None, jnp.asarray(noise), is_large)


def test_noise_is_corrected_for_where_it_matters():
    least = 0.5 * 12.0 / 4.0
    edge = 0.002 * least / (0.1 / 8)
    for noise, wanted in ((0.99 * edge, False), (1.01 * edge, True)):
        assert bool(correction_of(noise).is_worthwhile) == wanted
        # That of rare rows shows in what is left alone.
        assert bool(correction_of(0.0, left_share=noise / 12.0).is_worthwhile) == wanted


def test_of_large_models_noise_is_taken_off_at_a_quarter_of_the_steps_whatever_the_thinning():
    counts = np.arange(100, 100 + 4000)
    found = np.asarray(correction_of(3.0, gradients=counts).is_now)
    assert max(np.diff(np.flatnonzero(found))) <= 5
    for thinning in range(1, 20):
        for first in range(thinning):
            assert np.mean(found[first::thinning]) == pytest.approx(0.25, abs=0.05)
    assert not np.any(correction_of(1e-6, gradients=counts).is_now)
    assert np.all(correction_of(3.0, gradients=counts, is_large=False).is_now)


@pytest.mark.parametrize(
    ("num_rows", "shards", "each", "period"),
    [(32, 1, 8, 4), (34, 1, 8, 4), (32, 4, 2, 4), (5, 1, 2, 2), (2, 1, 2, 1)],
)
def test_where_noise_is_taken_off_less_often_it_is_so_by_more_rows(num_rows, shards, each, period):
    large = correction_of(3.0, num_rows=num_rows, num_shards=shards)
    small = correction_of(3.0, num_rows=num_rows, num_shards=shards, is_large=False)
    assert (large.num_rows, large.period) == (each, period)
    assert (small.num_rows, small.period) == (each, 1)
    assert period * each * shards <= max(num_rows, 2 * shards)


def test_the_anchor_serves_where_it_lowers_the_noise_or_where_asked():
    low, high = tuned(noise=1.0, raw_noise=2.0), tuned(noise=2.0, raw_noise=1.0)
    free = sampler_of(RULES["corrected"])
    assert (bool(free._uses_anchor(low)), bool(free._uses_anchor(high))) == (True, False)
    for asked in (True, False):
        told = sampler_of(RULES["corrected"], control_variates=asked)
        assert bool(told._uses_anchor(low)) == bool(told._uses_anchor(high)) == asked


def contracted(v, pushed, share, is_momentum):
    v, pushed = jnp.asarray(v), jnp.asarray(pushed)
    return correction.contracted(stacked(v), stacked(pushed), v @ pushed, share, is_momentum)


@pytest.mark.parametrize("share", [1e-4, 0.05, 10.0])
def test_as_much_is_taken_off_as_the_noise_puts_in_if_there_is_so_much(share):
    v, square = np.array([1.0, 2.0, -1.0]), NOISE
    pushed = square @ v
    found, left = contracted(v, pushed, share, False)
    taken = v @ v - np.sum(np.square(found["w"]))
    wanted, most = 2 * share * v @ pushed, (v @ pushed) ** 2 / (pushed @ pushed)
    assert (wanted > most) == (share == 10.0)
    assert taken == pytest.approx(min(wanted, most))
    assert 2 * share * float(left) == pytest.approx(wanted - taken, abs=1e-12)
    np.testing.assert_allclose(np.cross(v - found["w"], pushed), 0.0, atol=1e-12)


def test_little_is_taken_off_without_rounding_and_nothing_of_nothing():
    with jax.enable_x64(False):
        v, pushed = np.ones(3, "f"), np.full(3, 2.0, "f")
        for one, other in ((v * 0, pushed), (v, v * 0), (v, -1e-20 * pushed)):
            found, left = contracted(one, other, 1e-3, True)
            np.testing.assert_array_equal(found["w"], one)
            assert float(left) == 0
        found, _ = contracted(1e-6 * v, pushed, 1e-9, False)
        np.testing.assert_allclose(1e-6 - found["w"].astype(float), 2e-9, rtol=0.01)


@pytest.mark.parametrize("noise", [0.01, 0.3, 1.5])
def test_kicks_of_noise_and_their_friction_leave_the_temperature_of_the_density(noise):
    """Of one direction, by linear algebra, with the noise known: a step of ``h = 1``."""
    curvature, share = 1e-6, 0.5

    def after(z, p):
        z = z + 0.5 * p
        damped = contracted([p], [noise * p], share, True)[0]["w"][0]
        z = z + 0.5 * damped
        return jnp.stack([z, damped - curvature * z])

    step = np.stack([after(1.0, 0.0), after(0.0, 1.0)], axis=1)
    found = solve_discrete_lyapunov(step, np.diag([0.0, noise]))
    assert curvature * found[0, 0] == pytest.approx(1.0, rel=1e-3)


@pytest.fixture(scope="module")
def small():
    """A regression of two coefficients on six data, off its minimum."""
    with jax.enable_x64(True):
        data = regression.X[:6, :2], regression.Y[:6]
        reading = read_model(regression.model, data, None, center={"w": np.array([1.0, 0.8])})
        return make_target(
            with_batches(reading),
            reading.arrays,
            reading.center,
            inverse_temperature=0.3,
            localization={"w": 2.0},
        )


Z = np.array([[0.4, 1.7], [1.2, -0.3]])
DIRECTIONS = np.array([[0.8, 0.3], [-0.2, 1.1]])


@pytest.fixture(scope="module")
def calibrate(small):
    """A calibration on the full data at the two points of ``Z``, compiled once."""
    with jax.enable_x64(True):
        point = calibration.CalibrationPoint(small, make_anchor(small), None, None, None)
        start = stacked(Z), jnp.asarray(DIRECTIONS), point, jnp.array(True), 0.0
        compiled = jax.jit(lambda old: calibration.calibrated(old, *start))
        fresh = tuning.start_tuning(RULES["corrected"], None, stacked(Z), 2)
        return lambda **fields: compiled(fresh._replace(**fields))


def test_a_calibration_measures_curvature_and_gradient(calibrate):
    x, y = regression.X[:6, :2], regression.Y[:6]
    curved = 0.3 * x.T @ x + 2.0 * np.eye(2)
    full = calibrate()
    v = DIRECTIONS
    for _ in range(calibration.POWER_ITERATIONS):
        v = v / np.linalg.norm(v, axis=1, keepdims=True) @ curved
    assert float(full.curvature) == pytest.approx(np.linalg.norm(v, axis=1).mean())
    assert float(full.curvature_change) == pytest.approx(0.0, abs=1e-12)
    gradient = 0.3 * (Z @ x.T - y) @ x + 2.0 * (Z - np.array([1.0, 0.8]))
    assert float(full.typical_square) == pytest.approx(np.mean(np.sum(gradient**2, axis=1)))
    assert (float(full.noise), float(full.raw_noise)) == (0.0, 0.0)
    assert int(full.calibrations) == 1
    assert int(full.gradients) == 2 * 4 + 4


def test_calibrations_are_averaged_and_the_first_is_soon_forgotten(calibrate):
    new = float(calibrate().typical_square)
    for calibrations, weight in ((0, 1.0), (3, 1.0), (12, 1 / 4), (90, 1 / 30), (960, 1 / 32)):
        found = calibrate(
            typical_square=jnp.asarray(1.0), calibrations=jnp.asarray(calibrations, jnp.int32)
        )
        assert float(found.typical_square) == pytest.approx(1.0 + weight * (new - 1.0))
    far = calibrate(typical_square=jnp.asarray(1e30))  # as the first look, far out, may have it
    assert float(far.typical_square) == pytest.approx(new)


def test_a_calibration_far_out_comes_before_the_first_one_alone(calibrate, small):
    near = float(calibrate().typical_square)
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 2)
        point = calibration.CalibrationPoint(small, make_anchor(small), keys, None, None)
        fresh = tuning.start_tuning(RULES["corrected"], None, stacked(Z), 2)

        @jax.jit
        def along(first):
            return calibration.calibrated_along(fresh, stacked(Z), point, lambda _: False, first)

        (far, last), (none, only) = map(along, (True, False))
    assert [int(one.calibrations) for one in (far, last, none, only)] == [1, 2, 0, 1]
    assert abs(float(far.typical_square) - near) > 0.1 * near
    assert [float(one.typical_square) for one in (last, only)] == pytest.approx([near, near])


def test_the_noise_of_a_batch_is_measured_without_bias(small):
    x, y, size = regression.X[:6, :2], regression.Y[:6], 5  # of odd batches a row is left out
    anchor, keys = make_anchor(small), jax.random.split(jax.random.key(0), 4000)

    @jax.jit
    @jax.vmap
    def measured(key):
        rows = draw_rows(key, small, size)[None]
        point = calibration.CalibrationPoint(small, anchor, None, rows, size)
        return jnp.stack(calibration._noise(tuned(), stacked(Z), point)).mean(axis=1)

    def terms(w):
        return 0.3 * 6 * (x @ w - y)[:, None] * x

    def trace(points):
        """Of the covariance of a batch gradient, the mean over points."""
        return np.mean([np.trace(np.cov(each.T, bias=True)) for each in points]) / size

    there = terms(np.array([1.0, 0.8]))
    exact = trace([terms(w) - there for w in Z]), trace([terms(w) for w in Z])
    for values, wanted in zip(np.asarray(measured(keys)).T, exact, strict=True):
        error = np.std(values) / np.sqrt(4000)
        assert abs(np.mean(values) - wanted) < 4 * error
        assert abs(np.mean(values) - wanted * size / (size - 1)) > 4 * error


def test_a_change_of_curvature_is_that_of_the_hessian():
    """``|∇²U(z) v|`` and ``|(∇²U(z) - ∇²U(z*)) v|²`` where ``∇²U = 12 z² + γ`` by coordinate."""

    class Quartic:
        program = SimpleNamespace(has_forward_mode=True)
        center = {"w": jnp.asarray([0.5, 0.0])}

        def tempered_loss(self, z, rows):
            return jnp.sum(z["w"] ** 4)

        def penalty_gradient(self, z):
            return {"w": 2 * (z["w"] - self.center["w"])}

    z, direction = np.array([1.0, 2.0]), np.array([0.6, 0.8])
    point = calibration.CalibrationPoint(Quartic(), None, None, None, None)
    start = stacked(z[None]), stacked(direction[None]), point
    for metric in (None, stacked([1.0, 4.0])):
        given = tuned(square_by_coordinate=metric)
        root = np.ones(2) if metric is None else np.sqrt(1 / (np.array([1.0, 4.0]) + 0.125))
        largest, change = calibration._curvature(given, *start)
        here = root**2 * (12 * z**2 + 2)
        there = root**2 * (12 * np.array([0.5, 0.0]) ** 2 + 2)
        v = direction * here ** (calibration.POWER_ITERATIONS - 1)
        v = v / np.linalg.norm(v)
        assert float(largest[0]) == pytest.approx(np.linalg.norm(here * v))
        assert float(change[0]) == pytest.approx(np.sum(((here - there) * v) ** 2))


@pytest.mark.parametrize(
    ("gamma", "curved", "spread"),
    [(0.25, 0.0, 1.0), (4.0, 0.0, 0.5), (0.25, 1080.0, None)],
    ids=["flat", "localized", "steep"],
)
def test_the_first_look_is_as_far_out_as_loss_and_localization_allow(gamma, curved, spread):
    """Of the localizing Gaussian or of variance 1; nearer where ``U`` is above ``2 d + 10``."""
    target = SimpleNamespace(
        localization={"w": jnp.asarray(gamma)},
        center={"w": jnp.zeros(2)},
        tempered_loss=lambda one, rows: 0.5 * curved * jnp.sum(one["w"] ** 2),
        penalty=lambda one: 0.5 * gamma * jnp.sum(one["w"] ** 2),
        num_rows=0,
    )
    directions = jnp.asarray(np.random.default_rng(0).normal(size=(4000, 2)))
    point = calibration.CalibrationPoint(target, None, None, None, None)
    start = stacked(np.zeros((4000, 2)))

    @jax.jit
    def look():
        reach = calibration.farthest(start, directions, point)
        return calibration.displaced(start, directions, target, reach)["w"]

    found = np.asarray(look())
    assert not np.any(calibration.displaced(start, directions, target, 0.0)["w"])
    if spread is None:
        mean = 0.5 * (curved + gamma) * np.mean(np.sum(found**2, axis=1))
        assert 0.49 * 14.0 < mean <= 14.0  # the first below, where the one before is 15
        spread = found.std()
    np.testing.assert_allclose(found.std(axis=0), spread, rtol=4 / np.sqrt(2 * 4000))


@pytest.mark.parametrize("squares", [None, [1.0, 3.0]])
def test_the_stated_bias_leaves_out_what_the_localization_holds(squares):
    """``E[∇U·G∇P] = γ tr G``; the same whether chains run in one block or in four."""
    found = []
    for blocks in (1, 4):
        given = tuned(
            curvature_change=np.full(blocks, 160.0),
            curvature=np.full(blocks, 4.0),
            step_size=np.full(blocks, 0.1),
            typical_square=np.full(blocks, 12.0),
            square_by_coordinate=None
            if squares is None
            else stacked(np.tile(squares, (blocks, 1))),
        )
        target = SimpleNamespace(localization={"w": jnp.asarray(2.0)}, center={"w": jnp.zeros(2)})
        seen = {"square_gradient": np.array([[10.0, 20.0]])}
        rule = RULES["corrected"] if squares is None else RULES["psgld"]
        found.append(_step_bias.step_bias(rule, given, target, seen))
        trace = 2.0 if squares is None else np.sum(1 / (np.array(squares) + 0.1))
        if blocks == 1:
            wanted = 0.2 * 0.1 / 8 * (15.0 - 2.0 * trace)
            assert found[0] == pytest.approx(wanted)
            for most, scale in ((2 * wanted, 1.0), (wanted / 2, 0.5), (wanted / 1e9, 0.1)):
                assert _step_bias.step_scale(rule, given, target, seen, most) == pytest.approx(
                    scale
                )
    assert found[1] == pytest.approx(found[0])


def test_a_thermostat_is_shortened_by_the_root():
    target = SimpleNamespace(localization={"w": jnp.asarray(0.0)}, center={"w": jnp.zeros(2)})
    seen = {"square_gradient": np.array([[10.0, 20.0]])}
    given = tuned(curvature_change=160.0)
    bias = _step_bias.step_bias(RULES["sgnht"], given, target, seen)
    assert bias == pytest.approx(0.4 * 0.01 / 8 * 15.0)
    scale = _step_bias.step_scale(RULES["sgnht"], given, target, seen, bias / 4)
    assert scale == pytest.approx(0.5)


def test_the_names_of_classes_are_these_rules():
    assert SGLD(step_size=0.1).sampler.rule == LangevinRule(is_corrected=False)
    assert SGLD().sampler.rule == LangevinRule(is_corrected=True)
    assert SGNHT(friction=0.3).sampler.rule == thermostat.ThermostatRule(0.3)
