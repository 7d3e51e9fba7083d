"""Names for the types that models, densities and samplers pass on."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

PyTree = Any
"""Arrays in nested dicts, lists, tuples or modules. JAX takes any, so that no type describes it."""
Parameters = dict[str, PyTree]
"""Unconstrained parameters: an array for each sample site, an array or pytree for a param site."""
Arrays = tuple[Any, ...]
"""A model's array arguments, in order: JAX arrays, and sources of rows that lie elsewhere."""
Losses = dict[str, jax.Array]
"""Per-datum losses in nats, an array for each likelihood site."""
Site = dict[str, Any]
"""A site as NumPyro's handlers see it: `type`, `name`, `fn`, `value` and others by these names."""
Trace = dict[str, Site]
"""The sites of one run of a model, by name."""
Fields = dict[str, Any]
"""Fields of a dataclass by name, to be unpacked into it; their types are those of the class."""
InAxes = Sequence[int | None] | Mapping[str, int | None]
"""The axis that holds the rows, of each argument of a model in order or by name; None without."""
