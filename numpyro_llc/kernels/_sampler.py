"""The interface between the loop and a kernel."""

from collections.abc import Mapping
from typing import Protocol

import jax
import numpy as np

from numpyro_llc.local import LocalTarget
from numpyro_llc.models import Fields, Parameters, PyTree


class Sampler(Protocol):
    """Markov chains, stacked, that sample the density of a :class:`LocalTarget`.

    An implementation is hashable and equal to another that would compile to the same code, and
    holds no arrays: target and state are arguments. All methods are pure. Keys and the leaves of
    `z` are stacked along a leading axis, ``[chain, ...]``; a state is any pytree.
    """

    @property
    def is_ensemble(self) -> bool:
        """Whether the chains need one another, so that they cannot be run apart."""
        ...

    @property
    def uses_gradient(self) -> bool:
        """Whether it needs the gradient of the potential."""
        ...

    @property
    def gradient_is_of_center(self) -> bool:
        """Whether `gradient` is that at the centre."""
        ...

    @property
    def block_axes(self) -> PyTree:
        """Axes of a state's leaves under vmap over blocks of chains, as its ``in_axes``.

        None for what is the same in all blocks, such as a step counter that a ``cond`` reads.
        """
        ...

    @property
    def description(self) -> str:
        """What its draws depend on, the same in every process."""
        ...

    def init(self, keys: jax.Array, z: Parameters, target: LocalTarget) -> PyTree:
        """State at the unconstrained starts `z`."""
        ...

    def step(self, state: PyTree, target: LocalTarget) -> PyTree:
        """One transition of each chain."""
        ...

    def gradient(self, state: PyTree) -> Parameters | None:
        """A gradient that the state at the start holds, if any, with or without chains.

        With `gradient_is_of_center` it is ``β ∇nL(z*)``, without chains, and every state holds it.
        """
        ...

    def position(self, state: PyTree) -> Parameters:
        """Unconstrained parameters of a state, ``[chain, ...]``."""
        ...

    def statistics(self, state: PyTree) -> dict[str, jax.Array]:
        """Numbers of the last transition, ``[chain]`` or one, by ArviZ's ``sample_stats`` names."""
        ...

    def step_scale(
        self,
        state: PyTree,
        target: LocalTarget,
        statistics: Mapping[str, np.ndarray],
        most_bias: float,
    ) -> float:
        """What to multiply its own step size by, for it to bias λ̂ by no more than `most_bias`."""
        ...

    def end_warmup(self, state: PyTree, step_scale: float) -> PyTree:
        """The state with which sampling begins, with steps of its own `step_scale` as long."""
        ...

    def with_step_sizes(self, state: PyTree, step_sizes: jax.Array) -> PyTree:
        """The state with a fixed step size for each block, ``[block]``."""
        ...

    def report(
        self, state: PyTree, target: LocalTarget, statistics: Mapping[str, np.ndarray]
    ) -> Fields:
        """What the result keeps of the sampler at its end: numbers and strings.

        `statistics` are those of the draws, ``[chain, draw]``.
        Leaves of `state` have one more leading axis, of blocks of chains run apart.
        """
        ...
