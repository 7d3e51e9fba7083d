"""The stochastic-gradient kernels as NumPyro kernels, under ``numpyro.infer.MCMC``."""

import pickle
import subprocess
import sys

import arviz as az
import jax
import numpy as np
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


def is_exact(mcmc):
    row = nllc.summary(nllc.from_numpyro(mcmc)).loc["llc"]
    exact = regression.exact(regression.OLS, 1.0)
    return abs(row["mean"] - exact) < 4 * row["mcse_mean"] + 0.01 * exact


@pytest.mark.parametrize("kernel", CLASSES)
@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_a_kernel_under_mcmc_samples_the_localized_density(kernel):
    mcmc = sampled(kernel(LOCAL, batch_size=50), num_samples=20_000, thinning=10)
    assert mcmc.get_samples(group_by_chain=True)["w"].shape == (4, 2000, 5)
    assert is_exact(mcmc)


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
    mcmc = sampled(nllc.SGLD(LOCAL, batch_size=50), num_samples=1000, **settings)
    w = np.asarray(mcmc.get_samples()["w"])
    assert w.shape == (1000 * settings.get("num_chains", 4), 5)
    # Of the coordinate that mixes fastest: the others need more steps than these.
    tempered = regression.X.T @ regression.X / np.log(500)
    spread = np.sqrt(np.linalg.inv(tempered + np.eye(5))[0, 0])
    assert abs(w[:, 0].mean() - regression.OLS[0]) < 0.3 * spread
    assert abs(w[:, 0].std() / spread - 1) < 0.15


def test_thinning_keeps_every_kth_step():
    every = sampled(nllc.SGLD(LOCAL, batch_size=50), num_samples=40).get_samples()["w"]
    some = sampled(nllc.SGLD(LOCAL, batch_size=50), num_samples=40, thinning=4).get_samples()["w"]
    np.testing.assert_allclose(some.reshape(4, 10, 5), every.reshape(4, 40, 5)[:, 3::4], rtol=1e-6)


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped():
    whole = sampled(nllc.SGNHT(LOCAL, batch_size=50), num_samples=60, num_chains=1)
    half = sampled(nllc.SGNHT(LOCAL, batch_size=50), num_samples=30, num_chains=1)
    first = half.get_samples()["w"]
    half.post_warmup_state = half.last_state
    half.run(half.last_state.rng_key, regression.X, regression.Y)
    joined = np.concatenate([first, half.get_samples()["w"]])
    np.testing.assert_allclose(joined, whole.get_samples()["w"], rtol=1e-5)


def test_kernels_and_runs_can_be_pickled():
    mcmc = sampled(nllc.PSGLD(LOCAL, batch_size=50), num_samples=20)
    again = pickle.loads(pickle.dumps(mcmc))
    np.testing.assert_array_equal(again.get_samples()["w"], mcmc.get_samples()["w"])
    again.run(jax.random.key(0), regression.X, regression.Y)
    np.testing.assert_allclose(again.get_samples()["w"], mcmc.get_samples()["w"], rtol=1e-6)


def test_arviz_reads_a_run():
    mcmc = sampled(nllc.SGLD(LOCAL, batch_size=50), num_samples=100)
    assert az.from_numpyro(mcmc, log_likelihood=False)["posterior"]["w"].shape == (4, 100, 5)


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
import numpyro
numpyro.set_host_device_count(2)
import sys
sys.path.insert(0, {tests!r})
import test_mcmc
mcmc = test_mcmc.sampled(
    test_mcmc.nllc.SGLD(test_mcmc.LOCAL, batch_size=50), chain_method="parallel", num_chains=2
)
print(mcmc.get_samples(group_by_chain=True)["w"].shape)
"""


def test_chains_run_in_parallel_on_devices():
    code = PARALLEL.format(tests=str(__file__).rsplit("/", 1)[0])
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.stdout.split("\n")[-2:] == ["(2, 2000, 5)", ""], result.stderr[-2000:]
