"""A pytest plugin: ``pytest --compilations`` says where compilation time goes, by file and test."""

import collections

import jax
import pytest

EVENT = "/jax/core/compile/backend_compile_duration"
"""JAX reports it for each program, one that comes from the persistent cache included."""
MOST_ROWS = 15
_seen = {"programs": 0, "seconds": 0.0}
_before = {}
_by_test = {}


def _count(event, seconds, **_):
    if event == EVENT:
        _seen["programs"] += 1
        _seen["seconds"] += seconds


jax.monitoring.register_event_duration_secs_listener(_count)


def pytest_addoption(parser):
    parser.addoption(
        "--compilations", action="store_true", help="say which tests compile most programs"
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item):
    _before[item.nodeid] = dict(_seen)
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item):
    try:
        return (yield)
    finally:
        before = _before.pop(item.nodeid, _seen)
        own = [_seen[name] - before[name] for name in ("programs", "seconds")]
        item.user_properties.append(("compiled", own))  # which xdist takes to the controller


def pytest_runtest_logreport(report):
    if report.when == "teardown":
        _by_test[report.nodeid] = dict(report.user_properties).get("compiled", [0, 0.0])


def pytest_terminal_summary(terminalreporter, config):
    if not config.getoption("--compilations"):
        return
    by_file = collections.defaultdict(lambda: [0, 0.0])
    for name, own in _by_test.items():
        for k in (0, 1):
            by_file[name.split("::")[0]][k] += own[k]
    for title, table in (("file", by_file), ("test", _by_test)):
        terminalreporter.section(f"compiled programs by {title}")
        rows = sorted(table.items(), key=lambda row: -row[1][1])
        for name, (programs, seconds) in rows if title == "file" else rows[:MOST_ROWS]:
            terminalreporter.write_line(f"{programs:6d} programs {seconds:8.1f} s  {name}")
