"""The command line and the examples, run as a user runs them."""

import os
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import toy_network
import xarray as xr

from numpyro_llc.cli import main

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def is_picture(path):
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000


def test_bad_arguments_are_said_without_a_traceback(tmp_path, capsys):
    for words in (["--problems", "circel"], ["--num-data", "1"], ["--kernels", "nutz"]):
        with pytest.raises(SystemExit, match="2"):
            main(["calibrate", f"--output={tmp_path}", *words])
        *usage, last = capsys.readouterr().err.splitlines()
        assert last.startswith("numpyro-llc calibrate: error: `")


def test_the_module_runs_and_refuses_unknown_words(capsys, monkeypatch):
    """As ``python -m numpyro_llc``; `test_devices.py` looks at what a new process imports."""
    monkeypatch.setattr(sys, "argv", ["numpyro_llc", "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("numpyro_llc", run_name="__main__")
    assert "demo" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["dmeo"])
    assert "invalid choice: 'dmeo'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["demo", "calibrate"])
@pytest.mark.parametrize("seed", ["99999999999999999999999", "-9999999999", "x"])
def test_seeds_that_are_none_are_refused(capsys, command, seed):
    with pytest.raises(SystemExit) as ended:
        main([command, f"--seed={seed}"])
    assert ended.value.code == 2
    assert f"must be an integer from -2**31 to 2**32 - 1; got {seed}" in capsys.readouterr().err


def test_the_version_is_in_one_place_and_is_printed(capsys):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"numpyro-llc {version}\n"


def saved(path, llc, layout="DataTree"):
    """A file as ArviZ 1 writes results (DataTree), or as ArviZ 0 does (InferenceData)."""
    draws = xr.Dataset({"llc": (("chain", "draw"), llc)}, attrs={"num_data": 100})
    if layout == "DataTree":
        xr.DataTree.from_dict({"posterior": draws}).to_netcdf(path, engine="h5netcdf")
    else:
        xr.Dataset(attrs=draws.attrs).to_netcdf(path, mode="w", engine="h5netcdf")
        draws.to_netcdf(path, mode="a", group="posterior", engine="h5netcdf")
    return path


@pytest.mark.parametrize("layout", ["DataTree", "InferenceData"])
def test_a_saved_result_is_summarized_diagnosed_and_drawn(layout, tmp_path, capsys):
    llc = np.random.default_rng(0).gamma(0.5, size=(4, 200))
    llc[3] += 1.0
    path = saved(tmp_path / "run.nc", llc, layout)

    main(["summary", str(path)])
    header, row = capsys.readouterr().out.splitlines()
    shown = dict(zip(header.split(), row.split()[1:], strict=True))
    assert float(shown["mean"]) == pytest.approx(llc.mean(), rel=1e-3)
    main(["summary", str(path), "--estimators", "mean", "variance"])
    out = capsys.readouterr()
    assert [line.split()[0] for line in out.out.splitlines()] == ["mean", "mean", "variance"]
    assert out.err.startswith("Warning: ")

    main(["diagnose", str(path)])
    first, remedy, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("r_hat: R-hat of `llc` over 4 chains is")
    assert remedy.strip().startswith("Raise `num_warmup`")

    main(["plot", str(path)])
    assert is_picture(path.with_suffix(".png"))
    assert str(path.with_suffix(".png")) in capsys.readouterr().out


def test_a_sound_result_has_nothing_to_diagnose(tmp_path, capsys):
    path = saved(tmp_path / "run.nc", np.random.default_rng(0).gamma(0.5, size=(4, 500)))
    main(["diagnose", str(path)])
    assert capsys.readouterr().out == "No check found anything doubtful.\n"
    main(["diagnose", str(path), "--all-checks"])
    assert capsys.readouterr().out.startswith("non_finite: All draws of `llc` are finite.")


def test_files_that_are_no_result_are_refused_without_a_traceback(tmp_path, capsys):
    (tmp_path / "text.nc").write_text("x")
    xr.Dataset({"llc": 1.0}).to_netcdf(tmp_path / "sweep.nc", engine="h5netcdf")
    for name, reason in (
        ("none.nc", "There is no file"),
        ("text.nc", "cannot be read as netCDF"),
        ("sweep.nc", "holds no draws of `llc` in a group `posterior`"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["summary", str(tmp_path / name)])
        assert reason in capsys.readouterr().err
    path = saved(tmp_path / "run.nc", np.ones((4, 50)))
    with pytest.raises(SystemExit, match="2"):
        main(["summary", str(path), "--estimators", "man"])
    assert "`estimators`" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["plot", str(path), f"--output={tmp_path / 'none' / 'trace.png'}"])
    assert "there is no folder" in capsys.readouterr().err


def test_ctrl_c_says_where_the_rows_are(monkeypatch, capsys, tmp_path):
    def stopped(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("numpyro_llc.known.calibrate", stopped)
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", f"--output={tmp_path}"])
    assert ended.value.code == 130
    said = capsys.readouterr().err
    assert f"rows that were done are in {tmp_path}; the same command goes on from there" in said


@pytest.mark.slow
def test_quickstart(tmp_path):
    picture = tmp_path / "picture.png"
    done = subprocess.run(
        [sys.executable, EXAMPLES / "quickstart.py", "--num-samples=400", "--num-data=200"]
        + ["--no-progress-bar", f"--output={picture}"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )

    assert "mean" in done.stdout.splitlines()[0]
    names, (_, *values) = map(str.split, done.stdout.splitlines()[:2])
    row = dict(zip(names, values, strict=True))
    mean, error = float(row["mean"]), float(row["mcse_mean"])
    exact = toy_network.exact_llc(200)
    assert abs(mean - exact) < 4 * error + 5e-4  # as printed
    assert abs(mean - 0.5) > 4 * error  # the limit as n grows
    assert is_picture(picture)


@pytest.mark.slow
def test_calibration_example(tmp_path, capsys):
    example = runpy.run_path(str(EXAMPLES / "calibration.py"))
    picture = tmp_path / "picture.png"
    example["main"](
        ["--problems", "circle", "--kernels", "sgnht", "--no-progress-bar"]
        + [f"--output={tmp_path / 'rows'}", f"--picture={picture}"]
    )
    name, kernel, exact, llc, *_ = capsys.readouterr().out.splitlines()[-1].split()
    assert (name, kernel) == ("circle", "sgnht")
    assert abs(float(llc) / float(exact) - 1) < 0.05
    assert is_picture(picture)
