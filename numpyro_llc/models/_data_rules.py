"""What the data of a model must be, and how its parameters may grow with them."""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from numpyro_llc.models import _data
from numpyro_llc.models._rules import is_parameter, is_traced
from numpyro_llc.models._types import Trace


def check_observations(bad: Mapping[str, jax.Array]) -> None:
    """Refuse NaN or infinite data that is not masked out."""
    for name, count in bad.items():
        if not is_traced(count) and count:
            raise ValueError(
                f"Observed site {name!r} holds {count} NaN or infinite value(s). Drop those rows, "
                "or mask them with numpyro.handlers.mask (with a finite filler in their place)."
            )


def local_latents(trace: Trace, data_axes: Mapping[str, _data.DataAxes]) -> dict[str, str]:
    """Latent sites with one value per observation, and of which site; the model grows with n.

    Unless an observation stands for many data points, as a binomial count does.
    """
    found = {}
    for observed, (shape, plates, *_) in data_axes.items():
        # Data axes that no plate declares mean that a plate indexes something else (outputs).
        if not plates or math.prod(shape) != math.prod(plates.values()):
            continue
        for name, site in trace.items():
            if site["type"] != "sample" or not is_parameter(site):
                continue
            if set(plates) <= {frame.name for frame in site["cond_indep_stack"]}:
                found[name] = observed
    return found


def check_local_latents(found: Mapping[str, str]) -> None:
    """Refuse what :func:`local_latents` found, where the user does not say what n is."""
    for name, observed in found.items():
        raise ValueError(
            f"Latent site {name!r} has one value per observation of {observed!r}, so the number of "
            "parameters grows with n and λ is undefined. Marginalise it. If each observation "
            "stands for many data points, as a count of a binomial does, pass `num_data`, their "
            "number in all."
        )


def check_full_data(trace: Trace, likelihood: Sequence[str]) -> None:
    """Refuse observations that a plate would repeat: a batch, or a single row."""
    for name in likelihood:
        site = trace[name]
        event_dim, shape = site["fn"].event_dim, jnp.shape(site["value"])
        for frame in site["cond_indep_stack"]:
            axis = frame.dim - event_dim
            size = shape[axis] if -axis <= len(shape) else 1
            if size != frame.size and not site["infer"].get("is_auxiliary"):
                raise ValueError(
                    f"Observed site {name!r} has shape {shape}, which does not fill plate "
                    f"{frame.name!r} of size {frame.size}. Pass the full data."
                )


def check_growth(plates: Mapping[str, Sequence[int]], num_data: int) -> None:
    """Refuse latent sites in plates as large as the data: as many parameters as data points."""
    for name, sizes in plates.items():
        if sizes and math.prod(sizes) >= num_data:
            raise ValueError(
                f"Latent site {name!r} has {math.prod(sizes)} values in its plates, one or more "
                f"for each of the {num_data} data points, so λ is undefined. Marginalise it."
            )
