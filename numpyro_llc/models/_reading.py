"""Read a NumPyro program once: its sites, its centre, its data; refuse what has no λ̂."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints
from numpyro.infer.initialization import init_to_uniform
from numpyro.primitives import Messenger

from numpyro_llc.models import _rules
from numpyro_llc.models._arguments import split_arguments
from numpyro_llc.models._program import Parameters, Program, scan_slice, trace_model


@dataclass(frozen=True)
class ModelReading:
    """What one trace of a model says.

    Attributes
    ----------
    program : Program
        The compile-time part.
    arrays : tuple of jax.Array
        The model's array arguments: the runtime part.
    center : dict
        Unconstrained parameters ``z*``, in the model's order of sites.
    observed : dict of str to jax.Array
        Values of the likelihood sites.
    plate_axes : dict of str to dict of int to str
        For each sample site, which (negative) axes of its value are which plates.
    deterministic : tuple of str
        Names of the deterministic sites.
    """

    program: Program
    arrays: tuple[jax.Array, ...]
    center: Parameters
    observed: dict[str, jax.Array]
    plate_axes: dict[str, dict[int, str]]
    deterministic: tuple[str, ...]
    _trace: dict[str, dict[str, Any]]

    def num_data(self) -> int:
        """n, from plates or the shape of the observations; raises where that leaves doubt."""
        return _rules.infer_num_data([self._trace[name] for name in self.program.likelihood])

    @property
    def dimension(self) -> int:
        """d, the number of unconstrained parameters."""
        return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(self.center))


def read_model(
    model: Callable,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    *,
    center: Mapping[str, Any] | None,
    likelihood_factors: Sequence[str] = (),
    prior_factors: Sequence[str] = (),
    init_strategy: Callable | None = None,
    seed: Any = 0,
) -> ModelReading:
    """Trace `model` once and check it.

    Parameters
    ----------
    center : dict or None
        Constrained values of every latent sample site and of every ``numpyro.param``. None takes
        the values from `init_strategy` instead (params from their initial values).
    likelihood_factors, prior_factors : sequences of str
        What each ``numpyro.factor`` of the model is.

    Raises
    ------
    ValueError
        For each construct for which λ̂ is undefined or would silently be wrong, by site name.
    """
    if not callable(model):
        raise TypeError(f"`model` must be a NumPyro model (a callable); got {model!r}.")
    arguments, arrays = split_arguments(args, kwargs)
    call_args, call_kwargs = arguments.join(arrays)
    values = _Values(center, init_strategy)
    with _CountKeys() as keys:
        trace = trace_model(model, call_args, call_kwargs, values=values, seed=seed)
    factors = _rules.Factors(tuple(likelihood_factors), tuple(prior_factors))
    likelihood = _rules.check_sites(trace, factors)
    modules = _rules.random_module_params(trace)
    if center is not None:
        _rules.check_names(trace, center, modules)
    z = _unconstrained(trace, modules)
    _rules.check_observations(trace, likelihood)
    _rules.check_local_latents(trace, likelihood)
    if keys.count:
        again = trace_model(model, call_args, call_kwargs, values=values, seed=1)
        _rules.check_deterministic_likelihood(trace, again, likelihood)
    return ModelReading(
        program=Program(model, arguments, tuple(z), likelihood, factors.prior),
        arrays=arrays,
        center=z,
        observed={name: trace[name]["value"] for name in likelihood},
        plate_axes={
            name: _plate_axes(site)
            for name, site in trace.items()
            if site["type"] == "sample"
        },
        deterministic=tuple(k for k, site in trace.items() if site["type"] == "deterministic"),
        _trace=trace,
    )


def _plate_axes(site: dict[str, Any]) -> dict[int, str]:
    event_dim = site["fn"].event_dim
    return {frame.dim - event_dim: frame.name for frame in site["cond_indep_stack"]}


class _CountKeys(Messenger):
    """Count ``numpyro.prng_key()`` calls: dropout, or a module's initialisation."""

    count = 0

    def __enter__(self) -> "_CountKeys":
        super().__enter__()
        return self

    def process_message(self, msg: dict[str, Any]) -> None:
        self.count += msg["type"] == "prng_key"


class _Values:
    """``substitute_fn`` that hands out the centre's values, checking shapes on the way."""

    def __init__(self, center: Mapping[str, Any] | None, init_strategy: Callable | None) -> None:
        if center is not None and not isinstance(center, Mapping):
            raise TypeError(
                f"`center` must be a dict {{site: value}} or a Center; got {type(center).__name__}."
            )
        self.center = center
        self.init = init_strategy or init_to_uniform
        self.complete = True

    def __call__(self, site: dict[str, Any]) -> Any:
        name, given = site["name"], self.center is not None and site["name"] in self.center
        if site["type"] == "param" and given:
            value = jax.tree.map(lambda leaf: _as_float(name, leaf), self.center[name])
            _rules.unconstrain(name, value, site["kwargs"].get("constraint", constraints.real))
            return value
        if site["type"] != "sample" or site["is_observed"] or _rules.is_discrete(site):
            return None
        if not given:
            self.complete = False
            return self.init(site)
        shape = site["kwargs"]["sample_shape"] + tuple(site["fn"].shape())
        value = scan_slice(site, _as_float(name, self.center[name]), shape)
        if jnp.shape(value) != shape:
            raise ValueError(f"`center[{name!r}]` must have shape {shape}; got {jnp.shape(value)}.")
        if self.complete:
            # A support may depend on a site that the centre lacks; that error comes first.
            _rules.unconstrain(name, value, site["fn"].support)
        return value


def _unconstrained(trace: dict[str, dict[str, Any]], frozen: Sequence[str]) -> Parameters:
    z = {}
    for name, site in trace.items():
        if site["type"] == "param" and name not in frozen:
            support = site["kwargs"].get("constraint", constraints.real)
        elif site["type"] == "sample" and not site["is_observed"]:
            support = site["fn"].support
        else:
            continue
        z[name] = _rules.unconstrain(name, site["value"], support)
    return z


def _as_float(name: str, value: Any) -> jax.Array:
    try:
        return jnp.asarray(value, dtype=jnp.result_type(float))
    except (TypeError, ValueError):
        raise TypeError(
            f"`center[{name!r}]` must hold numbers; got {type(value).__name__}."
        ) from None
