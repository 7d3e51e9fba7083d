"""The data of an observed site: axes, masks, and how many points there are."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist

from numpyro_llc.models._axis_names import axis_names
from numpyro_llc.models._types import Site


class DataAxes(NamedTuple):
    """Batch shape of an observed site, its plates' sizes by name, and their names by axis.

    `joined_by` are the discrete latent sites that are summed out, which may join several data.
    """

    shape: tuple[int, ...]
    plates: dict[str, int]
    names: dict[int, str]
    joined_by: tuple[str, ...] = ()


def data_axes(site: Site) -> DataAxes:
    """Batch shape (of the distribution and the value, broadcast) and plates of an observed site."""
    fn, value_shape = site["fn"], jnp.shape(site["value"])
    kept = len(value_shape) - fn.event_dim
    shape = np.broadcast_shapes(tuple(fn.batch_shape), value_shape[: max(kept, 0)])
    frames = site["cond_indep_stack"]
    outside = {k + fn.event_dim: n for k, n in axis_names(site).items() if k < -fn.event_dim}
    names = outside | {frame.dim: frame.name for frame in frames}
    return DataAxes(shape, {f.name: f.size for f in frames}, names)


def observation_mask(site: Site) -> jax.Array:
    """The mask of an observed site (of the handler or the distribution), of its batch shape."""
    mask, fn = jnp.array(True), site["fn"]
    while fn is not None:
        if isinstance(fn, dist.MaskedDistribution):
            mask = mask & fn._mask
        fn = getattr(fn, "base_dist", None)
    return jnp.broadcast_to(mask, data_axes(site).shape)


def count_data(site: Site) -> jax.Array:
    """Data points of an observed site that no mask removes."""
    return jnp.sum(observation_mask(site))


def data_weights(scale: float | jax.Array | None, losses: jax.Array) -> jax.Array:
    """How many data each of a site's `losses` counts as: what ``handlers.scale`` says, else 1."""
    scale = 1.0 if scale is None else scale
    return jnp.broadcast_to(jnp.asarray(scale, losses.dtype), losses.shape)


def count_bad(site: Site) -> jax.Array:
    """NaN or infinite values of an observed site that are not masked out."""
    if not jnp.issubdtype(jnp.result_type(site["value"]), jnp.inexact):
        return jnp.array(0)
    mask = observation_mask(site)
    mask = jnp.expand_dims(mask, tuple(range(mask.ndim, mask.ndim + site["fn"].event_dim)))
    return jnp.sum(~jnp.isfinite(site["value"]) & mask)


def infer_num_data(axes: Mapping[str, DataAxes], counts: Mapping[str, int]) -> int:
    """n: the common number of data points of the observed sites.

    A site has as many as its batch shape (plates, or the shape of the observations) has entries,
    less those masked out.
    """
    for name, (shape, plates, _, joined_by) in axes.items():
        if math.prod(shape) < 2 and joined_by:
            raise ValueError(
                f"Cannot infer n: all data of {name!r} share the discrete latent sites "
                f"{list(joined_by)}, so they are one datum. Pass `num_data`, at least 2; or put "
                "the discrete sites into the plate of their own data."
            )
        if math.prod(shape) < 2:
            raise ValueError(
                f"Cannot infer n: observed site {name!r} has batch shape {shape} (to_event, or one "
                "row?). Pass `num_data`, which must be at least 2; or, of a loss that is one "
                "number, the mean say, return one for each datum, [n]."
            )
        if plates and math.prod(plates.values()) != math.prod(shape):
            raise ValueError(
                f"Cannot infer n: observed site {name!r} has batch shape {shape}, but its plates "
                f"are {plates}. Declare the other axes with .to_event() or a plate (is one a "
                "broadcast by mistake?), or pass `num_data`."
            )
        if counts[name] < 2:
            raise ValueError(
                f"Observed site {name!r} has {counts[name]} data points that are not masked out; "
                "at least 2 are needed."
            )
    if len({(counts[name], frozenset(axes[name].plates)) for name in axes}) > 1:
        raise ValueError(
            f"Cannot infer n: the observed sites differ in size or plate ({dict(counts)}). Pass "
            "`num_data`, the number of independent data points."
        )
    return counts[next(iter(axes))]
