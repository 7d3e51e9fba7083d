"""The state of the chains of a stochastic-gradient kernel."""

from typing import NamedTuple

import jax

from numpyro_llc.kernels._tuning import Tuning
from numpyro_llc.local import Anchor
from numpyro_llc.models import Parameters, PyTree


class StochasticState(NamedTuple):
    """State of all chains.

    Attributes
    ----------
    z : dict
        Unconstrained parameters, leaves ``[chain, ...]``.
    inner : pytree
        The kernel's own variables, such as a momentum.
    rng_key : array of keys [chain]
        Never changed: the keys of a step are folded in from `i`.
    i : scalar
        Steps so far.
    warming : scalar
        Whether the warm-up is on, that is, whether the step size and the metric move.
    anchor : Anchor
    tuning : Tuning
    """

    z: Parameters
    inner: PyTree
    rng_key: jax.Array
    i: jax.Array
    warming: jax.Array
    anchor: Anchor
    tuning: Tuning


_SHARED = ("i", "warming")
BLOCK_AXES: PyTree = StochasticState._make(
    None if name in _SHARED else 0 for name in StochasticState._fields
)
"""All blocks of chains are at the same step."""
