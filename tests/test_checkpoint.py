"""Runs that stop in the middle: what they leave on disk, and how they go on."""

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import regression
from hypothesis import given, settings
from hypothesis import strategies as st
from metropolis import FITTED, METROPOLIS
from numpyro.infer import NUTS

import numpyro_llc as nllc
from numpyro_llc import sampling
from numpyro_llc.kernels import kernel_of
from numpyro_llc.sampling import CommonRunFolder, RunFolder, _folder, check_schedule, make_plan
from numpyro_llc.sampling._processes import Processes

SETTINGS = {"kernel": "sgnht", "batch_size": 50, "num_warmup": 400, "num_samples": 4000}


def run(output=None, key=0, **settings):
    chosen = {"center": {"w": regression.OLS}, "model": regression.model, **SETTINGS, **settings}
    model, data = chosen.pop("model"), chosen.pop("data", (regression.X, regression.Y))
    return nllc.estimate_llc(
        jax.random.key(key), model, data, output=output, progress_bar=False, **chosen
    )


def llc(idata):
    return idata["posterior"]["llc"].to_numpy()


STORED = {"kernel": METROPOLIS, "batch_size": None, "store_sites": True, "num_warmup": 100}


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
@pytest.mark.parametrize("settings", [{}, STORED], ids=["sgnht", "with its sites"])
def test_a_finished_run_is_read_again_and_not_run_again(tmp_path, settings, monkeypatch):
    plain = run(**settings)
    first = run(tmp_path / "a", **settings)
    monkeypatch.setattr("numpyro_llc.sampling._run.advance", None)  # nothing is computed
    second = run(tmp_path / "a", **settings)
    for other in (first, second):
        np.testing.assert_array_equal(llc(other), llc(plain))
    if settings:
        np.testing.assert_array_equal(second["posterior"]["w"], plain["posterior"]["w"])
    for name in ("num_steps", "num_warmup", "thinning", "ended_by"):
        assert second.attrs[name] == first.attrs[name] == plain.attrs[name]
    assert first.attrs["sampling_time"] <= second.attrs["sampling_time"]
    assert second.attrs["sampling_time"] < first.attrs["sampling_time"] + 60


def shortened():
    """A run whose steps are shortened after the warm-up."""
    p = nllc.zoo.load("sixth_power", 1000)
    own = {"model": p.model, "data": p.model_args, "center": p.center, "num_data": p.num_data}
    return {**own, "kernel": "sgld", "batch_size": None}


def in_chunks_of(steps, patched):
    """Chunks of so many steps, whatever the speed of the machine."""
    patched.setattr(sampling._run.Pace, "steps", lambda pace, seconds_left: steps)


@functools.cache
def whole_run(name, until):
    """An automatic run without a folder, and its settings."""
    settings = {"num_warmup": None, "num_samples": None, "until": until}
    settings |= shortened() if name else {}
    return run(**settings), settings


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
@pytest.mark.parametrize(
    ("name", "stop", "until"),
    [
        ("", 4, 0.05),
        pytest.param("", 12, None, marks=pytest.mark.slow),
        pytest.param("", 30, None, marks=pytest.mark.slow),
        pytest.param("shortened", 12, None, marks=pytest.mark.slow),
        pytest.param("shortened", 30, None, marks=pytest.mark.slow),
    ],
)
def test_an_automatic_run_goes_on_where_ctrl_c_stopped_it(tmp_path, monkeypatch, name, stop, until):
    whole, lengths = whole_run(name, until)
    advance, calls = sampling._run.advance, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return advance(*args)

    with monkeypatch.context() as patched:
        in_chunks_of(500, patched)
        patched.setattr(sampling._run, "advance", interrupted)
        try:
            part = run(tmp_path / "a", **lengths)
            assert part.attrs["ended_by"] == "interrupt"
        except KeyboardInterrupt:  # it was in the warm-up: there are no draws to give back
            pass
    assert len(calls) == stop
    assert (tmp_path / "a" / "state.npz").exists()
    resumed = run(tmp_path / "a", **lengths)
    np.testing.assert_array_equal(llc(resumed), llc(whole))
    for kept in ("num_warmup", "thinning", "num_steps", "ended_by", "step_size"):
        assert resumed.attrs[kept] == whole.attrs[kept]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with a finished run of a few draws."""
    folder = tmp_path_factory.mktemp("begun") / "a"
    with pytest.warns(nllc.LLCWarning):
        run(folder, **SHORT)
    return folder


SHORT = {"num_warmup": 20, "num_samples": 200}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"key": 1}, "rng_key"),
        ({"data": (regression.X, regression.Y + 1)}, "data"),
        ({"center": {"w": regression.OLS + 0.01}}, "center"),
        ({"localization": 2.0}, "localization"),
        ({"inverse_temperature": 0.2}, "inverse_temperature"),
        ({"num_samples": 5000}, "num_samples"),
        ({"num_warmup": 21}, "num_warmup"),
        ({"thinning": 2}, "thinning"),
        ({"num_chains": 2}, "num_chains"),
        ({"chain_method": "sequential"}, "chain_method"),
        ({"num_data": 400, "inverse_temperature": 1 / np.log(500)}, "num_data"),
        ({"batch_size": 40}, "kernel"),
        ({"kernel": "sgld"}, "kernel"),
        ({"store_sites": True}, "stored sites"),
        ({"model": lambda x, y: regression.model(x, y)}, "model"),
    ],
)
def test_a_folder_of_something_else_is_refused_by_name(begun, change, name):
    before = {path.name: path.read_bytes() for path in begun.iterdir()}
    with pytest.raises(nllc.CheckpointError, match=f"another `{name}`"):
        run(begun, **{**SHORT, **change})
    assert {path.name: path.read_bytes() for path in begun.iterdir()} == before


KILLED = """
import sys, warnings
sys.path.insert(0, {tests!r})
warnings.simplefilter("ignore")
import test_checkpoint
test_checkpoint.slowed({pause})
test_checkpoint.run({folder!r}, **getattr(test_checkpoint, {settings!r}))
print("ended", flush=True)
"""
LONG = {**STORED, "num_samples": 4_000, "thinning": 2}
LONG_BATCHES = {"num_samples": 400_000, "thinning": 40, "num_warmup": 20_000}


def slowed(pause):
    """All chunks from now on, by so many seconds."""
    advance = sampling._run.advance
    sampling._run.advance = lambda *args: time.sleep(pause) or advance(*args)


def begin(folder, settings, pause=0.0):
    """The run in a process of its own, which compiles without writing what it compiled."""
    names = {"folder": str(folder), "settings": settings, "pause": pause}
    code = KILLED.format(tests=os.path.dirname(__file__), **names)
    # A process that is killed while it writes a compiled program leaves half of it for others.
    own = {**os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e9"}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=own)


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_a_killed_run_ends_in_the_same_draws(tmp_path):
    wanted, folder = llc(run(**LONG)), tmp_path / "a"
    process = begin(folder, "LONG", pause=0.4)
    while not (folder / "draws-0.npz").exists() and process.poll() is None:
        time.sleep(0.01)
    with pytest.raises(nllc.CheckpointError, match=f"in use by process {process.pid} on "):
        run(folder, **LONG)
    process.send_signal(signal.SIGKILL)
    assert "ended" not in process.communicate()[0].decode()
    assert (folder / "lock").exists()  # which binds nobody
    np.testing.assert_array_equal(llc(run(folder, **LONG)), wanted)
    assert not (folder / "lock").exists()


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_in_the_same_draws(tmp_path):
    whole, folder = run(**LONG_BATCHES), tmp_path / "a"
    seconds = whole.attrs["sampling_time"] - whole.attrs["compilation_time"]
    wanted, moments, kills = llc(whole), random.Random(0), 0
    for _ in range(10):
        process = begin(folder, "LONG_BATCHES")
        while not (folder / "settings.json").exists() and process.poll() is None:
            time.sleep(0.1)
        time.sleep(moments.uniform(0.5, 1.5) + moments.uniform(0.0, 0.1) * seconds)
        process.send_signal(signal.SIGKILL)
        kills += "ended" not in process.communicate()[0].decode()
    assert kills >= 5
    np.testing.assert_array_equal(llc(run(folder, **LONG_BATCHES)), wanted)


OF = {"model": "a", "data": 3}
ALONE = Processes(None)


def progress(count):
    """A state that knows how many draws led to it, with a key and a scalar as leaves."""
    return {
        "key": jax.random.key(count),
        "z": jnp.full((2, 3), 0.1 * count),
        "i": jnp.asarray(count),
    }


def entry_of(first, length):
    """Draws numbered from `first`, of two chains."""
    numbers = np.arange(first, first + length)
    return {
        "excess_loss": np.stack([numbers, -numbers]).astype(float),
        "z 000000": np.stack([numbers, -numbers])[..., None] * np.ones(3),
    }


def draws_of(entries):
    """The draws of all entries, checked to be those of ``entry_of``, and how many."""
    if not entries:
        return 0
    arrays = [entry.arrays for entry in entries]
    joined = {k: np.concatenate([e[k] for e in arrays], axis=1) for k in arrays[0]}
    assert all(entry.steps == 7 * entry.arrays["excess_loss"].shape[1] for entry in entries)
    count = joined["excess_loss"].shape[1]
    for name, array in entry_of(0, count).items():
        np.testing.assert_array_equal(joined[name], array)
    return count


def written(folder, lengths, writes):
    """Draws of these lengths one after the other, written after those entries of `writes`."""
    with CommonRunFolder(functools.partial(RunFolder, folder, OF), ALONE) as run_folder:
        count = 0
        if found := run_folder.load(progress(0)):
            count = draws_of(found[2])
        for k, length in enumerate(lengths):
            run_folder.add(entry_of(count, length), 7 * length)
            count += length
            if k in writes or k == len(lengths) - 1:
                run_folder.write(progress(count), {"seconds": 0.5 * count})
    return count


def loaded(folder):
    """What the folder holds."""
    with CommonRunFolder(functools.partial(RunFolder, folder, OF), ALONE) as run_folder:
        return run_folder.load(progress(0))


def is_whole(found):
    """Whether state, numbers and draws belong together; returns how many draws they are."""
    state, numbers, entries = found
    count = draws_of(entries)
    assert int(state["i"]) == count
    np.testing.assert_array_equal(state["z"], progress(count)["z"])
    assert jax.random.key_data(state["key"]).tolist() == [0, count]
    assert numbers == {"seconds": 0.5 * count}
    return count


few_lengths = st.lists(st.integers(1, 5), min_size=1, max_size=5)


class Killed(BaseException):
    """In the place of SIGKILL."""


@settings(deadline=None, max_examples=50, derandomize=True)
@given(few_lengths, st.sets(st.integers(0, 4)), st.integers(0, 11), st.booleans(), few_lengths)
def test_killed_between_or_within_any_two_writes_a_folder_is_whole(
    lengths, writes, moment, is_half, more
):
    """Before the file `moment` is put in its place, with half of it written or all."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        folder, calls, replace = Path(folder) / "a", [], Path.replace

        def replaced(path, target):
            calls.append(target)
            if len(calls) > moment + 1:  # the first is of settings.json
                if is_half:
                    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
                raise Killed
            return replace(path, target)

        patched.setattr(Path, "replace", replaced)
        patched.setattr("os.fsync", lambda number: None)  # which takes most of the time
        try:
            written(folder, lengths, writes)
        except Killed:
            pass
        patched.setattr(Path, "replace", replace)
        found = loaded(folder)
        before = 0 if found is None else is_whole(found)
        states = [one for one in calls[: moment + 1] if Path(one).name == "state.npz"]
        assert (before > 0) == bool(states)
        total = written(folder, more, set())  # and it goes on from there
        assert total == before + sum(more)
        assert is_whole(loaded(folder)) == total


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files of a run with three files of draws, by name."""
    folder = tmp_path_factory.mktemp("files") / "a"
    assert written(folder, [3, 1, 4, 1], {0, 2}) == 9
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(found) == [*(f"draws-{k}.npz" for k in range(3)), "settings.json", "state.npz"]
    return found


@settings(deadline=None, max_examples=100, derandomize=True)
@given(place=st.integers(0, 4), share=st.floats(0.0, 1.0))
def test_a_folder_cut_at_any_byte_gives_the_same_draws_or_an_error(files, place, share):
    name = sorted(files)[place]
    size = int(share * len(files[name]))
    with tempfile.TemporaryDirectory() as folder:
        for each, content in files.items():
            (Path(folder) / each).write_bytes(content[:size] if each == name else content)
        before = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        if size == len(files[name]):
            assert is_whole(loaded(folder)) == 9
        elif name == "settings.json":
            with pytest.raises(nllc.CheckpointError, match="settings.json that cannot be read"):
                loaded(folder)
        else:
            with pytest.raises(nllc.CheckpointError, match=f"{name} is damaged"):
                loaded(folder)
        assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == before


@pytest.mark.parametrize("name", ["draws-0.npz", "draws-2.npz", "state.npz"])
def test_a_file_that_is_missing_is_named(files, tmp_path, name):
    for each, content in files.items():
        if each != name:
            (tmp_path / each).write_bytes(content)
    with pytest.raises(nllc.CheckpointError, match=f"lacks {name}"):
        loaded(tmp_path)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(place=st.integers(0, 3), byte=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_changes_no_draw(files, place, byte, bit):
    name = [name for name in sorted(files) if name.endswith(".npz")][place]
    content = bytearray(files[name])
    content[byte % len(content)] ^= 1 << bit
    with tempfile.TemporaryDirectory() as folder:
        for each, whole in files.items():
            (Path(folder) / each).write_bytes(bytes(content) if each == name else whole)
        try:
            found = loaded(folder)
        except nllc.CheckpointError:
            return
        assert is_whole(found) == 9  # it was a byte that nobody reads


def test_writes_come_no_more_often_than_their_cost_allows(tmp_path, monkeypatch):
    clock = iter([0.0, 10.0, 12.0, 51.9, 52.1])  # made, begun, written, asked, asked
    monkeypatch.setattr(_folder.time, "perf_counter", lambda: next(clock))
    with CommonRunFolder(functools.partial(RunFolder, tmp_path / "a", OF), ALONE) as run_folder:
        run_folder.write(progress(0), {})
        assert not run_folder.is_due
        assert run_folder.is_due  # of 40 seconds 2 are a twentieth


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_files_that_a_kill_left_half_written_do_not_count(tmp_path, begun):
    folder = shutil.copytree(begun, tmp_path / "a")
    first = run(**SHORT)
    (folder / "draws-99.npz").write_bytes(b"half")
    (folder / "state.part").write_bytes(b"half")
    np.testing.assert_array_equal(llc(run(folder, **SHORT)), llc(first))


def test_until_says_what_ended_the_run():
    common = {"num_samples": None, "num_warmup": 500}
    reached = run(until=0.05, **common)
    row = nllc.summary(reached).loc["llc"]
    assert reached.attrs["ended_by"] == "relative_error"
    assert row["mcse_mean"] <= 0.05 * row["mean"]
    assert row["r_hat"] <= 1.01
    assert row["mcse_mean"] > 0.01 * row["mean"]  # it ends soon after
    common = {**common, "num_warmup": 100}
    exact = run(kernel=FITTED, batch_size=None, until={"relative_error": 0.02}, **common)
    row = nllc.summary(exact).loc["llc"]
    assert 0.008 * row["mean"] < row["mcse_mean"] <= 0.02 * row["mean"]


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
        (0.0, "`until` must be finite and positive; got 0"),
        ({"error": 0.1}, r"has \['error'\]; it may hold"),
        ({"r_hat": 0.9}, "above 1"),
        ({"steps": 0}, "number of steps"),
    ],
)
def test_until_refuses_what_it_cannot_mean(until, match):
    with pytest.raises(ValueError, match=match):
        run(num_samples=None, until=until)
    with pytest.raises(ValueError, match="both say when sampling ends"):
        run(num_samples=10, until=0.1)


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_a_run_that_its_seconds_ended_is_read_again_as_it_was(tmp_path, monkeypatch):
    by_steps = property(lambda run: 0.01 * run.steps)
    monkeypatch.setattr("numpyro_llc.sampling.Run.working", by_steps)
    own = {"kernel": METROPOLIS, "batch_size": None, "num_warmup": 100, "num_samples": None}
    own["until"] = {"relative_error": 1e-4, "seconds": 8.0}
    first = run(tmp_path / "a", **own)
    again = run(tmp_path / "a", **own)
    assert first.attrs["ended_by"] == again.attrs["ended_by"] == "seconds"
    assert llc(first).shape[1] > 250  # more than the first look at the error takes
    np.testing.assert_array_equal(llc(again), llc(first))


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_ctrl_c_while_a_chunk_is_computed_is_heard_after_it(tmp_path, monkeypatch):
    own = {"kernel": METROPOLIS, "batch_size": None, "num_warmup": 100}
    whole, advance, calls = run(**own), sampling._run.advance, []

    def pressed(*args):
        calls.append(args)
        result = advance(*args)
        if len(calls) == 12:
            signal.raise_signal(signal.SIGINT)
        return result

    with monkeypatch.context() as patched:
        in_chunks_of(50, patched)
        patched.setattr(sampling._run, "advance", pressed)
        part = run(tmp_path / "a", **own)
    assert part.attrs["ended_by"] == "interrupt"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    np.testing.assert_array_equal(llc(part), llc(whole)[:, : llc(part).shape[1]])
    np.testing.assert_array_equal(llc(run(tmp_path / "a", **own)), llc(whole))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"dense_mass": [("a", "b")]}, {"dense_mass": [("a",), ("b",)]}),
        ({"max_tree_depth": (2, 3)}, {"max_tree_depth": (9, 10)}),
        ({"inverse_mass_matrix": jnp.ones(5)}, {"inverse_mass_matrix": 9 * jnp.ones(5)}),
    ],
    ids=["blocks", "depths", "metric"],
)
def test_settings_of_a_kernel_tell_runs_apart(one, other):
    local = nllc.localize(regression.model, center={"w": regression.OLS})
    schedule = check_schedule(10, 10, 2, 1, "vectorized", False)

    def identity(settings):
        kernel = kernel_of(NUTS(regression.model, **settings))
        plan = make_plan(local, (regression.X, regression.Y), None, kernel, schedule)
        return plan.run_identity(jax.random.key(0))

    assert identity(one) == identity(one)
    assert identity(one) != identity(other)
