"""Read the discrete latent sites of a program: can they be summed out, and which data they join."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp

from numpyro_llc.errors import warn
from numpyro_llc.models import _enumeration, _rules
from numpyro_llc.models._center_values import as_found
from numpyro_llc.models._data import DataAxes
from numpyro_llc.models._dependence import depends
from numpyro_llc.models._discrete import Enumeration, Factor, Marginal, factors_of
from numpyro_llc.models._enumeration import UNNAMED, plain_name
from numpyro_llc.models._program import Program
from numpyro_llc.models._types import Arrays, Parameters, PyTree, Site, Trace


def read_enumeration(
    unread: Program, trace: Trace, arrays: Arrays, likelihood: Sequence[str]
) -> tuple[Enumeration | None, dict[str, DataAxes]]:
    """How the discrete latent sites of a plain trace are summed out, and the axes of the losses.

    Raises
    ------
    ValueError
        For sites that cannot be summed out, or whose sum has no end of terms.
    ImportError
        Where funsor is missing.
    """
    sites = tuple(k for k, s in trace.items() if _rules.is_latent(s) and _rules.is_discrete(s))
    if not sites:
        return None, {}
    _enumeration.require_funsor()
    unmarked = tuple(name for name in sites if not trace[name]["infer"].get("enumerate"))
    found = Enumeration(sites, _first_dim(trace), unmarked=unmarked)
    values = {k: s["value"] for k, s in trace.items() if _rules.is_parameter(s)}
    enumerated = unread.trace(arrays, as_found(values), first_dim=found.first_dim)
    _check_axes(enumerated, found)
    found = replace(found, marginals=_find_marginals(enumerated, sites, likelihood))
    # One state alone needs no axis.
    several = {plain_name(k) for k, s in enumerated.items() if jnp.size(s["value"]) > 1}
    states = {k: trace[k]["value"] for k in sites if k in several}
    dependent = _dependent(unread, values, arrays, states) if states else {}
    factors = factors_of(enumerated)
    _check_in_place(dependent, found, states, factors)
    _check_kept(dependent, trace, factors)
    varying = [k for k, n in dependent.items() if n and trace[k]["type"] == "deterministic"]
    return replace(found, deterministic=tuple(varying)), found.data_axes(enumerated)


def say_once(model: Callable, enumeration: Enumeration | None) -> None:
    """Warn, once for a model, that sites without a mark are summed out."""
    if enumeration is not None and enumeration.unmarked:
        _say(model, enumeration.unmarked)


@cache
def _say(model: Callable, sites: tuple[str, ...]) -> None:
    warn(
        f"The discrete latent sites {list(sites)} are summed out, as by NumPyro's MCMC. Mark them "
        "with infer={'enumerate': 'parallel'}, or the model with "
        "numpyro.contrib.funsor.config_enumerate, to say so."
    )


def _dependent(
    unread: Program, values: Parameters, arrays: Arrays, states: Parameters
) -> dict[str, frozenset[str]]:
    """Of the sites at these parameters, the discrete ones of `states` that they depend on."""

    def run(states: Parameters) -> dict[str, PyTree]:
        again = unread.trace(arrays, as_found(values | states))
        return {name: _value(site) for name, site in again.items() if _is_looked_at(site)}

    return depends(run, states)


def _check_in_place(
    dependent: Mapping[str, frozenset[str]],
    found: Enumeration,
    states: Parameters,
    factors: Sequence[Factor],
) -> None:
    """Refuse a site that has the axis of a discrete site that it does not depend on."""
    for factor in factors:
        if factor.site in dependent:
            axes = {plain_name(name) for name in factor.states(states)}
            if axes - dependent[factor.site]:
                raise _moved(factor.site, found)


def _check_kept(
    dependent: Mapping[str, frozenset[str]], trace: Trace, factors: Sequence[Factor]
) -> None:
    """Refuse a site that depends on a discrete one, but has no axis for its states."""
    for name, needed in dependent.items():
        axes = {plain_name(k) for f in factors if f.site == name for k in f.log_prob.inputs}
        if trace[name]["type"] == "sample" and (lost := sorted(needed - axes - {name})):
            raise ValueError(
                f"Site {name!r} depends on the discrete latent sites {lost}, but not on each of "
                "their states by itself: a sum, a product or an index over a discrete value joins "
                "or moves its states. NumPyro puts them on new axes to the left: keep these, and "
                "use a discrete value in the plates that it is in."
            )


def _value(site: Site) -> PyTree:
    return site["value"] if site["type"] == "deterministic" else site["fn"].log_prob(site["value"])


def _is_looked_at(site: Site) -> bool:
    is_density = site["type"] == "sample" and (site["is_observed"] or _rules.is_discrete(site))
    # All that one scan gives may depend on all that it takes: no site of it can be told apart.
    return site["type"] == "deterministic" or (is_density and not site.get("_control_flow_done"))


def _first_dim(trace: Trace) -> int:
    """The rightmost axis that no site of a plain trace uses as a batch axis."""
    used = [0]
    for site in trace.values():
        if site["type"] == "sample":
            value_ndim = jnp.ndim(site["value"]) - site["fn"].event_dim
            is_scanned = bool(site.get("_control_flow_done"))
            used.append(max(len(site["fn"].batch_shape), value_ndim) - is_scanned)
            used += [-frame.dim for frame in site["cond_indep_stack"]]
    return -1 - max(used)


def _check_axes(trace: Trace, found: Enumeration) -> None:
    """Refuse a site with an axis among those of the states that belongs to no state.

    The model has moved the states: their axes would be taken for those of others.
    """
    for name, site in trace.items():
        names = site.get("infer", {}).get("dim_to_name", {})
        if any(dim <= found.first_dim and k.startswith(UNNAMED) for dim, k in names.items()):
            raise _moved(name, found)


def _moved(name: str, found: Enumeration) -> ValueError:
    """The error for a site that has its states on the axes of others."""
    return ValueError(
        f"Site {name!r} has the states of the discrete latent sites {list(found.sites)} on other "
        "axes than NumPyro gave them: a new axis (jnp.stack(..., axis=-1), [..., None], a matrix "
        "product) has moved them to the left. Keep the plates their rightmost axes: "
        "sum(x[:, k] * w[k] for k in ...) in place of x @ w, or take the new axis out again."
    )


def _find_marginals(
    trace: Trace, discrete: Sequence[str], likelihood: Sequence[str]
) -> tuple[Marginal, ...]:
    """Sites of an enumerated trace by the discrete sites that their densities depend on."""
    factors = [f for f in factors_of(trace) if f.site in discrete or f.states(discrete)]
    for factor in factors:
        _check_factor(factor, factors, discrete, likelihood)
    found = []
    for group in _connected(factors, discrete):
        ours = [f for f in factors if f.site in group]
        marginal = _marginal(ours, discrete, likelihood)
        if marginal.observed or marginal.prior:
            _check_scales(ours)
            found.append(marginal)
            _try(marginal, ours)
    return tuple(found)


def _connected(factors: Sequence[Factor], discrete: Sequence[str]) -> list[set[str]]:
    """Sets of sites, each of which shares no discrete site with another."""
    groups: list[set[str]] = []
    for factor in factors:
        own = {factor.site, *map(plain_name, factor.states(discrete))}
        touched = [group for group in groups if group & own]
        groups = [group for group in groups if not group & own] + [own.union(*touched)]
    return groups


def _marginal(
    ours: Sequence[Factor], discrete: Sequence[str], likelihood: Sequence[str]
) -> Marginal:
    names = list(dict.fromkeys(f.site for f in ours))
    shared = set.intersection(*({*f.plates.items()} for f in ours if f.site in discrete))
    prior = tuple(k for k in names if k not in discrete and k not in likelihood)
    return Marginal(
        observed=tuple(k for k in names if k in likelihood),
        prior=prior,
        discrete=tuple(k for k in names if k in discrete),
        axes=tuple(sorted(shared)),
        is_normalized=not prior and not any(f.is_masked for f in ours if f.site in discrete),
    )


def _check_factor(
    factor: Factor, factors: Sequence[Factor], discrete: Sequence[str], likelihood: Sequence[str]
) -> None:
    """Refuse a site that uses a discrete one outside of its plates, or in time with it."""
    for name in map(plain_name, factor.states(discrete)):
        for plate in {p for f in factors if f.site == name for p in f.plates.values()}:
            if plate not in factor.plates.values():
                where = "a batch axis" if plate.startswith(UNNAMED) else f"plate {plate!r}"
                raise ValueError(
                    f"Site {factor.site!r} depends on the discrete latent site {name!r} but is "
                    f"outside of its {where}, so the sum over its states does not factor. Put "
                    f"{factor.site!r} into the plate too, or {name!r} outside of it."
                )
    if factor.site not in discrete and factor.site not in likelihood and factor.is_in_time:
        raise ValueError(
            f"Latent site {factor.site!r} has one value for each step of `scan`, and its prior "
            "depends on a discrete state: it is local to a sequence, and λ is undefined. "
            "Marginalise it."
        )


def _check_scales(ours: Sequence[Factor]) -> None:
    first = ours[0]
    for factor in ours:
        if factor.scale is not first.scale and not _is_equal(factor.scale, first.scale):
            raise ValueError(
                f"Sites {first.site!r} and {factor.site!r} share a discrete latent site but not "
                "their numpyro.handlers.scale. Put all of them under the same scale, the discrete "
                "site too: it then weighs the loss of each datum."
            )


def _is_equal(one: float | jax.Array, two: float | jax.Array) -> bool:
    return not isinstance(one, jax.Array) and not isinstance(two, jax.Array) and one == two


def _try(marginal: Marginal, ours: Sequence[Factor]) -> None:
    try:
        marginal.losses(ours)
    except _enumeration.Intractable:
        raise ValueError(
            f"The discrete latent sites {list(marginal.discrete)} are in different plates and meet "
            f"in site(s) {list(marginal.observed or marginal.prior)}, so that the sum over their "
            "states does not factor: it has exponentially many terms. Give one of them no plate, "
            "or marginalise by hand."
        ) from None
