"""Arrays to datasets: what their axes are called, and what stands along them."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from numpyro_llc.inference_data._arviz import COUNTS_UNNAMED_AXES
from numpyro_llc.inference_data._names import FreeNames, variable_name, variable_names


def labelled(
    arrays: Mapping[str, ArrayLike],
    *,
    lead: Sequence[str] = (),
    axes: Mapping[str, Mapping[int, str]] | None = None,
    coords: Mapping[str, np.ndarray] | None = None,
    attrs: Mapping[str, object] | None = None,
    taken: Iterable[str] = (),
) -> xr.Dataset:
    """Arrays as a dataset: leading dims `lead`, axes by name, others ``<site>_dim_<k>``.

    Where two would have one name, as plates of two sizes, or a plate and a site, the second gets a
    number behind it; so does what is named like one of `lead` or `taken`.

    Parameters
    ----------
    axes : dict of str to dict of int to str, optional
        By array, what its (negative) axes are called.
    coords : dict of str to array, optional
        What stands along the axes of a name, where it is as long; else 0, 1, ...
    """
    names = variable_names(arrays, (*lead, *taken))
    free = FreeNames((*lead, *taken, *names.values()))
    by_size: dict[tuple[str, int], str] = {}
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    along: dict[str, np.ndarray] = {}
    for site, name in names.items():
        value = np.asarray(arrays[site])
        own = (axes or {}).get(site, {})
        dims, unnamed = list(lead), 0
        for axis in range(len(lead) - value.ndim, 0):
            label, size = own.get(axis), value.shape[axis]
            if label is None:
                number = unnamed if COUNTS_UNNAMED_AXES else len(dims) - len(lead)
                dims.append(free.next(f"{name}_dim_{number}"))
                unnamed += 1
                continue
            if (label, size) not in by_size:
                by_size[label, size] = free.next(variable_name(label))
            dims.append(by_size[label, size])
            given = (coords or {}).get(label)
            if given is not None and len(given) == size:
                along[dims[-1]] = given
        variables[name] = (tuple(dims), value)
        for dim, size in zip(dims, value.shape, strict=True):
            along.setdefault(dim, np.arange(size))
    return xr.Dataset(variables, coords=along, attrs=dict(attrs or {}))
