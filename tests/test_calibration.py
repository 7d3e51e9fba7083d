"""``calibrate``: rows against known answers, failures in their row, runs that go on."""

import functools
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from fingerprinted import MODEL

import numpyro_llc as nllc
from numpyro_llc.cli import main
from numpyro_llc.inference_data import attributes, inference_data, labelled
from numpyro_llc.known import _calibration_runs
from numpyro_llc.known._calibration_table import CalibrationTable
from numpyro_llc.known.zoo import _registry
from numpyro_llc.models import read_model
from numpyro_llc.plots import plot_calibration
from numpyro_llc.results._diagnose import diagnosed
from numpyro_llc.results._findings import findings_to_json
from numpyro_llc.sampling import OutputFolder, fingerprint

KEY = jax.random.key(0)
SHORT = {"num_samples": 300, "num_warmup": 300, "progress_bar": False}
pytestmark = pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")


def line(w_center=0.0, name="line", scale=1.0, **more):
    """y = w x on six points: regular, λ̂ in closed form."""
    x = jnp.arange(6.0) - 2.5

    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        with numpyro.plate("rows", 6):
            numpyro.sample("y", dist.Normal(w * x, scale), obs=y)

    return nllc.zoo.Problem(model, (x, jnp.zeros(6)), {"w": w_center}, 6, name=name, **more)


def exact_line(**settings):
    return nllc.exact.gaussian_linear(np.array([17.5 / 6]), **settings)


@functools.wraps(nllc.estimate_llc)
def stand_in(rng_key, model, model_args, *, center, num_samples=1000, num_chains=4, **settings):
    """The model is read as for a run; `llc` is Gamma(1/2, 1), of the key alone."""
    read_model(model, model_args, None, center=center)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(rng_key)))
    draws = {"llc": rng.gamma(0.5, size=(num_chains, num_samples or 1000))}
    data = {"posterior": labelled(draws, lead=("chain", "draw"))}
    attrs = {"num_data": settings["num_data"], "interrupted": 0, "gradient_evaluations": 42}
    findings = findings_to_json(diagnosed(inference_data(data, attributes(attrs))))
    return inference_data(data, attributes({**attrs, "findings": findings}))


@pytest.fixture
def runs(monkeypatch):
    """No model is sampled: the keywords of the runs, as they come."""
    seen = []

    @functools.wraps(stand_in)
    def counted(*args, **kwargs):
        seen.append(kwargs)
        return stand_in(*args, **kwargs)

    monkeypatch.setattr(_calibration_runs, "estimate_llc", counted)
    return seen


def kernels_of(runs):
    return [run["kernel"] for run in runs]


# At least so many gradients a step: NUTS takes several.
GRADIENTS = {"mala": 1, "nuts": 2, "sgnht": 1}


@pytest.mark.parametrize(
    "kernels", [["mala"], pytest.param(["nuts", "sgnht"], marks=pytest.mark.slow)], ids=str
)
def test_a_row_says_what_the_run_and_the_exact_value_are(kernels):
    lengths = {**SHORT, "num_samples": 4000}
    table = nllc.calibrate(KEY, ["gaussian"], kernels=kernels, **lengths)
    problem = nllc.zoo.load("gaussian")
    assert list(table.index) == [("gaussian", kernel) for kernel in kernels]
    other = problem.expectation(10.0).mean
    for kernel in kernels:
        row = table.loc[("gaussian", kernel)]
        assert row["parameters"] == 3
        assert row["learning_coefficient"] == 1.5
        assert row["exact"] == problem.expectation().mean
        assert row["exact_error"] == 0
        assert row["z"] == pytest.approx((row["llc"] - row["exact"]) / row["mcse_mean"])
        assert row["relative_error"] == pytest.approx(row["llc"] / row["exact"] - 1)
        assert abs(row["z"]) < 4
        assert abs(row["llc"] - other) > 4 * row["mcse_mean"]  # of another γ
        spread = np.sqrt(problem.expectation().variance)
        assert row["mcse_mean"] == pytest.approx(spread / np.sqrt(row["ess_bulk"]), rel=0.3)
        assert 0.99 < row["r_hat"] < 1.05
        assert row["seconds"] > 0
        assert row["failure"] == ""
        assert row["gradient_evaluations"] >= GRADIENTS[kernel] * 4300


def test_settings_reach_problem_and_run(runs):
    other = {"num_data": 5000, "localization": 10.0, "inverse_temperature": 0.3}
    table = nllc.calibrate(KEY, "fourth_power", kernels="nuts", num_chains=3, **other, **SHORT)
    wanted = nllc.zoo.load("fourth_power", 5000).expectation(10.0, 0.3).mean
    assert table.iloc[0]["exact"] == wanted
    (run,) = runs
    wanted = {**other, **SHORT, "num_chains": 3, "kernel": "nuts", "store_sites": False}
    assert {name: run[name] for name in wanted} == wanted
    assert table.iloc[0]["gradient_evaluations"] == 42


def test_nuts_stands_in_where_no_value_is_known(runs):
    table = nllc.calibrate(KEY, line(), kernels=["sgld"], **SHORT)
    assert list(table.index) == [("line", "nuts"), ("line", "sgld")]
    nuts, sgld = table.loc[("line", "nuts")], table.loc[("line", "sgld")]
    assert np.isnan(nuts["exact"])
    assert np.isnan(nuts["learning_coefficient"])
    assert (sgld["exact"], sgld["exact_error"]) == (nuts["llc"], nuts["mcse_mean"])
    error = np.hypot(sgld["mcse_mean"], nuts["mcse_mean"])
    assert sgld["z"] == pytest.approx((sgld["llc"] - nuts["llc"]) / error)
    alone = nllc.calibrate(KEY, line(), kernels=["sgld"], reference=None, **SHORT)
    assert list(alone.index) == [("line", "sgld")]
    assert alone["llc"].iloc[0] == sgld["llc"]


def test_a_row_does_not_depend_on_what_else_is_run(runs):
    both = nllc.calibrate(KEY, ["gaussian", "circle"], kernels=["nuts"], **SHORT)
    one = nllc.calibrate(KEY, "circle", kernels=["nuts"], **SHORT)
    assert both.loc[("circle", "nuts"), "llc"] == one.loc[("circle", "nuts"), "llc"]
    assert both["llc"].nunique() == 2


def test_a_model_that_fails_is_reported_in_its_row(runs):
    bad = nllc.zoo.Problem(
        line().model, (jnp.ones(6), jnp.full(6, jnp.inf)), {"w": 0.0}, 6, name="bad"
    )
    table = nllc.calibrate(KEY, [bad, line()], kernels=["nuts", "sgld"], **SHORT)
    failure = table.loc[("bad", "nuts"), "failure"]
    assert failure.startswith("ValueError: Observed site 'y' holds 6 NaN")
    assert np.isnan(table.loc[("bad", "nuts"), "llc"])
    assert np.isnan(table.loc[("bad", "sgld"), "exact"])
    assert table.loc[("line", "sgld"), "failure"] == ""


def test_findings_of_a_run_are_kept(runs):
    table = nllc.calibrate(
        KEY, "gaussian", kernels="nuts", num_samples=8, num_warmup=8, progress_bar=False
    )
    assert "effective sample size" in table.iloc[0]["findings"]
    table = nllc.calibrate(KEY, "gaussian", kernels="nuts", **SHORT)
    assert table.iloc[0]["findings"] == ""


def test_a_stopped_calibration_goes_on_where_it_was(tmp_path, runs):
    settings = {"kernels": ["nuts"], "output": tmp_path, **SHORT}
    first = nllc.calibrate(KEY, "gaussian", **settings)
    runs.clear()
    both = nllc.calibrate(KEY, ["gaussian", "circle"], **settings)
    assert kernels_of(runs) == ["nuts"]
    pd.testing.assert_frame_equal(both.iloc[:1], first)
    saved = pd.read_csv(tmp_path / "calibration.csv")
    assert list(saved["problem"]) == ["gaussian", "circle"]
    data = xr.load_dataset(tmp_path / "calibration.nc", engine="h5netcdf")
    assert data.attrs["num_data"] == 1000
    assert float(data["llc"].sel(problem="circle", kernel="nuts")) == both["llc"].iloc[1]
    kept = json.loads((tmp_path / "settings.json").read_text())
    assert kept["num_samples"] == 300
    assert kept["x64"] is False
    assert kept["version"] == metadata.version("numpyro_llc")
    with pytest.raises(ValueError, match="with another `localization`: 1.0; got 2.0"):
        nllc.calibrate(KEY, "gaussian", localization=2.0, **settings)


def test_a_row_of_another_problem_of_the_same_name_is_not_taken(tmp_path, runs):
    settings = {"kernels": ["nuts"], "output": tmp_path, **SHORT}
    nllc.calibrate(KEY, line(), **settings)
    for other in (line(0.1), line(scale=2.0)):
        with pytest.raises(ValueError, match="holds a row of another problem called 'line'"):
            nllc.calibrate(KEY, other, **settings)


def test_runs_that_failed_are_tried_again_and_exact_values_found_anew(tmp_path, runs):
    settings = {"kernels": ["nuts"], "output": tmp_path, "reference": None, **SHORT}
    bad = replace(line(), model=lambda x, y: 1 / 0)
    table = nllc.calibrate(KEY, [bad, line(name="other")], **settings)
    assert "ZeroDivisionError" in table.loc[("line", "nuts"), "failure"]
    assert np.isnan(table.loc[("other", "nuts"), "z"])
    known = {"learning_coefficient": nllc.exact.regular(1), "finite_n": exact_line}
    runs.clear()
    again = nllc.calibrate(KEY, [line(**known), line(name="other", **known)], **settings)
    assert kernels_of(runs) == ["nuts"]
    assert list(again["failure"]) == ["", ""]
    assert list(again["learning_coefficient"]) == [0.5, 0.5]
    assert list(again["exact"]) == [exact_line(num_data=6).mean] * 2
    other = again.loc[("other", "nuts")]
    assert other["llc"] == table.loc[("other", "nuts"), "llc"]
    assert other["z"] == pytest.approx((other["llc"] - other["exact"]) / other["mcse_mean"])


@pytest.mark.parametrize("name", ["007", "NA", "None", "1e5"])
def test_names_that_look_like_numbers_or_nothing_are_read_back(tmp_path, name):
    row = {"problem": name, "kernel": "nuts", "llc": 0.1, "fingerprint": "0123456789012345"}
    CalibrationTable(tmp_path, {}).add(row)
    kept = CalibrationTable(tmp_path, {}).get(name, "nuts", "0123456789012345")
    assert {key: kept[key] for key in row} == row
    assert kept["failure"] == ""
    assert np.isnan(kept["exact"])


def test_a_failing_exact_value_keeps_the_estimate_and_the_reference_stands_in(runs):
    broken = line(finite_n=lambda **settings: 1 / 0)
    table = nllc.calibrate(KEY, broken, kernels=["sgld"], **SHORT)
    nuts, sgld = table.loc[("line", "nuts")], table.loc[("line", "sgld")]
    assert (
        nuts["failure"] == sgld["failure"] == "No exact value: ZeroDivisionError: division by zero"
    )
    assert (sgld["exact"], sgld["exact_error"]) == (nuts["llc"], nuts["mcse_mean"])
    error = np.hypot(sgld["mcse_mean"], nuts["mcse_mean"])
    assert sgld["z"] == pytest.approx((sgld["llc"] - nuts["llc"]) / error)


def test_a_table_that_someone_reads_is_replaced(tmp_path):
    row = {"problem": "a", "kernel": "nuts", "llc": 0.1, "fingerprint": ""}
    record = CalibrationTable(tmp_path, {})
    record.add(row)
    record.finish([("a", "nuts")])
    with xr.open_dataset(tmp_path / "calibration.nc", engine="h5netcdf") as data:
        record.add({**row, "llc": 0.2})
        record.finish([("a", "nuts")])
        assert float(data["llc"].sel(problem="a", kernel="nuts")) == 0.1
    new = xr.load_dataset(tmp_path / "calibration.nc", engine="h5netcdf")
    assert new["llc"].to_numpy().tolist() == [[0.2]]


def test_empty_files_are_named_or_passed_over(tmp_path):
    (tmp_path / "calibration.csv").touch()
    assert CalibrationTable(tmp_path, {}).rows == {}
    (tmp_path / "settings.json").write_text("")
    with pytest.raises(ValueError, match="`output` .* holds a settings.json that cannot be read"):
        CalibrationTable(tmp_path, {})


def test_fingerprints_of_models_are_of_what_they_compute():
    space = {}
    exec(MODEL, space)
    make = space["make"]
    marks = [fingerprint(make(2, 3.0)), fingerprint(make(3, 3.0)), fingerprint(make(2, 4.0))]
    marks += [fingerprint(make(2, 3.0, 0.7)), fingerprint(functools.partial(make(2, 3.0), y=1))]
    exec(MODEL.replace("Normal", "Laplace").replace("relu", "gelu"), space)
    marks += [fingerprint(space["make"](2, 3.0))]
    assert marks[0] == fingerprint(make(2, 3.0))
    assert len(set(marks)) == len(marks)
    assert fingerprint(dist.Normal(0.0, 1.0)) != fingerprint(dist.Laplace(0.0, 1.0))
    strange = [{object(): 1, int: 2}, logging.getLogger("a"), np.array([make, "x"], dtype=object)]
    assert len({fingerprint(thing) for thing in strange}) == 3
    assert fingerprint(jax.random.key(0)) != fingerprint(jax.random.key(1))


def test_an_interrupt_keeps_the_rows_before_it(tmp_path, monkeypatch):
    @functools.wraps(stand_in)
    def interrupted(*args, **kwargs):
        if (tmp_path / "calibration.csv").exists():
            raise KeyboardInterrupt
        return stand_in(*args, **kwargs)

    monkeypatch.setattr(_calibration_runs, "estimate_llc", interrupted)
    with pytest.raises(KeyboardInterrupt):
        nllc.calibrate(KEY, ["gaussian", "circle"], kernels=["nuts"], output=tmp_path, **SHORT)
    assert list(pd.read_csv(tmp_path / "calibration.csv")["problem"]) == ["gaussian"]


def table_without(tmp_path, *, settings=True):
    """A folder with one row of a calibration, its settings lost or kept."""
    nllc.calibrate(KEY, line(), kernels=["sgld"], reference=None, output=tmp_path, **SHORT)
    if not settings:
        (tmp_path / "settings.json").unlink()
    return tmp_path / "calibration.csv"


def test_rows_whose_settings_are_lost_are_not_taken(tmp_path, runs):
    table_without(tmp_path, settings=False)
    with pytest.raises(nllc.CheckpointError, match=r"holds calibration.csv, but no settings.json"):
        nllc.calibrate(KEY, line(), localization=9.0, output=tmp_path, **SHORT)


@pytest.mark.parametrize("name", ["state.npz", "sweep.nc", "trajectory.jsonl"])
def test_other_results_whose_settings_are_lost_are_not_taken(tmp_path, name):
    (tmp_path / name).write_bytes(b"rows")
    (tmp_path / "notes.txt").write_text("not ours")
    with pytest.raises(nllc.CheckpointError, match=f"`output` .* holds {name}, but no settings"):
        OutputFolder(tmp_path, {}, what="run")
    (tmp_path / name).unlink()
    OutputFolder(tmp_path, {}, what="sweep").close()


def test_two_processes_in_one_folder_keep_each_others_rows(tmp_path):
    def row(problem, llc=1.0):
        return {"problem": problem, "kernel": "nuts", "llc": llc, "fingerprint": "f"}

    one, other = CalibrationTable(tmp_path, {}), CalibrationTable(tmp_path, {})
    one.add(row("a"))
    other.add(row("b"))
    one.add(row("c"))
    other.add(row("a", 2.0))
    one.finish([("a", "nuts")])
    saved = pd.read_csv(tmp_path / "calibration.csv").set_index("problem")["llc"]
    assert saved.to_dict() == {"a": 1.0, "b": 1.0, "c": 1.0}
    other.add(row("d"))
    assert other.get("c", "nuts", "f")["llc"] == 1.0
    assert not list(tmp_path.glob("*.part"))


def test_a_table_cut_at_any_byte_has_fewer_rows_or_is_named(tmp_path):
    """A number that is cut is another number."""
    rows = [
        {"problem": name, "kernel": "nuts", "llc": 0.123456789, "fingerprint": "f0f0", **texts}
        for name, texts in (("a", {}), ("b", {"findings": "two, with\n a line"}), ("c", {}))
    ]
    table = CalibrationTable(tmp_path, {})
    for row in rows:
        table.add(row)
    path = tmp_path / "calibration.csv"
    content, kept = path.read_bytes(), set()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        try:
            found = CalibrationTable(tmp_path, {})
        except nllc.CheckpointError as error:
            assert "calibration.csv" in str(error)  # noqa: PT017
            continue
        kept.add(len(found.rows))
        for (name, kernel), row in found.rows.items():
            assert row["llc"] == 0.123456789, (size, name, kernel)
            assert row["fingerprint"] == "f0f0"
    assert kept == {0, 1, 2}


def test_rows_of_many_threads_are_all_kept(tmp_path):
    def add(k):
        table = CalibrationTable(tmp_path, {})
        for j in range(5):
            table.add({"problem": f"{k} {j}", "kernel": "nuts", "llc": 1.0})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    assert len(CalibrationTable(tmp_path, {}).rows) == 20


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(_registry, "_ENTRIES", dict(_registry._ENTRIES))


def test_a_problem_that_cannot_be_made_is_a_row(registry, runs):
    nllc.zoo.register(lambda num_data: 1 / 0, name="unmade")
    nllc.zoo.register(lambda num_data: None, name="nothing")
    odd = line(name="odd")
    object.__setattr__(odd, "center", 3.0)  # whose fingerprint raises
    chosen = ["unmade", "nothing", odd, line()]
    table = nllc.calibrate(KEY, chosen, kernels=["sgld"], reference=None, **SHORT)
    failures = table["failure"].droplevel("kernel")
    assert failures["unmade"] == "ZeroDivisionError: division by zero"
    assert "must return a zoo.Problem" in failures["nothing"]
    assert failures["odd"].startswith("TypeError")
    assert failures["line"] == ""
    assert table["llc"].notna().tolist() == [False, False, False, True]


def test_a_model_that_names_what_is_not_bound_yet_has_a_fingerprint():
    def make(bound):
        def model():
            return later()

        if bound:
            later = len
        return model

    assert fingerprint(make(False)) == fingerprint(make(False)) != fingerprint(make(True))


SHIFTS = []  # a global, whose value is no part of the fingerprint of what reads it


def shifted(shift, **settings):
    SHIFTS.append(shift)
    return nllc.exact.Expectation(0.4 + shift, 1.0)


def test_exact_values_on_record_are_not_computed_again(tmp_path, runs):
    SHIFTS.clear()
    settings = {"kernels": ["sgld"], "output": tmp_path, **SHORT}
    for shift in (0.0, 0.0, 0.1):
        problem = line(finite_n=functools.partial(shifted, shift))
        table = nllc.calibrate(KEY, problem, **settings)
        assert table["exact"].tolist() == [0.4 + shift]
    assert SHIFTS == [0.0, 0.1]


@pytest.mark.parametrize("mean", [np.nan, np.inf])
def test_an_exact_value_that_is_no_number_is_a_failure(runs, mean):
    broken = line(finite_n=lambda **settings: nllc.exact.Expectation(mean, 1.0))
    table = nllc.calibrate(KEY, broken, kernels=["sgld"], **SHORT)
    assert list(table.index) == [("line", "nuts"), ("line", "sgld")]
    assert (table["failure"] == f"No exact value: `finite_n` gave a mean of {mean}").all()
    assert table["exact"].iloc[1] == table["llc"].iloc[0]


def test_equal_settings_of_another_type_are_the_same(tmp_path, runs):
    settings = {"kernels": ["sgld"], "output": tmp_path, **SHORT}
    nllc.calibrate(KEY, "circle", **settings)
    settings["num_samples"] = np.int32(300)
    same = {"num_data": np.int64(1000), "localization": jnp.float32(1.0)}
    nllc.calibrate(KEY, "circle", **same, **settings)
    assert kernels_of(runs) == ["sgld"]
    with pytest.raises(nllc.CheckpointError, match="another `localization`: 1.0; got 0.1"):
        nllc.calibrate(KEY, "circle", localization=np.float32(0.1), **settings)


@pytest.mark.parametrize(
    "setting",
    [
        {"num_samples": -5},
        {"num_warmup": "many"},
        {"num_chains": 0},
        {"thinning": 0},
        {"chain_method": "x"},
        {"batch_size": -1},
        {"until": -1, "num_samples": None},
    ],
    ids=str,
)
def test_settings_that_no_run_can_have_are_refused_at_once(tmp_path, setting):
    with pytest.raises((TypeError, ValueError), match=f"`{next(iter(setting))}`"):
        nllc.calibrate(KEY, "circle", output=tmp_path, **{**SHORT, **setting})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text + b'"circle,',
        lambda text: b"\x93NUMPY\x00\xff" * 30,
        lambda text: text.replace(b",sgld,1.0,", b",sgld,abc,"),
        lambda text: b"\n".join(one + b",x" for one in text.splitlines()),
        lambda text: text.rstrip() + b",x\n",
        lambda text: b"\n",
    ],
    ids=["in a quotation", "binary", "no number", "columns", "a cell too many", "a blank line"],
)
def test_a_damaged_table_is_named(tmp_path, runs, damage):
    path = table_without(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert path.read_bytes() != whole
    with pytest.raises(nllc.CheckpointError, match=r"holds a calibration.csv that cannot be read"):
        table_without(tmp_path)


def test_an_output_that_is_no_folder_is_refused_by_name(tmp_path):
    path = tmp_path / "file"
    path.touch()
    for output in (path, path / "below"):
        with pytest.raises(ValueError, match="`output` must be a folder or a place where one can"):
            nllc.calibrate(KEY, "circle", output=output, **SHORT)
    with pytest.raises(TypeError, match="`output` must be the path of a folder; got 3"):
        nllc.calibrate(KEY, "circle", output=3, **SHORT)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"problems": 3}, TypeError, "`problems` must be names or zoo.Problem objects; got 3"),
        ({"problems": ["circle", 3]}, TypeError, "`problems` must be names or .*; got 3"),
        ({"problems": []}, ValueError, "`problems` must hold at least one; got none"),
        ({"problems": "nothing"}, ValueError, "'nothing' is not in the zoo"),
        ({"problems": [line(), line()]}, ValueError, "must have a `name` of its own"),
        ({"problems": line(name="")}, ValueError, "must have a `name` of its own"),
        ({"localization": -1.0}, ValueError, "`localization` must be"),
        ({"num_data": 1}, ValueError, "`num_data` must be at least 2"),
        ({"kernels": ["nutz"]}, ValueError, "`kernels` names \\['nutz'\\]; known are"),
        ({"num_sample": 5}, TypeError, "unexpected keyword argument 'num_sample'"),
        ({"kernels": None}, TypeError, "`kernels` must be one or more names"),
        ({"kernels": []}, TypeError, "`kernels` must be one or more names"),
        ({"num_data": 10**400}, ValueError, "`num_data` must be at most"),
        ({"center": {}}, TypeError, "unexpected keyword argument 'center'"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments, error, message):
    with pytest.raises(error, match=message):
        nllc.calibrate(KEY, **{"problems": "gaussian", **arguments})


def test_the_picture_has_a_point_for_each_row(runs):
    table = nllc.calibrate(KEY, ["gaussian", "circle"], kernels=["nuts", "sgld"], **SHORT)
    axes = plot_calibration(table)
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["nuts", "sgld"]
    points = axes[0].containers[0][0].get_xydata()
    wanted = table.xs("nuts", level="kernel")[["exact", "llc"]].to_numpy()
    np.testing.assert_allclose(points, wanted)
    axes = plot_calibration(table.assign(exact=np.nan))  # warns of nothing
    assert axes[0].get_legend() is None


def print_and_save(folder, capsys):
    command = ["calibrate", "--problems", "circle", "--kernels", "sgnht", "--no-progress-bar"]
    main([*command, f"--output={folder}"])
    printed = capsys.readouterr().out
    assert "circle" in printed
    assert "relative_error" in printed
    return pd.read_csv(folder / "calibration.csv").iloc[0]


@pytest.mark.slow
def test_the_command_is_right_on_the_circle(tmp_path, capsys):
    saved = print_and_save(tmp_path, capsys)
    assert abs(saved["z"]) < 4
    assert saved["mcse_mean"] < 0.012 * saved["llc"]


def test_the_command_prints_the_table_and_saves_it(tmp_path, runs, capsys):
    saved = print_and_save(tmp_path, capsys)
    wanted = nllc.zoo.load("circle").expectation().mean
    assert saved["exact"] == pytest.approx(wanted)
    assert saved["relative_error"] == pytest.approx(saved["llc"] / wanted - 1)
    assert kernels_of(runs) == ["sgnht"]
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")
    main(["calibrate", "--list"])
    assert "tanh_unit" in capsys.readouterr().out
