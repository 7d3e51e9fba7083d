"""What a result keeps of the draws beside ``llc``, and under which names."""

from collections.abc import Sequence
from typing import NamedTuple

from numpyro_llc.inference_data import variable_name
from numpyro_llc.models import TAKEN, ModelReading, named_leaves
from numpyro_llc.results._labels import Coords, Dims, Labels, read_labels


class Stored(NamedTuple):
    """Sites, whether the log likelihood of each datum, and the names of axes."""

    sites: tuple[str, ...]
    log_likelihood: bool
    labels: Labels


def what_to_store(
    reading: ModelReading,
    store_sites: bool | Sequence[str],
    log_likelihood: bool = False,
    coords: Coords | None = None,
    dims: Dims | None = None,
) -> Stored:
    """What the user asked for, checked against the model."""
    names = sites_to_store(reading, store_sites)
    return Stored(names, log_likelihood, read_labels(reading, coords, dims))


def sites_to_store(reading: ModelReading, store_sites: bool | Sequence[str]) -> tuple[str, ...]:
    """Resolve `store_sites` to names of parameter and deterministic sites, all different."""
    if isinstance(store_sites, bool):
        names = reading.program.parameters if store_sites else ()
    elif isinstance(store_sites, Sequence):
        names = (store_sites,) if isinstance(store_sites, str) else tuple(store_sites)
    else:
        raise TypeError(
            f"`store_sites` must be True, False or names of sites; got {store_sites!r}."
        )
    known = (*reading.program.parameters, *reading.deterministic)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"`store_sites` names {unknown}; the model has {list(known)}. Choose among them."
        )
    _check_labels(reading, names)
    return names


def _check_labels(reading: ModelReading, names: Sequence[str]) -> None:
    taken = list(TAKEN)
    leaves = [leaf for name in names for leaf in named_leaves({name: reading.center.get(name, 0)})]
    for name in leaves:
        if variable_name(name) in taken:
            raise ValueError(
                f"The name {name!r} is taken in the result (`llc` is λ̂'s, `chain` and `draw` are "
                "axes, and '/' becomes '.'). Rename it in the model, or leave the site out with "
                "`store_sites`."
            )
        taken.append(variable_name(name))
