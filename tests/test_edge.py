"""Likelihoods that are largest at the edge of a support, or at infinity; and some that are not."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from metropolis import Metropolis
from numpyro.infer.reparam import CircularReparam
from scipy.stats import vonmises
from targets import target_of

import numpyro_llc as nllc
from numpyro_llc.local import curvature_at_center

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 2))
SEPARATED = (X @ np.array([1.0, 2.0]) > 0).astype(int)
TURNED = np.array([[0.6, -0.8], [0.8, 0.6]])
DUMMY = np.c_[X[:, :1], RNG.random(40) < 0.3].astype(float)
ONE_SIDED = np.where(DUMMY[:, 1] > 0, 1, (RNG.random(40) < 0.5).astype(int))


def categories(y):
    p = numpyro.sample("p", dist.Dirichlet(jnp.ones(3)))
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", dist.Categorical(p), obs=y)


def coin(y):
    p = numpyro.sample("p", dist.Uniform(0.0, 1.0))
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", dist.Bernoulli(p), obs=y)


def normal(y):
    m = numpyro.sample("m", dist.Normal(0.0, 1.0))
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", dist.Normal(m, s), obs=y)


def correlated(y):
    factor = numpyro.sample("L", dist.LKJCholesky(2, 1.0))
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(2), scale_tril=factor), obs=y)


def cutpoints(y):
    prior = dist.TransformedDistribution(
        dist.Normal(0.0, 1.0).expand([3]).to_event(1), dist.transforms.OrderedTransform()
    )
    c = numpyro.sample("c", prior)
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", dist.OrderedLogistic(0.0, c), obs=y)


def logistic(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def product(y):
    """Mean a·b: flat along a where b = 0, and no edge."""
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    b = numpyro.sample("b", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", dist.Normal(a * b, 1.0), obs=y)


EMPTY = np.array([0] * 12 + [1] * 18)
ALL = np.array([0] * 12 + [1] * 17 + [2])
SMALL = 1e-4 * RNG.normal(size=60)
TIED = np.repeat([0, 2, 3], [10, 10, 9])
RARE = np.r_[np.zeros(999, int), 1]
CASES = {
    "an empty category": (categories, (EMPTY,), {"p": [0.4, 0.5999999, 1e-7]}, "p"),
    "an empty category, and a mode": (categories, (EMPTY,), {"p": [0.38, 0.59, 0.03]}, "p"),
    "all heads": (coin, (np.ones(20, int),), {"p": 0.999999}, "p"),
    "a scale of zero": (normal, (np.ones(60),), {"m": 1.0, "s": 1e-9}, "s"),
    "a correlation of one": (
        correlated,
        (np.repeat(SMALL[:40, None], 2, axis=1),),
        {"L": [[1.0, 0.0], [0.999995, (1 - 0.999995**2) ** 0.5]]},
        "L",
    ),
    "tied cutpoints": (cutpoints, (TIED,), {"c": [-0.6418, -0.6417, 0.7985]}, "c"),
    "separable classes": (logistic, (X, SEPARATED), {"w": [5.0, 10.0]}, "w"),
    "a column that separates": (logistic, (DUMMY, ONE_SIDED), {"w": [0.18, 17.0]}, "w"),
    "a combination that separates": (
        logistic,
        (DUMMY @ TURNED, ONE_SIDED),
        {"w": TURNED.T @ np.array([0.1839, 17.0])},
        "w",
    ),
    "a category with one member": (categories, (ALL,), {"p": np.array([12, 17, 1]) / 30}, None),
    "a rare event": (coin, (RARE,), {"p": 1e-3}, None),
    "a rare event, from a point off its minimum": (coin, (RARE,), {"p": 0.1}, None),
    "a small scale": (normal, (SMALL,), {"m": SMALL.mean(), "s": SMALL.std()}, None),
    "a flat direction": (product, (np.zeros(20),), {"a": 0.0, "b": 20.0}, None),
}


@pytest.mark.parametrize("name", CASES)
def test_an_edge_is_told_from_a_minimum_near_it(name):
    model, data, center, site = CASES[name]
    target = target_of(model, data, {k: np.asarray(v) for k, v in center.items()})
    found = curvature_at_center(target, jax.random.key(0))
    assert found.edge == (() if site is None else (site,))


def test_an_edge_is_said_wherever_a_center_is_used():
    key = jax.random.key(0)
    with pytest.warns(nllc.LLCWarning, match="largest at the edge of `p`.*empty category"):
        center = nllc.find_center(key, categories, (EMPTY,), num_starts=2)
    assert not center.converged
    assert center.edge == ("p",)
    assert center.params["p"][2] < 1e-3
    mode = {"p": np.array([0.38, 0.59, 0.03])}
    with pytest.warns(nllc.LLCWarning, match="largest at the edge of `p`"):
        idata = nllc.estimate_llc(
            key,
            categories,
            (EMPTY,),
            center=mode,
            kernel=Metropolis(0.5),
            num_warmup=100,
            num_samples=100,
            progress_bar=False,
        )
    table = nllc.diagnose(idata)
    assert "center_edge" in table.index
    assert "center_gradient" not in table.index
    assert not table["remedy"].str.contains("find_center at|Use find_center").any()


def test_an_ordinary_center_has_no_edge():
    center = nllc.find_center(jax.random.key(0), categories, (ALL,), num_starts=2)
    assert center.edge == ()
    assert center.converged


def mixture(y):
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
    means = numpyro.sample("means", dist.Normal(0.0, 5.0).expand([3]).to_event(1))
    component = dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(means))
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", component, obs=y)


@pytest.mark.parametrize("seed", [5, 15])
def test_a_millionth_of_a_nat_leads_to_no_edge(seed):
    """Of components that the data do not need, a valley of equal loss reaches an empty one."""
    y = np.random.default_rng(seed).normal(size=200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        center = nllc.find_center(jax.random.key(0), mixture, (y,))
    assert center.converged
    assert np.all(np.abs(center.params["means"]) < 1.0)


def test_a_constant_loss_has_no_edge():
    """A hinge, whose margins are all met at a point that is far from zero."""

    def hinge(x):
        w = numpyro.sample("w", dist.Normal(0.0, 10.0))
        with numpyro.plate("N", len(x)):
            numpyro.factor("loss", -jnp.maximum(0.0, 1.0 - w * x))

    x = np.linspace(0.5, 1.0, 50)
    local = nllc.localize(hinge, center={"w": 5.0}, likelihood_factors=["loss"])
    assert curvature_at_center(local.target(local.read((x,)))[0], jax.random.key(0)).edge == ()


def test_the_mode_of_a_posterior_at_the_edge_is_not_sent_to_the_mode():
    with pytest.warns(nllc.LLCWarning, match="posterior density is largest at the edge") as seen:
        nllc.find_center(jax.random.key(0), categories, (EMPTY,), objective="map", num_starts=2)
    assert "objective='map'" not in str(seen[0].message)


ANGLES = vonmises.rvs(3.0, loc=np.pi, size=40, random_state=1)


def angle(y):
    mu = numpyro.sample("mu", dist.VonMises(0.0, 1.0))
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", dist.VonMises(mu, 3.0), obs=y)


def test_an_angle_has_no_edge_once_it_is_unwrapped():
    with pytest.raises(ValueError, match=r"`center\['mu'\]`.*edge.*CircularReparam"):
        nllc.localize(angle, center={"mu": np.pi}).read((ANGLES,))
    unwrapped = numpyro.handlers.reparam(angle, config={"mu": CircularReparam()})
    mode = np.angle(np.exp(1j * ANGLES).mean())
    for center in (mode, mode + 2 * np.pi, np.pi):
        local = nllc.localize(
            unwrapped, center={"mu_unwrapped": center}, prior_factors=["mu_factor"]
        )
        reading = local.read((ANGLES,))
        wanted = -vonmises.logpdf(ANGLES, 3.0, loc=center)
        np.testing.assert_allclose(reading.center_losses["y"], wanted, rtol=1e-4, atol=1e-4)
        assert curvature_at_center(local.target(reading)[0], jax.random.key(0)).edge == ()
