"""What a trace may hold: each function refuses, by site name and with the remedy."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path
from numpyro import distributions as dist

from numpyro_llc.models._modules import PARAMS, module_leaf_name
from numpyro_llc.models._types import Parameters, PyTree, Site, Trace


class Factors(NamedTuple):
    """The user's word on what each ``numpyro.factor`` is."""

    likelihood: tuple[str, ...]
    prior: tuple[str, ...]


TAKEN = ("llc", "llc_on", "chain", "draw")
"""Names in results that no site may have: λ̂'s draws, and axes."""
AWAY = 0.01
"""How far from the centre losses are looked at once more: at it, terms may be zero that differ."""


def moved(z: Parameters) -> Parameters:
    """Parameters a little away from `z`, in every coordinate."""
    return jax.tree.map(lambda leaf: leaf + AWAY, z)


def is_traced(*values: object) -> bool:
    """Whether the numbers are not there to be checked, as inside a user's jit, or not yet."""
    unknown = jax.core.Tracer | jax.ShapeDtypeStruct
    return any(isinstance(leaf, unknown) for leaf in jax.tree.leaves(values))


def is_discrete(site: Site) -> bool:
    """Whether a sample site has a discrete support."""
    return bool(site["fn"].support.is_discrete)


def is_latent(site: Site) -> bool:
    """Whether `site` is a sample site without data."""
    return site["type"] == "sample" and not site["is_observed"]


def is_parameter(site: Site) -> bool:
    """Whether `site` is a latent sample site that is not discrete, or a param site."""
    return site["type"] == "param" or (is_latent(site) and not is_discrete(site))


def check_sites(trace: Trace, factors: Factors) -> tuple[str, ...]:
    """Check each site's kind; return the names of the likelihood sites."""
    for name, site in trace.items():
        check_mutable(name, site)
        if is_latent(site):
            _check_latent(trace, name, site)
    return _likelihood_sites(trace, factors)


def check_mutable(name: str, site: Site) -> None:
    """Refuse mutable state, unless it is known to be empty (as some nnx modules declare it)."""
    if site["type"] == "mutable" and (site["value"] is None or jax.tree.leaves(site["value"])):
        raise ValueError(
            f"Site {name!r} is mutable state (batch norm, dropout?): it may couple the data points "
            "or make the loss random. Take the module in its inference mode, its state fixed, as a "
            "function of its parameters: numpyro_llc.network_model(lambda p, x: "
            "module.apply({'params': p, **state}, x), params), or of NNX, after graph, params, "
            "state = nnx.split(module, nnx.Param, ...), network_model(lambda p, x: "
            "nnx.merge(graph, p, state)(x), params)."
        )


def _check_latent(trace: Trace, name: str, site: Site) -> None:
    observed = name.removesuffix("_unobserved") + "_observed"
    if name.endswith("_unobserved") and observed in trace:
        raise ValueError(
            f"Site {name.removesuffix('_unobserved')!r} uses `obs_mask`: its missing values become "
            "latent, one per datum, and λ is undefined. Drop those rows, or leave their likelihood "
            "out with numpyro.handlers.mask."
        )
    if isinstance(unwrap(site["fn"]), dist.Delta):
        raise ValueError(
            f"Latent site {name!r} is a Delta: it has no density. "
            "Use numpyro.deterministic, or numpyro.param."
        )


def check_states(name: str, site: Site) -> None:
    """Refuse a discrete site whose states cannot be listed."""
    fn, marked = site["fn"], site["infer"].get("enumerate", "parallel")
    kind = type(unwrap(fn)).__name__
    if marked != "parallel":
        raise ValueError(
            f"Discrete latent site {name!r} is marked infer={{'enumerate': {marked!r}}}; only "
            "'parallel' sums it out."
        )
    if not fn.has_enumerate_support:
        raise ValueError(
            f"Discrete latent site {name!r} ({kind}) has no finite list of states to sum over. "
            "Marginalise it in closed form (a Poisson rate with a Gamma prior is a GammaPoisson, a "
            "thinned Poisson is a Poisson); or cut it off at a K that is never reached, "
            f"numpyro.sample({name!r}, dist.Categorical(logits=d.log_prob(jnp.arange(K + 1)))) of "
            "its distribution d."
        )
    if fn.event_dim:
        raise ValueError(
            f"Discrete latent site {name!r} has event shape {fn.event_shape}, so that its states "
            "are all combinations of its entries. Put it into a numpyro.plate in the place of "
            ".to_event(), so that each entry is summed out by itself."
        )
    try:
        with jax.ensure_compile_time_eval():
            states = fn.enumerate_support(expand=False).reshape(-1)
    except NotImplementedError as error:
        raise ValueError(
            f"The states of discrete latent site {name!r} ({kind}) cannot be listed: {error} Use "
            "dist.Categorical over the largest list, with logits of minus infinity elsewhere."
        ) from None
    except jax.errors.ConcretizationTypeError:
        raise ValueError(
            f"The states of discrete latent site {name!r} ({kind}) depend on an array argument. "
            "Their number is structure: pass it as a Python int."
        ) from None
    is_scanned = site["infer"].get("_scan_current_index") is not None
    if is_scanned and (is_traced(states) or not _counts(np.asarray(states))):
        raise ValueError(
            f"Discrete latent site {name!r} ({kind}) inside scan must have the states 0, 1, ..., "
            "which NumPyro sums over there. Sample from 0 and add the first state afterwards."
        )


def _counts(states: np.ndarray) -> bool:
    return np.array_equal(states, np.arange(states.size))


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
        module = name.removesuffix(PARAMS)
        latents = {k for k, s in trace.items() if is_latent(s) and k.startswith(module + "/")}
        leaves = {
            f"{module}/{module_leaf_name(p)}" for p, _ in tree_leaves_with_path(site["value"])
        }
        if name.endswith(PARAMS) and latents and leaves <= latents:
            covered.append(name)
    return tuple(covered)


def listed(names: Sequence[str]) -> str:
    """Names in a message."""
    return ", ".join(repr(name) for name in names) or "none"


def unwrap(fn: dist.Distribution) -> dist.Distribution:
    """The innermost base of expanded, masked and independent wrappers."""
    wrappers = (dist.ExpandedDistribution, dist.MaskedDistribution, dist.Independent)
    while isinstance(fn, wrappers):
        fn = fn.base_dist
    return fn


def has_proper_prior(site: Site) -> bool:
    """Whether a parameter site has a prior of integral 1: its distribution and nothing else."""
    if site["type"] == "param":
        return False
    scale, base = site["scale"], site["fn"]
    if scale is not None and (is_traced(scale) or np.any(np.asarray(scale) != 1)):
        return False
    while hasattr(base, "base_dist"):  # transforms too, which `unwrap` leaves
        if isinstance(base, dist.MaskedDistribution):
            return False
        base = base.base_dist
    return not isinstance(base, dist.ImproperUniform)


def check_real(name: str, value: PyTree, what: str) -> None:
    """Refuse a parameter whose leaves are not all floats: λ̂ is of real parameters."""
    for path, leaf in tree_leaves_with_path(value):
        kind = jnp.result_type(leaf)
        if not jnp.issubdtype(kind, jnp.floating):
            raise TypeError(
                f"{what} {name + keystr(path)!r} must hold floats, which are sampled; got {kind}. "
                "Give a complex parameter as its real and imaginary parts; hold integers and truth "
                "values outside of the parameters."
            )


def check_losses(losses: Mapping[str, jax.Array]) -> None:
    """Refuse losses that are complex, and sites without any data."""
    for name, loss in losses.items():
        if jnp.issubdtype(loss.dtype, jnp.complexfloating):
            raise TypeError(
                f"The loss of observed site {name!r} is {loss.dtype}; -log p must be real. Observe "
                "the real and the imaginary part."
            )
        if loss.size == 0:
            raise ValueError(
                f"Observed site {name!r} holds no data: its losses have shape {loss.shape}. Pass "
                "data with at least one row."
            )


def check_deterministic_likelihood(
    first: Mapping[str, jax.Array], second: Mapping[str, jax.Array]
) -> None:
    """Refuse a likelihood that changes with the random key (dropout)."""
    for name in first:
        if not is_traced(first, second) and not np.array_equal(
            first[name], second[name], equal_nan=True
        ):
            raise ValueError(
                f"The likelihood of {name!r} depends on numpyro.prng_key() (dropout?): it is "
                "random. Use the module in deterministic mode."
            )
