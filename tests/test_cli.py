"""The command line and the examples, run as a user runs them."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import toy_network

from numpyro_llc.cli import main

EXAMPLES = Path(__file__).parents[1] / "examples"


def is_picture(path):
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000


def test_bad_arguments_are_said_without_a_traceback(tmp_path, capsys):
    for words in (["--problems", "circel"], ["--num-data", "1"], ["--kernels", "nutz"]):
        with pytest.raises(SystemExit, match="2"):
            main(["calibrate", f"--output={tmp_path}", *words])
        *usage, last = capsys.readouterr().err.splitlines()
        assert last.startswith("numpyro-llc calibrate: error: `")


def test_the_module_runs_without_what_is_optional_and_refuses_unknown_words(capsys):
    command = [sys.executable, "-X", "importtime", "-m", "numpyro_llc", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert "demo" in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert {"numpyro_llc.models", "numpyro.infer"} <= imported
    assert not {name for name in imported if name.split(".")[0] in ("funsor", "sklearn")}
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
