"""``lowest_point``: a point lower than the centre, kept in a result as a centre to go on from."""

import json
from collections.abc import Mapping

import jax
import numpy as np
import xarray as xr

from numpyro_llc.inference_data import InferenceData, group_of, labelled, variable_names
from numpyro_llc.models import PyTree, named_leaves, on_host
from numpyro_llc.results._labels import Labels

LOWEST_POINT = "lowest_point"
"""The group of a result that holds it."""


def lowest_point(idata: InferenceData) -> dict[str, PyTree]:
    """The lowest point that any chain drew: a better centre where the loss falls below it.

    Parameters
    ----------
    idata
        A result, or its file read back.

    Returns
    -------
    dict
        ``{site: constrained value}``, as ``estimate_llc(center=...)`` takes it, or
        ``find_center(init=...)``, which goes on downhill from it. A
        network's parameters are nested dicts and lists.

    Raises
    ------
    ValueError
        If no draw was lower than the centre by more than rounding (0.05 in ``llc``).
    """
    data = group_of(idata, LOWEST_POINT)
    if data is None:
        raise ValueError(
            "No draw of this result lies below the loss at the centre: the centre is the lowest "
            "point that is known."
        )
    point: dict[str | int, PyTree] = {}
    for name, (site, *keys) in json.loads(data.attrs["paths"]).items():
        _put(point, [site, *keys], data[name].to_numpy())
    return {str(site): _with_lists(value) for site, value in point.items()}


def point_dataset(sites: Mapping[str, PyTree], llc: float, labels: Labels) -> xr.Dataset:
    """Constrained values of one point, how low it is, and how pytrees are put together again."""
    names = iter(variable_names(named_leaves(sites)).values())
    paths = {
        next(names): [site, *map(_key, path)]
        for site, value in sites.items()
        for path, _ in jax.tree_util.tree_leaves_with_path(value)
    }
    attrs = {"llc": llc, "paths": json.dumps(paths)}
    values = {name: on_host(leaf) for name, leaf in named_leaves(sites).items()}
    return labelled(values, axes=labels.sites, coords=labels.coords, attrs=attrs)


def _key(part: object) -> str | int:
    for field in ("key", "idx", "name"):
        if hasattr(part, field):
            found: str | int = getattr(part, field)
            return found
    return str(part)


def _put(tree: dict[str | int, PyTree], keys: list[str | int], value: np.ndarray) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    tree[keys[-1]] = value


def _with_lists(tree: PyTree) -> PyTree:
    """Dicts with the keys 0, 1, ... as lists."""
    if not isinstance(tree, dict):
        return tree
    parts = {key: _with_lists(value) for key, value in tree.items()}
    if all(isinstance(key, int) for key in parts):
        return [parts[key] for key in sorted(parts)]
    return parts
