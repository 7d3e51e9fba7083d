"""Read a NumPyro program: its sites, its centre, its data; refuse what has no λ̂."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np

from numpyro_llc.models import _center_rules, _data, _data_rules, _rules
from numpyro_llc.models._arguments import check_model, split_arguments
from numpyro_llc.models._axis_names import axis_names
from numpyro_llc.models._center_values import CenterValues, CountKeys, as_values
from numpyro_llc.models._convolutions import CONVOLUTION
from numpyro_llc.models._discrete_sites import read_enumeration, say_once
from numpyro_llc.models._enumeration import without_enum
from numpyro_llc.models._fingerprint import calls, fingerprint, unused_leaves
from numpyro_llc.models._held import hold_what_is_read
from numpyro_llc.models._measured import UNIFORM, measure, unconstrain_draws
from numpyro_llc.models._module_rules import check_modules
from numpyro_llc.models._modules import by_site
from numpyro_llc.models._program import Program, site_loss
from numpyro_llc.models._types import Arrays, Fields, Losses, Parameters, PyTree, Trace


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
        Values of the likelihood sites.
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
        jaxpr = jax.make_jaxpr(self.program.with_prior().losses)(self.center, self.arrays)
        return replace(self.program, fingerprint=fingerprint(jaxpr))

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
        seen = measure(self.program, UNIFORM, given, self.arrays, 0)
        _center_rules.check_center(seen.inside, seen.finite, given)
        return replace(self, center=seen.z, center_losses=seen.losses)

    def unconstrain(self, values: Mapping[str, PyTree]) -> Parameters:
        """Unconstrained parameters of constrained ones, leaves ``[chain, draw, ...]``."""
        return unconstrain_draws(self.program, values, self.arrays)

    @property
    def num_losses(self) -> int:
        """Losses of the full data, of the site that has most."""
        return max(map(np.size, self.center_losses.values()))

    @property
    def dimension(self) -> int:
        """d, the number of unconstrained parameters."""
        return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(self.center))


def read_model(
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
    given = as_values(center) if init_strategy is None else None
    init_strategy = init_strategy or UNIFORM
    factors = _rules.Factors(_names(likelihood_factors), _names(prior_factors))
    unread = Program(model, arguments, (), (), (), factors.prior)
    try:
        found = _structure(unread, arrays, given, factors, init_strategy)
    except Exception:
        # Perhaps only because it reads values of arrays: those become structure.
        held = hold_what_is_read(unread, args, kwargs, given, init_strategy)
        if held is None:
            raise
        unread, arrays = held
        found = _structure(unread, arrays, given, factors, init_strategy)
    draws_keys, as_read = found.pop("draws_keys"), found.pop("fingerprint")
    program = found.pop("program")
    say_once(model, program.enumeration)
    if given is not None:
        given = by_site(given, program.parameters, program.latents)
    seen = measure(replace(program, fingerprint=as_read), init_strategy, given, arrays, 0)
    # Of the losses alone, so that it is the same wherever the centre came from.
    jaxpr = jax.make_jaxpr(program.losses)(seen.z, arrays)
    forward = not calls(jaxpr, "custom_vjp_call")
    program = replace(program, fingerprint=fingerprint(jaxpr), has_forward_mode=forward)
    _center_rules.check_center(seen.inside, seen.finite, given)
    _data_rules.check_observations(seen.bad_observations)
    if draws_keys:
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


def _structure(
    unread: Program,
    arrays: Arrays,
    given: Parameters | None,
    factors: _rules.Factors,
    init_strategy: Callable,
) -> Fields:
    """Fields of a :class:`ModelReading` that take no numbers, from one abstract trace."""
    found: Fields = {}
    if given is not None and not jax.tree_util.all_leaves(given.values()):
        check_modules(unread, arrays, given, init_strategy)

    def look(given: Parameters | None, arrays: Arrays) -> list[jax.Array] | None:
        try:
            with CountKeys() as keys:
                trace = unread.trace(arrays, CenterValues(given, init_strategy))
            found.update(
                _described(unread, trace, given, factors, arrays), draws_keys=keys.count > 0
            )
            losses = {name: site_loss(trace[name]) for name in found["program"].likelihood}
            _rules.check_losses(losses)
            return list(losses.values())
        except (ValueError, TypeError) as error:
            found["error"] = error  # Raised below: JAX would append its own remarks to it.
            return None

    jaxpr = jax.make_jaxpr(look)(given, arrays)
    if "error" in found:
        raise found["error"]
    found["fingerprint"] = fingerprint(jaxpr)
    has_any = calls(jaxpr, CONVOLUTION)
    found["program"] = replace(found["program"], has_convolutions=has_any)
    return found


def _described(
    unread: Program,
    trace: Trace,
    given: Parameters | None,
    factors: _rules.Factors,
    arrays: Arrays,
) -> Fields:
    likelihood = _rules.check_sites(trace, factors)
    modules = _rules.random_module_params(trace)
    parameters = [k for k in trace if k not in modules and _rules.is_parameter(trace[k])]
    latents = [k for k in parameters if trace[k]["type"] == "sample"]
    enumeration, axes = read_enumeration(unread, trace, arrays, likelihood)
    program = replace(
        unread,
        parameters=tuple(parameters),
        latents=tuple(latents),
        likelihood=likelihood,
        enumeration=enumeration,
    )
    axes |= {name: _data.data_axes(trace[name]) for name in program.plain(likelihood)}
    local = _data_rules.local_latents(trace, axes)
    if given is not None:
        given = by_site(given, parameters, latents)
        _data_rules.check_local_latents({k: v for k, v in local.items() if k not in given})
        _center_rules.check_names(trace, given, modules)
        _center_rules.check_shapes(trace, given, parameters)
    for name in parameters:
        _rules.check_real(name, trace[name]["value"], f"The {trace[name]['type']} site")
    _data_rules.check_full_data(trace, likelihood)
    return {
        "local_latents": local,
        "program": program,
        "data_axes": axes,
        "axis_names": {
            k: axis_names(s) for k, s in trace.items() if s["type"] in ("sample", "deterministic")
        },
        "latent_plates": {
            k: tuple(frame.size for frame in trace[k]["cond_indep_stack"]) for k in latents
        },
        "deterministic": tuple(
            k
            for k, s in trace.items()
            if s["type"] == "deterministic"
            and (enumeration is None or k not in enumeration.deterministic)
        ),
        "subsampled": tuple(
            k for k, s in trace.items() if s["type"] == "plate" and s.get("subsampled")
        ),
        "improper": tuple(k for k in parameters if not _rules.has_proper_prior(trace[k])),
    }


@partial(jax.jit, static_argnums=0)
def _losses_of_seed(program: Program, z: Parameters, arrays: Arrays, seed: int) -> Losses:
    return program.losses(z, arrays, seed)


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
