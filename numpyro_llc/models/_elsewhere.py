"""Read a program whose data lie on the host or on disk, of which a slice is looked at at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc.models._batching import check_rows_alone, with_batches
from numpyro_llc.models._dependence import depends
from numpyro_llc.models._reading import ModelReading, read_as_it_is
from numpyro_llc.models._rules import listed
from numpyro_llc.models._slices import batch_on_host
from numpyro_llc.models._sources import Source, check_in_memory, shapes_of, sources_of
from numpyro_llc.models._types import InAxes, Parameters, PyTree

ROWS_TO_COMPARE = 64
"""Among so many rows the losses of a few must be those of the few alone."""


def read_model(
    model: Callable,
    args: Sequence[object],
    kwargs: Mapping[str, object] | None,
    *,
    center: Mapping[str, PyTree],
    init_strategy: Callable | None = None,
    in_axes: InAxes | None = None,
    **factors: Sequence[str],
) -> ModelReading:
    """:func:`read_as_it_is`, with numbers also where rows of the data lie elsewhere.

    `factors` are its `likelihood_factors` and `prior_factors`. The program then has its
    :class:`Batching`, by `in_axes` or the first axes, and losses of each datum lie on the host.
    """
    reading = read_as_it_is(
        model, args, kwargs, center=center, init_strategy=init_strategy, **factors
    )
    if not sources_of(reading.arrays):
        return reading
    if init_strategy is not None:
        check_in_memory(reading.arrays, "A model without a centre, as in find_center, takes")
    if reading.program.enumeration is not None:
        check_in_memory(reading.arrays, "A model with discrete latent sites takes")
    reading = replace(reading, program=with_batches(reading, in_axes))
    found = _data_dependent(reading)
    if bad := found & set(reading.program.parameters):
        raise ValueError(
            f"The support of parameter(s) {listed(sorted(bad))} depends on rows of "
            f"{sources_of(reading.arrays)[0].form.name}, which are not held in memory. Compute the "
            "bound outside of the model, and pass it as a number."
        )
    deterministic = tuple(name for name in reading.deterministic if name not in found)
    reading = replace(reading.at(center), deterministic=deterministic)
    rows = np.arange(min(reading.program.require_batching().num_rows, ROWS_TO_COMPARE))
    batch = batch_on_host(reading.arrays, rows)
    check_rows_alone(reading.program, reading.center, reading.arrays, batch)
    return reading


def _data_dependent(reading: ModelReading) -> set[str]:
    """Sites whose values depend on sources."""
    names = (*reading.program.parameters, *reading.deterministic)
    shapes = {str(k): shape for k, shape in enumerate(shapes_of(reading.arrays))}
    elsewhere = {str(k) for k, x in enumerate(reading.arrays) if isinstance(x, Source)}

    def values(arrays: Mapping[str, jax.Array]) -> Parameters:
        given = tuple(arrays[str(k)] for k in range(len(shapes)))
        center = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), reading.center)
        return reading.program.constrain(center, given, names)

    return {name for name, found in depends(values, shapes).items() if found & elsewhere}
