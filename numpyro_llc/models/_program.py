"""A NumPyro program as pure functions of unconstrained parameters and arrays."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.primitives import Messenger

from numpyro_llc.models._arguments import StaticArguments

Parameters = dict[str, Any]
"""Unconstrained parameters: an array for each sample site, an array or pytree for a param site."""


class FullPlates(Messenger):
    """Give each subsampled plate all its indices, so that a loss is over the whole data."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "plate" and msg["value"] is None:
            size = msg["args"][0]
            msg["args"] = (size, None)
            msg["value"] = jnp.arange(size)


def is_real(support: constraints.Constraint) -> bool:
    """Whether `support` is all of R^k, so that ``biject_to`` is the identity."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real


def scan_slice(site: dict[str, Any], value: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The item of `value` that belongs to this step, if `site` is inside ``scan``."""
    index = site["infer"].get("_scan_current_index")
    return value[index] if index is not None and jnp.ndim(value) > len(shape) else value


def support_of(site: dict[str, Any]) -> constraints.Constraint:
    """Support of a sample site, or constraint of a param site."""
    if site["type"] == "param":
        return site["kwargs"].get("constraint", constraints.real)
    return site["fn"].support


def _place(z: Mapping[str, Any], site: dict[str, Any]) -> Any:
    """The constrained value of `site` at unconstrained parameters `z`; None if it has none."""
    if site["name"] not in z or site["type"] not in ("sample", "param"):
        return None
    value, support = z[site["name"]], support_of(site)
    if site["type"] == "param":
        return value if is_real(support) else biject_to(support)(value)
    shape = site["kwargs"]["sample_shape"] + tuple(site["fn"].shape())
    if is_real(support):
        return scan_slice(site, value, shape)
    transform = biject_to(support)
    return transform(scan_slice(site, value, transform.inverse_shape(shape)))


def site_loss(site: dict[str, Any]) -> jax.Array:
    """``-log p`` of an observed site, one value per datum; a user's ``handlers.scale`` counts."""
    loss = -site["fn"].log_prob(site["value"])
    return loss if site["scale"] is None else site["scale"] * loss


@dataclass(frozen=True)
class Program:
    """What is fixed of a model when it is compiled: hashable, no arrays.

    Every method is pure in ``(z, arrays)``: `z` maps each parameter site to its unconstrained
    value, `arrays` are the model's array arguments in order. `parameters` are the latent sample
    sites (`latents`) and the param sites; `likelihood` are the sites that the loss sums.
    `fingerprint` tells programs apart whose `model` is one object but reads other numbers.
    """

    model: Callable
    arguments: StaticArguments
    parameters: tuple[str, ...]
    latents: tuple[str, ...]
    likelihood: tuple[str, ...]
    prior_factors: tuple[str, ...]
    fingerprint: str = ""

    def trace(
        self, arrays: Sequence[jax.Array], values: Callable, seed: Any = 0
    ) -> dict[str, dict[str, Any]]:
        """Run the model on its full data, with ``values(site)`` at each site that it answers."""
        args, kwargs = self.arguments.join(arrays)
        model = handlers.substitute(handlers.seed(self.model, rng_seed=seed), substitute_fn=values)
        try:
            with handlers.block(), FullPlates(), handlers.trace() as trace:
                model(*args, **kwargs)
        except (
            jax.errors.ConcretizationTypeError,
            jax.errors.TracerArrayConversionError,
            jax.errors.TracerIntegerConversionError,
            jax.errors.NonConcreteBooleanIndexError,
        ) as error:
            raise ValueError(
                "The model reads the values of an array argument as Python or NumPy numbers "
                "(int(...), numpy.unique, a shape, an `if`, a boolean index), so it cannot be "
                "compiled with its data as runtime arguments. Compute that number outside the "
                "model and pass it as a Python int, or use jax.numpy."
            ) from error
        return trace

    def losses(
        self, z: Parameters, arrays: Sequence[jax.Array], seed: Any = 0
    ) -> dict[str, jax.Array]:
        """Per-datum losses ``-log p(x_i | z)`` in nats, an array for each observed site."""
        trace = self.trace(arrays, partial(_place, z), seed)
        return {name: site_loss(trace[name]) for name in self.likelihood}

    def with_prior(self) -> "Program":
        """The same program with the prior in its loss (constrained density, no Jacobian): MAP."""
        return replace(self, likelihood=(*self.likelihood, *self.latents, *self.prior_factors))

    def constrain(
        self, z: Parameters, arrays: Sequence[jax.Array], names: Sequence[str]
    ) -> dict[str, Any]:
        """Constrained values of the named sites (parameters or deterministic)."""
        trace = self.trace(arrays, partial(_place, z))
        return {name: trace[name]["value"] for name in names}


@partial(jax.jit, static_argnums=(0, 1))
def constrain(
    program: Program, names: tuple[str, ...], z: Parameters, arrays: Sequence[jax.Array]
) -> dict[str, Any]:
    """:meth:`Program.constrain`, compiled."""
    return program.constrain(z, arrays, names)
