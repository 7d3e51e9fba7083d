"""Whether two runs are the same: of the same data, and with the same settings."""

import functools
import hashlib
import json
import logging
import re
import types
from collections.abc import Mapping

import jax
import numpy as np

from numpyro_llc.models import on_host

_ADDRESS = re.compile(" at 0x[0-9a-f]+")


def fingerprint(*trees: object) -> str:
    """A short hash of pytrees: two of the same values have the same, in every process.

    Of a function it takes bytecode, constants, names, defaults and closure, of an object what it
    holds; of modules, classes and globals that a function reads no more than their names.
    """
    digest = hashlib.sha256()
    _feed(digest, trees, set())
    return digest.hexdigest()[:16]


def _feed(digest: "hashlib._Hash", tree: object, seen: set[int]) -> None:
    try:
        leaves, structure = jax.tree.flatten(tree)
    except ValueError:  # a dict deep in some object, whose keys have no order
        return
    digest.update(_ADDRESS.sub("", str(structure)).encode())
    for leaf in leaves:
        if isinstance(leaf, bytes | int | str):
            digest.update(repr(leaf).encode())
        elif isinstance(leaf, _VALUES) and not _has_objects(leaf):
            value = on_host(leaf)
            digest.update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
        else:
            digest.update(getattr(leaf, "__qualname__", type(leaf).__qualname__).encode())
            if id(leaf) not in seen:
                seen.add(id(leaf))
                _feed(digest, _parts(leaf), seen)


def _has_objects(leaf: object) -> bool:
    return isinstance(leaf, np.ndarray) and leaf.dtype.hasobject


_VALUES = (jax.Array, np.ndarray, np.generic, float, complex)


def _parts(thing: object) -> object:
    """What a thing is made of, without addresses, which differ from run to run."""
    match thing:
        case types.ModuleType() | type():
            return thing.__name__
        case logging.Logger():  # it holds all others
            return thing.name
        case types.CodeType():
            return thing.co_code, thing.co_consts, thing.co_names
        case types.FunctionType():
            cells = [_content(cell) for cell in thing.__closure__ or ()]
            return thing.__code__, thing.__defaults__, thing.__kwdefaults__, cells
        case types.MethodType():
            return thing.__func__, thing.__self__
        case functools.partial():
            return thing.func, thing.args, thing.keywords
        case set() | frozenset():
            return sorted(repr(x) for x in thing if isinstance(x, bytes | int | str))
        case np.ndarray():
            return thing.tolist()
    held = getattr(thing, "__dict__", {})  # in a Flax module, `_id` counts modules of the process
    return getattr(thing, "__wrapped__", None), {k: held[k] for k in held if k != "_id"}


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is not bound yet
        return types.CellType


def plain(settings: Mapping[str, object]) -> dict[str, object]:
    """Settings as JSON gives them back: arrays and NumPy's numbers by value, all else by name."""
    made: dict[str, object] = json.loads(json.dumps(settings, default=_by_value))
    return made


def _by_value(thing: object) -> object:
    return thing.tolist() if isinstance(thing, jax.Array | np.ndarray | np.generic) else str(thing)
