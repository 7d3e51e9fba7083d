"""Problems by name."""

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from typing import NamedTuple

import pandas as pd

from numpyro_llc._checks import check_num_data
from numpyro_llc.zoo._problem import Problem

Builder = Callable[[int], Problem]


class _Entry(NamedTuple):
    build: Builder
    description: str


_ENTRIES: dict[str, _Entry] = {}


def register(build: Builder, *, name: str | None = None, description: str | None = None) -> Builder:
    """Add a problem to the zoo: a decorator of a function from `num_data` to a :class:`Problem`.

    Parameters
    ----------
    build : callable
        ``build(num_data)`` returns the problem of so many data.
    name : str, optional
        The name of the function if left out.
    description : str, optional
        The first line of its docstring if left out.

    Returns
    -------
    callable
        `build`.

    Raises
    ------
    ValueError
        If the name is taken by another function. (The same one may come again, as when a notebook
        cell is run twice.)
    """
    name = name or build.__name__
    if description is None:
        description = next(iter((build.__doc__ or "").strip().splitlines()), "")
    if name in _ENTRIES and _origin(_ENTRIES[name].build) != _origin(build):
        raise ValueError(f"`name` {name!r} is taken in the zoo; choose another.")
    _ENTRIES[name] = _Entry(build, description)
    return build


def _origin(build: Builder) -> object:
    place = getattr(build, "__module__", None), getattr(build, "__qualname__", None)
    return place if None not in place else build


def names() -> tuple[str, ...]:
    """Names of all problems, in the order of their registration."""
    return tuple(_ENTRIES)


def load(name: str, num_data: int = 1000) -> Problem:
    """Return the problem `name` with so many data points.

    Parameters
    ----------
    name : str
        One of :func:`names`.
    num_data : int
        n, at least 2. Of the problems built in it costs nothing: n enters by weights.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    num_data = check_num_data(num_data)
    if not isinstance(name, str) or name not in _ENTRIES:
        close = get_close_matches(str(name), names(), n=5, cutoff=0.5)
        hint = f"Did you mean {', '.join(map(repr, close))}?" if close else "See zoo.names()."
        raise ValueError(f"`name` {name!r} is not in the zoo. {hint}")
    build, description = _ENTRIES[name]
    problem = build(num_data)
    if not isinstance(problem, Problem):
        raise TypeError(
            f"The function registered as {name!r} must return a zoo.Problem; "
            f"got {type(problem).__name__}."
        )
    if problem.num_data != num_data:
        raise ValueError(
            f"The function registered as {name!r} returned a problem of {problem.num_data} data "
            f"points for `num_data` {num_data}. Pass `num_data` on to zoo.Problem."
        )
    return replace(problem, name=name, description=problem.description or description)


def list() -> pd.DataFrame:
    """All problems, a row each, those of few parameters first.

    Returns
    -------
    pandas.DataFrame
        Index ``name``; columns ``parameters`` (d), ``learning_coefficient`` (λ, a fraction as
        text), ``multiplicity`` (m), ``exact`` (True where the finite-n expectation is known) and
        ``description``.
    """
    table = pd.DataFrame.from_dict({name: _row(load(name)) for name in names()}, orient="index")
    table = table.astype({"multiplicity": "Int64"}).rename_axis("name")
    return table.sort_values("parameters", kind="stable")


def _row(problem: Problem) -> dict[str, object]:
    known = problem.learning_coefficient
    return {
        "parameters": problem.num_parameters,
        "learning_coefficient": None if known is None else str(known.value),
        "multiplicity": None if known is None else known.multiplicity,
        "exact": problem.has_expectation,
        "description": problem.description,
    }
