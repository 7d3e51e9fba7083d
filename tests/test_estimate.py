"""``estimate_llc``: arguments, kernels, the loop, reproducibility and compilation."""

import json
import os
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import regression
from numpyro.infer import ESS, HMC, HMCECS, NUTS, BarkerMH
from numpyro.infer.mcmc import MCMCKernel

import numpyro_llc as nllc
from numpyro_llc import sampling

DATA = (regression.X, regression.Y)
SMALL = {"num_warmup": 100, "num_samples": 200, "progress_bar": False}


def run(seed=0, *, model=regression.model, data=DATA, center=None, **settings):
    center = {"w": regression.OLS} if center is None else center
    return nllc.estimate_llc(
        jax.random.key(seed), model, data, center=center, **{**SMALL, **settings}
    )


def llc(idata):
    return idata["posterior"]["llc"].to_numpy()


BAD = {
    "gamma": ({"localization": -1.0}, ValueError, "`localization` must be finite and at least 0"),
    "gamma of an unknown site": (
        {"localization": {"v": 1.0}},
        ValueError,
        r"name each parameter site \['w'\]",
    ),
    "beta zero": ({"inverse_temperature": 0}, ValueError, "`inverse_temperature` must be finite"),
    "beta NaN": ({"inverse_temperature": np.nan}, ValueError, "`inverse_temperature` must be"),
    "n": ({"num_data": 1}, ValueError, "`num_data` must be at least 2; got 1. It counts data"),
    "n text": ({"num_data": "10"}, TypeError, "`num_data` must be an integer; got '10'"),
    "no samples": ({"num_samples": 0}, ValueError, "`num_samples` must be at least 1; got 0"),
    "no chains": ({"num_chains": 0}, ValueError, "`num_chains` must be at least 1; got 0"),
    "negative warm-up": ({"num_warmup": -1}, ValueError, "`num_warmup` must be at least 0"),
    "thinning": ({"thinning": 201}, ValueError, "`thinning` must be at most `num_samples`"),
    "kernel name": ({"kernel": "nut"}, ValueError, "`kernel` 'nut' is unknown. Choose one of nuts"),
    "kernel class": ({"kernel": NUTS}, TypeError, r"`kernel` must be.*give an object: NUTS\(model"),
    "wrapping kernel": (
        {"kernel": HMCECS(NUTS(regression.model))},
        TypeError,
        "`kernel` HMCECS cannot be moved.*from_numpyro",
    ),
    "step of a kernel object": (
        {"kernel": NUTS(regression.model), "step_size": 0.1},
        ValueError,
        "`step_size` belongs to the kernel object",
    ),
    "negative step": ({"step_size": -0.1}, ValueError, "`step_size` must be finite and positive"),
    "batch": ({"batch_size": 10}, ValueError, "`batch_size` needs a stochastic-gradient kernel"),
    "chain method": ({"chain_method": "pmap"}, ValueError, "`chain_method` must be one of"),
    "sites": ({"store_sites": ["v"]}, ValueError, r"`store_sites` names \['v'\]; the model has"),
    "odd ensemble": (
        {"kernel": ESS(regression.model), "num_chains": 3},
        ValueError,
        "`num_chains` must be even for the ensemble kernel ESS; got 3",
    ),
    "sites 3": ({"store_sites": 3}, TypeError, "`store_sites` must be True, False or names"),
    "batch of 0": (
        {"kernel": "sgld", "batch_size": 0},
        ValueError,
        "`batch_size` must be at least 1; got 0",
    ),
    "batch above n": (
        {"kernel": "sgld", "batch_size": 501},
        ValueError,
        "`batch_size` must be at most the 500 rows of the data; got 501",
    ),
    "negative step of sgnht": (
        {"kernel": "sgnht", "step_size": -1.0},
        ValueError,
        "`step_size` must be finite and at least 0; got -1.0",
    ),
    "NaN step": (
        {"kernel": "psgld", "step_size": float("nan")},
        ValueError,
        "`step_size` must be finite and at least 0; got nan",
    ),
    "step beside an object": (
        {"kernel": nllc.SGLD(), "step_size": 0.1},
        ValueError,
        "`step_size` belongs to the kernel object here",
    ),
    "axes beside an object": (
        {"kernel": nllc.SGLD(batch_size=9), "in_axes": (0, 0)},
        ValueError,
        "`in_axes` belongs to the kernel object here",
    ),
    "axes without a batch": (
        {"kernel": "sgld", "in_axes": (0, 0)},
        ValueError,
        "`in_axes` says where a batch's rows are; give `batch_size` too",
    ),
    "truth value": ({"localization": True}, TypeError, "`localization` must be a number; got True"),
    "keyword": ({"gamma": 1.0}, TypeError, "unexpected keyword argument 'gamma'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_argument_is_refused_before_anything_is_sampled(name, monkeypatch):
    settings, kind, message = BAD[name]
    monkeypatch.setattr(sampling._run, "advance", None)  # sampling would fail otherwise
    with pytest.raises(kind, match=message):
        run(**settings)


@pytest.mark.parametrize("key", [0, None, np.zeros(2), jax.random.split(jax.random.key(0))])
def test_bad_key_is_refused(key):
    with pytest.raises(TypeError, match=r"`rng_key` must be one JAX random key.*jax.random.key\(0"):
        nllc.estimate_llc(key, regression.model, DATA, center={"w": regression.OLS})


@pytest.mark.parametrize("name", ["llc", "chain"])
def test_a_site_of_a_taken_name_is_refused(name):
    def model(x, y):
        w = numpyro.sample(name, dist.Normal(0.0, 1.0).expand([5]).to_event(1))
        numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)

    with pytest.raises(ValueError, match=f"The name '{name}' is taken in the result"):
        run(model=model, center={name: regression.OLS})


def test_a_loss_that_is_not_finite_at_the_center_is_refused():
    def model(y):
        rate = numpyro.sample("rate", dist.LogNormal(0.0, 1.0))
        numpyro.sample("y", dist.Uniform(0.0, rate), obs=y)

    with pytest.raises(nllc.NonFiniteLossError, match="loss at `center` is not finite: {'y': 2}"):
        run(model=model, data=(jnp.array([0.1, 0.2, 3.0, 4.0]),), center={"rate": 1.0})


def test_same_key_same_draws_other_key_other_draws():
    first, again, other = run(0), run(0), run(1)
    np.testing.assert_array_equal(llc(first), llc(again))
    np.testing.assert_array_equal(first["posterior"]["w"], again["posterior"]["w"])
    assert np.abs(llc(first) - llc(other)).min(axis=1).max() > 0
    old_style = nllc.estimate_llc(
        jax.random.PRNGKey(0), regression.model, DATA, center={"w": regression.OLS}, **SMALL
    )
    assert llc(old_style).shape == (4, 200)


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_chains_start_apart_and_around_the_center():
    idata = run(num_warmup=0, num_samples=1)
    starts = idata["posterior"]["w"].to_numpy()[:, 0]
    assert len(np.unique(starts[:, 0])) == 4


def test_nothing_compiles_twice_for_the_same_shapes():
    run(0)
    compiled = sampling.advance._cache_size(), sampling.start._cache_size()
    shifted = (regression.X + 0.1, regression.Y * 2)
    other = run(
        1,
        data=shifted,
        center={"w": np.linalg.lstsq(*shifted, rcond=None)[0]},
        localization=7.0,
        inverse_temperature=0.3,
        num_samples=np.int64(300),
        thinning=np.int64(3),
    )
    assert llc(other).shape == (4, 100)
    assert (sampling.advance._cache_size(), sampling.start._cache_size()) == compiled


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_thinning_keeps_every_kth_draw():
    every = llc(run(3, num_samples=90))
    np.testing.assert_array_equal(llc(run(3, num_samples=90, thinning=3)), every[:, 2::3])


def test_chunk_lengths_change_nothing(monkeypatch):
    reference = llc(run(5))
    monkeypatch.setattr(sampling._run, "_pace", lambda total, *, limit: iter([1] * total))
    np.testing.assert_array_equal(llc(run(5)), reference)


def test_sequential_chains_draw_from_the_same_density(llc_of):
    mean, error = llc_of(run(chain_method="sequential", num_samples=1000))
    assert abs(mean - regression.exact(regression.OLS, 1.0)) < 4 * error


@pytest.mark.parametrize(
    "kernel",
    [
        "hmc",
        NUTS(regression.model, dense_mass=True),
        HMC(regression.model, step_size=0.1, trajectory_length=2.0),
        BarkerMH(regression.model),
        ESS(regression.model),
    ],
    ids=lambda kernel: kernel if isinstance(kernel, str) else type(kernel).__name__,
)
@pytest.mark.filterwarnings("ignore:R-hat|The bulk|The first tenth:numpyro_llc.LLCWarning")
def test_other_kernels_sample_the_same_density(kernel, llc_of):
    chains = 12 if isinstance(kernel, ESS) else 4
    # A fixed trajectory resonates with some direction: its draws hang together, how much depends on
    # the last bit of the step size, which differs between processors.
    steps = 6000 if isinstance(kernel, BarkerMH) or kernel == "hmc" else 1500
    idata = run(kernel=kernel, num_warmup=500, num_samples=steps, num_chains=chains)
    mean, error = llc_of(idata)
    assert abs(mean - regression.exact(regression.OLS, 1.0)) < 4 * error
    assert error < 0.15
    name = kernel if isinstance(kernel, str) else type(kernel).__name__
    assert idata.attrs["kernel"] == name


def test_interrupted_runs_keep_what_was_drawn(monkeypatch):
    whole = llc(run(2))
    advance, calls = sampling.advance, []

    def interrupted(*args):
        calls.append(args)
        if len([c for c in calls if c[-2] != 1]) > 2:
            raise KeyboardInterrupt
        return advance(*args)

    monkeypatch.setattr(sampling._run, "advance", interrupted)
    monkeypatch.setattr(
        sampling._run, "_pace", lambda total, *, limit: iter([limit] * (total // limit))
    )
    with pytest.warns(nllc.LLCWarning, match="Ctrl-C ended the run after 128 draws"):
        idata = run(2)
    assert llc(idata).shape[1] == 2 * sampling._run.CHUNK_DRAWS
    np.testing.assert_array_equal(llc(idata), whole[:, : 2 * sampling._run.CHUNK_DRAWS])
    assert idata.attrs["interrupted"] == 1


class StepState(NamedTuple):
    z: dict
    rng_key: jax.Array


class Walk(MCMCKernel):
    """Moves w up by a half at each step, whatever the density."""

    sample_field = "z"

    def __init__(self):
        self._potential_fn = None

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs):
        return StepState(jax.tree.map(jnp.zeros_like, init_params), rng_key)

    def sample(self, state, model_args, model_kwargs):
        return state._replace(z=jax.tree.map(lambda leaf: leaf + 0.5, state.z))


def test_a_chain_that_breaks_raises_with_the_draws():
    def model(y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(jnp.sqrt(4.0 - w), 1.0), obs=y)

    with pytest.raises(
        nllc.NonFiniteLossError,
        match=r"non-finite in chain 0 at draw 8 \(step 9\); λ̂ of the draws before it.*`idata`",
    ) as caught:
        run(
            model=model,
            data=(2 * np.ones(50),),
            center={"w": 0.0},
            kernel=Walk(),
            num_warmup=0,
            num_samples=10,
            num_chains=2,
        )
    kept = caught.value.idata["posterior"]
    draws = kept.sizes["draw"]  # to the end of the chunk, which the clock chooses
    assert draws in (9, 10)
    np.testing.assert_allclose(kept["w"][1], 0.5 * np.arange(1, draws + 1))
    assert np.isfinite(llc(caught.value.idata)[:, :8]).all()


PARALLEL = """
import json, sys
import numpyro
numpyro.set_host_device_count(2)
sys.path.insert(0, {tests!r})
import jax, regression
import numpyro_llc as nllc
settings = dict(center={{"w": regression.OLS}}, num_warmup=300, num_samples=500, progress_bar=False)
data = (regression.X, regression.Y)
runs = [
    nllc.estimate_llc(jax.random.key(0), regression.model, data, chain_method=method, **settings)
    for method in ("parallel", "vectorized")
]
rows = [list(nllc.summary(r).loc["llc", ["mean", "mcse_mean"]]) for r in runs]
print(json.dumps([len(jax.devices()), *rows]))
"""


@pytest.mark.slow
def test_parallel_chains_use_the_devices():
    code = PARALLEL.format(tests=os.path.dirname(__file__))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    devices, (mean, error), (_, _) = json.loads(done.stdout.splitlines()[-1])
    assert devices == 2
    assert abs(mean - regression.exact(regression.OLS, 1.0)) < 4 * error


def test_parallel_on_one_device_says_so():
    with pytest.warns(nllc.LLCWarning, match=r"over 1 device.*set_host_device_count\(4\)"):
        run(chain_method="parallel")


def test_doubtful_runs_warn_and_keep_the_finding():
    with pytest.warns(
        nllc.LLCWarning, match="effective sample size of `llc` is .* Raise `num_samp"
    ):
        idata = run(num_samples=20)
    assert "ess_bulk" in [one["check"] for one in json.loads(idata.attrs["findings"])]


def test_one_chain_is_said_to_have_no_r_hat():
    with pytest.warns(nllc.LLCWarning, match=r"cannot be judged from 1 chain.*`num_chains`"):
        run(num_chains=1)


def test_a_dead_parameter_adds_nothing():
    def model(x, y):
        numpyro.sample("dead", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        return regression.model(x, y)

    idata = run(model=model, center={"dead": np.ones(3), "w": regression.OLS}, num_samples=1500)
    row = nllc.summary(idata).loc["llc"]
    assert abs(row["mean"] - regression.exact(regression.OLS, 1.0)) < 4 * row["mcse_mean"]
    dead = idata["posterior"]["dead"].to_numpy()
    assert dead.var() == pytest.approx(1.0, rel=0.2)


def test_no_localization_on_a_regular_model(llc_of):
    mean, error = llc_of(run(localization=0.0, num_samples=1500, num_warmup=500))
    assert abs(mean - 2.5) < 4 * error


def test_stein_identity(fitted):
    """E[(z - z*)·∇U] = d for U = β nL + γ/2 |z - z*|², whatever the model and the centre."""
    w = fitted["posterior"]["w"].to_numpy().astype(float)
    residual = w @ regression.X.T - regression.Y
    slope = residual @ regression.X / np.log(500) + (w - regression.OLS)
    stein = np.sum((w - regression.OLS) * slope, axis=-1)
    batches = stein.reshape(4, 10, -1).mean(axis=-1)
    assert abs(stein.mean() - 5) < 4 * batches.std() / np.sqrt(batches.size)
    wrong = np.sum((w - regression.OLS) * (residual @ regression.X), axis=-1)
    assert abs(wrong.mean() - 5) > 4 * batches.std() / np.sqrt(batches.size)


@pytest.mark.parametrize("kernel", ["nuts", "sgld"])
def test_a_site_without_freedom_is_held_where_it_is(kernel):
    def model(y):
        weight = numpyro.sample("weight", dist.Dirichlet(np.ones(1)))
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", len(y)):
            numpyro.sample("y", dist.Normal(mean * weight[0], 1.0), obs=y)

    y = np.random.default_rng(0).normal(size=100)
    idata = nllc.estimate_llc(
        jax.random.key(0),
        model,
        (y,),
        center={"weight": np.ones(1), "mean": y.mean()},
        kernel=kernel,
        progress_bar=False,
    )
    row = nllc.summary(idata).loc["llc"]
    share = 100 / (100 + np.log(100))  # what γ = 1 leaves of 1/2
    assert abs(row["mean"] - 0.5 * share) < 4 * row["mcse_mean"] + 0.01 * (kernel == "sgld")
