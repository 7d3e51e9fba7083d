"""``llc_trajectory``: rows against exact values, one compilation, forms of centers, resumption."""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import regression
import xarray as xr
from metropolis import FITTED, METROPOLIS, Metropolis

import numpyro_llc as nllc
from numpyro_llc import plots, sampling
from numpyro_llc.local._target import make_target
from numpyro_llc.models import read_model
from numpyro_llc.studies._carry import Carried, carry

LENGTHS = {"num_warmup": 300, "num_samples": 2000}
SHORT = {"num_warmup": 100, "num_samples": 200}
# Runs of a few hundred draws, whose errors are large, as is said.
pytestmark = pytest.mark.filterwarnings("ignore:R-hat|The bulk:numpyro_llc.LLCWarning")
SHIFTS = np.array([0.0, 0.05, 0.1, 0.2])
CENTERS = [{"w": regression.OLS + shift} for shift in SHIFTS]


def trajectory(centers=CENTERS, key=0, **settings):
    """By Metropolis, whose rows are the same chains as those of ``estimate_llc``."""
    chosen = {"kernel": METROPOLIS, "progress_bar": False, **SHORT, **settings}
    data = regression.X, regression.Y
    return nllc.llc_trajectory(jax.random.key(key), regression.model, centers, data, **chosen)


@pytest.fixture(scope="module")
def table():
    before = sampling.advance._cache_size()
    found = trajectory(kernel=FITTED, num_samples=8000)
    assert sampling.advance._cache_size() <= before + 1
    return found


@pytest.fixture(scope="module")
def rows():
    """Of Metropolis, each checkpoint by itself."""
    return trajectory(warm_start=False)


@pytest.fixture(scope="module")
def carried():
    """Of Metropolis, each checkpoint from where the chains of the one before ended."""
    return trajectory()


def test_each_checkpoint_has_its_exact_value(table):
    check_rows(table)


@pytest.mark.slow
def test_each_checkpoint_has_its_exact_value_by_batches():
    lengths = {**LENGTHS, "num_samples": 8000}
    check_rows(trajectory(kernel="sgnht", batch_size=50, **lengths))


def test_a_training_run_may_write_over_its_parameters(rows):
    """The arrays of a checkpoint are gone when the next is asked for."""

    def trained():
        moved = jax.jit(lambda w, to: 0.0 * w + to, donate_argnums=0)
        w = jnp.zeros(5)
        for center in CENTERS:
            before, w = w, moved(w, center["w"])
            assert before.is_deleted()
            yield {"w": w}

    found = trajectory(trained(), warm_start=False)
    np.testing.assert_array_equal(found["llc"], rows["llc"])


def check_rows(table):
    assert dict(table.sizes) == {"checkpoint": 4}
    for k, shift in enumerate(SHIFTS):
        row, exact = table.isel(checkpoint=k), regression.exact(regression.OLS + shift, 1.0)
        assert abs(row["llc"] - exact) < 4 * row["mcse_mean"]
        other = regression.exact(regression.OLS + SHIFTS[k - 1], 1.0)
        assert abs(row["llc"] - other) > 4 * row["mcse_mean"] or abs(exact - other) < 0.1
        assert row["mcse_mean"] < 0.1
        residual = regression.Y - regression.X @ (regression.OLS + shift)
        loss = 0.5 * np.sum(residual**2) + 0.5 * len(residual) * np.log(2 * np.pi)
        assert float(row["center_loss"]) == pytest.approx(loss, rel=1e-5)


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_a_row_is_what_estimate_llc_gives(rows):
    for k, center in enumerate(CENTERS):
        idata = nllc.estimate_llc(
            jax.random.fold_in(jax.random.key(0), k),
            regression.model,
            (regression.X, regression.Y),
            center=center,
            kernel=METROPOLIS,
            progress_bar=False,
            **SHORT,
        )
        wanted, row = nllc.summary(idata).loc["llc"], rows.isel(checkpoint=k)
        np.testing.assert_allclose(row["llc"], wanted["mean"], rtol=1e-6)
        for name in ("mcse_mean", "sd", "r_hat", "ess_bulk", "ess_tail"):
            np.testing.assert_allclose(row[name], wanted[name], rtol=1e-6)
        assert float(row["center_loss"]) == idata.attrs["center_loss"]
    assert (rows["carried"] == 0).all()
    assert rows.attrs["num_data"] == 500
    assert rows.attrs["num_parameters"] == 5
    assert rows.attrs["inverse_temperature"] == pytest.approx(1 / np.log(500))
    assert (rows.attrs["localization"], rows.attrs["kernel"]) == (1.0, "Metropolis")


def test_chains_are_carried_on(table):
    """They begin where those of the one before ended, the first excepted."""
    assert table["carried"].to_numpy().tolist()[0] == 0
    assert (table["carried"][1:] > 0).any()


def test_chains_begin_where_those_before_ended():
    """Without a warm-up and hardly moving, the second row is of the points of the first."""
    still, lengths = Metropolis(1e-6), {"num_warmup": 0, "num_samples": 20}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)
        one, two = (
            trajectory([CENTERS[0]] * 2, kernel=still, warm_start=warm, **lengths)["llc"]
            for warm in (True, False)
        )
    assert float(one[0]) == float(two[0])
    assert float(one[1]) == pytest.approx(float(one[0]), rel=1e-3)
    assert abs(float(two[1]) - float(two[0])) > 0.01


def test_a_chain_is_carried_where_its_potential_is_at_most_twice_the_highest():
    reading = read_model(
        regression.model, (regression.X, regression.Y), None, center={"w": regression.OLS}
    )
    target = make_target(
        reading.program,
        reading.arrays,
        reading.center,
        inverse_temperature=0.2,
        localization={"w": 3.0},
    )
    direction, center = np.eye(5)[0], np.asarray(target.center["w"])
    steep = 0.5 * (0.2 * np.sum(regression.X[:, 0] ** 2) + 3.0)  # of the potential along it
    wanted = np.array([0.5, 20.9, 21.1, 500.0, np.nan])
    offsets = np.sqrt(wanted / steep)[:, None] * direction
    starts = {"w": jnp.asarray(center + np.arange(5.0)[:, None])}
    carried = Carried({"w": jnp.asarray(offsets)}, jnp.asarray(10.0))
    found, count = carry(target, starts, carried, None)  # 21 is twice the highest and one more
    assert int(count) == 2
    np.testing.assert_allclose(found["w"][:2], center + offsets[:2], rtol=1e-5)
    np.testing.assert_allclose(found["w"][2:], starts["w"][2:])


def product(y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(w[0] * w[1], 1.0), obs=y)


@pytest.mark.slow
def test_a_chain_is_not_carried_to_where_the_loss_is_steep():
    # At 0 the axes are flat and chains go far along them; at (0, 100) the first is a steep wall.
    centers = [{"w": np.array([0.0, second])} for second in (0.0, 0.0, 100.0)]
    found = nllc.llc_trajectory(
        jax.random.key(0), product, centers, (np.zeros(1000),), progress_bar=False, **LENGTHS
    )
    carried = found["carried"].to_numpy()
    assert carried[1] >= 3
    assert carried[2] <= 1


def test_both_truths_come_in_one_pass_and_a_point_that_is_no_minimum_says_what_to_do(tmp_path):
    """At any point the divergence has λ̂ of the minimum; by the data it falls away from there."""
    once = iter(CENTERS[1:3])
    both = {"truth": ("data", "center"), "num_samples": 2000, "kernel": FITTED}
    found = trajectory(once, output=tmp_path, **both)
    assert dict(found.sizes) == {"checkpoint": 2, "truth": 2}
    of_data, of_center = (found.sel(truth=k) for k in ("data", "center"))
    assert found.attrs["truth"] == "data, center"
    exact = regression.exact(regression.OLS, 1.0)
    assert np.all(np.abs(of_center["llc"] - exact) < 4 * of_center["mcse_mean"])
    assert np.all(of_center["mcse_mean"] < 0.2 * exact)
    np.testing.assert_array_equal(of_data["center_loss"], of_center["center_loss"])
    alone = trajectory(CENTERS[1:3], num_samples=2000, kernel=FITTED)
    np.testing.assert_array_equal(of_data["llc"], alone["llc"])
    assert (found["carried"].isel(checkpoint=1) > 0).all()
    said = str(of_data["findings"].values[1])
    assert f"λ̂ is {of_center['llc'].values[1]:.4g} ± " in said
    assert f"by it, and {of_data['llc'].values[1]:.4g} ± " in said
    assert "find_center" not in said
    assert "`localization`" not in said
    assert "truth='center'" not in str(of_center["findings"].values)
    assert "pass truth=('data', 'center')" in str(alone["findings"].values[1])
    again = trajectory(CENTERS[1:4], output=tmp_path, **both)
    np.testing.assert_array_equal(again["llc"][:2], found["llc"])
    rows = again.to_dataframe()
    assert rows.index.names == ["checkpoint", "truth"]
    assert len(rows) == 6


def test_every_form_of_centers_gives_the_same_rows(tmp_path, carried):
    ocp = pytest.importorskip("orbax.checkpoint")
    with ocp.CheckpointManager(tmp_path / "orbax") as manager:
        for step, center in zip((0, 200), CENTERS[:2], strict=True):
            state = {"params": jnp.asarray(center["w"]), "count": jnp.zeros(2)}
            manager.save(step, args=ocp.args.StandardSave(state))
    forms = {
        "stacked": trajectory({"w": np.stack([center["w"] for center in CENTERS[:2]])}),
        "iterator": trajectory(iter(CENTERS[:2])),
        "orbax": trajectory(tmp_path / "orbax", center_of=lambda state: {"w": state["params"]}),
    }
    for form in forms.values():
        np.testing.assert_array_equal(form["llc"], carried["llc"][:2])
    assert forms["orbax"]["step"].to_numpy().tolist() == [0, 200]
    assert forms["stacked"]["step"].to_numpy().tolist() == [0, 1]


def test_an_interrupted_trajectory_goes_on_to_the_same_rows(tmp_path, carried):
    def until_interrupted():
        yield from CENTERS[:2]
        raise KeyboardInterrupt

    with pytest.warns(nllc.LLCWarning, match="interrupted after 2 checkpoints"):
        part = trajectory(until_interrupted(), output=tmp_path)
    assert part.sizes["checkpoint"] == 2
    lines = (tmp_path / "trajectory.jsonl").read_text()
    (tmp_path / "trajectory.jsonl").write_text(lines + '{"llc": 1.')  # as a kill may leave it
    resumed = trajectory(output=tmp_path)
    np.testing.assert_array_equal(resumed["carried"], carried["carried"])
    np.testing.assert_array_equal(resumed["llc"], carried["llc"])
    np.testing.assert_array_equal(resumed["seconds"][:2], part["seconds"])
    read_back = xr.load_dataset(tmp_path / "trajectory.nc", engine="h5netcdf")
    np.testing.assert_array_equal(read_back["llc"], resumed["llc"])
    assert len((tmp_path / "trajectory.jsonl").read_text().splitlines()) == 4
    with pytest.raises(nllc.CheckpointError, match="another checkpoint 1"):
        trajectory([CENTERS[0], {"w": regression.TRUTH}], output=tmp_path)
    with pytest.raises(nllc.CheckpointError, match="another `rng_key`"):
        trajectory(key=1, output=tmp_path)


@pytest.mark.parametrize(("factor", "why"), [(1e30, "not finite"), (np.nan, "holds NaN")])
def test_a_broken_checkpoint_has_its_row_and_the_others_go_on(factor, why, rows):
    broken = [CENTERS[0], {"w": regression.OLS * factor}, CENTERS[2]]
    found = trajectory(broken, warm_start=False)
    assert found["status"].to_numpy()[1] == "failed"
    assert found["carried"].to_numpy().tolist() == [0, 0, 0]
    assert why in str(found["findings"].to_numpy()[1])
    assert np.isnan(found["llc"][1])
    np.testing.assert_array_equal(found["llc"][[0, 2]], rows["llc"][[0, 2]])


class Away(Metropolis):
    """Goes away from the first point by a factor at each step, whatever the density."""

    def sample(self, state, model_args, model_kwargs):
        far = jax.tree.map(lambda leaf: 10.0 * (leaf + 1.0), state.z)
        return state._replace(z=far)


def test_a_diverged_checkpoint_is_said_and_carries_nothing_on():
    found = trajectory(CENTERS[:2], kernel=Away(1.0))
    assert found["status"].to_numpy().tolist() == ["diverged", "diverged"]
    assert found["carried"].to_numpy().tolist() == [0, 0]
    assert np.isfinite(found["center_loss"]).all()
    assert np.isnan(found["mcse_mean"]).all()
    assert np.isnan(found["error"]).all()


def test_the_first_checkpoint_may_be_the_broken_one(tmp_path, rows):
    broken = {"w": regression.OLS * np.nan}
    centers = [broken, broken, CENTERS[2]]
    for _ in range(2):  # the second time from the folder
        found = trajectory(centers, output=tmp_path)
        assert found["status"].to_numpy()[:2].tolist() == ["failed", "failed"]
        assert found["llc"][2] == rows["llc"][2]
    with pytest.raises(ValueError, match="holds NaN"):
        trajectory([broken, broken])


@pytest.mark.parametrize("output", [True, False])
def test_an_error_on_the_way_keeps_the_rows(output, tmp_path, carried):
    def failing():
        yield from CENTERS[:2]
        raise KeyError("no such file")

    settings = {"output": tmp_path} if output else {}
    with pytest.raises(nllc.TrajectoryError, match="Checkpoint 2 .*KeyError.*no such file") as info:
        trajectory(failing(), **settings)
    np.testing.assert_array_equal(info.value.trajectory["llc"], carried["llc"][:2])
    assert (str(tmp_path) in str(info.value)) == output


def test_an_iterator_that_ends_before_its_steps_is_said():
    with pytest.warns(nllc.LLCWarning, match="`steps` has 3 numbers, but `centers` ended after 2"):
        found = trajectory(iter(CENTERS[:2]), steps=[1, 2, 3])
    assert found["step"].to_numpy().tolist() == [1, 2]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files of a trajectory of two checkpoints, and its table."""
    folder = tmp_path_factory.mktemp("trajectory")
    table = trajectory(CENTERS[:2], output=folder)
    return table, {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("share", [0.0, 0.4, 0.99])
@pytest.mark.parametrize("name", ["chains-0.npz", "trajectory.jsonl", "settings.json"])
def test_a_file_cut_at_any_byte_gives_the_same_rows_or_is_named(files, tmp_path, name, share):
    table, whole = files
    for each, content in whole.items():
        size = int(share * len(content)) if each == name else None
        (tmp_path / each).write_bytes(content[:size])
    try:
        found = trajectory(CENTERS[:3], output=tmp_path)
    except nllc.CheckpointError as error:
        assert name in str(error)  # noqa: PT017
        return
    assert name == "trajectory.jsonl"  # whose rows are made again
    np.testing.assert_array_equal(found["llc"][:2], table["llc"])


def test_a_file_of_another_kind_or_none_is_named(files, tmp_path):
    for each, content in files[1].items():
        (tmp_path / each).write_bytes(content)
    (tmp_path / "chains-0.npz").unlink()
    with pytest.raises(nllc.CheckpointError, match=r"lacks chains-0.npz"):
        trajectory(CENTERS[:3], output=tmp_path)
    for damage in (b"damaged\n", b"{}\n"):
        (tmp_path / "trajectory.jsonl").write_bytes(damage)
        with pytest.raises(nllc.CheckpointError, match=r"trajectory.jsonl is damaged"):
            trajectory(CENTERS[:3], output=tmp_path)


def test_folders_that_hold_no_steps_of_orbax_are_named(tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"no steps of an Orbax.*notes.txt.*pass an iterator"):
        trajectory(tmp_path)
    with ocp.CheckpointManager(tmp_path / "composite") as manager:
        items = ocp.args.Composite(state=ocp.args.StandardSave({"w": jnp.zeros(2)}))
        manager.save(3, args=items)
    with pytest.raises(ValueError, match="step 3 cannot be restored.*pass an iterator"):
        trajectory(tmp_path / "composite")


def by_factor(y):
    w = numpyro.sample("w", dist.Normal(0.0, 10.0))
    numpyro.factor("fit", -0.5 * jnp.sum((y - w) ** 2))


@pytest.mark.parametrize("door", ["trajectory", "sweep"])
def test_a_likelihood_in_a_factor_is_told_at_every_door(door):
    lengths = {"num_samples": 20_000, "thinning": 10}
    settings = {"kernel": Metropolis(0.6), "progress_bar": False, **lengths}
    center, key, data = {"w": 0.0}, jax.random.key(0), (jnp.zeros(50),)
    own = {"num_data": 50, "likelihood_factors": ["fit"]}
    if door == "sweep":
        local = nllc.localize(by_factor, center=center, **own)
        table = nllc.sweep(key, local, data, localization=[1.0], **settings)
    else:
        local = nllc.localize(by_factor, center=None, **own)
        table = nllc.llc_trajectory(key, local, [center], data, **settings)
    curvature = 50 / np.log(50)
    exact = 0.5 * curvature / (curvature + 1.0)
    assert abs(table["llc"].item() - exact) < 4 * table["mcse_mean"].item()
    assert table["status"].item() == "ok"
    assert table["center_loss"].item() == 0.0


def test_the_memory_of_a_trajectory_is_that_of_one_checkpoint():
    """Draws of a checkpoint are let go before the next: live arrays do not add up."""
    live = []

    def watched():
        for center in CENTERS * 2:
            live.append(sum(array.nbytes for array in jax.live_arrays()))
            yield center

    trajectory(watched(), thinning=10)
    assert max(live[2:]) <= 1.05 * live[2]


@pytest.mark.parametrize(
    ("centers", "settings", "error", "message"),
    [
        ([], {}, ValueError, "`centers` holds no checkpoint"),
        (iter([]), {}, ValueError, "`centers` holds no checkpoint"),
        ({"w": 1.0}, {}, ValueError, "stacked along a leading axis"),
        ({"w": np.ones((3, 4)), "v": np.ones(2)}, {}, ValueError, "stacked along a leading axis"),
        (3, {}, TypeError, "`centers` must be a dict of stacked arrays"),
        ("no such folder", {}, ValueError, "no folder of Orbax checkpoints"),
        (CENTERS, {"steps": [1, 2]}, ValueError, "`steps` must be as many"),
        (iter(CENTERS), {"steps": [1, 2]}, ValueError, "`steps` has 2 numbers"),
        (CENTERS[:2], {"steps": ["a", "b"]}, TypeError, "`steps` must hold a number"),
        (CENTERS[:2], {"steps": [1, np.nan]}, ValueError, "`steps` must be finite"),
        (CENTERS[:2], {"center_of": "w"}, TypeError, "`center_of` must be a function"),
        ({100: CENTERS[0]}, {}, TypeError, r"must name sites; got keys \[100\]"),
        ([CENTERS[0], {"u": 1.0}], {}, ValueError, "parameters of the first"),
        ([CENTERS[0], {"w": np.ones(9)}], {}, ValueError, "must have shape"),
    ],
)
def test_bad_centers_are_refused_by_name(centers, settings, error, message):
    with pytest.raises(error, match=message):
        trajectory(centers, **settings)


def test_a_picture_shows_the_rows(rows):
    left, right = plots.plot_trajectory(rows)
    (loss,) = left.lines
    np.testing.assert_allclose(loss.get_ydata(), rows["center_loss"] / len(regression.Y))
    drawn = np.concatenate([container.lines[0].get_ydata() for container in right.containers])
    np.testing.assert_allclose(np.sort(drawn), np.sort(rows["llc"]))
    with pytest.raises(ValueError, match="what `llc_trajectory` returns"):
        plots.plot_trajectory(rows.drop_vars("error"))


def test_a_picture_of_both_truths_keeps_those_above_zero_readable(rows):
    """Of -418 and -150 000, far below, the curve from 14 to 43 keeps most of the axis."""
    both = xr.concat([rows, rows], "truth").assign_coords(truth=["data", "center"])
    both["llc"] = ("truth", "checkpoint"), [[-150_000.0, -418.0, 14.0, 15.0], [30.0, 43, 20, 14]]
    left, right = plots.plot_trajectory(both.assign_attrs(num_data=500))
    assert len(left.lines) == 1
    names = [text.get_text() for text in right.get_legend().get_texts()]
    assert {name.removesuffix(", with findings") for name in names} == {
        "loss",
        "λ̂ from the data",
        "λ̂, truth at the centre",
    }
    place = [
        right.transAxes.inverted().transform(right.transData.transform((0.0, y)))[1]
        for y in (-150_000.0, -418.0, 0.0, 14.0, 43.0)
    ]
    assert 0.0 <= place[0] < place[1] - 0.05
    assert place[1] < place[2] - 0.05
    assert 0.35 < place[2] < 0.4  # what is above zero has 1/1.6 of the axis
    assert place[4] - place[3] > 0.3
    assert len(right.get_yticks()) >= 6


def test_a_picture_of_one_of_two_truths_is_of_that_one(rows):
    both = xr.concat([rows, rows], "truth").assign_coords(truth=["data", "center"])
    both["llc"] = both["llc"] + xr.DataArray([0.0, 7.0], dims="truth")
    own = both.sel(truth="center").assign_attrs(rows.attrs, truth="data, center")
    _, right = plots.plot_trajectory(own)
    drawn = np.concatenate([container.lines[0].get_ydata() for container in right.containers])
    np.testing.assert_allclose(np.sort(drawn), np.sort(rows["llc"] + 7.0))


def test_rows_on_disk_are_plain_json(tmp_path):
    found = trajectory(CENTERS[:1], output=tmp_path)
    (line,) = map(json.loads, (tmp_path / "trajectory.jsonl").read_text().splitlines())
    row = line["rows"]["data"]
    assert row["status"] in ("ok", "doubtful")
    assert row["llc"] == float(found["llc"][0])
    assert (tmp_path / "chains-1.npz").exists()
