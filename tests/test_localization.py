"""``choose_localization``: against exact λ̂ and shares; the spectrum; what is chosen, and why."""

import json
import pickle

import jax
import numpy as np
import pytest
import regression
import xarray as xr
from metropolis import METROPOLIS
from numpyro.infer import HMC
from targets import target_of

import numpyro_llc as nllc
from numpyro_llc import plots
from numpyro_llc.local import ChosenLocalization, all_rows, spectrum_at_center
from numpyro_llc.local._spectrum import Spectrum
from numpyro_llc.studies import LocalizationChoice
from numpyro_llc.studies._chosen_gamma import choose

BETA = 1 / np.log(500)
VALUES = np.linalg.eigvalsh(regression.X.T @ regression.X)
GAMMAS = [1e-3, 1e-2, 0.1, 10.0, 1000.0, 1e5]
ARGUMENTS = regression.model, (regression.X, regression.Y)


def shares_of(gamma):
    """``s = βh/(βh + γ)`` of each direction."""
    return BETA * VALUES / (BETA * VALUES + gamma)


@pytest.fixture(scope="module")
def choice():
    return nllc.choose_localization(
        jax.random.key(0),
        *ARGUMENTS,
        center={"w": regression.OLS},
        localization=GAMMAS[::-1],
        kernel=HMC(regression.model, trajectory_length=1.5),
        num_warmup=300,
        num_samples=500,
        progress_bar=False,
    )


def test_each_gamma_has_its_exact_numbers(choice):
    data = choice.data.isel(center=0)
    np.testing.assert_array_equal(data["localization"], GAMMAS)
    for gamma in GAMMAS:
        s, row = shares_of(gamma), data.sel(localization=gamma)
        assert abs(row["llc"] - s.sum() / 2) < 4 * row["mcse_mean"]
        share = np.sum(s * (1 - s)) / np.sum(s)
        assert abs(row["localization_share"] - share) < 4 * row["mcse_share"]
        assert row["mcse_share"] < 0.06
        assert row["expected_llc"] == pytest.approx(s.sum() / 2, rel=1e-3)
        limit = 0.5 * BETA * VALUES.sum() / gamma
        assert row["large_localization_limit"] == pytest.approx(limit, rel=1e-3)
        square = np.sum(1 / (BETA * VALUES + gamma))
        assert row["distance"] == pytest.approx(square**0.5, rel=0.15)
        assert row["reached"] == pytest.approx(1.0, abs=0.1)
    assert data["center_norm"] == pytest.approx(np.linalg.norm(regression.OLS), rel=1e-5)
    last = data.sel(localization=1e5)
    wanted = last["large_localization_limit"].item()
    assert last["expected_llc"] == pytest.approx(wanted, rel=0.01)


def test_a_gamma_of_the_plateau_is_chosen_at_which_draws_stay_near(choice):
    assert choice.has_plateau
    assert choice.localization == 0.1  # below, the draws lie further away than the centre is long
    flat = choice.data["on_plateau"].isel(center=0).to_numpy()
    np.testing.assert_array_equal(flat, [True, True, True, False, False, False])
    assert str(choice) == choice.reason == choice.localization.reason
    assert choice.reason.startswith("γ = 0.1. It is the smallest usable γ of a plateau: ")
    assert "from 0.001 to 0.1 λ̂ agrees" in choice.reason
    assert choice.table.shape == (6, 10)
    row = choice.table.loc[(0, 0.1)]
    assert row["llc"] == choice.data["llc"].sel(localization=0.1).item()


def test_results_keep_the_reason(choice, tmp_path):
    settings = {"kernel": METROPOLIS, "num_warmup": 100, "num_samples": 50, "progress_bar": False}
    center = {"w": regression.OLS}
    with pytest.warns(nllc.LLCWarning):  # it is short
        idata = nllc.estimate_llc(
            jax.random.key(0),
            *ARGUMENTS,
            center=center,
            localization=choice.localization,
            **settings,
        )
    assert idata.posterior.attrs["localization"] == pytest.approx(0.1)
    assert idata.posterior.attrs["localization_reason"] == choice.reason
    local = nllc.localize(ARGUMENTS[0], center=None, localization=choice.localization)
    run = nllc.llc_trajectory(jax.random.key(0), local, [center], ARGUMENTS[1], **settings)
    assert run.attrs["localization_reason"] == choice.reason
    again = pickle.loads(pickle.dumps(choice.localization))
    assert (again, again.reason) == (0.1, choice.reason)
    choice.data.to_netcdf(tmp_path / "choice.nc", engine="h5netcdf")
    read = LocalizationChoice(xr.load_dataset(tmp_path / "choice.nc", engine="h5netcdf"))
    assert (read.localization, read.reason) == (0.1, choice.reason)


def test_the_picture_shows_what_was_found(choice):
    axes = plots.plot_localization(choice)
    labels = axes.get_legend_handles_labels()[1]
    for wanted in ("λ̂ ± 2 mcse", "quadratic loss", "β tr H/(2γ)", "plateau", "chosen: γ = 0.1"):
        assert wanted in labels
    with pytest.raises(ValueError, match="`choice` must be what `choose_localization` returns"):
        plots.plot_localization(xr.Dataset())


@pytest.mark.parametrize("with_rows", [True, False])
def test_the_spectrum_of_many_parameters_gives_traces(with_rows):
    """d = 200 of a power law: the quadrature against the eigenvalues themselves."""
    rng, d = np.random.default_rng(0), 200
    x = rng.normal(size=(300, d)) * np.arange(1, d + 1.0) ** -1.0
    target = target_of(regression.model, (x, x @ np.ones(d)), {"w": np.ones(d)}, batches=with_rows)
    values = np.linalg.eigvalsh(x.T @ x)
    rows = all_rows(target) if with_rows else None
    found = spectrum_at_center(target, jax.random.key(0), rows)
    np.testing.assert_allclose(found.weights.sum(axis=1), d, rtol=1e-4)
    trace, error = found.trace()
    assert abs(trace - values.sum()) < 4 * error + 1e-3 * values.sum()
    for gamma in (0.01, 1.0, 100.0):
        wanted = 0.5 * np.sum(0.2 * values / (0.2 * values + gamma))
        llc, error = found.expected_llc(0.2, gamma)
        assert abs(llc - wanted) < 4 * error + 0.01 * wanted
        assert error < 0.15 * wanted
    assert np.isnan(type(found)(-found.values, found.weights).expected_llc(0.2, 1e-3)).all()


# --- the choice, from a table -------------------------------------------------------------------

GRID = np.array([0.1, 0.3, 1.0, 3.0, 10.0])


def grid_of(llc, **columns):
    """A table of centres ``[center, γ]``; all else is as of a healthy run."""
    llc = np.atleast_2d(np.asarray(llc, float))
    usual = {
        "llc": llc,
        "mcse_mean": 0.01 * llc,
        "localization_share": np.full(llc.shape, 0.6),
        "distance": np.broadcast_to(10 / GRID**0.5, llc.shape),
        "reached": np.ones(llc.shape),
        "r_hat": np.ones(llc.shape),
    }
    usual |= {name: np.broadcast_to(value, llc.shape) for name, value in columns.items()}
    norm = usual.pop("center_norm")[:, 0] if "center_norm" in usual else np.full(len(llc), 12.0)
    dims = ("center", "localization")
    variables = {name: (dims, value.astype(float)) for name, value in usual.items()}
    coords = {"center": np.arange(len(llc)), "localization": GRID}
    return xr.Dataset({**variables, "center_norm": ("center", norm)}, coords=coords)


def chosen(grid, dimension=1100):
    return LocalizationChoice(choose(grid, dimension, 3000))


FALLING = 50 / GRID


def test_without_a_plateau_the_smallest_usable_gamma_is_chosen_and_that_is_said():
    found = chosen(grid_of(FALLING))
    assert not found.has_plateau
    assert found.localization == 1.0  # at 0.3 the draws are 18 from a centre 12 long
    assert "λ̂ has no plateau: from γ = 0.1 to 10 λ̂ goes from 500 to 5" in found.reason
    assert "no learning coefficient" in found.reason
    assert "At γ = 0.3 draws lie 18.3 away" in found.reason
    assert json.dumps(found.attrs)
    slow = chosen(grid_of(FALLING, reached=[0.2, 0.4, 0.7, 1.0, 1.0]))
    assert slow.localization == 3.0
    assert "At γ = 1 chains do not arrive (R-hat 1, and 70 % of the spread" in slow.reason
    apart = chosen(grid_of(FALLING, r_hat=[1.2, 1.2, 1.1, 1.06, 1.0]))
    assert apart.localization == 10.0
    assert "At γ = 3 chains do not agree (R-hat 1.06, and 100 % of the spread" in apart.reason
    share = [0.1, 0.1, 0.5, 0.6, 0.6]
    unknown = chosen(grid_of(FALLING, r_hat=[1.2, 1.2, 1.2, 1.0, 1.0], localization_share=share))
    assert "There may be one at γ = 0.1 to 0.3" in unknown.reason
    assert "no learning coefficient" not in unknown.reason
    above = chosen(grid_of(FALLING), 60)  # of 50 at γ = 1, where d/2 is 30
    assert above.localization == 3.0
    assert "At γ = 1 λ̂ is 50, above d/2 = 30." in above.reason
    kinked = chosen(grid_of(np.full(5, 50.0), distance=1.0), 60)
    assert kinked.localization == 10.0
    assert "At no γ of the grid is λ̂ at most d/2; this is the largest" in kinked.reason
    unknown = chosen(grid_of(FALLING, reached=np.nan, center_norm=0.0))
    assert unknown.localization == 0.1
    assert "the first of the grid" in unknown.reason


def test_one_gamma_is_chosen_for_all_centres():
    both = grid_of([FALLING, 2 * FALLING], center_norm=[[12.0], [5.0]])
    assert chosen(both).localization == 10.0
    assert "goes from 500 to 5 at centre 0, from 1000 to 10 at centre 1, and" in chosen(both).reason
    flat = np.array([[5.0, 5.0, 5.0, 5.0, 2.0], [9.0, 9.0, 9.0, 4.0, 2.0]])
    share = np.array([[0, 0, 0, 0, 0.6], [0, 0, 0, 0.5, 0.6]])
    found = chosen(grid_of(flat, localization_share=share, distance=1.0))
    assert found.has_plateau
    assert found.localization == 0.1
    assert "λ̂ at this γ: 5 to 9" in found.reason


def test_a_drift_within_errors_of_its_neighbours_ends_the_plateau():
    """As λ̂ of a Poisson regression: 1.58 is no part of a plateau around 2."""
    llc = [2.10, 2.08, 2.057, 1.90, 1.583]
    found = chosen(grid_of(llc, localization_share=0.1, distance=1.0))
    flat = found.data["on_plateau"].isel(center=0).to_numpy()
    assert flat.tolist() == [True, True, True, False, False]  # 1.90 does not agree with 2.10
    assert found.localization == 0.1  # where γ takes least
    assert "differs from it by at most 2 %" in found.reason  # 2.057 of 2.10
    assert "centre(s)" not in found.reason
    assert "for γ from 0.1 to 1" in found.reason
    late = chosen(grid_of(llc, localization_share=0.1, distance=[20.0, 20.0, 1.0, 1.0, 1.0]))
    assert late.localization == 1.0  # the first whose draws stay near
    two = chosen(grid_of([llc, llc], localization_share=0.1, distance=1.0))
    assert "three errors at each of the 2 centres" in two.reason


def test_a_plateau_of_which_gamma_takes_much_is_none():
    found = chosen(grid_of([5.0] * 5, localization_share=0.5))
    assert not found.has_plateau


def test_where_no_gamma_is_usable_the_largest_is_chosen_and_the_remedy_said():
    slow = chosen(grid_of(FALLING, reached=0.5))
    assert slow.localization == 10.0
    assert "Raise `num_warmup` and `num_samples`" in slow.reason
    far = chosen(grid_of(FALLING, center_norm=1.0))
    assert far.localization == 10.0
    assert "Give a larger `localization`" in far.reason
    assert "give a λ̂" in chosen(grid_of(np.nan * GRID)).reason


def test_the_grid_of_its_own_is_around_the_length_of_the_centre():
    found = nllc.choose_localization(
        jax.random.key(0),
        nllc.localize(ARGUMENTS[0], center={"w": regression.OLS}),
        ARGUMENTS[1],
        kernel=METROPOLIS,
        num_warmup=100,
        num_samples=40,
        progress_bar=False,
    )
    gammas = found.data["localization"].to_numpy()
    np.testing.assert_allclose(gammas, [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100])


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_centres_that_are_no_minima_are_named_and_the_truth_there_is_a_way():
    centers = [{"w": regression.OLS}, {"w": regression.OLS + 0.5}]
    settings = {"kernel": METROPOLIS, "num_warmup": 100, "num_samples": 100, "center": centers}
    settings |= {"localization": [0.1, 1.0], "progress_bar": False}
    key, (model, data) = jax.random.key(0), ARGUMENTS
    by_data = nllc.choose_localization(key, model, data, **settings)
    assert "Centre 1 is no minimum of the loss by the data: λ̂ is negative" in by_data.reason
    assert "truth='center'" in by_data.reason
    local = nllc.localize(model, center=None, truth="center")
    by_center = nllc.choose_localization(key, local, data, **settings)
    assert by_center.data["llc"].min() > 0
    assert "no minimum" not in by_center.reason
    at_first = nllc.localize(model, center=centers[0], localization=50.0)
    again = nllc.choose_localization(key, at_first, data, **settings)
    np.testing.assert_array_equal(again.data["llc"], by_data.data["llc"])


def test_bad_arguments_are_named():
    settings = {"center": {"w": regression.OLS}, "progress_bar": False}
    with pytest.raises(TypeError, match="`localization` must be a sequence"):
        nllc.choose_localization(jax.random.key(0), *ARGUMENTS, localization=1.0, **settings)
    with pytest.raises(ValueError, match="`localization` must be finite and positive"):
        nllc.choose_localization(jax.random.key(0), *ARGUMENTS, localization=[0.0, 1], **settings)
    assert ChosenLocalization(2.0, "so").reason == "so"


def test_the_error_of_a_trace_is_the_standard_error_over_probes():
    values = np.array([1.0, 2.0, 4.0, 9.0])
    mean, error = Spectrum(values[:, None], np.ones((4, 1))).trace()
    assert (mean, error) == (4.0, pytest.approx(np.std(values, ddof=1) / 2))
    assert Spectrum(values[None], np.ones((1, 4))).trace() == (16.0, 0.0)
