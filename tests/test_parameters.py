"""What is a parameter: how many there may be for n, of which kind, and if the loss has them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from metropolis import Metropolis
from numpyro import handlers
from scipy.special import expit

import numpyro_llc as nllc
from numpyro_llc.models import read_model

KEY = jax.random.key(0)
TRIALS, COUNTS = 50, np.array([10.0, 25.0, 35.0])
SHARES = COUNTS / TRIALS
WALK = Metropolis(0.25)


def binomials(counts):
    with numpyro.plate("groups", 3):
        share = numpyro.sample("share", dist.Beta(1.0, 1.0))
        numpyro.sample("k", dist.Binomial(TRIALS, share), obs=counts)


def poissons(counts):
    rate = numpyro.sample("share", dist.LogNormal(0.0, 1.0).expand([3]))
    with numpyro.plate("groups", 3):
        numpyro.sample("k", dist.Poisson(rate), obs=counts)


def exact_llc(num_data, gamma=1.0):
    """E[β (nL(z) - nL(z*))] of the binomials, one quadrature for each logit."""
    beta, total = 1 / np.log(num_data), 0.0
    for share in SHARES:
        z = np.linspace(-8, 8, 20001) + np.log(share / (1 - share))
        p, q = expit(z), expit(-z)
        excess = -TRIALS * (share * np.log(p / share) + (1 - share) * np.log(q / (1 - share)))
        weight = np.exp(-beta * excess - 0.5 * gamma * (z - z.mean()) ** 2)
        total += beta * np.sum(weight * excess) / weight.sum()
    return total


def test_a_latent_for_each_count_is_a_parameter_where_n_is_given(llc_of):
    idata = nllc.estimate_llc(
        KEY,
        binomials,
        (COUNTS,),
        center={"share": SHARES},
        num_data=150,
        kernel=WALK,
        num_warmup=200,
        num_samples=8000,
        thinning=4,
        progress_bar=False,
    )
    value, error = llc_of(idata)
    assert idata.attrs["inverse_temperature"] == pytest.approx(1 / np.log(150))
    assert abs(value - exact_llc(150)) < 4 * error
    assert abs(value - exact_llc(3)) > 4 * error


@pytest.mark.parametrize("model", [binomials])
def test_a_latent_for_each_count_is_refused_where_n_is_not_given(model):
    with pytest.raises(ValueError, match="'share' has 3 values.* grows with n.*`num_data`"):
        nllc.estimate_llc(KEY, model, (COUNTS,), center={"share": SHARES})
    # With β given NumPyro's own kernels do not need n, but the model still grows with the data.
    local = nllc.localize(model, center={"share": SHARES}, inverse_temperature=0.2)
    with pytest.raises(ValueError, match="'share' has 3 values.* grows with n"):
        handlers.seed(local, 0)(COUNTS)


@pytest.mark.parametrize("num_data", [2, 3])
def test_n_must_exceed_the_latents_of_a_plate(num_data):
    local = nllc.localize(binomials, center={"share": SHARES}, num_data=num_data)
    with pytest.raises(
        ValueError, match="'share' has 3 values.* grows with n.*`num_data`, above 3"
    ):
        nllc.estimate_llc(KEY, local, (COUNTS,))


def test_find_center_tells_before_its_search_what_n_will_be_asked_for(monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("numpyro_llc.local._center.minimize", stop)
    with pytest.warns(nllc.LLCWarning, match="without n, but `localize` will not.*`num_data`"):
        with pytest.raises(KeyboardInterrupt):
            nllc.find_center(KEY, binomials, (COUNTS,))
    with pytest.raises(KeyboardInterrupt):
        nllc.find_center(KEY, binomials, (COUNTS,), num_data=150)
    with pytest.warns(nllc.LLCWarning, match="a site 'llc', a name that results take"):
        with pytest.raises(KeyboardInterrupt):
            nllc.find_center(KEY, taken, (COUNTS,))


def taken(y):
    numpyro.sample("y", dist.Normal(numpyro.sample("llc", dist.Normal(0.0, 1.0)), 1.0), obs=y)


# --- real parameters and losses ------------------------------------------------------------------


def of_param(initial):
    def model(y):
        w = numpyro.param("w", initial)
        mean = sum(jnp.sum(jnp.real(leaf)) for leaf in jax.tree.leaves(w))
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    return model


UNREAL = {
    "complex": jnp.array(1.0 + 2.0j),
    "complex leaf": {"a": jnp.zeros(2), "b": jnp.array([1j])},
    "integer": jnp.array(3),
    "integer leaf": {"a": jnp.zeros(2), "count": jnp.array(3)},
    "truth values": {"a": jnp.zeros(2), "on": jnp.array([True])},
}


@pytest.mark.parametrize("name", UNREAL)
def test_params_that_are_no_floats_are_refused_in_every_way_in(name):
    initial = UNREAL[name]
    model = of_param(initial)
    zeros = jax.tree.map(lambda leaf: np.zeros(np.shape(leaf)), initial)
    for center in (zeros, initial):
        with pytest.raises(TypeError, match="must hold (floats|real numbers)"):
            nllc.estimate_llc(KEY, model, (COUNTS,), center={"w": center})
    with pytest.raises(TypeError, match="The param site .w.*must hold floats, which are sampled"):
        nllc.find_center(KEY, model, (COUNTS,))


def of_sample(y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(w[0], 1.0 + w[1] ** 2), obs=y)


@pytest.mark.parametrize("value", [[1j, 0.0], np.zeros(2, complex), [True, False], np.ones(2) > 0])
def test_a_center_that_is_not_real_is_refused(value):
    with pytest.raises(
        TypeError, match=r"`center\['w'\]` must hold real numbers; got (complex|bool)"
    ):
        nllc.localize(of_sample, center={"w": value}).read((COUNTS,))
    reading = nllc.localize(of_sample, center={"w": [0, 1]}).read((COUNTS,))
    with pytest.raises(TypeError, match="must hold real numbers"):
        reading.at({"w": value})


def complex_data(y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(w, 1.0), obs=y + 1j)


def complex_factor(y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    numpyro.factor("nll", -jnp.abs(w) * y * jnp.exp(1j))


@pytest.mark.parametrize("model", [complex_data, complex_factor])
def test_a_complex_loss_is_refused(model):
    factors = {"likelihood_factors": ["nll"]} if model is complex_factor else {}
    with pytest.raises((TypeError, ValueError), match="complex"):
        nllc.estimate_llc(KEY, nllc.localize(model, center={"w": 1.0}, **factors), (COUNTS,))


# --- parameters that the loss does not have ------------------------------------------------------


def centred(group, y):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    spread = numpyro.sample("spread", dist.HalfNormal(1.0))
    effects = numpyro.sample("effects", dist.Normal(mean, spread).expand([3]).to_event(1))
    numpyro.sample("y", dist.Normal(effects[group], 1.0), obs=y)


def replaced(group, y):
    def model():
        first = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        second = numpyro.sample("spread", dist.Normal(0.0, 1.0))
        effects = numpyro.sample("effects", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        numpyro.sample("y", dist.Normal(effects[group] + first * second, 1.0), obs=y)

    handlers.do(model, data={"mean": 1.0, "spread": 0.0})()


def non_centred(group, y):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    spread = numpyro.sample("spread", dist.HalfNormal(1.0))
    effects = numpyro.sample("effects", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    numpyro.sample("y", dist.Normal(mean + spread * effects[group], 1.0), obs=y)


GROUP = np.arange(12) % 3
Y = GROUP + np.sin(np.arange(12.0))
POINT = {"mean": 0.0, "spread": 1.0, "effects": np.array([Y[k::3].mean() for k in range(3)])}


@pytest.mark.parametrize(
    ("model", "expected"),
    [(centred, ("mean", "spread")), (replaced, ("mean", "spread")), (non_centred, ())],
)
def test_parameters_that_never_reach_the_loss_are_named(model, expected):
    assert read_model(model, (GROUP, Y), None, center=POINT).without_effect == expected


def test_leaves_of_a_network_that_never_reach_the_loss_are_named():
    def apply(params, x):
        return x * params["used"]

    params = {"unused": {"b": jnp.zeros(2)}, "used": jnp.ones(())}
    model = nllc.network_model(apply, params)
    reading = read_model(model, (Y, Y), None, center={"params": params})
    assert reading.without_effect == ("params.unused.b",)


def test_the_result_and_the_center_tell_of_parameters_that_never_reach_the_loss():
    local = nllc.localize(centred, center=POINT, localization=0.1, sites=["effects", "spread"])
    settings = {"kernel": WALK, "num_warmup": 100, "num_samples": 1000, "progress_bar": False}
    with pytest.warns(nllc.LLCWarning, match="does not depend on 'spread' .1 of the"):
        idata = nllc.estimate_llc(KEY, local, (GROUP, Y), **settings)
    row = nllc.diagnose(idata).loc["without_effect"]
    assert (row["value"], row["threshold"]) == (1.0, 0.0)
    assert "`sites` of localize" in row["remedy"]
    with pytest.warns(nllc.LLCWarning, match="does not depend on 'mean', 'spread'"):
        center = nllc.find_center(KEY, centred, (GROUP, Y), num_starts=1)
    assert center.without_effect == ("mean", "spread")


# --- no data -------------------------------------------------------------------------------------


def plated(y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", dist.Normal(w, 1.0), obs=y)


def plain(y):
    numpyro.sample("y", dist.Normal(numpyro.sample("w", dist.Normal(0.0, 1.0)), 1.0), obs=y)


@pytest.mark.parametrize("model", [plated, plain])
def test_data_without_rows_are_refused_as_such(model):
    local = nllc.localize(model, center={"w": 1.0})
    with pytest.raises(ValueError, match="hold.* no (data|rows)"):
        nllc.estimate_llc(KEY, local, (np.zeros(0),), kernel=WALK)
    with pytest.raises(ValueError, match=r"`evaluate_on\['none'\]`.*hold.* no (data|rows)"):
        nllc.estimate_llc(KEY, local, (Y,), kernel=WALK, evaluate_on={"none": (Y[Y > 99],)})
