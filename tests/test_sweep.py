"""``sweep``: cells against exact values, one compilation, resumed, broken, recommended."""

import json

import jax
import numpy as np
import pytest
import regression
import xarray as xr

import numpyro_llc as nllc
from numpyro_llc import sampling
from numpyro_llc.studies import plateau

LENGTHS = {"num_warmup": 500, "num_samples": 3000}


def sweep(key=0, **settings):
    chosen = {"center": {"w": regression.OLS}, "batch_size": 50, "progress_bar": False, **settings}
    return nllc.sweep(jax.random.key(key), regression.model, (regression.X, regression.Y), **chosen)


@pytest.mark.parametrize("method", ["vectorized", "sequential"])
def test_cells_have_their_exact_values_in_one_compilation(method):
    sampling.advance.clear_cache()
    grid = sweep(
        kernel="sgnht",
        localization=[0.3, 1.0, 10.0],
        inverse_temperature=[0.1, 0.2],
        chain_method=method,
        **LENGTHS,
    )
    assert sampling.advance._cache_size() == 1
    assert dict(grid.sizes) == {"localization": 3, "inverse_temperature": 2}
    for gamma in grid["localization"].values:
        for beta in grid["inverse_temperature"].values:
            cell = grid.sel(localization=gamma, inverse_temperature=beta)
            exact = regression.exact(regression.OLS, gamma, beta=beta)
            assert abs(cell["llc"] - exact) < 4 * cell["mcse"] + 0.01 * exact
            assert cell["status"] == "ok", str(cell["findings"].values)


def test_a_cell_is_what_estimate_llc_gives():
    grid = sweep(kernel="nuts", batch_size=None, localization=[1.0, 5.0], num_samples=1000)
    idata = nllc.estimate_llc(
        jax.random.key(3),
        regression.model,
        (regression.X, regression.Y),
        center={"w": regression.OLS},
        localization=5.0,
        progress_bar=False,
    )
    row, cell = nllc.summary(idata).loc["llc"], grid.isel(localization=1)
    assert abs(row["mean"] - cell["llc"]) < 4 * np.hypot(row["mcse_mean"], cell["mcse"])


def test_a_diverged_cell_is_marked_and_the_others_go_on():
    grid = sweep(step_size=[1e-3, 3.0], localization=[1.0, 2.0], **LENGTHS)
    assert (grid["status"].sel(step_size=3.0) == "diverged").all()
    assert np.isfinite(grid["llc"].sel(step_size=1e-3)).all()
    np.testing.assert_allclose(grid["step_size_used"].isel(step_size=0), 1e-3, rtol=1e-6)


def test_centres_and_batch_sizes_are_axes_too():
    centers = [{"w": regression.OLS}, {"w": regression.TRUTH}]
    grid = sweep(kernel="sgnht", center=centers, batch_size=[20, 50], **LENGTHS)
    assert dict(grid.sizes) == {"center": 2, "batch_size": 2}
    for k, point in enumerate((regression.OLS, regression.TRUTH)):
        exact = regression.exact(point, 1.0)
        for cell in (grid.isel(center=k, batch_size=b) for b in range(2)):
            assert abs(cell["llc"] - exact) < 4 * cell["mcse"] + 0.02 * abs(exact)


def test_a_sweep_goes_on_where_it_stopped(tmp_path, monkeypatch):
    settings = {"localization": [0.5, 1.0, 2.0], "chain_method": "sequential", **LENGTHS}
    whole = sweep(**settings)
    from numpyro_llc.studies import _sweep

    run_group, calls = _sweep.run_group, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run_group(*args)

    monkeypatch.setattr(_sweep, "run_group", interrupted)
    with pytest.warns(nllc.LLCWarning, match="interrupted"):
        part = sweep(output=tmp_path, **settings)
    assert part["status"].values.tolist()[2] == ""
    assert np.isfinite(part["llc"]).sum() == 2
    rest = sweep(output=tmp_path, **settings)
    assert len(calls) == 4
    np.testing.assert_array_equal(rest["llc"], whole["llc"])
    saved = xr.load_dataset(tmp_path / "sweep.nc", engine="h5netcdf")
    np.testing.assert_array_equal(saved["llc"], whole["llc"])
    with pytest.raises(nllc.CheckpointError, match="another `localization`"):
        sweep(output=tmp_path, **{**settings, "localization": [0.5, 1.0]})


def test_memory_bounds_how_many_cells_run_at_once():
    few = sweep(localization=[0.5, 1.0, 2.0], max_memory=1.0, **LENGTHS)
    many = sweep(localization=[0.5, 1.0, 2.0], **LENGTHS)
    np.testing.assert_allclose(few["llc"], many["llc"], rtol=0.2)


def test_the_plateau_is_where_neighbours_agree():
    llc = np.array([[1.0, 2.0, 2.02], [0.5, 2.01, 1.99], [2.0, 5.0, 9.0]])
    error = np.full(llc.shape, 1e-3)
    sound = np.ones(llc.shape, bool)
    wanted = np.array([[0, 1, 1], [0, 1, 1], [0, 0, 0]], bool)
    np.testing.assert_array_equal(plateau(llc, error, sound), wanted)
    sound[0, 1] = False
    assert plateau(llc, error, sound).sum() == 3
    sound[1, 2] = False
    assert not plateau(llc, error, sound).any()
    # A slow slope is no plateau: the ends must agree with the middle.
    slope = np.linspace(1.0, 2.0, 30)
    assert plateau(slope, 0 * slope, slope > 0).sum() < 6


def test_the_recommendation_is_in_the_plateau():
    grid = sweep(
        kernel="sgnht", localization=[0.02, 0.05, 0.1, 0.2, 30.0], num_warmup=500, num_samples=6000
    )
    chosen = json.loads(grid.attrs["recommended"])
    assert 0.02 <= chosen["localization"] <= 0.2
    assert "plateau of" in grid.attrs["recommendation"]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({}, "has no axis"),
        ({"localization": [1.0, 1.0]}, "different values"),
        ({"localization": []}, "at least one"),
        ({"localization": [1.0, -1.0]}, "localization"),
        ({"kernel": "nuts", "batch_size": None, "step_size": [0.1, 0.2]}, "cannot be an axis"),
    ],
)
def test_bad_grids_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        sweep(**{**LENGTHS, **settings})


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
@pytest.mark.parametrize(("name", "error"), [(3, TypeError), ("taken", ValueError)])
def test_an_output_that_can_be_no_folder_is_named(name, error, tmp_path):
    (tmp_path / "taken").write_text("")
    place = tmp_path / name if isinstance(name, str) else name
    data, center, key = (regression.X, regression.Y), {"w": regression.OLS}, jax.random.key(0)
    one = {"num_warmup": 5, "num_samples": 5, "progress_bar": False}
    axis = {"localization": [1.0], "center": center, **one}
    with pytest.raises(error, match="`output` must be"):
        nllc.sweep(key, regression.model, data, output=place, **axis)
    with pytest.raises(error, match="`output` must be"):
        nllc.llc_trajectory(key, regression.model, [center], data, output=place, **one)
    with pytest.raises(error, match="`checkpoint` must be"):
        nllc.estimate_llc(key, regression.model, data, center=center, checkpoint=place, **one)
