"""Read a NumPyro program: its sites, its centre, its data; refuse what has no λ̂."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr

from numpyro_llc.models import _center_rules, _data, _data_rules, _rules
from numpyro_llc.models._arguments import check_model, split_arguments
from numpyro_llc.models._center_values import as_values
from numpyro_llc.models._computes import computes
from numpyro_llc.models._discrete_sites import say_once
from numpyro_llc.models._enumeration import without_enum
from numpyro_llc.models._fingerprint import calls, fingerprint, unused_leaves
from numpyro_llc.models._held import hold_what_is_read
from numpyro_llc.models._measured import UNIFORM, unconstrain_draws
from numpyro_llc.models._modules import by_site
from numpyro_llc.models._program import Program
from numpyro_llc.models._slices import measured
from numpyro_llc.models._sources import Source, check_in_memory, shapes_of, sources_of
from numpyro_llc.models._structure import structure_of
from numpyro_llc.models._types import Arrays, Losses, Parameters, PyTree


@dataclass(frozen=True)
class ModelReading:
    """What a model says of itself.

    Attributes
    ----------
    program : Program
        The compile-time part.
    arrays : tuple of jax.Array
        The model's array arguments: the runtime part.
    center : dict
        Unconstrained parameters ``z*``.
    center_losses : dict of str to jax.Array
        Per-datum losses at the centre, nats, for each likelihood site.
    data_weights : dict of str to jax.Array
        How many data each of these losses counts as.
    observed : dict of str to jax.Array
        Values of the likelihood sites; their shapes, where rows of the data lie elsewhere.
    data_axes : dict of str to DataAxes
        Batch shape and plates of each likelihood site.
    data_counts : dict of str to jax.Array
        Data points of each likelihood site that no mask removes.
    axis_names : dict of str to dict of int to str
        For each sample and deterministic site, what (negative) axes of its value are called.
    latent_plates : dict of str to tuple of int
        Sizes of the plates of each latent sample site.
    deterministic : tuple of str
        Names of the deterministic sites.
    subsampled : tuple of str
        Names of the plates that declare a `subsample_size`.
    improper : tuple of str
        Parameters with no prior of integral 1: param sites, ``ImproperUniform``, priors that
        ``handlers.scale`` or ``handlers.mask`` change.
    local_latents : dict of str to str
        Latent sites with one value per observation, and the site that is observed.
    without_effect : tuple of str
        Leaves of `center` that the losses do not depend on, as hyperparameters of a prior.
    stream : tuple of Source
        What batches are drawn from in the place of `arrays`, if they come from a stream.
    """

    program: Program
    arrays: Arrays
    center: Parameters
    center_losses: Losses
    data_weights: Losses
    observed: dict[str, jax.Array]
    data_axes: dict[str, _data.DataAxes]
    data_counts: dict[str, jax.Array]
    axis_names: dict[str, dict[int, str]]
    latent_plates: dict[str, tuple[int, ...]]
    deterministic: tuple[str, ...]
    subsampled: tuple[str, ...]
    improper: tuple[str, ...]
    local_latents: dict[str, str]
    without_effect: tuple[str, ...]
    stream: tuple[Source, ...] = ()

    def num_data(self, given: int | None = None) -> int:
        """n, given or from plates and shapes; raises where it is in doubt, or parameters grow."""
        is_traced = given is None and _rules.is_traced(self.data_counts)
        if given is None:
            _data_rules.check_local_latents(self.local_latents)
            counts = {
                name: math.prod(self.data_axes[name].shape) if is_traced else int(count)
                for name, count in self.data_counts.items()
            }
            given = _data.infer_num_data(self.data_axes, counts)
        _data_rules.check_growth(self.latent_plates, given)
        if not is_traced:
            return given
        # Of a traced model the count, which a mask may lower, is known when it runs.
        count: PyTree = next(iter(self.data_counts.values()))
        return count

    def keyed_by_prior(self) -> Program:
        """The program for what depends on the prior too: a changed prior compiles again."""
        arrays = shapes_of(self.arrays)
        jaxpr = jax.make_jaxpr(self.program.with_prior().losses)(self.center, arrays)
        return replace(self.program, fingerprint=fingerprint(jaxpr), computes=computes(jaxpr))

    def at(self, center: Mapping[str, PyTree]) -> "ModelReading":
        """The same model at another centre: numbers only, nothing is read again."""
        given = by_site(as_values(center), self.program.parameters, self.program.latents)
        if set(given) != set(self.program.parameters):
            raise ValueError(
                f"`centers` must all have the parameters of the first, {sorted(self.center)}; got "
                f"{sorted(given)}."
            )
        for name, tree in given.items():
            if len(jax.tree.leaves(self.center[name])) > 1:
                _center_rules.check_like(name, tree, self.center[name])
        seen = measured(self.program, UNIFORM, given, self.arrays)
        _center_rules.check_center(seen.inside, seen.finite, given)
        _data_rules.check_observations(seen.bad_observations)
        return replace(
            self,
            center=seen.z,
            center_losses=seen.losses,
            data_weights=seen.weights,
            data_counts=seen.counts,
        )

    def unconstrain(self, values: Mapping[str, PyTree]) -> Parameters:
        """Unconstrained parameters of constrained ones, leaves ``[chain, draw, ...]``."""
        return unconstrain_draws(self.program, values, self.arrays)

    @property
    def data(self) -> Arrays:
        """The arrays, each row once: devices may hold some again so as to hold as many each."""
        batching = self.program.batching
        return self.arrays if batching is None else tuple(batching.rows_alone(self.arrays))

    @property
    def observations(self) -> dict[str, jax.Array]:
        """The values of the likelihood sites that are in memory."""
        return {} if sources_of(self.arrays) else self.observed

    @property
    def num_losses(self) -> int:
        """Losses of the full data, of the site that has most."""
        return max(map(np.size, self.center_losses.values()))

    @property
    def dimension(self) -> int:
        """d, the number of unconstrained parameters."""
        return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(self.center))


def read_as_it_is(
    model: Callable,
    args: Sequence[object],
    kwargs: Mapping[str, object] | None,
    *,
    center: Mapping[str, PyTree],
    likelihood_factors: Sequence[str] = (),
    prior_factors: Sequence[str] = (),
    init_strategy: Callable | None = None,
) -> ModelReading:
    """Trace `model` without running it, check its structure, then evaluate it at its centre.

    Where rows of the data lie elsewhere there are shapes in place of numbers.

    Parameters
    ----------
    center : dict
        Constrained values of every latent sample site and of every ``numpyro.param``.
    init_strategy : callable, optional
        Takes the values from this NumPyro strategy instead (params from their initial values).
    likelihood_factors, prior_factors : sequences of str
        What each ``numpyro.factor`` of the model is.

    Raises
    ------
    ValueError
        For each construct for which λ̂ is undefined or would silently be wrong, by site name.
    """
    model = without_enum(check_model(model))
    arguments, arrays = split_arguments(args, kwargs)
    has_sources = bool(sources_of(arrays))
    given = as_values(center) if init_strategy is None else None
    init_strategy = init_strategy or UNIFORM
    factors = _rules.Factors(_names(likelihood_factors), _names(prior_factors))
    unread = Program(model, arguments, (), (), (), factors.prior)
    try:
        found = structure_of(unread, shapes_of(arrays), given, factors, init_strategy)
    except Exception:
        if has_sources:
            raise
        # Perhaps only because it reads values of arrays: those become structure.
        held = hold_what_is_read(unread, args, kwargs, given, init_strategy)
        if held is None:
            raise
        unread, arrays = held
        found = structure_of(unread, arrays, given, factors, init_strategy)
    draws_keys, as_read = found.pop("draws_keys"), found.pop("fingerprint")
    program = found.pop("program")
    say_once(model, program.enumeration)
    if given is not None:
        given = by_site(given, program.parameters, program.latents)
    as_known = replace(program, fingerprint=as_read)
    seen = measured(as_known, init_strategy, given, arrays)
    # Of the losses alone, so that it is the same wherever the centre came from.
    jaxpr = _traced(as_known, seen.z, shapes_of(arrays))
    program = _told_apart(program, jaxpr)
    _center_rules.check_center(seen.inside, seen.finite, given)
    _data_rules.check_observations(seen.bad_observations)
    if draws_keys:
        check_in_memory(arrays, "A model that draws random numbers (numpyro.prng_key) takes")
        # Away from the centre, where a dropout mask may multiply zeros.
        moved = _rules.moved(seen.z)
        one, two = (_losses_of_seed(program, moved, arrays, seed) for seed in (0, 1))
        _rules.check_deterministic_likelihood(one, two)
    return ModelReading(
        program=program,
        arrays=arrays,
        center=seen.z,
        center_losses=seen.losses,
        data_weights=seen.weights,
        observed=seen.observed,
        data_counts=seen.counts,
        without_effect=unused_leaves(jaxpr, seen.z),
        **found,
    )


def _traced(program: Program, *args: PyTree) -> ClosedJaxpr:
    """The losses as JAX traces them."""
    found: ClosedJaxpr = _losses.trace(program, *args).jaxpr
    if len(found.in_avals) == len(jax.tree.leaves(args)):
        return found
    return jax.make_jaxpr(program.losses)(*args)  # what the model closes over would come first


def _told_apart(program: Program, jaxpr: ClosedJaxpr) -> Program:
    """The program with what its losses tell of it."""
    return replace(
        program,
        fingerprint=fingerprint(jaxpr),
        computes=computes(jaxpr),
        has_forward_mode=not calls(jaxpr, "custom_vjp_call"),
    )


@partial(jax.jit, static_argnums=0)
def _losses(program: Program, z: Parameters, arrays: Arrays) -> Losses:
    """What JAX remembers the trace of, for a model that is read again."""
    return program.losses(z, arrays)


@partial(jax.jit, static_argnums=0)
def _losses_of_seed(program: Program, z: Parameters, arrays: Arrays, seed: int) -> Losses:
    return program.losses(z, arrays, seed)


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
