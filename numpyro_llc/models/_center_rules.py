"""What a centre must be to a trace: names, forms and values, refused by site name."""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path
from numpyro.distributions import constraints

from numpyro_llc.errors import NonFiniteCenterError
from numpyro_llc.models._program import is_real
from numpyro_llc.models._rules import (
    check_real,
    is_discrete,
    is_latent,
    is_parameter,
    is_traced,
    listed,
)
from numpyro_llc.models._types import PyTree, Trace

EDGE = 0.98
"""A value this near, relatively, to the logarithm of the least float is one that NumPyro's
transforms clipped: they map an edge of the support there, not to infinity."""


def wrong_shape(name: str, wanted: tuple[int, ...], got: tuple[int, ...]) -> ValueError:
    """The error for a centre's value of another shape than its site."""
    return ValueError(
        f"`center[{name!r}]` must have shape {wanted}; got {got}. It is the constrained value of "
        "the site, of the shape that the model gives it."
    )


def check_like(name: str, value: PyTree, initial: PyTree) -> None:
    """Check a param's value against the structure and shapes of its initial value."""
    wanted, got = str(jax.tree.structure(initial)), str(jax.tree.structure(value))
    if wanted != got:
        raise ValueError(
            f"`center[{name!r}]` must be a pytree like the param's initial value, {wanted}; "
            f"got {got}."
        )
    check_real(name, initial, "The initial value of param site")
    pairs = zip(tree_leaves_with_path(value), jax.tree.leaves(initial), strict=True)
    for (path, leaf), like in pairs:
        if jnp.shape(leaf) != jnp.shape(like):
            raise wrong_shape(name + keystr(path), jnp.shape(like), jnp.shape(leaf))


def check_names(trace: Trace, center: Mapping[str, PyTree], modules: Sequence[str]) -> None:
    """Check that `center` names exactly the model's parameter sites."""
    latents = [name for name, site in trace.items() if is_latent(site) and is_parameter(site)]
    params = [k for k, site in trace.items() if site["type"] == "param" and k not in modules]
    for name in params:
        if name not in center:
            _check_whole(name, trace[name]["value"], center)
            raise ValueError(
                f"numpyro.param {name!r} is not in `center` and would stay fixed at its initial "
                "value. Add it to `center`; or, to hold it fixed, hide it: "
                "numpyro.handlers.block(numpyro.handlers.substitute(model, data={...}), "
                f"hide=[{name!r}])."
            )
    missing = [name for name in latents if name not in center]
    if missing:
        raise ValueError(
            f"`center` lacks {listed(missing)}. It must give a constrained value for every latent "
            f"site of the model: {listed(latents + params)}."
        )
    unknown = [
        name
        for name in center
        if name not in latents + params and trace.get(name, {}).get("type") != "deterministic"
    ]
    if summed := [
        k for k in unknown if k in trace and is_latent(trace[k]) and is_discrete(trace[k])
    ]:
        raise ValueError(
            f"`center` names {listed(summed)}, which is discrete and summed out: it has no value "
            "at w*. Leave it out; or make it data: numpyro.handlers.condition(model, data={...})."
        )
    if unknown:
        raise ValueError(
            f"`center` names {listed(unknown)}, which the model does not have. "
            f"Its parameter sites are {listed(latents + params)}."
        )


def _check_whole(name: str, value: PyTree, center: Mapping[str, PyTree]) -> None:
    """Refuse the parameters of a network in the place of ``{site: parameters}``."""
    if isinstance(value, Mapping) and center and set(center) == set(value):
        raise ValueError(
            f"`center` must name the site of the parameters: center={{{name!r}: params}}; got the "
            f"parameters themselves, {listed(list(center))}."
        )


def check_shapes(trace: Trace, center: Mapping[str, PyTree], parameters: Sequence[str]) -> None:
    """Check the values of whole sites, those inside ``scan`` with their leading axis too."""
    for name in parameters:
        if trace[name]["type"] == "sample":
            wanted, got = jnp.shape(trace[name]["value"]), jnp.shape(center[name])
            if wanted != got:
                raise wrong_shape(name, wanted, got)


def is_inside(value: jax.Array, z: jax.Array, support: constraints.Constraint) -> jax.Array:
    """Whether a constrained value is in the interior of its support: its image `z` is finite."""
    if is_real(support):
        return jnp.array(True)
    far = EDGE * abs(math.log(float(jnp.finfo(z.dtype).tiny)))
    return jnp.all(jnp.abs(z) < far) & jnp.all(support(value))


def all_finite(value: PyTree) -> jax.Array:
    """Whether all leaves are finite."""
    return jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(value)]).all()


def check_center(
    inside: Mapping[str, jax.Array],
    finite: Mapping[str, jax.Array],
    center: Mapping[str, PyTree] | None,
) -> None:
    """Refuse NaN, values outside the support, and values on its edge."""
    if center is None or is_traced(inside, finite):
        return
    for name, fine in finite.items():
        if not fine:
            raise NonFiniteCenterError(f"`center[{name!r}]` holds NaN or infinite values.")
    for name, fine in inside.items():
        if not fine:
            raise ValueError(
                f"`center[{name!r}]` is outside or on the edge of its support; got "
                f"{np.asarray(center[name]).tolist()}. `center` holds values as the model has "
                "them, not their logarithms or other unconstrained coordinates. λ̂ is defined here "
                "for interior points: move it inside. Where find_center ended there, the "
                "likelihood is largest at that edge: leave out of the model what is zero or "
                "certain there (an empty category, a scale that vanishes), or take "
                "find_center(objective='map'). An angle (VonMises) "
                "has no edge after numpyro.infer.reparam.CircularReparam."
            )
