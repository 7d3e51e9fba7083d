"""Free energies against exact evidence, and their comparison."""

import contextlib
import json
import runpy
import warnings
from importlib.metadata import version
from pathlib import Path

import arviz as az
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from exact_ladders import ladder_of
from metropolis import AtManyScales
from regression import OLS, X, Y
from regression import exact as exact_llc_of_run
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import chi2, gamma, multivariate_normal, norm

import numpyro_llc as nllc
from numpyro_llc import estimators, evidence, exact, zoo
from numpyro_llc.evidence import TemperatureLadder, _ladder
from numpyro_llc.evidence._rungs import default_rungs
from numpyro_llc.inference_data import attributes, dataset_of, inference_data, labelled
from numpyro_llc.results._findings import Finding, findings_to_json

OLD = version("arviz").startswith("0.")
EXAMPLES = Path(__file__).parents[1] / "examples"
SIZES = (100, 1_000, 10_000)
RUNGS = np.geomspace(1e-4, 1.0, 9)
BY_SITE = {"a": 1.0, "b": 3.0}
WALK = {"kernel": AtManyScales(3.0), "num_samples": 6000}


def regression(x, y=None):
    w = [numpyro.sample(name, dist.Normal(0.0, 2.0)) for name in "ab"]
    with numpyro.plate("N", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ jnp.stack(w), 1.0), obs=y)


def square_feature(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    with numpyro.plate("N", x.shape[0]):
        numpyro.sample("y", dist.Normal(w**2 * x[:, 0], 1.0), obs=y)


def rows_of(x, y):
    """As many rows as columns, of the same sum of squares at every w: what n rows say, in few."""
    r = np.linalg.qr(np.column_stack([x, y]), mode="r")
    return r[:, :-1], r[:, -1]


def regression_data(n):
    """Inputs, targets, the least-squares point and the loss there, of rows that stand for n."""
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, 2)) * [1.0, 0.3]
    x, y = rows_of(x, x @ [1.0, -1.0] + rng.normal(size=n))
    ols = np.linalg.lstsq(x, y, rcond=None)[0]
    return x, y, ols, 0.5 * np.sum((y - x @ ols) ** 2) + 1.5 * np.log(2 * np.pi)


def run_ladder(model, n, x, y, center, *, localization=1.0, **settings):
    defaults = {"num_warmup": 300, "num_samples": 500, "inverse_temperatures": RUNGS}
    return evidence.temperature_ladder(
        jax.random.key(n),
        nllc.localize(model, center=center, localization=localization, num_data=n),
        (x, y),
        progress_bar=False,
        **{**defaults, **settings},
    )


def sites(ols):
    return dict(zip("ab", ols, strict=True))


def exact_evidence(x, y, scale=2.0):
    """-log p(y) of the conjugate model, a normal."""
    covariance = np.eye(len(y)) + scale**2 * x @ x.T
    return -multivariate_normal(np.zeros(len(y)), covariance).logpdf(y)


@pytest.mark.slow
@pytest.mark.parametrize("n", SIZES)
def test_ladder_of_the_prior_gives_the_evidence_of_conjugate_regression(n):
    x, y, ols, loss = regression_data(n)
    found = evidence.free_energy(run_ladder(regression, n, x, y, sites(ols), prior="model"))
    assert found.loss == pytest.approx(loss, rel=1e-6)
    assert found.error < 0.15
    assert abs(found.value - exact_evidence(x, y)) < 4 * found.error
    assert abs(found.value - exact_evidence(x, y, scale=1.0)) > 4 * found.error


def both_ladders(n, **settings):
    x, y, ols, _ = regression_data(n)
    settings |= {"localization": BY_SITE, "inverse_temperatures": None, "prior": "both"}
    return run_ladder(regression, n, x, y, sites(ols), **settings)


@pytest.fixture(scope="module")
def sampled():
    """The ladders of 1000 data, γ by site, at the rungs that are the default."""
    return both_ladders(1_000, **WALK)


def excess_of_regression(x, beta=1.0):
    gammas = np.diag(list(BY_SITE.values()))
    return 0.5 * np.linalg.slogdet(np.eye(2) + beta * np.linalg.solve(gammas, x.T @ x))[1]


def check_both_free_energies(n, ladder):
    x, y, _, loss = regression_data(n)
    local = evidence.free_energy(ladder)
    wanted = loss + excess_of_regression(x)
    assert abs(local.value - wanted) < 4 * local.error
    model = evidence.free_energy(ladder, prior="model")
    assert abs(model.value - exact_evidence(x, y)) < 4 * model.error
    assert abs(wanted - exact_evidence(x, y)) > 4 * max(local.error, model.error)
    assert max(local.error, model.error) < 0.1


def test_ladders_under_both_priors_give_both_free_energies(sampled):
    check_both_free_energies(1_000, sampled)


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 10_000])
def test_both_ladders_of_fewer_and_of_more_data(n):
    check_both_free_energies(n, both_ladders(n))


def test_a_ladder_says_what_it_is_of(sampled):
    x, y, ols, loss = regression_data(1_000)
    assert isinstance(sampled, TemperatureLadder)
    betas = sampled["inverse_temperature"].to_numpy()
    assert (betas[0], betas[-1]) == (0.0, 1.0)
    np.testing.assert_allclose(betas[2:] / betas[1:-1], betas[2] / betas[1])
    assert 2.0 < betas[2] / betas[1] <= 2 + np.sqrt(2)
    assert (sampled.attrs["num_data"], sampled.attrs["num_parameters"]) == (1_000, 2)
    assert json.loads(sampled.attrs["localization"]) == BY_SITE
    assert sampled.attrs["center_loss"] == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(
        sampled["center_losses"], 0.5 * (y - x @ ols) ** 2 + 0.5 * np.log(2 * np.pi), rtol=1e-5
    )
    normalizer = sum(0.5 * np.log(gamma / (2 * np.pi)) for gamma in BY_SITE.values())
    assert sampled.attrs["log_normalizer"] == pytest.approx(normalizer)
    assert sampled.attrs["prior"] == "both"
    first = sampled.data.sel(prior="local").isel(inverse_temperature=0)
    gammas = np.array(list(BY_SITE.values()))
    wanted = {
        "penalty": 1.0,  # d/2
        "excess_loss": 0.5 * np.trace(x.T @ x / gammas),
        "prior_potential": np.log(8 * np.pi) + (np.sum(ols**2) + np.sum(1 / gammas)) / 8,
    }
    check_means(first, wanted)
    of_prior = sampled.data.sel(prior="model").isel(inverse_temperature=0)
    wanted = {
        "penalty": 0.5 * np.sum(gammas * (4.0 + ols**2)),
        "excess_loss": 0.5 * np.sum(x.T @ x * (4.0 * np.eye(2) + np.outer(ols, ols))),
        "prior_potential": np.log(8 * np.pi) + 1.0,
    }
    check_means(of_prior, wanted)


def check_means(rung, wanted):
    for name, mean in wanted.items():
        values = rung[name].to_numpy()
        error = values.std() / np.sqrt(values.size)  # the draws at β = 0 are independent
        assert abs(values.mean() - mean) < 4 * error
        assert error < 0.05 * mean


def chains_of(count, *, apart=0.0, diverging=0.0):
    """Draws of a rung, one chain of which stands apart."""
    excess = np.random.default_rng(count).exponential(size=(4, 100))
    excess[1] += apart
    statistics = {"diverging": np.arange(400).reshape(4, 100) < 400 * diverging}
    return _ladder.Draws(excess, excess, excess, statistics, {}, (0.0, None))


def test_rungs_whose_chains_disagree_are_told():
    assert _ladder.MOST_R_HAT == 1.05
    draws = [chains_of(0, apart=3.0), chains_of(1), chains_of(2, apart=3.0), chains_of(3)]
    with pytest.warns(nllc.LLCWarning, match=r"at 1 of 4 rungs of prior='model': .* at β = 0.2"):
        _ladder._warn_of_chains("model", np.array([0.0, 0.1, 0.2, 1.0]), draws)


def test_a_warning_that_is_an_error_holds_the_ladder(sampled, monkeypatch):
    monkeypatch.setattr(_ladder, "MOST_R_HAT", 0.0)
    with pytest.raises(nllc.LLCWarning, match="The chains disagree") as told:
        both_ladders(1_000, **WALK)
    xr.testing.assert_equal(told.value.result.data, sampled.data)


@pytest.mark.parametrize(("share", "is_told"), [(0.045, False), (0.055, True)])
def test_rungs_whose_draws_diverge_are_told(share, is_told):
    draws = [chains_of(0, diverging=1.0), chains_of(1), chains_of(2, diverging=share)]
    told = pytest.warns(nllc.LLCWarning, match=r"diverged at 1 of 3 rungs .* 5.5 % .* β = 1 ")
    with told if is_told else contextlib.nullcontext():
        _ladder._warn_of_chains("local", np.array([0.0, 0.1, 1.0]), draws)


def test_the_curve_is_the_thermodynamic_integral_of_its_llc(sampled):
    curve = sampled.free_energy_curve()
    above = curve.isel(inverse_temperature=slice(1, None))
    assert float(curve["excess"][0]) == float(curve["error"][0]) == 0.0
    x = regression_data(1_000)[0]
    for beta, excess, error in zip(
        above["inverse_temperature"], above["excess"], above["error"], strict=True
    ):
        assert abs(float(excess) - excess_of_regression(x, float(beta))) < 4 * float(error)


def test_a_curve_has_no_llc_where_the_loss_of_a_draw_is_infinite():
    """As it may be under the prior; the free energy comes from the other draws of that rung."""
    excess = np.random.default_rng(0).gamma(0.5, [[[2.0]], [[1.5]], [[1.0]]], size=(3, 4, 500))
    excess[0, 1, 7] = np.inf
    ladder = ladder_of(np.array([0.0, 0.5, 1.0]), excess, np.zeros_like(excess))
    curve = ladder.free_energy_curve()
    assert np.isnan(curve[["llc", "llc_error", "ess_bulk"]].isel(inverse_temperature=0)).all()
    assert np.isfinite(curve["free_energy"]).all()
    means = excess[1:].mean(axis=(1, 2)) * [0.5, 1.0]
    np.testing.assert_allclose(curve["llc"][1:], means, rtol=1e-6)


@pytest.mark.parametrize("n", [100, 10_000])
def test_a_singular_model_of_one_parameter_has_the_evidence_of_quadrature(n):
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, 1))
    x, y = rows_of(x, 0.1 * x[:, 0] + rng.normal(size=n))
    a, b = x[:, 0] @ x[:, 0], x[:, 0] @ y

    def joint(w):
        loss = 0.5 * a * w**4 - b * w**2 + 0.5 * y @ y
        return np.exp(0.5 * y @ y - loss - 0.5 * w**2) / np.sqrt(2 * np.pi)

    best = np.sqrt(max(b / a, 0.0))
    integral = 2 * quad(joint, 0.0, 6.0, points=[best, 2 * best + 0.3], limit=500)[0]
    wanted = 0.5 * y @ y + np.log(2 * np.pi) - np.log(integral)
    ladder = run_ladder(square_feature, n, x, y, {"w": best}, prior="model", **WALK)
    found = evidence.free_energy(ladder)
    assert found.error < 0.1
    assert abs(found.value - wanted) < 4 * found.error


def test_wbic_and_local_free_energy_of_a_run_are_their_exact_values(fitted):
    n, llc = len(Y), exact_llc_of_run(OLS, 1.0)
    loss = 0.5 * np.sum((Y - X @ OLS) ** 2) + 0.5 * n * np.log(2 * np.pi)
    for found in (nllc.wbic(fitted), nllc.local_free_energy(fitted)):
        assert found.loss == pytest.approx(loss, rel=1e-6)
        assert abs(found.complexity - llc * np.log(n)) < 4 * found.error
        assert found.error == pytest.approx(
            nllc.summary(fitted).loc["llc", "mcse_mean"] * np.log(n), rel=1e-6
        )
        assert found.error < 0.05 * np.log(n)
        assert abs(found.complexity - 2.5 * np.log(n)) > 4 * found.error  # which BIC adds


@pytest.mark.slow
@pytest.mark.parametrize("n", SIZES)
def test_what_wbic_leaves_out_does_not_grow_with_the_data(n):
    x, y, ols, loss = regression_data(n)
    idata = nllc.estimate_llc(
        jax.random.key(n),
        regression,
        (x, y),
        center=sites(ols),
        num_data=n,
        num_warmup=500,
        progress_bar=False,
    )
    llc = exact.gaussian_linear(x.T @ x / n, num_data=n, localization=1.0).mean
    left_out = 0.5 * np.linalg.slogdet(np.eye(2) + x.T @ x)[1] - llc * np.log(n)
    assert abs(left_out) < 1.5
    found = nllc.wbic(idata)
    assert abs(found.complexity - llc * np.log(n)) < 4 * found.error
    assert found.loss == pytest.approx(loss, rel=1e-6)


def test_each_criterion_is_its_formula():
    llc, order = draws(1.2), np.log(1000)
    error = float(az.mcse(xr.Dataset({"x": (("chain", "draw"), llc)}))["x"])
    idata = result(llc, 50.0, d=6, evaluation_error=0.03)
    found = nllc.local_free_energy(idata)
    assert (found.loss, found.num_data, found.criterion) == (50.0, 1000, "local_free_energy")
    assert found.value == pytest.approx(50.0 + 1.2 * order)
    assert found.complexity == pytest.approx(1.2 * order)
    assert found.error == pytest.approx(np.hypot(error, 0.03) * order)
    two = nllc.local_free_energy(idata, multiplicity=2)
    assert two.value == pytest.approx(found.value - np.log(order))
    assert nllc.local_free_energy(idata, multiplicity=1) == found
    varied = nllc.local_free_energy(idata, estimator="variance")
    assert varied.complexity == pytest.approx(llc.var() * order)
    tempered = nllc.wbic(idata)
    assert tempered.value == pytest.approx(50.0 + 1.2 * order)
    assert tempered.error == pytest.approx(np.hypot(error, 0.03) * order)
    assert tempered.criterion == "wbic"
    by_dimension = evidence.bic(idata)
    assert (by_dimension.value, by_dimension.error) == (pytest.approx(50.0 + 3 * order), 0.0)
    assert by_dimension.criterion == "bic"


@pytest.mark.parametrize(("factor", "refused"), [(0.985, True), (0.995, False), (1.005, False)])
def test_wbic_at_another_temperature_is_refused(factor, refused):
    beta = factor / np.log(1000)
    idata = result(draws(1.2), 50.0, inverse_temperature=beta)
    if not refused:
        assert nllc.wbic(idata).complexity == pytest.approx(1.2 / beta)
        return
    with pytest.raises(ValueError, match=rf"1/log\(n\) = 0.14476; this result has {beta:.5g}"):
        nllc.wbic(idata)
    with pytest.raises(ValueError, match="`estimator` must be one of"):
        nllc.local_free_energy(idata, estimator="median")


def result(llc, loss, *, n=1000, d=2, observed=0.0, **others):
    attrs = attributes(
        {
            "num_data": n,
            "num_parameters": d,
            "inverse_temperature": 1 / np.log(n),
            "localization": 1.0,
            "center_loss": loss,
            "findings": "[]",
            **others,
        }
    )
    lead = ("chain", "draw")
    groups = {
        "posterior": labelled({"llc": llc}, lead=lead, attrs=attrs),
        "sample_stats": labelled({"distance": np.zeros(np.shape(llc))}, lead=lead),
        "observed_data": labelled({"y": np.full(3, observed)}),
    }
    return inference_data(groups, attrs)


def draws(mean, seed=0):
    noise = np.random.default_rng(seed).normal(size=(4, 500))
    return mean + 0.3 * (noise - noise.mean()) / noise.std()


def test_compare_ranks_by_free_energy_with_errors_and_weights(tmp_path):
    results = {"simple": result(draws(1.0), 102.0), "rich": result(draws(2.0, 1), 100.0)}
    table = nllc.compare(results)
    order = np.log(1000)
    assert list(table.columns) == [
        "rank",
        "local_free_energy",
        "p_local_free_energy",
        "local_free_energy_diff",
        "weight",
        "weight_se",
        "se",
        "dse",
        "warning",
        *(["elpd_loo", "p_loo", "elpd_diff", "scale"] if OLD else ["elpd", "p", "elpd_diff"]),
    ]
    assert list(table.index) == ["simple", "rich"]
    assert list(table["rank"]) == [0, 1]
    np.testing.assert_allclose(table["local_free_energy"], [102 + order, 100 + 2 * order])
    np.testing.assert_allclose(table["p_local_free_energy"], [order, 2 * order])
    np.testing.assert_allclose(table["local_free_energy_diff"], [0.0, order - 2.0])
    errors = [nllc.local_free_energy(results[name]).error for name in table.index]
    np.testing.assert_allclose(table["se"], errors)
    np.testing.assert_allclose(table["dse"], [0.0, np.hypot(*errors)])
    wanted = 1 / (1 + np.exp(2.0 - order))
    assert table["weight"].sum() == pytest.approx(1.0)
    assert table["weight"]["simple"] == pytest.approx(wanted, abs=1e-3)
    slope = wanted * (1 - wanted) * np.hypot(*errors)
    np.testing.assert_allclose(table["weight_se"], slope, rtol=0.05)
    assert not table["warning"].any()
    paths = {name: str(tmp_path / f"{name}.nc") for name in results}
    for name, path in paths.items():
        results[name].to_netcdf(path)
    again = nllc.compare({name: az.from_netcdf(path) for name, path in paths.items()})
    np.testing.assert_allclose(again["local_free_energy"], table["local_free_energy"])


@pytest.fixture
def _figures_are_closed():
    yield
    plt.close("all")


DRAWN_BY_ARVIZ = pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")
"""ArviZ 0.23 calls pandas as pandas 4 will not be called."""


def compared():
    results = {"rich": result(draws(2.0, 1), 100.0), "simple": result(draws(1.0), 102.0)}
    return nllc.compare({**results, "richer": result(draws(3.5, 2), 99.0)})


@DRAWN_BY_ARVIZ
@pytest.mark.usefixtures("_figures_are_closed")
def test_arviz_draws_the_comparison():
    """ArviZ 0 draws the log evidence, and ArviZ 1 how much less it is than that of the best."""
    table = compared()
    energy = table["local_free_energy"].to_numpy()
    az.plot_compare(table)
    axes = plt.gca()
    if OLD:
        points, errors = axes.containers[0][0].get_xydata(), table["se"].to_numpy()
        wanted = -energy
    else:
        points, errors = axes.collections[-1].get_offsets(), table["dse"].to_numpy()
        wanted = energy[0] - energy
    np.testing.assert_allclose(points[:, 0], wanted, atol=1e-9)
    assert np.all(np.diff(points[:, 1]) < 0)
    assert [text.get_text() for text in axes.get_yticklabels()] == list(table.index)
    assert "higher is better" in axes.get_title()
    if OLD:
        bars = axes.containers[0][2][0].get_segments()
    else:
        bars = [line.get_xydata() for line in axes.lines[: len(table)]]
    np.testing.assert_allclose([np.ptp(bar[:, 0]) for bar in bars], 2 * errors, rtol=1e-6)


@DRAWN_BY_ARVIZ
@pytest.mark.usefixtures("_figures_are_closed")
@pytest.mark.skipif(not OLD, reason="ArviZ 1 draws no in-sample values")
def test_what_arviz_calls_in_sample_is_the_loss_at_the_center():
    table = compared()
    axes = az.plot_compare(table, insample_dev=True, plot_ic_diff=True)
    at_fit = [line for line in axes.lines if line.get_label() == "In-sample ELPD"][0]
    np.testing.assert_allclose(at_fit.get_xdata(), [-102.0, -100.0, -99.0])


def test_compare_by_other_criteria_and_of_free_energies():
    doubt = Finding("r_hat", 1.3, 1.02, "The chains disagree.", "Raise `num_samples`.")
    results = {
        "a": result(draws(1.0), 102.0, findings=findings_to_json([doubt])),
        "b": result(draws(1.5), 100.0, d=8),
    }
    order = np.log(1000)
    np.testing.assert_allclose(
        nllc.compare(results, "bic").loc[["a", "b"], "bic"], [102 + order, 100 + 4 * order]
    )
    np.testing.assert_allclose(nllc.compare(results, "wbic")["wbic"].loc["b"], 100 + 1.5 * order)
    by_name = nllc.compare(results, multiplicity={"a": 1, "b": 3})
    assert by_name.loc["b", "local_free_energy"] == pytest.approx(
        100 + 1.5 * order - 2 * np.log(order)
    )
    assert list(by_name.loc[["a", "b"], "warning"]) == [True, False]
    energies = {
        k: evidence.FreeEnergy(v, 0.0, 0.0, 10, "free_energy") for k, v in (("x", 3.0), ("y", 1.0))
    }
    table = nllc.compare(energies)
    assert list(table.index) == ["y", "x"]
    assert table["weight"]["y"] == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert table["weight_se"]["y"] < 1e-12


@pytest.mark.parametrize(
    ("results", "settings", "message"),
    [
        ({}, {}, "`results` is empty"),
        ({"a": 0, "b": 1}, {"criterion": "aic"}, "`criterion` must be one of"),
        ({"a": 0, "b": 1}, {"multiplicity": {"a": 1}}, "must be a number or name each of"),
        ({"a": 0}, {"criterion": "wbic", "multiplicity": 2}, "`multiplicity` is for the criterion"),
    ],
)
def test_what_cannot_be_compared_is_said(results, settings, message):
    with pytest.raises(ValueError, match=message):
        nllc.compare({name: result(draws(1.0), 0.0) for name in results}, **settings)


def test_a_result_in_the_place_of_a_dict_is_refused_in_one_line():
    with pytest.raises(TypeError, match="must be a dict") as seen:
        nllc.compare(result(draws(1.0), 0.0))
    assert len(str(seen.value)) < 100


@pytest.mark.parametrize("what", ["localization", "inverse_temperature"])
def test_results_at_other_settings_are_warned_of(what):
    one, other = (result(draws(1.0), 0.0, **{what: value}) for value in (0.1, 0.2))
    with pytest.warns(nllc.LLCWarning, match=f"different `{what}`: .*0.1.*0.2"):
        nllc.compare({"one": one, "other": other})


def test_different_data_are_refused():
    one = result(draws(1.0), 0.0)
    with pytest.raises(ValueError, match="the same `num_data`; got {'a': 1000, 'b': 999}"):
        nllc.compare({"a": one, "b": result(draws(1.0), 0.0, n=999)})
    with pytest.raises(ValueError, match="'a' and 'b' hold different observed data"):
        nllc.compare({"a": one, "b": result(draws(1.0), 0.0, observed=1.0)})
    with pytest.raises(TypeError, match="`results` must be a dict"):
        nllc.compare([one])


def test_bennett_of_gaussians_is_the_ratio_of_their_constants():
    rng = np.random.default_rng(0)
    x0, x1 = rng.normal(size=(4, 2000)), 0.5 * rng.normal(size=(4, 2000))
    low, high = estimators.bennett(1.5 * x0**2, 1.5 * x1**2)
    error = np.hypot(low.influence.std(), high.influence.std()) / np.sqrt(8000)
    assert low.value == high.value
    assert abs(low.value - np.log(2.0)) < 4 * error
    assert error < 0.02
    repeated = [
        estimators.bennett(
            1.5 * rng.normal(size=(1, 500)) ** 2, 0.375 * rng.normal(size=(1, 500)) ** 2
        )[0].value
        for _ in range(400)
    ]
    assert np.std(repeated) == pytest.approx(error * 4, rel=0.15)
    assert not low.doubts
    assert estimators.bennett(50.0 * (x0 - 3) ** 2, 50.0 * x1**2 * 0.01)[0].doubts
    with pytest.raises(ValueError, match="`other_work` be finite"):
        estimators.bennett(x0, np.full((1, 2), np.inf))


@pytest.mark.parametrize("largest", [1e3, 1e30, 1e300])
def test_bennett_finds_its_root_among_works_of_any_size(largest):
    """Of p0 nine tenths have no part in p1: half at a large work, half at an infinite one."""
    work = np.array([0.0, *[largest] * 4, *[np.inf] * 5, largest / 7] * 40).reshape(4, 110)
    low, high = estimators.bennett(work, np.zeros((4, 110)))
    assert low.value == high.value == pytest.approx(np.log(11.0), abs=1e-8)
    with pytest.raises(ValueError, match="`work` is infinite at all 440 draws"):
        estimators.bennett(np.full((4, 110), np.inf), np.zeros((4, 110)))


def test_default_rungs_of_a_wide_prior_start_from_the_draws_whose_loss_is_finite():
    rng = np.random.default_rng(0)
    base = 10.0 ** rng.uniform(2.0, 38.0, size=(4, 500))
    base[:, ::3] = np.inf
    finite = base[np.isfinite(base)]
    rungs = default_rungs(base, 2)
    weights = np.exp(-rungs[0] * (finite - finite.min()))
    assert weights.mean() ** 2 / (weights**2).mean() == pytest.approx(0.5, abs=1e-6)
    assert 1e-30 < rungs[0] < 1e-10
    with pytest.raises(ValueError, match="finite at none of 4 draws at β = 0"):
        default_rungs(np.full((2, 2), np.inf), 2)


@pytest.mark.slow
def test_directions_that_the_data_leave_free_have_the_evidence_of_quadrature():
    """``y = a tanh(b x)`` without signal: two arms, along which the prior is wider than γ."""

    def model(x, y):
        a, b = (numpyro.sample(name, dist.Normal(0.0, 2.0)) for name in "ab")
        with numpyro.plate("N", x.shape[0]):
            numpyro.sample("y", dist.Normal(a * jnp.tanh(b * x), 1.0), obs=y)

    x, y = np.random.default_rng(0).normal(size=(2, 100))
    grid = np.linspace(-12.0, 12.0, 801)
    waves = np.tanh(grid[:, None] * x)
    losses = 0.5 * np.outer(grid**2, np.sum(waves**2, axis=1)) - np.outer(grid, waves @ y)
    losses += 0.5 * y @ y + 50.0 * np.log(2 * np.pi)

    def exact(precision):
        logs = norm(0.0, precision**-0.5).logpdf(grid)
        return -logsumexp(logs[:, None] + logs - losses) - 2 * np.log(grid[1] - grid[0])

    local = nllc.localize(model, center={"a": 0.0, "b": 0.0})
    settings = {"prior": "both", "num_samples": 2000, "progress_bar": False}
    ladder = evidence.temperature_ladder(jax.random.key(0), local, (x, y), **settings)
    for prior, precision in (("local", 1.0), ("model", 0.25)):
        found = ladder.free_energy(prior=prior)
        assert abs(found.value - exact(precision)) < 4 * found.error
        assert abs(found.value - exact(1.25 - precision)) > 4 * found.error


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Draws diverged:numpyro_llc.LLCWarning")  # 5 % at one rung
@pytest.mark.parametrize("width", [10.0, 200.0])
def test_counts_under_wide_priors_have_the_evidence_of_quadrature(width):
    """Losses up to 10³⁸ nats, and beyond what float32 holds."""
    counts = np.array([2.0, 0.0, 3.0, 1.0, 2.0, 4.0])

    def model(y, width):
        w = numpyro.sample("w", dist.Normal(0.0, width))
        with numpyro.plate("N", y.shape[0]):
            numpyro.factor("log_likelihood", y * w - jnp.exp(w))

    local = nllc.localize(
        model, center={"w": np.log(counts.mean())}, likelihood_factors="log_likelihood"
    )
    ladder = evidence.temperature_ladder(
        jax.random.key(0), local, (counts, width), prior="model", progress_bar=False
    )
    found = evidence.free_energy(ladder)
    integral = quad(
        lambda w: np.exp(counts.sum() * w - 6 * np.exp(w)) * norm(0, width).pdf(w), -8, 4
    )[0]
    assert found.error < 0.15
    assert abs(found.value + np.log(integral)) < 4 * found.error


@pytest.mark.slow
def test_multiplicity_of_a_ladder():
    problem = zoo.load("product_of_two", 1_000)
    ladder = evidence.temperature_ladder(
        jax.random.key(0),
        nllc.localize(problem.model, center=problem.center, num_data=1_000),
        problem.model_args,
        inverse_temperatures=np.geomspace(0.003, 1.0, 9),
        num_warmup=500,
        num_samples=2000,
        progress_bar=False,
    )
    table = evidence.fit_multiplicity(ladder)
    row = table.loc[2]
    assert abs(row["llc"] - 0.5) < 4 * row["error"]
    assert row["error"] < 0.1
    assert row["p_value"] > 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior": "flat"}, "`prior` must be one of"),
        ({"kernel": "sgld"}, "takes minibatches; a ladder needs exact draws"),
        ({"inverse_temperatures": [1.0, 0.5]}, "must be increasing"),
        ({"inverse_temperatures": [0.0, 0.5]}, "must be finite and positive"),
        ({"localization": 0.0}, "`localization` must be positive"),
    ],
)
def test_bad_ladders_are_refused(settings, message):
    x, y, ols, _ = regression_data(100)
    settings = {"localization": 1.0, **settings}
    gamma = settings.pop("localization")
    local = nllc.localize(regression, center=sites(ols), localization=gamma)
    with pytest.raises(ValueError, match=message):
        evidence.temperature_ladder(jax.random.key(0), local, (x, y), **settings)


def test_ladders_that_do_not_suffice_are_said(fitted, tmp_path):
    ladder = gaussian_ladder(0, 100)
    with pytest.raises(ValueError, match="needs a ladder that ends at β = 1"):
        evidence.free_energy(ladder.data.isel(inverse_temperature=slice(0, -1)))
    with pytest.raises(ValueError, match="`prior` must be 'local' or 'model'"):
        evidence.free_energy(ladder, prior="flat")
    alone = ladder.data.sel(prior="local").assign_attrs(prior="local")
    with pytest.raises(ValueError, match="`prior='model'` needs draws under that .* prior='both'"):
        evidence.free_energy(alone, prior="model")
    of_model = ladder.data.sel(prior="model").assign_attrs(prior="model")
    with pytest.raises(ValueError, match="`prior='local'` needs draws under that prior"):
        evidence.free_energy_curve(of_model, prior="local")
    with pytest.raises(TypeError, match="`ladder` must be what temperature_ladder returned"):
        evidence.free_energy(fitted)
    far = gaussian_ladder(0, 100, np.array([0.0, 3e3]))
    sparse = far.data.assign_coords(inverse_temperature=[0.0, 1.0])
    sparse["excess_loss"] = 3e3 * sparse["excess_loss"]
    with pytest.warns(nllc.LLCWarning, match="Give more `inverse_temperatures`"):
        evidence.free_energy(sparse)
    nowhere = ladder.data.copy(deep=True)
    nowhere["excess_loss"][:, 0] += 1e6  # no overlap at all: one finding, and nothing from NumPy
    with pytest.warns(nllc.LLCWarning, match="overlap by 0 ") as told:
        assert np.isnan(evidence.free_energy(nowhere).error)
    assert len(told) == 1
    ladder.data.to_netcdf(tmp_path / "ladder.nc", engine="h5netcdf")
    again = xr.load_dataset(tmp_path / "ladder.nc", engine="h5netcdf")
    wanted = evidence.free_energy(ladder)
    assert evidence.free_energy(again) == TemperatureLadder(again).free_energy() == wanted


def flat():
    return numpyro.sample("w", dist.ImproperUniform(dist.constraints.real, (), (2,)))


def normal():
    return numpyro.sample("w", dist.Normal(0.0, 2.0).expand([2]).to_event(1))


def scaled():
    with numpyro.handlers.scale(scale=0.5):
        return normal()


def masked():
    with numpyro.handlers.mask(mask=False):
        return normal()


def masked_distribution():
    return numpyro.sample(
        "w", dist.Normal(0.0, 2.0).expand([2]).mask(jnp.array([True, False])).to_event(1)
    )


@pytest.mark.parametrize(
    "weights",
    [lambda: numpyro.param("w", jnp.zeros(2)), flat, scaled, masked, masked_distribution],
)
def test_a_model_without_a_proper_prior_has_no_evidence(weights):
    def model(x, y):
        w = weights()
        with numpyro.plate("N", x.shape[0]):
            numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)

    x, y, ols, _ = regression_data(100)
    local = nllc.localize(model, center={"w": ols})
    for prior in ("model", "both"):
        with pytest.raises(ValueError, match=rf"`prior='{prior}'` needs .*\['w'\] have none"):
            evidence.temperature_ladder(jax.random.key(0), local, (x, y), prior=prior)


def test_a_factor_on_the_prior_leaves_its_integral_unknown():
    def model(x, y):
        w = normal()
        numpyro.factor("narrow", -jnp.sum(w**2))
        with numpyro.plate("N", x.shape[0]):
            numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)

    x, y, ols, _ = regression_data(100)
    local = nllc.localize(model, center={"w": ols}, prior_factors="narrow")
    for prior in ("model", "both"):
        with pytest.raises(ValueError, match=r"\['narrow'\] of `prior_factors` multiply it"):
            evidence.temperature_ladder(jax.random.key(0), local, (x, y), prior=prior)


def test_a_handler_that_changes_no_prior_is_no_hindrance():
    def model(x, y):
        with numpyro.handlers.scale(scale=1.0), numpyro.handlers.mask(mask=True):
            w = normal()
        with numpyro.handlers.scale(scale=3.0), numpyro.plate("N", x.shape[0]):
            numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)

    x, y, ols, _ = regression_data(100)
    assert not nllc.localize(model, center={"w": ols}).read((x, y), None).improper


@pytest.mark.slow
def test_model_comparison_example(tmp_path, capsys):
    example = runpy.run_path(str(EXAMPLES / "model_comparison.py"))
    path = tmp_path / "comparison.png"
    table = example["main"](
        ["--most=1", "--num-samples=100", "--num-warmup=200", "--num-starts=2", f"--picture={path}"]
    )
    # One normal of free mean and scale: the loss of standardized data is known.
    assert table.loc[1, "loss"] == pytest.approx(41.0 * (1 + np.log(2 * np.pi)), rel=1e-4)
    assert abs(table.loc[1, "BIC"] - table.loc[1, "evidence"]) < 2.0
    assert abs(table.loc[1, "WAIC"] - table.loc[1, "LOO"]) < 0.2
    assert "evidence" in capsys.readouterr().out
    assert path.stat().st_size > 10_000


HESSIAN = np.array([[40.0, 10.0], [10.0, 5.0]])
GAMMAS, SHIFT, SCALE = np.array([1.0, 2.0]), np.array([0.6, -0.3]), 0.8
EXACT_BETAS = np.array([0.0, 0.03, 0.1, 0.3, 1.0])


def gaussian_ladder(seed, draws, betas=EXACT_BETAS, *, scale=SCALE):
    """Exact draws of ``½ z'Hz`` around SHIFT, γ by component; the prior is normal at 0."""
    rng = np.random.default_rng(seed)
    z = np.empty((2, len(betas), 4, draws, 2))
    for k, beta in enumerate(betas):
        precisions = np.diag(GAMMAS), np.eye(2) / scale**2
        means = np.zeros(2), -SHIFT / scale**2
        for half, (precision, slope) in enumerate(zip(precisions, means, strict=True)):
            covariance = np.linalg.inv(beta * HESSIAN + precision)
            noise = rng.normal(size=(4, draws, 2)) @ np.linalg.cholesky(covariance).T
            z[half, k] = covariance @ slope + noise
    return ladder_of(
        betas,
        0.5 * np.einsum("...i,ij,...j->...", z, HESSIAN, z),
        0.5 * z**2 @ GAMMAS,
        prior_potential=-norm(scale=scale).logpdf(z + SHIFT).sum(axis=-1),
        center_losses=[3.0, 4.0],
        log_normalizer=0.5 * np.log(GAMMAS / (2 * np.pi)).sum(),
    )


def exact_excess(prior, beta, scale=SCALE):
    if prior == "local":
        return 0.5 * np.log(np.linalg.det(beta * HESSIAN + np.diag(GAMMAS)) / GAMMAS.prod())
    precision = beta * HESSIAN + np.eye(2) / scale**2
    slope = SHIFT / scale**2
    bend = 0.5 * SHIFT @ SHIFT / scale**2 - 0.5 * slope @ np.linalg.solve(precision, slope)
    return bend + 0.5 * np.log(np.linalg.det(precision) * scale**4)


def exact_llc(prior, beta):
    """``d excess / d ln β``."""
    up, down = (exact_excess(prior, beta * np.exp(step)) for step in (1e-4, -1e-4))
    return (up - down) / 2e-4


@pytest.mark.parametrize("prior", ["local", "model"])
def test_the_curve_of_exact_draws_is_exact_with_the_error_it_states(prior):
    curve = gaussian_ladder(0, 5000).free_energy_curve(prior=prior)
    wanted = np.array([exact_excess(prior, beta) for beta in EXACT_BETAS])
    z = ((curve["excess"] - wanted) / curve["error"]).to_numpy()[1:]
    assert np.abs(z).max() < 4
    assert float(curve["error"].max()) < 0.03
    np.testing.assert_allclose(curve["free_energy"] - curve["excess"], 7.0 * EXACT_BETAS)
    assert float(curve["excess"][0]) == float(curve["error"][0]) == 0.0
    llc = np.array([exact_llc(prior, max(beta, 1e-9)) for beta in EXACT_BETAS])
    assert np.abs((curve["llc"] - llc) / curve["llc_error"]).to_numpy()[1:].max() < 4
    assert float(curve["llc_error"].max()) < 0.03
    assert np.all(curve["r_hat"][1:] < 1.02)
    assert curve.attrs["prior"] == prior
    found = gaussian_ladder(0, 5000).free_energy(prior=prior)
    assert (found.value, found.error) == tuple(
        float(curve[name][-1]) for name in ("free_energy", "error")
    )
    assert (found.loss, found.num_data, found.criterion) == (7.0, 100, "free_energy")


@pytest.mark.parametrize("prior", ["local", "model"])
def test_stated_errors_of_the_curve_are_its_spread(prior):
    betas = np.array([0.0, 0.2, 1.0])
    ladders = [gaussian_ladder(seed, 50, betas) for seed in range(1, 41)]
    curves = [evidence.free_energy_curve(ladder, prior=prior) for ladder in ladders]
    for name, error in (("excess", "error"), ("llc", "llc_error")):
        spread = np.std([curve[name] for curve in curves], axis=0)[1:]
        stated = np.sqrt(np.mean([curve[error] ** 2 for curve in curves], axis=0))[1:]
        np.testing.assert_allclose(stated / spread, 1.0, atol=4 * 0.11)  # 40 repetitions


@pytest.mark.parametrize("scale", [3.0, 30.0])
def test_a_prior_wider_than_the_gaussian_has_its_exact_free_energy(scale):
    """Precisions of 1/9 and 1/900 where γ is 1 and 2: weights between them have no variance."""
    data = gaussian_ladder(0, 2000, scale=scale).data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)  # of the rungs below β = 1
        curve = evidence.free_energy_curve(data, prior="model")
    wanted = np.array([exact_excess("model", beta, scale) for beta in EXACT_BETAS])
    known = np.isfinite(curve["excess"].to_numpy())
    assert known[[0, -1]].all()
    z = ((curve["excess"] - wanted) / curve["error"]).to_numpy()[known]
    assert np.abs(z[1:]).max() < 4
    assert float(curve["error"][-1]) < 0.05


def test_rungs_at_which_gaussian_and_prior_hardly_overlap_have_no_value():
    """Where the data say little they are two Gaussians, one a thousand times as wide."""
    betas, scale = np.array([0.0, 1e-6, 1e-4, 0.03, 1.0]), 1e3
    data = gaussian_ladder(0, 500, betas, scale=scale).data
    grid = np.stack(np.meshgrid(*[np.linspace(-9, 9, 601)] * 2, indexing="ij"), axis=-1)
    overlap = []
    for beta in betas:
        precision = beta * HESSIAN + np.eye(2) / scale**2
        mean = np.linalg.solve(precision, -SHIFT / scale**2)
        one = multivariate_normal(np.zeros(2), np.linalg.inv(beta * HESSIAN + np.diag(GAMMAS)))
        two = multivariate_normal(mean, np.linalg.inv(precision))
        p, q = one.pdf(grid), two.pdf(grid)
        overlap.append(np.sum(p * q / (p + q + 1e-300)) * 0.03**2)
    is_apart = np.array(overlap) < 0.02
    is_apart[0] = False  # both priors are 1 there
    assert is_apart.sum() == 2
    with pytest.warns(nllc.LLCWarning, match="too far apart at 2 of 5 rungs, up to β = 0.0001"):
        curve = evidence.free_energy_curve(data, prior="model")
    for name in ("excess", "error", "free_energy"):
        np.testing.assert_array_equal(np.isnan(curve[name]), is_apart)
    found = evidence.free_energy(data, prior="model")  # β = 1 alone counts
    assert abs(found.value - 7.0 - exact_excess("model", 1.0, scale)) < 4 * found.error
    moved = data.copy(deep=True)
    moved["prior_potential"][0] += 60.0
    with pytest.raises(ValueError, match="too far apart at β = 1: .* Lower `localization`"):
        evidence.free_energy(moved, prior="model")


DECADES = np.concatenate([[0.0], np.geomspace(1e-3, 10.0, 12)])


def ladder_with(llc_at):
    """Draws whose mean, corrected for γ, is exactly ``llc_at(ln β)`` at every rung."""
    quantiles = gamma.ppf((np.arange(800) + 0.5) / 800, 0.5)
    rng = np.random.default_rng(0)
    spread = np.stack([rng.permutation(quantiles).reshape(4, 200) for _ in DECADES])
    spread = 0.1 * (spread - quantiles.mean())
    betas = DECADES[1:, None, None]
    x = llc_at(np.log(betas)) - 0.7 * spread[0].var() + spread[1:]
    return ladder_of(DECADES, np.concatenate([spread[:1], x / betas]), 0.7 * spread + 2.0)


def error_of_rungs(ladder):
    """Of ``X + (X - μ)(P - p)``, at each rung above zero."""
    errors = []
    for beta in DECADES[1:]:
        rung = dataset_of(ladder).sel(inverse_temperature=beta)
        x, p = beta * rung["excess_loss"], rung["penalty"]
        x, p = x - x.mean(), p - p.mean()
        errors.append(float(az.mcse(xr.Dataset({"x": x + x * p}))["x"]))
    return np.array(errors)


def test_the_fit_finds_the_curve_that_the_draws_were_given():
    """λ, its error, and which rungs take part, of ``λ - (m - 1)/(ln c + C)`` and ``λ - A c^-a``."""
    start = np.log(DECADES[1])

    def logarithm(order):
        return 0.7 - 2.0 / (order - start + 4.0)

    ladder = ladder_with(logarithm)
    table = ladder.multiplicity(least_inverse_temperature=1e-6)
    error = error_of_rungs(ladder)
    order = np.log(DECADES[1:]) - start
    slopes = np.stack([np.ones(12), 2.0 / (order + 4.0) ** 2], axis=1) / error[:, None]
    assert table.index.name == "multiplicity"
    assert table.index[0] == 3
    assert table.loc[3, "llc"] == pytest.approx(0.7, abs=1e-4)
    assert table.loc[3, "error"] == pytest.approx(
        np.sqrt(np.linalg.inv(slopes.T @ slopes)[0, 0]), rel=1e-2
    )
    assert table.loc[3, "chi_square"] == pytest.approx(0.0, abs=1e-4)
    assert table.loc[3, "p_value"] == pytest.approx(1.0, abs=1e-6)
    assert list(table.sort_index()["degrees"]) == [9, 10, 10]
    assert table["chi_square"].is_monotonic_increasing
    np.testing.assert_allclose(table["p_value"], chi2.sf(table["chi_square"], table["degrees"]))
    kept = np.sum(logarithm(np.log(DECADES[1:])) > 0.6 * logarithm(np.log(10.0)))
    assert 5 < kept < 12
    by_default = ladder.multiplicity(most=2).sort_index()
    assert list(by_default["degrees"]) == [kept - 3, kept - 2]
    power = evidence.fit_multiplicity(
        ladder_with(lambda order: 0.5 - 0.2 * np.exp(-0.4 * (order - start))), most=1
    )
    assert power.loc[1, "llc"] == pytest.approx(0.5, abs=1e-4)
    assert power.loc[1, "chi_square"] < 1e-3


def test_the_chi_square_is_in_units_of_the_errors_of_the_rungs():
    ladder = ladder_with(lambda order: 0.5 + 0.0 * order).data
    with pytest.raises(ValueError, match="Five rungs are needed to fit m; 4 are left"):
        evidence.fit_multiplicity(ladder, least_inverse_temperature=0.99 * DECADES[-4])
    assert len(evidence.fit_multiplicity(ladder, least_inverse_temperature=0.99 * DECADES[-5])) == 3
    with pytest.raises(ValueError, match="`ladder` must be of prior='local'"):
        evidence.fit_multiplicity(ladder.assign_attrs(prior="model"))
    error = error_of_rungs(ladder)
    ladder["excess_loss"][6] += 5.0 * error[5] / DECADES[6]
    table = evidence.fit_multiplicity(ladder, most=1)
    values = 0.5 + 5.0 * error * (np.arange(12) == 5)
    level = np.sum(values / error**2) / np.sum(1 / error**2)
    constant = np.sum(((values - level) / error) ** 2)
    assert 0.8 * constant < table.loc[1, "chi_square"] <= 1.001 * constant


@pytest.mark.parametrize(("dimension", "ratio"), [(1, 4.0), (2, 2 + np.sqrt(2)), (20, None)])
def test_default_rungs_keep_half_of_the_draws_from_one_to_the_next(dimension, ratio):
    base = 1e4 * np.random.default_rng(0).gamma(dimension / 2, size=(4, 2000))
    rungs = default_rungs(base + 7.0, dimension)
    assert rungs[-1] == 1.0
    weights = np.exp(-rungs[0] * (base - base.min()))
    assert weights.mean() ** 2 / (weights**2).mean() == pytest.approx(0.5, abs=1e-6)
    steps = rungs[1:] / rungs[:-1]
    np.testing.assert_allclose(steps, steps[0])
    left = ((2 * steps[0] - 1) / steps[0] ** 2) ** (dimension / 2)
    assert left >= 0.5 - 1e-9
    wider = rungs[0] ** (-1 / (len(rungs) - 2))  # with one rung less
    assert wider > 4.0 or ((2 * wider - 1) / wider**2) ** (dimension / 2) < 0.5
    if ratio is not None:
        assert steps[0] <= ratio + 1e-9
    assert list(default_rungs(1e-3 * base / 1e4, dimension)) == [1.0]
