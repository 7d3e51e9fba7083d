"""The interface between the loop and a kernel."""

from typing import Any, Protocol

import jax

from numpyro_llc.models import Parameters
from numpyro_llc.target import LocalTarget


class Sampler(Protocol):
    """One Markov chain that leaves the density of a :class:`LocalTarget` invariant.

    An implementation is hashable and equal to another that would compile to the same code, and
    holds no arrays: target and state are arguments. `init` and `step` are pure and see one chain,
    unless `is_ensemble`, when they see all chains, stacked.
    """

    @property
    def is_ensemble(self) -> bool:
        """Whether `init` and `step` see all chains at once."""
        ...

    def init(self, rng_key: jax.Array, z: Parameters, target: LocalTarget) -> Any:
        """State at the unconstrained start `z`."""
        ...

    def step(self, state: Any, target: LocalTarget) -> Any:
        """One transition."""
        ...

    def position(self, state: Any) -> Parameters:
        """Unconstrained parameters of a state."""
        ...

    def statistics(self, state: Any) -> dict[str, jax.Array]:
        """Scalars of the last transition, under ArviZ's ``sample_stats`` names."""
        ...
