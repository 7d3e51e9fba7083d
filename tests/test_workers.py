"""``executor=``: the same tables by workers, rows that fail, and what workers are told."""

import json
import multiprocessing
import os
import pickle
import signal
import threading
import time
import warnings
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import regression
import xarray as xr
from metropolis import METROPOLIS

import numpyro_llc as nllc
from numpyro_llc.errors import ExecutorError
from numpyro_llc.known import _calibration_runs
from numpyro_llc.sampling import _workers, outcomes

# Runs of a few hundred draws, at points that are no minimum: both are said.
pytestmark = pytest.mark.filterwarnings(
    "ignore:R-hat|The bulk|The centre|`center`:numpyro_llc.LLCWarning"
)
KEY, DATA = jax.random.key(0), (regression.X, regression.Y)
SHORT = {"num_warmup": 100, "num_samples": 200, "kernel": METROPOLIS, "progress_bar": False}
LOCAL = nllc.localize(regression.model, center={"w": regression.OLS})
CENTERS = [{"w": regression.OLS + shift} for shift in (0.0, 0.05, 0.1)]


def sweep(executor=None, local=LOCAL, **settings):
    gammas = {"localization": [0.5, 1.0, 2.0]}
    return nllc.sweep(KEY, local, DATA, executor=executor, **gammas, **SHORT, **settings)


def trajectory(executor=None, local=None, **settings):
    local = nllc.localize(regression.model, center=None) if local is None else local
    own = {"executor": executor, **settings}
    return nllc.llc_trajectory(KEY, local, CENTERS, DATA, **SHORT, **own)


def refined(executor=None, local=LOCAL, **settings):
    halves = [np.arange(5) < 3, np.arange(5) >= 3]
    sites = {"all": None, **{str(k): {"w": half} for k, half in enumerate(halves)}}
    own = {"executor": executor, "sites": sites, **SHORT, **settings}
    return nllc.refined_llc(KEY, local, DATA, **own)


TABLES = {"sweep": sweep, "trajectory": trajectory, "refined": refined}
SERIAL = {"sweep": {}, "trajectory": {"warm_start": False}, "refined": {}}
"""What a call without an executor says for the same rows."""


@pytest.fixture(scope="module")
def serial():
    return {door: table(**SERIAL[door]) for door, table in TABLES.items()}


class InPickles(Executor):
    """Computes each call when it comes, from its pickle.

    Parameters
    ----------
    fails : dict
        By the number of a call, the exception that it raises instead.
    holds : int, optional
        The number of a call that is made after the next but one.
    """

    def __init__(self, fails=None, holds=None):
        self.fails, self.holds = fails or {}, holds
        self.futures = []
        self.held = None

    def submit(self, function, /, *args):
        number, future = len(self.futures), Future()
        self.futures.append(future)
        call = pickle.dumps((function, args))
        if number == self.holds:
            self.held = future, call
            return future
        if isinstance(self.fails.get(number), KeyboardInterrupt):
            raise self.fails[number]
        if number in self.fails:
            future.set_exception(self.fails[number])
        else:
            self.make(future, call)
        if self.held is not None and number == self.holds + 2:
            self.make(*self.held)
        return future

    @staticmethod
    def make(future, call):
        function, args = pickle.loads(call)
        future.set_result(pickle.loads(pickle.dumps(function(*args))))


def assert_same(found, wanted):
    """But for the seconds that they took, and when they were written."""
    found, wanted = (one.drop_vars("seconds", errors="ignore") for one in (found, wanted))
    xr.testing.assert_equal(found, wanted)


KILLED = RuntimeError("the worker was killed")


@pytest.mark.parametrize("door", TABLES)
def test_a_table_by_workers_is_the_same_to_the_last_bit(door, serial, tmp_path):
    """The row that fails once is tried again; the one that fails twice is marked, and comes later.

    Rows come out of order: the first is held until the third.
    """
    pool = InPickles(holds=0)
    found = TABLES[door](pool, output=tmp_path / "whole")
    assert_same(found, serial[door])
    assert len(pool.futures) == 3
    pool = InPickles({0: KILLED, 2: KILLED, 3: KILLED})
    with pytest.raises(nllc.LLCWarning, match="1 of 3 tasks failed 2 .*`executor`.*killed") as told:
        TABLES[door](pool, output=tmp_path / "part")
    part = told.value.result  # which a warning that is an error holds, as those of tests are
    assert len(pool.futures) == 5
    status = part["status"].to_numpy().reshape(-1).tolist()
    assert status.count("failed") == 1
    (k,) = [k for k, one in enumerate(status) if one == "failed"]
    assert k > 0
    assert "RuntimeError: the worker was killed" in str(part["findings"].to_numpy()[k])
    assert np.isnan(part["llc"].to_numpy()[k]).all()
    whole = [one for one in range(3) if one != k]
    along = next(iter(part.sizes))
    np.testing.assert_array_equal(
        part["llc"].isel({along: whole}), serial[door]["llc"].isel({along: whole})
    )
    pool = InPickles()
    assert_same(TABLES[door](pool, output=tmp_path / "part"), serial[door])
    assert len(pool.futures) == (3 if door == "refined" else 1)  # whose runs are in its folders


def affine(params, x):
    return x @ params["w"] + params["b"]


def test_a_network_whose_parameters_are_a_dict_goes_to_workers():
    params = {"w": jnp.asarray(regression.OLS), "b": jnp.zeros(())}
    local = nllc.localize(nllc.network_model(affine, params), center={"params": params})
    assert_same(sweep(InPickles(), local), sweep(local=local))
    lost = dict.fromkeys(range(6), KILLED)
    with pytest.warns(nllc.LLCWarning, match="3 of 3 tasks failed"):
        grid = sweep(InPickles(lost), local)
    assert "3 of 3 cells failed: see `findings`" in grid.attrs["recommendation"]
    assert "grid" not in grid.attrs["recommendation"]


@pytest.mark.parametrize("door", ["sweep", "trajectory"])
def test_ctrl_c_cancels_what_is_pending_and_keeps_the_rows(door, serial, tmp_path):
    pool = InPickles({2: KeyboardInterrupt()}, holds=0)
    with pytest.warns(nllc.LLCWarning, match="was interrupted"):
        part = TABLES[door](pool, output=tmp_path)
    assert pool.futures[0].cancelled()
    assert np.isfinite(part["llc"]).sum() == 1
    pool = InPickles()
    assert_same(TABLES[door](pool, output=tmp_path), serial[door])
    assert len(pool.futures) == 2
    if door == "trajectory":  # one without an executor goes on from it too
        assert_same(trajectory(output=tmp_path, warm_start=False), serial[door])


def test_rows_behind_one_that_is_missing_stay_on_disk(serial, tmp_path):
    """Of a table with a gap, which only workers leave, a call without workers loses no row."""
    trajectory(InPickles(), output=tmp_path)
    file = tmp_path / "trajectory.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:1] + lines[2:]))
    assert_same(trajectory(output=tmp_path, warm_start=False), serial["trajectory"])
    assert [json.loads(line)["number"] for line in file.read_text().splitlines()] == [0, 1, 2]


@pytest.mark.parametrize("door", TABLES)
def test_a_pool_that_broke_ends_the_call_with_the_rows_so_far(door, serial, tmp_path):
    pool = InPickles({2: BrokenProcessPool("a child was terminated")})
    with pytest.raises(ExecutorError, match=r"no more tasks \(BrokenProcessPool.*new exec") as info:
        TABLES[door](pool, output=tmp_path)
    llc = info.value.table["llc"].to_numpy()
    np.testing.assert_array_equal(llc[:2], serial[door]["llc"].to_numpy()[:2])
    assert_same(TABLES[door](InPickles(), output=tmp_path), serial[door])


def test_a_pool_that_is_shut_down_is_said():
    with ProcessPoolExecutor(1) as pool:
        pass
    with pytest.raises(ExecutorError, match="cannot schedule new futures after shutdown"):
        trajectory(pool)


def calibrated(executor=None, **settings):
    """Of a problem whose value is known, by its name, and one that the reference stands for."""
    lengths = {"num_warmup": 100, "num_samples": 100, "progress_bar": False}
    problem = nllc.zoo.Problem(regression.model, DATA, {"w": regression.OLS}, 500, name="own")
    own = {"kernels": ["mala", "nuts", "hmc"], "executor": executor, **lengths, **settings}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)
        return nllc.calibrate(KEY, ["gaussian", problem], **own)


def assert_equal_rows(found, wanted):
    found, wanted = (table.drop(columns="seconds") for table in (found, wanted))
    pd.testing.assert_frame_equal(found, wanted, check_exact=True)


def rows_of(rng_key, model, *args, kernel, **settings):
    """By Metropolis, whatever kernel is asked for."""
    chosen = {**settings, "kernel": METROPOLIS}
    return nllc.estimate_llc(rng_key, model, *args, **chosen)


def test_a_calibration_by_workers_is_the_same_and_late_references_count(monkeypatch, tmp_path):
    monkeypatch.setattr(_calibration_runs, "estimate_llc", rows_of)
    monkeypatch.setattr(_calibration_runs, "forget_compiled", lambda: None)
    wanted = calibrated()
    assert np.isfinite(wanted.loc[("own", "mala"), "z"])
    pool = InPickles(holds=3)  # the reference, of which the row before the last is compared
    found = calibrated(pool, output=tmp_path)
    assert len(pool.futures) == 6
    assert_equal_rows(found, wanted)
    assert list(found.index) == list(wanted.index)
    failing = InPickles({0: KILLED, 1: KILLED})
    part = calibrated(failing, output=tmp_path / "part")
    assert "the worker was killed" in part.loc[("gaussian", "mala"), "failure"]
    pool = InPickles()
    again = calibrated(pool, output=tmp_path / "part")
    assert_equal_rows(again, wanted)
    assert len(pool.futures) == 1


def test_work_and_settings_of_jax_go_to_the_worker_and_do_not_stay():
    config = {**{name: getattr(jax.config, name) for name in _workers.CONFIG}}
    assert not config["jax_enable_x64"]
    config |= {"jax_enable_x64": True, "jax_default_matmul_precision": "highest"}
    config["jax_default_prng_impl"] = "rbg"
    call = pickle.dumps(seen), config, pickle.dumps(3), 1
    result, failure, heard = _workers.perform("seen", *call)
    assert failure == ""
    assert result == ("float64", "highest", "rbg", 3)
    assert heard == [("heard", nllc.LLCWarning)]
    assert jnp.zeros(()).dtype == jnp.float32
    assert jax.config.jax_default_prng_impl == "threefry2x32"


def seen(task):
    warnings.simplefilter("always")
    warnings.warn(nllc.LLCWarning("heard"), stacklevel=1)
    key = jax.random.key(0)
    precision = jax.config.jax_default_matmul_precision
    return str(jnp.zeros(()).dtype), precision, str(jax.random.key_impl(key)), task


def test_warnings_come_back_once_and_errors_are_texts():
    tasks = iter([(0, "a"), (1, "raise"), (2, "b")])
    with pytest.warns(nllc.LLCWarning) as said:
        found = dict(outcomes(InPickles(), loud, tasks))
    assert found[0] == "a"
    assert found[2] == "b"
    assert found[1].reason == "It failed 2 times on `executor`: KeyError: 'no such row'"
    assert [str(one.message)[:20] for one in said] == ["of a worker", "1 of 3 tasks failed "]


def loud(task):
    if task == "raise":
        raise KeyError("no such row")
    warnings.simplefilter("always")
    warnings.warn(nllc.LLCWarning("of a worker"), stacklevel=1)
    return task


def test_an_error_of_the_tasks_comes_after_those_before_it(monkeypatch):
    def tasks():
        yield 0, "a"
        yield 1, "b"
        raise OSError("no such checkpoint")

    pool, found = InPickles(holds=0), []
    monkeypatch.setattr(time, "sleep", lambda _: pool.make(*pool.held))
    with pytest.raises(OSError, match="no such checkpoint"):
        found.extend(outcomes(pool, str.upper, tasks()))
    assert found == [(1, "B"), (0, "A")]


DOORS = {**TABLES, "calibrate": calibrated}
ONE = InPickles()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("bad", [4, "processes", ProcessPoolExecutor])
def test_what_is_no_executor_is_refused_by_name(door, bad):
    with pytest.raises(TypeError, match=r"`executor` must be a concurrent.futures.Executor"):
        DOORS[door](bad)


@pytest.mark.parametrize("door", TABLES)
def test_what_does_not_go_with_an_executor_is_refused_by_name(door):
    mesh = jax.make_mesh((1,), ("chain",))
    with pytest.raises(ValueError, match="`mesh` is of the devices of this process"):
        TABLES[door](ONE, mesh=mesh)
    if door == "trajectory":
        with pytest.raises(ValueError, match="`warm_start` carries chains"):
            trajectory(ONE, warm_start=True)
    assert ONE.futures == []


@pytest.mark.parametrize("door", TABLES)
def test_a_model_that_cannot_be_sent_is_said(door):
    lock = threading.Lock()

    def model(x, y):
        with lock:
            regression.model(x, y)

    center = None if door == "trajectory" else {"w": regression.OLS}
    local = nllc.localize(model, center=center)
    with pytest.raises(TypeError, match=r"pickled; got TypeError: .*lock.*Define models at the"):
        TABLES[door](ONE, local)


MANY = [{"w": regression.OLS + 0.01 * k} for k in range(20)]


def closure(slope):
    """A model that no plain pickle can hold."""

    def model(x, y):
        regression.model(slope * x, y)

    return nllc.localize(model, center=None)


def trajectory_of_many(executor=None, **settings):
    own = {"warm_start": False, "num_warmup": 100, "num_samples": 2000, **settings}
    own |= {"kernel": METROPOLIS, "progress_bar": False, "executor": executor}
    return nllc.llc_trajectory(KEY, closure(1.0), MANY, DATA, **own)


@pytest.fixture(scope="module")
def many():
    return trajectory_of_many()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_processes_give_the_same_rows_and_a_pool_that_was_killed_is_replaced(many, tmp_path):
    pytest.importorskip("cloudpickle")
    spawn = multiprocessing.get_context("spawn")
    killed = []

    def kill(pool):
        while not (tmp_path / "trajectory.jsonl").exists():
            time.sleep(0.1)
        killed.append(next(iter(pool._processes)))
        os.kill(killed[0], signal.SIGKILL)

    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        threading.Thread(target=kill, args=(pool,)).start()
        with pytest.raises(ExecutorError, match="BrokenProcessPool") as info:
            trajectory_of_many(pool, output=tmp_path)
    assert killed
    assert 1 <= info.value.table.sizes["checkpoint"] < 20
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        assert_same(trajectory_of_many(pool, output=tmp_path), many)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Dask about what it finds on this machine
def test_workers_of_dask_give_the_same_rows_though_one_is_killed(many, tmp_path):
    distributed = pytest.importorskip("distributed")
    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    killed = []

    def kill(client):
        while not (tmp_path / "trajectory.jsonl").exists():
            time.sleep(0.1)
        killed.extend(client.run(os.getpid).values())
        os.kill(killed[0], signal.SIGKILL)

    with distributed.LocalCluster(**settings) as cluster, distributed.Client(cluster) as client:
        threading.Thread(target=kill, args=(client,)).start()
        found = trajectory_of_many(client.get_executor(), output=tmp_path)
        assert killed[0] not in client.run(os.getpid).values()
    assert (found["status"] != "failed").all()
    assert_same(found, many)
