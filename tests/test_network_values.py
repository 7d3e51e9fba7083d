"""λ̂ of networks against what is known of them, in every library that NumPyro takes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flax import linen, nnx
from jax.flatten_util import ravel_pytree
from numpyro.contrib import module as contrib

import numpyro_llc as nllc
from numpyro_llc import zoo
from numpyro_llc.local._target import make_target
from numpyro_llc.models import read_model

RNG = np.random.default_rng(0)
N = 5_000
X = 1.5 * np.random.default_rng(1).normal(size=(N, 3))


def tanh_network(params, x):
    return jnp.tanh(x @ params["w"] + params["b"]) @ params["v"]


def deep_linear(params, x):
    return x @ params["first"] @ params["second"]


REGULAR = {
    "w": 1.2 * RNG.normal(size=(3, 3)) + np.eye(3),
    "b": RNG.normal(size=3),
    "v": RNG.normal(size=3) + np.sign(RNG.normal(size=3)),
}
# Of full rank 3, through 5 hidden units: 15 + 10 parameters, of which the map knows 3 x 2.
BOTTLENECK = {"first": RNG.normal(size=(3, 5)), "second": RNG.normal(size=(5, 2))}


def hessian(apply, params):
    flat, unravel = ravel_pytree(jax.tree.map(jnp.asarray, params))
    jacobian = np.asarray(jax.jacfwd(lambda z: apply(unravel(z), X).reshape(-1))(flat), float)
    return jacobian.T @ jacobian


# Along the fibre of equal maps chains mix slowly, which λ̂ does not feel.
@pytest.mark.filterwarnings("ignore:R-hat of the distance:numpyro_llc.LLCWarning")
@pytest.mark.parametrize(
    ("apply", "params", "rank"),
    [
        pytest.param(tanh_network, REGULAR, 15, id="tanh", marks=pytest.mark.slow),
        pytest.param(deep_linear, BOTTLENECK, 6, id="linear", marks=pytest.mark.slow),
    ],
)
def test_a_regular_network_has_half_the_rank_of_its_jacobian(apply, params, rank, llc_of):
    """At the truth, without noise in the data, so that z* is the minimum at every n."""
    values = np.linalg.eigvalsh(hessian(apply, params))
    assert np.sum(values > 1e-4 * values.max()) == rank
    model = nllc.network_model(apply, params)
    idata = nllc.estimate_llc(
        jax.random.key(0),
        model,
        (X, np.asarray(apply(params, X))),
        center={"params": params},
        kernel="sgnht",
        batch_size=250,
        until=0.01,
        inverse_temperature=1.0,  # at 1/log n the next order in 1/(n β) is 0.27
        localization=1.0,
        progress_bar=False,
    )
    llc, error = llc_of(idata)
    shares = values / (values + 1.0)
    of_gamma = 0.5 * (rank - shares.sum())  # what γ = 1 takes of a quadratic loss, exactly
    assert of_gamma < 0.3
    assert abs(llc + of_gamma - 0.5 * rank) < 4 * error + 0.01 * llc
    for wrong in (rank - 1, rank + 1):
        assert abs(llc + of_gamma - 0.5 * wrong) > 4 * error + 0.01 * llc


PROBLEM = zoo.load("tanh_unit", 1000)
_, _, ZOO_X, ZOO_Y, WEIGHTS = PROBLEM.model_args


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = jnp.tanh(linen.Dense(1, use_bias=False)(x))
        return linen.Dense(1, use_bias=False)(x)


class Nnx(nnx.Module):
    def __init__(self):
        self.first = nnx.Linear(1, 1, use_bias=False, rngs=nnx.Rngs(0))
        self.second = nnx.Linear(1, 1, use_bias=False, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.second(jnp.tanh(self.first(x)))


class Equinox(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear

    def __init__(self):
        key = jax.random.key(0)
        self.first = eqx.nn.Linear(1, 1, use_bias=False, key=key)
        self.second = eqx.nn.Linear(1, 1, use_bias=False, key=key)

    def __call__(self, x):
        return self.second(jnp.tanh(self.first(x)))


ZEROS = {name: {"kernel": np.zeros((1, 1))} for name in ("Dense_0", "Dense_1")}
NNX = Nnx()
nnx.update(NNX, jax.tree.map(jnp.zeros_like, nnx.state(NNX)))
NETS = {
    "flax": (lambda: contrib.flax_module("net", Linen(), input_shape=(1, 1)), {"params": ZEROS}),
    "nnx": (lambda: contrib.nnx_module("net", NNX), NNX),
    "equinox": (
        lambda: jax.vmap(contrib.eqx_module("net", Equinox())),
        jax.tree.map(lambda leaf: 0 * leaf if eqx.is_array(leaf) else leaf, Equinox()),
    ),
}


def model_of(name):
    make, _ = NETS[name]

    def model(x, y, weights):
        net = make()
        with numpyro.plate("data", len(x)), numpyro.handlers.scale(scale=weights):
            numpyro.sample("y", dist.Normal(net(x), 1.0).to_event(1), obs=y)

    return model


DATA = (ZOO_X, ZOO_Y, np.asarray(WEIGHTS))


def estimate(name, **settings):
    return nllc.estimate_llc(
        jax.random.key(0),
        model_of(name),
        DATA,
        center={"net": NETS[name][1]},
        num_data=PROBLEM.num_data,
        progress_bar=False,
        **settings,
    )


@pytest.mark.parametrize("name", NETS)
def test_a_zoo_network_has_its_loss_in_flax_nnx_and_equinox(name):
    reading = read_model(model_of(name), DATA, None, center={"net": NETS[name][1]})
    settings = {"inverse_temperature": 1.0, "localization": dict.fromkeys(reading.center, 1.0)}
    target = make_target(reading.program, reading.arrays, reading.center, **settings)
    flat, unravel = ravel_pytree(reading.center)
    assert flat.size == 2
    for b, a in ((0.5, 1.0), (-1.5, 0.3)):  # of the first layer, of the second
        wanted = 1000 * 0.5 * a**2 * np.mean(np.tanh(b * ZOO_X) ** 2)
        found = target.excess_loss(unravel(jnp.array([b, a])))
        assert float(found) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.slow
def test_a_zoo_network_has_the_exact_value(llc_of):
    llc, error = llc_of(estimate("flax", num_samples=2000))
    assert abs(llc - PROBLEM.expectation(1.0).mean) < 4 * error
    assert abs(llc - PROBLEM.expectation(10.0).mean) > 4 * error


@pytest.mark.slow
def test_draws_of_a_zoo_network_are_the_same_in_flax_nnx_and_equinox():
    lengths = {"kernel": nllc.SGLD(step_size=0.01), "num_warmup": 50, "num_samples": 200}
    with pytest.warns(nllc.LLCWarning):
        draws = {name: estimate(name, **lengths)["posterior"]["llc"].to_numpy() for name in NETS}
    np.testing.assert_allclose(draws["nnx"], draws["flax"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(draws["equinox"], draws["flax"], rtol=1e-4, atol=1e-5)
