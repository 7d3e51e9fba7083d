"""The stochastic-gradient kernels as NumPyro kernels, under ``numpyro.infer.MCMC``."""

import json
import os
import pickle
import subprocess
import sys

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import regression
from numpyro.infer import MCMC, NUTS

import numpyro_llc as nllc

CLASSES = (nllc.SGLD, nllc.PSGLD, nllc.SGNHT)
LOCAL = nllc.localize(
    regression.model, center={"w": regression.OLS}, inverse_temperature=1 / np.log(500)
)


def sampled(kernel, *, key=0, **settings):
    defaults = {"num_warmup": 500, "num_samples": 2000, "num_chains": 4, "progress_bar": False}
    mcmc = MCMC(kernel, **{**defaults, "chain_method": "vectorized", **settings})
    mcmc.run(jax.random.key(key), regression.X, regression.Y)
    return mcmc


def assert_exact(mcmc, share=0.0):
    """The mean of λ̂ is exact, and known to a few hundredths."""
    row = nllc.summary(nllc.from_numpyro(mcmc)).loc["llc"]
    exact = regression.exact(regression.OLS, 1.0)
    assert abs(row["mean"] - exact) < 4 * row["mcse_mean"] + share * exact
    assert row["mcse_mean"] < 0.05 * exact


@pytest.fixture(scope="module")
def stepped():
    """A kernel, its state after three steps of which two are warm-up, and a compiled step."""
    kernel, args = nllc.SGLD(LOCAL, batch_size=50), (regression.X, regression.Y)
    start = jax.jit(lambda key: kernel.init(key, 2, None, args, {}))
    state = start(jax.random.key(3))
    step = jax.jit(lambda state: kernel.sample(state, args, {}))
    states = [state]
    for _ in range(3):
        states.append(step(states[-1]))
    return kernel, states, step


def test_a_kernel_counts_its_steps_and_adapts_in_the_warm_up_alone(stepped):
    _, states, _ = stepped
    assert [int(state.i) for state in states] == [0, 1, 2, 3]
    assert [bool(state.inner.warming) for state in states[1:]] == [True, True, False]
    assert all(state.z["w"].shape == (5,) for state in states)
    moves = [np.abs(b.z["w"] - a.z["w"]).max() for a, b in zip(states, states[1:], strict=False)]
    assert min(moves) > 0


def test_a_kernel_makes_the_steps_of_its_sampler(stepped):
    """Alone under ``MCMC`` as in ``estimate_llc``: the sampler on the localized density."""
    kernel, states, _ = stepped
    target = kernel._read((regression.X, regression.Y), {})
    tempered = regression.X.T @ regression.X / np.log(500)
    z = np.array([0.1, -0.1, 0.2, 0.3, 1.0])
    potential = 0.5 * z @ (tempered + np.eye(5)) @ z
    found = jax.jit(target.potential)({"w": jnp.asarray(regression.OLS + z)})
    assert float(found) == pytest.approx(potential, rel=1e-4)
    state = states[0].inner._replace(warming=jnp.array(True))
    np.testing.assert_array_equal(states[0].z["w"], kernel.sampler.position(state)["w"][0])
    after = jax.jit(kernel.sampler.step)(state, target)
    np.testing.assert_allclose(states[1].z["w"], kernel.sampler.position(after)["w"][0], rtol=1e-5)


def test_a_kernel_and_a_state_go_on_from_a_pickle(stepped):
    kernel, states, step = stepped
    kernel, state = pickle.loads(pickle.dumps((kernel, states[1]._replace(rng_key=None))))
    again = step(state._replace(rng_key=states[1].rng_key))
    np.testing.assert_array_equal(again.z["w"], states[2].z["w"])
    assert kernel.sampler == stepped[0].sampler


def test_of_a_plain_model_the_potential_is_that_of_its_posterior():
    kernel = nllc.SGNHT(regression.model, batch_size=100)
    target = kernel._read((regression.X, regression.Y), {})

    def potential(w):
        return 0.5 * np.sum((regression.Y - regression.X @ w) ** 2) + 0.5 * w @ w

    one, two = regression.OLS, regression.OLS + np.array([0.1, 0.0, -0.1, 0.2, 1.0])
    compiled = jax.jit(target.potential)
    found = [float(compiled({"w": jnp.asarray(w)})) for w in (one, two)]
    assert found[1] - found[0] == pytest.approx(potential(two) - potential(one), rel=1e-3)


@pytest.fixture(scope="module")
def chains():
    """SGNHT under ``MCMC``, four chains at once."""
    mcmc = sampled(nllc.SGNHT(LOCAL, batch_size=50), num_samples=8000, thinning=4)
    assert mcmc.get_samples(group_by_chain=True)["w"].shape == (4, 2000, 5)
    return mcmc


def test_a_kernel_under_mcmc_samples_the_localized_density(chains):
    assert_exact(chains)


def test_arviz_reads_a_run(chains):
    read = az.from_numpyro(chains, log_likelihood=False)["posterior"]["w"]
    np.testing.assert_array_equal(read, chains.get_samples(group_by_chain=True)["w"])


def test_runs_can_be_pickled(chains):
    again = pickle.loads(pickle.dumps(chains))
    np.testing.assert_array_equal(again.get_samples()["w"], chains.get_samples()["w"])


@pytest.mark.slow
@pytest.mark.parametrize("kernel", CLASSES)
@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_every_kernel_under_mcmc_samples_the_localized_density(kernel):
    mcmc = sampled(kernel(LOCAL, batch_size=50), num_samples=20_000, thinning=10)
    assert mcmc.get_samples(group_by_chain=True)["w"].shape == (4, 2000, 5)
    assert_exact(mcmc, 0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"chain_method": "sequential", "num_chains": 2},
        {"chain_method": jax.vmap, "num_chains": 2},
        {"num_chains": 1},
        {"progress_bar": True, "num_chains": 1},
        {"jit_model_args": True},
    ],
    ids=["sequential", "vmap", "one chain", "progress bar", "jit_model_args"],
)
def test_every_way_to_run_chains_gives_the_same_density(settings):
    chains = settings.get("num_chains", 4)
    draws = max(1000, 2000 // chains)
    mcmc = sampled(nllc.SGLD(LOCAL, batch_size=50), num_samples=draws, **settings)
    w = np.asarray(mcmc.get_samples()["w"])
    assert w.shape == (draws * chains, 5)
    # Of the coordinate that mixes fastest: the others need more steps than these.
    tempered = regression.X.T @ regression.X / np.log(500)
    spread = np.sqrt(np.linalg.inv(tempered + np.eye(5))[0, 0])
    fast = (w[:, 0] - regression.OLS[0]).astype(float) / spread
    blocks = fast.reshape(-1, 50)
    for values, wanted in ((blocks, 0.0), (blocks**2, 1.0)):
        means = values.mean(axis=1)
        error = means.std(ddof=1) / np.sqrt(len(means))
        assert error < 0.1
        assert abs(means.mean() - wanted) < 4 * error


@pytest.mark.slow
def test_thinning_keeps_every_kth_step():
    every = sampled(nllc.SGLD(LOCAL, batch_size=50), num_samples=40).get_samples()["w"]
    some = sampled(nllc.SGLD(LOCAL, batch_size=50), num_samples=40, thinning=4).get_samples()["w"]
    np.testing.assert_allclose(some.reshape(4, 10, 5), every.reshape(4, 40, 5)[:, 3::4], rtol=1e-6)


@pytest.mark.slow
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped():
    whole = sampled(nllc.SGNHT(LOCAL, batch_size=50), num_samples=60, num_chains=1)
    half = sampled(nllc.SGNHT(LOCAL, batch_size=50), num_samples=30, num_chains=1)
    first = half.get_samples()["w"]
    half.post_warmup_state = half.last_state
    half.run(half.last_state.rng_key, regression.X, regression.Y)
    joined = np.concatenate([first, half.get_samples()["w"]])
    np.testing.assert_allclose(joined, whole.get_samples()["w"], rtol=1e-5)


@pytest.mark.slow
def test_a_pickled_run_runs_again_to_the_same_draws():
    mcmc = sampled(nllc.PSGLD(LOCAL, batch_size=50), num_samples=20)
    again = pickle.loads(pickle.dumps(mcmc))
    again.run(jax.random.key(0), regression.X, regression.Y)
    np.testing.assert_allclose(again.get_samples()["w"], mcmc.get_samples()["w"], rtol=1e-6)


@pytest.mark.slow
def test_a_model_as_it_is_gives_its_posterior():
    settings = {"num_warmup": 3000, "num_samples": 100_000, "thinning": 50}
    got = np.asarray(
        sampled(nllc.SGNHT(regression.model, batch_size=100), **settings).get_samples()["w"]
    )
    wanted = np.asarray(sampled(NUTS(regression.model)).get_samples()["w"])
    sd = wanted.std(axis=0)
    np.testing.assert_allclose((got.mean(axis=0) - wanted.mean(axis=0)) / sd, 0.0, atol=0.2)
    np.testing.assert_allclose(got.std(axis=0) / sd, 1.0, rtol=0.15)


def test_a_kernel_without_a_model_says_what_it_needs():
    with pytest.raises(ValueError, match="has no model: give it what numpyro_llc.localize"):
        sampled(nllc.SGLD())


PARALLEL = """
import json, sys
import numpyro
numpyro.set_host_device_count(2)
sys.path.insert(0, {tests!r})
import test_mcmc
draws = []
for method in ("parallel", "sequential"):
    kernel = test_mcmc.nllc.SGLD(test_mcmc.LOCAL, batch_size=50)
    mcmc = test_mcmc.sampled(kernel, chain_method=method, num_chains=2, num_samples=200)
    draws.append(mcmc.get_samples(group_by_chain=True)["w"].tolist())
print(json.dumps([len(test_mcmc.jax.devices()), *draws]))
"""


@pytest.mark.slow
def test_chains_run_in_parallel_on_devices_to_the_same_draws():
    code = PARALLEL.format(tests=os.path.dirname(__file__))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    devices, parallel, sequential = json.loads(done.stdout.splitlines()[-1])
    assert devices == 2
    assert np.shape(parallel) == (2, 200, 5)
    # Rounding differs between programs, and grows a little along a chain.
    np.testing.assert_allclose(parallel, sequential, rtol=1e-2, atol=1e-2)
    assert np.abs(np.subtract(*parallel)).max() > 0.1


def pair(x, y):
    shift = numpyro.sample("shift", dist.Normal(0.0, 1.0))
    net = numpyro.param("net", {"a": jnp.zeros(5), "b": jnp.zeros(())})
    with numpyro.plate("N", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ net["a"] + net["b"] + shift, 1.0), obs=y)


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_a_pytree_sampled_by_a_kernel_of_ours_is_read_leaf_by_leaf():
    """Beside a site that is held fixed."""
    center = {"shift": 0.0, "net": {"a": regression.OLS, "b": 0.0}}
    kernel = nllc.SGLD(nllc.localize(pair, center=center, sites="net"), step_size=1e-3)
    mcmc = sampled(kernel, num_warmup=50, num_samples=100)
    idata = nllc.from_numpyro(mcmc)
    drawn = mcmc.get_samples(group_by_chain=True)["net"]["a"]
    np.testing.assert_allclose(idata["posterior"]["net.a"], drawn, rtol=1e-6)
    moved = np.linalg.norm(np.asarray(drawn) - regression.OLS, axis=-1)
    assert (moved > 0).all()
    assert (idata["sample_stats"]["distance"].to_numpy() >= moved * (1 - 1e-5)).all()
    shift = idata["posterior"]["shift"].to_numpy()
    assert np.all(shift == 0.0)
