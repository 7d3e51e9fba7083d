"""Parts of the parameters: which are sampled, while the rest is fixed at ``w*``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import PyTreeDef

from numpyro_llc.models import PARAMS, Parameters, PyTree, by_site, named_leaves, pure_parameters

Sites = str | Sequence[str] | Mapping[str, PyTree]
"""What to sample: names of sites or of parts of them, or masks by site."""

_FREE, _FIXED, _SOME = "free", "fixed", "some"


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["center", "places"],
    meta_fields=["form", "kinds"],
)
@dataclass(frozen=True)
class Fixed:
    """What is not sampled, and where the sampled coordinates belong.

    A leaf is free (sampled as it is), fixed, or some of its coordinates are free: then the chains
    move a vector of these.

    Attributes
    ----------
    center : tuple of arrays
        The leaves of ``z*`` that are not free.
    places : tuple of int arrays
        Of each leaf of which some coordinates are free, their places in the raveled leaf.
    form : treedef
        Of all parameters.
    kinds : tuple of str
        Of each leaf.
    """

    center: tuple[jax.Array, ...]
    places: tuple[jax.Array, ...]
    form: PyTreeDef
    kinds: tuple[str, ...]

    def whole(self, z: Parameters) -> Parameters:
        """All parameters, of the free ones."""
        free, center, places = map(iter, (jax.tree.leaves(z), self.center, self.places))

        def leaf(kind: str) -> jax.Array:
            if kind == _FREE:
                return next(free)
            own = next(center)
            if kind == _FIXED:
                return own
            return own.reshape(-1).at[next(places)].set(next(free)).reshape(own.shape)

        return jax.tree.unflatten(self.form, [leaf(kind) for kind in self.kinds])

    def free(self, whole: Parameters) -> Parameters:
        """Of all parameters, with or without leading axes, those that are sampled."""
        center, places = iter(self.center), iter(self.places)

        def part(kind: str, leaf: jax.Array) -> jax.Array | None:
            if kind == _FREE:
                return leaf
            own = next(center)
            if kind == _FIXED:
                return None  # which a pytree does without
            return leaf.reshape(*leaf.shape[: leaf.ndim - own.ndim], -1)[..., next(places)]

        kept = [part(*one) for one in zip(self.kinds, jax.tree.leaves(whole), strict=True)]
        return _without_empty(jax.tree.unflatten(self.form, kept))


def split(center: Parameters, sites: Sites) -> tuple[Parameters, Fixed | None]:
    """Cut `z*` into the part to sample and the rest; None if there is no rest.

    Parameters
    ----------
    center : dict
        Unconstrained ``z*``.
    sites
        Names of sites, or of parts of pytree sites (``"net$params.Dense_0"``); or a dict of masks
        ``{site: bool, array of bools, or a pytree of them}``.
    """
    masks = _masks_by_name(center, sites) if _are_names(sites) else _masks(center, sites)
    leaves, form = jax.tree.flatten(center)
    kinds = [_FREE if mask.all() else _SOME if mask.any() else _FIXED for mask in masks]
    if set(kinds) == {_FIXED}:
        raise ValueError("`sites` leaves nothing to sample. Name a site, or give a mask with True.")
    if set(kinds) == {_FREE}:
        return center, None
    by_leaf = list(zip(kinds, leaves, map(np.flatnonzero, masks), strict=True))
    sampled = jax.tree.unflatten(form, [_sampled(*one) for one in by_leaf])
    fixed = Fixed(
        tuple(leaf for kind, leaf, _ in by_leaf if kind != _FREE),
        tuple(jnp.asarray(places) for kind, _, places in by_leaf if kind == _SOME),
        form,
        tuple(kinds),
    )
    return _without_empty(sampled), fixed


def _without_empty(sampled: Parameters) -> Parameters:
    return {name: tree for name, tree in sampled.items() if jax.tree.leaves(tree)}


def is_free_of(center: Parameters, fixed: Fixed | None) -> Parameters:
    """Of each leaf of all parameters, whether any of it is sampled: a pytree like `center`."""
    if fixed is None:
        return jax.tree.map(lambda _: True, center)
    return jax.tree.unflatten(fixed.form, [kind != _FIXED for kind in fixed.kinds])


def _sampled(kind: str, leaf: jax.Array, places: np.ndarray) -> jax.Array | None:
    if kind == _FIXED:
        return None  # which a pytree does without
    return leaf if kind == _FREE else leaf.reshape(-1)[places]


def _are_names(sites: object) -> TypeGuard[str | Sequence[str]]:
    return isinstance(sites, str) or (
        isinstance(sites, Sequence) and all(isinstance(name, str) for name in sites)
    )


def _masks_by_name(center: Parameters, sites: str | Sequence[str]) -> list[np.ndarray]:
    wanted = (sites,) if isinstance(sites, str) else tuple(sites)
    named = _named(center)
    for name in wanted:
        if not any(_is_part(leaf, name) for leaf in named):
            raise ValueError(
                f"`sites` names {name!r}; the parameters of the model are {list(named)}. Name one, "
                "or the beginning of a name up to a dot."
            )
    chosen = [any(_is_part(leaf, name) for name in wanted) for leaf in named]
    return [np.full(jnp.shape(x), is_in) for x, is_in in zip(named.values(), chosen, strict=True)]


def _named(center: Parameters) -> dict[str, jax.Array]:
    """Leaves under the names that results give them, in the order of ``jax.tree.leaves``."""
    return named_leaves(dict(sorted(center.items())))


def _is_part(leaf: str, name: str) -> bool:
    """Whether `name` is a leaf's or of what holds it, as the model, results or the centre name it.

    These are ``net/Dense_0.kernel`` or ``net$params.Dense_0.kernel``; ``net.Dense_0.kernel``; and
    ``net``.
    """
    leaf, name = (text.replace("/", ".").replace(PARAMS, "") for text in (leaf, name))
    return leaf == name or leaf.startswith(name + ".")


def _masks(center: Parameters, sites: object) -> list[np.ndarray]:
    if not isinstance(sites, Mapping):
        raise TypeError(
            f"`sites` must be names of sites or a dict of masks; got {type(sites).__name__}."
        )
    sites = by_site(_of_modules(center, sites), list(center), ())
    if unknown := [name for name in sites if name not in center]:
        raise ValueError(f"`sites` names {unknown}; the model has {list(center)}.")
    full = {name: _as_sampled(sites.get(name, False), center[name]) for name in center}
    try:
        spread = jax.tree.map(
            lambda mask, part: jax.tree.map(lambda _: np.asarray(mask), part), full, center
        )
    except (ValueError, TypeError) as error:
        raise ValueError(
            "`sites` must hold, for each site, True, False, or masks in a pytree like the site's: "
            f"{error}"
        ) from None
    masks = jax.tree.leaves(spread)
    return [
        _checked(name, mask, jnp.shape(leaf))
        for (name, leaf), mask in zip(_named(center).items(), masks, strict=True)
    ]


def _as_sampled(mask: PyTree, part: PyTree) -> PyTree:
    """A mask like a user's pytree, as the site holds it: of Linen without its collection."""
    return mask if isinstance(part, Mapping) and "params" in part else pure_parameters(mask)


def _of_modules(center: Parameters, sites: Mapping[str, PyTree]) -> Parameters:
    """The masks, with True or False of a random module as that of each of its sites."""
    spread: Parameters = {}
    for name, mask in sites.items():
        is_one = isinstance(mask, bool | np.bool_)
        parts = [site for site in center if is_one and _is_part(site, name)]
        spread |= dict.fromkeys(parts or [name], mask)
    return spread


def _checked(name: str, mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if mask.dtype != bool:
        raise TypeError(f"`sites` must hold masks of True and False; got {mask.dtype} at {name!r}.")
    if mask.shape not in ((), shape):
        raise ValueError(
            f"`sites` holds a mask of shape {mask.shape} at {name!r}; the unconstrained value "
            f"there has shape {shape}."
        )
    return np.broadcast_to(mask, shape)
