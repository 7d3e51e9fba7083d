"""One run of several processes: the draws of one, its files, Ctrl-C, and a process that dies."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow


def started(case, folder, count):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(HERE / "on_processes.py")]
    return [
        subprocess.Popen(
            [*command, str(k), str(count), str(port), case, str(folder)],
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


@pytest.mark.parametrize("count", [2, 4])
def test_all_processes_have_the_draws_of_one(count, alone, tmp_path):
    found = given("draws", tmp_path, count)
    for one in found:
        same(one, alone)
        assert one["row"] == found[0]["row"]
    [again] = given("draws", tmp_path, 1)  # of the folder
    np.testing.assert_array_equal(again["llc"], found[0]["llc"])


def test_a_process_that_dies_ends_the_others_and_the_folder_goes_on(alone, tmp_path):
    processes = started("killed", tmp_path, 2)
    first = processes[0]
    assert processes[1].wait() == -9
    first.communicate(timeout=60)
    assert first.returncode != 0
    for count in (2, 1):
        same(given("draws", tmp_path, count)[0], alone)


def test_ctrl_c_in_one_process_ends_all(tmp_path):
    found = given("interrupted", tmp_path, 2)
    assert [one["ended_by"] for one in found] == ["interrupt"] * 2
    assert found[0]["llc"] == found[1]["llc"]


def test_a_limit_of_seconds_ends_all_processes_alike(tmp_path):
    one, other = given("until", tmp_path, 2)
    assert one == other


def test_parameters_may_lie_with_several_processes(tmp_path):
    one, other = given("parameters", tmp_path, 2)
    assert one == other
    assert np.isfinite(one["llc"]).all()
