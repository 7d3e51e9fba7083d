"""``estimate_llc``: arguments, kernels, the loop, reproducibility and compilation."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import regression
import xarray as xr
from metropolis import METROPOLIS, Metropolis
from numpyro.infer import AIES, ESS, HMC, HMCECS, NUTS, BarkerMH
from numpyro.infer.mcmc import MCMCKernel

import numpyro_llc as nllc
from numpyro_llc import evidence, sampling
from numpyro_llc.kernels import kernel_of, sampler_of
from numpyro_llc.local._curvature import curvature_at_center
from numpyro_llc.local._starts import spread_starts
from numpyro_llc.local._target import make_target
from numpyro_llc.models import read_model
from numpyro_llc.sampling._lengths import recording_interval

DATA = (regression.X, regression.Y)
SMALL = {"num_warmup": 100, "num_samples": 200, "progress_bar": False}


def run(seed=0, *, model=regression.model, data=DATA, center=None, **settings):
    """By NUTS, whose program is that of its warm-up's length: of 500 steps, as other tests have."""
    center = {"w": regression.OLS} if center is None else center
    settings = {**SMALL, "num_warmup": 500, **settings}
    return nllc.estimate_llc(jax.random.key(seed), model, data, center=center, **settings)


def llc(idata):
    return idata["posterior"]["llc"].to_numpy()


def walk(seed=0, **settings):
    return run(seed, kernel=METROPOLIS, **{**SMALL, **settings})


@pytest.fixture(scope="module")
def reference():
    """Draws of NUTS, and of Metropolis, at the lengths of ``SMALL``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)
        return {"nuts": run(0), "metropolis": walk(0)}


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
    "batch of a full-data kernel": (
        {"kernel": "nuts", "batch_size": 10},
        ValueError,
        "`batch_size` needs a stochastic-gradient kernel",
    ),
    "batch beside an object": (
        {"kernel": nllc.SGLD(), "batch_size": 10},
        ValueError,
        r"`batch_size` is a setting of the kernel object: SGLD\(batch_size=",
    ),
    "batch beside a NumPyro object": (
        {"kernel": NUTS(regression.model), "batch_size": 10},
        ValueError,
        "`batch_size` needs a stochastic-gradient kernel",
    ),
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
    "truth value": ({"localization": True}, TypeError, "`localization` must be a number; got True"),
    "keyword": ({"gamma": 1.0}, TypeError, "unexpected keyword argument 'gamma'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_argument_is_refused_before_anything_is_sampled(name, monkeypatch):
    settings, kind, message = BAD[name]
    monkeypatch.setattr(sampling._run, "advance", None)  # sampling would fail otherwise
    with pytest.raises(kind, match=message):
        run(**settings)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (
            nllc.SGNHT,
            {"step_size": -1.0},
            "`step_size` must be finite and at least 0; got -1.0",
        ),
        (
            nllc.PSGLD,
            {"step_size": float("nan")},
            "`step_size` must be finite and at least 0; got nan",
        ),
        (nllc.SGLD, {"batch_size": 0}, "`batch_size` must be at least 1; got 0"),
        (nllc.SGNHT, {"friction": 0.0}, "`friction` must be finite and positive; got 0.0"),
    ],
    ids=["negative step", "NaN step", "batch of 0", "no friction"],
)
def test_a_kernel_refuses_a_bad_setting(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)
    with pytest.raises(ValueError, match=message):
        kind().replace(**settings)


LOCAL = nllc.localize(regression.model, center={"w": regression.OLS})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("center", {"w": regression.OLS}),
        ("localization", 2.0),
        ("localization", {"w": 1.0}),
        ("inverse_temperature", 0.1),
        ("num_data", 500),
    ],
)
def test_settings_beside_a_localized_model_are_refused_by_name(name, value):
    message = f"`{name}` is a setting of the localized model: give it to localize"
    with pytest.raises(ValueError, match=message):
        nllc.estimate_llc(jax.random.key(0), LOCAL, DATA, **{name: value})


@pytest.mark.parametrize(
    ("function", "settings"),
    [
        (nllc.sweep, {"localization": [1.0, 2.0]}),
        (nllc.refined_llc, {"sites": {"all": None}}),
        (evidence.temperature_ladder, {}),
        (evidence.volume_scaling, {}),
    ],
)
def test_a_plain_model_is_refused_where_a_localized_one_is_needed(function, settings):
    with pytest.raises(
        TypeError, match=r"`model` must be localized: .*center=.*; got the plain model model\."
    ):
        function(jax.random.key(0), regression.model, DATA, **settings)


@pytest.mark.parametrize("key", [0, None, np.zeros(2), jax.random.split(jax.random.key(0))])
def test_bad_key_is_refused(key):
    with pytest.raises(TypeError, match=r"`rng_key` must be one JAX random key.*jax.random.key\(0"):
        nllc.estimate_llc(key, regression.model, DATA, center={"w": regression.OLS})


FIXED = nllc.localize(regression.model, center={"w": regression.OLS})


@pytest.mark.parametrize(
    "function",
    [
        lambda key, x: nllc.estimate_llc(key, FIXED, (x, regression.Y)),
        lambda key, x: nllc.find_center(key, regression.model, (x, regression.Y)),
        lambda key, x: nllc.sweep(key, FIXED, (x, regression.Y), localization=[1.0, 2.0]),
        lambda key, x: evidence.volume_scaling(key, FIXED, (x, regression.Y)),
    ],
)
def test_a_function_that_samples_does_not_run_inside_a_traced_one(function):
    key, keys = jax.random.key(0), jax.random.split(jax.random.key(0))
    with pytest.raises(TypeError, match="cannot run inside jax.jit.*Call it outside"):
        jax.jit(lambda x: function(key, x))(regression.X)
    with pytest.raises(TypeError, match="cannot run inside jax.jit.*Call it outside"):
        jax.vmap(lambda key: function(key, regression.X))(keys)


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


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_same_key_same_draws_other_key_other_draws(reference):
    first, again, other = reference["metropolis"], walk(0), walk(1)
    np.testing.assert_array_equal(llc(first), llc(again))
    np.testing.assert_array_equal(first["posterior"]["w"], again["posterior"]["w"])
    assert abs(np.corrcoef(llc(first).ravel(), llc(other).ravel())[0, 1]) < 0.5
    assert (llc(first) != llc(other)).all()
    old_style = nllc.estimate_llc(
        jax.random.PRNGKey(0),
        regression.model,
        DATA,
        center={"w": regression.OLS},
        kernel=METROPOLIS,
        **SMALL,
    )
    np.testing.assert_array_equal(llc(old_style), llc(reference["metropolis"]))


@pytest.mark.parametrize("gamma", [1.0, 30.0])
def test_chains_start_as_the_local_posterior_of_a_quadratic(gamma):
    """Drawn of the Gaussian of precision ``β H + γ``, each apart from the others."""
    reading = read_model(regression.model, DATA, None, center={"w": regression.OLS})
    target = make_target(
        reading.program,
        reading.arrays,
        reading.center,
        inverse_temperature=0.2,
        localization={"w": gamma},
    )
    curvature = curvature_at_center(target, jax.random.key(0))
    starts = spread_starts(target, curvature, jax.random.key(1), 4000)["w"]
    offsets = np.asarray(starts, float) - np.asarray(target.center["w"])
    precision = 0.2 * regression.X.T @ regression.X + gamma * np.eye(5)
    white = offsets @ np.linalg.cholesky(precision)
    np.testing.assert_allclose(white.mean(axis=0), 0.0, atol=4 / np.sqrt(4000))
    np.testing.assert_allclose(np.cov(white.T), np.eye(5), atol=4.5 * np.sqrt(2 / 4000))


def test_a_start_is_pulled_in_to_where_the_potential_is_moderate():
    """Where the loss is steeper than its curvature at the centre: by halves of the offset."""

    def model(y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(100.0 * w**2, 1.0), obs=y)

    reading = read_model(model, (np.zeros(50),), None, center={"w": 0.0})
    target = make_target(
        reading.program,
        reading.arrays,
        reading.center,
        inverse_temperature=1.0,
        localization={"w": 1.0},
    )
    curvature = curvature_at_center(target, jax.random.key(0))
    starts = np.asarray(spread_starts(target, curvature, jax.random.key(1), 500)["w"])
    potential = 25 * (100 * starts**2) ** 2 + 0.5 * starts**2
    drawn = np.asarray(jax.random.normal(jax.random.key(1), (500, 1)))[:, 0]
    halvings = np.log2(drawn / starts)
    np.testing.assert_allclose(halvings, np.round(halvings), atol=1e-4)
    assert (potential <= 25.0).all()
    twice = 25 * (100 * (2 * starts) ** 2) ** 2 + 2 * starts**2
    assert (twice[np.round(halvings) > 0] > 25.0).all()


def test_nothing_compiles_twice_for_the_same_shapes(reference, llc_of):
    del reference  # has compiled
    compiled = sampling.advance._cache_size(), sampling.start._cache_size()
    shifted = (regression.X + 0.1, regression.Y * 2)
    other = run(
        1,
        data=shifted,
        center={"w": np.linalg.lstsq(*shifted, rcond=None)[0]},
        localization=7.0,
        inverse_temperature=0.3,
        num_samples=np.int64(1500),
        thinning=np.int64(3),
    )
    assert llc(other).shape == (4, 500)
    # What was compiled with other data, β and γ has the exact value of these.
    (mean, error), x = llc_of(other), shifted[0]
    tempered = 0.3 * x.T @ x
    exact = 0.5 * np.trace(tempered @ np.linalg.inv(tempered + 7.0 * np.eye(5)))
    assert abs(mean - exact) < 4 * error
    assert abs(mean - regression.exact(regression.OLS, 1.0)) > 4 * error
    assert (sampling.advance._cache_size(), sampling.start._cache_size()) == compiled


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_a_state_with_a_python_number_compiles_once():
    """The number of leapfrog steps is Python's 2 after a step, and an array before the first."""
    before = sampling.advance._cache_size()
    kernel = HMC(regression.model, num_steps=2, trajectory_length=None)
    idata = run(kernel=kernel, num_warmup=100, num_samples=100)
    assert idata.attrs["num_warmup"] == 100  # several chunks
    assert sampling.advance._cache_size() == before + 1


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_thinning_keeps_every_kth_draw(reference):
    every = llc(reference["metropolis"])[:, :90]
    np.testing.assert_array_equal(llc(walk(num_samples=90, thinning=3)), every[:, 2::3])


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_chunk_lengths_change_nothing(monkeypatch, reference):
    """Nor whether a draw is made at once or in parts, of which the lowest point knows nothing."""
    whole = walk(num_samples=90, thinning=3)
    np.testing.assert_array_equal(llc(whole), llc(reference["metropolis"])[:, :90][:, 2::3])
    for length in (1, 2, 10**6):
        monkeypatch.setattr(sampling._run.Pace, "steps", lambda pace, left, n=length: n)
        found = walk(num_samples=90, thinning=3)
        np.testing.assert_array_equal(llc(found), llc(whole))
        assert found.attrs["num_steps"] == whole.attrs["num_steps"]
        if "lowest_point" in whole:
            np.testing.assert_array_equal(found["lowest_point"]["w"], whole["lowest_point"]["w"])


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_sequential_chains_give_the_same_draws(reference):
    """Each chain has its own key; NUTS differs in the last bits, which its trees make large."""
    found = walk(chain_method="sequential")
    np.testing.assert_allclose(llc(found), llc(reference["metropolis"]), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_sequential_chains_draw_from_the_same_density(llc_of):
    mean, error = llc_of(run(chain_method="sequential", num_samples=1000))
    assert abs(mean - regression.exact(regression.OLS, 1.0)) < 4 * error


def test_kernels_by_name_have_the_settings_that_are_documented():
    def of(kernel):
        return sampler_of(kernel_of(kernel), num_warmup=10, num_chains=4).kernel

    assert [type(of(name)) for name in ("nuts", "hmc", "mala")] == [NUTS, HMC, HMC]
    for name in ("nuts", "hmc", "mala"):
        assert of(name)._target_accept_prob == 0.99
        assert of(name) is of(name)  # so that nothing compiles twice
    assert (of("mala")._num_steps, of("mala")._trajectory_length) == (1, None)
    assert of("hmc")._trajectory_length == pytest.approx(2 * np.pi)
    assert of(NUTS(regression.model, step_size=0.25))._step_size == 0.25


def test_without_a_kernel_it_is_nuts_on_the_full_data_and_sgnht_on_batches(reference):
    assert kernel_of(None) is kernel_of("nuts")
    assert reference["nuts"].attrs["kernel"] == "nuts"
    batches = kernel_of(None, 50)
    assert type(batches) is nllc.SGNHT
    assert batches.sampler == kernel_of("sgnht", 50).sampler
    assert batches.sampler.batch_size == 50


def plan_of(num_samples, *, thinning=None, kernel=None, batch_size=None, num_data=10_000):
    """What is run on `num_data` rows, before anything is sampled."""
    x = np.random.default_rng(0).normal(size=(num_data, 1))
    return sampling.make_plan(
        nllc.localize(regression.model, center={"w": np.zeros(1)}),
        (x, x[:, 0]),
        None,
        kernel_of(kernel, batch_size),
        sampling.check_schedule(None, num_samples, 4, thinning, "vectorized", False),
    )


@pytest.mark.parametrize(
    ("num_samples", "interval", "rows"), [(2500, 100, 10_000), (500, 20, 2000)]
)
def test_recording_costs_less_than_stepping(num_samples, interval, rows):
    """On 10 000 rows in batches of 100: a draw with its slope costs what a gradient does."""
    plan = plan_of(num_samples, batch_size=100)
    assert recording_interval(plan) == interval
    found = sampling.evaluation_rows(plan, jax.random.key(0))
    count = found.rows.size
    assert (count, len(np.unique(found.rows))) == (rows, rows)
    assert np.asarray(found.weights, float).sum() == pytest.approx(10_000)
    assert count <= interval * 100
    if count == 10_000:  # one step fewer would be too few
        assert count > (interval - 1) * 100
    else:  # one step more would leave fewer draws than 25
        assert num_samples // interval == 25 > num_samples // (interval + 1)


def test_of_few_rows_all_are_evaluated():
    """A draw on all 500 rows costs as much as ten steps; of 200 at least 25 draws are kept."""
    plan = plan_of(200, batch_size=50, num_data=500)
    assert recording_interval(plan) == 8
    assert sampling.evaluation_rows(plan, jax.random.key(0)).rows.size == 500


def test_a_thinning_that_is_given_is_kept_and_all_rows_are_evaluated():
    plan = plan_of(1000, batch_size=100, thinning=2)
    assert recording_interval(plan) == 2
    assert sampling.evaluation_rows(plan, jax.random.key(0)).rows.size == 10_000


@pytest.mark.parametrize("kernel", ["nuts", "sgnht"])
def test_on_the_full_data_every_step_is_recorded(kernel):
    assert recording_interval(plan_of(1000, kernel=kernel)) == 1


@pytest.mark.parametrize(
    "kernel",
    [
        kind(
            regression.model,
            step_size=0.01,
            batch_size=50,
            control_variates=False,
            in_axes=(0, 0),
            **own,
        )
        for kind, own in (
            (nllc.SGLD, {}),
            (nllc.PSGLD, {}),
            (nllc.SGNHT, {"friction": 0.3}),
            (nllc.SGD, {}),
        )
    ],
    ids=lambda kernel: type(kernel).__name__,
)
def test_a_replaced_setting_keeps_the_others(kernel):
    before = kernel.sampler
    other = kernel.replace(batch_size=9)
    assert type(other) is type(kernel)
    assert other.sampler == dataclasses.replace(before, batch_size=9)
    assert (other.model, other.in_axes) == (regression.model, (0, 0))
    assert kernel.sampler == before
    assert before.batch_size == 50
    assert kernel.replace(step_size=None).sampler.is_adaptive


@pytest.mark.parametrize(
    "kernel",
    [
        AIES(regression.model),
        *(
            pytest.param(kernel, marks=pytest.mark.slow)
            for kernel in (
                ESS(regression.model),
                "hmc",
                "mala",
                NUTS(regression.model, dense_mass=True),
                HMC(regression.model, step_size=0.1, trajectory_length=2.0),
                BarkerMH(regression.model),
            )
        ),
    ],
    ids=lambda kernel: kernel if isinstance(kernel, str) else type(kernel).__name__,
)
@pytest.mark.filterwarnings("ignore:R-hat|The bulk|The first tenth:numpyro_llc.LLCWarning")
def test_other_kernels_sample_the_same_density(kernel, llc_of):
    chains = 12 if isinstance(kernel, AIES | ESS) else 4
    # A fixed trajectory resonates with some direction: its draws hang together, how much depends on
    # the last bit of the step size, which differs between processors.
    steps = 6000 if isinstance(kernel, AIES | BarkerMH) or kernel in ("hmc", "mala") else 1500
    thinning = 4 if isinstance(kernel, AIES) else 1
    idata = run(kernel=kernel, num_samples=steps, num_chains=chains, thinning=thinning)
    mean, error = llc_of(idata)
    assert abs(mean - regression.exact(regression.OLS, 1.0)) < 4 * error
    assert error < 0.15
    name = kernel if isinstance(kernel, str) else type(kernel).__name__
    assert idata.attrs["kernel"] == name


def test_interrupted_runs_keep_what_was_drawn(monkeypatch, reference):
    whole = llc(reference["metropolis"])
    advance, calls = sampling.advance, []

    def interrupted(*args):
        calls.append(args)
        if len([c for c in calls if c[-4] != 1]) > 2:  # the draws of a call
            raise KeyboardInterrupt
        return advance(*args)

    monkeypatch.setattr(sampling._run, "advance", interrupted)
    monkeypatch.setattr(sampling._run.Pace, "steps", lambda pace, left: 10**6)
    with pytest.warns(nllc.LLCWarning, match="Ctrl-C ended the run after 128 draws"):
        idata = walk()
    assert llc(idata).shape[1] == 2 * sampling._run.CHUNK_DRAWS
    np.testing.assert_array_equal(llc(idata), whole[:, : 2 * sampling._run.CHUNK_DRAWS])
    assert idata.attrs["interrupted"] == 1
    assert idata.attrs["ended_by"] == "interrupt"


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
import json, sys, warnings
import numpyro
numpyro.set_host_device_count(2)
sys.path.insert(0, {tests!r})
warnings.simplefilter("ignore")
import jax, test_estimate
run = test_estimate.llc(test_estimate.{sample}(chain_method="parallel", num_samples={draws}))
batches = test_estimate.batches({output!r}).tolist() if {output!r} else []
print(json.dumps([len(jax.devices()), run.tolist(), batches]))
"""


def batches(output=None, method="parallel"):
    """Draws of a kernel whose chains learn a step and draw batches in the warm-up."""
    return llc(
        run(
            kernel="sgld",
            batch_size=50,
            num_warmup=100,
            num_samples=40,
            chain_method=method,
            output=output,
        )
    )


def on_two_devices(sample, draws, output=""):
    code = PARALLEL.format(
        tests=os.path.dirname(__file__), sample=sample, draws=draws, output=output
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
@pytest.mark.slow
def test_chains_that_learn_draw_the_same_on_any_number_of_devices(tmp_path, monkeypatch):
    *_, there = on_two_devices("walk", 20, str(tmp_path / "a"))
    np.testing.assert_allclose(batches(), there, rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(batches(method="sequential"), there, rtol=1e-2, atol=1e-2)
    assert np.abs(batches(method="vectorized") - there).max() > 0.1
    with monkeypatch.context() as patched:
        patched.setattr(sampling._run, "advance", None)  # nothing is computed
        np.testing.assert_allclose(batches(tmp_path / "a"), there, rtol=1e-6)


@pytest.mark.slow
def test_parallel_chains_of_nuts_have_the_exact_value():
    devices, parallel, _ = on_two_devices("run", 1000)
    assert devices == 2
    batches = np.reshape(parallel, (4, 20, -1)).mean(axis=-1)
    error = batches.std(ddof=1) / np.sqrt(batches.size)
    assert abs(np.mean(parallel) - regression.exact(regression.OLS, 1.0)) < 4 * error


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_parallel_on_one_device_says_so_and_gives_the_same_draws(reference):
    with pytest.warns(nllc.LLCWarning, match=r"over 1 device.*set_host_device_count\(4\)"):
        found = walk(chain_method="parallel")
    np.testing.assert_allclose(llc(found), llc(reference["metropolis"]), rtol=1e-3, atol=1e-3)


def test_doubtful_runs_warn_and_keep_the_finding():
    with pytest.warns(
        nllc.LLCWarning, match="effective sample size of `llc` is .* Raise `num_samp"
    ):
        idata = run(num_samples=20)
    assert "ess_bulk" in [one["check"] for one in json.loads(idata.attrs["findings"])]


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_one_chain_is_said_to_have_no_r_hat(reference):
    draws = reference["metropolis"]["posterior"]
    data = draws if isinstance(draws, xr.Dataset) else draws.to_dataset()
    row = nllc.diagnose({"posterior": data.isel(chain=[0])}).loc["r_hat"]
    assert "cannot be judged from 1 chain" in row["meaning"]
    assert "`num_chains`" in row["remedy"]


def test_a_dead_parameter_adds_nothing_and_is_held_by_gamma_alone():
    x = regression.X * np.array([1.0, 1.0, 1.0, 0.0, 0.0])
    center = np.linalg.lstsq(x, regression.Y, rcond=None)[0]
    settings = {"localization": 4.0, "num_samples": 1500}
    idata = run(data=(x, regression.Y), center={"w": center}, **settings)
    row = nllc.summary(idata).loc["llc"]
    assert abs(row["mean"] - regression.exact(center, 4.0, x=x)) < 4 * row["mcse_mean"]
    dead = idata["posterior"]["w"].to_numpy()[..., 3:]
    squares = dead.reshape(4, 15, -1, 2).astype(float) ** 2
    error = squares.mean(axis=(2, 3)).std(ddof=1) / np.sqrt(60)
    assert abs(squares.mean() - 1 / 4.0) < 4 * error
    assert error < 0.02


def test_no_localization_on_a_regular_model(llc_of):
    mean, error = llc_of(run(localization=0.0, num_samples=1500))
    assert abs(mean - 2.5) < 4 * error
    assert abs(mean - regression.exact(regression.OLS, 1.0)) > 4 * error


def test_stein_identity():
    """E[(z - z*)·∇U] = d for U = β nL + γ/2 |z - z*|², whatever the model and the centre."""
    w = run(1, num_samples=1000)["posterior"]["w"].to_numpy().astype(float)
    residual = w @ regression.X.T - regression.Y
    slope = residual @ regression.X / np.log(500) + (w - regression.OLS)
    stein = np.sum((w - regression.OLS) * slope, axis=-1)
    batches = stein.reshape(4, 10, -1).mean(axis=-1)
    assert abs(stein.mean() - 5) < 4 * batches.std() / np.sqrt(batches.size)
    wrong = np.sum((w - regression.OLS) * (residual @ regression.X), axis=-1)
    assert abs(wrong.mean() - 5) > 4 * batches.std() / np.sqrt(batches.size)


@pytest.mark.parametrize(
    "kernel",
    [
        Metropolis(0.3),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("nuts", "sgld")),
    ],
    ids=lambda kernel: kernel if isinstance(kernel, str) else type(kernel).__name__,
)
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
        num_samples=20_000 if isinstance(kernel, Metropolis) else None,
        thinning=10 if isinstance(kernel, Metropolis) else None,
        progress_bar=False,
        store_sites=True,
    )
    row = nllc.summary(idata).loc["llc"]
    assert np.all(idata["posterior"]["weight"] == 1.0) or kernel == "sgld"
    share = 100 / (100 + np.log(100))  # what γ = 1 leaves of 1/2
    assert abs(row["mean"] - 0.5 * share) < 4 * row["mcse_mean"] + 0.01 * (kernel == "sgld")


def test_the_error_of_rows_that_were_not_evaluated_is_the_spread_over_all_choices():
    losses, chosen = np.array([0.3, -1.0, 2.0, 0.7, 0.1, -0.4]), 4
    sums = len(losses) / chosen * np.array(list(itertools.combinations(losses, chosen)))

    def error(parts, evaluated):
        nothing = np.zeros((1, 1))
        draws = sampling.Draws(nothing, parts[None, None], nothing, {}, {}, (0.0, None))
        run = sampling.Finished(draws, 0, 1, evaluated, len(losses), 1, 0.0, 0.0, "steps", False)
        return run.evaluation_error

    stated = [error(parts, chosen) ** 2 for parts in sums]
    assert np.mean(stated) == pytest.approx(np.var(sums.sum(axis=1)))
    assert error(losses, len(losses)) == error(losses[:1], 1) == 0.0
