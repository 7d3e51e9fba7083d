"""Pictures: what is drawn are the numbers, also of saved results; what cannot be drawn is said."""

import runpy
from pathlib import Path

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import toy_network
import xarray as xr
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from scipy.stats import gamma

import numpyro_llc as nllc
from numpyro_llc import plots
from numpyro_llc.inference_data import attributes, inference_data, labelled, posterior
from numpyro_llc.studies._plateau import recommend
from numpyro_llc.studies._rows import empty

EXAMPLES = Path(__file__).parents[1] / "examples"
LEAD = {"lead": ("chain", "draw")}


@pytest.fixture(autouse=True)
def _figures_are_closed():
    yield
    plt.close("all")


def result(llc, statistics=(), sites=(), **settings):
    """A result of these draws, as a run would give it."""
    defaults = {"num_data": 1000, "num_parameters": 2, "localization": 1.0}
    attrs = attributes({**defaults, **settings})
    kept = {"distance": np.zeros(np.shape(llc)), **dict(statistics)}
    groups = {
        "posterior": labelled({"llc": llc, **dict(sites)}, **LEAD, attrs=attrs),
        "sample_stats": labelled(kept, **LEAD),
    }
    return inference_data(groups, attrs)


def gamma_draws(shape=1.5, chains=4, draws=500):
    """Gamma(shape, 1) without chance: its quantiles, in an order with no trend, in all chains."""
    places = np.random.default_rng(0).permutation(draws * chains)
    return gamma.ppf((places + 0.5) / places.size, shape).reshape(chains, draws)


def two_sites(chains=2, draws=50):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, chains, draws))
    return result((a * b) ** 2, sites={"a": a, "b": b})


def saddle(a, b):
    return (a * b) ** 2


def drawn(name, idata):
    plot = getattr(plots, f"plot_{name}")
    return plot(idata, saddle) if name == "landscape" else plot(idata)


ONE_RESULT = ["trace", "rank", "gamma", "error_budget", "landscape"]


@pytest.mark.parametrize("name", ONE_RESULT)
def test_saved_results_give_the_same_picture(name, tmp_path):
    idata = two_sites()
    idata.to_netcdf(str(tmp_path / "run.nc"))
    pictures = []
    for one in (idata, az.from_netcdf(str(tmp_path / "run.nc"))):
        first = np.ravel(drawn(name, one))[0]
        assert isinstance(first, plt.Axes)
        assert first.get_xlabel() or name == "trace"
        first.figure.canvas.draw()
        pictures.append(np.asarray(first.figure.canvas.buffer_rgba()))
    np.testing.assert_array_equal(*pictures)


@pytest.mark.parametrize("name", ["rank", "gamma", "error_budget"])
def test_pictures_go_on_the_axes_that_are_given(name):
    _, axes = plt.subplots(1, 2)
    assert getattr(plots, f"plot_{name}")(two_sites(), axes=axes[1]) is axes[1]
    assert plots.plot_landscape(two_sites(), saddle, axes=axes[0]) is axes[0]


@pytest.mark.parametrize("name", ONE_RESULT)
def test_results_without_llc_or_draws_are_refused(name):
    short = result(np.ones((2, 3)))
    with pytest.raises(ValueError, match="at least 4 finite draws a chain; got 3"):
        drawn(name, short)
    data = posterior(two_sites()).rename(llc="loss")
    with pytest.raises(ValueError, match=r"hold \['loss', 'a', 'b'\], but no `llc`"):
        drawn(name, {"posterior": data})


def test_trace_and_running_mean_are_of_the_draws():
    llc = gamma_draws()
    trace, running = plots.plot_trace(result(llc))
    np.testing.assert_allclose([line.get_ydata() for line in trace.lines], llc)
    means = np.cumsum(llc, axis=1) / np.arange(1, 501)
    np.testing.assert_allclose([line.get_ydata() for line in running.lines[:4]], means)
    estimate, half = (line.get_ydata()[0] for line in running.lines[4:])
    assert (estimate, half) == (pytest.approx(llc.mean()), 1.0)
    assert trace.get_title() == "4 chains of 500 draws"
    row = nllc.summary(result(llc)).loc["llc"]
    (band,) = running.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx(
        (row["ci90_lb"], row["ci90_ub"])
    )
    assert running.get_title() == f"λ̂ = {row['mean']:.2f} ± {row['mcse_mean']:.2f}"
    assert running.get_ylim() == pytest.approx((0.0, 1.25 * row["ci90_ub"]))
    assert [axes.get_xlabel() for axes in (trace, running)] == ["draw", "draw"]
    assert list(trace.lines[0].get_xdata()) == list(range(1, 501))
    legend = [text.get_text() for text in trace.figure.legends[0].get_texts()]
    assert legend == ["90 % interval", "λ̂", "d/2"]
    own_half = plots.plot_trace(result(llc), half_dimension=0.5)[1].lines[5]
    assert own_half.get_ydata()[0] == 0.5


def test_of_a_broken_run_the_draws_before_are_drawn():
    llc = gamma_draws()
    llc[2, 400] = np.inf
    trace, running = plots.plot_trace(result(llc))
    assert trace.get_title() == "4 chains of 400 draws, then it broke"
    assert len(trace.lines[0].get_ydata()) == 400
    assert running.lines[4].get_ydata()[0] == pytest.approx(llc[:, :400].mean())


def test_no_results_are_refused():
    with pytest.raises(ValueError, match="`results` is empty"):
        plots.plot_traces({})


def bars(axes, chains):
    """Heights [chain, bin] in units of the expected one."""
    heights = np.array([patch.get_height() for patch in axes.patches]).reshape(chains, -1)
    expected = axes.lines[0].get_ydata()[0]
    return heights / expected


def test_ranks_of_chains_that_agree_are_even():
    llc = np.arange(400.0).reshape(100, 4).T  # each chain has every fourth rank
    np.testing.assert_allclose(bars(plots.plot_rank(result(llc)), 4), np.ones((4, 10)))


def test_ranks_of_a_chain_that_is_elsewhere_lie_at_one_end():
    llc = gamma_draws()
    llc[1] += 100.0
    heights = bars(plots.plot_rank(result(llc), num_bins=8), 4)
    np.testing.assert_allclose(heights[1], [0, 0, 0, 0, 0, 0, 4, 4])
    np.testing.assert_allclose(heights[[0, 2, 3], 6:], 0)
    np.testing.assert_allclose(heights.mean(axis=1), 1)


def test_rank_bars_stay_in_their_row_and_bins_are_checked():
    llc = gamma_draws()
    llc[1] += 100.0
    axes = plots.plot_rank(result(llc))
    for place, patch in enumerate(axes.patches):
        assert patch.get_y() == place // 20
        assert patch.get_height() < 1
    with pytest.raises(ValueError, match="`num_bins` must be at least 2; got 1"):
        plots.plot_rank(result(llc), num_bins=1)


def test_rank_band_is_that_of_a_binomial_count_of_effective_draws():
    llc = np.random.default_rng(2).gamma(0.5, size=(3, 1000))
    axes = plots.plot_rank(result(llc), num_bins=10)
    unit = axes.lines[0].get_ydata()[0]
    for chain, own in enumerate(llc):
        ess = float(az.ess(xr.Dataset({"x": (("chain", "draw"), own[None])}))["x"])
        ends = axes.collections[chain].get_paths()[0].vertices[:, 1] - chain
        half = 1.96 * np.sqrt(9 / ess)  # of a count of mean ess / 10, over the mean
        assert (ends.min() / unit, ends.max() / unit) == pytest.approx((1 - half, 1 + half))
        assert axes.lines[chain].get_ydata()[0] == pytest.approx(chain + unit)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "1", "2"]


def test_rank_band_holds_19_of_20_bars():
    llc = np.random.default_rng(2).gamma(0.5, size=(20, 1000))
    axes = plots.plot_rank(result(llc))
    inside = 0
    for chain, heights in enumerate(bars(axes, 20)):
        ends = axes.collections[chain].get_paths()[0].vertices[:, 1] - chain
        unit = axes.lines[0].get_ydata()[0]
        inside += np.sum((heights >= ends.min() / unit) & (heights <= ends.max() / unit))
    # 400 bars, nearly independent; the ends of the band are whole counts, the sizes estimates.
    assert 0.91 < inside / 400 < 0.985


def test_gamma_quantiles_are_on_the_diagonal_for_gamma_draws():
    llc = gamma_draws()
    axes = plots.plot_gamma(result(llc))
    points, diagonal = axes.lines[4:6]
    np.testing.assert_allclose(points.get_ydata(), points.get_xdata(), rtol=2e-3)
    np.testing.assert_allclose(points.get_ydata(), np.sort(llc, axis=None))
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    assert axes.get_title().startswith("mean 1.5 ± ")
    assert "variance 1.5 ± " in axes.get_title()


def test_gamma_quantiles_are_off_the_diagonal_for_others():
    axes = plots.plot_gamma(result(2.0 * gamma_draws()))  # of mean 3 and variance 6
    points = axes.lines[4]
    probabilities = (np.arange(2000) + 0.5) / 2000
    mean = 2.0 * gamma_draws().mean()
    np.testing.assert_allclose(points.get_xdata(), gamma.ppf(probabilities, mean))
    np.testing.assert_allclose(points.get_ydata(), 2.0 * np.sort(gamma_draws(), axis=None))
    own = gamma.ppf((np.arange(500) + 0.5) / 500, mean)
    for line, draws in zip(axes.lines[:4], gamma_draws(), strict=True):
        np.testing.assert_allclose(line.get_xdata(), own)
        np.testing.assert_allclose(line.get_ydata(), 2.0 * np.sort(draws))
    assert axes.get_xlabel() == "quantile of Gamma(3, 1)"
    assert axes.get_title().startswith("mean 3 ± ")
    assert "variance 5.9" in axes.get_title()
    with pytest.raises(ValueError, match="needs a positive λ̂; got -1.*lowest_point"):
        plots.plot_gamma(result(-gamma_draws() / gamma_draws().mean()))


def test_error_budget_shows_its_table():
    llc = gamma_draws()
    distance = np.sqrt(llc)
    idata = result(
        llc, {"distance": distance}, step_size_bias=0.05, evaluation_error=0.02
    )  # and no data_error
    table, mean = nllc.error_budget(idata), llc.mean()
    assert np.isnan(table.loc["data", "value"])
    axes = plots.plot_error_budget(idata)
    texts = [text.get_text() for text in axes.texts]
    assert [texts[1], texts[2], texts[4]] == ["± 0.02", "+0.05", "–"]
    assert float(texts[0].removeprefix("± ")) == pytest.approx(table["value"].iloc[0], rel=0.1)
    assert float(texts[3]) == pytest.approx(table.loc["localization", "value"], rel=0.1)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["monte carlo", "evaluation", "step size", "localization", "data"]
    segments = [part.get_segments()[0] for part in axes.collections]
    ends = mean + 0.02 * np.array([-1, 1])
    np.testing.assert_allclose(segments[1], np.column_stack([ends, [1, 1]]))
    own = mean + table["value"].iloc[0] * np.array([-1, 1])
    np.testing.assert_allclose(segments[0], np.column_stack([own, [0, 0]]))
    assert axes.get_title() == f"λ̂ = {mean:.3g}"
    arrows = [line for line in axes.lines if line.get_marker() in "<>" and len(line.get_xdata())]
    assert [line.get_marker() for line in arrows[:2]] == ["<", ">"]
    wanted = mean - table.loc[["step_size", "localization"], "value"]
    np.testing.assert_allclose([line.get_xdata()[0] for line in arrows[:2]], wanted)


def test_error_budget_of_exact_runs_draws_no_arrow():
    axes = plots.plot_error_budget(result(gamma_draws()))
    assert [text.get_text() for text in axes.texts][1:] == ["0", "0", "0", "–"]
    assert len(axes.collections) == 1


def test_landscape_shows_draws_centre_and_heights():
    idata = two_sites()
    axes = plots.plot_landscape(idata, saddle, center={"a": 0.5, "b": -0.5}, levels=[0.1, 1])
    draws = posterior(idata)
    points = next(part for part in axes.collections if len(part.get_offsets()) == 100)
    wanted = [draws[name].to_numpy().T.ravel() for name in "ab"]
    np.testing.assert_allclose(points.get_offsets().T, wanted)
    colors = {tuple(color[:3]) for color in points.get_facecolors()[1::2]}
    assert colors == {to_rgba("C1")[:3]}
    star = next(line for line in axes.lines if line.get_marker() == "*")
    np.testing.assert_allclose(star.get_xydata(), [[0.5, -0.5]])
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_aspect()) == ("a", "b", 1.0)
    lines = next(
        part for part in axes.collections if len(part.get_array()) == 2 and not part.filled
    )
    np.testing.assert_array_equal(lines.levels, [0.1, 1])
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        np.testing.assert_allclose(saddle(*path.vertices.T), level, rtol=0.1)
    limits = np.array([axes.get_xlim(), axes.get_ylim()])
    assert np.ptp(limits, axis=1) == pytest.approx(np.ptp(limits[0]))
    for values, (low, high) in zip(wanted, limits, strict=True):
        assert low < values.min() < values.max() < high


@pytest.mark.parametrize("center", [{"w": np.array([0.1, 0.2])}, {"w": [0.1, 0.2]}, (0.1, 0.2)])
def test_landscape_of_one_variable_with_two_components_on_a_given_grid(center):
    w = np.random.default_rng(3).normal(size=(2, 50, 2))
    idata = result(w[..., 0] ** 2, sites={"w": w, "other": w[..., 0]})
    lines = np.linspace(-1, 1, 11), np.linspace(-2, 2, 21)
    grid = xr.DataArray(
        lines[0][:, None] ** 2 + 0 * lines[1],
        {"w[0]": lines[0], "w[1]": lines[1]},
        ["w[0]", "w[1]"],
    )
    axes = plots.plot_landscape(idata, grid.T, var_names="w", center=center)
    points = next(part for part in axes.collections if len(part.get_offsets()) == 100)
    np.testing.assert_allclose(points.get_offsets(), w.swapaxes(0, 1).reshape(-1, 2))
    lines_of = next(part for part in axes.collections if not getattr(part, "filled", True))
    for level, path in zip(lines_of.levels, lines_of.get_paths(), strict=True):
        np.testing.assert_allclose(np.abs(path.vertices[:, 0]), np.sqrt(level), atol=0.06)
    assert axes.get_xlim() == (-1, 1)
    assert axes.get_ylim() == (-2, 2)
    star = next(line for line in axes.lines if line.get_marker() == "*")
    np.testing.assert_allclose(star.get_xydata(), [[0.1, 0.2]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"var_names": "a"}, r"variables \['a'\] are 1 numbers a draw.*`store_sites`"),
        ({"var_names": ["a", "c"]}, r"`var_names` names \['c'\]; the posterior has \['llc'"),
        ({"center": {"a": 0.0}}, r"`center` lacks \['b'\]; it has \['a'\]"),
        ({"center": (1.0, 2.0, 3.0)}, "`center` must be two numbers"),
        ({"loss": lambda a, b: 1.0}, r"must be elementwise.*it returned \(\)"),
        ({"loss": lambda a, b: 0 * a}, "`loss` has fewer than two finite values"),
        ({"loss": xr.DataArray(np.ones((2, 2)), dims=["a", "c"])}, "must have the dimensions 'a'"),
        ({"loss": xr.DataArray(np.ones((2, 2)), dims=["a", "b"])}, "with coordinates; got"),
    ],
)
def test_what_makes_no_landscape_is_said(settings, message):
    with pytest.raises(ValueError, match=message):
        plots.plot_landscape(two_sites(), **{"loss": saddle, **settings})


def grid_of(llc, status=None, **axes):
    """A sweep that ended, with these λ̂, its recommendation included."""
    grid = empty({name: list(values) for name, values in axes.items()})
    grid["llc"][:] = np.where(np.equal(status, "diverged"), np.nan, llc)
    grid["mcse_mean"][:] = 0.01
    grid["status"][:] = "ok" if status is None else status
    grid.attrs |= recommend(grid, list(axes))
    return grid


GAMMAS, BETAS = [0.1, 1.0, 10.0, 100.0], [0.05, 0.1, 0.2]


@pytest.fixture
def two_axes():
    """A plateau of 2 x 3 cells, a column with findings, one that diverged."""
    llc = np.array([[0.5, 0.5, 0.51], [0.5, 0.505, 0.5], [0.3, 0.3, 0.3], [0.0, 0.0, 0.0]])
    status = np.array([["ok"] * 3] * 2 + [["doubtful"] * 3] + [["diverged"] * 3], dtype=object)
    return grid_of(llc, status, localization=GAMMAS, inverse_temperature=BETAS)


def test_heat_map_shows_cells_marks_and_settings(two_axes):
    (axes,) = plots.plot_sweep(two_axes)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("inverse_temperature", "localization")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.05", "0.1", "0.2"]
    mesh = axes.collections[0]
    np.testing.assert_array_equal(mesh.get_array().filled(np.nan), two_axes["llc"])
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert len(texts) == 9
    assert texts[(1.5, 1.5)] == "0.505\n± 0.01"
    hatched = [patch.get_xy() for patch in axes.patches if patch.get_hatch()]
    assert hatched == [(0, 2), (1, 2), (2, 2)]
    assert [tuple(line.get_xydata()[0]) for line in axes.lines[::2]] == [
        (0.2, 3.2),
        (1.2, 3.2),
        (2.2, 3.2),
    ]
    (frame,) = (patch for patch in axes.patches if not patch.get_hatch())
    chosen = (int(frame.get_xy()[0]), int(frame.get_xy()[1]))
    assert f'"localization": {GAMMAS[chosen[1]]}' in two_axes.attrs["recommended"]
    assert f'"inverse_temperature": {BETAS[chosen[0]]}' in two_axes.attrs["recommended"]
    legend = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert legend == ["plateau", "recommended", "with findings", "diverged"]


def test_the_border_goes_round_the_plateau(two_axes):
    (axes,) = plots.plot_sweep(two_axes)
    border = next(part for part in axes.collections if isinstance(part, LineCollection))
    found = {tuple(map(tuple, segment)) for segment in np.array(border.get_segments(), int)}
    sides = {((x, y), (x, y + 1)) for x in (0, 3) for y in (0, 1)}
    ends = {((x, y), (x + 1, y)) for x in range(3) for y in (0, 2)}
    assert found == sides | ends


def test_colours_span_the_cells_without_findings(two_axes):
    (axes,) = plots.plot_sweep(two_axes)
    norm = axes.collections[0].norm
    assert (norm.vmin, norm.vmax) == pytest.approx((0.9 * 0.505, 1.1 * 0.505))
    two_axes["llc"][0, 0] = 1.0
    norm = plots.plot_sweep(two_axes)[0].collections[0].norm
    assert (norm.vmin, norm.vmax) == (0.5, 1.0)


def test_a_saved_sweep_gives_the_same_picture(two_axes, tmp_path):
    two_axes.assign_attrs(attributes(two_axes.attrs)).to_netcdf(
        tmp_path / "sweep.nc", engine="h5netcdf"
    )
    for grid in (two_axes, two_axes.isel(inverse_temperature=1)):
        again = xr.load_dataset(tmp_path / "sweep.nc", engine="h5netcdf")
        again = again if grid is two_axes else again.isel(inverse_temperature=1)
        pictures = []
        for one in (grid, again):
            figure = plots.plot_sweep(one)[0].figure
            figure.canvas.draw()
            pictures.append(np.asarray(figure.canvas.buffer_rgba()))
        np.testing.assert_array_equal(*pictures)


def test_axes_can_be_chosen_and_others_get_a_panel_each():
    llc = np.arange(24.0).reshape(2, 4, 3)
    grid = grid_of(llc, batch_size=[32, 64], localization=GAMMAS, inverse_temperature=BETAS)
    panels = plots.plot_sweep(grid, x="batch_size")
    assert len(panels) == 4
    assert [panel.get_title() for panel in panels][:2] == [
        "localization = 0.1",
        "localization = 1",
    ]
    for gamma_place, panel in enumerate(panels):
        np.testing.assert_array_equal(panel.collections[0].get_array(), llc[:, gamma_place].T)
    assert [bool(panel.get_xlabel()) for panel in panels] == [False, True, True, True]
    panels = plots.plot_sweep(grid, x="localization", y="inverse_temperature")
    np.testing.assert_array_equal(panels[1].collections[0].get_array(), llc[1].T)
    assert plots.plot_sweep(grid, y="batch_size")[-1].get_xlabel() == "inverse_temperature"


def test_axes_of_one_value_are_left_out_if_not_named():
    grid = grid_of(
        np.full((1, 4, 1), 0.5), batch_size=[32], localization=GAMMAS, inverse_temperature=[0.1]
    )
    (axes,) = plots.plot_sweep(grid)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("localization", "λ̂")
    (axes,) = plots.plot_sweep(grid, y="batch_size")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("localization", "batch_size")


def test_one_axis_is_points_with_their_errors_and_the_plateau():
    status = np.array(["ok", "ok", "ok", "doubtful", "diverged"], dtype=object)
    llc = [0.5, 0.51, 0.5, 0.2, np.nan]
    values = [0.01, 0.1, 1.0, 10.0, 100.0]
    (axes,) = plots.plot_sweep(grid_of(llc, status, step_size=values))
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == ("log", "step_size", "λ̂")
    sound, doubtful = axes.containers
    np.testing.assert_allclose(sound[0].get_xydata(), np.column_stack([values, llc])[:3])
    (bars_of,) = sound[2]
    np.testing.assert_allclose(np.array(bars_of.get_segments())[1, :, 1], [0.49, 0.53])
    np.testing.assert_allclose(doubtful[0].get_xydata(), [[10.0, 0.2]])
    assert doubtful[0].get_markerfacecolor() == "white"
    band = axes.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose([band.min(axis=0), band.max(axis=0)], [[0.01, 0.48], [1.0, 0.53]])
    by_label = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(by_label["diverged"].get_xdata(), [100.0])
    np.testing.assert_allclose(by_label["recommended"].get_xydata(), [[0.1, 0.51]])


def test_the_recommended_cell_is_marked_only_in_the_slice_that_holds_it(two_axes):
    best = 0.1
    assert f'"inverse_temperature": {best}' in two_axes.attrs["recommended"]
    for beta in BETAS:
        (axes,) = plots.plot_sweep(two_axes.sel(inverse_temperature=beta))
        labels = [line.get_label() for line in axes.lines]
        assert ("recommended" in labels) == (beta == best)


def test_a_zero_and_centres_have_a_place_on_the_axis():
    (axes,) = plots.plot_sweep(grid_of([0.5] * 3, localization=[0.0, 0.1, 1.0]))
    assert axes.get_xscale() == "symlog"
    grid = empty({"center": [{}, {}]})
    grid["llc"][:], grid["mcse_mean"][:], grid["status"][:] = [0.5, 0.5], 0.01, "ok"
    (axes,) = plots.plot_sweep(grid)
    assert axes.get_xscale() == "linear"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1"]


def test_no_plateau_is_drawn_across_centres_and_cells_not_run_are_empty():
    grid = empty({"center": [{}] * 3, "localization": GAMMAS})
    grid["llc"][:], grid["mcse_mean"][:], grid["status"][:] = 0.5, 0.01, "ok"
    grid["llc"][0, 0], grid["status"][0, 0] = np.nan, ""
    (axes,) = plots.plot_sweep(grid)
    assert len(axes.texts) == 11
    assert not axes.figure.legends
    assert len(plots.plot_sweep(empty({"localization": GAMMAS, "step_size": [1, 2]}))) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"x": "batch_size"}, r"two different axes of .*; got 'batch_size'"),
        ({"x": "localization", "y": "localization"}, "two different axes of .*; got 'localization"),
        ({"y": "step_size"}, "two different axes of .*; got 'step_size'"),
    ],
)
def test_axes_that_the_sweep_lacks_are_refused(two_axes, settings, message):
    with pytest.raises(ValueError, match=message):
        plots.plot_sweep(two_axes, **settings)


def test_what_is_no_sweep_is_refused(two_axes):
    with pytest.raises(
        ValueError, match=r"must be what `sweep` returns.*no \['mcse_mean', 'status'\]"
    ):
        plots.plot_sweep(two_axes[["llc"]])
    with pytest.raises(ValueError, match="has no axis left"):
        plots.plot_sweep(two_axes.isel(localization=0, inverse_temperature=0))
    line = two_axes.isel(inverse_temperature=0)
    with pytest.raises(ValueError, match=r"two different axes of \['localization'\]"):
        plots.plot_sweep(line, x="localization", y="inverse_temperature")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_diagnostics_example(tmp_path, capsys):
    example = runpy.run_path(str(EXAMPLES / "diagnostics.py"))
    results = example["main"](
        ["--num-samples=200", "--num-data=100", "--step-size=0.1", "--no-progress-bar"]
        + [f"--output={tmp_path}"]
    )
    assert "step_size" in nllc.diagnose(results["faulty"]).index
    row = nllc.summary(results["healthy"]).loc["llc"]
    assert abs(row["mean"] - toy_network.exact_llc(100)) < 4 * row["mcse_mean"]
    assert row["mcse_mean"] < 0.05
    assert "  step_size: What the finite" in capsys.readouterr().out
    names = {"trace", "rank", "gamma", "error_budget", "landscape"}
    assert {path.name for path in tmp_path.iterdir()} == {f"plot_{name}.png" for name in names}
    for path in tmp_path.iterdir():
        assert path.stat().st_size > 10_000


@pytest.mark.slow
def test_sweep_example(tmp_path, capsys):
    example = runpy.run_path(str(EXAMPLES / "sweep.py"))
    grid = example["main"](
        ["--num-samples=400", "--num-warmup=200", "--localization", "1", "10", "100"]
        + ["--inverse-temperature", "0.1", "1", "--no-progress-bar", f"--output={tmp_path}"]
    )
    assert dict(grid.sizes) == {"localization": 3, "inverse_temperature": 2}
    assert grid.attrs["recommendation"] in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"plot_sweep.png", "plot_sweep_line.png"}


def complexity_table():
    columns = {
        "d/2": [2.0, 4.0],
        "λ": [2.0, 2.5],
        "llc": [1.9, 2.4],
        "llc_se": [0.1, 0.2],
        "bic": [110.0, 120.0],
        "evidence": [105.0, 103.0],
        "evidence_se": [0.5, 0.3],
    }
    return pd.DataFrame(columns, index=pd.Index([1, 2], name="units"))


def test_complexity_shows_the_table():
    table = complexity_table()
    left, right = plots.plot_complexity(table, criteria=("bic", "evidence"))
    half, exact, llc = (line.get_ydata() for line in left.lines[:3])
    assert (list(half), list(exact), list(llc)) == ([2, 4], [2, 2.5], [1.9, 2.4])
    (bars,) = left.containers
    ends = np.array(bars.lines[2][0].get_segments())[:, :, 1]
    np.testing.assert_allclose(ends, [[1.7, 2.1], [2.0, 2.8]])
    bic, evidence = (container.lines[0].get_ydata() for container in right.containers)
    assert (list(bic), list(evidence)) == ([0, 10], [2, 0])
    ends = np.array(right.containers[1].lines[2][0].get_segments())[:, :, 1]
    np.testing.assert_allclose(ends, [[1.0, 3.0], [-0.6, 0.6]])
    assert right.get_xlabel() == "units"
    legend = [text.get_text() for text in right.get_legend().get_texts()]
    assert legend == ["BIC: d/2 log n", "minus the log evidence"]


def test_complexity_needs_its_columns():
    with pytest.raises(ValueError, match=r"must have the columns \['local_free_energy'\]"):
        plots.plot_complexity(complexity_table())
