"""``sweep``: cells against exact values, one compilation, resumed, broken, recommended."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import regression
import xarray as xr
from metropolis import METROPOLIS

import numpyro_llc as nllc
from numpyro_llc import sampling
from numpyro_llc.kernels import kernel_of, sampler_of
from numpyro_llc.studies import _cells, _sweep, plateau
from numpyro_llc.studies._plateau import recommend
from numpyro_llc.studies._rows import empty

X, Y = regression.X[:, :2], regression.Y
OLS = np.linalg.lstsq(X, Y, rcond=None)[0]
LENGTHS = {"num_warmup": 500, "num_samples": 30_000, "thinning": 10}
STEP = 1e-3
LOCAL, DATA = (
    nllc.localize(regression.model, center={"w": regression.OLS}),
    (regression.X, regression.Y),
)


def sweep(key=0, **settings):
    """By Langevin steps of a given size on the full data, whose exact values are known."""
    local = nllc.localize(regression.model, center={"w": OLS})
    chosen = {"kernel": nllc.SGLD(step_size=STEP), "progress_bar": False, **LENGTHS, **settings}
    return nllc.sweep(jax.random.key(key), local, (X, Y), **chosen)


def walks(key=0, **settings):
    """By Metropolis, one cell at a time: where the kernel is immaterial."""
    chosen = {"kernel": METROPOLIS, "num_warmup": 100, "num_samples": 200, "progress_bar": False}
    chosen |= {"localization": [0.5, 1.0, 2.0], **settings}
    return nllc.sweep(jax.random.key(key), LOCAL, DATA, **chosen)


def euler(step, gamma=1.0, beta=None, center=OLS):
    """λ̂ of Langevin dynamics at a finite step: the covariance is ``(A (1 - ε A / 4))⁻¹``."""
    beta = 1 / np.log(len(X)) if beta is None else beta
    tempered = beta * X.T @ X
    curved = tempered + gamma * np.eye(2)
    spread = np.linalg.inv(curved @ (np.eye(2) - step / 4 * curved))
    exact = regression.exact(center, gamma, x=X, beta=beta)
    return exact + 0.5 * np.trace(tempered @ (spread - np.linalg.inv(curved)))


AXES = {"step_size": [STEP, 4e-3], "localization": [0.3, 60.0], "inverse_temperature": [0.1, 0.2]}


def differing(grid):
    """The settings of each cell, and those of the cell that differs in all of them."""
    for cell in np.ndindex(*grid["llc"].shape):
        names = list(grid["llc"].dims)
        values = [grid[name].to_numpy() for name in names]
        yield (
            grid.isel(dict(zip(names, cell, strict=True))),
            dict(zip(names, (v[k] for v, k in zip(values, cell, strict=True)), strict=True)),
            [
                dict(zip(names, (v[k] for v, k in zip(values, one, strict=True)), strict=True))
                for one in np.ndindex(*grid["llc"].shape)
                if one != cell
            ],
        )


def exact_of(setting):
    return euler(setting["step_size"], setting["localization"], setting["inverse_temperature"])


@pytest.fixture(scope="module")
def grid():
    sampling.advance.clear_cache()  # another test may have compiled the same
    found = sweep(**AXES)
    assert sampling.advance._cache_size() == 1
    return found


def test_cells_have_their_exact_values_in_one_compilation(grid):
    assert dict(grid.sizes) == {"step_size": 2, "localization": 2, "inverse_temperature": 2}
    for cell, setting, others in differing(grid):
        assert abs(cell["llc"] - exact_of(setting)) < 4 * cell["mcse_mean"]
        assert cell["step_size_used"] == pytest.approx(setting["step_size"])
        # No other setting's value but those that are near it would do.
        own, error = exact_of(setting), cell["mcse_mean"]
        apart = [one for one in others if abs(exact_of(one) - own) > 8 * error]
        assert len(apart) >= 3
        for other in apart:
            assert abs(cell["llc"] - exact_of(other)) > 4 * cell["mcse_mean"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["vectorized", "sequential"])
def test_cells_of_batches_have_their_exact_values_in_one_compilation(method):
    sampling.advance.clear_cache()
    grid = nllc.sweep(
        jax.random.key(0),
        LOCAL,
        DATA,
        batch_size=50,
        progress_bar=False,
        kernel="sgnht",
        localization=[0.3, 1.0, 10.0],
        inverse_temperature=[0.1, 0.2],
        chain_method=method,
        num_warmup=500,
        num_samples=3000,
    )
    assert sampling.advance._cache_size() == 1
    for gamma in grid["localization"].values:
        for beta in grid["inverse_temperature"].values:
            cell = grid.sel(localization=gamma, inverse_temperature=beta)
            exact = regression.exact(regression.OLS, gamma, beta=beta)
            assert abs(cell["llc"] - exact) < 4 * cell["mcse_mean"] + 0.01 * exact
            assert cell["status"] == "ok", str(cell["findings"].values)


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_a_cell_is_what_estimate_llc_gives():
    """The same chains, under the key of the cell's place."""
    grid = walks()
    for place, gamma in enumerate((0.5, 1.0, 2.0)):
        idata = nllc.estimate_llc(
            jax.random.fold_in(jax.random.key(0), place),
            regression.model,
            (regression.X, regression.Y),
            center={"w": regression.OLS},
            kernel=METROPOLIS,
            localization=gamma,
            num_warmup=100,
            num_samples=200,
            progress_bar=False,
        )
        row, cell = nllc.summary(idata).loc["llc"], grid.isel(localization=place)
        np.testing.assert_allclose(cell["llc"], row["mean"], rtol=1e-4)
        for name in ("sd", "mcse_mean", "ess_bulk", "ess_tail", "r_hat"):
            np.testing.assert_allclose(cell[name], row[name], rtol=1e-4)
        assert float(cell["center_loss"]) == idata.attrs["center_loss"]
        findings = json.loads(idata.attrs["findings"])
        assert cell["status"].item() == ("doubtful" if findings else "ok")
        assert cell["checks"].item() == ", ".join(one["check"] for one in findings)


def test_a_diverged_cell_is_marked_and_the_others_go_on():
    """Beside it, the cells of the same numbers have the same draws."""
    few = {**AXES, "num_samples": 1000}
    whole, found = sweep(**few), sweep(**{**few, "step_size": [STEP, 3.0]})
    assert (found["status"].sel(step_size=3.0) == "diverged").all()
    assert np.isnan(found["mcse_mean"].sel(step_size=3.0)).all()
    kept = {"step_size": 0}
    np.testing.assert_array_equal(found["llc"].isel(kept), whole["llc"].isel(kept))


@pytest.mark.slow
def test_centres_have_their_exact_values_in_all_parameters():
    centers = [{"w": OLS}, {"w": OLS + np.array([0.1, 0.2])}]
    grid = sweep(center=centers)
    for k, point in enumerate(centers):
        cell, residual = grid.isel(center=k), Y - X @ point["w"]
        assert abs(cell["llc"] - euler(STEP, center=point["w"])) < 4 * cell["mcse_mean"]
        loss = 0.5 * np.sum(residual**2) + 0.5 * len(Y) * np.log(2 * np.pi)
        assert float(cell["center_loss"]) == pytest.approx(loss, rel=1e-5)
    assert abs(euler(STEP) - euler(STEP, center=centers[1]["w"])) > 8 * grid["mcse_mean"].max()


def two_sites(x, y):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with numpyro.plate("N", len(x)):
        numpyro.sample("y", dist.Normal(a * x[:, 0] + x[:, 1:] @ b, 1.0), obs=y)


def test_centres_are_an_axis_and_what_is_not_sampled_stays_at_that_of_each_cell():
    """Cells side by side, of a site that is fixed and one of which a coordinate is."""
    x = regression.X[:, :3]
    best = np.linalg.lstsq(x, Y, rcond=None)[0]
    points = [best, best + [0.1, 0.1, -0.4]]
    local = nllc.localize(two_sites, center=None, sites={"a": False, "b": np.array([True, False])})
    grid = nllc.sweep(
        jax.random.key(0),
        local,
        (x, Y),
        center=[{"a": point[0], "b": point[1:]} for point in points],
        kernel=nllc.SGLD(step_size=STEP),
        num_warmup=500,
        num_samples=10_000,
        thinning=10,
        progress_bar=False,
    )
    assert dict(grid.sizes) == {"center": 2}
    assert grid["center"].to_numpy().tolist() == [0, 1]
    assert "recommendation" not in grid.attrs
    beta, hessian = 1 / np.log(len(x)), np.sum(x[:, 1] ** 2)
    curved = beta * hessian + 1.0

    def exact_at(center, fixed):
        """In steps; what is fixed may be that of another centre, which it must not."""
        at = np.array([fixed[0], center[1], fixed[2]])
        gradient = x[:, 1] @ (x @ at - Y)
        shift = -beta * gradient / curved
        moved = gradient * shift + 0.5 * hessian * shift**2
        away = 0.5 * (np.sum((x @ at - Y) ** 2) - np.sum((x @ center - Y) ** 2))
        return beta * (0.5 * hessian / (curved * (1 - STEP * curved / 4)) + moved + away)

    for k, point in enumerate(points):
        cell, other = grid.isel(center=k), points[1 - k]
        assert abs(cell["llc"] - exact_at(point, point)) < 4 * cell["mcse_mean"]
        assert abs(cell["llc"] - exact_at(point, other)) > 8 * cell["mcse_mean"]
        loss = 0.5 * np.sum((x @ point - Y) ** 2) + 0.5 * len(Y) * np.log(2 * np.pi)
        assert float(cell["center_loss"]) == pytest.approx(loss, rel=1e-5)


@pytest.mark.slow
def test_centres_and_batch_sizes_are_axes_too():
    centers = [{"w": regression.OLS}, {"w": regression.TRUTH}]
    grid = nllc.sweep(
        jax.random.key(0),
        nllc.localize(regression.model, center=None),
        DATA,
        kernel="sgnht",
        center=centers,
        batch_size=[20, 50],
        num_warmup=500,
        num_samples=3000,
        progress_bar=False,
    )
    assert dict(grid.sizes) == {"center": 2, "batch_size": 2}
    for k, point in enumerate((regression.OLS, regression.TRUTH)):
        exact = regression.exact(point, 1.0)
        for cell in (grid.isel(center=k, batch_size=b) for b in range(2)):
            assert abs(cell["llc"] - exact) < 4 * cell["mcse_mean"] + 0.02 * abs(exact)


def test_a_sweep_goes_on_where_it_stopped(tmp_path, monkeypatch):
    whole = walks()
    from numpyro_llc.studies import _sweep

    run_group, calls = _sweep.run_group, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run_group(*args)

    monkeypatch.setattr(_sweep, "run_group", interrupted)
    with pytest.warns(nllc.LLCWarning, match="interrupted"):
        part = walks(output=tmp_path)
    assert part["status"].values.tolist()[2] == ""
    assert np.isfinite(part["llc"]).sum() == 2
    rest = walks(output=tmp_path)
    assert len(calls) == 4
    for name in ("llc", "mcse_mean", "status", "findings", "center_loss"):
        np.testing.assert_array_equal(rest[name], whole[name])
    np.testing.assert_array_equal(rest["seconds"][:2], part["seconds"][:2])
    assert rest.attrs["recommendation"] == whole.attrs["recommendation"]
    saved = xr.load_dataset(tmp_path / "sweep.nc", engine="h5netcdf")
    np.testing.assert_array_equal(saved["llc"], whole["llc"])
    with pytest.raises(nllc.CheckpointError, match=r"another `localization \(axis\)`"):
        walks(output=tmp_path, localization=[0.5, 1.0])


def plan_with(
    batch_size=8, parameters=100, chains=4, given=True, is_stochastic=True, method="vectorized"
):
    schedule = SimpleNamespace(
        num_warmup=10 if given else None, num_samples=10, num_chains=chains, chain_method=method
    )
    return SimpleNamespace(
        schedule=schedule,
        is_stochastic=is_stochastic,
        rows_of_a_step=batch_size,
        sampler=None,
        target=SimpleNamespace(dimension=parameters, slice_rows=8192),
    )


def grouped(count, memory, todo=None, batch_sizes=(8,), **settings):
    cells = [{"batch_size": b} for b in batch_sizes for _ in range(count)]
    places = list(range(len(cells))) if todo is None else todo
    return list(
        _cells.groups(
            cells,
            places,
            lambda cell: plan_with(**{"batch_size": cell["batch_size"], **settings}),
            memory,
        )
    )


def test_memory_bounds_how_many_cells_run_at_once(monkeypatch):
    # 4 chains of 16 numbers a parameter and 8 a row, of 4 bytes each.
    cell = 4 * (16 * 100 + 8 * 8) * 4
    assert grouped(5, 5 * cell) == [[0, 1, 2, 3, 4]]
    assert grouped(5, 5 * cell - 1) == [[0, 1, 2], [3, 4, 4]]  # even groups, the last one padded
    assert grouped(5, 2 * cell) == [[0, 1], [2, 3], [4, 4]]
    assert grouped(3, 1.0) == [[0], [1], [2]]
    assert grouped(6, 3 * cell, todo=[1, 4, 5]) == [[1, 4, 5]]
    # No batch counts more than 8192 rows, beyond which it goes in slices.
    large = 4 * (16 * 100 + 8 * 8192) * 4
    assert grouped(2, 2 * large, batch_sizes=(20_000,)) == [[0, 1]]
    monkeypatch.setattr(_cells, "bytes_ahead", lambda *_: cell)  # of rows read from a file
    assert grouped(4, 5 * cell) == [[0, 1], [2, 3]]


def test_cells_run_one_by_one_where_side_by_side_would_wait():
    one_by_one = [[0], [1], [2]]
    assert grouped(3, 1e9, method="sequential") == one_by_one
    assert grouped(3, 1e9, is_stochastic=False) == one_by_one
    assert grouped(3, 1e9, given=False) == one_by_one
    assert grouped(2, 1e9, batch_sizes=(8, 16)) == [[0, 1], [2, 3]]
    assert grouped(1, 1e9, batch_sizes=(8, 16)) == [[0], [1]]


@pytest.mark.slow
def test_cells_are_the_same_however_many_run_at_once():
    few, many = (
        sweep(localization=[0.5, 1.0, 2.0], max_memory=memory) for memory in (1.0, 2.0**30)
    )
    z = (few["llc"] - many["llc"]) / np.hypot(few["mcse_mean"], many["mcse_mean"])
    assert float(abs(z).max()) < 4


def flat_of(llc, error, sound):
    """Cells of the plateau of one centre."""
    return plateau(*(np.asarray(values)[None] for values in (llc, error, sound))).cells


def test_the_plateau_is_where_neighbours_agree():
    llc = np.array([[1.0, 2.0, 2.02], [0.5, 2.01, 1.99], [2.0, 5.0, 9.0]])
    error = np.full(llc.shape, 1e-3)
    sound = np.ones(llc.shape, bool)
    wanted = np.array([[0, 1, 1], [0, 1, 1], [0, 0, 0]], bool)
    np.testing.assert_array_equal(flat_of(llc, error, sound), wanted)
    sound[0, 1] = False
    assert flat_of(llc, error, sound).sum() == 3
    sound[1, 2] = False
    assert not flat_of(llc, error, sound).any()


def test_all_of_a_plateau_agree_with_the_chosen_cell():
    """A slow slope, of which each cell agrees with the next, is no plateau from end to end."""
    slope = np.array([[1.0, 1.04, 1.08, 1.12, 1.17, 1.22, 1.26]])
    found = plateau(slope, np.full(slope.shape, 1e-6), slope > 0)
    near = np.abs(slope[0] / slope[0, found.chosen] - 1)
    assert found.cells.sum() == 3
    assert near[found.cells].max() == found.change <= 0.05
    # The choice is the usable cell; without one, any.
    usable = np.arange(7) >= 5
    found = plateau(slope, np.full(slope.shape, 1e-6), slope > 0, usable)
    assert found.chosen == (5,)
    assert plateau(slope, 0 * slope, slope > 0, usable & ~usable).cells.any()
    # Of two centres, at each.
    both = np.concatenate([slope, slope[:, ::-1] ** 3])
    assert not plateau(both, 0 * both, both > 0).cells.any()


def test_the_plateau_weighs_differences_against_errors():
    """Those of 5 % and of three errors are none; what is known to worse than 5 % takes no part."""
    llc, all_sound = np.array([1.0, 0.96, 1.0, 1.06]), np.ones(4, bool)

    def found(values, error, sound=all_sound):
        return flat_of(values, error, sound).tolist()

    assert found(llc, [1e-6] * 4) == [True, True, True, False]
    assert found(llc, [0.01] * 4) == [True] * 4  # 1.06 is within 3 √2 errors of 5 %
    assert found([1.0, 1.0, 1.10], [0.01] * 3, all_sound[:3]) == [False] * 3
    assert found([1.0, 1.0, 1.094], [0.01] * 3, all_sound[:3]) == [True] * 3
    assert found([1.0, 1.0, 1.0], [0.0, 0.049, 0.0], all_sound[:3]) == [True] * 3
    assert found([1.0, 1.0, 1.0], [0.0, 0.051, 0.0], all_sound[:3]) == [False] * 3


def table_of(llc, error, status="ok"):
    gammas = 2.0 ** np.arange(len(llc))
    columns = {"llc": llc, "mcse_mean": error, "status": [status] * len(llc)}
    return xr.Dataset(
        {name: ("localization", np.asarray(v)) for name, v in columns.items()},
        {"localization": gammas},
    )


def test_the_recommendation_is_the_middle_of_the_plateau():
    llc, error = [0.3, 1.0, 1.01, 1.02, 1.01, 1.0, 0.2], np.full(7, 0.004)
    found = recommend(table_of(llc, error), ["localization"])
    assert json.loads(found["recommended"]) == {"localization": 8.0}
    text = "λ̂ is 1 to 1.02 on a plateau of 5 of 7 cells (localization 2 to 32)."
    assert found["recommendation"].startswith(text)
    assert "1.02 ± 0.004" in found["recommendation"]
    # Of four, two are in the middle: that of the smaller error.
    for better in (2, 3):
        error = np.full(6, 0.004)
        error[better] = 0.002
        found = recommend(table_of([0.3, 1.0, 1.01, 1.01, 1.0, 0.2], error), ["localization"])
        assert json.loads(found["recommended"]) == {"localization": 2.0**better}


def test_without_a_plateau_none_is_recommended():
    for table in (
        table_of([1.0, 1.01, 3.0, 9.0], np.full(4, 0.001)),
        table_of([1.0, 1.0, 1.0], np.full(3, 0.001), status="doubtful"),
    ):
        found = recommend(table, ["localization"])
        assert found["recommended"] == "{}"
        assert found["recommendation"].startswith("No plateau")


def test_a_sweep_recommends_from_its_own_cells(grid):
    names = list(grid["llc"].dims)
    assert {k: grid.attrs[k] for k in ("recommendation", "recommended")} == recommend(grid, names)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({}, "has no axis"),
        ({"batch_size": 50}, "has no axis"),
        ({"localization": [1.0, 1.0]}, "different values"),
        ({"localization": []}, "at least one"),
        ({"localization": [1.0, -1.0]}, "localization"),
        (
            {"kernel": METROPOLIS, "step_size": [0.1, 0.2]},
            "`step_size` cannot be an axis with Metropolis",
        ),
        ({"kernel": "nuts", "step_size": [0.1]}, "`step_size` cannot be an axis with NUTS"),
        ({"batch_size": 50, "localization": [1.0]}, "a setting of the kernel object: SGLD"),
        ({"max_memory": 0.0, "localization": [1.0]}, "`max_memory` must be"),
    ],
)
def test_bad_grids_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        sweep(**{**LENGTHS, **settings})


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"localization": 1.0}, "`localization` must be a sequence.*belongs to localize"),
        ({"inverse_temperature": 0.1}, "`inverse_temperature` must be.*belongs to localize"),
        ({"center": {"w": OLS}}, "`center` must be a sequence.*belongs to localize"),
        ({"step_size": 0.1}, "`step_size` must be a sequence.*belongs to the kernel object"),
        ({"kernel": "sgld", "batch_size": 5.0, "localization": [1.0]}, "`batch_size` must be an"),
    ],
)
def test_a_setting_of_all_cells_has_its_place(settings, match):
    with pytest.raises(TypeError, match=match):
        sweep(**settings)


def test_a_kernel_that_adapts_its_step_takes_none():
    sampler = sampler_of(kernel_of("nuts"), num_warmup=1, num_chains=2)
    with pytest.raises(ValueError, match="`step_size` cannot be an axis with NUTS"):
        sampler.with_step_sizes(None, None)


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
@pytest.mark.parametrize(("name", "error"), [(3, TypeError), ("taken", ValueError)])
def test_an_output_that_can_be_no_folder_is_named(name, error, tmp_path):
    (tmp_path / "taken").write_text("")
    place = tmp_path / name if isinstance(name, str) else name
    key, one = jax.random.key(0), {"num_warmup": 5, "num_samples": 5, "progress_bar": False}
    one["output"] = place
    with pytest.raises(error, match="`output` must be"):
        nllc.sweep(key, LOCAL, DATA, localization=[1.0], **one)
    with pytest.raises(error, match="`output` must be"):
        nllc.llc_trajectory(key, regression.model, [LOCAL.center], DATA, **one)
    with pytest.raises(error, match="`output` must be"):
        nllc.estimate_llc(key, LOCAL, DATA, **one)
    with pytest.raises(error, match="`output` must be"):
        nllc.refined_llc(key, LOCAL, DATA, sites={"all": None}, **one)


def test_localization_by_site_can_be_an_axis(tmp_path):
    gammas = [{"w": 1.0}, {"w": 1.5}, {"w": 2.0}]
    grid = walks(localization=gammas, output=tmp_path / "a", num_warmup=50, num_samples=200)
    assert list(grid["localization"].to_numpy()) == ["1.0", "1.5", "2.0"]
    assert np.isfinite(grid["llc"]).all()
    again = walks(localization=gammas, output=tmp_path / "a", num_warmup=50, num_samples=200)
    np.testing.assert_array_equal(again["llc"], grid["llc"])
    one, two = np.array([{"w": 1.0}]), {"w": 1.0, "b": 2.0}
    assert list(empty({"localization": [*one, two]})["localization"].to_numpy()) == [
        "1.0",
        '{"w": 1.0, "b": 2.0}',
    ]


def test_cells_side_by_side_are_the_same_after_an_interruption(tmp_path, monkeypatch):
    """Of two groups of eight, as many as in the grid above; the second is of seven, one twice."""
    own = {"step_size": [STEP], "localization": np.geomspace(0.5, 4.0, 5), "max_memory": 550_000.0}
    own |= {"inverse_temperature": [0.1, 0.15, 0.2], "num_warmup": 50, "num_samples": 100}
    whole, calls, run_group = sweep(**own), [], _sweep.run_group

    def stopped(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run_group(*args)

    with monkeypatch.context() as patched:
        patched.setattr(_sweep, "run_group", stopped)
        with pytest.warns(nllc.LLCWarning, match="interrupted"):
            part = sweep(**own, output=tmp_path / "a")
    assert np.isfinite(part["llc"]).sum() == 8
    np.testing.assert_array_equal(sweep(**own, output=tmp_path / "a")["llc"], whole["llc"])
