"""The distributions of a model at a centre: their parameters, evaluated once for all data."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution
from numpyro.distributions.transforms import Transform

from numpyro_llc.models._batching import few_rows, row_axis
from numpyro_llc.models._dependence import depends
from numpyro_llc.models._loss import NegativeLoss
from numpyro_llc.models._plates import Rows, numbers_of
from numpyro_llc.models._program import Program
from numpyro_llc.models._types import Arrays, Parameters, PyTree, Trace

MOST_BYTES = 2**26
"""Of the parameters of all distributions. Where they take more, as those of many tokens over a
large vocabulary, the model is evaluated at the centre again with each batch."""


@partial(jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=["axis"])
@dataclass(frozen=True)
class Kept:
    """A parameter of a distribution for all data, and its axis of rows from the right, if any.

    Along this axis it has the places of rows on devices.
    """

    values: jax.Array
    axis: int | None

    def of(self, program: Program, rows: Rows | None) -> jax.Array:
        """The parameter of all data or `rows`."""
        if program.batching is None or self.axis is None:
            return self.values
        if rows is None:
            return program.batching.places.rows_alone(self.values, self.axis)
        return program.batching.taken(self.values, numbers_of(rows), self.axis)

    @classmethod
    def all_of(cls, program: Program, values: jax.Array, axis: int | None) -> "Kept":
        """A parameter of all rows."""
        if program.batching is not None and axis is not None:
            values = program.batching.places.padded(values, axis)
        return cls(values, axis)


Distributions = dict[str, tuple[Kept | None, ...]]
"""By site, the leaves of its distribution; None for those that no parameter of the model moves."""


def distributions_at(
    program: Program, center: Parameters, arrays: Arrays, sites: Trace
) -> Distributions | None:
    """The distributions of observed `sites`, the program's at `center`.

    None where they are too large, or cannot be put together again of their leaves and rows of them.
    """
    if not all(_is_whole(site["fn"]) for site in sites.values()):
        return None
    moved, axes = _moved(program, center, arrays), _row_axes(program, center, arrays)
    if axes is None:
        return None
    leaves = {name: jnp.asarray(leaf) for name, leaf in _leaves(sites).items() if moved[name]}
    if sum(leaf.nbytes for leaf in leaves.values()) > MOST_BYTES:
        return None
    kept = {name: Kept.all_of(program, leaf, axes[name]) for name, leaf in leaves.items()}
    return {
        site: tuple(kept.get(name) for name in _leaves({site: found}))
        for site, found in sites.items()
    }


def put_together(leaves: tuple[jax.Array | None, ...], like: Distribution) -> Distribution:
    """A distribution of these leaves, and where they are None, of those of another of its kind."""
    own, form = jax.tree.flatten(like)
    return jax.tree.unflatten(
        form, [b if a is None else a for a, b in zip(leaves, own, strict=True)]
    )


def _leaves(sites: Trace) -> dict[str, jax.Array]:
    """The leaves of the distributions of sites, by names."""
    return {
        f"{name} {k}": leaf
        for name, site in sites.items()
        for k, leaf in enumerate(jax.tree.leaves(site["fn"]))
    }


def _is_whole(fn: Distribution) -> bool:
    """Whether a distribution can be put together of its leaves.

    A class that does not tell NumPyro of all its arrays cannot. The function of ``loss_model``
    evaluates its model at the centre itself.
    """
    try:
        leaves, form = jax.tree.flatten(fn)
        jax.tree.unflatten(form, leaves)
        jax.eval_shape(lambda: leaves)
    except Exception:  # of whatever kind: classes of users
        return False
    known = set(map(id, leaves))
    return not isinstance(fn, NegativeLoss) and all(id(x) in known for x in _arrays(fn))


def _arrays(thing: PyTree) -> Iterator[jax.Array]:
    """The arrays that a distribution holds, those of what it is made of included."""
    for leaf in jax.tree.leaves(thing, is_leaf=_is_made):
        if _is_made(leaf):
            yield from _arrays(vars(leaf))
        elif isinstance(leaf, jax.Array):
            yield leaf


def _is_made(thing: object) -> bool:
    return isinstance(thing, Distribution | Transform)


def _moved(program: Program, center: Parameters, arrays: Arrays) -> dict[str, bool]:
    """Of each leaf by name, whether it depends on the parameters of the model."""
    values, form = jax.tree.flatten(center)
    names = [f"{k:09}" for k in range(len(values))]

    def look(z: dict[str, jax.Array]) -> dict[str, jax.Array]:
        whole = jax.tree.unflatten(form, [z[name] for name in names])
        return _leaves(program.observed_sites(whole, arrays))

    found = depends(look, dict(zip(names, values, strict=True)))
    return {name: bool(origins) for name, origins in found.items()}


def _row_axes(program: Program, center: Parameters, arrays: Arrays) -> dict[str, int | None] | None:
    """The axis of rows of each leaf by name; None if they cannot be told."""

    def look(rows: jax.Array | None) -> dict[str, jax.Array]:
        return _leaves(program.observed_sites(center, arrays, rows))

    full = jax.eval_shape(lambda: look(None))
    if program.batching is None:
        return dict.fromkeys(full)
    total, shards = program.batching.num_rows, program.batching.shards
    count = few_rows(total) if shards == 1 else shards
    part = jax.eval_shape(look, jax.ShapeDtypeStruct((count,), jnp.int32))
    if list(part) != list(full) or count == total:
        return None
    same = {name for name in full if full[name].shape == part[name].shape}
    axes = {name: row_axis(full[name].shape, part[name].shape, total, count) for name in full}
    return axes if all(name in same or axis is not None for name, axis in axes.items()) else None
