"""Refuse parameters whose number grows with the data, where no plate says so."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.initialization import init_to_uniform

from numpyro_llc.models import (
    Arrays,
    ModelReading,
    Parameters,
    Program,
    PyTree,
    is_traced,
    shapes_of,
    site_loss,
)

LEAST_SHARE = 0.5
"""Of the data: a site with fewer values belongs to groups, whose number is the user's affair."""
MOST_PRIVATE = 0.9
"""Share of the data with a parameter of their own, beyond which these are one for each datum."""
AWAY = 0.1
"""How far from the centre derivatives are looked at: at a perfect fit they are zero."""
_ANYWHERE = init_to_uniform()
_Forms = tuple[tuple[tuple[int, ...], Any], ...]
"""Shapes and dtypes of the model's arrays."""


def check_no_local_latents(
    reading: ModelReading, sampled: Sequence[str], given: int | None
) -> None:
    """Refuse sites with a value for each row of the data: random effects, walks, processes.

    The model is traced, without running it, on one row less: a site that is then shorter grows with
    the data. Where the model cannot be cut so, a site as large as the data is looked at by its
    derivatives: it is refused if nearly every datum has a value that no other depends on.

    Parameters
    ----------
    sampled : sequence of str
        The sites that are sampled.
    given : int or None
        n as the user gave it. More than the values of a site says that rows are not data points,
        as of binomial counts; such a site is let be.

    Raises
    ------
    ValueError
        By site.
    """
    rows = max((v.shape[0] for v in reading.observed.values() if v.ndim), default=0)
    sizes = {name: sum(map(jnp.size, jax.tree.leaves(reading.center[name]))) for name in sampled}
    data = max(map(jnp.size, reading.center_losses.values()))
    large = {k: v for k, v in sizes.items() if v >= LEAST_SHARE * data and v >= (given or 0)}
    if rows < 2 or not large:
        return
    forms = tuple((array.shape, array.dtype) for array in reading.arrays)
    whole, shorter = _sizes_with_a_row_less(reading.program, forms, rows)
    for name in large:
        if shorter is not None and shorter[name] != whole[name]:
            raise ValueError(
                f"Latent site {name!r} has {whole[name]} values, and {shorter[name]} where the "
                f"data have one row less: {_why(whole[name])}"
            )
    is_seen = data >= rows and not is_traced(reading.center, shapes_of(reading.arrays))
    if shorter is None and is_seen:  # each datum has a loss of its own
        _check_private(reading, [name for name in large if large[name] >= rows])


def _why(size: int) -> str:
    return (
        "the number of parameters grows with n, so λ is undefined. Marginalise it, or give it one "
        "value for each group of data. Where a row counts several data points (binomial counts), "
        f"say how many there are in all with `num_data`, above {size}."
    )


@lru_cache(maxsize=256)
def _sizes_with_a_row_less(
    program: Program, forms: _Forms, rows: int
) -> tuple[Mapping[str, int], Mapping[str, int] | None]:
    """How many constrained values each parameter has, and then; None if it cannot be cut so."""
    whole = _sizes(program, tuple(jax.ShapeDtypeStruct(*form) for form in forms))
    for shorter, cut in _cuts(program, forms, rows):
        found = _sizes(shorter, cut)
        if whole is not None and found is not None:
            return whole, found
    return {}, None


def _cuts(
    program: Program, forms: _Forms, rows: int
) -> Iterator[tuple[Program, tuple[PyTree, ...]]]:
    """The model and its arrays with a row less, the more is cut the later.

    First the leading axes as long as the data, then Python numbers as large too, then all axes.
    """

    def less(size: int) -> int:
        return size - (size == rows)

    def cut(*, every_axis: bool) -> tuple[PyTree, ...]:
        shapes = [
            tuple(less(k) if every_axis or axis == 0 else k for axis, k in enumerate(shape))
            for shape, _ in forms
        ]
        return tuple(
            jax.ShapeDtypeStruct(shape, dtype)
            for shape, (_, dtype) in zip(shapes, forms, strict=True)
        )

    leaves = tuple(less(x) if type(x) is int else x for x in program.arguments.leaves)
    counted = replace(program, arguments=replace(program.arguments, leaves=leaves))
    if any(rows in shape[:1] for shape, _ in forms):
        yield program, cut(every_axis=False)
        yield counted, cut(every_axis=False)
        yield counted, cut(every_axis=True)


def _sizes(program: Program, arrays: tuple[PyTree, ...]) -> dict[str, int] | None:
    """How many constrained values each parameter has; None if the model cannot be run."""
    found: dict[str, int] = {}

    def look(arrays: Arrays) -> list[jax.Array]:
        trace = program.trace(arrays, _ANYWHERE)
        for name in program.parameters:
            found[name] = sum(map(jnp.size, jax.tree.leaves(trace[name]["value"])))
        return [site_loss(trace[name]) for name in program.likelihood]

    try:
        jax.eval_shape(look, arrays)
    except Exception:  # a model may raise anything on data that it was not made for
        return None
    return found


def _check_private(reading: ModelReading, names: Sequence[str]) -> None:
    """Refuse sites of which nearly each datum has a value of its own."""
    names = [name for name in names if len(jax.tree.leaves(reading.center[name])) == 1]
    if not names:
        return
    total = sum(map(np.size, reading.center_losses.values()))
    labels, other = (np.arange(1, total + 1) / total, np.random.default_rng(0).uniform(1, 2, total))
    weights = (jnp.asarray(u, jnp.result_type(float)) for u in (labels, other))
    seen = _pulled(reading.program, reading.center, reading.arrays, *weights)
    for name in names:
        one, by_label, by_other = (np.asarray(x[name], np.float64).ravel() for x in seen)
        with np.errstate(all="ignore"):
            # Of a value that one datum alone depends on, the ratios are those of the datum.
            place = np.nan_to_num(np.rint(total * by_label / one) - 1, nan=-1, posinf=-1, neginf=-1)
            place = np.where((place >= 0) & (place < total), place, 0).astype(int)
            is_private = np.abs(by_other / one - other[place]) < 1e-3
            is_private &= np.abs(total * by_label / one - place - 1) < 0.1
        if len(np.unique(place[is_private])) > MOST_PRIVATE * total:
            raise ValueError(
                f"Latent site {name!r} has {one.size} values, of which each of the {total} data "
                f"points has its own, on which no other depends: {_why(one.size)}"
            )


@partial(jax.jit, static_argnums=0)
def _pulled(
    program: Program, center: Parameters, arrays: Arrays, labels: jax.Array, other: jax.Array
) -> tuple[Parameters, Parameters, Parameters]:
    """``Jᵀ u`` of three vectors u, J the Jacobian of the losses near the centre."""

    def losses(z: Parameters) -> jax.Array:
        return jnp.concatenate([x.reshape(-1) for x in program.losses(z, arrays).values()])

    keys = dict(zip(center, jax.random.split(jax.random.key(0), len(center)), strict=True))
    moved = {name: jax.tree.map(partial(_moved, keys[name]), center[name]) for name in center}
    _, pull = jax.vjp(losses, moved)
    return pull(jnp.ones_like(labels))[0], pull(labels)[0], pull(other)[0]


def _moved(key: jax.Array, leaf: jax.Array) -> jax.Array:
    return leaf + AWAY * jax.random.normal(key, leaf.shape, leaf.dtype)
