"""One run of several processes: the draws of one, its files, Ctrl-C, and a process that dies."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import jax
import numpy as np
import pytest
import regression

import numpyro_llc as nllc
from numpyro_llc.sampling._processes import Processes

HERE = Path(__file__).parent


class Devices(NamedTuple):
    """Of a mesh: what is looked at before anything runs."""

    devices: np.ndarray


def mesh_of(*processes):
    return Devices(np.array([SimpleNamespace(process_index=k) for k in processes]))


@pytest.mark.parametrize(("processes", "count", "several"), [((0, 0), 3, False), ((0, 1), 2, True)])
def test_a_mesh_is_of_one_process_or_of_all(processes, count, several, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: count)
    assert Processes(mesh_of(*processes)).are_several == several


@pytest.mark.parametrize("processes", [(0, 1), (1, 1)])
def test_a_mesh_of_some_processes_or_of_another_is_refused(processes, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    with pytest.raises(ValueError, match=r"`mesh` has devices of the processes .* this is process"):
        Processes(mesh_of(*processes))


def test_gamma_is_chosen_by_one_process(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="'auto'` chooses γ in one process, and there are 2"):
        nllc.estimate_llc(
            jax.random.key(0),
            regression.model,
            (regression.X, regression.Y),
            center={"w": regression.OLS},
            localization="auto",
        )


def started(case, folder, count, *more):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(HERE / "on_processes.py")]
    return [
        subprocess.Popen(
            [*command, *map(str, (k, count, port, case, folder, *more))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k in range(count)
    ]


def given(case, folder, count):
    """What each process prints."""
    ended = [(process, *process.communicate()) for process in started(case, folder, count)]
    for process, _, errors in ended:
        assert process.returncode == 0, errors
    return [json.loads(printed.splitlines()[-1]) for _, printed, _ in ended]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return given("draws", tmp_path_factory.mktemp("alone"), 1)[0]


def same(one, other):
    np.testing.assert_allclose(one["llc"], other["llc"], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_all_processes_have_the_draws_of_one(count, alone, tmp_path):
    found = given("draws", tmp_path, count)
    for one in found:
        same(one, alone)
        assert one["row"] == found[0]["row"]
    [again] = given("draws", tmp_path, 1)  # of the folder
    np.testing.assert_array_equal(again["llc"], found[0]["llc"])


@pytest.mark.slow
@pytest.mark.parametrize(("who", "moment"), [(1, 1), (1, 2), (0, 2), (1, 4), (0, 3)])
def test_a_process_that_dies_ends_the_others_and_the_folder_goes_on(who, moment, alone, tmp_path):
    """Process 0 writes the folder, and is the one that the others report to."""
    both = started("killed", tmp_path, 2, who, moment)
    both[who].communicate()
    assert both[who].returncode == -9
    both[1 - who].communicate(timeout=60)
    assert both[1 - who].returncode != 0
    for count in (2, 1):
        same(given("draws", tmp_path, count)[0], alone)


@pytest.mark.slow
def test_nuts_samples_chains_of_several_processes(tmp_path):
    one, other = given("nuts", tmp_path, 2)
    assert one == other
    exact = regression.exact(regression.OLS, 1.0)
    assert abs(one["row"]["mean"] - exact) < 4 * one["row"]["mcse_mean"]


@pytest.mark.slow
def test_ctrl_c_in_one_process_ends_all(tmp_path):
    found = given("interrupted", tmp_path, 2)
    assert [one["ended_by"] for one in found] == ["interrupt"] * 2
    assert found[0]["llc"] == found[1]["llc"]


@pytest.mark.slow
def test_a_limit_of_seconds_ends_all_processes_alike(tmp_path):
    one, other = given("until", tmp_path, 2)
    assert one == other


@pytest.mark.slow
def test_processes_need_not_divide_the_rows(tmp_path):
    [alone] = given("uneven rows", tmp_path, 1)
    for one in given("uneven rows", tmp_path, 2):
        same(one, alone)


@pytest.mark.slow
def test_tables_are_those_of_one_process_and_go_on_in_any_number(tmp_path):
    [alone] = given("tables", tmp_path / "alone", 1)
    one, other = given("tables", tmp_path / "both", 2)
    assert one == other
    for name, llc in alone.items():
        np.testing.assert_allclose(one[name], llc, rtol=1e-3, atol=1e-3, err_msg=name)
    assert given("tables", tmp_path / "both", 1) == [one]
    assert given("tables", tmp_path / "alone", 2) == [alone] * 2


@pytest.mark.slow
def test_parameters_may_lie_with_several_processes(tmp_path):
    one, other = given("parameters", tmp_path, 2)
    assert one == other
    assert np.isfinite(one["llc"]).all()
