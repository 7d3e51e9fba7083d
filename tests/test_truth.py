"""``truth="center"``: divergences against Monte Carlo, λ̂ against exact values, every door."""

import functools
import warnings
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import regression
from metropolis import FITTED, Metropolis
from numpyro.contrib.control_flow import scan
from numpyro.distributions import transforms
from numpyro.infer.util import log_density

import numpyro_llc as nllc
from numpyro_llc import estimators, evidence, models, pointwise
from numpyro_llc.local import all_rows, excess_losses, make_anchor, potential_gradient
from numpyro_llc.models import _kept, _truth
from numpyro_llc.models._divergence import divergence, excess_exponential, is_known

DATA = (regression.X, regression.Y)
SHIFTED = regression.OLS + [0.1, -0.2, 0.3, 0.0, 0.5]
N = 400_000
"""Draws of each family."""


class Pair(NamedTuple):
    """A family by parameters, two of them, draws of the first, and whether KL takes draws."""

    family: object
    p: tuple
    q: tuple
    draw: object
    takes_draws: bool = False


def expit(x):
    return 1.0 / (1.0 + np.exp(-x))


LOGITS = np.array([0.3, -1.0, 0.8, 0.1]), np.array([0.5, -0.2, 0.1, 0.4])
PROBS = tuple(np.exp(x) / np.exp(x).sum() for x in LOGITS)
ROOTS = np.array([[1.0, 0.0], [0.5, 0.8]]), np.array([[1.3, 0.0], [0.2, 0.9]])
MEANS = np.array([0.2, -0.3]), np.array([0.5, 0.1])


def exponential_of(loc, scale):
    return dist.TransformedDistribution(dist.Normal(loc, scale), transforms.ExpTransform())


def shifted(loc):
    return dist.TransformedDistribution(dist.StudentT(4.0), transforms.AffineTransform(loc, 1.0))


def two_normals(loc):
    parts = dist.Normal(jnp.stack([loc, -loc], -1), 1.0)
    return dist.MixtureSameFamily(dist.Categorical(jnp.array([0.3, 0.7])), parts)


PAIRS = {
    "normal": Pair(dist.Normal, (0.3, 0.7), (0.7, 1.4), lambda rng: rng.normal(0.3, 0.7, N)),
    "normal of one scale": Pair(
        lambda loc: dist.Normal(loc, 0.7), (0.3,), (0.5,), lambda rng: rng.normal(0.3, 0.7, N)
    ),
    "log normal": Pair(
        dist.LogNormal, (0.3, 0.8), (0.6, 0.6), lambda rng: rng.lognormal(0.3, 0.8, N)
    ),
    "transformed normal": Pair(
        exponential_of, (0.3, 0.8), (0.6, 0.6), lambda rng: rng.lognormal(0.3, 0.8, N)
    ),
    "half normal": Pair(dist.HalfNormal, (0.8,), (1.4,), lambda rng: abs(rng.normal(0, 0.8, N))),
    "laplace": Pair(dist.Laplace, (0.3, 0.7), (0.9, 1.3), lambda rng: rng.laplace(0.3, 0.7, N)),
    "exponential": Pair(dist.Exponential, (0.8,), (1.5,), lambda rng: rng.exponential(1 / 0.8, N)),
    "gamma": Pair(dist.Gamma, (2.0, 1.0), (2.5, 1.6), lambda rng: rng.gamma(2.0, 1.0, N)),
    "inverse gamma": Pair(
        dist.InverseGamma, (3.0, 1.0), (3.5, 1.4), lambda rng: 1.0 / rng.gamma(3.0, 1.0, N)
    ),
    "beta": Pair(dist.Beta, (2.0, 3.0), (2.5, 2.0), lambda rng: rng.beta(2.0, 3.0, N)),
    "dirichlet": Pair(
        dist.Dirichlet,
        (np.array([2.0, 3.0, 1.5]),),
        (np.array([3.0, 2.0, 2.5]),),
        lambda rng: rng.dirichlet([2.0, 3.0, 1.5], N),
    ),
    "multivariate normal": Pair(
        lambda m, root: dist.MultivariateNormal(m, scale_tril=root),
        (MEANS[0], ROOTS[0]),
        (MEANS[1], ROOTS[1]),
        lambda rng: MEANS[0] + rng.normal(size=(N, 2)) @ ROOTS[0].T,
    ),
    "poisson": Pair(dist.Poisson, (3.0,), (4.5,), lambda rng: rng.poisson(3.0, N)),
    "bernoulli": Pair(dist.BernoulliProbs, (0.1,), (0.45,), lambda rng: rng.binomial(1, 0.1, N)),
    "bernoulli of logits": Pair(
        dist.BernoulliLogits, (-2.0,), (0.4,), lambda rng: rng.binomial(1, expit(-2.0), N)
    ),
    "binomial": Pair(
        lambda p: dist.BinomialProbs(p, 7), (0.1,), (0.4,), lambda rng: rng.binomial(7, 0.1, N)
    ),
    "binomial of logits": Pair(
        lambda x: dist.BinomialLogits(x, 7),
        (-2.0,),
        (0.0,),
        lambda rng: rng.binomial(7, expit(-2.0), N),
    ),
    "geometric": Pair(dist.GeometricProbs, (0.3,), (0.4,), lambda rng: rng.geometric(0.3, N) - 1),
    "geometric of logits": Pair(
        dist.GeometricLogits, (-0.5,), (0.1,), lambda rng: rng.geometric(expit(-0.5), N) - 1
    ),
    "categorical": Pair(
        dist.CategoricalProbs, PROBS[:1], PROBS[1:], lambda rng: rng.choice(4, N, p=PROBS[0])
    ),
    "categorical of logits": Pair(
        dist.CategoricalLogits, LOGITS[:1], LOGITS[1:], lambda rng: rng.choice(4, N, p=PROBS[0])
    ),
    "multinomial": Pair(
        lambda p: dist.MultinomialProbs(p, 5),
        PROBS[:1],
        PROBS[1:],
        lambda rng: rng.multinomial(5, PROBS[0], N),
    ),
    "multinomial of logits": Pair(
        lambda x: dist.MultinomialLogits(x, 5),
        LOGITS[:1],
        LOGITS[1:],
        lambda rng: rng.multinomial(5, PROBS[0], N),
    ),
    "ordered": Pair(
        lambda x: dist.OrderedLogistic(x, jnp.array([-1.0, 0.8])),
        (0.2,),
        (2.0,),
        lambda rng: np.digitize(0.2 + rng.logistic(size=N), [-1.0, 0.8]),
    ),
    "beta binomial": Pair(
        lambda a, b: dist.BetaBinomial(a, b, 6),
        (2.0, 3.0),
        (3.0, 2.5),
        lambda rng: rng.binomial(6, rng.beta(2.0, 3.0, N)),
    ),
    "student": Pair(
        dist.StudentT,
        (4.0, 0.2, 1.0),
        (5.0, 0.6, 1.2),
        lambda rng: 0.2 + rng.standard_t(4.0, N),
        True,
    ),
    "negative binomial": Pair(
        dist.NegativeBinomial2,
        (3.0, 2.0),
        (6.0, 4.0),
        lambda rng: rng.negative_binomial(2.0, 0.4, N),
        True,
    ),
    "zero inflated": Pair(
        dist.ZeroInflatedPoisson,
        (0.3, 3.0),
        (0.4, 2.5),
        lambda rng: rng.poisson(3.0, N) * rng.binomial(1, 0.7, N),
        True,
    ),
    "von mises": Pair(
        dist.VonMises, (0.3, 2.0), (0.6, 1.5), lambda rng: rng.vonmises(0.3, 2.0, N), True
    ),
    "mixture": Pair(
        two_normals,
        (1.0,),
        (2.0,),
        lambda rng: rng.normal(size=N) + 2.0 * rng.binomial(1, 0.3, N) - 1.0,
        True,
    ),
    "shifted by a parameter": Pair(
        shifted, (0.2,), (0.6,), lambda rng: 0.2 + rng.standard_t(4.0, N), True
    ),
}


SLOW = ("beta binomial", "negative binomial", "zero inflated", "multinomial of logits")
"""Whose log densities take long to compile."""


@pytest.mark.parametrize(
    "name", [pytest.param(k, marks=[pytest.mark.slow] if k in SLOW else []) for k in PAIRS]
)
def test_a_divergence_is_that_of_many_draws(name):
    family, p, q, draw, takes_draws = PAIRS[name]
    draws, counts = draw(np.random.default_rng(0)), np.ones(N)
    given = (draw(np.random.default_rng(1)),) if takes_draws else ()
    if draws.dtype.kind == "i":
        codes = draws if draws.ndim == 1 else draws @ 100 ** np.arange(draws.shape[1])
        _, first, counts = np.unique(codes, return_index=True, return_counts=True)
        draws = draws[first]

    @jax.jit
    def look(p, q, draws, given):
        one, two = family(*p), family(*q)
        assert is_known(one) != takes_draws
        ratio = one.log_prob(draws) - two.log_prob(draws)
        return ratio, divergence(one, two, *given)

    ratio, found = map(np.float64, look(p, q, draws, given))
    _, other_way = map(np.float64, look(q, p, draws, given))
    assert found.shape == ()
    wanted = counts @ ratio / N
    error = np.sqrt(counts @ (ratio - wanted) ** 2) / N
    error *= np.sqrt(2.0) if takes_draws else 1.0  # e^r - 1 - r has the smaller variance here
    assert abs(found - wanted) < 4 * error + 1e-6
    assert error < 0.02 * wanted
    if name != "normal of one scale":  # whose divergence is that of the other way
        assert abs(other_way - wanted) > 4 * error


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_exponential_less_its_tangent_is_accurate_and_so_is_its_slope(sign):
    with jax.enable_x64(False):
        x = sign * np.float32(10.0) ** np.arange(-12.0, 1.1, 0.5, dtype=np.float32)
        value, slope = jax.jit(
            lambda x: (excess_exponential(x), jax.vmap(jax.grad(excess_exponential))(x))
        )(x)
    exact = x.astype(np.float64)
    series = exact**2 / 2 * (1 + exact / 3 * (1 + exact / 4 * (1 + exact / 5 * (1 + exact / 6))))
    wanted = np.where(np.abs(exact) < 3e-2, series, np.expm1(exact) - exact)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    np.testing.assert_allclose(slope, np.expm1(exact), rtol=3e-6)


# --- the loss of a model --------------------------------------------------------------------------

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=24).astype(np.float32)
LABELS, COUNTS = RNG.integers(0, 3, 24), RNG.poisson(1.0, (24, 2))
KEEP = np.arange(24) % 4 != 0
SERIES = np.cumsum(0.3 * RNG.normal(size=24)).astype(np.float32)


def mixed(x, y, counts, keep):
    """Two sites: one masked, the other scaled and with an event of two."""
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    with numpyro.plate("N", len(x)):
        with numpyro.handlers.mask(mask=keep):
            numpyro.sample("y", dist.Categorical(logits=x[:, None] * w), obs=y)
        with numpyro.handlers.scale(scale=2.0):
            rate = dist.Poisson(jnp.exp(x[:, None] * w[:2])).to_event(1)
            numpyro.sample("counts", rate, obs=counts)


def mixed_loss(w, center):
    def softmax(w):
        powers = np.exp(INPUTS[:, None] * w)
        return powers / powers.sum(axis=1, keepdims=True)

    p, q = softmax(center), softmax(w)
    one, two = (np.exp(INPUTS[:, None] * v[:2]) for v in (center, w))
    poisson = one * np.log(one / two) - one + two
    return KEEP * (p * np.log(p / q)).sum(axis=1) + 2.0 * poisson.sum(axis=1)


def autoregression(y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))

    def transition(last, value):
        numpyro.sample("y", dist.Normal(w[0] + w[1] * last, jnp.exp(w[2])), obs=value)
        return value, None

    scan(transition, y[0], y[1:])


def autoregression_loss(w, center):
    means = (v[0] + v[1] * SERIES[:-1] for v in (center, w))
    ratio = np.exp(2.0 * (center[2] - w[2]))
    shift = np.subtract(*means) * np.exp(-w[2])
    return 0.5 * (ratio - 1.0 - np.log(ratio) + shift**2)


def robust(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    with numpyro.plate("N", len(x)):
        numpyro.sample("y", dist.StudentT(4.0, w[0] + w[1] * x, jnp.exp(w[2])), obs=y)


def robust_loss(w, center):
    """By a sum over a fine grid."""
    grid = np.tan(np.linspace(-1.5706, 1.5706, 20_001))
    weight = np.gradient(grid)

    def density(v):
        u = (grid - (v[0] + v[1] * INPUTS)[:, None]) / np.exp(v[2])
        return 0.375 * (1 + u**2 / 4) ** -2.5 / np.exp(v[2])

    p, q = density(center), density(w)
    return (p * np.log(p / q)) @ weight


class Model(NamedTuple):
    model: object
    args: tuple
    loss: object
    tolerance: float = 1e-4


CENTER, AWAY = np.array([0.2, -0.3, 0.4]), np.array([0.3, -0.1, 0.2])
MODELS = {
    "mixed": Model(mixed, (INPUTS, LABELS, COUNTS, KEEP), mixed_loss),
    "autoregression": Model(autoregression, (SERIES,), autoregression_loss),
    "robust": Model(robust, (INPUTS, SERIES), robust_loss, 0.03),
}


LOCALS = {
    name: nllc.localize(
        one.model, center={"w": CENTER}, truth="center", num_data=24, localization=3.0
    )
    for name, one in MODELS.items()
}


@functools.cache
def looked_at(name):
    """The target; its losses and potential away from the centre; its potential at the centre."""
    local, z = LOCALS[name], {"w": jnp.asarray(AWAY, jnp.float32)}
    target = local.target(local.read(MODELS[name].args))[0]

    @jax.jit
    def look(target, z):
        value, slope = jax.value_and_grad(target.potential)(z)
        return target.losses(z), value, slope

    losses, potential, _ = look(target, z)
    return target, losses, potential, look(target, target.center)[1:]


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_of_a_model_is_the_sum_of_its_divergences(name):
    _, losses, potential, (lowest, slope) = looked_at(name)
    wanted = MODELS[name].loss(AWAY, CENTER)
    near = {"rtol": MODELS[name].tolerance, "atol": MODELS[name].tolerance * wanted.mean()}
    np.testing.assert_allclose(sum(losses.values()).sum(), wanted.sum(), **near)
    penalty = 1.5 * np.sum((AWAY - CENTER) ** 2)
    np.testing.assert_allclose(potential, wanted.sum() / np.log(24) + penalty, **near)
    assert 0.0 <= float(lowest) < 1e-12  # of the second order in what rounding makes of w*
    assert np.abs(slope["w"]).max() < 1e-5 * wanted.sum()
    if name != "robust":  # whose data each have draws of their own
        np.testing.assert_allclose(sum(losses.values()), wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_a_localized_model_has_the_same_density_under_numpyro(name):
    args, potential = MODELS[name].args, looked_at(name)[2]
    density = jax.jit(lambda args, point: log_density(LOCALS[name], args, {}, point)[0])
    away, center = (density(args, {"w": np.float32(w)}) for w in (AWAY, CENTER))
    assert float(away - center) == pytest.approx(-float(potential), rel=1e-4)


@pytest.mark.parametrize("name", ["mixed", "robust"])
def test_rows_have_the_losses_that_they_have_among_all(name):
    local = LOCALS[name]
    reading = local.read(MODELS[name].args)
    reading = replace(reading, program=models.with_batches(reading))
    target = local.target(reading)[0]
    z, whole = {"w": jnp.asarray(AWAY, jnp.float32)}, looked_at(name)[1]
    batches = jnp.array([7, 3, 3, 20]), jnp.arange(24)[::-1]  # some, and as many as there are
    some = jax.jit(lambda t, z: [t.row_losses(z, rows) for rows in batches])(target, z)
    for found, rows in zip(some, batches, strict=True):
        np.testing.assert_allclose(found, sum(map(np.asarray, whole.values()))[rows], rtol=1e-5)


class Told(dist.Distribution):
    """Laplace, by a class of a user, which tells NumPyro of its array."""

    support = dist.constraints.real
    pytree_data_fields = ("loc",)

    def __init__(self, loc):
        self.loc = loc
        super().__init__(jnp.shape(loc), ())

    def log_prob(self, value):
        return -jnp.abs(value - self.loc)

    def sample(self, key, sample_shape=()):
        return self.loc + jax.random.laplace(key, (*sample_shape, *self.batch_shape))


class Untold(Told):
    """By one that does not: NumPyro has a field of this name, and the array is in another."""

    def __init__(self, loc):
        super().__init__(loc)
        self.hidden, self.loc = loc, None

    def log_prob(self, value):
        return -jnp.abs(value - self.hidden)

    def sample(self, key, sample_shape=()):
        return self.hidden + jax.random.laplace(key, (*sample_shape, *self.batch_shape))


def around(kind, x, y):
    """A mean of one layer, with noise of a `kind`."""
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    with numpyro.plate("N", len(x)):
        numpyro.sample("y", kind(w[0] * jax.lax.tanh(w[1] + w[2] * x), x), obs=y)


KINDS = {
    "normal": lambda loc, x: dist.Normal(loc, 1.0),
    "told": lambda loc, x: Told(loc),
    "untold": lambda loc, x: Untold(loc),
    # Its transform is of data, the same at all parameters.
    "shifted": lambda loc, x: dist.TransformedDistribution(
        dist.Normal(loc, 1.0), transforms.AffineTransform(x, 2.0)
    ),
}


@functools.cache
def reading_of(kind):
    model = functools.partial(around, KINDS[kind])
    reading = nllc.localize(model, center={"w": CENTER}).read((INPUTS, SERIES))
    return replace(reading, program=models.with_batches(reading))


@pytest.fixture
def against(monkeypatch):
    """The target of a kind of noise, at most so many bytes of it kept, the rows in `shards`."""

    def of(kind, truth="center", most_bytes=_kept.MOST_BYTES, shards=1):
        monkeypatch.setattr(_kept, "MOST_BYTES", most_bytes)
        _truth._at_center.clear_cache()
        reading = reading_of(kind)
        local = nllc.localize(reading.program.model, center={"w": CENTER}, truth=truth)
        batching = replace(reading.program.batching, shards=shards)
        program = replace(reading.program, batching=batching)
        return local.target(replace(reading, program=program))[0]

    return of


def evaluations(function, *args):
    """How often a function evaluates the layer."""
    return str(jax.make_jaxpr(function)(*args)).count("= tanh ")


@pytest.mark.parametrize("kind", ["normal", "told"])
def test_the_centre_is_evaluated_once_for_all_and_each_draw_once(against, kind):
    """Not with each batch of one chain, and not again for the parts of the draws."""
    rows, z = jnp.arange(5), {"w": jnp.ones((1, 3))}

    def step(target):
        return jax.vmap(jax.grad(lambda one: target.tempered_loss(one, rows)))(z)

    def record(target):
        return excess_losses(target, z, all_rows(target), with_slope=True)

    def counts(target):
        return [evaluations(function, target) for function in (step, record)]

    of_data = counts(against(kind, "data"))
    assert counts(against(kind)) == of_data
    assert counts(against(kind, most_bytes=0)) == [1 + count for count in of_data]


def test_what_is_kept_of_the_centre_or_is_not_has_the_same_losses(against):
    """By rows too, and where the rows are in two shards."""
    z, rows = {"w": jnp.asarray(AWAY, jnp.float32)}, jnp.array([7, 3, 20, 20])

    @jax.jit
    def look(target):
        return target.losses(z)["y"], target.row_losses(z, rows)

    def assert_like(found, wanted):
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-9)

    told, untold, shifted = map(against, ("told", "untold", "shifted"))
    assert told.truth.distributions is not None
    assert untold.truth.distributions is None
    by_draws = look(told)
    assert_like(look(untold), by_draws)
    assert_like(look(against("told", most_bytes=0)), by_draws)
    assert_like(look(against("told", shards=2)), by_draws)
    means = (v[0] * np.tanh(v[1] + v[2] * INPUTS.astype(float)) for v in (AWAY, CENTER))
    wanted = 0.5 * np.subtract(*means) ** 2
    assert_like(look(shifted), (wanted, wanted[rows]))


def test_divergences_of_nearby_points_are_accurate_in_float32():
    """Of a mean that differs by 1e-4 the divergence is 5e-9, far below the rounding of a loss."""
    local = nllc.localize(regression.model, center={"w": SHIFTED}, truth="center")
    target = local.target(local.read(DATA))[0]
    z = {"w": target.center["w"] + jnp.array([0.0, 0.0, 0.0, 0.0, 1e-4])}
    moved = np.float64(z["w"][4]) - np.float64(target.center["w"][4])
    wanted = 0.5 * np.sum((regression.X[:, 4] * moved) ** 2)
    excess = jax.jit(lambda target, z: target.excess_loss(z))(target, z)
    assert float(excess) == pytest.approx(wanted, rel=1e-2)


# --- λ̂ and the doors ------------------------------------------------------------------------------


def localized(center=SHIFTED, **settings):
    return nllc.localize(regression.model, center={"w": center}, truth="center", **settings)


def estimate(local, **settings):
    settings = {"kernel": FITTED, "progress_bar": False, "num_warmup": 100, **settings}
    return nllc.estimate_llc(jax.random.key(0), local, DATA, **settings)


EXACT = regression.exact(regression.OLS, 1.0)


@pytest.fixture(scope="module")
def shifted_run():
    return estimate(localized(), num_samples=8000, thinning=4)


def test_llc_is_that_of_the_function_wherever_the_centre_is(shifted_run, llc_of):
    """That of the minimum by the data, for the divergence is the same quadratic around any w*."""
    mean, error = llc_of(shifted_run)
    assert abs(mean - EXACT) < 4 * error
    assert error < 0.05 * EXACT
    assert abs(regression.exact(SHIFTED, 1.0) - EXACT) > 20 * error
    assert shifted_run.attrs["truth"] == "center"
    assert nllc.diagnose(shifted_run).empty
    np.testing.assert_allclose(
        shifted_run["sample_stats"]["loss"], shifted_run["sample_stats"]["excess_loss"]
    )
    residual = regression.Y - regression.X @ SHIFTED
    wanted = 0.5 * np.sum(residual**2) + 250 * np.log(2 * np.pi)
    assert shifted_run.attrs["center_loss"] == pytest.approx(wanted, rel=1e-5)
    assert float(shifted_run["posterior"]["llc"].min()) >= 0.0


def test_gradients_of_batches_are_those_of_all_rows_and_need_no_control_variates():
    """Of divergences the gradient at the centre is 0, row by row."""
    local = localized()
    reading = local.read(DATA)
    target = local.target(replace(reading, program=models.with_batches(reading)))[0]
    z = {"w": jnp.asarray(regression.OLS[None] + 0.1, jnp.float32)}

    @jax.jit
    def look(target, z):
        anchor = make_anchor(target)

        def of(rows, use_anchor):
            return potential_gradient(target, z, rows, anchor, use_anchor)["w"][0]

        parts = jax.lax.map(lambda rows: of(rows, True), jnp.arange(500).reshape(10, 50))
        return anchor.gradient["w"], parts, of(jnp.arange(50), False)

    anchor, parts, plain = look(target, z)
    moved = np.asarray(z["w"][0], float) - SHIFTED
    wanted = regression.X.T @ regression.X @ moved / np.log(500) + moved
    np.testing.assert_allclose(np.mean(parts, axis=0), wanted, rtol=1e-4)
    np.testing.assert_array_equal(parts[0], plain)
    assert not np.any(anchor)


@pytest.mark.slow
def test_batches_have_the_same_llc(llc_of):
    idata = estimate(localized(), kernel="sgnht", batch_size=50, num_samples=8000, num_warmup=1000)
    mean, error = llc_of(idata)
    assert abs(mean - EXACT) < 4 * error
    assert error < 0.05 * EXACT
    assert not idata.attrs["control_variates"]


def test_a_run_of_numpyro_is_read_as_such(llc_of):
    mcmc = numpyro.infer.MCMC(
        numpyro.infer.BarkerMH(localized()), num_warmup=20, num_samples=20, progress_bar=False
    )
    mcmc.run(jax.random.key(0), *DATA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)
        idata = nllc.from_numpyro(mcmc)
    assert idata.attrs["truth"] == "center"
    moved = np.asarray(mcmc.get_samples()["w"], np.float64) - SHIFTED
    wanted = 0.5 * np.sum((moved @ regression.X.T) ** 2, axis=1) / np.log(500)
    np.testing.assert_allclose(idata["posterior"]["llc"][0], wanted, rtol=1e-3)
    with pytest.raises(ValueError, match="`log_likelihood` is of the data"):
        nllc.from_numpyro(mcmc, log_likelihood=True)


def test_every_centre_of_a_sweep_and_other_data_are_against_the_centre():
    quick = {"kernel": FITTED, "num_samples": 2000, "num_warmup": 100, "progress_bar": False}
    centers = [{"w": regression.OLS}, {"w": SHIFTED}]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)
        table = nllc.sweep(jax.random.key(0), localized(), DATA, center=centers, **quick)
        idata = estimate(localized(), evaluate_on={"same": DATA}, **quick)
    assert np.all(np.abs(table["llc"] - EXACT) < 4 * table["mcse_mean"])
    assert float(table["mcse_mean"].max()) < 0.2 * EXACT
    draws = idata["posterior"]
    np.testing.assert_allclose(draws["llc_on"][..., 0], draws["llc"], rtol=1e-4)


def test_pointwise_losses_are_divergences_and_criteria_of_data_are_refused(shifted_run):
    losses = pointwise.pointwise_losses(shifted_run, localized(), DATA)
    excess, at_center = losses.of(np.arange(500))
    assert not at_center.any()
    recorded = shifted_run["sample_stats"]["excess_loss"].to_numpy()
    np.testing.assert_allclose(excess.sum(axis=2), recorded, rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="need the losses of data"):
        pointwise.pointwise_statistics(losses)


@pytest.mark.parametrize("criterion", [nllc.wbic, nllc.local_free_energy])
def test_free_energies_of_data_refuse_a_run_against_the_centre(shifted_run, criterion):
    with pytest.raises(ValueError, match="is a free energy of data.*truth='data'"):
        criterion(shifted_run)
    with pytest.raises(ValueError, match="`temperature_ladder` computes the free energy of data"):
        evidence.temperature_ladder(jax.random.key(0), localized(), DATA, progress_bar=False)


def test_a_folder_of_one_truth_refuses_the_other(tmp_path):
    quick = {"num_samples": 8, "output": tmp_path}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)
        estimate(localized(), **quick)
        with pytest.raises(nllc.CheckpointError, match="another `truth`"):
            estimate(replace(localized(), truth="data"), **quick)


def test_a_model_of_losses_takes_the_divergence_of_the_user():
    def squares(params, x, y):
        return 0.5 * (x @ params["w"] - y) ** 2

    def apart(center, params, x, y):
        return 0.5 * (x @ (params["w"] - center["w"])) ** 2

    params, z = {"w": np.zeros(5)}, {"params": {"w": jnp.asarray(regression.OLS)}}
    model = nllc.loss_model(squares, params, divergence=apart)
    local = nllc.localize(model, center={"params": {"w": SHIFTED}}, truth="center")
    target = local.target(local.read(DATA))[0]
    wanted = 0.5 * np.sum((regression.X @ (regression.OLS - SHIFTED)) ** 2)
    assert float(target.excess_loss(z)) == pytest.approx(wanted, rel=1e-5)
    plain = replace(local, model=nllc.loss_model(squares, params))
    with pytest.raises(ValueError, match=r"pass loss_model\(losses, params, divergence=...\)"):
        plain.target(plain.read(DATA))
    wrong = replace(
        local, model=nllc.loss_model(squares, params, divergence=lambda *_: jnp.ones(3))
    )
    with pytest.raises(TypeError, match=r"of the shape of `losses`, \(500,\); got \(3,\)"):
        wrong.target(wrong.read(DATA))[0].losses(z)
    with pytest.raises(TypeError, match="`divergence` must be a function"):
        nllc.loss_model(squares, params, divergence=1.0)


def by_factor(y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    numpyro.factor("fit", -0.5 * jnp.sum((y - w) ** 2))


class Improper(dist.Distribution):
    support = dist.constraints.real

    def __init__(self, loc):
        self.loc = loc
        super().__init__(jnp.shape(loc), ())

    def log_prob(self, value):
        return -jnp.abs(value - self.loc)


def without_draws(y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", Improper(w + jnp.zeros(len(y))), obs=y)


def hidden_states(y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    with numpyro.plate("N", len(y)):
        state = numpyro.sample("state", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Normal(w * state, 1.0), obs=y)


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (by_factor, {"likelihood_factors": ["fit"]}, "'fit' is a factor.*loss_model"),
        (without_draws, {}, "Improper has no `sample`.*register its divergence"),
        (hidden_states, {}, r"\['y'\], which depend on discrete.*MixtureSameFamily"),
    ],
)
def test_what_has_no_divergence_is_refused_by_name(model, settings, message):
    if model is hidden_states:
        pytest.importorskip("funsor")
    local = nllc.localize(model, center={"w": 0.1}, truth="center", num_data=24, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)
        reading = local.read((SERIES,))
    with pytest.raises(ValueError, match=message):
        local.target(reading)


def test_an_unknown_truth_is_refused():
    with pytest.raises(ValueError, match=r"`truth` must be one of \['data', 'center'\]; got 'w'"):
        nllc.localize(regression.model, center=None, truth="w")
    with pytest.raises(ValueError, match=r"`truth` must be one of .* each once; got \('data',"):
        nllc.llc_trajectory(jax.random.key(0), regression.model, [], DATA, truth=("data", "data"))


# --- the error of the draws -----------------------------------------------------------------------


def test_the_error_of_parts_is_what_each_would_move_llc_by():
    """Of one direction with βnL = ½ a u² and γ: λ̂ = ½ a/(a + γ), and dλ̂/d ln a = λ̂ (1 - 2 λ̂)."""
    rng, gamma = np.random.default_rng(0), 1.0
    x = 0.5 * rng.normal(0.0, (1.0 + gamma) ** -0.5, (4, 50_000)) ** 2
    factors = 1.0 + 0.1 * rng.normal(size=8)
    found = estimators.parts_error(x, x[..., None] * factors)
    llc = 0.5 / (1.0 + gamma)
    wanted = llc * (1.0 - 2.0 * llc) * np.std(factors, ddof=1) / np.sqrt(8)
    assert found == pytest.approx(wanted, rel=0.05)


def test_the_budget_has_the_error_of_draws_where_there_are_any(shifted_run):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)
        idata = nllc.estimate_llc(
            jax.random.key(0),
            LOCALS["robust"],
            MODELS["robust"].args,
            kernel=Metropolis(0.3),
            num_samples=400,
            num_warmup=100,
            thinning=4,
            progress_bar=False,
        )
    budget, llc = nllc.error_budget(idata), float(idata["posterior"]["llc"].mean())
    assert 0.0 < budget.loc["draws", "value"] < 0.05 * llc
    assert budget.loc["draws", "kind"] == "error"
    assert not [name for name in idata["sample_stats"] if "draws" in str(name)]
    assert "draws" not in nllc.error_budget(shifted_run).index


# --- deep linear networks along training ----------------------------------------------------------

NUM_DATA, GAMMA, SHARE = 300, 5.0, 1 / np.log(300)
X3 = np.random.default_rng(1).normal(size=(NUM_DATA, 3)).astype(np.float32)
MAP = np.array([[1.5, 0.0], [0.0, 0.4], [0.0, 0.0]])
Y3 = (X3 @ MAP + 0.1 * np.random.default_rng(2).normal(size=(NUM_DATA, 2))).astype(np.float32)


def product(layers, x):
    for layer in layers:
        x = x @ layer
    return x


def path_of(steps):
    """Layers 3-2-2 after so many steps of gradient descent from a small random start."""
    keys = jax.random.split(jax.random.key(3))
    start = [0.3 * jax.random.normal(k, s) for k, s in zip(keys, [(3, 2), (2, 2)], strict=True)]

    def step(layers, _):
        slope = jax.grad(lambda one: 0.5 * jnp.mean((product(one, X3) - Y3) ** 2))(layers)
        return jax.tree.map(lambda a, g: a - 0.2 * g, layers, slope), layers

    _, path = jax.jit(lambda: jax.lax.scan(step, start, None, length=max(steps) + 1))()
    return [[np.asarray(layer[k]) for layer in path] for k in steps]


def student_less_teacher(center, outputs):
    """The density by hand: the teacher's outputs as noiseless data of the student."""
    scale = GAMMA**-0.5
    student = [
        numpyro.sample(f"w{k}", dist.Normal(layer, scale).to_event(2))
        for k, layer in enumerate(center)
    ]
    loss = 0.5 * jnp.sum((product(student, X3) - outputs) ** 2)
    numpyro.deterministic("llc", SHARE * loss)
    numpyro.factor("loss", -SHARE * loss)


@pytest.fixture(scope="module")
def along_the_path():
    centers = [{"params": layers} for layers in path_of([15, 60, 3000])]
    model = nllc.network_model(product, centers[0]["params"])
    local = nllc.localize(model, center=None, localization=GAMMA)
    lengths = {"num_warmup": 500, "num_samples": 4000, "progress_bar": False}
    table = nllc.llc_trajectory(
        jax.random.key(0), local, centers, (X3, Y3), truth=("data", "center"), **lengths
    )
    return centers, table


@pytest.mark.slow
def test_along_training_llc_is_that_of_student_less_teacher(along_the_path):
    centers, table = along_the_path
    for k, center in enumerate(centers):
        mcmc = numpyro.infer.MCMC(
            numpyro.infer.NUTS(student_less_teacher),
            num_warmup=500,
            num_samples=4000,
            num_chains=4,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(jax.random.key(k), center["params"], product(center["params"], X3))
        draws = np.asarray(mcmc.get_samples(group_by_chain=True)["llc"], np.float64)
        ess = float(numpyro.diagnostics.effective_sample_size(draws))
        wanted, error = draws.mean(), draws.std() / np.sqrt(ess)
        row = table.sel(truth="center").isel(checkpoint=k)
        assert row["status"] == "ok"
        assert abs(float(row["llc"]) - wanted) < 4 * np.hypot(error, float(row["mcse_mean"]))
        assert float(row["mcse_mean"]) < 0.03 * wanted
    of_data = table["llc"].sel(truth="data").to_numpy()
    assert of_data[0] < 0.0  # of no minimum


@pytest.mark.slow
def test_at_the_end_of_training_the_two_truths_agree(along_the_path):
    _, table = along_the_path
    last = table.isel(checkpoint=-1)
    assert last["status"].to_numpy().tolist() == ["ok", "ok"]
    difference = np.subtract(*last["llc"].to_numpy())
    assert abs(difference) < 4 * np.hypot(*last["mcse_mean"].to_numpy())


@pytest.mark.slow
def test_at_an_aligned_point_llc_is_the_exact_one_whatever_the_data(llc_of):
    problem = nllc.zoo.deep_linear_network((2, 1, 1, 3), 0, num_data=1000)
    widths, x, y, weights = problem.model_args
    noise = np.random.default_rng(0).normal(size=np.shape(y)).astype(np.float32)
    local = nllc.localize(problem.model, center=problem.center, num_data=1000, truth="center")
    idata = nllc.estimate_llc(
        jax.random.key(0), local, (widths, x, noise, weights), num_samples=4000, progress_bar=False
    )
    mean, error = llc_of(idata)
    wanted = problem.expectation().mean
    assert abs(mean - wanted) < 4 * error
    assert error < 0.05 * wanted


def test_multivariate_normals_in_a_batch_have_a_divergence_each():
    def of(means, roots):
        return dist.MultivariateNormal(jnp.array(means), scale_tril=jnp.array(roots))

    def by_hand(m0, m1, root0, root1):
        cov0, inverse, shift = root0 @ root0.T, np.linalg.inv(root1 @ root1.T), m1 - m0
        spread = np.trace(inverse @ cov0) - 2 - np.linalg.slogdet(inverse @ cov0)[1]
        return 0.5 * (spread + shift @ inverse @ shift)

    found = jax.jit(lambda: divergence(of(MEANS, ROOTS), of(MEANS[::-1], ROOTS[::-1])))()
    wanted = [by_hand(*MEANS, *ROOTS), by_hand(*MEANS[::-1], *ROOTS[::-1])]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def pairs(x, y):
    """Data of two numbers each, whose divergence takes draws."""
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    with numpyro.plate("N", len(x)):
        loc = jnp.stack([w[0] + w[1] * x, w[1] - x], axis=-1)
        numpyro.sample("y", dist.StudentT(4.0, loc, jnp.exp(w[2])).to_event(1), obs=y)


def test_draws_of_each_datum_go_with_its_row_and_their_parts_average_to_the_loss():
    args = INPUTS, np.stack([SERIES, -SERIES], axis=-1)
    local = nllc.localize(pairs, center={"w": CENTER}, truth="center")
    reading = local.read(args)
    target = local.target(replace(reading, program=models.with_batches(reading)))[0]
    rows, z = jnp.array([7, 3, 3, 20]), {"w": jnp.array([AWAY, CENTER], jnp.float32)}

    @jax.jit
    def look(target, z):
        whole, some = jax.vmap(lambda z: (target.losses(z)["y"], target.row_losses(z, rows)))(z)
        seen = (
            excess_losses(target, z, rows, with_slope=True) for rows in (None, all_rows(target))
        )
        return whole, some, [(found.excess, found.by_draws, found.slope) for found in seen]

    whole, some, parts = jax.tree.map(np.asarray, look(target, z))
    np.testing.assert_allclose(some, whole[:, rows], rtol=1e-5, atol=1e-12)
    assert whole[0].min() > 0.0
    for excess, by_part, slope in parts:
        np.testing.assert_allclose(excess, whole.sum(axis=1), rtol=1e-4, atol=1e-12)
        np.testing.assert_allclose(by_part.mean(axis=1), excess, rtol=1e-4, atol=1e-12)
        assert by_part[0].std() > 0.0  # of draws that differ
        assert excess[1] == slope[1] == np.abs(by_part[1]).max() == 0.0
