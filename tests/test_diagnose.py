"""``diagnose``: planted faults are caught by the check for them; healthy runs are let be."""

import json
import re
from dataclasses import replace
from pathlib import Path

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import regression
import xarray as xr
from numpyro.infer import MCMC, NUTS
from scipy.special import erfc

import numpyro_llc as nllc
from numpyro_llc.inference_data import posterior, statistics
from numpyro_llc.results import Finding, findings, text_of
from numpyro_llc.results._findings import findings_to_json
from numpyro_llc.results.checks import CHECKS
from numpyro_llc.results.checks._check import at_most

DATA = (regression.X, regression.Y)


def run(seed=0, *, center=regression.OLS, data=DATA, **settings):
    """The regression, with the warnings of its run kept for who looks at them."""
    defaults = {"num_warmup": 500, "num_samples": 500, "progress_bar": False}
    return nllc.estimate_llc(
        jax.random.key(seed),
        regression.model,
        data,
        center={"w": center},
        **{**defaults, **settings},
    )


def found(idata):
    return set(nllc.diagnose(idata).index)


def edited(idata, *, llc=None, drop=(), **attrs):
    """A result as plain datasets, with another `llc`, other attributes, or less in sample_stats."""
    data, kept = posterior(idata).copy(deep=True), statistics(idata)
    if llc is not None:
        data["llc"] = (("chain", "draw"), llc(data["llc"].to_numpy().copy()))
    data.attrs.update(attrs)
    return {"posterior": data, "sample_stats": kept.drop_vars([n for n in drop if n in kept])}


def test_healthy_run_has_no_finding_and_every_check(fitted):
    assert nllc.diagnose(fitted).empty
    assert list(nllc.diagnose(fitted).columns) == [
        "value",
        "threshold",
        "found",
        "meaning",
        "remedy",
    ]
    table = nllc.diagnose(fitted, all_checks=True)
    assert table.index.name == "check"
    assert not table["found"].any()
    assert set(table["remedy"]) == {""}
    of_others = {"acceptance", "mala_acceptance", "step_size", "gradient_noise", "flat_directions"}
    of_others.add("constant_loss")
    assert set(table.index) == set(CHECKS) - of_others
    assert table.loc["r_hat", "value"] == nllc.summary(fitted).loc["llc", "r_hat"]
    assert table.loc["above_half_dimension", "threshold"] > 2.5
    assert "R-hat of `llc` over 4 chains is 1.0" in table.loc["r_hat", "meaning"]


@pytest.mark.parametrize(
    ("value", "percent", "wanted"),
    [
        (1.020004, False, "is 1.020004 (want < 1.02)"),
        (1.3, False, "is 1.3 (want < 1.02)"),
        (0.10001, True, "is 10.001 % (want < 10 %)"),
    ],
)
def test_a_value_beyond_its_limit_is_written_apart_from_it(value, percent, wanted):
    outcome = at_most(value, 0.1 if percent else 1.02, "R-hat", "bad", "", percent=percent)
    assert outcome.found
    assert wanted in outcome.meaning


@pytest.fixture(scope="module")
def off_center():
    with pytest.warns(nllc.LLCWarning) as caught:
        idata = run(center=regression.OLS + 0.3)
    assert len(caught) == 1
    return idata, str(caught[0].message)


def test_center_off_the_minimum(off_center):
    idata, message = off_center
    assert {"center_gradient", "below_center", "negative"} <= found(idata)
    assert not found(idata) & {"r_hat", "center_curvature", "basin", "divergences"}
    assert "nllc.lowest_point(idata)" in nllc.diagnose(idata).loc["below_center", "remedy"]
    shift = nllc.diagnose(idata).loc["center_gradient", "value"]
    exact = regression.exact(regression.OLS, 1.0) - regression.exact(regression.OLS + 0.3, 1.0)
    assert shift == pytest.approx(exact, rel=1e-2)
    assert message.count("the gradient norm of nL is") == 1


def test_findings_are_stored_warned_of_and_diagnosed_alike(off_center, tmp_path):
    idata, message = off_center
    table = nllc.diagnose(idata)
    stored = json.loads(idata.attrs["findings"])
    assert [one["check"] for one in stored] == list(table.index)
    assert [one._asdict() for one in findings(idata)] == stored
    assert message == text_of(findings(idata))
    for one in stored:
        row = table.loc[one["check"]]
        assert (one["meaning"], one["remedy"]) == (row["meaning"], row["remedy"])
        assert (one["value"], one["threshold"]) == (row["value"], row["threshold"])
    idata.to_netcdf(tmp_path / "run.nc")
    again = az.from_netcdf(tmp_path / "run.nc")
    for all_checks in (False, True):
        there, here = (nllc.diagnose(one, all_checks=all_checks) for one in (again, idata))
        assert list(there["meaning"]) == list(here["meaning"])


def test_a_finding_without_a_number_is_stored_as_one():
    lost = Finding("r_hat", np.nan, 1.02, "R-hat cannot be judged.", "Raise `num_chains`.")
    kept = findings_to_json([lost])
    assert json.loads(kept)[0]["value"] is None
    (again,) = findings(planted(findings=kept))
    assert np.isnan(again.value)
    assert again._replace(value=1.0) == lost._replace(value=1.0)
    assert text_of([again]) == "R-hat cannot be judged. Raise `num_chains`."


def test_one_chain_shifted(fitted):
    def shift(llc):
        llc[2] += 2 * llc.mean()
        return llc

    assert "r_hat" in found(edited(fitted, llc=shift))


def test_nan_in_one_chain(fitted):
    def spoil(llc):
        llc[1, 400] = np.nan
        return llc

    table = nllc.diagnose(edited(fitted, llc=spoil), all_checks=True)
    assert list(table.index[table["found"]]) == ["non_finite"]
    assert "not finite in chain 1 from draw 400 on" in table.loc["non_finite", "meaning"]
    assert table.loc["ess_bulk", "value"] < nllc.summary(fitted).loc["llc", "ess_bulk"]

    def spoil_all(llc):
        return np.full_like(llc, np.inf)

    table = nllc.diagnose(edited(fitted, llc=spoil_all), all_checks=True)
    assert "center_gradient" in table.index
    assert "r_hat" not in table.index


def test_checks_without_their_numbers_are_left_out(fitted):
    bare = {"posterior": posterior(fitted).assign_attrs({})}
    bare["posterior"].attrs.clear()
    table = nllc.diagnose(bare, all_checks=True)
    assert {"r_hat", "ess_bulk", "gamma_law", "below_center"} <= set(table.index)
    assert not {"basin", "r_hat_distance", "center_gradient", "divergences"} & set(table.index)
    without = edited(fitted, drop=("penalty",))  # from the distance and the one γ
    assert "basin" in nllc.diagnose(without, all_checks=True).index
    with pytest.raises(ValueError, match="but no `llc`"):
        nllc.diagnose({"posterior": posterior(fitted).drop_vars("llc")})


WIDE = (regression.X[:, :2], regression.Y)
WIDE_OLS = np.linalg.lstsq(*WIDE, rcond=None)[0]
STIFF = 1 / 326
"""One over the largest curvature of ``β nL + γ/2 |z|²`` of this regression."""


def langevin(center=WIDE_OLS, data=WIDE, **settings):
    lengths = {"num_warmup": 500, "num_samples": 5000, "thinning": 5}
    return run(center=center, data=data, **{"kernel": "sgld", **lengths, **settings})


LONG = {"num_warmup": 2000, "num_samples": 20_000, "thinning": 20}


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_step_ten_times_too_large():
    good = langevin(kernel=nllc.SGLD(step_size=0.15 * STIFF))
    assert found(good) == set()
    assert good.attrs["mala_acceptance"] > 0.98
    long = langevin(kernel=nllc.SGLD(step_size=1.5 * STIFF))
    assert {"mala_acceptance", "step_size"} <= found(long)
    assert "gradient_noise" not in found(long)


def test_broken_run_is_diagnosed_from_its_error():
    x, y = WIDE  # whose curvature, 900 times as large, makes the step that is too long unstable
    with pytest.raises(nllc.NonFiniteLossError) as caught:
        langevin(WIDE_OLS / 30.0, (30.0 * x, y), kernel=nllc.SGLD(step_size=1.5 * STIFF))
    idata = caught.value.idata
    assert "non_finite" in found(idata)
    assert json.loads(idata.attrs["findings"])[0]["check"] == "non_finite"


@pytest.mark.slow
def test_a_step_that_is_found_is_long_and_has_no_finding():
    by_itself = langevin(**LONG)
    assert by_itself.attrs["step_size"] > 0.2 * STIFF
    assert found(by_itself) == set()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_minibatch_noise_uncorrected():
    noisy = nllc.SGLD(step_size=0.15 * STIFF, batch_size=5, control_variates=False)
    hot = found(langevin(kernel=noisy, **LONG))
    assert "gradient_noise" in hot
    assert "step_size" not in hot
    anchored = nllc.SGLD(step_size=0.15 * STIFF, batch_size=50)
    assert found(langevin(kernel=anchored, **LONG)) == set()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_no_burn_in():
    x = np.random.default_rng(0).normal(size=(500, 200))
    ols = np.linalg.lstsq(x, regression.Y, rcond=None)[0]
    settings = {"num_samples": 1000, "thinning": 1, "num_chains": 8}
    settings["kernel"] = nllc.SGLD(step_size=5e-4)
    cold = langevin(ols, (x, regression.Y), num_warmup=0, **settings)
    assert "drift" in found(cold)
    # Of so many parameters the curvature at the centre is not measured: draws tell of a slope.
    table = nllc.diagnose(cold, all_checks=True)
    assert "Not checked" in table.loc["center_curvature", "meaning"]
    assert abs(table.loc["center_gradient", "value"]) < 1e-3
    assert not table.loc["center_gradient", "found"]
    assert "drift" not in found(langevin(ols, (x, regression.Y), num_warmup=1000, **settings))


def test_localization_that_dominates():
    with pytest.warns(nllc.LLCWarning, match="The share of λ̂ that γ takes"):
        idata = run(localization=1000.0)
    assert "localization" in found(idata)
    assert nllc.diagnose(idata).loc["localization", "value"] > 0.5


def two_wells(y):
    """Minima at ±1; the left one is as deep, or by `y` less so."""
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal((w**2 - 1.0) * (1.0 + 0.5 * jnp.tanh(w)), 1.0), obs=y)


WELLS = (np.zeros(1000),)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_one_chain_caught_in_another_basin():
    local = nllc.localize(
        two_wells, center={"w": 1.0}, inverse_temperature=1 / np.log(1000), localization=1.0
    )
    mcmc = MCMC(
        NUTS(local),
        num_warmup=300,
        num_samples=500,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    starts = jnp.array([1.0, 1.0, 1.0, -1.0])
    mcmc.run(jax.random.key(0), *WELLS, init_params={"w": starts})
    idata = nllc.from_numpyro(mcmc)
    assert {"r_hat_distance", "basin"} <= found(idata)
    assert "of chain 3 is" in nllc.diagnose(idata).loc["basin", "meaning"]


def hollow(y):
    """A shallow minimum at 0, and a loss that falls beyond 1."""
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    mean = 0.4 * jnp.exp(-(w**2) / 4) * (1 + 0.35 * w**2)
    numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_chains_that_left_the_basin():
    idata = nllc.estimate_llc(
        jax.random.key(0),
        hollow,
        WELLS,
        center={"w": 0.0},
        localization=0.1,
        num_warmup=300,
        num_samples=1000,
        progress_bar=False,
    )
    assert {"basin", "below_center"} <= found(idata)


def fibre(y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(w[0] + w[1], 1.0), obs=y)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_no_localization_on_a_fibre():
    settings = {"num_warmup": 200, "num_samples": 200, "progress_bar": False}
    for gamma, caught in ((0.0, True), (1.0, False)):
        idata = nllc.estimate_llc(
            jax.random.key(0),
            fibre,
            WELLS,
            center={"w": np.zeros(2)},
            localization=gamma,
            **settings,
        )
        assert ("flat_directions" in found(idata)) == caught


EDITED = {
    "interrupted": {"interrupted": 1},
    "step_limit": {"ended_at_limit": 1, "num_steps": 1000},
    "evaluation": {"evaluation_error": 0.5},
    "above_half_dimension": {"num_parameters": 2},
    "center_curvature": {"center_smallest_eigenvalue": -10.0},
    "inverse_temperature": {"inverse_temperature": 145.0},
}


@pytest.mark.parametrize("check", EDITED)
def test_attributes_alone_are_enough(check, fitted):
    assert found(edited(fitted, **EDITED[check])) == {check}


@pytest.mark.parametrize(("rate", "caught"), [(0.3, True), (0.6, False)])
def test_acceptance_of_a_metropolis_kernel(rate, caught, fitted):
    idata = edited(fitted, kernel="mala")
    kept = idata["sample_stats"]
    kept["acceptance_rate"] = 0.0 * kept["acceptance_rate"] + 0.9
    kept["acceptance_rate"][2] = rate
    assert found(idata) == ({"acceptance"} if caught else set())


@pytest.mark.parametrize(("off", "caught"), [(0.02, False), (0.05, True)])
def test_draws_tell_of_a_slope_where_the_hessian_is_not_known(off, caught):
    """With exact draws: λ̂ drops from that of the minimum by half of what the slope takes."""
    beta, gamma, center = 1 / np.log(500), 1e-4, regression.OLS + off
    hessian, steps = beta * regression.X.T @ regression.X, np.random.default_rng(0)
    gradient = hessian @ (center - regression.OLS)
    covariance = np.linalg.inv(hessian + gamma * np.eye(5))
    moved = steps.multivariate_normal(-covariance @ gradient, covariance, (4, 1000))
    slope = moved @ gradient
    llc = slope + 0.5 * np.einsum("cdi,ij,cdj->cd", moved, hessian, moved)
    known = {"center_gradient_norm": 319.0, "num_parameters": 500}
    table = nllc.diagnose(
        planted(llc, statistics={"center_slope": slope}, **known), all_checks=True
    )
    row = table.loc["center_gradient"]
    drop = regression.exact(regression.OLS, gamma) - regression.exact(center, gamma)
    assert abs(row["value"] - drop) < 4 * 0.5 * error_of(slope)
    assert 0.5 * error_of(slope) < 0.05 * drop
    limit = 0.1 * (llc.mean() + row["value"]) + 4 * 0.5 * error_of(slope)
    assert row["threshold"] == pytest.approx(limit, rel=1e-4)
    assert row["found"] == caught
    assert ("gradient norm of nL is 319" in row["meaning"]) == caught


def test_localization_by_site_is_read_from_its_attribute(fitted):
    by_site = edited(fitted, localization=json.dumps({"a": 0.0, "b": 2.0}))
    table = nllc.diagnose(by_site, all_checks=True)
    assert "basin" not in table.index  # some site is not bounded
    assert table.loc["flat_directions", "value"] == fitted.attrs["center_smallest_eigenvalue"]


def test_draws_edited_to_fail_one_check(fitted):
    heavy = edited(fitted, llc=lambda llc: 0.2 * llc**2)
    assert "gamma_law" in found(heavy)
    assert "Gamma(λ, 1)" in nllc.diagnose(heavy).loc["gamma_law", "meaning"]
    assert nllc.diagnose(heavy).loc["gamma_law", "remedy"].startswith("The mean of `llc` is")
    few = edited(fitted, llc=lambda llc: llc[:, :1].repeat(llc.shape[1], 1))
    assert {"r_hat", "ess_bulk", "ess_tail", "monte_carlo_error"} <= found(few)


LLC = np.random.default_rng(1).gamma(2.5, size=(4, 1000))
DIMENSION, BETA = 5, 0.2


def planted(llc=LLC, *, statistics=(), **attrs):
    """A result as plain datasets: these draws, what is known of them, and these attributes."""
    lead = ("chain", "draw")
    known = {"num_parameters": DIMENSION, "inverse_temperature": BETA, "localization": 1.0}
    kept = {name: (lead, values) for name, values in dict(statistics).items()}
    return {
        "posterior": xr.Dataset({"llc": (lead, llc)}, attrs={**known, **attrs}),
        "sample_stats": xr.Dataset(kept),
    }


def with_mean(value):
    return LLC - LLC.mean() + value


def error_of(values):
    return float(az.mcse(xr.Dataset({"x": (("chain", "draw"), values)}))["x"])


ERROR, MEAN = error_of(LLC), LLC.mean()


def lowest_draw(value):
    llc = LLC.copy()
    llc[2, 10] = value
    return planted(llc, evaluation_error=0.01)


def share_that_diverged(value):
    diverging = np.arange(LLC.size).reshape(LLC.shape) < round(value * LLC.size)
    return planted(statistics={"diverging": diverging.astype(float)})


def acceptance_of(num_steps, kernel):
    def of_the_worst_chain(value):
        rate = np.full(LLC.shape, 0.8)
        rate[1] = value
        kept = {"acceptance_rate": rate, "n_steps": np.full(LLC.shape, num_steps)}
        return planted(statistics=kept, kernel=kernel)

    return of_the_worst_chain


PULLS = np.random.default_rng(2).gamma(DIMENSION / 2, size=LLC.shape) * [[0.5], [0.7], [1.0], [0.6]]


def pull_of_the_worst_chain(value):
    penalty = PULLS.copy()
    penalty[2] += value / 2 - penalty[2].mean()
    return planted(statistics={"penalty": penalty})


def biased(name, **others):
    return lambda value: planted(**{name: value * MEAN + sum(others.values()), **others})


def stepped(value):
    return planted(mala_acceptance=value)


def early(value):
    """The first tenth of the draws moved to be `value` errors above the last half."""
    llc, late = LLC.copy(), LLC[:, 500:]
    llc[:, :100] += late.mean() + value * error_of(late) * np.sqrt(6.0) - llc[:, :100].mean()
    return planted(llc)


LIMITS = {
    "center_curvature": (
        lambda v: planted(center_smallest_eigenvalue=v, center_largest_eigenvalue=100.0),
        -0.05 / BETA,
        "at least",
    ),
    "center_gradient": (
        lambda v: planted(center_shift=-v, center_expected_llc=2.5, center_gradient_norm=1.0),
        0.025,
        "at most",
    ),
    "center_gradient where λ is small": (
        lambda v: planted(center_shift=-v, center_expected_llc=0.3, center_gradient_norm=1.0),
        0.01,
        "at most",
    ),
    "flat_directions": (
        lambda v: planted(
            center_smallest_eigenvalue=v, center_largest_eigenvalue=200.0, localization=0.0
        ),
        200.0 * 1e-5,
        "at least",
    ),
    "below_center": (lowest_draw, -0.05 - 3 * 0.01, "at least"),
    "negative": (lambda v: planted(with_mean(v)), -3 * ERROR, "at least"),
    "monte_carlo_error": (lambda v: planted(with_mean(ERROR / v)), 0.2, "at most"),
    "drift": (early, 5.0, "at most"),
    "divergences": (share_that_diverged, 0.005, "at most"),
    "acceptance": (acceptance_of(5, "mala"), 0.4, "at least"),
    "acceptance of a kernel of one step": (acceptance_of(1, "mine"), 0.4, "at least"),
    "mala_acceptance": (stepped, erfc(np.sqrt(0.1**3 * DIMENSION / 2)), "at least"),
    "step_size": (biased("step_size_bias", gradient_noise_bias=0.07), 0.1, "at most"),
    "gradient_noise": (biased("gradient_noise_bias"), 0.1, "at most"),
    "evaluation": (biased("evaluation_error"), 0.1, "at most"),
    "above_half_dimension": (
        lambda v: planted(with_mean(v)),
        1.05 * DIMENSION / 2 + 3 * ERROR,
        "at most",
    ),
    "basin": (pull_of_the_worst_chain, DIMENSION + 4 * error_of(2 * PULLS[2:3]), "at most"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_an_alarm_begins_at_its_limit(name):
    make, limit, side = LIMITS[name]
    for factor in (0.9, 1.1):
        row = nllc.diagnose(make(factor * limit), all_checks=True).loc[name.split()[0]]
        assert row["value"] == pytest.approx(factor * limit, rel=2e-3)
        assert row["threshold"] == pytest.approx(limit, rel=1e-4)
        is_below = factor * limit < limit
        assert row["found"] == (is_below if side == "at least" else not is_below)
        assert bool(row["remedy"]) == row["found"]


def test_what_a_check_does_not_judge_it_leaves_out():
    def names(result):
        return set(nllc.diagnose(result, all_checks=True).index)

    assert "acceptance" not in names(acceptance_of(5, "hmc")(0.1))
    assert "step_size" not in names(biased("step_size_bias", gradient_noise_bias=0.7)(0.5))
    assert "flat_directions" not in names(
        planted(center_smallest_eigenvalue=-1.0, center_largest_eigenvalue=1.0, localization=1e-3)
    )
    penalty = {"penalty": PULLS}
    assert "basin" not in names(planted(statistics=penalty, localization=0.0))
    assert not {"gamma_law", "localization"} & names(
        planted(with_mean(2.9 * ERROR), statistics=penalty)
    )
    assert {"gamma_law", "localization"} <= names(
        planted(with_mean(3.1 * ERROR), statistics=penalty)
    )
    table = nllc.diagnose(planted(center_gradient_norm=319.0), all_checks=True)
    assert not table.loc["center_curvature", "found"]
    assert "Not checked" in table.loc["center_curvature", "meaning"]
    assert "319" in table.loc["center_curvature", "meaning"]
    assert "center_curvature" not in names(planted(center_gradient_norm=0.0, truth="center"))
    saddle = {"center_shift": np.nan, "center_gradient_norm": 1.0, "center_expected_llc": 1.0}
    table = nllc.diagnose(planted(**saddle, center_smallest_eigenvalue=-1.0), all_checks=True)
    assert "center_gradient" not in table.index
    table = nllc.diagnose(planted(**saddle, center_smallest_eigenvalue=np.nan), all_checks=True)
    assert table.loc["center_gradient", "found"]
    assert "center_curvature" not in table.index
    automatic = nllc.diagnose(
        planted(mala_acceptance=0.1, step_size_is_automatic=1), all_checks=True
    )
    assert automatic.loc["mala_acceptance", "threshold"] == 0.0


def test_chains_are_judged_by_the_numbers_of_their_summary():
    shifted = LLC + np.array([0.0, 0.0, 0.0, 1.0])[:, None]
    few = np.repeat(LLC[:, ::50], 50, axis=1)
    for llc in (LLC, shifted, few):
        table = nllc.diagnose(planted(llc, statistics={"distance": llc}), all_checks=True)
        row = nllc.summary(planted(llc)).loc["llc"]
        for name, limit, is_bad in (
            ("r_hat", 1.02, row["r_hat"] > 1.02),
            ("ess_bulk", 100.0, row["ess_bulk"] < 100.0),
            ("ess_tail", 100.0, row["ess_tail"] < 100.0),
        ):
            outcome = table.loc[name]
            assert outcome["value"] == row[name]
            assert (outcome["threshold"], outcome["found"]) == (limit, is_bad)
        assert table.loc["r_hat_distance", "value"] == pytest.approx(row["r_hat"])
        assert table.loc["r_hat_distance", "threshold"] == 1.3
    one = nllc.diagnose(planted(LLC[:1], statistics={"distance": LLC[:1]}), all_checks=True)
    assert one.loc["r_hat", "found"]
    assert "r_hat_distance" not in one.index


def test_a_run_that_a_limit_or_ctrl_c_ended_says_where_it_stood():
    wanted = {"relative_error_wanted": 0.05, "kernel": "psgld", "ended_at_limit": 1}
    table = nllc.diagnose(planted(**wanted, num_steps=2000, interrupted=1))
    said, row = table.loc["step_limit"], nllc.summary(planted()).loc["llc"]
    assert "2000 steps" in said["meaning"]
    assert f"{100 * row['mcse_mean'] / row['mean']:.3g} % of λ̂ (want 5 %)" in said["meaning"]
    assert f"R-hat {row['r_hat']:.3f}" in said["meaning"]
    assert said["remedy"].startswith("Give `num_warmup` and `num_samples`")
    assert "; or take kernel='sgnht', whose momentum" in said["remedy"]
    wanted = {**wanted, "relative_error_wanted": 0.001, "num_warmup": 1500, "kernel": "nuts"}
    steps = 500 * (row["mcse_mean"] / row["mean"] / 0.001) ** 2
    said = nllc.diagnose(planted(**wanted, num_steps=2000)).loc["step_limit", "remedy"]
    assert float(re.search(r"takes about (\d+) steps", said)[1]) == pytest.approx(steps, rel=0.05)
    times = float(re.search(r"warm-up, ([\d.]+) times as many", said)[1])
    assert times == pytest.approx(steps / 500, rel=0.05)
    assert "kernel" not in said
    many = planted(**wanted, num_steps=2000, num_data=100_000)
    said = nllc.diagnose(many).loc["step_limit", "remedy"]
    assert "; or give `batch_size`" in said
    assert "after 1000 draws of each chain" in table.loc["interrupted", "meaning"]
    healthy = nllc.diagnose(planted(ended_at_limit=0, interrupted=0), all_checks=True)
    assert not healthy.loc[["step_limit", "interrupted"], "found"].any()


@pytest.mark.parametrize("share", [0.3, 0.36])
def test_the_share_of_localization_is_the_covariance_with_the_penalty(share):
    x = LLC - MEAN
    penalty = share * MEAN * x / x.var() + 10.0
    row = nllc.diagnose(planted(statistics={"penalty": penalty}), all_checks=True).loc[
        "localization"
    ]
    own = x * (penalty - 10.0)
    error = error_of((own - own.mean() - share * x) / MEAN)
    assert row["value"] == pytest.approx(share, rel=1e-6)
    assert row["threshold"] == pytest.approx(1 / 3 + 3 * error, rel=1e-6)
    assert row["found"] == (share > 1 / 3 + 3 * error)


@pytest.mark.parametrize(
    ("share", "spread", "verdict"),
    [(0.1, 0.0, ""), (0.95, 0.0, "γ and not the loss"), (0.1, 0.3, "too"), (0.95, 0.3, "too")],
)
def test_the_verdict_on_localization_is_no_matter_of_how_noisy_its_share_is(share, spread, verdict):
    """`spread` is about the error of the share, from a penalty of many flat directions."""
    x = LLC - MEAN
    noise = np.random.default_rng(5).normal(size=LLC.shape)
    noise -= x * np.mean(x * noise) / x.var()
    penalty = share * MEAN * x / x.var() + 100.0 + spread * MEAN * LLC.size**0.5 / x.std() * noise
    row = nllc.diagnose(planted(statistics={"penalty": penalty}), all_checks=True).loc[
        "localization"
    ]
    assert row["value"] == pytest.approx(share, rel=1e-6)
    assert row["found"] == bool(verdict)
    assert f" {verdict}" in row["meaning"]
    if verdict == "too":
        assert row["threshold"] < 0
        assert re.search(r"± 0\.\d+: too few draws to tell", row["meaning"])
        # With the virial, the share is known: these draws are of a quadratic loss, but for noise.
        known = planted(statistics={"penalty": penalty, "virial": 2 * LLC})
        share = nllc.summary(known).loc["llc"]
        assert share["localization_share"] == pytest.approx(1 - LLC.var() / MEAN, abs=0.1)
        assert share["mcse_share"] < 0.1


def test_a_gamma_that_was_chosen_is_not_to_be_lowered():
    penalty = MEAN * (LLC - MEAN) / LLC.var() + 10.0
    given = {"statistics": {"penalty": penalty}, "localization_reason": "chosen"}
    remedy = nllc.diagnose(planted(**given)).loc["localization", "remedy"]
    assert remedy.startswith("Compare it with λ̂ at the same γ alone")


@pytest.mark.parametrize("wanted", [0.3, 0.45, 0.6, 0.95, 1.3, 2.5])
def test_the_gamma_law_is_of_variance_over_mean(wanted):
    x = np.sqrt(wanted * MEAN / LLC.var()) * (LLC - MEAN)
    row = nllc.diagnose(planted(x + MEAN), all_checks=True).loc["gamma_law"]
    error = 4 * error_of((x**2 - x.var() - wanted * x) / MEAN)
    assert row["value"] == pytest.approx(wanted, rel=1e-6)
    limit = 1.25 + error if wanted > 1 else 0.5 - error
    assert row["threshold"] == pytest.approx(limit, rel=1e-4)
    assert row["found"] == (wanted > limit if wanted > 1 else wanted < limit)


def test_the_gamma_law_names_its_cause_in_numbers():
    def remedy(llc, **statistics):
        return nllc.diagnose(planted(llc, statistics=statistics)).loc["gamma_law", "remedy"]

    wide = 2.0 * (LLC - MEAN) + MEAN
    below = 100 * np.mean(wide < -0.05)
    assert f"{below:.2g} % of the draws lie below the loss at the centre" in remedy(wide)
    assert f"the lowest `llc` is {wide.min():.3g}" in remedy(wide)
    above = LLC**2 * MEAN / np.mean(LLC**2)
    drop = above.var() - above.mean()
    assert f"not the minimum, by about {drop:.2g} of β nL" in remedy(above)
    narrow = 0.3 * (LLC - MEAN) + MEAN
    assert "Only the distances" in remedy(narrow)
    penalty = MEAN - narrow  # which γ does not hold back
    assert "the rest indicates a multiplicity m above one" in remedy(narrow, penalty=penalty)
    pulled = 0.9 * MEAN * (narrow - MEAN) / narrow.var()
    without = MEAN + 0.9 * MEAN
    said = remedy(narrow, penalty=pulled)
    assert f"the mean without γ is {without:.4g} (from {MEAN:.4g})" in said


def test_a_chain_that_sits_elsewhere_is_told_by_its_distance():
    distance = np.abs(np.random.default_rng(3).normal(size=LLC.shape))
    distance[3] += 2.0  # where λ̂ is the same
    caught = planted(statistics={"distance": distance}, num_parameters=1)
    table = nllc.diagnose(caught)
    assert {"r_hat_distance", "basin"} <= set(table.index)
    assert "r_hat" not in table.index
    assert "of chain 3 is" in table.loc["basin", "meaning"]
    assert table.loc["basin", "value"] == pytest.approx(np.mean(distance[3] ** 2))


def test_draws_below_the_centre_are_counted():
    llc = LLC.copy()
    llc[1, :40] = -0.2
    row = nllc.diagnose(planted(llc)).loc["below_center"]
    assert row["value"] == -0.2
    assert "1 % of the draws lie below the loss at the centre" in row["meaning"]


def quiet(scale, chains=4):
    """Draws whose llc and penalty are of this size: d/2 = 2.5 each would be usual."""
    rng = np.random.default_rng(3)
    llc, penalty = scale * rng.gamma(2.5, size=(2, chains, 1000))
    return llc, penalty


@pytest.mark.parametrize("scale", [0.0, 1e-9, 1e-4])
def test_chains_that_do_not_move_are_said_to_stand_still(scale):
    llc, penalty = quiet(scale)
    settings = {"kernel": "sgnht", "step_size": 1e-12, "step_size_is_automatic": 0}
    row = nllc.diagnose(planted(llc, statistics={"penalty": penalty}, **settings)).loc[
        "standing_still"
    ]
    assert row["value"] == 1.0
    assert "100 % of the chains did not move" in row["meaning"]
    assert "The reason is `step_size`, which is 1e-12: raise it" in row["remedy"]
    one = planted(np.r_[LLC[:3], llc[:1]], statistics={"penalty": np.r_[PULLS[:3], penalty[:1]]})
    table = nllc.diagnose(one)
    assert table.loc["standing_still", "value"] == 0.25
    assert "Raise `num_warmup`" in table.loc["standing_still", "remedy"]


def test_chains_that_move_do_not_stand_still():
    for llc, own, attrs in [
        (LLC, {}, {}),
        (*quiet(0.1), {}),  # of some w^50
        (quiet(1e-3)[0], {"penalty": PULLS}, {}),  # a flat loss, bounded by γ
        (*quiet(1e-4), {"localization": 0.0}),  # λ may be far below d
    ]:
        known = own if isinstance(own, dict) else {"penalty": own}
        table = nllc.diagnose(planted(llc, statistics=known, **attrs), all_checks=True)
        assert not table.loc["standing_still", "found"]
    rest = planted(0.0 * LLC, kernel="sgd")
    assert "standing_still" not in nllc.diagnose(rest, all_checks=True).index


def test_a_loss_that_does_not_depend_on_what_is_sampled_is_told_from_chains_that_stand():
    row = nllc.diagnose(
        planted(0.0 * LLC, statistics={"penalty": PULLS, "distance": np.sqrt(PULLS)})
    ).loc["standing_still"]
    assert "does not depend on the parameters that are sampled" in row["meaning"]


@pytest.mark.parametrize("kernel", [pytest.param("sgld", marks=pytest.mark.slow), "sgnht"])
def test_a_run_of_tiny_steps_stands_still(kernel):
    kind = {"sgld": nllc.SGLD, "sgnht": nllc.SGNHT}[kernel]
    with pytest.warns(nllc.LLCWarning, match="did not move.*which is 1e-12: raise it"):
        run(kernel=kind(step_size=1e-12), num_warmup=10, num_samples=100)


def test_at_a_saddle_no_number_of_a_minimum_is_given():
    saddle = {
        "center_shift": -3.6e8,
        "center_gradient_norm": 1.0,
        "center_expected_llc": 1.0,
        "center_smallest_eigenvalue": -10.0,
        "center_largest_eigenvalue": 100.0,
    }
    table = nllc.diagnose(planted(**saddle))
    assert "center_gradient" not in table.index
    assert "is no local minimum" in table.loc["center_curvature", "meaning"]
    slope = planted(**{**saddle, "center_smallest_eigenvalue": 1.0, "center_shift": -0.3})
    assert (
        "The drop of λ̂ from the slope at the centre is 0.3"
        in (nllc.diagnose(slope).loc["center_gradient", "meaning"])
    )


def test_a_hessian_that_is_not_finite_is_said_to_be():
    unknown = dict.fromkeys(("center_shift", "center_expected_llc"), np.nan)
    ends = dict.fromkeys(("center_smallest_eigenvalue", "center_largest_eigenvalue"), np.nan)
    row = nllc.diagnose(planted(**unknown, **ends, center_gradient_norm=0.25)).loc[
        "center_gradient"
    ]
    assert "The Hessian of nL at the centre is not finite" in row["meaning"]
    assert "0.25" in row["meaning"]


@pytest.mark.parametrize(
    ("attrs", "said"),
    [
        ({"kernel": "nuts"}, "higher `target_accept_prob`.*NUTS"),
        ({"kernel": "hmc"}, "higher `target_accept_prob`.*HMC"),
        ({"kernel": "sgld", "step_size": 0.1}, "Lower `step_size`"),
        ({"kernel": "Metropolis"}, "Shorten the steps"),
    ],
)
def test_a_remedy_names_the_setting_that_the_kernel_has(attrs, said):
    row = nllc.diagnose(planted(with_mean(9.0), **attrs)).loc["above_half_dimension"]
    assert re.search(said, row["remedy"])
    llc = LLC.copy()
    llc[0, 50] = np.nan
    assert re.search(said, nllc.diagnose(planted(llc, **attrs)).loc["non_finite", "remedy"])


@pytest.mark.parametrize(
    ("virial", "penalty", "said"),
    [
        (4.5, 0.25, "as the power 0.5 of the distance.*larger `inverse_temperature`"),
        (9.0, 0.25, "draws reach too far: the mean of .* is 9.5.*where d = 5.*warm up longer"),
    ],
)
def test_what_puts_lambda_hat_above_half_the_dimension(virial, penalty, said):
    """Whatever the loss, E[virial + 2 penalty] = d; the virial is the power k times `llc`."""
    spread = np.random.default_rng(3).normal(scale=0.5, size=LLC.shape)
    kept = {"virial": virial + spread, "penalty": np.full(LLC.shape, penalty)}
    found = nllc.diagnose(planted(with_mean(9.0), statistics=kept)).loc["above_half_dimension"]
    assert re.search(said, found["meaning"] + found["remedy"], re.DOTALL)


def around(losses):
    model = nllc.loss_model(lambda params, x: losses(params) * jnp.ones(len(x)), jnp.zeros(2))
    return nllc.localize(model, center={"params": jnp.zeros(2)}, localization=1.0)


LOSSES = {
    "flat": lambda w: jnp.sum(jnp.maximum(jnp.abs(w) - 0.05, 0.0)),
    "eighth": lambda w: jnp.sum(w**8),
    "sixteenth": lambda w: jnp.sum(w**16),  # whose slopes a thousandth of the way are 0 in 32 bits
    "off": lambda w: jnp.sum((w - 0.01) ** 2),
}


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("flat", "nuts"),
        ("flat", "sgnht"),
        ("eighth", "sgnht"),
        ("sixteenth", "nuts"),
        ("off", "nuts"),
    ],
)
def test_a_loss_that_does_not_change_around_the_center_is_found(name, kernel):
    settings = {"num_warmup": 100, "num_samples": 100, "progress_bar": False, "kernel": kernel}
    idata = nllc.estimate_llc(jax.random.key(1), around(LOSSES[name]), (np.zeros(500),), **settings)
    checks = nllc.diagnose(idata, all_checks=True)
    assert ("constant_loss" in checks.index) == (name in ("flat", "eighth"))
    assert ("constant_loss" in found(idata)) == (name == "flat")


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_exact_kernels_judge_the_slope_of_more_parameters_than_have_a_hessian(shift):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(500, 130)), rng.normal(size=500)
    center = {"w": np.linalg.lstsq(x, y, rcond=None)[0] + shift}
    lengths = {"num_warmup": 20, "num_samples": 20, "num_chains": 1, "progress_bar": False}
    idata = nllc.estimate_llc(jax.random.key(0), regression.model, (x, y), center=center, **lengths)
    table = nllc.diagnose(idata, all_checks=True)
    assert table.loc["center_gradient", "found"] == (shift > 0)


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_a_center_too_large_to_step_off_is_not_called_flat():
    """In float32 a thousandth of the way from 1000 is 1000 itself."""

    def model(y):
        mean = numpyro.sample("mean", dist.Normal(0.0, 1e4))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    y = np.full(100_000, 1000.0)
    idata = nllc.estimate_llc(
        *(jax.random.key(0), model, (y,)),
        center={"mean": 1000.0},
        kernel="sgnht",
        num_warmup=50,
        num_samples=50,
        progress_bar=False,
    )
    assert idata.attrs["center_gradient_norm"] == 0.0
    assert "constant_loss" not in found(idata)


def test_rows_that_were_not_evaluated_count_where_lambda_hat_is_above_half_the_dimension():
    known = {"statistics": {"virial": LLC * 2.0, "penalty": 0.1 * LLC}}
    for unseen, is_found in ((0.0, True), (0.5, False)):
        result = planted(with_mean(3.0), evaluation_error=unseen, **known)
        assert ("above_half_dimension" in found(result)) == is_found


def test_a_chain_that_stands_still_far_out_has_left_the_basin():
    penalty = PULLS.copy()
    penalty[2] = DIMENSION
    assert "basin" in found(planted(statistics={"penalty": penalty}))


NAMED = (Path(__file__).parent.parent / "docs/reference/diagnostics.md").read_text()
TESTED = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_is_documented_and_tested(check):
    assert f"| `{check}`" in NAMED or f", `{check}`" in NAMED
    assert re.search(rf'"{check}[" ]', TESTED)


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_tables_tell_of_a_constant_loss_too():
    settings = {"num_warmup": 50, "num_samples": 100, "progress_bar": False, "kernel": "sgnht"}
    local, data = around(LOSSES["flat"]), (np.zeros(500),)
    key = jax.random.key(2)
    table = nllc.sweep(key, local, data, localization=[1.0, 10.0], batch_size=50, **settings)
    walk = nllc.llc_trajectory(
        *(key, replace(local, center=None), [local.center] * 2, data), batch_size=50, **settings
    )
    for found_here in (table, walk):
        assert found_here["checks"].str.contains("constant_loss").all()
