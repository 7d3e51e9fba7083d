"""The rooms of the house: who may import whom."""

import ast
from pathlib import Path

import pytest

import numpyro_llc

PACKAGE = Path(numpyro_llc.__file__).parent
FLOORS = [
    {"errors", "_checks"},
    {"exact", "_identity"},
    {"models", "schedule", "zoo"},
    {"parts"},
    {"handlers", "target"},
    {"gradients"},
    {"curvature", "evaluation"},
    {"center", "kernels", "tuning"},
    {"sampling"},
    {"estimators"},
    {"diagnostics"},
    {"inference_data"},
    {"budget", "diagnosis", "points"},
    {"comparison", "summaries"},
    {"automatic", "problem", "record"},
    {"assemble"},
    {"rows"},
    {"conversion", "estimate", "ladder", "pointwise", "sweep", "trajectory", "volume"},
    {"phases", "refined"},
    {"plots"},
    {"calibration", "demo"},
    {"cli"},
    {"__init__", "__main__"},
]
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path):
    """Every module imported anywhere in a file, in full."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_every_room_has_a_floor():
    assert {room_of(path) for path in SOURCES} == set(FLOOR)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    room = room_of(path)
    for module in imports_of(path):
        parts = module.split(".")
        if parts[0] == "numpyro_llc" and len(parts) > 1 and parts[1] != room:
            assert FLOOR[parts[1]] < FLOOR[room], f"{room} imports {parts[1]}"


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("arviz", {"inference_data"}),
        ("optax", {"center"}),
        ("matplotlib", {"plots"}),
        ("scipy", {"exact", "estimators", "ladder", "phases", "plots", "pointwise", "volume"}),
        ("tqdm", {"sampling", "calibration", "sweep", "trajectory"}),
        (
            "pandas",
            {
                "budget",
                "calibration",
                "comparison",
                "diagnosis",
                "inference_data",
                "demo",
                "ladder",
                "pointwise",
                "record",
                "summaries",
                "zoo",
            },
        ),
    ],
)
def test_third_party_libraries_have_their_place(library, rooms):
    users = {
        room_of(path)
        for path in SOURCES
        if any(module.split(".")[0] == library for module in imports_of(path))
    }
    assert users == rooms


def test_public_names_are_documented():
    for name in numpyro_llc.__all__:
        assert getattr(numpyro_llc, name).__doc__
