"""Runs that stop in the middle: what they leave on disk, and how they go on."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import regression

import numpyro_llc as nllc

SETTINGS = {"kernel": "sgnht", "batch_size": 50, "num_warmup": 400, "num_samples": 4000}


def run(checkpoint=None, key=0, **settings):
    chosen = {"center": {"w": regression.OLS}, "model": regression.model, **SETTINGS, **settings}
    model, data = chosen.pop("model"), chosen.pop("data", (regression.X, regression.Y))
    return nllc.estimate_llc(
        jax.random.key(key), model, data, checkpoint=checkpoint, progress_bar=False, **chosen
    )


def llc(idata):
    return idata["posterior"]["llc"].to_numpy()


@pytest.mark.parametrize(
    "settings", [{}, {"kernel": "nuts", "batch_size": None, "store_sites": True}]
)
def test_a_finished_run_is_read_again_and_not_run_again(tmp_path, settings):
    plain = run(**settings)
    first, second = (run(tmp_path / "a", **settings) for _ in range(2))
    for other in (first, second):
        np.testing.assert_array_equal(llc(other), llc(plain))
    if settings:
        np.testing.assert_array_equal(second["posterior"]["w"], plain["posterior"]["w"])
    assert second.attrs["num_steps"] == first.attrs["num_steps"]
    assert second.attrs["sampling_time"] >= first.attrs["sampling_time"]


def shortened():
    """A run whose steps are shortened after the warm-up."""
    p = nllc.zoo.load("sixth_power")
    own = {"model": p.model, "data": p.model_args, "center": p.center, "num_data": p.num_data}
    return {**own, "kernel": "sgld", "batch_size": None}


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
@pytest.mark.parametrize("settings", [{}, shortened()], ids=["plain", "shortened"])
@pytest.mark.parametrize("stop", [12, 30])
def test_an_automatic_run_goes_on_where_ctrl_c_stopped_it(tmp_path, monkeypatch, settings, stop):
    from numpyro_llc import sampling

    lengths = {"num_warmup": None, "num_samples": None, **settings}
    whole = run(**lengths)
    advance, calls = sampling._run.advance, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return advance(*args)

    with monkeypatch.context() as patched:
        patched.setattr(sampling._run, "advance", interrupted)
        try:
            part = run(tmp_path / "a", **lengths)
            assert part.attrs["ended_by"] == "interrupt"
        except KeyboardInterrupt:  # it was in the warm-up: there are no draws to give back
            pass
    assert (tmp_path / "a" / "state.npz").exists()
    np.testing.assert_array_equal(llc(run(tmp_path / "a", **lengths)), llc(whole))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"key": 1}, "rng_key"),
        ({"data": (regression.X, regression.Y + 1)}, "data"),
        ({"center": {"w": regression.OLS + 0.01}}, "center"),
        ({"localization": 2.0}, "localization"),
        ({"inverse_temperature": 0.2}, "inverse_temperature"),
        ({"num_samples": 5000}, "num_samples"),
        ({"batch_size": 40}, "kernel"),
        ({"kernel": "sgld"}, "kernel"),
        ({"store_sites": True}, "stored sites"),
        ({"model": lambda x, y: regression.model(x, y)}, "model"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_by_name(tmp_path, change, name):
    folder = tmp_path / "a"
    lengths = {"num_warmup": 20, "num_samples": 50}
    with pytest.warns(nllc.LLCWarning):
        run(folder, **lengths)
    with pytest.raises(nllc.CheckpointError, match=f"another `{name}`"):
        run(folder, **{**lengths, **change})


KILLED = """
import sys
sys.path.insert(0, {tests!r})
import test_checkpoint
test_checkpoint.run({folder!r}, **{settings!r})
print("ended", flush=True)
"""


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_in_the_same_draws(tmp_path):
    settings = {"num_samples": 400_000, "thinning": 40, "num_warmup": 20_000}
    wanted = llc(run(**settings))
    folder, tests = tmp_path / "a", os.path.dirname(__file__)
    code = KILLED.format(tests=tests, folder=str(folder), settings=settings)
    moments, kills = random.Random(0), 0
    for _ in range(10):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        while not (folder / "settings.json").exists() and process.poll() is None:
            time.sleep(0.1)
        time.sleep(moments.uniform(3.0, 9.0))
        process.send_signal(signal.SIGKILL)
        kills += "ended" not in process.communicate()[0].decode()
    assert kills >= 5
    np.testing.assert_array_equal(llc(run(folder, **settings)), wanted)


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_files_that_a_kill_left_half_written_do_not_count(tmp_path):
    folder, lengths = tmp_path / "a", {"num_warmup": 20, "num_samples": 200}
    first = run(folder, **lengths)
    (folder / "draws-99.npz").write_bytes(b"half")
    (folder / "state.part").write_bytes(b"half")
    np.testing.assert_array_equal(llc(run(folder, **lengths)), llc(first))


def test_until_says_what_ended_the_run():
    common = {"num_samples": None, "num_warmup": 500}
    reached = run(until=0.05, **common)
    row = nllc.summary(reached).loc["llc"]
    assert reached.attrs["ended_by"] == "relative_error"
    assert row["mcse_mean"] <= 0.05 * row["mean"]
    assert row["r_hat"] <= 1.01
    nuts = run(kernel="nuts", batch_size=None, until={"relative_error": 0.02}, **common)
    assert (
        nllc.summary(nuts).loc["llc", "mcse_mean"] <= 0.02 * nllc.summary(nuts).loc["llc", "mean"]
    )


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
@pytest.mark.parametrize(
    ("limit", "name"), [({"steps": 300}, "steps"), ({"seconds": 1e-3}, "seconds")]
)
def test_until_ends_at_a_limit_and_says_which(limit, name):
    idata = run(
        num_samples=None, num_warmup=100, thinning=1, until={"relative_error": 1e-4, **limit}
    )
    assert idata.attrs["ended_by"] == name
    assert llc(idata).shape[1] <= 300
    assert "step_limit" in [f["check"] for f in json.loads(idata.attrs["findings"])]


@pytest.mark.parametrize(
    ("until", "match"),
    [
        (0.0, "must be positive|must be"),
        ({"error": 0.1}, "it may hold"),
        ({"r_hat": 0.9}, "above 1"),
        ({"steps": 0}, "number of steps"),
    ],
)
def test_until_refuses_what_it_cannot_mean(until, match):
    with pytest.raises(ValueError, match=match):
        run(num_samples=None, until=until)
    with pytest.raises(ValueError, match="both say when sampling ends"):
        run(num_samples=10, until=0.1)
