"""What a trace may hold: each function refuses, by site name and with the remedy."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist
from numpyro.distributions import biject_to, constraints

from numpyro_llc.models._program import is_real, site_loss

Trace = dict[str, dict[str, Any]]


class Factors(NamedTuple):
    """The user's word on what each ``numpyro.factor`` is."""

    likelihood: tuple[str, ...]
    prior: tuple[str, ...]


def _known(*values: Any) -> bool:
    """Whether the numbers are there to be checked: false inside a user's jit."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def is_discrete(site: dict[str, Any]) -> bool:
    """Whether a sample site has a discrete support."""
    return bool(site["fn"].support.is_discrete)


def is_latent(site: dict[str, Any]) -> bool:
    """Whether `site` is a sample site without data."""
    return site["type"] == "sample" and not site["is_observed"]


def check_sites(trace: Trace, factors: Factors) -> tuple[str, ...]:
    """Check each site's kind; return the names of the likelihood sites."""
    for name, site in trace.items():
        if site["type"] == "mutable":
            raise ValueError(
                f"Site {name!r} is mutable state (batch norm?): it couples the data points, so "
                "the loss is no sum over data. Use the module in inference mode, with its "
                "statistics fixed."
            )
        if is_latent(site):
            _check_latent(trace, name, site)
    return _likelihood_sites(trace, factors)


def _check_latent(trace: Trace, name: str, site: dict[str, Any]) -> None:
    observed = name.removesuffix("_unobserved") + "_observed"
    if name.endswith("_unobserved") and observed in trace:
        raise ValueError(
            f"Site {name.removesuffix('_unobserved')!r} uses `obs_mask`: its missing values become "
            "latent, one per datum, and λ is undefined. Drop those rows, or leave their likelihood "
            "out with numpyro.handlers.mask."
        )
    if is_discrete(site):
        raise ValueError(
            f"Latent site {name!r} is discrete: tempering it would temper p(x | {name}), not the "
            "marginal likelihood. Marginalise it, for a mixture with "
            "numpyro.distributions.MixtureSameFamily."
        )
    if isinstance(unwrap(site["fn"]), dist.Delta):
        raise ValueError(
            f"Latent site {name!r} is a Delta: it has no density. "
            "Use numpyro.deterministic, or numpyro.param."
        )


def _likelihood_sites(trace: Trace, factors: Factors) -> tuple[str, ...]:
    observed = [k for k, site in trace.items() if site["type"] == "sample" and not is_latent(site)]
    factor_sites = [k for k in observed if trace[k]["infer"].get("is_auxiliary")]
    for name in (*factors.likelihood, *factors.prior):
        if name not in factor_sites:
            raise ValueError(
                f"`likelihood_factors`/`prior_factors` name {name!r}, which is no numpyro.factor "
                f"of the model; it has {factor_sites or 'none'}."
            )
    for name in factor_sites:
        if (name in factors.likelihood) == (name in factors.prior):
            raise ValueError(
                f"Factor site {name!r} may be prior or likelihood. Pass "
                f"likelihood_factors=[{name!r}] or prior_factors=[{name!r}]."
            )
    likelihood = tuple(k for k in observed if k not in factors.prior)
    if not likelihood:
        raise ValueError(
            "The model has no observed site, so it has no loss. Pass the data in `model_args` or "
            "`model_kwargs`, and give it to numpyro.sample(..., obs=...)."
        )
    return likelihood


def random_module_params(trace: Trace) -> tuple[str, ...]:
    """Param sites whose leaves are replaced by the sample sites of a ``random_*_module``."""
    covered = []
    for name, site in trace.items():
        if site["type"] != "param":
            continue
        module = name.removesuffix("$params")
        latents = sum(is_latent(s) and k.startswith(module + "/") for k, s in trace.items())
        leaves = len(jax.tree.leaves(site["value"]))
        if name.endswith("$params") and latents and leaves in (0, latents):
            covered.append(name)
    return tuple(covered)


def check_names(trace: Trace, center: Mapping[str, Any], modules: Sequence[str]) -> None:
    """Check that `center` names exactly the model's parameter sites."""
    latents = [name for name, site in trace.items() if is_latent(site)]
    params = [k for k, site in trace.items() if site["type"] == "param" and k not in modules]
    for name in params:
        if name not in center:
            raise ValueError(
                f"numpyro.param {name!r} is not in `center` and would stay fixed at its initial "
                "value. Add it to `center`; or, to hold it fixed, hide it: "
                "numpyro.handlers.block(numpyro.handlers.substitute(model, data={...}), "
                f"hide=[{name!r}])."
            )
    missing = [name for name in latents if name not in center]
    if missing:
        raise ValueError(
            f"`center` lacks {_listed(missing)}. It must give a constrained value for every latent "
            f"site of the model: {_listed(latents + params)}."
        )
    unknown = [
        name
        for name in center
        if name not in latents + params and trace.get(name, {}).get("type") != "deterministic"
    ]
    if unknown:
        raise ValueError(
            f"`center` names {_listed(unknown)}, which the model does not have. "
            f"Its parameter sites are {_listed(latents + params)}."
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"


def unconstrain(name: str, value: Any, support: constraints.Constraint) -> Any:
    """``T^-1(value)``, refusing NaN, values outside the support, and values on its edge."""
    if _known(value) and not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(value)):
        raise ValueError(f"`center[{name!r}]` holds NaN or infinite values.")
    if is_real(support):
        return value
    if len(jax.tree.leaves(value)) != 1:
        raise ValueError(
            f"numpyro.param {name!r} is a pytree with a constraint; only arrays can have one."
        )
    z = biject_to(support).inv(value)
    far = 0.98 * abs(math.log(float(jnp.finfo(z.dtype).tiny)))
    interior = jnp.all(jnp.abs(z) < far) & jnp.all(support(value))
    if _known(interior) and not bool(interior):
        raise ValueError(
            f"`center[{name!r}]` is outside or on the edge of its support {support}; got "
            f"{np.asarray(value).tolist()}. λ̂ is defined here for interior points: move it inside."
        )
    return z


def unwrap(fn: dist.Distribution) -> dist.Distribution:
    """The innermost base of expanded, masked and independent wrappers."""
    wrappers = (dist.ExpandedDistribution, dist.MaskedDistribution, dist.Independent)
    while isinstance(fn, wrappers):
        fn = fn.base_dist
    return fn


def batch_shape(site: dict[str, Any]) -> tuple[int, ...]:
    """Batch shape of an observed site: of its distribution and its value, broadcast."""
    fn, value_shape = site["fn"], jnp.shape(site["value"])
    kept = len(value_shape) - fn.event_dim
    return np.broadcast_shapes(tuple(fn.batch_shape), value_shape[: max(kept, 0)])


def observation_mask(site: dict[str, Any]) -> Any:
    """The boolean mask of an observed site (``handlers.mask`` or ``Distribution.mask``), or True."""
    mask, fn = True, site["fn"]
    while fn is not None:
        if isinstance(fn, dist.MaskedDistribution):
            mask = mask & fn._mask
        fn = getattr(fn, "base_dist", None)
    return mask


def infer_num_data(sites: Sequence[dict[str, Any]]) -> int:
    """n: the common number of data points of the observed sites.

    A site has as many as its batch shape (plates, or the shape of the observations) has entries,
    less those masked out.
    """
    counts = {}
    for site in sites:
        shape = batch_shape(site)
        if math.prod(shape) < 2:
            raise ValueError(
                f"Cannot infer n: observed site {site['name']!r} has batch shape {shape} "
                "(to_event?). Pass `num_data`, which must be at least 2."
            )
        kept = jnp.broadcast_to(jnp.asarray(observation_mask(site)), shape)
        plates = frozenset(frame.name for frame in site["cond_indep_stack"])
        counts[site["name"]] = (int(jnp.sum(kept)), plates)
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name!r}: {n}" for name, (n, _) in counts.items())
        raise ValueError(
            f"Cannot infer n: the observed sites differ in size or plate ({found}). Pass "
            "`num_data`, the number of independent data points."
        )
    return next(iter(counts.values()))[0]


def check_observations(trace: Trace, likelihood: Sequence[str]) -> None:
    """Refuse NaN or infinite data that is not masked out."""
    for name in likelihood:
        site = trace[name]
        value, mask = site["value"], jnp.asarray(observation_mask(site))
        if not _known(value, mask) or not jnp.issubdtype(jnp.result_type(value), jnp.inexact):
            continue
        mask = jnp.expand_dims(mask, tuple(range(mask.ndim, mask.ndim + site["fn"].event_dim)))
        bad = int(jnp.sum(~jnp.isfinite(value) & mask))
        if bad:
            raise ValueError(
                f"Observed site {name!r} holds {bad} NaN or infinite value(s). Drop those rows, or "
                "mask them with numpyro.handlers.mask (with a finite filler in their place)."
            )


def check_local_latents(trace: Trace, likelihood: Sequence[str]) -> None:
    """Refuse latent sites with one value per datum: the model grows with n."""
    for observed in likelihood:
        frames = {frame.name: frame.size for frame in trace[observed]["cond_indep_stack"]}
        # Data axes that no plate declares mean that a plate indexes something else (outputs).
        if not frames or math.prod(batch_shape(trace[observed])) != math.prod(frames.values()):
            continue
        for name, site in trace.items():
            own = {f.name for f in site["cond_indep_stack"]} if is_latent(site) else set()
            if set(frames) <= own:
                raise ValueError(
                    f"Latent site {name!r} has one value per observation of {observed!r} (plate "
                    f"{_listed(sorted(frames))}), so the number of parameters grows with n and λ "
                    "is undefined. Marginalise it."
                )


def check_deterministic_likelihood(first: Trace, second: Trace, likelihood: Sequence[str]) -> None:
    """Refuse a likelihood that changes with the random key (dropout)."""
    for name in likelihood:
        one, two = site_loss(first[name]), site_loss(second[name])
        if _known(one, two) and not bool(jnp.all((one == two) | (jnp.isnan(one) & jnp.isnan(two)))):
            raise ValueError(
                f"The likelihood of {name!r} depends on numpyro.prng_key() (dropout?): it is "
                "random. Use the module in deterministic mode."
            )
