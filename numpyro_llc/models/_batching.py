"""Find how rows of the data are taken out of a model, and prove it on a few rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc.models import _rules
from numpyro_llc.models._dependence import depends
from numpyro_llc.models._host import on_host
from numpyro_llc.models._plates import Batch, Batching
from numpyro_llc.models._program import Program
from numpyro_llc.models._reading import ModelReading
from numpyro_llc.models._sources import Source, sources_of
from numpyro_llc.models._stream import Stream, batching_of
from numpyro_llc.models._types import Arrays, InAxes, Losses, Parameters, PyTree

_TRIED_ROWS = 3
_TOLERANCE = {4: 1e-3, 8: 1e-7}
"""Relative difference that rounding may leave between two losses, by bytes of the float type: far
above its unit, 1e-7 or 1e-16, for a loss may be a difference of large terms."""
_SHAPE_ERRORS = (ValueError, TypeError, IndexError)


def with_batches(
    reading: ModelReading, in_axes: InAxes | None = None, stream: Stream | None = None
) -> Program:
    """The reading's program with its :class:`Batching`: rows can be taken out of it.

    Where a plate of the observed sites is indexed in the model (or declares `subsample_size`), the
    rows go into the plate. Otherwise the array arguments are sliced: those that `in_axes` says, or
    those whose first axis is as long as the data. What was found is tried on a few rows: their
    losses must be those that the full data give, here and a little away from the centre.

    Parameters
    ----------
    in_axes : None, sequence or dict
        As in :func:`jax.vmap`: for each of `model_args` the axis that holds the rows, None for an
        argument without rows; or a dict of these by the name of the argument, others None.
    stream : Stream, optional
        What gives the batches. Its arrays have their rows along the first axis.

    Raises
    ------
    ValueError
        If no batching was found, or the losses of a batch differ from those of the full data.
    """
    elsewhere = sources_of(reading.arrays)
    if elsewhere and reading.program.batching is not None:
        return reading.program  # which its numbers were read with
    plate, num_rows = _batched_axis(reading)
    if num_rows < 2:
        raise ValueError("`batch_size` needs data of at least 2 rows; leave it out.")
    whole = (None,) * len(reading.arrays)
    if in_axes is None and plate is not None and not elsewhere and stream is None:
        indexed = Batching(num_rows, plate, True, whole)
        problem = _problem(reading, indexed)
        if problem is None:
            return _accepted(reading, indexed)
        if _uses_indices(reading, indexed):
            raise ValueError(
                f"The observations do not follow the indices of plate {plate!r}: with "
                f"{_rows_to_try(num_rows).size} of its {num_rows} indices, {problem} Index all "
                "data in it alike: `with numpyro.plate(...) as idx: "
                "numpyro.sample(..., obs=y[idx])`, or use numpyro.subsample."
            )
    if stream is None:
        sliced = _sliced(reading, plate, num_rows, in_axes)
    else:
        sliced = batching_of(stream, reading.arrays, plate, num_rows)
    _check_sources(reading, sliced)
    problem = _problem(reading, sliced)
    if problem is not None:
        raise ValueError(
            f"The model cannot be run on a batch of its {num_rows} rows by slicing its array "
            f"arguments along axes {list(sliced.axes)}: {problem} Say which axis of each "
            "argument holds the rows with `in_axes`, as for jax.vmap (None for no rows), or index "
            "the data by a plate's indices in the model. Data that the model closes over cannot be "
            "sliced: make them arguments." + _held_remedy(reading)
        )
    return _accepted(reading, sliced)


def _check_sources(reading: ModelReading, batching: Batching) -> None:
    """Refuse sources that do not have the rows of the data along their first axis."""
    for array, axis in zip(reading.arrays, batching.axes, strict=True):
        if isinstance(array, Source) and axis != 0:
            form = array.form
            raise ValueError(
                f"{form.name}, a {form.kind} of shape {form.shape}, must have the "
                f"{batching.num_rows} rows of the data along its first axis, to be read row by "
                "row. Pass np.asarray(...) of it, to hold it in memory."
            )


def _held_remedy(reading: ModelReading) -> str:
    """What to do about arguments that are structure, if there are any."""
    arguments, model = reading.program.arguments, reading.program.model
    names = arguments.held_names(model) if arguments.has_held else []
    if not names:
        return ""
    return (
        f" The model reads the values of {_rules.listed(names)} (int(...), numpy.unique, ...), "
        "which is therefore not sliced. Index it by the plate's indices in the model, or compute "
        "what is read outside and bind it with functools.partial(model, num_groups=...)."
    )


def check_rows_apart(reading: ModelReading, in_axes: InAxes | None = None) -> None:
    """Refuse a model in which the loss of a row depends on other rows, as through batch norm.

    Three rows by themselves are compared with the same among all; what cannot be cut into rows at
    all is not judged. `in_axes` as in :func:`with_batches`.
    """
    plate, num_rows = _batched_axis(reading)
    sliced = _sliced(reading, plate, num_rows, in_axes)
    if num_rows > 1 and _problem(reading, sliced) is None:
        _accepted(reading, sliced)


def check_rows_alone(program: Program, z: Parameters, arrays: Arrays, batch: Batch) -> None:
    """Refuse a model in which the loss of a row depends on the other rows of a batch."""
    rows = _rows_to_try(len(batch))
    few = jax.tree.map(lambda leaf: leaf[rows], batch)
    for shift in (0.0, _rules.AWAY):
        full, part = (_at_rows(program, z, shift, arrays, some) for some in (batch, few))
        _compare(full, part, dict(program.require_batching().site_axes), rows)


def _batched_axis(reading: ModelReading) -> tuple[str | None, int]:
    """The largest plate that all likelihood sites share, or their first axis."""
    shared: dict[str, int] = {}
    for k, axes in enumerate(reading.data_axes.values()):
        here = axes.plates
        shared = dict(here) if k == 0 else {p: s for p, s in shared.items() if p in here}
    if shared:
        plate = max(shared, key=lambda name: shared[name])
        return plate, shared[plate]
    lengths = {axes.shape[0] if axes.shape else 1 for axes in reading.data_axes.values()}
    if len(lengths) > 1 or 1 in lengths:
        raise ValueError(
            "Taking rows of the data, as `batch_size` does, needs observed sites with rows in "
            "common: a shared plate, or a first axis of one length; got "
            f"{ ({k: v.shape for k, v in reading.data_axes.items()}) }. "
            "Declare the rows with numpyro.plate. Losses that are one number, their mean say, have "
            "none: return one loss for each datum, [n]."
        )
    return None, lengths.pop()


def _sliced(
    reading: ModelReading, plate: str | None, num_rows: int, in_axes: InAxes | None
) -> Batching:
    """Rows by slicing the arguments, along the axes given or their first."""
    axes = _first_axes(reading, num_rows) if in_axes is None else _given_axes(reading, in_axes)
    return Batching(num_rows, plate, False, axes)


def _first_axes(reading: ModelReading, num_rows: int) -> tuple[int | None, ...]:
    return tuple(0 if a.ndim and a.shape[0] == num_rows else None for a in reading.arrays)


def _given_axes(reading: ModelReading, in_axes: InAxes) -> tuple[int | None, ...]:
    named = reading.program.arguments.bound(reading.program.model, reading.arrays)
    if isinstance(in_axes, Mapping):
        by_name = dict(in_axes)
    elif isinstance(in_axes, Sequence) and not isinstance(in_axes, str):
        by_name = dict(zip(named, in_axes, strict=False))
    else:
        raise TypeError(
            f"`in_axes` must be a tuple with an axis or None for each of `model_args`, or a dict "
            f"by argument name; got {in_axes!r}."
        )
    if len(by_name) != len(in_axes) or not set(by_name) <= set(named):
        raise ValueError(
            f"`in_axes` must have at most one entry for each argument of the model, "
            f"{list(named)}; got {in_axes!r}."
        )
    axes: list[int | None] = []
    for array in reading.arrays:
        owner = next((k for k, v in named.items() if _holds(v, array)), None)
        axis = None if owner is None else by_name.get(owner)
        if axis is not None and not -array.ndim <= axis < array.ndim:
            raise ValueError(f"`in_axes` gives axis {axis} of {owner!r}, of shape {array.shape}.")
        axes.append(axis)
    return tuple(axes)


def _holds(value: object, array: PyTree) -> bool:
    return any(leaf is array for leaf in jax.tree.leaves(value, is_leaf=lambda x: x is array))


def few_rows(num_rows: int) -> int:
    """How many rows a batching is tried on: not all."""
    return min(_TRIED_ROWS, num_rows - 1)


def _rows_to_try(num_rows: int) -> np.ndarray:
    chosen = np.random.default_rng(0).permutation(num_rows)[: few_rows(num_rows)]
    return np.sort(chosen)[::-1].copy()


def _program(reading: ModelReading, batching: Batching) -> Program:
    return replace(reading.program, batching=batching)


def _problem(reading: ModelReading, batching: Batching) -> str | None:
    """Why the model cannot be run on a few of its rows; None if it can."""
    program, rows = _program(reading, batching), _rows_to_try(batching.num_rows)
    try:
        shapes = jax.eval_shape(program.batch_losses, reading.center, reading.arrays, rows)
    except _SHAPE_ERRORS as error:
        return f"it says: {str(error).splitlines()[0].rstrip('.')}."
    for name, loss in reading.center_losses.items():
        if row_axis(loss.shape, shapes[name].shape, batching.num_rows, rows.size) is None:
            return (
                f"the losses of site {name!r} have shape {shapes[name].shape} (of the full data "
                f"{loss.shape})."
            )
    return None


def row_axis(full: tuple[int, ...], part: tuple[int, ...], num_rows: int, k: int) -> int | None:
    """The one axis, from the right, that went from `num_rows` to `k`."""
    if len(full) != len(part):
        return None
    changed = [axis for axis in range(-len(full), 0) if full[axis] != part[axis]]
    if len(changed) != 1 or (full[changed[0]], part[changed[0]]) != (num_rows, k):
        return None
    return changed[0]


def _uses_indices(reading: ModelReading, batching: Batching) -> bool:
    """Whether the model reads the plate's indices, or declares that it will."""
    program = _program(reading, batching)
    rows = jax.ShapeDtypeStruct((batching.num_rows,), jnp.int32)
    used = depends(
        lambda a: program.batch_losses(reading.center, reading.arrays, a["rows"]), {"rows": rows}
    )
    return any(used.values()) or batching.plate in reading.subsampled


def _accepted(reading: ModelReading, batching: Batching) -> Program:
    """The program with the batching, after its losses were compared with those of the full data."""
    rows = _rows_to_try(batching.num_rows)
    program = _program(reading, batching)
    shapes = jax.eval_shape(program.batch_losses, reading.center, reading.arrays, rows)
    site_axes = []
    for name, loss in reading.center_losses.items():
        axis = row_axis(loss.shape, shapes[name].shape, batching.num_rows, rows.size)
        assert axis is not None  # `_problem` saw to it
        site_axes.append((name, axis))
    program = _program(reading, replace(batching, site_axes=tuple(site_axes)))
    if _rules.is_traced(reading.center, reading.arrays):  # Numbers cannot be compared yet.
        return program
    for shift in (0.0, _rules.AWAY):
        full, part = _both(program, reading.center, shift, reading.arrays, jnp.asarray(rows))
        _compare(full, part, dict(site_axes), rows)
    return program


@partial(jax.jit, static_argnums=0)
def _both(
    program: Program, center: Parameters, shift: float | jax.Array, arrays: Arrays, rows: jax.Array
) -> tuple[Losses, Losses]:
    z = jax.tree.map(lambda leaf: leaf + shift, center)
    return program.losses(z, arrays), program.batch_losses(z, arrays, rows)


@partial(jax.jit, static_argnums=0)
def _at_rows(
    program: Program, center: Parameters, shift: float | jax.Array, arrays: Arrays, batch: Batch
) -> Losses:
    return program.batch_losses(jax.tree.map(lambda leaf: leaf + shift, center), arrays, batch)


def _compare(full: Losses, part: Losses, axes: Mapping[str, int], rows: np.ndarray) -> None:
    for name, axis in axes.items():
        wanted = np.take(on_host(full[name]).astype(np.float64), rows, axis=axis)
        got = on_host(part[name]).astype(np.float64)
        is_known = np.isfinite(wanted)
        wanted, got = wanted[is_known], got[is_known]
        limit = _TOLERANCE[full[name].dtype.itemsize] * (1.0 + np.abs(wanted))
        if not np.all(np.abs(got - wanted) <= limit):
            raise ValueError(
                f"On a batch of {rows.size} rows the losses of site {name!r} are not those of the "
                "full data (is something normalised over the batch, as by batch norm, or scaled "
                "by its length, or an argument without rows sliced?). The loss must be a sum over "
                "rows: take the module "
                "in its inference mode, its statistics fixed; of a contrastive loss, choose the "
                "negatives of each row once, as data; or say which arguments hold rows with "
                "`in_axes`."
            )
