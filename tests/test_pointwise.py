"""Losses of each datum, streamed: against what stores everything, ArviZ, and exact values."""

from types import SimpleNamespace

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from exact_ladders import quantiles
from metropolis import AtManyScales, Metropolis
from numpyro.infer import MCMC, NUTS
from scipy.integrate import quad
from scipy.stats import norm

import numpyro_llc as nllc
from numpyro_llc import estimators, pointwise
from numpyro_llc.inference_data import group_of, labelled, posterior
from numpyro_llc.pointwise import PointwiseStatistics, _losses
from numpyro_llc.pointwise._statistics import _weights

RNG = np.random.default_rng(0)
N = 300
X = RNG.normal(size=(N, 2)) * [1.0, 0.5]
Y = X @ [1.0, -1.0] + RNG.normal(size=N)
OLS = np.linalg.lstsq(X, Y, rcond=None)[0]


def regression(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 10.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("N", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


LENGTHS = {
    "kernel": AtManyScales(0.5),
    "num_warmup": 100,
    "num_samples": 30_000,
    "thinning": 60,
}


def run(beta=None, **settings):
    """Of 500 draws that hardly hang together."""
    return nllc.estimate_llc(
        jax.random.key(0),
        regression,
        (X, Y),
        inverse_temperature=beta,
        progress_bar=False,
        **{"center": {"w": OLS}, "log_likelihood": True, **LENGTHS, **settings},
    )


@pytest.fixture(scope="module")
def at_one():
    return run(1.0, localization=0.01)


@pytest.fixture(scope="module")
def tempered():
    return run(localization=0.01)


def of_draws(sites, **attrs):
    """A posterior of draws ``[chain, draw, ...]`` that no run has recorded."""
    return {"posterior": labelled(sites, lead=("chain", "draw"), attrs=attrs)}


def losses_of(idata, model=regression, **settings):
    return pointwise.pointwise_losses(idata, model, (X, Y), **settings)


def stored(idata):
    """-log likelihood [chain, draw, datum] that the result holds."""
    name = "log_likelihood" if group_of(idata, "log_likelihood") else "tempered_log_likelihood"
    return -group_of(idata, name)["y"].to_numpy().astype(float)


SMALL = 8 * 4 * 2000 * 7
"""Bytes for blocks of seven data."""


@pytest.mark.parametrize("max_memory", [SMALL, 2**27])
def test_blocks_are_the_losses_that_are_stored(at_one, max_memory):
    losses = losses_of(at_one, max_memory=max_memory)
    assert losses.block_rows == (7 if max_memory == SMALL else N)
    seen = np.zeros(N)
    for rows, excess, reference in losses:
        seen[rows] += 1
        wanted = stored(at_one)[..., rows]
        np.testing.assert_allclose(excess + reference, wanted, rtol=2e-5, atol=2e-5)
        assert excess.shape[2] <= losses.block_rows
    np.testing.assert_array_equal(seen, 1)


def test_statistics_are_those_of_all_draws_and_data_at_once(at_one):
    found = pointwise.pointwise_statistics(losses_of(at_one, max_memory=SMALL))
    all_losses = stored(at_one)
    flat = all_losses.reshape(-1, N)
    np.testing.assert_allclose(found["mean_loss"], flat.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found["loss_variance"], flat.var(axis=0), rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(found["log_density"], np.log(np.exp(-flat).mean(axis=0)), rtol=1e-4)
    variance = float(found["functional_variance"])
    assert variance == pytest.approx(flat.var(axis=0).sum(), rel=1e-3)
    by_draw = ((all_losses - flat.mean(axis=0)) ** 2).sum(axis=2)
    assert float(found["error"]) == pytest.approx(float(az.mcse(by_draw)), rel=1e-3)
    assert found.attrs["num_draws"] == 2000


def test_stored_statistics_say_the_same_as_those_at_hand(tempered, tmp_path):
    found = pointwise.pointwise_statistics(losses_of(tempered))
    found.data.to_netcdf(tmp_path / "statistics.nc", engine="h5netcdf")
    stored_data = xr.load_dataset(tmp_path / "statistics.nc", engine="h5netcdf")
    again = PointwiseStatistics(stored_data)
    nu, beta = found.singular_fluctuation().value, 1 / np.log(N)
    assert again.singular_fluctuation() == found.singular_fluctuation()
    assert pointwise.singular_fluctuation(stored_data) == found.singular_fluctuation()
    for curve, size in ((again.learning_curve(1.5), N), (again.learning_curve(1.5, num_data=9), 9)):
        wanted = pointwise.learning_curve(1.5, nu, size, inverse_temperature=beta)
        np.testing.assert_allclose(curve, wanted)
        assert list(curve.index) == list(wanted.index)


def test_waic_is_arvizs_on_the_same_draws(at_one):
    found = pointwise.pointwise_statistics(losses_of(at_one, max_memory=SMALL)).waic()
    if hasattr(az, "waic"):
        wanted = az.waic(at_one)
        for name in ("elpd_waic", "se", "p_waic"):
            assert found[name] == pytest.approx(wanted[name], rel=1e-4), name
        for name in ("n_samples", "n_data_points", "warning"):
            assert found[name] == wanted[name], name
    flat = stored(at_one).reshape(-1, N)
    by_datum = np.log(np.exp(-flat).mean(axis=0)) - flat.var(axis=0)
    assert found["elpd_waic"] == pytest.approx(by_datum.sum(), rel=1e-5)
    assert found["se"] == pytest.approx(np.sqrt(N * by_datum.var()), rel=1e-4)


@pytest.mark.parametrize(("variance", "warns"), [(0.39, False), (0.41, True)])
def test_waic_is_its_formula_and_warns_of_a_datum_that_varies(variance, warns):
    by_datum = np.array([-1.0, -2.0, -4.0]), np.array([0.1, variance, 0.2])
    statistics = xr.Dataset(
        {
            "log_density": ("datum", by_datum[0]),
            "loss_variance": ("datum", by_datum[1]),
            "weight": ("datum", np.ones(3)),
            "functional_variance": by_datum[1].sum(),
        },
        attrs={"inverse_temperature": 1.0, "num_draws": 40},
    )
    found = pointwise.waic(statistics)
    own = by_datum[0] - by_datum[1]
    assert found["elpd_waic"] == pytest.approx(own.sum())
    assert found["se"] == pytest.approx(np.sqrt(3 * own.var()))
    assert found["p_waic"] == pytest.approx(0.3 + variance)
    assert (found["n_samples"], found["n_data_points"]) == (40, 3)
    assert found["warning"] == warns


def test_loo_in_blocks_is_arvizs_of_the_whole(at_one):
    found = pointwise.pointwise_statistics(losses_of(at_one, max_memory=SMALL), loo=True)
    whole = az.loo(at_one, pointwise=True)
    total = whole.elpd if hasattr(whole, "elpd") else whole.elpd_loo
    assert float(found["elpd_loo"].sum()) == pytest.approx(float(total), rel=1e-4)
    np.testing.assert_allclose(found["pareto_k"], whole.pareto_k, atol=0.02)
    assert float(found["elpd_loo"].sum()) == pytest.approx(
        pointwise.waic(found)["elpd_waic"], abs=0.2
    )


def level(y, weights):
    w = numpyro.sample("w", dist.Normal(0.0, 10.0))
    with numpyro.plate("N", y.shape[0]), numpyro.handlers.scale(scale=weights):
        numpyro.sample("y", dist.Normal(w, 1.0), obs=y)


LEVELS = np.array([0.3, -1.2, 0.8, 2.1, -0.4, 1.5])


def level_draws(y, counts, beta=1.0):
    """Draws of the mean's posterior, counting each value as often as it is said, at β."""
    precision = beta * counts.sum() + 0.01
    noise = np.random.default_rng(0).normal(size=(4, 2000))
    return of_draws({"w": beta * counts @ y / precision + noise / precision**0.5})


@pytest.mark.parametrize("repeats", [1, 8])
def test_loo_is_the_exact_leave_one_out_density(repeats):
    y = np.tile(LEVELS, repeats)
    ones = np.ones(y.size)
    losses = pointwise.pointwise_losses(level_draws(y, ones), level, (y, ones))
    found = pointwise.pointwise_statistics(losses, loo=True)
    precision = y.size - 1 + 0.01
    exact = norm((y.sum() - y) / precision, (1 + 1 / precision) ** 0.5).logpdf(y)
    spread = found["loss_variance"].to_numpy() ** 0.5 / 8000**0.5
    assert np.abs(found["elpd_loo"] - exact).max() < 4 * 3 * spread.max()  # of heavy weights
    plain = norm(y.mean(), (1 + 1 / y.size) ** 0.5).logpdf(y)
    assert abs(float(found["elpd_loo"].sum()) - plain.sum()) > 10 * spread.sum()


def test_data_behind_a_mask_take_no_part_in_loo():
    def model(y, is_there):
        w = numpyro.sample("w", dist.Normal(0.0, 10.0))
        with numpyro.plate("N", y.shape[0]), numpyro.handlers.mask(mask=is_there):
            numpyro.sample("y", dist.Normal(w, 1.0), obs=y)

    is_there = np.array([True, False, True, True, False, True])
    idata = level_draws(LEVELS, is_there.astype(int))
    found = pointwise.pointwise_statistics(
        pointwise.pointwise_losses(idata, model, (LEVELS, is_there)), loo=True
    )
    wanted = pointwise.pointwise_statistics(
        pointwise.pointwise_losses(idata, model, (LEVELS[is_there], np.ones(4, bool))), loo=True
    )
    for name in ("elpd_loo", "pareto_k"):
        np.testing.assert_allclose(found[name][is_there], wanted[name], rtol=1e-3, atol=1e-3)
        np.testing.assert_array_equal(found[name][~is_there], 0.0)


@pytest.mark.parametrize("counts", [[3, 3, 3, 3, 3, 3], [1, 2, 5, 1, 3, 2], [4, 0, 1, 2, 1, 1]])
def test_a_row_that_counts_several_times_is_as_many_rows(counts):
    counts = np.array(counts)
    apart, ones = np.repeat(LEVELS, counts), np.ones(counts.sum())
    idata = level_draws(LEVELS, counts)
    found, wanted = (
        pointwise.pointwise_statistics(
            pointwise.pointwise_losses(idata, level, arguments), loo=True
        )
        for arguments in ((LEVELS, counts.astype(float)), (apart, ones))
    )
    np.testing.assert_array_equal(found["weight"], counts)
    for name in ("functional_variance", "error"):
        assert float(found[name]) == pytest.approx(float(wanted[name]), rel=1e-4)
    one, other = found.singular_fluctuation(), wanted.singular_fluctuation()
    assert one.value == pytest.approx(other.value, rel=1e-4)
    squared = np.sum(counts**2 * found["loss_variance"].to_numpy())
    assert abs(float(found["functional_variance"]) / squared - 1.0) > 0.3  # of w ℓ it would be this
    for name, value in found.waic().items():
        assert value == pytest.approx(wanted.waic()[name], rel=1e-4), name
    for name in ("elpd_loo", "log_density", "mean_loss", "loss_variance"):
        places = np.flatnonzero(counts)
        first = np.concatenate([[0], np.cumsum(counts)])[places]
        np.testing.assert_allclose(found[name][places], wanted[name][first], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.learning_curve(0.5), wanted.learning_curve(0.5), rtol=1e-4)


def test_a_scale_is_a_number_of_data_that_need_not_be_whole():
    weights = np.full(6, 2.5)
    losses = pointwise.pointwise_losses(level_draws(LEVELS, weights), level, (LEVELS, weights))
    found = pointwise.pointwise_statistics(losses).singular_fluctuation()
    residuals, spread = LEVELS - 15.0 / 15.01 * LEVELS.mean(), 1 / 15.01
    wanted = 0.5 * 2.5 * np.sum(residuals**2 * spread + 0.5 * spread**2)
    assert abs(found.value - wanted) < 4 * found.error
    assert abs(found.value - 2.5 * wanted) > 4 * found.error


def test_parts_of_a_row_that_count_differently_are_no_number_of_data():
    def model(y, weights):
        w = numpyro.sample("w", dist.Normal(0.0, 10.0))
        with numpyro.plate("N", y.shape[0]):
            numpyro.sample("x", dist.Normal(w, 1.0), obs=y)
            with numpyro.handlers.scale(scale=weights):
                numpyro.sample("y", dist.Normal(w, 1.0), obs=y)

    weights = np.array([1.0, 1.0, 2.0, 1.0, 1.0, 1.0])
    losses = pointwise.pointwise_losses(level_draws(LEVELS, weights), model, (LEVELS, weights))
    with pytest.raises(ValueError, match="parts of row 2 different ones"):
        pointwise.pointwise_statistics(losses)


STEPS = Metropolis(0.1)


@pytest.mark.parametrize("count", [1.0, 16.0])
def test_the_data_error_is_that_of_the_data_that_rows_stand_for(count):
    """Of a regular model it is ``β sqrt(d/2)``, whatever n, within the noise of signings."""
    y = np.random.default_rng(3).normal(size=200)
    idata = nllc.estimate_llc(
        jax.random.key(0),
        level,
        (y, np.full(200, count)),
        center={"w": y.mean()},
        inverse_temperature=0.2,
        kernel=STEPS,
        num_warmup=100,
        num_samples=5000,
        thinning=10,
        progress_bar=False,
    )
    assert posterior(idata).attrs["data_error"] == pytest.approx(0.2 * 0.5**0.5, rel=0.7)


def exact_loo(prior_mean, precision):
    """``log p(y_i | y_-i)`` of each datum under a normal prior, by a fit without it."""
    found = []
    for i in range(N):
        x, y = np.delete(X, i, axis=0), np.delete(Y, i)
        covariance = np.linalg.inv(x.T @ x + precision * np.eye(2))
        mean = covariance @ (x.T @ y + precision * np.asarray(prior_mean))
        found.append(norm(X[i] @ mean, np.sqrt(1 + X[i] @ covariance @ X[i])).logpdf(Y[i]))
    return np.array(found)


@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")  # in ArviZ 0.23
def test_arviz_compares_models_at_one(at_one):
    """A second model is the same with a prior at zero, which the Gaussian around its centre is."""
    precision, zero = 1000.0, np.zeros(2)
    with pytest.warns(nllc.LLCWarning):
        other = run(1.0, center={"w": zero}, localization=precision)
    options = {} if hasattr(az, "waic") else {"round_to": "none"}
    table = az.compare({"at the fit": at_one, "at zero": other}, **options)
    assert list(table.index) == ["at the fit", "at zero"]
    wanted = exact_loo(OLS, 0.01) - exact_loo(zero, precision)
    assert abs(table["elpd_diff"].iloc[1]) == pytest.approx(wanted.sum(), abs=0.3)
    assert table["dse"].iloc[1] == pytest.approx(np.sqrt(N * wanted.var()), rel=0.05)
    in_sample = norm.logpdf(Y, X @ OLS)
    with_prior = X @ np.linalg.solve(X.T @ X + precision * np.eye(2), X.T @ Y)
    assert abs(np.sum(in_sample - norm.logpdf(Y, with_prior)) - wanted.sum()) > 0.6


@pytest.mark.parametrize("read", [az.loo, lambda idata: az.compare({"a": idata, "b": idata})])
def test_arviz_refuses_tempered_draws(tempered, read):
    with pytest.raises(TypeError, match=r"log.likelihood|ELPD"):
        read(tempered)
    assert group_of(tempered, "log_likelihood") is None
    attrs = group_of(tempered, "tempered_log_likelihood").attrs
    assert attrs["inverse_temperature"] == pytest.approx(1 / np.log(N))
    assert "hold at β = 1 only" in attrs["note"]


def exact_fluctuation(beta, gamma, y=Y):
    """``β/2 Σ_i Var[ℓ_i]`` of the Gaussian posterior: variances of quadratic forms."""
    covariance = np.linalg.inv(beta * X.T @ X + gamma * np.eye(2))
    residuals = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    spread = np.einsum("ij,jk,ik->i", X, covariance, X)
    return 0.5 * beta * np.sum(residuals**2 * spread + 0.5 * spread**2)


def test_fluctuation_of_a_regular_model_at_both_temperatures(at_one, tempered):
    beta = 1 / np.log(N)
    own = pointwise.pointwise_statistics(losses_of(tempered)).singular_fluctuation()
    second_run = pointwise.pointwise_statistics(losses_of(at_one)).singular_fluctuation()
    weighted = pointwise.singular_fluctuation(
        pointwise.pointwise_statistics(losses_of(tempered), inverse_temperature=1.0)
    )
    assert own.inverse_temperature == pytest.approx(beta)
    for found, at in ((own, beta), (second_run, 1.0), (weighted, 1.0)):
        wanted = exact_fluctuation(at, 0.01)
        assert abs(found.value - wanted) < 4 * found.error
        assert found.error < 0.1
        assert abs(found.value - 2.0 * wanted) > 4 * found.error
    assert own.share == second_run.share == 1.0
    assert 0.25 < weighted.share < 0.5


@pytest.mark.parametrize("beta", [0.2, 1.0])
def test_the_mean_of_the_fluctuation_over_data_is_half_the_dimension(beta):
    noise = np.random.default_rng(1).normal(size=(400, N))
    values = np.array([exact_fluctuation(beta, 0.0, X @ [1.0, -1.0] + row) for row in noise])
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean() - 1.0) < 4 * error + 0.5 / N * 5
    assert error < 0.02


def test_weights_that_leave_too_little_are_said(tempered):
    losses = losses_of(tempered)
    with pytest.warns(nllc.LLCWarning, match=r"leave .* % of the draws .*inverse_temperature=4"):
        pointwise.pointwise_statistics(losses, inverse_temperature=4.0)
    for beta in (None, 1.0):
        with pytest.raises(ValueError, match="`loo` needs draws at inverse_temperature = 1, not"):
            pointwise.pointwise_statistics(losses, inverse_temperature=beta, loo=True)
    with pytest.raises(ValueError, match="at least that of the draws, 0.1753; got 0.17"):
        pointwise.pointwise_statistics(losses, inverse_temperature=0.17)
    with pytest.raises(ValueError, match="`waic` needs draws at inverse_temperature = 1"):
        pointwise.waic(pointwise.pointwise_statistics(losses))


def square_feature(x, y=None):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    with numpyro.plate("N", x.shape[0]):
        numpyro.sample("y", dist.Normal(w**2 * x, 1.0), obs=y)


def fluctuation_of_square_feature(beta, noise):
    """ν of ``y = w² x`` in the limit of n, given ``Σ x ε / √n``: s = √n w² has this density."""

    def moment(k):
        # s = t², which takes the root of the volume away.
        return quad(lambda t: t ** (2 * k) * np.exp(-beta * (0.5 * t**4 - t**2 * noise)), 0, 9)[0]

    return 0.5 * beta * (moment(2) / moment(0) - (moment(1) / moment(0)) ** 2)


@pytest.mark.parametrize(("beta", "listed"), [(1.0, 0.17297), (1 / np.log(1000), 0.14241)])
def test_fluctuation_of_a_singular_model_averaged_over_data(beta, listed):
    """Data with chosen noise: nodes of Gauss and Hermite stand for the average over data sets."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    weights = weights / weights.sum()
    exact = sum(
        w * fluctuation_of_square_feature(beta, z) for z, w in zip(nodes, weights, strict=True)
    )
    assert exact == pytest.approx(listed, abs=1e-3)
    n = 1024
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    weights = weights / weights.sum()
    total = wanted = 0.0
    for z, weight in zip(nodes, weights, strict=True):
        noise = np.where(np.arange(n) % 2, 1.0, -1.0) * np.sqrt(1 - z**2 / n) + z / np.sqrt(n)

        def density(s, z=z):  # of √n w², s = t²: the root of the volume is in ds
            return np.exp(-beta * (0.5 * s**4 - s**2 * z) + 0.5 * beta * max(z, 0) ** 2)

        w = quantiles(density, -9.0, 9.0) / n**0.25
        result = of_draws({"w": w}, inverse_temperature=beta)
        losses = pointwise.pointwise_losses(result, square_feature, (np.ones(n), noise))
        found = pointwise.singular_fluctuation(pointwise.pointwise_statistics(losses))
        total += weight * found.value
        wanted += weight * fluctuation_of_square_feature(beta, z)
    assert total == pytest.approx(wanted, rel=5e-3)  # terms of order 1/n
    assert abs(wanted - listed) < 0.001  # three nodes suffice


def test_learning_curve_of_a_regular_model_has_no_temperature():
    for beta in (0.1, 1.0):
        curve = pointwise.learning_curve(1.0, 1.0, 100, inverse_temperature=beta)
        assert curve["bayes_generalization"] == pytest.approx(0.01)
        assert curve["bayes_training"] == pytest.approx(-0.01)
        assert curve["gibbs_generalization"] == pytest.approx((1 / beta + 1) / 100)
        assert curve["gibbs_training"] == pytest.approx((1 / beta - 1) / 100)


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_learning_curve_of_a_singular_model_is_the_mean_error_over_data(beta):
    """``y = w² x``: errors by quadrature at n = 10⁶, averaged over the noise."""
    n, nodes = 10**6, np.polynomial.hermite_e.hermegauss(40)
    s = np.linspace(0.0, 7.0, 4001) ** 2
    found = np.zeros(4)
    fluctuation = 0.0
    for z, weight in zip(*nodes, strict=True):
        density = np.exp(-beta * (0.5 * s**2 - s * z) + beta * max(z, 0) ** 2 / 2)
        density /= density.sum()  # s = t², evenly spaced in t: the volume's root is in ds

        def mean(values, density=density):
            return values @ density

        gibbs = np.array([mean(0.5 * s**2), mean(0.5 * s**2 - s * z)])
        spread = 0.5 * (mean(s**2) - mean(s) ** 2)
        # -log E[p(x)] = E[l] - Var[l]/2 + ..., of one datum; the variance is 1 + O(1/√n) of s.
        found += weight * np.array([*(gibbs - spread), *gibbs])
        fluctuation += weight * beta * spread
    found, fluctuation = found / nodes[1].sum(), fluctuation / nodes[1].sum()
    curve = pointwise.learning_curve(0.25, fluctuation, n, inverse_temperature=beta)
    np.testing.assert_allclose(curve.to_numpy() * n, found, atol=2e-3)


def test_covariances_are_brute_force(tempered):
    flat = stored(tempered).reshape(-1, N)
    wanted = (flat - flat.mean(axis=0)).T @ (flat - flat.mean(axis=0)) / len(flat)
    losses = losses_of(tempered, max_memory=SMALL)
    kernel = pointwise.loss_covariance(losses)
    np.testing.assert_allclose(kernel["covariance"], wanted, atol=1e-4 * np.abs(wanted).max())
    some = pointwise.loss_covariance(losses, queries=[5, 200])
    np.testing.assert_allclose(some["covariance"], wanted[:, [5, 200]], atol=1e-4 * wanted.max())
    assert list(some["query"].to_numpy()) == [5, 200]
    assert some["covariance"].dims == ("datum", "query")
    np.testing.assert_allclose(some["error"], kernel["error"].isel(query=[5, 200]), rtol=1e-3)
    site = posterior(tempered)["w"][..., 0]
    influence = pointwise.loss_covariance(losses, observable=site)
    values = site.to_numpy().ravel()
    by_hand = (flat - flat.mean(axis=0)).T @ (values - values.mean()) / len(flat)
    np.testing.assert_allclose(influence["covariance"], by_hand, atol=1e-4 * abs(by_hand).max())


def exact_kernel(beta, gamma):
    """Covariances of ``½ r_i²``, r Gaussian: ``m_i m_j C_ij + ½ C_ij²``."""
    cross = X @ np.linalg.inv(beta * X.T @ X + gamma * np.eye(2)) @ X.T
    residuals = Y - X @ OLS
    return np.outer(residuals, residuals) * cross + 0.5 * cross**2


def test_covariances_and_their_errors_are_right(tempered):
    kernel = pointwise.loss_covariance(losses_of(tempered))
    wanted = exact_kernel(1 / np.log(N), 0.01)
    z = ((kernel["covariance"] - wanted) / kernel["error"]).to_numpy()
    assert 0.6 < np.sqrt(np.mean(z**2)) < 1.5
    assert np.abs(z).max() < 8.0  # of 90 000, with errors of 31 degrees of freedom
    wrong = ((kernel["covariance"] - 1.2 * wanted) / kernel["error"]).to_numpy()
    assert np.sqrt(np.mean(wrong**2)) > 1.5


def exact_llc(weights, gamma, beta):
    """λ̂ of the weighted loss ``Σ_i w_i ℓ_i``, at the centre of equal weights."""
    hessian = (X * weights[:, None]).T @ X
    gradient = -(X * weights[:, None]).T @ (Y - X @ OLS)
    precision = beta * hessian + np.diag(gamma)
    shift = -np.linalg.solve(precision, beta * gradient)
    spread = 0.5 * np.trace(beta * hessian @ np.linalg.inv(precision))
    return spread + beta * (gradient @ shift + 0.5 * shift @ hessian @ shift)


def test_susceptibilities_are_derivatives_of_llc():
    gamma, beta = 5.0, 1 / np.log(N)
    idata = run(localization=gamma, log_likelihood=False)
    local = nllc.localize(regression, center={"w": OLS}, localization=gamma)
    found = pointwise.susceptibilities(losses_of(idata, local, max_memory=SMALL))
    step = 1e-4
    wanted = np.empty(N)
    for datum in range(N):
        up, down = np.ones(N), np.ones(N)
        up[datum] += step
        down[datum] -= step
        gammas = np.full(2, gamma)
        wanted[datum] = (exact_llc(up, gammas, beta) - exact_llc(down, gammas, beta)) / (2 * step)
    z = ((found["by_datum"] - wanted) / found["by_datum_error"]).to_numpy()
    assert np.abs(z).max() < 6.0  # of 300, with errors of 31 degrees of freedom
    assert 0.5 < np.sqrt(np.mean(z**2)) < 1.6
    without = ((found["response"] - wanted) / found["response_error"]).to_numpy()
    assert np.abs(without).max() > 6.0
    up, down = (exact_llc(np.ones(N), np.full(2, gamma * (1 + s)), beta) for s in (step, -step))
    by_site = (up - down) / (2 * step)
    assert by_site < -0.05
    assert abs(float(found["by_site"][0]) - by_site) < 4 * float(found["by_site_error"][0])
    assert list(found["site"].to_numpy()) == ["w"]
    with pytest.raises(ValueError, match="needs the centre of the result"):
        pointwise.susceptibilities(losses_of(idata))


def test_errors_of_covariances_are_their_spread():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(200):
        noise = rng.normal(size=(2, 4, 400, 2))
        x = noise.copy()
        for t in range(1, 400):  # draws that hang together
            x[:, :, t] = 0.7 * x[:, :, t - 1] + np.sqrt(0.51) * noise[:, :, t]
        found.append(
            [*estimators.covariances(x[0], x[1]), *estimators.means_less_covariances(x[0], x[1])]
        )
    values = np.array(found)
    for place in (0, 2):
        spread = values[:, place].std(axis=0)
        stated = np.sqrt(np.mean(values[:, place + 1] ** 2, axis=0))
        np.testing.assert_allclose(stated, spread, rtol=0.2)
    with pytest.raises(ValueError, match="at least 8 a chain"):
        estimators.covariances(np.ones((2, 4, 1)), np.ones((2, 4, 1)))


def judge_ordinary(idata):
    losses = losses_of(idata)
    assert losses.inverse_temperature == 1.0
    found = pointwise.pointwise_statistics(losses, loo=True)
    wanted = 2 * exact_fluctuation(1.0, 0.01)
    assert abs(pointwise.waic(found)["p_waic"] - wanted) < 4 * float(found["error"])
    assert float(found["error"]) < 0.3
    with pytest.raises(ValueError, match="have no `llc` to weight them"):
        pointwise.pointwise_statistics(losses, inverse_temperature=0.5)
    with pytest.raises(ValueError, match="These draws are not localized"):
        losses.localization()


def test_an_ordinary_posterior_will_do():
    spread = np.linalg.cholesky(np.linalg.inv(X.T @ X + 0.01 * np.eye(2)))
    w = OLS + np.random.default_rng(0).normal(size=(4, 300, 2)) @ spread.T
    judge_ordinary(of_draws({"w": w}))


@pytest.mark.slow
def test_a_posterior_of_numpyro_will_do():
    mcmc = MCMC(NUTS(regression), num_warmup=200, num_samples=200, progress_bar=False)
    mcmc.run(jax.random.key(0), X, Y)
    judge_ordinary(az.from_numpyro(mcmc))


def test_rows_that_cannot_be_taken_out_are_evaluated_whole():
    def model(y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        level = jnp.cumsum(jnp.full(y.shape, w))  # of the whole series, whatever rows are asked for
        numpyro.sample("y", dist.Normal(level / y.shape[0], 1.0), obs=y)

    y, ramp = Y[:50], np.arange(1, 51) / 50
    w = np.random.default_rng(0).normal(size=(4, 300))
    losses = pointwise.pointwise_losses(
        of_draws({"w": w}), model, (y,), max_memory=8 * 4 * 1200 * 20
    )
    assert losses.program.batching is None
    assert losses.block_rows == 20
    blocks = np.concatenate([excess + reference for _, excess, reference in losses], axis=2)
    wanted = 0.5 * (y - w[..., None] * ramp) ** 2 + 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(blocks, wanted, rtol=1e-4, atol=1e-5)


def test_memory_of_a_block_does_not_grow_with_the_data(tempered):
    """What the compiled evaluation of a block takes beside the data and the result."""
    sizes = []
    for copies in (1, 10):
        x, y = np.tile(X, (copies, 1)), np.tile(Y, copies)
        recorded = posterior(tempered)
        losses = pointwise.pointwise_losses(
            {"posterior": recorded}, regression, (x, y), max_memory=SMALL
        )
        assert losses.block_rows == 7
        rows = jnp.arange(losses.block_rows)
        compiled = _losses._block.lower(
            losses.program,
            losses.positions,
            losses.reference,
            losses.arrays,
            losses.truth,
            rows,
        ).compile()
        sizes.append(compiled.memory_analysis().temp_size_in_bytes)
    assert sizes[1] <= sizes[0] + 4096


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda idata: losses_of({"posterior": posterior(idata).drop_vars("w")}),
            r"holds no samples of \['w'\]",
        ),
        (
            lambda idata: pointwise.pointwise_losses(idata, regression, (X, 2 * Y)),
            "Give the model and the data that the result is of",
        ),
        (
            lambda idata: losses_of(idata, max_memory=0),
            "`max_memory` must be finite and positive",
        ),
        (
            lambda idata: pointwise.loss_covariance(losses_of(idata), queries=[N]),
            "`queries` must be numbers",
        ),
        (
            lambda idata: pointwise.loss_covariance(losses_of(idata), queries=[-1]),
            "`queries` must be numbers",
        ),
        (
            lambda idata: pointwise.loss_covariance(losses_of(idata), queries=[0], observable=1),
            "`queries` or `observable`, not both",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tempered, change, message):
    with pytest.raises(ValueError, match=message):
        change(tempered)


def test_an_observable_is_a_data_array_of_the_draws(tempered):
    losses = losses_of(tempered)
    with pytest.raises(TypeError, match="must be an xarray.DataArray of dimensions chain and draw"):
        pointwise.loss_covariance(losses, observable=np.ones((4, 500)))
    short = posterior(tempered)["llc"].isel(draw=slice(10))
    with pytest.raises(ValueError, match="must be of the draws of the result"):
        pointwise.loss_covariance(losses, observable=short)


def test_weights_to_another_temperature_are_the_ratio_of_the_densities():
    excess = np.random.default_rng(0).gamma(2.0, size=(2, 50))
    draws = xr.Dataset({"llc": (("chain", "draw"), 0.2 * excess)})
    losses = SimpleNamespace(shape=excess.shape, inverse_temperature=0.2, draws=draws)
    weights, share = _weights(losses, 0.3)
    ratio = np.exp(-(0.3 - 0.2) * excess)
    np.testing.assert_allclose(weights, ratio / ratio.sum())
    assert share == pytest.approx(ratio.sum() ** 2 / np.sum(ratio**2) / ratio.size)
