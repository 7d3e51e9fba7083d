"""Discrete latent sites, summed out: which data they join in one datum, and its loss."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from numpyro import distributions as dist

from numpyro_llc.models import _enumeration
from numpyro_llc.models._data import DataAxes, data_weights, observation_mask
from numpyro_llc.models._enumeration import PREVIOUS, TIME, UNNAMED, Tensor, plain_name
from numpyro_llc.models._types import Losses, Site, Trace

_NAMES_IN_FULL = 3
"""Sites that the name of a joint loss lists in full."""


class Factor(NamedTuple):
    """The log probability of a site of an enumerated trace, and what is known of the site.

    `plates` are the plates, and the batch axes that no plate declares, by (negative) axis.
    """

    site: str
    log_prob: Tensor
    plates: dict[int, str]
    sizes: dict[str, int]
    scale: float | jax.Array
    is_masked: bool
    is_in_time: bool

    def states(self, discrete: Iterable[str]) -> frozenset[str]:
        """The axes that are states of `discrete` sites."""
        return frozenset(name for name in self.log_prob.inputs if plain_name(name) in discrete)


@dataclass(frozen=True)
class Marginal:
    """Sites whose densities depend on the same discrete sites, and which share one loss.

    Attributes
    ----------
    observed : tuple of str
        Observed sites.
    prior : tuple of str
        Continuous latent sites and prior factors.
    discrete : tuple of str
        The discrete sites to sum over.
    axes : tuple of (int, str)
        The axes, and their plates, that all discrete sites share: a datum is an index of these.
    is_normalized : bool
        Whether the probabilities of the states add up to one, whatever the parameters.
    """

    observed: tuple[str, ...]
    prior: tuple[str, ...]
    discrete: tuple[str, ...]
    axes: tuple[tuple[int, str], ...]
    is_normalized: bool

    def losses(self, factors: Sequence[Factor]) -> tuple[jax.Array, jax.Array]:
        """``-log p(y | w)`` of each datum y, and ``-log p(w)`` of the sites w in `prior`.

        p(y | w) = Σ p(z) p(w | z) p(y | z, w) / Σ p(z) p(w | z), sums over discrete states z.
        """
        sites = {*self.observed, *self.prior, *self.discrete}
        ours = [f for f in factors if f.site in sites]
        states = frozenset().union(*(f.states(self.discrete) for f in ours))
        sizes = {name: size for f in ours for name, size in f.sizes.items()}
        kept = {name: sizes[name] for _, name in self.axes}

        def summed(terms: Sequence[Factor]) -> jax.Array:
            tensors = [f.log_prob for f in terms]
            total = _enumeration.log_sum(tensors, states, frozenset(kept))
            return _enumeration.as_array(total, kept)

        prior = jnp.zeros(())
        if not self.is_normalized:
            prior = summed([f for f in ours if f.site not in self.observed])
        weight = self.weight(ours[0].site, ours[0].scale)
        return weight * (prior - summed(ours)), weight * -prior

    def weight(self, site: str, scale: float | jax.Array) -> jax.Array:
        """The scale of one of the sites, on the axes of the data alone."""
        scale = jnp.asarray(scale)
        shape = [scale.shape[dim] if -dim <= scale.ndim else 1 for dim, _ in self.axes]
        if scale.size != math.prod(shape):
            raise ValueError(
                f"numpyro.handlers.scale has shape {scale.shape} at site {site!r}, whose loss has "
                f"the plates {[name for _, name in self.axes]}: give one scale for each datum."
            )
        return scale.reshape(shape)


@dataclass(frozen=True)
class Enumeration:
    """How the discrete sites of a program are summed out.

    Attributes
    ----------
    sites : tuple of str
        The discrete latent sites.
    first_dim : int
        The rightmost axis that is free for their states, left of all plates.
    marginals : tuple of Marginal
    unmarked : tuple of str
        The discrete sites that are not marked to be enumerated.
    deterministic : tuple of str
        The deterministic sites that depend on discrete ones, and have no value of their own.
    """

    sites: tuple[str, ...]
    first_dim: int
    marginals: tuple[Marginal, ...] = ()
    unmarked: tuple[str, ...] = ()
    deterministic: tuple[str, ...] = ()

    @property
    def covered(self) -> frozenset[str]:
        """The sites whose densities depend on discrete sites."""
        return frozenset(name for m in self.marginals for name in (*m.observed, *m.prior))

    def losses(self, trace: Trace, wanted: Iterable[str]) -> Losses:
        """Losses of an enumerated trace, of the marginals that hold a site of `wanted`."""
        factors = factors_of(trace)
        found: Losses = {}
        for marginal in self.marginals:
            parts = zip((marginal.observed, marginal.prior), marginal.losses(factors), strict=True)
            found |= {joint_name(names): loss for names, loss in parts if {*names} & {*wanted}}
        return found

    def counts(self, trace: Trace) -> dict[str, jax.Array]:
        """Data of each loss that no mask removes, from a plain trace."""
        return {joint_name(m.observed): _count(m, trace) for m in self.marginals if m.observed}

    def weights(self, trace: Trace, losses: Losses) -> Losses:
        """How many data each of the `losses` counts as, from a plain trace."""
        found = {}
        for marginal in self.marginals:
            if (name := joint_name(marginal.observed)) in losses:
                scale = trace[marginal.observed[0]]["scale"]
                weight = marginal.weight(name, 1.0 if scale is None else scale)
                found[name] = data_weights(weight, losses[name])
        return found

    def data_axes(self, trace: Trace) -> dict[str, DataAxes]:
        """The axes of each loss, from an enumerated trace."""
        return {joint_name(m.observed): _axes(m, trace) for m in self.marginals if m.observed}


def joint_name(names: Sequence[str]) -> str:
    """The name of the loss that several sites share."""
    more = len(names) - _NAMES_IN_FULL
    return "+".join(names) if more <= 0 else f"{names[0]}+{len(names) - 1} more"


def factors_of(trace: Trace) -> list[Factor]:
    """The factors of an enumerated trace."""
    return [_factor(site) for site in trace.values() if "dim_to_name" in site.get("infer", ())]


def _factor(site: Site) -> Factor:
    tensor, frames = _enumeration.named(site), site["cond_indep_stack"]
    names = site["infer"]["dim_to_name"]
    unnamed = {dim: name for dim, name in names.items() if name.startswith(UNNAMED)}
    return Factor(
        site=plain_name(site["name"]),
        log_prob=tensor,
        plates=unnamed | {frame.dim: frame.name for frame in frames},
        sizes={name: tensor.inputs[name].size for name in unnamed.values()}
        | {frame.name: frame.size for frame in frames},
        scale=site.get("plate_to_scale", {}).get(None, 1.0),  # without that of a subsampled plate
        is_masked=_is_masked(site["fn"]),
        is_in_time=site["name"].startswith(PREVIOUS) or any(TIME in n for n in names.values()),
    )


def _is_masked(fn: dist.Distribution | None) -> bool:
    while fn is not None:
        if isinstance(fn, dist.MaskedDistribution):
            return True
        fn = getattr(fn, "base_dist", None)
    return False


def _axes(marginal: Marginal, trace: Trace) -> DataAxes:
    """The axes of the losses of a marginal, from an enumerated trace."""
    ours = [f for f in factors_of(trace) if f.site in marginal.discrete]
    sizes = {name: size for f in ours for name, size in f.sizes.items()}
    names = [name for _, name in marginal.axes]
    is_plate = {name: not name.startswith(UNNAMED) for name in names}
    return DataAxes(
        tuple(sizes[name] for name in names),
        {name: sizes[name] for name in names if is_plate[name]},
        {k - len(names): name for k, name in enumerate(names) if is_plate[name]},
        marginal.discrete,
    )


def _count(marginal: Marginal, trace: Trace) -> jax.Array:
    """Data of a marginal of which not all observations are masked, from a plain trace."""
    seen = jnp.array(False)
    for name in marginal.observed:
        mask = observation_mask(trace[name])
        dims = [dim for dim, _ in marginal.axes]
        rest = tuple(k for k in range(mask.ndim) if k - mask.ndim not in dims)
        seen = seen | jnp.any(mask, axis=rest)
    return jnp.sum(seen)
