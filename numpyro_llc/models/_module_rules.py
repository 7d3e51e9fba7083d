"""Networks of a centre against the parameters that their modules make themselves."""

from collections.abc import Callable

import jax

from numpyro_llc.models import _center_rules, _rules
from numpyro_llc.models._center_values import CenterValues
from numpyro_llc.models._modules import PARAMS, by_site, plain_dicts
from numpyro_llc.models._program import Program
from numpyro_llc.models._types import Arrays, Parameters

_WITHOUT_INPUTS = (TypeError, ValueError, AttributeError, IndexError)
"""What modules raise that are initialised without an input, as by ``flax_module`` without
`input_shape`: Python for an argument that is missing, Haiku for a shape, Flax for a scalar in the
place of an array. Such a module cannot say what its parameters look like."""


def check_modules(
    unread: Program, arrays: Arrays, given: Parameters, init_strategy: Callable
) -> None:
    """Check networks of the centre against the parameters that their modules make themselves."""

    def made(arrays: Arrays) -> Parameters:
        try:
            trace = unread.trace(arrays, CenterValues(None, init_strategy))
        except _WITHOUT_INPUTS:
            return {}
        latents = [name for name, site in trace.items() if _rules.is_latent(site)]
        params = {name: site["value"] for name, site in trace.items() if site["type"] == "param"}
        # Random modules, in whole or in part, hold placeholders by now; their sites are checked.
        own = [
            name
            for name in params
            if not any(latent.startswith(name.removesuffix(PARAMS) + "/") for latent in latents)
        ]
        return {name: plain_dicts(params[name]) for name in own}

    forms = jax.eval_shape(made, arrays)
    for name, value in by_site(given, list(forms), ()).items():
        if name in forms:
            _center_rules.check_like(name, plain_dicts(value), forms[name])
