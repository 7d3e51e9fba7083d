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
    ("apply", "params"),
    [(tanh_network, REGULAR), (deep_linear, BOTTLENECK)],
    ids=["tanh", "linear"],
)
def test_a_regular_network_has_half_the_rank_of_its_jacobian(apply, params, llc_of):
    """At the truth, without noise in the data, so that z* is the minimum at every n."""
    values = np.linalg.eigvalsh(hessian(apply, params))
    rank = int(np.sum(values > 1e-4 * values.max()))
    assert rank == {tanh_network: 15, deep_linear: 6}[apply]
    model = nllc.network_model(apply, params)
    idata = nllc.estimate_llc(
        jax.random.key(0),
        model,
        (X, np.asarray(apply(params, X))),
        center={"params": params},
        kernel="sgnht",
        batch_size=250,
        until=0.02,
        localization=1.0,
        progress_bar=False,
    )
    llc, error = llc_of(idata)
    shares = values / (values + np.log(N))
    of_gamma = 0.5 * (rank - shares.sum())  # what γ = 1 takes of a quadratic loss, exactly
    assert of_gamma < 0.3
    assert abs(llc + of_gamma - 0.5 * rank) < 4 * error + 0.01 * llc
    assert abs(llc - 0.5 * sum(map(np.size, jax.tree.leaves(params)))) > 4 * error or rank == 15


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


def estimate(name, **settings):
    make, trained = NETS[name]

    def model(x, y, weights):
        net = make()
        with numpyro.plate("data", len(x)), numpyro.handlers.scale(scale=weights):
            numpyro.sample("y", dist.Normal(net(x), 1.0).to_event(1), obs=y)

    return nllc.estimate_llc(
        jax.random.key(0),
        model,
        (ZOO_X, ZOO_Y, np.asarray(WEIGHTS)),
        center={"net": trained},
        num_data=PROBLEM.num_data,
        progress_bar=False,
        **settings,
    )


def test_a_zoo_network_is_the_same_in_flax_nnx_and_equinox(llc_of):
    lengths = {"kernel": "sgld", "step_size": 0.01, "num_warmup": 50, "num_samples": 200}
    with pytest.warns(nllc.LLCWarning):
        draws = {name: estimate(name, **lengths)["posterior"]["llc"].to_numpy() for name in NETS}
    np.testing.assert_allclose(draws["nnx"], draws["flax"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(draws["equinox"], draws["flax"], rtol=1e-4, atol=1e-5)
    llc, error = llc_of(estimate("flax", num_samples=2000))
    assert abs(llc - PROBLEM.expectation(1.0).mean) < 4 * error
    assert abs(llc - 1.0) > 4 * error  # d/2
