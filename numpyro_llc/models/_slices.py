"""A model at numbers whose rows lie elsewhere: measured a slice of rows at a time."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc.models._host import on_host
from numpyro_llc.models._measured import Measured, measure
from numpyro_llc.models._plates import Batch
from numpyro_llc.models._program import Program
from numpyro_llc.models._sources import read_ahead, read_all, shapes_of, sources_of
from numpyro_llc.models._types import Arrays, Fields, Losses, PyTree

_BY_SLICE = ("losses", "weights", "counts", "bad_observations")


def measured(
    program: Program, init_strategy: Callable, given: Mapping[str, PyTree] | None, arrays: Arrays
) -> Measured:
    """:func:`measure`, by slices where rows lie elsewhere; numbers of each datum are on the host.

    Shapes alone, as long as no way is known to take rows out of the program.
    """
    if not sources_of(arrays):
        return measure(program, init_strategy, given, arrays, 0).sharing(given)

    def of(arrays: Arrays, rows: Batch | None) -> Measured:
        return measure(program, init_strategy, given, arrays, 0, rows)

    if program.batching is None:
        return jax.eval_shape(of, shapes_of(arrays), None)
    parts = [_without_data(of(arrays, rows)) for rows in slices(program, arrays)]
    axes = dict(program.batching.site_axes)
    return Measured(
        z=parts[0].z,
        losses=_joined([part.losses for part in parts], axes),
        weights=_joined([part.weights for part in parts], axes),
        observed={},
        counts=_added([part.counts for part in parts]),
        bad_observations=_added([part.bad_observations for part in parts]),
        inside=parts[0].inside,
        finite=parts[0].finite,
        as_given=parts[0].as_given,
    ).sharing(given)


def slices(program: Program, arrays: Arrays) -> Iterator[Batch]:
    """All rows of the data, a slice after the other, the next one being read meanwhile."""
    batching = program.require_batching()
    count = -(-batching.num_rows // batching.slice_rows(arrays))
    ends = [k * batching.num_rows // count for k in range(count + 1)]
    for k in range(count):
        here, coming = (np.arange(*ends[j : j + 2]) for j in (k, min(k + 1, count - 1)))
        yield batch_on_host(arrays, here, coming)


def batch_on_host(arrays: Arrays, rows: np.ndarray, upcoming: np.ndarray | None = None) -> Batch:
    """A batch for compiled code, read before that is called."""
    hosts = [source.host for source in sources_of(arrays)]
    taken = read_all(hosts, rows) if upcoming is None else read_ahead(hosts, rows, upcoming)
    return Batch.of(arrays, jnp.asarray(rows, jnp.int32), list(map(jnp.asarray, taken)))


def _without_data(part: Measured) -> Measured:
    """What is kept of a slice, on the host."""
    part = replace(part, observed={})
    numbers: Fields = {name: _on_host(getattr(part, name)) for name in _BY_SLICE}
    return replace(part, **numbers)


def _on_host(values: dict[str, jax.Array]) -> PyTree:
    return {name: on_host(value) for name, value in values.items()}


def _joined(parts: list[Losses], axes: Mapping[str, int]) -> PyTree:
    return {
        name: np.concatenate([np.asarray(part[name]) for part in parts], axis=axis)
        for name, axis in axes.items()
    }


def _added(parts: list[dict[str, jax.Array]]) -> PyTree:
    return {name: np.sum([part[name] for part in parts], dtype=np.int64) for name in parts[0]}
