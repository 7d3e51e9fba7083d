"""The rooms of the house: who may import whom, and how large they are."""

import ast
import functools
import graphlib
import inspect
from pathlib import Path

import pytest

import numpyro_llc

PACKAGE = Path(numpyro_llc.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
ROOMS = [
    "errors",
    "_checks",
    "inference_data",
    "estimators",
    "models",
    "local",
    "kernels",
    "sampling",
    "results",
    "studies",
    "estimate",
    "evidence",
    "pointwise",
    "known",
    "plots",
    "demo",
    "cli",
    "__init__",
    "__main__",
]
"""In the order of docs/explanation/design.md: a room imports from those before it alone."""
MOST_ARROWS, MOST_FLOORS = 92, 12
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 300, 50


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def nodes_of(path):
    """All nodes of a file's syntax tree, which most tests here walk through."""
    return tuple(ast.walk(ast.parse(path.read_text())))


@functools.cache
def imports_of(path):
    """Every module imported anywhere in a file, in full."""
    found = []
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module)
            if node.module == "numpyro_llc":
                found += [f"numpyro_llc.{alias.name}" for alias in node.names]
    return found


def rooms_imported_by(path):
    own = (module.split(".") for module in imports_of(path))
    found = {parts[1] for parts in own if parts[0] == "numpyro_llc" and len(parts) > 1}
    return found - {room_of(path)}


def arrows():
    """By room, the rooms that it imports."""
    found = {room: set() for room in ROOMS}
    for path in SOURCES:
        found[room_of(path)] |= rooms_imported_by(path)
    return found


def test_every_room_is_in_the_order():
    assert {room_of(path) for path in SOURCES} == set(ROOMS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_from_those_before_them(path):
    room = room_of(path)
    for imported in rooms_imported_by(path):
        assert ROOMS.index(imported) < ROOMS.index(room), f"{room} imports {imported}"


def test_rooms_and_arrows_stay_few():
    imported = arrows()
    floors = {}
    for room in graphlib.TopologicalSorter(imported).static_order():
        floors[room] = 1 + max((floors[below] for below in imported[room]), default=0)
    assert sum(map(len, imported.values())) <= MOST_ARROWS
    assert max(floors.values()) <= MOST_FLOORS


def test_rooms_import_rooms_by_their_door():
    for path in SOURCES:
        for module in imports_of(path):
            parts = module.split(".")
            if parts[0] == "numpyro_llc" and len(parts) > 2 and parts[1] != room_of(path):
                assert not parts[2].startswith("_"), f"{path} imports {module}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_short(path):
    source = path.read_text()
    assert source.count("\n") <= MOST_LINES
    for node in nodes_of(path):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = node.end_lineno - body[0].lineno + 1 if body else 0
            assert length <= MOST_LINES_OF_A_FUNCTION, node.name


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("arviz", {"inference_data"}),
        ("cloudpickle", {"sampling"}),
        ("funsor", {"models"}),
        ("optax", {"local"}),
        ("matplotlib", {"plots"}),
        ("scipy", {"known", "estimators", "evidence", "plots", "pointwise"}),
        ("tqdm", {"sampling", "known", "studies", "estimate"}),
    ],
)
def test_third_party_libraries_have_their_place(library, rooms):
    users = {
        room_of(path)
        for path in SOURCES
        if any(module.split(".")[0] == library for module in imports_of(path))
    }
    assert users == rooms


def test_funsor_is_imported_in_one_file_and_only_when_it_is_needed():
    funsor = ("funsor", "numpyro.contrib.funsor")
    users = {path.name for path in SOURCES if any(m.startswith(funsor) for m in imports_of(path))}
    assert users == {"_enumeration.py"}
    (source,) = [path.read_text() for path in SOURCES if path.name == "_enumeration.py"]
    at_once = [node for node in ast.parse(source).body if isinstance(node, ast.Import)]
    from_at_once = [node for node in ast.parse(source).body if isinstance(node, ast.ImportFrom)]
    assert not any("funsor" in ast.unparse(node) for node in (*at_once, *from_at_once))


def test_the_surface_is_small_and_documented():
    public = {name: getattr(numpyro_llc, name) for name in numpyro_llc.__all__}
    assert all(thing.__doc__ for thing in public.values())
    names = [name for name, thing in public.items() if not inspect.ismodule(thing)]
    assert len(names) <= 31
