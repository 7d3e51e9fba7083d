"""Estimators on exact draws: their expectations by closed form or quadrature, their errors."""

from typing import NamedTuple

import arviz as az
import numpy as np
import pytest
import regression
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, signal, special, stats

import numpyro_llc as nllc
from numpyro_llc import estimators as est
from numpyro_llc.errors import LLCWarning
from numpyro_llc.estimators._weights import tempering_weights
from numpyro_llc.inference_data import attributes, inference_data, labelled, monte_carlo
from numpyro_llc.results.checks import explain_disagreement

C_1000 = 1000 / np.log(1000)
NAMES = list(est.ESTIMATORS)


class Posterior(NamedTuple):
    """A distribution on a grid: its draws, and integrals over it, have no error but their own.

    `p`, `x`, `penalty`: probability, β (nL - nL*) and γ/2 |w - w*|² of each grid point.
    """

    p: np.ndarray
    x: np.ndarray
    penalty: np.ndarray
    multiplicity: int
    llc: float

    def mean(self, f):
        return float(np.sum(self.p * f))


def on_log_grid(
    terms, gamma=10.0, c=C_1000, multiplicity=1, llc=np.nan, *, step=0.12, low=-40.0, top=3.2
):
    """``K = Σ a Π w_i^{k_i}`` for `terms` (a, k), k even: the positive quadrant, in ln w."""
    dimension = len(terms[0][1])
    u = np.arange(low, top, step)
    logs = np.meshgrid(*[u] * dimension, indexing="ij", sparse=True)
    logs = [v - 0.5 * np.log(gamma) for v in logs]
    x = c * sum(a * np.exp(sum(k * v for k, v in zip(ks, logs, strict=True))) for a, ks in terms)
    penalty = 0.5 * gamma * sum(np.exp(2 * v) for v in logs) + np.zeros_like(x)
    return _posterior(sum(logs) - x - penalty, x, penalty, multiplicity, llc)


def circle(gamma=10.0, c=C_1000):
    """``K = ½ (|w|² - 1)²`` at (1, 0), in ``v = ln r = ± e^t`` and the angle."""
    t = np.arange(-24.0, 2.3, 0.03)
    v = np.concatenate([-np.exp(t), np.exp(t)])[:, None]
    angle = np.linspace(0.0, np.pi, 401)[None]
    x = 0.5 * c * (np.exp(2 * v) - 1) ** 2 + 0 * angle
    penalty = 0.5 * gamma * (1 + np.exp(2 * v) - 2 * np.exp(v) * np.cos(angle))
    ends = np.where((angle == 0) | (angle == np.pi), np.log(0.5), 0.0)
    return _posterior(2 * v + np.log(np.abs(v)) - x - penalty + ends, x, penalty, 1, 0.5)


def _posterior(log_weight, x, penalty, multiplicity, llc):
    p = np.exp(log_weight - log_weight.max())
    keep = p > 1e-18
    p = p[keep] / p[keep].sum()
    return Posterior(p, x[keep], penalty[keep], multiplicity, llc)


COARSE = {"step": 0.25, "low": -17.0}
SINGULAR = {
    "fourth_power": lambda g, c: on_log_grid([(1.0, (4,))], g, c, 1, 1 / 4),
    "product_of_two": lambda g, c: on_log_grid([(0.5, (2, 2))], g, c, 2, 1 / 2),
    "product_of_three": lambda g, c: on_log_grid([(0.5, (2, 2, 2))], g, c, 3, 1 / 2, **COARSE),
    "square_times_fourth": lambda g, c: on_log_grid([(1.0, (2, 4))], g, c, 1, 1 / 4),
    "square_plus_fourth": lambda g, c: on_log_grid([(1.0, (2, 0)), (1.0, (0, 4))], g, c, 1, 3 / 4),
    "circle": circle,
}


def expected(post, m):
    """Exact value of each estimator, written from its definition and not from the package."""
    mean, x, penalty = post.mean, post.x, post.penalty
    mu = mean(x)
    sigma = mean(x**2) - mu**2
    extrapolated = mu + mean(x * penalty) - mu * mean(penalty)

    def share(ratio):
        w = np.exp(-(ratio - 1) * x)
        return mean(w) ** 2 / mean(w**2)

    def ratio_up_to(most):
        if share(most) >= 0.5:
            return most
        return optimize.brentq(lambda r: share(r) - 0.5, 1.0001, most)

    def colder(ratio):
        w = np.exp(-(ratio - 1) * x) / mean(np.exp(-(ratio - 1) * x))
        mu = mean(w * x)
        return mu, mean(w * x * penalty) - mu * mean(w * penalty)

    near = ratio_up_to(1.5)
    values = {
        "mean": mu,
        "variance": sigma,
        "two_temperatures": (mu - colder(near)[0]) / (1 - 1 / near),
        "gamma_fit": _gamma_expected(post),
        "localization_corrected": extrapolated,
        "multiplicity_corrected": mu + np.sqrt((m - 1) * (mu - sigma)) if m > 1 else mu,
        "corrected": extrapolated,
    }
    if m > 1:
        ratio = ratio_up_to(8.0)
        step = ratio * sum(colder(ratio)) - extrapolated
        # (m - 1)/l, where l solves (m - 1)/l - (m - 1)/(l + ln ρ) = step
        length = optimize.brentq(
            lambda v: (m - 1) / v - (m - 1) / (v + np.log(ratio)) - step, 1e-3, 1e6
        )
        values["corrected"] = extrapolated + (m - 1) / length
    return values


def _gamma_expected(post, floor=1e-3):
    """The maximum of the expected censored log likelihood, by a search."""
    small = post.mean(post.x < floor)
    logs = post.mean(np.where(post.x >= floor, np.log(np.maximum(post.x, floor)), 0.0))

    def loss(t):
        a = np.exp(t)
        seen = (a - 1) * logs - (1 - small) * special.gammaln(a)
        return -seen - small * (np.log(special.gammainc(a, floor)) if small else 0.0)

    return np.exp(optimize.minimize_scalar(loss, bounds=(-4, 4), method="bounded").x)


def draw(post, rng, shape, stick=0.0):
    """Exact draws; with `stick`, each chain keeps its last draw with that probability."""
    edges = np.cumsum(post.p)
    index = np.searchsorted(edges, edges[-1] * rng.random(shape))
    place = np.where(rng.random(shape) >= stick, np.arange(shape[-1]), 0)
    index = np.take_along_axis(index, np.maximum.accumulate(place, axis=-1), axis=-1)
    return post.x[index], post.penalty[index]


def gaussian_draws(s, rng, shape, correlation=0.0):
    """``X = ½ Σ s z²``, ``P = ½ Σ (1 - s) z²``, z normal and an AR(1) along each chain."""
    z = rng.normal(size=(*shape, len(s)))
    if correlation:
        z[..., 1:, :] *= np.sqrt(1 - correlation**2)
        z = signal.lfilter([1.0], [1.0, -correlation], z, axis=-2)
    return 0.5 * z**2 @ s, 0.5 * z**2 @ (1 - s)


def gaussian_expected(s, m):
    """The same in closed form, from s = ch/(ch + γ) of each direction."""
    s, r, a = np.asarray(s), 1 - np.asarray(s), m - 1

    def share(ratio):
        return np.prod((1 + 2 * (ratio - 1) * s) ** 0.5 / (1 + (ratio - 1) * s))

    near, wide = (
        top if share(top) > 0.5 else optimize.brentq(lambda v: share(v) - 0.5, 1.001, top)
        for top in (1.5, 8.0)
    )
    mu, sigma, extrapolated = s.sum() / 2, (s**2).sum() / 2, (s * (1 + r)).sum() / 2
    colder = s / (1 + (near - 1) * s)
    at = wide * s / (1 + (wide - 1) * s)
    step = (at * (2 - at)).sum() / 2 - extrapolated
    jump = 0.5 * (step + np.sqrt(step**2 + 4 * a * step / np.log(wide)))
    return {
        "mean": mu,
        "variance": sigma,
        "two_temperatures": (mu - colder.sum() / 2) * near / (near - 1),
        "localization_corrected": extrapolated,
        "multiplicity_corrected": mu + np.sqrt(a * (mu - sigma)),
        "corrected": extrapolated + jump,
    }


def estimate(name, x, penalty, m):
    function, needs = est.ESTIMATORS[name]
    known = {"penalty": penalty, "multiplicity": m}
    return function(x, *(known[need] for need in needs))


def error(influence):
    return float(az.mcse(influence, method="mean"))


@pytest.fixture(scope="module")
def samples():
    """Posterior, exact values and 4 × 5000 draws of each singular model at n = 1000, γ = 10."""
    rng = np.random.default_rng(0)
    kept = {}
    for name, make in SINGULAR.items():
        post = make(10.0, C_1000)
        kept[name] = post, expected(post, post.multiplicity), draw(post, rng, (4, 5000))
    return kept


S = np.array([0.97, 0.8, 0.3])


def test_integrals_are_those_of_the_closed_forms():
    for gamma in (1.0, 10.0):
        u = gamma**2 / (4 * C_1000)
        mu = 0.5 + u - u * special.kv(1, u) / special.kv(0, u)
        post = SINGULAR["product_of_two"](gamma, C_1000)
        assert post.mean(post.x) == pytest.approx(mu, rel=1e-6)
        u = gamma**2 / (32 * C_1000)
        mu = 0.5 + u + u * special.kvp(0.25, u) / special.kv(0.25, u)
        post = SINGULAR["fourth_power"](gamma, C_1000)
        assert post.mean(post.x) == pytest.approx(mu, rel=1e-6)
    for name, mu in {"circle": 0.49247832, "product_of_three": 0.03556907}.items():
        post = SINGULAR[name](10.0, C_1000)
        assert post.mean(post.x) == pytest.approx(mu, rel=1e-5)  # as fine as this grid is


@pytest.mark.parametrize("name", SINGULAR)
def test_identities_behind_the_corrections(name):
    """-dμ/d ln γ = Cov(X, P) and dμ/d ln c = μ - σ, by differences of integrals."""
    make, h = SINGULAR[name], 1e-4
    post = make(10.0, C_1000)
    mu = post.mean(post.x)

    def slope(gamma, c):
        one, two = (
            make(10 * np.exp(h * gamma), C_1000 * np.exp(h * c)),
            make(10 * np.exp(-h * gamma), C_1000 * np.exp(-h * c)),
        )
        return (one.mean(one.x) - two.mean(two.x)) / (2 * h)

    pull = post.mean((post.x - mu) * (post.penalty - post.mean(post.penalty)))
    assert slope(1, 0) == pytest.approx(-pull, rel=1e-4, abs=1e-7)
    assert slope(0, 1) == pytest.approx(mu - post.mean((post.x - mu) ** 2), rel=1e-4, abs=1e-7)


def test_log_law_is_inverted_exactly():
    """With λ̂ = λ - (m - 1)/(ln c + C) at c and ρ c, what is fitted is λ."""
    for m in (2, 3, 7):
        a, length = m - 1, 5.0
        mu, sigma = 2 - a / length, 2 - a / length - a / length**2
        assert mu + np.sqrt(a * (mu - sigma)) == pytest.approx(2.0)
        gap, t = a / length - a / (length + np.log(8)), np.log(8)
        step = 0.5 * (gap + np.sqrt(gap**2 + 4 * a * gap / t))
        assert mu + step == pytest.approx(2.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model", SINGULAR)
def test_each_estimator_has_its_exact_expectation(samples, model, name):
    post, exact, (x, penalty) = samples[model]
    result = estimate(name, x, penalty, post.multiplicity)
    spread = error(result.influence)
    assert abs(result.value - exact[name]) < 4 * spread
    assert spread < 0.05
    assert abs(result.influence.mean()) < 1e-9


@pytest.mark.parametrize("name", [name for name in NAMES if name != "gamma_fit"])
def test_gaussian_expectations_in_closed_form(name):
    x, penalty = gaussian_draws(S, np.random.default_rng(1), (4, 20_000))
    result = estimate(name, x, penalty, 2)
    assert abs(result.value - gaussian_expected(S, 2)[name]) < 4 * error(result.influence)


DEGREES = {"fourth_power": 4, "product_of_two": 4, "product_of_three": 6, "square_times_fourth": 6}


@pytest.mark.parametrize("name", DEGREES)
def test_what_gamma_takes_follows_from_the_slope_along_the_offset(samples, name):
    """Exactly on the grid, and from draws with and without the virial, ``V = degree · X``."""
    post, _, (x, penalty) = samples[name]
    mu, v = post.mean(post.x), DEGREES[name] * post.x
    pull = post.mean(post.x * post.penalty) - mu * post.mean(post.penalty)
    virial = 0.5 * (post.mean(v) - post.mean(post.x * v) + mu * post.mean(v))
    assert virial == pytest.approx(pull, rel=1e-4)
    first = est.localization_pull(x, penalty)
    found = est.localization_pull(x, penalty, DEGREES[name] * x)
    share = est.localization_share(x, penalty, DEGREES[name] * x)
    assert error(found.influence) < 1.05 * error(first.influence)
    for one, wanted in [(first, pull), (found, pull), (share, pull / mu)]:
        assert abs(one.value - wanted) < 4 * error(one.influence)
    assert pull > 8 * error(found.influence)


def test_the_share_of_gamma_is_known_as_well_in_many_flat_directions():
    """d = 1003, of which the loss bounds three: the penalty alone is noise, and its spread d/2."""
    s = np.concatenate([S, np.full(1000, 1e-3)])
    rng = np.random.default_rng(4)
    x, penalty = gaussian_draws(s, rng, (4, 500))
    wanted = np.sum(s * (1 - s)) / np.sum(s)
    plain, found = est.localization_share(x, penalty), est.localization_share(x, penalty, 2 * x)
    spread = error(found.influence)
    assert abs(found.value - wanted) < 4 * spread
    assert spread < 0.06
    assert error(plain.influence) > 4 * spread
    # Where γ takes nearly nothing, the penalty alone tells more, and the virial does no harm.
    x, penalty = gaussian_draws(np.full(3, 0.999), rng, (4, 500))
    plain, found = est.localization_share(x, penalty), est.localization_share(x, penalty, 2 * x)
    assert abs(found.value - 1e-3) < 4 * error(found.influence)
    assert error(found.influence) < 1.05 * error(plain.influence) < 1e-3
    # Where γ takes all, both forms together are nearly without noise.
    x, penalty = gaussian_draws(np.full(300, 0.01), rng, (4, 500))
    found = est.localization_share(x, penalty, 2 * x)
    assert abs(found.value - 0.99) < 4 * error(found.influence)
    assert error(found.influence) < 0.01


def test_the_share_of_a_mean_of_zero_is_not_known():
    zero = np.zeros((2, 30))
    assert np.isnan(est.localization_share(zero, zero + 1, zero).value)
    with pytest.raises(ValueError, match="`virial` must have the shape of `llc`"):
        est.localization_share(zero + 1, zero, zero[:, :5])


def test_no_estimator_passes_for_another():
    """Of each two, 4 × 20 000 draws of some model tell the values apart."""
    rng, apart = np.random.default_rng(2), set()
    for model in ("product_of_two", "product_of_three"):
        post = SINGULAR[model](10.0, C_1000)
        exact = expected(post, post.multiplicity)
        x, penalty = draw(post, rng, (4, 20_000))
        for name in NAMES:
            spread = error(estimate(name, x, penalty, post.multiplicity).influence)
            apart |= {(name, k) for k in NAMES if abs(exact[k] - exact[name]) > 4 * spread}
    assert apart == {(one, two) for one in NAMES for two in NAMES if one != two}


WRONG = {
    "mean plus E[P], which counts flat directions": (
        "localization_corrected",
        lambda x, p: est.mean(x) + est.mean(p),
    ),
    "the sign of the covariance": (
        "localization_corrected",
        lambda x, p: est.mean(x) * 2.0 - est.localization_corrected(x, p),
    ),
    "half the covariance": (
        "localization_corrected",
        lambda x, p: est.localization_corrected(x, 0.5 * p),
    ),
    "m for m - 1": ("multiplicity_corrected", lambda x, p: est.multiplicity_corrected(x, 3)),
    "a second moment that is not central": ("variance", lambda x, p: est.mean(x**2)),
    "a variance of the loss, without β": ("variance", lambda x, p: est.variance(7 * x)),
    "means at two temperatures both in units of the first": (
        "two_temperatures",
        lambda x, p: est.two_temperatures(x) * 1.5,
    ),
    "γ left alone": ("corrected", lambda x, p: est.multiplicity_corrected(x, 2)),
    "multiplicity left alone": ("corrected", lambda x, p: est.localization_corrected(x, p)),
    "a rate that is not one": ("gamma_fit", lambda x, p: est.gamma_fit(2 * x)),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_formulas_fail(samples, mistake):
    _, exact, (x, penalty) = samples["product_of_two"]
    name, formula = WRONG[mistake]
    wrong = formula(x, penalty)
    assert abs(wrong.value - exact[name]) > 4 * error(wrong.influence)


def test_corrections_come_closer_to_lambda_than_the_mean():
    """Noise-free; at γ = 10 on each of the models, at n = 1000 and 10 000."""
    for n in (1000, 10_000):
        for name, make in SINGULAR.items():
            post = make(10.0, n / np.log(n))
            exact = expected(post, post.multiplicity)
            off = {key: abs(value - post.llc) for key, value in exact.items()}
            assert off["corrected"] < 0.65 * off["mean"], (name, n)
            if post.multiplicity > 1:
                assert off["corrected"] < off["multiplicity_corrected"] < off["mean"]
                assert off["corrected"] < 0.2 * off["mean"]


def test_reweighted_difference_tends_to_the_variance():
    x, _ = gaussian_draws(S, np.random.default_rng(2), (4, 1000))
    near, exact = est.two_temperatures(x, ratio=1 + 1e-6), est.variance(x)
    assert near.value == pytest.approx(exact.value, rel=1e-4)
    np.testing.assert_allclose(near.influence, exact.influence, rtol=1e-3, atol=1e-3)


def test_corrected_tends_to_its_limit_for_a_narrow_ratio(samples):
    _, _, (x, penalty) = samples["product_of_two"]
    mu, pi = x.mean(), penalty.mean()
    first = mu + np.mean((x - mu) * (penalty - pi))
    slope = first - np.var(x) - np.mean((x - mu) ** 2 * (penalty - pi))
    near = est.corrected(x, penalty, 3, ratio=1 + 1e-6).value
    assert near == pytest.approx(first + np.sqrt(2 * slope), rel=1e-4)


few = settings(max_examples=25, deadline=None, derandomize=True)
FORMULAS = {
    "mean": lambda x, p: est.mean(x),
    "variance": lambda x, p: est.variance(x),
    "two_temperatures": lambda x, p: est.two_temperatures(x, ratio=1.4),
    "gamma_fit": lambda x, p: est.gamma_fit(x),
    "localization_corrected": est.localization_corrected,
    "multiplicity_corrected": lambda x, p: est.multiplicity_corrected(x, 3),
    "corrected": lambda x, p: est.corrected(x, p, 3, ratio=2.5),
}


sampled = draw  # hypothesis has a `draw` of its own


@st.composite
def some_draws(draw):
    """``[chain, draw]`` of the product of two parameters, for which all corrections are real."""
    chains, seed = draw(st.integers(1, 4)), draw(st.integers(0, 10**6))
    return sampled(SHARED, np.random.default_rng(seed), (chains, 200 // chains))


@pytest.mark.parametrize("name", FORMULAS)
@few
@given(some_draws(), st.randoms())
def test_estimates_do_not_depend_on_the_order_of_chains_and_draws(name, draws, random):
    x, penalty = draws
    chains, places = (random.sample(range(size), size) for size in x.shape)
    one, two = (FORMULAS[name](*pair) for pair in (draws, (x[chains], penalty[chains])))
    assert two.value == pytest.approx(one.value, rel=1e-9)
    np.testing.assert_allclose(two.influence, one.influence[chains], rtol=1e-6, atol=1e-9)
    two = FORMULAS[name](x[:, places], penalty[:, places])
    assert two.value == pytest.approx(one.value, rel=1e-9)
    np.testing.assert_allclose(two.influence, one.influence[:, places], rtol=1e-6, atol=1e-9)


@few
@given(some_draws(), st.floats(-1e6, 1e6), st.floats(0.1, 10.0))
def test_estimates_shift_and_scale_as_their_formulas_do(draws, constant, factor):
    x, penalty = draws
    mean, variance = est.mean(x).value, est.variance(x).value
    near = {"abs": 1e-9 * (1 + abs(constant)), "rel": 1e-9}
    assert est.mean(factor * x + constant).value == pytest.approx(factor * mean + constant, **near)
    moved = est.variance(factor * x + constant)
    assert moved.value == pytest.approx(factor**2 * variance, rel=1e-5, abs=1e-9)
    one, other = est.two_temperatures(x, ratio=1.4), est.two_temperatures(x + constant, ratio=1.4)
    assert other.value == pytest.approx(one.value, **near)
    np.testing.assert_allclose(other.influence, one.influence, rtol=1e-6, atol=near["abs"])
    pull = est.localization_corrected(x, penalty).value - mean
    for changed in (factor * penalty + constant, penalty[::-1] * 0 + constant):
        wanted = mean + (factor * pull if np.ptp(changed) else 0.0)
        found = est.localization_corrected(x, changed).value
        assert found == pytest.approx(wanted, rel=1e-6, abs=near["abs"])
    one, other = (est.corrected(x, p, 3, ratio=2.5) for p in (penalty, penalty + constant))
    assert other.value == pytest.approx(one.value, rel=1e-5)
    assert est.corrected(x, penalty, 1).value == pytest.approx(mean + pull)
    assert est.multiplicity_corrected(x, 1).value == mean
    shares = [est.multiplicity_corrected(x, m).value - mean for m in (2, 5)]
    assert shares[1] == pytest.approx(2 * shares[0])


def derivatives(function, draws, copies=400, places=(0, 3, 17)):
    """Change of `function` by one more draw of each place, in units of its weight."""
    many = [np.tile(d.reshape(1, -1), copies) for d in draws]
    base = function(*many)
    for place in places:
        more = [np.append(m, d.ravel()[place])[None] for m, d in zip(many, draws, strict=True)]
        yield place, (function(*more) - base) * many[0].size


def with_roots(rng):
    """Few draws, of which both roots are of a difference well above zero."""
    while True:
        x, penalty = draw(SHARED, rng, (1, 60))
        gap = FORMULAS["multiplicity_corrected"](x, penalty) - est.mean(x)
        wide = FORMULAS["corrected"](x, penalty) - est.localization_corrected(x, penalty)
        if min(gap.value, wide.value) > 0.2:
            return x, penalty


@pytest.mark.parametrize("name", FORMULAS)
def test_influences_are_derivatives(name):
    draws = with_roots(np.random.default_rng(21))
    influence = FORMULAS[name](*draws).influence.ravel()
    found = dict(derivatives(lambda x, p: FORMULAS[name](x, p).value, draws))
    wanted = influence[list(found)]
    np.testing.assert_allclose(list(found.values()), wanted, rtol=2e-3, atol=2e-3)
    assert np.abs(wanted).max() > 0.1


def test_influences_of_a_ratio_of_constants_are_derivatives():
    rng = np.random.default_rng(22)
    work, other = 1.5 * rng.normal(size=(1, 60)) ** 2, 0.4 * rng.normal(size=(1, 60)) ** 2
    low, high = est.bennett(work, other)
    for found, influence in (
        (derivatives(lambda w: est.bennett(w, other)[0].value, [work]), low.influence),
        (derivatives(lambda w: est.bennett(work, w)[0].value, [other]), high.influence),
    ):
        for place, slope in found:
            assert slope == pytest.approx(influence[0, place], rel=2e-3, abs=2e-3)


def test_ratio_of_constants_of_shifted_gaussians_is_their_shift():
    """``p1 ∝ p0 exp(-a x)``, p0 = N(0, 1): p1 = N(-a, 1) and log(Z1/Z0) = a²/2, honestly."""
    rng, z = np.random.default_rng(23), []
    for a in np.repeat([0.5, 1.5], 100):
        low, high = est.bennett(a * rng.normal(size=(2, 300)), a * (rng.normal(size=(2, 400)) - a))
        assert low.value == high.value
        spread = np.hypot(plain_error(low.influence), plain_error(high.influence))
        z.append((low.value + a**2 / 2) / spread)
    assert abs(np.mean(z)) < 4 / np.sqrt(200)
    assert abs(np.std(z) - 1) < 4 / np.sqrt(400)
    constant = est.bennett(np.full((1, 9), 1e4), np.full((1, 9), 1e4))
    assert constant[0].value == pytest.approx(1e4)
    for a, is_doubtful in ((4.2, False), (5.2, True)):  # overlaps of 0.03 and 0.008
        x, y = rng.normal(size=(1, 4000)), rng.normal(size=(1, 4000))
        assert bool(est.bennett(a * x, a * (y - a))[0].doubts) == is_doubtful


def test_covariances_have_their_values_and_honest_errors():
    rng = np.random.default_rng(24)
    x, y = rng.normal(size=(4, 400, 1)), 2.0 + rng.normal(size=(4, 400, 300))
    for (value, spread), exact in (
        (est.covariances(x, y), 0.0),
        (est.means_less_covariances(x, y), 2.0),
    ):
        assert value.shape == spread.shape == (1, 300)
        z = (value - exact) / spread
        student = np.sqrt(31 / 29)  # 32 batches
        assert abs(np.mean(z)) < 4 * student / np.sqrt(300)
        assert abs(np.std(z) - student) < 4 * student / np.sqrt(600)
    y += 0.5 * x
    wanted = np.mean((x - x.mean()) * (y - y.mean(axis=(0, 1))), axis=(0, 1))
    np.testing.assert_allclose(est.covariances(x, y)[0][0], wanted)
    less = est.means_less_covariances(x, y)[0][0]
    np.testing.assert_allclose(less, y.mean(axis=(0, 1)) - wanted)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_error_from_the_data_is_that_of_a_regression(shift):
    """Draws N(shift, (βX'X)⁻¹): F and K of the docstring in closed form, Gaussian moments."""
    rng, beta, n, d = np.random.default_rng(25), 0.3, 200, 3
    x, noise = rng.normal(size=(n, d)), rng.normal(size=n)
    noise -= x @ np.linalg.lstsq(x, noise, rcond=None)[0]
    covariance = np.linalg.inv(beta * x.T @ x)
    root, mean = np.linalg.cholesky(covariance), np.full(d, shift)
    at, law = x @ mean, x @ covariance @ x.T
    k = beta**2 * (0.5 * law**2 + np.outer(at - noise, at - noise) * law)
    f = beta * (0.5 * (at**2 + np.diag(law)) - noise * at) - k.sum(axis=1)
    trace = np.sum(k**2)
    wanted = np.sqrt(max(np.sum(f**2) - 0.5 * trace, 0.5 * trace))
    found = []
    for chains in [4, 1] * 15:
        z = mean + rng.normal(size=(chains, 2000 // chains, d)) @ root.T
        terms = beta * (0.5 * (z @ x.T) ** 2 - noise * (z @ x.T))
        signs = rng.choice([-1.0, 1.0], size=(n, 64))
        found.append(est.data_error(terms.sum(axis=-1), terms @ signs))
    spread = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - wanted) < 4 * spread + 0.01 * wanted
    assert spread < 0.05 * wanted
    if not shift:  # regular: β sqrt(d/2), for errors of variance one
        assert wanted == pytest.approx(beta * np.sqrt(d / 2), rel=0.3)
    assert np.isnan(est.data_error(np.ones((1, 9)), np.ones((1, 9, 1))))
    assert np.isnan(est.data_error(np.ones((1, 3)), np.ones((1, 3, 2))))


def test_weights_leave_the_share_of_a_gamma_law():
    """Of Gamma(λ, 1) draws ((2ρ - 1)/ρ²)^λ is left, and ρ is the largest that leaves half."""
    u = (np.arange(200_000) + 0.5) / 200_000
    for shape in (0.8, 3.0):
        x = stats.gamma.ppf(u, shape).reshape(4, -1)
        weights, ratio, doubts = tempering_weights(x, None, widest=8.0)
        assert ((2 * ratio - 1) / ratio**2) ** shape == pytest.approx(0.5, abs=1e-3)
        np.testing.assert_allclose(weights, np.exp(-(ratio - 1) * (x - x.min())))
        assert doubts == ()
        assert tempering_weights(x, None, widest=1.1)[1] == 1.1
        for share, is_doubtful in ((0.27, False), (0.23, True)):
            ratio = optimize.brentq(lambda r: ((2 * r - 1) / r**2) ** shape - share, 1.01, 99.0)  # noqa: B023
            assert bool(tempering_weights(x, ratio, widest=8.0)[2]) == is_doubtful


def z_scores(draws, exact, m, names, replications=200):
    scores = {name: [] for name in names}
    for _ in range(replications):
        x, penalty = draws()
        for name in names:
            result = estimate(name, x, penalty, m)
            scores[name].append((result.value - exact[name]) / error(result.influence))
    return {name: np.array(values) for name, values in scores.items()}


SCHEMES = {
    "gaussian": lambda rng: lambda: gaussian_draws(S, rng, (4, 600)),
    "gaussian, AR(1)": lambda rng: lambda: gaussian_draws(S, rng, (4, 1200), 0.8),
    "product": lambda rng: lambda: draw(SHARED, rng, (4, 1500)),
    "product, sticky": lambda rng: lambda: draw(SHARED, rng, (4, 3000), 0.5),
}
CORRELATED = ("gaussian, AR(1)", "product, sticky")
SHARED = SINGULAR["product_of_two"](10.0, C_1000)


@pytest.mark.parametrize(
    "scheme",
    [pytest.param(name, marks=() if name in CORRELATED else pytest.mark.slow) for name in SCHEMES],
)
def test_stated_errors_are_honest(scheme):
    exact = gaussian_expected(S, 2) if "gaussian" in scheme else expected(SHARED, 2)
    draws = SCHEMES[scheme](np.random.default_rng(3))
    for name, z in z_scores(draws, exact, 2, [n for n in NAMES if n in exact]).items():
        assert 0.85 < z.std() < 1.15, (name, z.std())
        assert abs(z.mean()) < 0.35, (name, z.mean())  # 4 errors and a bias of 1/ESS


def test_an_error_from_the_number_of_draws_is_not_honest():
    rng = np.random.default_rng(4)
    z = []
    for _ in range(100):
        x, _ = gaussian_draws(S, rng, (4, 500), 0.8)
        result = est.mean(x)
        z.append((result.value - S.sum() / 2) / (result.influence.std() / np.sqrt(x.size)))
    honest = np.sqrt((1 + 0.8**2) / (1 - 0.8**2))  # squares of an AR(1) forget by 0.8² a draw
    assert abs(np.std(z) - honest) < 4 * honest / np.sqrt(2 * len(z))


def test_difference_of_estimates_keeps_their_correlation():
    x, penalty = gaussian_draws(S, np.random.default_rng(5), (4, 1000))
    one, two = est.mean(x), est.localization_corrected(x, penalty)
    apart = est.covariance(x, penalty)
    assert (two - one).value == pytest.approx(apart.value)
    np.testing.assert_allclose((two - one).influence, apart.influence, atol=1e-12)
    assert error(apart.influence) < 0.5 * np.hypot(error(one.influence), error(two.influence))


@pytest.mark.parametrize("shape", [0.05, 0.25, 0.5, 3.0, 400.0])
def test_gamma_fit_finds_the_shape_though_draws_are_rounded(shape):
    rng = np.random.default_rng(6)
    x = rng.gamma(shape, size=(4, 5000)) + 1e-5 * rng.normal(size=(4, 5000))
    result = est.gamma_fit(x)
    assert abs(result.value - shape) < 4 * error(result.influence)
    if shape == 0.25:
        assert (x < 0).mean() > 0.01
        assert error(result.influence) < 0.75 * error(est.mean(x).influence)
        seen = x[x > 0]  # the naive way: leave out what has no logarithm
        naive = stats.gamma.fit(seen, floc=0, fscale=1)[0]
        assert abs(naive - shape) > 4 * error(result.influence)


def test_gamma_fit_is_the_maximum_of_the_likelihood():
    x = np.random.default_rng(7).gamma(1.7, size=(2, 500)) + 0.01
    assert est.gamma_fit(x).value == pytest.approx(
        stats.gamma.fit(x.ravel(), floc=0, fscale=1)[0], rel=1e-4
    )
    assert est.gamma_fit(np.zeros((2, 100))).value == 0.0
    assert est.gamma_fit(np.full((2, 5), 1e18)).value == pytest.approx(1e18)


def test_weights_that_leave_too_few_draws_are_named():
    x = np.random.default_rng(8).gamma(60.0, size=(4, 2000))
    assert est.two_temperatures(x).doubts == ()
    assert abs(est.two_temperatures(x).value - 60) < 4 * error(est.two_temperatures(x).influence)
    (doubt,) = est.two_temperatures(x, ratio=2.0).doubts
    assert "leave" in doubt
    assert "% of the draws (want > 25 %)" in doubt


def test_draws_that_ran_away_have_a_doubtful_second_temperature():
    x = np.random.default_rng(8).gamma(60.0, size=(4, 100))
    x[:, 1:] *= 1e12
    away = est.two_temperatures(x)
    assert away.value > 1e9
    assert away.doubts


def test_two_runs_give_lambda_without_the_centre():
    rng = np.random.default_rng(9)
    b1, b2 = 0.1, 0.15
    z = []
    for _ in range(100):
        one, _ = gaussian_draws(np.ones(4), rng, (4, 300), 0.5)
        two, _ = gaussian_draws(np.ones(4), rng, (4, 400), 0.5)
        first, second = est.two_runs(1e6 + one / b1, b1, 1e6 + two / b2, b2)
        spread = np.hypot(error(first.influence), error(second.influence))
        z.append((first.value + second.value - 2.0) / spread)
    assert 0.8 < np.std(z) < 1.2
    assert abs(np.mean(z)) < 0.4


def test_constant_draws_have_no_error_and_a_root_of_them_an_unknown_one():
    zero = np.zeros((4, 100))
    known = {"penalty": zero + 1, "multiplicity": 2}
    rows, findings = est.rows_of("all", zero, known, {}, monte_carlo, errors=1.0)
    assert {row.mean for row in rows.values()} == {0.0}
    unknown = {name for name, row in rows.items() if np.isnan(row.mcse_mean)}
    assert unknown == {"multiplicity_corrected", "corrected"}
    assert unknown == {name for name, row in rows.items() if np.isnan([row.lower, row.upper]).all()}
    assert {row.mcse_mean for name, row in rows.items() if name not in unknown} == {0.0}
    assert [finding.split(":")[0] for finding in findings] == [*rows][-2:]


def test_chains_that_stand_still_are_told_of():
    same = np.full((4, 100), 0.3)
    known = {"penalty": same, "multiplicity": 2}
    _, findings = est.rows_of("all", same, known, {}, monte_carlo, errors=1.0)
    assert [finding.split(",")[0] for finding in findings] == [
        f"{name}: the draws do not vary" for name in NAMES[-2:]
    ]
    idata = make_idata(same, same)
    for chosen, chains in ((same, 4), (same + np.arange(4)[:, None], 4)):
        (said,) = explain_disagreement(chosen, chosen, monte_carlo=monte_carlo)
        assert said.startswith(f"The draws of {chains} of 4 chains do not vary")
    one = np.concatenate([np.random.default_rng(0).gamma(1.0, size=(3, 100)), same[:1]])
    (said,) = explain_disagreement(one, one, monte_carlo=monte_carlo)
    assert "The draws of 1 of 4 chains do not vary (`llc` is 0.3 at all" in said
    for names in ("all", "mean"):
        with pytest.warns(LLCWarning, match="chains do not vary") as seen:
            nllc.summary(idata, estimators=names, multiplicity=2)
        assert "indicates a multiplicity" not in str(seen[0].message)


def test_a_gamma_law_is_doubted_where_draws_lie_below_the_centre():
    x = np.random.default_rng(0).gamma(1.0, size=(4, 400))
    assert est.gamma_fit(x).doubts == est.gamma_fit(x - 1e-3).doubts == ()
    assert est.gamma_fit(np.zeros((2, 100))).doubts == ()
    below = est.gamma_fit(x - 1000.0)
    assert below.value == 0.0
    for doubtful in (below, est.gamma_fit(x - 0.5)):
        (doubt,) = doubtful.doubts
        assert "of the draws lie below zero by more than 0.001" in doubt


def make_idata(
    x, penalty, *, localization=10.0, container="installed", store_penalty=False, **more
):
    attrs = attributes(
        {
            "num_data": 1000,
            "num_parameters": 2,
            "inverse_temperature": 1 / np.log(1000),
            "localization": localization,
            "center_loss": 12.5,
            **more,
        }
    )
    stats_ = {"loss": 12.5 + x * np.log(1000), "excess_loss": x * np.log(1000)}
    if not isinstance(localization, dict):
        stats_["distance"] = np.sqrt(2 * penalty / localization)
    if store_penalty:
        stats_["penalty"] = penalty
    groups = {
        "posterior": labelled({"llc": x}, lead=("chain", "draw")),
        "sample_stats": labelled(stats_, lead=("chain", "draw")),
    }
    if container == "installed":
        return inference_data(groups, attrs)
    groups["posterior"] = groups["posterior"].assign_attrs(attrs)
    return xr.DataTree.from_dict(groups)


@pytest.fixture(scope="module")
def drawn():
    return draw(SHARED, np.random.default_rng(10), (4, 4000))


@pytest.mark.parametrize("container", ["installed", "DataTree"])
def test_summary_puts_estimators_side_by_side(drawn, container):
    x, penalty = drawn
    idata = make_idata(x, penalty, container=container)
    with pytest.warns(LLCWarning, match="The mean of `llc` is .* they differ by .* γ holds"):
        table = nllc.summary(idata, estimators="all", multiplicity=2, ci_prob=0.8)
    assert list(table.index) == NAMES
    columns = ["mean", "mcse_mean", "ci80_lb", "ci80_ub", "ess_bulk", "r_hat"]
    assert list(table.columns) == columns
    exact = expected(SHARED, 2)
    for name, row in table.iterrows():
        result = estimate(name, x, penalty, 2)
        assert row["mean"] == pytest.approx(result.value, rel=1e-9)
        numbers = monte_carlo(result.influence)
        curved = 0.0 if result.root is None else 0.05
        assert row["mcse_mean"] == pytest.approx(numbers.error, rel=curved or 1e-6)
        assert row["ess_bulk"] == pytest.approx(numbers.ess, rel=1e-6)
        assert row["r_hat"] == pytest.approx(numbers.r_hat, rel=1e-6)
        half = stats.norm.ppf(0.9) * row["mcse_mean"]
        assert row["ci80_ub"] - row["mean"] == pytest.approx(half, rel=curved or 1e-4)
        assert row["mean"] - row["ci80_lb"] == pytest.approx(half, rel=curved or 1e-4)
        assert abs(row["mean"] - exact[name]) < 4 * row["mcse_mean"]
    default = nllc.summary(idata, ci_prob=0.8).loc["llc"]
    for column in columns:
        assert table.loc["mean", column] == pytest.approx(default[column], rel=1e-3)


def test_estimators_of_a_run_with_nuts(fitted):
    """A noisy regression at its least-squares point, γ = 1: exact from the eigenvalues of X'X."""
    curvature = np.linalg.eigvalsh(regression.X.T @ regression.X) / np.log(len(regression.X))
    exact = gaussian_expected(curvature / (curvature + 1.0), 1)
    names = ["mean", "variance", "two_temperatures", "localization_corrected"]
    table = nllc.summary(fitted, estimators=names)
    for name, row in table.iterrows():
        assert abs(row["mean"] - exact[name]) < 4 * row["mcse_mean"]
    assert exact["localization_corrected"] - exact["mean"] > 4 * table.loc["mean", "mcse_mean"]


def test_the_summary_puts_the_share_of_gamma_beside_the_mean(drawn):
    table = nllc.summary(make_idata(*drawn))
    columns = ["mean", "sd", "mcse_mean", "ci90_lb", "ci90_ub", "ess_bulk", "ess_tail", "r_hat"]
    assert list(table.columns) == [*columns, "localization_share", "mcse_share"]
    assert list(table.index) == ["llc"]
    share = est.localization_share(*drawn)
    assert table["localization_share"].item() == pytest.approx(share.value)
    assert table["mcse_share"].item() == pytest.approx(error(share.influence))
    without = nllc.summary(make_idata(*drawn, localization={"a": 1.0, "b": 2.0}))
    assert np.isnan(without[["localization_share", "mcse_share"]]).all(axis=None)


@pytest.mark.filterwarnings("ignore:The mean of `llc` is:numpyro_llc.LLCWarning")
def test_all_leaves_out_what_cannot_be_had(drawn):
    assert list(nllc.summary(make_idata(*drawn), estimators="all").index) == NAMES[:5]
    by_site = make_idata(*drawn, localization={"a": 1.0, "b": 2.0})
    assert list(nllc.summary(by_site, estimators="all").index) == NAMES[:4]
    assert list(nllc.summary(by_site, estimators="variance").index) == ["variance"]


def test_penalty_by_site_is_taken_where_it_is_stored(drawn):
    x, penalty = drawn
    by_site = {"a": 1.0, "b": 2.0}
    idata = make_idata(x, penalty, localization=by_site)
    with pytest.raises(ValueError, match=r"'localization_corrected' needs `penalty`.*by site"):
        nllc.summary(idata, estimators="localization_corrected")
    idata = make_idata(x, penalty, localization=by_site, store_penalty=True)
    row = nllc.summary(idata, estimators="localization_corrected").iloc[0]
    assert row["mean"] == pytest.approx(est.localization_corrected(x, penalty).value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimators": "waic"}, r"`estimators` must be 'all' or among \['mean', 'variance'.*waic"),
        ({"estimators": ["mean", "x"]}, r"got \['x'\]"),
        ({"estimators": []}, "`estimators` must be"),
        ({"estimators": "corrected"}, "'corrected' needs `multiplicity`"),
        ({"estimators": "mean", "var_names": ["w"]}, "leave out `var_names`"),
        ({"multiplicity": 2}, "`multiplicity` is for `estimators`"),
        ({"estimators": "corrected", "multiplicity": 0}, "`multiplicity` must be at least 1"),
        ({"estimators": "mean", "multiplicity": 0}, "`multiplicity` must be at least 1"),
        ({"estimators": "mean", "budget": True}, "`budget` adds columns"),
    ],
)
def test_bad_options_are_refused(drawn, options, message):
    with pytest.raises(ValueError, match=message):
        nllc.summary(make_idata(*drawn), **options)


def test_what_is_no_result_is_refused(drawn):
    idata = make_idata(*drawn)
    for nothing in (3, None, {}, "file.nc"):
        with pytest.raises(TypeError, match="`idata` must be a result with draws"):
            nllc.summary(nothing)
        with pytest.raises(TypeError, match="`other` must be a result with draws"):
            nllc.evidence.two_temperature_summary(idata, nothing)
    with pytest.raises(TypeError, match="`estimators` must be 'all' or names"):
        nllc.summary(idata, estimators=3)
    with pytest.raises(TypeError, match="`var_names` must be one or more names; got 3"):
        nllc.summary(idata, var_names=3)


def test_bad_draws_are_refused():
    x = np.ones((2, 10))
    with pytest.raises(
        ValueError, match=r"`llc` must be draws of shape \[chain, draw\]; got shape"
    ):
        est.mean(x[0])
    with pytest.raises(ValueError, match="`penalty` must have the shape of `llc`"):
        est.localization_corrected(x, x[:, :5])
    with pytest.raises(ValueError, match="`llc` has 1 non-finite values among 20"):
        est.variance(np.where(np.arange(20).reshape(2, 10) == 3, np.nan, x))
    with pytest.raises(ValueError, match="`ratio` must be above 1; got 1"):
        est.two_temperatures(x, ratio=1.0)
    with pytest.raises(TypeError, match="`multiplicity` must be an integer"):
        est.multiplicity_corrected(x, 1.5)
    with pytest.raises(ValueError, match="must differ in inverse temperature"):
        est.two_runs(x, 0.1, x, 0.1)


def test_missing_statistics_are_named(drawn):
    idata = make_idata(*drawn)
    bare = {"posterior": idata["posterior"]}
    with pytest.raises(ValueError, match="sample_stats must hold `distance`"):
        nllc.summary(bare, estimators="localization_corrected")
    with pytest.raises(ValueError, match="no `loss`"):
        nllc.evidence.two_temperature_summary(bare, bare)


def test_a_root_of_noise_is_warned_of_and_has_an_interval():
    post = SINGULAR["product_of_two"](1.0, C_1000)
    x, penalty = draw(post, np.random.default_rng(11), (4, 300))
    with pytest.warns(LLCWarning, match="multiplicity_corrected: the difference .*than 3 errors"):
        table = nllc.summary(
            make_idata(x, penalty, localization=1.0),
            estimators=["mean", "multiplicity_corrected"],
            multiplicity=2,
        )
    one, root = table.loc["mean"], table.loc["multiplicity_corrected"]
    assert one["mcse_mean"] < root["mcse_mean"] < 0.2
    assert root["ci90_lb"] < expected(post, 2)["multiplicity_corrected"] < root["ci90_ub"]


@pytest.mark.parametrize("gamma", [1.0, 10.0])
@pytest.mark.parametrize("name", ["multiplicity_corrected", "corrected"])
def test_intervals_of_roots_cover_whether_or_not_the_difference_shows(name, gamma):
    """At 1000 draws and γ = 1 a quarter of the differences are below zero."""
    post, rng = SINGULAR["product_of_two"](gamma, C_1000), np.random.default_rng(14)
    exact, covered, by_tangent = expected(post, 2)[name], 0, 0
    for _ in range(200):
        result = estimate(name, *draw(post, rng, (4, 250)), 2)
        low, high = (result.root.end(errors, plain_error) for errors in (-1.645, 1.645))
        covered += low <= exact <= high
        by_tangent += abs(result.value - exact) <= 1.645 * plain_error(result.influence)
    assert 0.82 <= covered / 200 <= 0.97
    assert gamma > 1 or by_tangent / 200 < 0.82


def plain_error(influence):
    """Of independent draws."""
    return float(influence.std() / np.sqrt(influence.size))


def test_two_temperature_summary_and_what_it_refuses(drawn):
    rng = np.random.default_rng(12)
    b1, b2 = 1 / np.log(1000), 1.5 / np.log(1000)
    one, _ = gaussian_draws(np.ones(5), rng, (4, 3000), 0.3)
    two, _ = gaussian_draws(np.ones(5), rng, (4, 2000), 0.3)
    first = make_idata(one, one)
    second = make_idata(two / 1.5, two, inverse_temperature=b2)
    row = nllc.evidence.two_temperature_summary(first, second).loc["two_temperatures"]
    assert abs(row["mean"] - 2.5) < 4 * row["mcse_mean"]
    assert row["mcse_mean"] < 0.2
    parts = est.two_runs(one / b1, b1, two / b2, b2)
    assert row["mean"] == pytest.approx(parts[0].value + parts[1].value)
    numbers = [monte_carlo(part.influence) for part in parts]
    spread = np.hypot(numbers[0].error, numbers[1].error)
    assert row["mcse_mean"] == pytest.approx(spread, rel=1e-3)
    assert row["ess_bulk"] == pytest.approx(min(n.ess for n in numbers), rel=1e-2)
    assert row["r_hat"] == pytest.approx(max(n.r_hat for n in numbers), abs=1e-4)
    assert row["ci90_ub"] - row["mean"] == pytest.approx(1.6449 * row["mcse_mean"], rel=1e-3)
    with pytest.raises(ValueError, match="same `localization`; got 10.0 and 1.0"):
        nllc.evidence.two_temperature_summary(
            first, make_idata(two, two, localization=1.0, inverse_temperature=b2)
        )
    with pytest.raises(ValueError, match="same `num_data`; got 1000 and 500"):
        nllc.evidence.two_temperature_summary(
            first, make_idata(two, two, num_data=500, inverse_temperature=b2)
        )
    with pytest.raises(ValueError, match="differ in inverse temperature"):
        nllc.evidence.two_temperature_summary(first, first)


def in_a_box(c=40.0, gamma=1e-3):
    """½ (w1 w2)² on [0, 1]²: the box and not γ bounds the zeros, and m = 2."""
    return on_log_grid([(0.5, (2, 2))], gamma, c, 2, 0.5, top=0.5 * np.log(gamma), step=0.05)


def off_center(rng, shift=0.7, c=60.0, gamma=1.0):
    """One direction, γ small: the centre is `shift` standard deviations from the minimum."""
    spread = 1 / np.sqrt(c + gamma)
    w = shift * spread * c / (c + gamma) + spread * rng.normal(size=(4, 4000))
    return 0.5 * c * ((w - shift * spread) ** 2 - (shift * spread) ** 2), 0.5 * gamma * w**2


def unmixed(rng):
    x, penalty = gaussian_draws(S, rng, (4, 1000))
    return x + np.arange(4)[:, None], penalty


PLANTED = {
    "the centre is not the minimum": (off_center, "the centre is not the minimum"),
    "a slope too small for draws below": (
        lambda rng: off_center(rng, shift=0.3),
        "it is not the minimum, by about",
    ),
    "γ": (
        lambda rng: gaussian_draws(np.array([0.6, 0.5, 0.4]), rng, (4, 4000)),
        "γ holds the draws back: to first order the mean without γ is",
    ),
    "multiplicity": (lambda rng: draw(in_a_box(), rng, (4, 20_000)), "indicates a multiplicity"),
    "mixing": (unmixed, "The draws do not determine mean: R-hat"),
}


@pytest.mark.parametrize("plant", PLANTED)
def test_explanation_names_the_planted_cause(plant):
    make, words = PLANTED[plant]
    x, penalty = make(np.random.default_rng(13))
    findings = explain_disagreement(x, penalty, monte_carlo=monte_carlo)
    assert words in findings[0]
    for other, (_, text) in PLANTED.items():
        assert other == plant or text not in " ".join(findings)


def test_healthy_draws_need_no_explanation():
    for seed in range(20):
        x, penalty = gaussian_draws(np.full(4, 0.998), np.random.default_rng(seed), (4, 1000))
        assert explain_disagreement(x, penalty, monte_carlo=monte_carlo) == []


def test_explanation_of_a_result(drawn):
    x, penalty = drawn
    both = ["mean", "variance"]
    with pytest.warns(LLCWarning, match="γ holds the draws back") as seen:
        nllc.summary(make_idata(x, penalty), estimators=both)
    assert f"{est.localization_corrected(x, penalty).value:.4g}" in str(seen[0].message)
    with pytest.warns(LLCWarning, match="Only the distances of the draws"):
        nllc.summary(make_idata(x, penalty, localization={"a": 1.0, "b": 2.0}), estimators=both)
