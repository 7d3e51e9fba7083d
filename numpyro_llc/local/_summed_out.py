"""A model whose discrete sites are summed out, as a NumPyro model that any kernel takes."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpyro
from numpyro import handlers

from numpyro_llc.local._parts import Sites
from numpyro_llc.models import ModelReading, Site, as_found


def summed_out(reading: ModelReading) -> Callable:
    """The model without its discrete sites and the observed ones that depend on them.

    Each joint loss is a ``numpyro.factor`` of its own, one value per datum. Tempering scales it:
    to scale the observed sites would temper p(x | state), inside the sum over states.
    """
    program, enumeration = reading.program, reading.program.enumeration
    if enumeration is None:
        return program.model
    hidden = {*enumeration.sites, *enumeration.covered, *enumeration.deterministic}
    hidden -= {*program.parameters}

    def run(*args: object, **kwargs: object) -> object:
        show, states = handlers.trace(), handlers.substitute(substitute_fn=_any_state)
        with show as trace, handlers.block(hide_fn=lambda site: site.get("name") in hidden), states:
            result = program.model(*args, **kwargs)
        found = as_found({name: trace[name]["value"] for name in program.parameters})
        losses = program.marginal_losses(reading.arrays, found, program.likelihood)
        for name, loss in losses.items():
            numpyro.factor(name, -loss)
        return result

    return run


def check_sampled(names: Sites, reading: ModelReading) -> None:
    """Refuse a discrete site among those to sample."""
    discrete = () if reading.program.enumeration is None else reading.program.enumeration.sites
    listed = [names] if isinstance(names, str) else names
    if summed := [name for name in discrete if isinstance(listed, Iterable) and name in listed]:
        raise ValueError(
            f"`sites` names {summed}, discrete and summed out: no chain moves them. Leave them out."
        )


def _any_state(site: Site) -> jax.Array | None:
    """A state of a discrete latent site: whatever depends on it is hidden."""
    if site["type"] != "sample" or site["is_observed"] or not site["fn"].support.is_discrete:
        return None
    shape = site["kwargs"]["sample_shape"] + tuple(site["fn"].shape())
    return jnp.broadcast_to(site["fn"].enumerate_support(expand=False).reshape(-1)[0], shape)
