"""Problems by name."""

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from typing import NamedTuple

import pandas as pd

from numpyro_llc._checks import check_num_data
from numpyro_llc.known.zoo._problem import Problem
from numpyro_llc.sampling import fingerprint

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
        cell is run twice: one of the same module and name, or, where that does not tell, as of a
        lambda, of the same code.)
    TypeError
        If `build` is no function, or one that has no name and `name` is left out.
    """
    if not callable(build):
        raise TypeError(f"`build` must be a function of `num_data`; got {build!r}.")
    name = getattr(build, "__name__", None) if name is None else name
    if not isinstance(name, str) or not name:
        raise TypeError(
            f"`name` must be a text for {build!r}; got {name!r}. Give register(name=…)."
        )
    if description is None:
        description = next(iter((build.__doc__ or "").strip().splitlines()), "")
    if not isinstance(description, str):
        raise TypeError(f"`description` must be a text; got {description!r}.")
    if name in _ENTRIES and _origin(_ENTRIES[name].build) != _origin(build):
        raise ValueError(f"`name` {name!r} is taken in the zoo; choose another.")
    _ENTRIES[name] = _Entry(build, description)
    return build


def _origin(build: Builder) -> object:
    place = getattr(build, "__module__", None), getattr(build, "__qualname__", "<")
    return fingerprint(build) if "<" in place[1] else place  # of a lambda, a partial, an inner one


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
        n, at least 2. A run of a problem built in costs the same at every n, which enters by
        weights; an expectation by quadrature takes longer at n of a million and more.

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


def table() -> pd.DataFrame:
    """All problems, a row each, those of few parameters first.

    Returns
    -------
    pandas.DataFrame
        Index ``name``; columns ``parameters`` (d), ``learning_coefficient`` (λ, a fraction as
        text), ``multiplicity`` (m), ``exact`` (True where the finite-n expectation is known) and
        ``description``. Of a problem that fails the numbers are NA, and the error is its
        ``description``.
    """
    table = pd.DataFrame.from_dict({name: _row(name) for name in names()}, orient="index")
    table = table.astype({"parameters": "Int64", "multiplicity": "Int64"}).rename_axis("name")
    return table.sort_values("parameters", kind="stable")


def _row(name: str) -> dict[str, object]:
    try:
        return _row_of(load(name))
    except Exception as error:
        nothing = dict.fromkeys(("parameters", "learning_coefficient", "multiplicity"))
        return {**nothing, "exact": False, "description": f"{type(error).__name__}: {error}"}


def _row_of(problem: Problem) -> dict[str, object]:
    known = problem.learning_coefficient
    return {
        "parameters": problem.num_parameters,
        "learning_coefficient": None if known is None else str(known.value),
        "multiplicity": None if known is None else known.multiplicity,
        "exact": problem.has_expectation,
        "description": problem.description,
    }
