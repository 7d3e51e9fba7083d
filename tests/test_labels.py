"""Names in results: all different whatever the model's are; and draws that outlive any error."""

import warnings
from importlib.metadata import version

import arviz as az
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import regression
import xarray as xr
from metropolis import METROPOLIS, Metropolis
from numpyro import handlers

import numpyro_llc as nllc
from numpyro_llc.errors import ResultError
from numpyro_llc.inference_data import labelled, moments, posterior, variable_names

OLD = version("arviz").startswith("0.")
KEY = jax.random.key(0)
GROUPS = ("posterior", "sample_stats", "observed_data", "constant_data")
Y = np.sin(np.arange(6.0))
SETTINGS = {
    "kernel": Metropolis(0.2),
    "num_chains": 2,
    "num_warmup": 0,
    "num_samples": 24,
    "progress_bar": False,
}


def group(idata, name):
    return idata[name] if isinstance(idata[name], xr.Dataset) else idata[name].to_dataset()


def normal(name, size=None):
    prior = dist.Normal(0.0, 1.0)
    return numpyro.sample(name, prior if size is None else prior.expand([size]).to_event(1))


def entangled(key, data):
    """Plates of one name and two sizes, plates called as axes, names that meet without a slash."""
    with numpyro.plate("g/h", 2):
        first = normal("first")
    with numpyro.plate("g/h", 3):
        second = normal("second")
    with numpyro.plate("data", 2):
        third = normal("a/b_dim_0")
    fourth = normal("a/b", 2) + normal("µ/λ") + normal("g.h")
    index = np.arange(6)
    mean = first[index % 2] + second[index % 3] + (third + fourth)[index % 2]
    with numpyro.plate("draw", 6):
        numpyro.sample("posterior/1", dist.Normal(mean, 1.0), obs=data["y"])
        numpyro.sample("posterior.1", dist.Normal(mean, 2.0), obs=data["y"] + 1)


CENTER = {
    "first": np.array([0.1, 0.2]),
    "second": np.array([0.3, 0.4, 0.5]),
    "a/b_dim_0": np.array([0.6, 0.7]),
    "a/b": np.array([0.8, 0.9]),
    "µ/λ": -1.0,
    "g.h": -2.0,
}


@pytest.fixture(scope="module")
def labels():
    local = nllc.localize(entangled, center=CENTER)
    other = {"u/v": (KEY, {"y": Y + 1}), "chain": (KEY, {"y": Y})}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)
        return nllc.estimate_llc(
            KEY, local, (KEY, {"y": Y}), evaluate_on=other, log_likelihood=True, **SETTINGS
        )


def test_names_that_meet_get_numbers_and_keep_their_values(labels):
    draws = posterior(labels)
    assert draws["first"].dims == ("chain", "draw", "g.h_2")
    assert draws["second"].dims == ("chain", "draw", "g.h_3")
    assert draws["a.b_dim_0"].dims == ("chain", "draw", "data_2")
    assert draws["a.b"].dims == ("chain", "draw", "a.b_dim_0_2")
    assert draws["g.h"].dims == draws["µ.λ"].dims == ("chain", "draw")
    assert draws["llc_on"].dims == ("chain", "draw", "data")
    assert set(draws["data"].values) == {"u/v", "chain"}
    np.testing.assert_allclose(draws["llc_on"].sel(data="chain"), draws["llc"], atol=1e-5)
    observed = group(labels, "observed_data")
    np.testing.assert_allclose(observed["posterior.1"], Y + 1, rtol=1e-6)
    np.testing.assert_allclose(observed["posterior.1_2"], Y, rtol=1e-6)
    likelihood = group(labels, "tempered_log_likelihood")
    assert likelihood["posterior.1_2"].dims == ("chain", "draw", "draw_2")
    total = sum(likelihood[name].sum(axis=-1) for name in ("posterior.1", "posterior.1_2"))
    np.testing.assert_allclose(-total, group(labels, "sample_stats")["loss"], rtol=1e-5)
    assert np.array_equal(group(labels, "constant_data")["key"], jax.random.key_data(KEY))


@pytest.mark.parametrize("file_format", ["netcdf", "zarr"])
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:Consolidated metadata", "ignore:Object at", "ignore:.*Zarr")
def test_such_names_go_into_files_and_come_back(labels, file_format, tmp_path):
    path = str(tmp_path / "run")
    if OLD and file_format == "zarr":
        labels.to_datatree().to_zarr(path)
        read = az.InferenceData.from_datatree(xr.open_datatree(path, engine="zarr"))
    else:
        getattr(labels, f"to_{file_format}")(path)
        read = getattr(az, f"from_{file_format}")(path)
    for name in (*GROUPS, "tempered_log_likelihood"):
        xr.testing.assert_allclose(group(read, name), group(labels, name))
    names = ["llc", "first", "a.b", "µ.λ"]
    assert nllc.summary(read, var_names=names).equals(nllc.summary(labels, var_names=names))


def test_a_plate_in_a_scope_is_an_axis():
    def model(y):
        with numpyro.plate("g", 2):
            level = numpyro.sample("level", dist.Normal(0.0, 1.0))
        with numpyro.plate("N", 6):
            numpyro.sample("y", dist.Normal(level[np.arange(6) % 2], 1.0), obs=y)

    scoped = handlers.scope(model, prefix="part")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)
        idata = nllc.estimate_llc(KEY, scoped, (Y,), center={"part/level": np.zeros(2)}, **SETTINGS)
    assert posterior(idata)["part.level"].dims == ("chain", "draw", "part.g")
    assert group(idata, "observed_data")["part.y"].dims == ("part.N",)


WORDS = ["a", "a/b", "a.b", "a_dim_0", "chain", "draw", "e\u0301", "\u00e9", "a_2", "a.b_2"]


@pytest.mark.parametrize("seed", range(5))
def test_any_names_make_a_dataset(seed):
    rng = np.random.default_rng(seed)
    sites = list(rng.permutation(WORDS))
    arrays = {
        site: rng.normal(size=(2, 3, *rng.integers(2, 4, rng.integers(0, 3)))) for site in sites
    }
    plates = {site: {-1: rng.choice(WORDS)} for site in rng.permutation(WORDS)[:5]}
    data = labelled(arrays, lead=("chain", "draw"), axes=plates)
    for site, name in variable_names(sites, ("chain", "draw")).items():
        np.testing.assert_array_equal(data[name], arrays[site])
    assert len(set(data.data_vars) | set(data.dims)) == len(data.data_vars) + len(data.dims)


def test_the_lowest_point_comes_back_under_names_that_meet():
    def model(y):
        numpyro.sample("y", dist.Normal(normal("a/b") + normal("a.b"), 1.0), obs=y)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)
        idata = nllc.estimate_llc(
            KEY, model, (Y,), center={"a/b": 2.0, "a.b": -0.5}, store_sites=False, **SETTINGS
        )
    point = nllc.lowest_point(idata)
    assert set(point) == {"a/b", "a.b"}
    assert abs(point["a/b"] + point["a.b"] - Y.mean()) < 1.5
    with pytest.raises(ValueError, match="The name 'a.b' is taken in the result"):
        nllc.estimate_llc(KEY, model, (Y,), center={"a/b": 2.0, "a.b": -0.5}, **SETTINGS)


# --- what goes wrong after sampling --------------------------------------------------------------

RUN = {"kernel": METROPOLIS, "num_warmup": 100, "num_samples": 8, "progress_bar": False}


def estimate(**settings):
    local = nllc.localize(regression.model, center={"w": regression.OLS})
    return nllc.estimate_llc(KEY, local, (regression.X, regression.Y), **RUN, **settings)


@pytest.fixture(scope="module")
def draws():
    with pytest.warns(nllc.LLCWarning):
        return posterior(estimate())


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("_assemble.diagnosed", ValueError("a bad label")),
        ("_assemble.log_likelihood_of", MemoryError("too large")),
        ("_assemble.metropolis_report", AssertionError()),
    ],
)
def test_an_error_after_sampling_holds_the_draws(where, error, monkeypatch, draws):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(f"numpyro_llc.results.{where}", fail)
    with pytest.raises(ResultError, match=f"`idata`.*{type(error).__name__}") as caught:
        estimate(log_likelihood=True)
    kept = caught.value.idata
    np.testing.assert_array_equal(posterior(kept)["llc"], draws["llc"])
    np.testing.assert_allclose(group(kept, "unconstrained_posterior")["w"], draws["w"])
    assert caught.value.__cause__ is error


def test_ctrl_c_after_sampling_holds_the_draws(monkeypatch, draws):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("numpyro_llc.results._assemble.diagnosed", interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        estimate()
    np.testing.assert_array_equal(posterior(caught.value.idata)["llc"], draws["llc"])


def test_a_warning_that_is_raised_holds_the_result(draws):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(nllc.LLCWarning) as caught:
            estimate()
    xr.testing.assert_equal(posterior(caught.value.idata), draws)
    assert not nllc.diagnose(caught.value.idata).empty


@pytest.mark.parametrize(("chains", "count"), [(1, 1), (1, 3), (3, 1), (3, 3)])
def test_few_draws_have_a_mean_and_no_error(chains, count):
    values = np.random.default_rng(0).normal(size=(chains, count))
    row = moments(xr.Dataset({"x": (("chain", "draw"), values)}), ["x"]).loc["x"]
    assert row["mean"] == pytest.approx(values.mean())
    assert np.isnan(row[["mcse_mean", "ess_bulk", "ess_tail", "r_hat"]]).all()
