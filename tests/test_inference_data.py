"""What comes out: groups, labels, files, the summary; on both ArviZ majors."""

import json
from importlib.metadata import version

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import regression
import xarray as xr
from metropolis import FITTED
from scipy import stats

import numpyro_llc as nllc
from numpyro_llc.inference_data import moments, monte_carlo, posterior

OLD = version("arviz").startswith("0.")
GROUPS = ("posterior", "sample_stats", "observed_data", "constant_data")
BENDS = np.stack([np.sin(np.arange(12.0)), np.cos(np.arange(12.0) ** 2)])


def group(idata, name):
    return idata[name] if isinstance(idata[name], xr.Dataset) else idata[name].to_dataset()


@pytest.fixture(scope="module")
def grouped():
    """A model with plates, a slash in a name, a deterministic site and everything stored."""

    def model(x, y, *, degree):
        with numpyro.plate("groups", 3):
            level = numpyro.sample("net/level", dist.Normal(0.0, 1.0))
        slope = numpyro.sample("slope", dist.LogNormal(0.0, 1.0))
        net = numpyro.param("net$params", {"a": jnp.zeros(()), "b": {"c": jnp.zeros(2)}})
        numpyro.deterministic("double", 2 * slope)
        with numpyro.plate("outer/people", x.shape[0]) as rows:
            mean = level[rows % 3] + slope * x**degree + net["a"] + net["b"]["c"] @ BENDS
            numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    x = np.linspace(0, 1, 12)
    y = x + np.arange(12) % 3
    center = {
        "net/level": np.array([0.1, 1.1, 2.1]),
        "slope": 1.0,
        "net$params": {"a": -0.1, "b": {"c": np.zeros(2)}},
    }
    idata = nllc.estimate_llc(
        jax.random.key(0),
        model,
        (x,),
        {"y": y, "degree": 1},
        center=center,
        kernel="hmc",
        num_warmup=300,
        num_samples=500,
        store_sites=["net/level", "slope", "net$params", "double"],
        log_likelihood=True,
        progress_bar=False,
    )
    return idata, center, x, y


def loss_at(center, x, y):
    """NL at a centre, by hand."""
    net = center["net$params"]
    mean = center["net/level"][np.arange(12) % 3] + center["slope"] * x
    return -stats.norm(mean + net["a"] + net["b"]["c"] @ BENDS, 1.0).logpdf(y).sum()


def test_container_is_what_the_installed_arviz_uses(grouped):
    idata = grouped[0]
    assert type(idata).__name__ == ("InferenceData" if OLD else "DataTree")


def test_groups_dims_and_values(grouped):
    idata, center, x, y = grouped
    draws = posterior(idata)
    leaves = ["net$params.a", "net$params.b.c"]
    assert set(draws) == {"llc", "net.level", "slope", "double", *leaves}
    assert draws["net.level"].dims == ("chain", "draw", "groups")
    assert draws.sizes == {"chain": 4, "draw": 500, "groups": 3, "net$params.b.c_dim_0": 2}
    np.testing.assert_allclose(draws["double"], 2 * draws["slope"], rtol=1e-6)
    mean = draws["net.level"].to_numpy()[..., np.arange(12) % 3]
    mean = mean + draws["slope"].to_numpy()[..., None] * x
    a, c = (draws[name].to_numpy() for name in leaves)
    mean = mean + a[..., None] + c @ BENDS
    density = stats.norm(mean, 1.0).logpdf(y)
    likelihood = group(idata, "tempered_log_likelihood")["y"]
    assert likelihood.dims == ("chain", "draw", "outer.people")
    np.testing.assert_allclose(likelihood, density, rtol=1e-4, atol=1e-4)
    statistics = group(idata, "sample_stats")
    np.testing.assert_allclose(statistics["loss"], -density.sum(axis=-1), rtol=1e-4)
    np.testing.assert_allclose(
        statistics["excess_loss"], -density.sum(axis=-1) - loss_at(center, x, y), atol=1e-3
    )
    np.testing.assert_allclose(draws["llc"], statistics["excess_loss"] / np.log(12), rtol=1e-6)
    offsets = draws["net.level"].to_numpy() - center["net/level"]
    log_slope = np.log(draws["slope"].to_numpy() / center["slope"])
    distance = np.sum(offsets**2, axis=-1) + log_slope**2 + (a + 0.1) ** 2
    distance = np.sqrt(distance + np.sum(c**2, axis=-1))
    np.testing.assert_allclose(statistics["distance"], distance, rtol=1e-3)
    np.testing.assert_allclose(statistics["penalty"], 0.5 * distance**2, rtol=1e-3)
    for name in ("diverging", "n_steps", "acceptance_rate", "energy", "step_size"):
        assert statistics[name].shape == (4, 500)
    np.testing.assert_allclose(group(idata, "observed_data")["y"], y, rtol=1e-6)
    np.testing.assert_allclose(group(idata, "constant_data")["x"], x, rtol=1e-6)
    assert "y" not in group(idata, "constant_data")


def test_attributes_are_numbers_and_strings(grouped):
    idata, center, x, y = grouped
    attrs = idata.attrs
    assert all(isinstance(value, int | float | str) for value in attrs.values())
    assert attrs["num_data"] == 12
    assert attrs["num_parameters"] == 7
    assert attrs["inverse_temperature"] == pytest.approx(1 / np.log(12), rel=1e-6)
    assert attrs["localization"] == 1.0
    assert attrs["kernel"] == "hmc"
    versions = attrs["numpyro_version"], attrs["jax_version"], attrs["precision"]
    assert versions == (numpyro.__version__, jax.__version__, "float32")
    assert attrs["center_loss"] == pytest.approx(loss_at(center, x, y), rel=1e-6)
    # The fit is exact, so the Hessian is that of the slopes of the mean alone.
    slopes = np.stack([x, *np.eye(3)[np.arange(12) % 3].T, np.ones(12), *BENDS])
    ends = np.linalg.eigvalsh(slopes @ slopes.T)[[0, -1]]
    found = attrs["center_smallest_eigenvalue"], attrs["center_largest_eigenvalue"]
    assert found == pytest.approx(ends, rel=1e-3, abs=1e-3)
    assert attrs["center_gradient_norm"] == pytest.approx(0.0, abs=1e-3)
    assert json.loads(attrs["findings"]) == []
    assert {k: posterior(idata).attrs[k] for k in attrs} == dict(attrs)


def test_summary_is_arviz_and_an_interval_of_the_mean(grouped):
    idata = grouped[0]
    row = nllc.summary(idata, ci_prob=0.8).loc["llc"]
    reference = az.summary(idata, var_names=["llc"], round_to="none").loc["llc"]
    for column in ("mean", "sd", "mcse_mean", "ess_bulk", "ess_tail", "r_hat"):
        assert row[column] == pytest.approx(float(reference[column]), rel=1e-9)
    half = stats.norm.ppf(0.9) * row["mcse_mean"]
    assert row["ci80_lb"] == pytest.approx(row["mean"] - half, rel=1e-6)
    assert row["ci80_ub"] == pytest.approx(row["mean"] + half, rel=1e-6)
    assert list(nllc.summary(idata, var_names=["llc", "slope"]).index) == ["llc", "slope"]


@pytest.mark.parametrize("prob", [0.0, 1.0, np.nan])
def test_bad_interval_is_refused(grouped, prob):
    with pytest.raises(ValueError, match="`ci_prob` must be"):
        nllc.summary(grouped[0], ci_prob=prob)


@pytest.mark.parametrize("file_format", ["netcdf", "zarr"])
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:Consolidated metadata", "ignore:Object at")
def test_files_come_back_as_they_went(grouped, file_format, tmp_path):
    idata = grouped[0]
    path = str(tmp_path / f"run.{file_format}")
    if OLD and file_format == "zarr":  # ArviZ 0.23 has no more of its own for Zarr 3
        idata.to_datatree().to_zarr(path)
        read = az.InferenceData.from_datatree(xr.open_datatree(path, engine="zarr"))
    else:
        getattr(idata, f"to_{file_format}")(path)
        read = getattr(az, f"from_{file_format}")(path)
    for name in (*GROUPS, "tempered_log_likelihood"):
        xr.testing.assert_allclose(group(read, name), group(idata, name))
    assert posterior(read).attrs["num_data"] == 12
    assert nllc.summary(read).equals(nllc.summary(idata))


@pytest.mark.parametrize(
    "draws", [np.random.default_rng(0).normal(size=(1, 100)), np.zeros((1, 9))]
)
def test_one_chain_has_no_r_hat(draws):
    table = moments(xr.Dataset({"x": (("chain", "draw"), draws)}), ["x"])
    assert np.isnan(table.loc["x", "r_hat"])
    assert np.isnan(monte_carlo(draws).r_hat)
    assert monte_carlo(draws).error == pytest.approx(table.loc["x", "mcse_mean"], nan_ok=True)


def test_store_sites_false_keeps_llc_only():
    idata = nllc.estimate_llc(
        jax.random.key(0),
        regression.model,
        (regression.X, regression.Y),
        center={"w": regression.OLS},
        kernel=FITTED,
        num_warmup=100,
        num_samples=8000,
        thinning=4,
        store_sites=False,
        progress_bar=False,
    )
    assert set(posterior(idata)) == {"llc"}
    row = nllc.summary(idata).loc["llc"]
    assert abs(row["mean"] - regression.exact(regression.OLS, 1.0)) < 4 * row["mcse_mean"]


def test_arviz_reads_the_result(fitted):
    assert float(az.rhat(posterior(fitted)[["llc"]])["llc"]) < 1.02
    assert "llc" in az.summary(fitted, var_names=["llc", "w"]).index


def test_traces_are_drawn_of_saved_results(fitted, tmp_path):
    from numpyro_llc.plots import plot_traces

    path = str(tmp_path / "run.nc")
    fitted.to_netcdf(path)
    axes = plot_traces({"regression": az.from_netcdf(path)})
    assert axes.shape == (1, 2)
    trace, running = axes[0]
    llc = posterior(fitted)["llc"].to_numpy()
    np.testing.assert_allclose(trace.lines[2].get_ydata(), llc[2])
    np.testing.assert_allclose([line.get_ydata()[-1] for line in running.lines[:4]], llc.mean(1))
    assert running.lines[4].get_ydata()[0] == pytest.approx(llc.mean())
    assert running.lines[5].get_ydata()[0] == 2.5
