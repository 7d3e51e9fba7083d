"""Free energies against exact evidence, and their comparison."""

import runpy
from pathlib import Path

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy.integrate import quad
from scipy.stats import multivariate_normal

import numpyro_llc as nllc
from numpyro_llc import estimators, exact, zoo
from numpyro_llc.inference_data import attributes, inference_data, labelled

EXAMPLES = Path(__file__).parents[1] / "examples"
SIZES = (100, 1_000, 10_000)
RUNGS = np.geomspace(1e-4, 1.0, 9)


def regression(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("N", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


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


def ladder_of(model, n, x, y, center, **settings):
    settings = {"num_warmup": 300, "num_samples": 500, **settings}
    return nllc.temperature_ladder(
        jax.random.key(n),
        model,
        (x, y),
        center={"w": center},
        num_data=n,
        inverse_temperatures=RUNGS,
        progress_bar=False,
        **settings,
    )


def evidence(x, y, scale=2.0):
    """-log p(y) of the conjugate model, a normal."""
    covariance = np.eye(len(y)) + scale**2 * x @ x.T
    return -multivariate_normal(np.zeros(len(y)), covariance).logpdf(y)


@pytest.mark.parametrize("n", SIZES)
def test_ladder_of_the_prior_gives_the_evidence_of_conjugate_regression(n):
    x, y, ols, loss = regression_data(n)
    found = nllc.free_energy(ladder_of(regression, n, x, y, ols, prior="model"))
    assert found.loss == pytest.approx(loss, rel=1e-6)
    assert found.error < 0.15
    assert abs(found.value - evidence(x, y)) < 4 * found.error
    assert abs(found.value - evidence(x, y, scale=1.0)) > 4 * found.error


@pytest.fixture(scope="module")
def local_ladders():
    of = {n: regression_data(n)[:3] for n in SIZES}
    return {n: ladder_of(regression, n, *data) for n, data in of.items()}


@pytest.mark.parametrize("n", SIZES)
def test_local_ladder_gives_both_free_energies(n, local_ladders):
    x, y, _, loss = regression_data(n)
    local = nllc.free_energy(local_ladders[n])
    wanted = loss + 0.5 * np.linalg.slogdet(np.eye(2) + x.T @ x)[1]
    assert abs(local.value - wanted) < 4 * local.error
    model = nllc.free_energy(local_ladders[n], prior="model")
    assert abs(model.value - evidence(x, y)) < 4 * model.error
    assert abs(wanted - evidence(x, y)) > 4 * max(local.error, model.error)


def test_the_curve_is_the_thermodynamic_integral_of_its_llc(local_ladders):
    curve = nllc.free_energy_curve(local_ladders[1_000])
    above = curve.isel(inverse_temperature=slice(1, None))
    order = np.log(above["inverse_temperature"].to_numpy())
    assert float(curve["excess"][0]) == float(curve["error"][0]) == 0.0
    rise = float(above["excess"][-1] - above["excess"][0])
    assert rise == pytest.approx(np.trapezoid(above["llc"], order), rel=0.03)
    x = regression_data(1_000)[0]
    for beta, excess, error in zip(
        above["inverse_temperature"], above["excess"], above["error"], strict=True
    ):
        wanted = 0.5 * np.linalg.slogdet(np.eye(2) + float(beta) * x.T @ x)[1]
        assert abs(float(excess) - wanted) < 4 * float(error)


@pytest.mark.parametrize("n", SIZES)
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
    ladder = ladder_of(square_feature, n, x, y, best, prior="model", num_samples=1000)
    found = nllc.free_energy(ladder)
    assert found.error < 0.1
    assert abs(found.value - wanted) < 4 * found.error


def llc_of_regression(n, **settings):
    x, y, ols, _ = regression_data(n)
    return nllc.estimate_llc(
        jax.random.key(n),
        regression,
        (x, y),
        center={"w": ols},
        num_data=n,
        num_warmup=500,
        progress_bar=False,
        **settings,
    )


@pytest.mark.parametrize("n", SIZES)
def test_wbic_and_local_free_energy_are_their_exact_values(n):
    x, y, ols, loss = regression_data(n)
    idata = llc_of_regression(n)
    llc = exact.gaussian_linear(x.T @ x / n, num_data=n, localization=1.0).mean
    for found in (nllc.wbic(idata), nllc.local_free_energy(idata)):
        assert found.loss == pytest.approx(loss, rel=1e-6)
        assert abs(found.complexity - llc * np.log(n)) < 4 * found.error
        assert found.error < 0.15 * np.log(n)
        assert found.value == pytest.approx(found.loss + found.complexity)
        # The order-1 constant of the docstring, here in closed form: the same at every n.
        exact_free_energy = loss + 0.5 * np.linalg.slogdet(np.eye(2) + x.T @ x)[1]
        assert abs(found.value - exact_free_energy) < 3.0
    log_log = nllc.local_free_energy(idata, multiplicity=2).value
    assert log_log == pytest.approx(found.value - np.log(np.log(n)))
    assert nllc.bic(idata).complexity == pytest.approx(np.log(n))
    assert nllc.bic(idata).error == 0.0


def test_wbic_at_another_temperature_is_refused():
    idata = llc_of_regression(100, inverse_temperature=1.0)
    with pytest.raises(ValueError, match=r"1/log\(n\) = 0.21715; this result has 1"):
        nllc.wbic(idata)
    with pytest.raises(ValueError, match="`estimator` must be one of"):
        nllc.local_free_energy(idata, estimator="median")
    assert nllc.local_free_energy(idata, estimator="variance").complexity > 0


def result(llc, loss, *, n=1000, d=2, observed=0.0, findings="[]"):
    attrs = attributes(
        {
            "num_data": n,
            "num_parameters": d,
            "inverse_temperature": 1 / np.log(n),
            "localization": 1.0,
            "center_loss": loss,
            "findings": findings,
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
        "scale",
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


def test_compare_by_other_criteria_and_of_free_energies():
    results = {
        "a": result(draws(1.0), 102.0, findings='[{"check": "x"}]'),
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
        k: nllc.FreeEnergy(v, 0.0, 0.0, 10, "free_energy") for k, v in (("x", 3.0), ("y", 1.0))
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
    with pytest.raises(ValueError, match="`other_work` finite"):
        estimators.bennett(x0, np.full((1, 2), np.inf))


def test_multiplicity_of_a_ladder():
    problem = zoo.load("product_of_two", 1_000)
    ladder = nllc.temperature_ladder(
        jax.random.key(0),
        problem.model,
        problem.model_args,
        center=problem.center,
        num_data=1_000,
        inverse_temperatures=np.geomspace(0.003, 1.0, 9),
        num_warmup=500,
        num_samples=2000,
        progress_bar=False,
    )
    table = nllc.fit_multiplicity(ladder)
    row = table.loc[2]
    assert abs(row["llc"] - 0.5) < 4 * row["error"]
    assert row["p_value"] > 1e-3
    with pytest.raises(ValueError, match="Five rungs are needed"):
        nllc.fit_multiplicity(ladder, least_inverse_temperature=0.5)


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
    with pytest.raises(ValueError, match=message):
        nllc.temperature_ladder(
            jax.random.key(0), regression, (x, y), center={"w": ols}, **settings
        )


def test_ladders_that_do_not_suffice_are_said(local_ladders, tmp_path):
    ladder = local_ladders[10_000]
    with pytest.raises(ValueError, match="needs a ladder that ends at β = 1"):
        nllc.free_energy(ladder.isel(inverse_temperature=slice(0, -1)))
    with pytest.raises(ValueError, match="`prior` must be 'local' or 'model'"):
        nllc.free_energy(ladder, prior="flat")
    with pytest.raises(TypeError, match="`ladder` must be what temperature_ladder returned"):
        nllc.free_energy(llc_of_regression(100))
    sparse = ladder.isel(inverse_temperature=[0, -1])
    with pytest.warns(nllc.LLCWarning, match="Give more `inverse_temperatures`"):
        nllc.free_energy(sparse)
    ladder.to_netcdf(tmp_path / "ladder.nc", engine="h5netcdf")
    again = nllc.free_energy(xr.load_dataset(tmp_path / "ladder.nc", engine="h5netcdf"))
    assert again == nllc.free_energy(ladder)


def flat():
    return numpyro.sample("w", dist.ImproperUniform(dist.constraints.real, (), (2,)))


@pytest.mark.parametrize("weights", [lambda: numpyro.param("w", jnp.zeros(2)), flat])
def test_a_model_without_a_proper_prior_has_no_evidence(weights):
    def model(x, y):
        w = weights()
        with numpyro.plate("N", x.shape[0]):
            numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)

    x, y, ols, _ = regression_data(100)
    with pytest.raises(ValueError, match=r"\['w'\] have none"):
        nllc.temperature_ladder(jax.random.key(0), model, (x, y), center={"w": ols}, prior="model")


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
