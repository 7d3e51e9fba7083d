"""Programs of the kinds that NumPyro's examples and textbooks teach, on simulated data.

Each is a model, its arguments, and what a modeler would call the truth.
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.experimental.ode import odeint
from numpyro.contrib.control_flow import scan
from numpyro.infer.reparam import LocScaleReparam

RNG = np.random.default_rng(7)


@dataclass(frozen=True, eq=False)
class ModelProgram:
    """A program, its data and the point of interest; `settings` are keywords of ``localize``."""

    model: Any
    args: tuple
    center: dict
    settings: dict = field(default_factory=dict)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def poisson(rate):
    return RNG.poisson(rate).astype(np.int32)


# --- regressions ----------------------------------------------------------------------------------

MARRIAGE, AGE = normal(50), normal(50)
DIVORCE = (0.2 - 0.6 * AGE + 0.5 * normal(50)).astype(np.float32)


def divorce_rates(marriage, age, divorce=None):
    """A regression that returns its mean, with arguments that may be left out."""
    mean = numpyro.sample("a", dist.Normal(0.0, 0.2))
    if marriage is not None:
        mean = mean + numpyro.sample("bM", dist.Normal(0.0, 0.5)) * marriage
    if age is not None:
        mean = mean + numpyro.sample("bA", dist.Normal(0.0, 0.5)) * age
    sigma = numpyro.sample("sigma", dist.Exponential(1.0))
    mean = numpyro.deterministic("mu", mean)
    return numpyro.sample("obs", dist.Normal(mean, sigma), obs=divorce)


FEATURES = normal(200, 4)
LABELS = RNG.binomial(1, 1 / (1 + np.exp(-FEATURES @ [1.0, -0.5, 0.0, 0.3])))


def forest_cover(data, labels):
    """A logistic regression with an intercept inside the plate."""
    coefs = numpyro.sample("coefs", dist.Normal(jnp.zeros(4), jnp.ones(4)))
    offset = numpyro.sample("intercept", dist.Normal(0.0, 10.0))
    with numpyro.plate("N", data.shape[0]):
        numpyro.sample("obs", dist.Bernoulli(logits=data @ coefs + offset), obs=labels)


GROUP = np.repeat(np.arange(6), 20)
RADON = (0.5 * normal(6)[GROUP] + 0.7 * normal(120)).astype(np.float32)
RADON_GROUPS = np.array([RADON[GROUP == g].mean() for g in range(6)])


def radon(group, y):
    """Partial pooling, whose number of groups is counted in the data."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    with numpyro.plate("groups", len(np.unique(group))):
        alpha = numpyro.sample("alpha", dist.Normal(mu, tau))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    with numpyro.plate("rows", len(group)):
        numpyro.sample("y", dist.Normal(alpha[group], sigma), obs=y)


RADON_NONCENTERED = numpyro.handlers.reparam(radon, config={"alpha": LocScaleReparam(0.0)})

DOSE = np.linspace(-1.0, 1.0, 120).astype(np.float32)
RATING = np.digitize(1.2 * DOSE + RNG.logistic(size=120), [-1.0, 0.8])


def ordinal(x, y):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    transform = dist.transforms.OrderedTransform()
    prior = dist.TransformedDistribution(dist.Normal(0.0, 1.0).expand([2]).to_event(1), transform)
    cut = numpyro.sample("cutpoints", prior)
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.OrderedLogistic(b * x, cut), obs=y)


COUNTS = poisson(np.where(RNG.random(150) < 0.3, 0.0, 3.0))


def zero_inflated(y):
    gate = numpyro.sample("gate", dist.Beta(1.0, 1.0))
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    with numpyro.plate("rows", y.shape[0]):
        numpyro.sample("y", dist.ZeroInflatedPoisson(gate, rate=rate), obs=y)


SPARSE_X = normal(100, 6)
SPARSE_Y = (SPARSE_X @ [2.0, 0, 0, 0, -1.0, 0] + 0.5 * normal(100)).astype(np.float32)


def horseshoe(x, y):
    """Local and global scales of a sparse regression, not centred."""
    lambdas = numpyro.sample("lambdas", dist.HalfCauchy(jnp.ones(6)))
    tau = numpyro.sample("tau", dist.HalfCauchy(1.0))
    raw = numpyro.sample("raw", dist.Normal(jnp.zeros(6), 1.0))
    beta = numpyro.deterministic("beta", tau * lambdas * raw)
    precision = numpyro.sample("precision", dist.Gamma(2.0, 2.0))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ beta, precision**-0.5), obs=y)


HEAVY = (1.0 + 0.5 * DOSE + 0.2 * RNG.standard_t(3, size=120)).astype(np.float32)


def robust(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    nu = numpyro.sample("nu", dist.Gamma(2.0, 0.1))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.StudentT(nu, w[0] + w[1] * x, sigma), obs=y)


TIMES = RNG.weibull(1.5, size=80).astype(np.float32) + 0.01
CENSORED = TIMES > 1.2


def survival(time, censored):
    """Right-censored times: density where death was seen, survival where it was not."""
    scale = numpyro.sample("scale", dist.HalfNormal(2.0))
    shape = numpyro.sample("shape", dist.HalfNormal(2.0))
    law = dist.Weibull(scale, shape)
    with numpyro.plate("patients", len(time)):
        with numpyro.handlers.mask(mask=~censored):
            numpyro.sample("died", law, obs=time)
        with numpyro.handlers.mask(mask=censored):
            alive = jnp.log1p(-jnp.clip(law.cdf(time), 0.0, 1.0 - 1e-6))
            numpyro.sample("alive", dist.Unit(alive), obs=jnp.zeros(time.shape + (0,)))


# --- several sites, plates that cross -------------------------------------------------------------

ABILITY, DIFFICULTY = normal(15), normal(10)
ANSWERS = RNG.binomial(1, 1 / (1 + np.exp(-(ABILITY[:, None] - DIFFICULTY[None]))))


def item_response(answers):
    with numpyro.plate("people", answers.shape[0], dim=-2):
        ability = numpyro.sample("ability", dist.Normal(0.0, 1.0))
    with numpyro.plate("items", answers.shape[1], dim=-1):
        difficulty = numpyro.sample("difficulty", dist.Normal(0.0, 1.0))
        with numpyro.plate("people_", answers.shape[0], dim=-2):
            numpyro.sample("y", dist.Bernoulli(logits=ability - difficulty), obs=answers)


ADMIT_DEPT, ADMIT_MALE = np.repeat(np.arange(6), 2), np.tile([0.0, 1.0], 6)
APPLICATIONS = np.full(12, 300)
ADMITTED = RNG.binomial(APPLICATIONS, 1 / (1 + np.exp(0.3 * ADMIT_DEPT - 0.2 * ADMIT_MALE)))


def admissions(dept, male, applications, admit=None):
    """Counts of many trials a row, with correlated effects of each department."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    scales = numpyro.sample("scales", dist.HalfNormal(1.0).expand([2]).to_event(1))
    corr = numpyro.sample("corr", dist.LKJCholesky(2, concentration=2.0))
    with numpyro.plate("departments", 6, dim=-2):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    effect = mean + (z[:, 0] @ (scales[:, None] * corr).T)
    logits = effect[dept, 0] + effect[dept, 1] * male
    numpyro.sample("admit", dist.Binomial(applications, logits=logits), obs=admit)


PLAYERS_HITS = RNG.binomial(45, 0.25 + 0.03 * normal(18))


def batting_averages(at_bats, hits):
    """A probability for each row of many trials."""
    with numpyro.plate("players", len(hits)):
        phi = numpyro.sample("phi", dist.Beta(4.0, 12.0))
        numpyro.sample("hits", dist.Binomial(at_bats, probs=phi), obs=hits)


EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], np.float32)
EFFECT_ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], np.float32)


def eight_schools(errors, effects=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("J", 8):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("obs", dist.Normal(theta, errors), obs=effects)


def eight_schools_marginal(errors, effects):
    """The same with the effects integrated out."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("J", 8):
        numpyro.sample("obs", dist.Normal(mu, jnp.sqrt(tau**2 + errors**2)), obs=effects)


# --- sequences, processes, equations --------------------------------------------------------------

SERIES = np.zeros(100, np.float32)
for step in range(2, 100):
    SERIES[step] = 0.5 * SERIES[step - 1] - 0.2 * SERIES[step - 2] + 0.3 * RNG.normal()


def autoregression(y):
    """AR(2), each step a datum of a scan."""
    a1 = numpyro.sample("a1", dist.Normal(0.0, 1.0))
    a2 = numpyro.sample("a2", dist.Normal(0.0, 1.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))

    def transition(carry, value):
        before, last = carry
        numpyro.sample("y", dist.Normal(a1 * last + a2 * before, sigma), obs=value)
        return (last, value), None

    scan(transition, (y[0], y[1]), y[2:])


RETURNS = (0.5 * normal(60)).astype(np.float32)


def stochastic_volatility(returns):
    """A latent log volatility for each day."""
    step = numpyro.sample("sigma", dist.Exponential(10.0))
    h = numpyro.sample("h", dist.GaussianRandomWalk(scale=step, num_steps=returns.shape[0]))
    with numpyro.plate("days", returns.shape[0]):
        numpyro.sample("r", dist.Normal(0.0, jnp.exp(h)), obs=returns)


GP_X = np.linspace(-1.0, 1.0, 25).astype(np.float32)
GP_Y = (np.sin(3 * GP_X) + 0.1 * normal(25)).astype(np.float32)


def gaussian_process(x, y):
    """All observations in one draw of a multivariate normal."""
    var = numpyro.sample("var", dist.LogNormal(0.0, 1.0))
    length = numpyro.sample("length", dist.LogNormal(0.0, 1.0))
    noise = numpyro.sample("noise", dist.LogNormal(-2.0, 1.0))
    square = (x[:, None] - x[None]) ** 2
    k = var * jnp.exp(-0.5 * square / length**2) + (noise + 1e-5) * jnp.eye(len(x))
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), covariance_matrix=k), obs=y)


YEARS = np.arange(0.0, 8.0, 0.4)
HARES = (30 * np.exp(0.5 * np.sin(YEARS)) * np.exp(0.1 * normal(20))).astype(np.float32)


def logistic_growth(times, population):
    """A differential equation with its own reverse rule."""
    rate = numpyro.sample("rate", dist.HalfNormal(1.0))
    capacity = numpyro.sample("capacity", dist.LogNormal(3.0, 1.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))

    def growth(n, t, rate, capacity):
        return rate * n * (1 - n / capacity)

    n = odeint(growth, jnp.array(10.0), times, rate, capacity, rtol=1e-5, atol=1e-5)
    numpyro.sample("population", dist.LogNormal(jnp.log(n), sigma), obs=population)


EMISSIONS = RNG.integers(0, 3, size=40)


def forward_algorithm(words):
    """A hidden Markov model whose likelihood is a factor."""
    transition = numpyro.sample("transition", dist.Dirichlet(jnp.ones((2, 2))).to_event(1))
    emission = numpyro.sample("emission", dist.Dirichlet(jnp.ones((2, 3))).to_event(1))

    def step(log_prob, word):
        log_prob = jax.nn.logsumexp(log_prob[:, None] + jnp.log(transition), axis=0)
        return log_prob + jnp.log(emission[:, word]), None

    start = jnp.log(0.5) + jnp.log(emission[:, words[0]])
    log_prob, _ = jax.lax.scan(step, start, words[1:])
    numpyro.factor("forward", jax.nn.logsumexp(log_prob))


# --- networks, mixtures, directions ---------------------------------------------------------------

BNN_Y = (np.tanh(2 * DOSE) + 0.1 * normal(120)).astype(np.float32)


def neural_network(x, y):
    w1 = numpyro.sample("w1", dist.Normal(jnp.zeros((2, 3)), 1.0))
    w2 = numpyro.sample("w2", dist.Normal(jnp.zeros((3, 1)), 1.0))
    features = jnp.stack([jnp.ones_like(x), x], axis=1)
    hidden = jnp.tanh(features @ w1)
    precision = numpyro.sample("precision", dist.Gamma(3.0, 1.0))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Normal((hidden @ w2)[:, 0], 1 / jnp.sqrt(precision)), obs=y)


SPEEDS = np.concatenate([normal(40) - 2.0, normal(60) + 2.0])


def mixture(y):
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    means = numpyro.sample("means", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    parts = dist.Normal(means, 1.0)
    with numpyro.plate("galaxies", len(y)):
        numpyro.sample("y", dist.MixtureSameFamily(dist.Categorical(weights), parts), obs=y)


ANGLES = RNG.vonmises(0.5, 3.0, size=80).astype(np.float32)


def directions(angle):
    loc = numpyro.sample("loc", dist.VonMises(0.0, 0.1))
    concentration = numpyro.sample("concentration", dist.Gamma(2.0, 0.5))
    with numpyro.plate("rows", angle.shape[0]):
        numpyro.sample("angle", dist.VonMises(loc, concentration), obs=angle)


AGES = np.where(RNG.random(40) < 0.2, np.nan, RNG.normal(size=40)).astype(np.float32)
SURVIVED = RNG.binomial(1, 0.5, size=40)


def imputed(age, survived):
    """A missing age is a parameter: there are as many as are missing."""
    missing = np.nonzero(np.isnan(age))[0]
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    guess = numpyro.sample("age_", dist.Normal(mu, 1.0).expand([len(missing)]).mask(False))
    full = jnp.asarray(age).at[missing].set(guess)
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    numpyro.sample("age", dist.Normal(mu, 1.0), obs=full)
    numpyro.sample("survived", dist.Bernoulli(logits=b * full), obs=survived)


WORKS = {
    "divorce rates": ModelProgram(
        divorce_rates,
        (None, AGE, DIVORCE),
        {"a": 0.2, "bA": -0.6, "sigma": 0.5},
    ),
    "forest cover": ModelProgram(
        forest_cover, (FEATURES, LABELS), {"coefs": [1.0, -0.5, 0.0, 0.3], "intercept": 0.0}
    ),
    "radon": ModelProgram(
        radon,
        (GROUP, RADON),
        {"mu": 0.0, "tau": 0.5, "alpha": RADON_GROUPS, "sigma": 0.7},
    ),
    "radon, not centred": ModelProgram(
        RADON_NONCENTERED,
        (GROUP, RADON),
        {"mu": 0.0, "tau": 0.5, "alpha_decentered": 2 * RADON_GROUPS, "sigma": 0.7},
    ),
    "ordinal": ModelProgram(ordinal, (DOSE, RATING), {"b": 1.2, "cutpoints": [-1.0, 0.8]}),
    "zero-inflated": ModelProgram(zero_inflated, (COUNTS,), {"gate": 0.3, "rate": 3.0}),
    "horseshoe": ModelProgram(
        horseshoe,
        (SPARSE_X, SPARSE_Y),
        {"lambdas": np.ones(6), "tau": 1.0, "raw": [2.0, 0, 0, 0, -1.0, 0], "precision": 4.0},
    ),
    "robust": ModelProgram(robust, (DOSE, HEAVY), {"w": [1.0, 0.5], "sigma": 0.2, "nu": 3.0}),
    "survival": ModelProgram(
        survival, (TIMES, CENSORED), {"scale": 1.0, "shape": 1.5}, {"num_data": 80}
    ),
    "item response": ModelProgram(
        item_response,
        (ANSWERS,),
        {"ability": ABILITY[:, None], "difficulty": DIFFICULTY},
    ),
    "admissions": ModelProgram(
        admissions,
        (ADMIT_DEPT, ADMIT_MALE.astype(np.float32), APPLICATIONS, ADMITTED),
        {
            "mean": [-0.7, 0.2],
            "scales": [0.5, 0.2],
            "corr": np.array([[1.0, 0.0], [0.3, np.sqrt(0.91)]], np.float32),
            "z": np.zeros((6, 1, 2)) + np.linspace(-1, 1, 6)[:, None, None],
        },
        {"num_data": 3600},
    ),
    "batting averages": ModelProgram(
        batting_averages,
        (45, PLAYERS_HITS),
        {"phi": np.clip(PLAYERS_HITS / 45, 0.02, 0.98)},
        {"num_data": 18 * 45},
    ),
    "eight schools, marginal": ModelProgram(
        eight_schools_marginal, (EFFECT_ERRORS, EFFECTS), {"mu": 7.9, "tau": 4.0}
    ),
    "autoregression": ModelProgram(
        autoregression, (SERIES,), {"a1": 0.5, "a2": -0.2, "sigma": 0.3}
    ),
    "gaussian process": ModelProgram(
        gaussian_process,
        (GP_X, GP_Y),
        {"var": 1.0, "length": 0.5, "noise": 0.01},
        {"num_data": 25},
    ),
    "logistic growth": ModelProgram(
        logistic_growth, (YEARS, HARES), {"rate": 1.0, "capacity": 30.0, "sigma": 0.4}
    ),
    "forward algorithm": ModelProgram(
        forward_algorithm,
        (EMISSIONS,),
        {"transition": [[0.7, 0.3], [0.4, 0.6]], "emission": [[0.2, 0.3, 0.5], [0.5, 0.3, 0.2]]},
        {"likelihood_factors": ("forward",), "num_data": 40},
    ),
    "neural network": ModelProgram(
        neural_network,
        (DOSE, BNN_Y),
        {"w1": 0.5 * normal(2, 3), "w2": normal(3, 1), "precision": 4.0},
    ),
    "mixture": ModelProgram(mixture, (SPEEDS,), {"weights": [0.4, 0.6], "means": [-2.0, 2.0]}),
    "directions": ModelProgram(directions, (ANGLES,), {"loc": 0.5, "concentration": 3.0}),
}

REFUSED = {
    "eight schools": (
        ModelProgram(
            eight_schools, (EFFECT_ERRORS, EFFECTS), {"mu": 7.9, "tau": 4.0, "theta": EFFECTS}
        ),
        "the number of parameters grows with n",
    ),
    "stochastic volatility": (
        ModelProgram(stochastic_volatility, (RETURNS,), {"sigma": 0.1, "h": np.zeros(60)}),
        "the number of parameters grows with n",
    ),
    "batting averages without n": (
        ModelProgram(
            batting_averages, (45, PLAYERS_HITS), {"phi": np.clip(PLAYERS_HITS / 45, 0.02, 0.98)}
        ),
        "the number of parameters grows with n",
    ),
}
