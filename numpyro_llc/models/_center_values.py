"""The centre as the user gives it, handed to a model's sites as it runs."""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.primitives import Messenger

from numpyro_llc.models import _center_rules, _rules
from numpyro_llc.models._modules import as_array, pure_parameters, with_module_leaves
from numpyro_llc.models._program import scan_slice
from numpyro_llc.models._types import Parameters, PyTree, Site


class CountKeys(Messenger):
    """Count ``numpyro.prng_key()`` calls: dropout, or a module's initialisation."""

    count = 0

    def __enter__(self) -> "CountKeys":
        super().__enter__()
        return self

    def process_message(self, msg: Site) -> None:
        self.count += msg["type"] == "prng_key"


class CenterValues:
    """``substitute_fn`` that hands out the centre's values, checking shapes on the way."""

    def __init__(self, center: Mapping[str, PyTree] | None, init_strategy: Callable) -> None:
        self.center = {} if center is None else with_module_leaves(center)
        self.init = init_strategy

    def __call__(self, site: Site) -> PyTree:
        name = site["name"]
        _rules.check_mutable(name, site)
        if site["type"] == "param":
            return _checked_param(site, self.center[name]) if name in self.center else None
        if not _rules.is_latent(site):
            return None
        if _rules.is_discrete(site):
            return _rules.check_states(name, site)
        if name not in self.center:
            return self.init(site)
        shape = site["kwargs"]["sample_shape"] + tuple(site["fn"].shape())
        value = scan_slice(site, as_array(self.center[name]), shape)
        if jnp.shape(value) != shape:
            raise _center_rules.wrong_shape(name, shape, jnp.shape(self.center[name]))
        return value


def as_found(values: Mapping[str, PyTree]) -> Callable:
    """A ``substitute_fn`` that hands out constrained values."""

    def value(site: Site) -> PyTree:
        if site["name"] not in values or site["type"] not in ("sample", "param"):
            return None
        if site["type"] == "param":
            return values[site["name"]]
        shape = site["kwargs"]["sample_shape"] + tuple(site["fn"].shape())
        return scan_slice(site, values[site["name"]], shape)

    return value


def _checked_param(site: Site, value: PyTree) -> PyTree:
    """A param's value, of the structure and shapes of its own initial value where it has one."""
    initial = jax.eval_shape(lambda: site["fn"](*site["args"]))
    if initial is not None:  # of modules that make one only where none is given, see `_reading`
        _center_rules.check_like(site["name"], value, initial)
    return value


FROM_MCMC = (
    "Of one mode take the mean of the draws (of several, as of a mixture, the draw of the lowest "
    "potential_energy), and polish it: numpyro_llc.find_center(rng_key, model, args, "
    "init={site: draws.mean(0) for site, draws in mcmc.get_samples().items()})."
)
"""How a finished ``MCMC`` gives a centre."""


def as_values(center: object) -> Parameters:
    """Arrays of the default float type, from whatever the user wrote; of modules, a pytree.

    A ``Center``, or anything else with ``params``, stands for these.
    """
    center = getattr(center, "params", center)
    if not isinstance(center, Mapping):
        raise TypeError(
            f"`center` must be a dict {{site: value}} or a Center; got {type(center).__name__}."
            f"{f' {FROM_MCMC}' if hasattr(center, 'get_samples') else ''}"
        )
    for name, value in center.items():
        if value is None:
            raise TypeError(f"`center[{name!r}]` must hold numbers; got None.")
    given = {name: _array_like(pure_parameters(value)) for name, value in center.items()}
    return {name: jax.tree.map(partial(_as_float, name), value) for name, value in given.items()}


def _array_like(value: PyTree) -> PyTree:
    """A list of numbers is one array; any other pytree keeps its leaves."""
    is_list = isinstance(value, list | tuple)
    return np.asarray(value) if is_list and _holds_numbers(value) else value


def _holds_numbers(value: PyTree) -> bool:
    return not isinstance(value, Mapping) and (
        all(map(_holds_numbers, value)) if isinstance(value, list | tuple) else np.ndim(value) == 0
    )


def _as_float(name: str, value: object) -> jax.Array:
    try:
        array = jnp.array(value) if isinstance(value, np.ndarray) else jnp.asarray(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(
            f"`center[{name!r}]` must hold numbers; got {type(value).__name__}."
        ) from None
    if array.dtype == jnp.bool_ or jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(
            f"`center[{name!r}]` must hold real numbers; got {array.dtype}. Give a complex "
            "parameter as its real and imaginary parts."
        )
    return array.astype(jnp.result_type(float))
