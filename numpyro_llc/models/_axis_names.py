"""What the axes of a site's value are called: plates, and ``event_dims``."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from numpyro_llc.models._types import Site


def axis_names(site: Site) -> dict[int, str]:
    """What (negative) axes of a sample or deterministic site's value are called.

    An axis has the name of its plate. ``infer={"event_dims": [...]}`` names those of an event, or,
    where it has more names than an event has axes, those that are no plate's, from the left.
    """
    if site["type"] == "deterministic":
        return _plates_from_the_left(site)
    shape, event_dim = jnp.shape(site["value"]), site["fn"].event_dim
    plates = _plates_at(shape, site["cond_indep_stack"], event_dim)
    given = _event_dims(site)
    free = [axis for axis in range(-len(shape), 0) if axis not in plates]
    if len(given) > len(free):
        raise ValueError(
            f"Site {site['name']!r} has `event_dims` {given} for {len(free)} axes: its value has "
            f"the shape {shape} and the plates {list(plates.values())}. Give one name an axis."
        )
    axes = range(-event_dim, 0) if len(given) <= event_dim else free
    found = plates | {axis: name for axis, name in zip(axes, given, strict=False) if name}
    if len(set(found.values())) < len(found):
        raise ValueError(
            f"Site {site['name']!r} has one name for two axes of its plates and `event_dims`: "
            f"{[found[k] for k in sorted(found)]}. Give each axis a name of its own."
        )
    return found


def _plates_at(shape: tuple[int, ...], frames: Sequence, event_dim: int = 0) -> dict[int, str]:
    """The plates that a value has an axis of, by axis."""
    axes = {frame.dim - event_dim: frame for frame in frames}
    return {k: f.name for k, f in axes.items() if len(shape) >= -k and shape[k] == f.size}


def _plates_from_the_left(site: Site) -> dict[int, str]:
    """Plates of a deterministic site, whose value may have axes of its own behind them."""
    if not jax.tree_util.all_leaves([site["value"]]):
        return {}
    shape, frames = jnp.shape(site["value"]), site["cond_indep_stack"]
    by_dim = sorted(frames, key=lambda frame: frame.dim)
    if shape[: len(frames)] != tuple(frame.size for frame in by_dim):
        return _plates_at(shape, frames)
    return {k - len(shape): frame.name for k, frame in enumerate(by_dim)}


def _event_dims(site: Site) -> list[str | None]:
    """What a site says its axes are called."""
    given = site.get("infer", {}).get("event_dims", ())
    is_list = isinstance(given, Sequence) and not isinstance(given, str)
    if not is_list or not all(isinstance(name, str | None) for name in given):
        raise TypeError(
            f"`event_dims` of site {site['name']!r} must be a list of names; got {given!r}."
        )
    return list(given)
