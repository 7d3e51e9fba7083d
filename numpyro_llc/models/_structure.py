"""What one abstract trace tells of a program: its sites and their kinds, without any numbers."""

from collections.abc import Callable
from dataclasses import replace

import jax

from numpyro_llc.models import _center_rules, _data, _data_rules, _rules
from numpyro_llc.models._axis_names import axis_names
from numpyro_llc.models._center_values import CenterValues, CountKeys
from numpyro_llc.models._convolutions import CONVOLUTION
from numpyro_llc.models._discrete_sites import read_enumeration
from numpyro_llc.models._fingerprint import calls, fingerprint
from numpyro_llc.models._module_rules import check_modules
from numpyro_llc.models._modules import by_site
from numpyro_llc.models._program import Program, site_loss
from numpyro_llc.models._types import Arrays, Fields, Parameters, Trace


def structure_of(
    unread: Program,
    arrays: Arrays,
    given: Parameters | None,
    factors: _rules.Factors,
    init_strategy: Callable,
) -> Fields:
    """Fields of a ``ModelReading`` that take no numbers, from one abstract trace."""
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
