"""Names of the leaves of pytrees, as results give them."""

from collections.abc import Mapping

import jax
from jax.tree_util import KeyPath

from numpyro_llc.models._types import PyTree


def leaf_name(site: str, path: KeyPath) -> str:
    """The name of a leaf: ``params.a.b`` at ``params['a']['b']``."""
    return ".".join([site, *(jax.tree_util.keystr((key,), simple=True) for key in path)])


def named_leaves(values: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """The leaves of the pytree of each site by name, site after site."""
    return {
        leaf_name(site, path): leaf
        for site, tree in values.items()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
