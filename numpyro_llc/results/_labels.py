"""``coords=`` and ``dims=``: what the axes of a result are called, checked before sampling."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from numpyro_llc.models import Arrays, ModelReading, Parameters, named_leaves, shapes_of
from numpyro_llc.results._constants import constants_of

AxisNames = Mapping[str, Mapping[int, str]]
"""By array, what its (negative) axes are called."""
Dims = Mapping[str, Sequence[str | None]]
"""By variable, what its axes are called, from the left."""
Coords = Mapping[str, ArrayLike]
"""By name of an axis, what stands along it."""
_Shapes = Mapping[str, tuple[int, ...]]


class Labels(NamedTuple):
    """What the axes of a result are called, and what stands along them.

    Attributes
    ----------
    sites, losses, constants : dict of str to dict of int to str
        For values of sites, for losses of each datum, and for the model's arguments.
    coords : dict of str to array
    """

    sites: AxisNames
    losses: AxisNames
    constants: AxisNames
    coords: Mapping[str, np.ndarray]


def read_labels(
    reading: ModelReading, coords: Coords | None = None, dims: Dims | None = None
) -> Labels:
    """The names that the model gives, and those of `dims` in the place of a variable's.

    Raises
    ------
    ValueError, TypeError
        If `coords` or `dims` name what the model does not have, or do not fit it.
    """
    losses: AxisNames = {name: axes.names for name, axes in reading.data_axes.items()}
    if coords is None and dims is None:
        return Labels(reading.axis_names, losses, {}, {})
    along = {name: _along(name, values) for name, values in _dict("coords", coords).items()}
    given = {name: _names(name, names) for name, names in _dict("dims", dims).items()}
    sites = _shapes_of_sites(reading)
    constants = {name: value.shape for name, value in constants_of(reading).items()}
    known = {*reading.axis_names, *sites, *constants}
    if unknown := [name for name in given if name not in known]:
        raise ValueError(
            f"`dims` names {unknown}; the model has the sites and arrays {sorted(known)}. Choose "
            "among them."
        )
    found = Labels(
        sites={**reading.axis_names, **_from_the_left(given, sites)},
        losses={**losses, **_losses_from_the_left(reading, given, along)},
        constants=_from_the_left(given, constants),
        coords=along,
    )
    _check_coords(along, [(sites, found.sites), (constants, found.constants)], found)
    return found


def _dict(name: str, given: Mapping | None) -> Mapping:
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(
            f"`{name}` must be a dict, as in arviz.from_numpyro: {_MEANING[name]}; got {given!r}."
        )
    return given or {}


_MEANING = {
    "coords": "{name of a dimension: its coordinates}",
    "dims": "{name of a variable: [names of its dimensions]}",
}


def _along(name: object, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    if not isinstance(name, str) or array.ndim != 1:
        raise ValueError(
            f"`coords` must be {_MEANING['coords']}, a list or array of one axis each; got "
            f"{name!r}: {values!r}."
        )
    return array


def _names(variable: object, names: Sequence[str | None]) -> list[str | None]:
    is_list = isinstance(names, Sequence) and not isinstance(names, str)
    if not is_list or not all(isinstance(name, str | None) for name in names):
        raise TypeError(
            f"`dims` must be {_MEANING['dims']}, with None for an axis without a name; got "
            f"{variable!r}: {names!r}."
        )
    named = [name for name in names if name is not None]
    if len({*named, "chain", "draw"}) < len(named) + 2:
        raise ValueError(
            f"`dims` of {variable!r} must be different names, without 'chain' and 'draw', which "
            f"are the axes of the draws; got {list(names)}."
        )
    return list(names)


def _shapes_of_sites(reading: ModelReading) -> dict[str, tuple[int, ...]]:
    """Shapes of all that a result may hold of sites, by leaf; nothing is computed."""
    names = (*reading.program.parameters, *reading.deterministic)

    def values(z: Parameters, arrays: Arrays) -> Parameters:
        return reading.program.constrain(z, arrays, names)

    found = jax.eval_shape(values, reading.center, shapes_of(reading.arrays))
    return {name: tuple(leaf.shape) for name, leaf in named_leaves(found).items()} | {
        name: np.shape(value) for name, value in reading.observed.items()
    }


def _from_the_left(given: Dims, shapes: _Shapes) -> dict[str, dict[int, str]]:
    found = {}
    for name in given.keys() & shapes.keys():
        names, shape = given[name], shapes[name]
        if len(names) > len(shape):
            raise ValueError(
                f"`dims` of {name!r} must have at most {len(shape)} names, one an axis of its "
                f"shape {shape}; got {list(names)}."
            )
        found[name] = {k - len(shape): label for k, label in enumerate(names) if label is not None}
    return found


def _losses_from_the_left(
    reading: ModelReading, given: Dims, coords: Mapping[str, np.ndarray]
) -> dict[str, dict[int, str]]:
    """Names of the axes of losses, which have none of an event."""
    found = {}
    for name in given.keys() & reading.data_axes.keys():
        shape = reading.data_axes[name].shape
        found[name] = {
            k - len(shape): label
            for k, (label, size) in enumerate(zip(given[name], shape, strict=False))
            if label is not None and len(coords.get(label, range(size))) == size
        }
    return found


def _named_axes(shapes: _Shapes, names: AxisNames) -> Iterator[tuple[str, str, int]]:
    """Variable, name and size of each axis that has a name."""
    for variable, shape in shapes.items():
        for axis, label in names.get(variable, {}).items():
            yield variable, label, shape[axis]


def _check_coords(
    coords: Mapping[str, np.ndarray], named: list[tuple[_Shapes, AxisNames]], labels: Labels
) -> None:
    """That each name is one of an axis, and that as much stands along it as it is long."""
    every = [*labels.sites.values(), *labels.losses.values(), *labels.constants.values()]
    known = {label for axes in every for label in axes.values()}
    if unknown := [label for label in coords if label not in known]:
        raise ValueError(
            f"`coords` names {unknown}; the dimensions, of plates, `event_dims` and `dims`, are "
            f"{sorted(known)}. Choose among them, or name a variable's axis in `dims`."
        )
    for shapes, names in named:
        for variable, label, size in _named_axes(shapes, names):
            if label in coords and len(coords[label]) != size:
                raise ValueError(
                    f"`coords` of {label!r} must have {size} entries, the size of that dimension "
                    f"of {variable!r}; got {len(coords[label])}."
                )
