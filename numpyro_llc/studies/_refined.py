"""``refined_llc``: λ̂ of parts of a model, and on other data, in one table."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from numpyro_llc.errors import LLCWarning
from numpyro_llc.estimate import estimate_llc
from numpyro_llc.inference_data import moments, posterior
from numpyro_llc.local import split
from numpyro_llc.models import read_model
from numpyro_llc.results import text_of

SAMPLED = "sampled"
"""The name, among the data, of those that are sampled on."""
_FACTORS = ("likelihood_factors", "prior_factors")
_NUMBERS = {
    "llc": "mean",
    "mcse": "mcse_mean",
    "sd": "sd",
    "ess_bulk": "ess_bulk",
    "ess_tail": "ess_tail",
    "r_hat": "r_hat",
}


def refined_llc(
    rng_key: jax.Array,
    model: Callable,
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
    *,
    center: Any,
    sites: Mapping[str, Any],
    evaluate_on: Mapping[str, Any] | None = None,
    checkpoint: str | Path | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Estimate λ̂ refined to parts of the parameters and to other data.

    Parameters
    ----------
    rng_key : jax.Array
        A JAX random key, the same for every refinement.
    model, model_args, model_kwargs, center
        As in ``estimate_llc``.
    sites : dict
        Refinements by name, each what the argument `sites` of ``estimate_llc`` takes: names of
        sites or of parts of a network, or masks; None is all parameters.
    evaluate_on : dict, optional
        As in ``estimate_llc``.
    checkpoint : path, optional
        A folder with one for each refinement, by its place in `sites`: the same call again goes on
        where it stopped.
    **settings
        Other arguments of ``estimate_llc``.

    Returns
    -------
    xarray.Dataset
        ``llc``, ``mcse``, ``sd``, ``ess_bulk``, ``ess_tail``, ``r_hat`` over ``sites`` and
        ``data``, whose first entry, "sampled", is the data sampled on; ``num_parameters``,
        ``status`` ("ok", or "doubtful": with ``findings``) and ``findings`` over ``sites``.

    Raises
    ------
    ValueError, TypeError
        As ``estimate_llc``. All refinements are checked before the first is sampled.

    Notes
    -----
    Wang, Hoogland, van Wingerden, Furman, Murfet (2024), arXiv:2410.02984. What is held at ``w*``
    takes no part: at a minimum λ̂ of the whole is at least that of each part, up to γ. Each
    refinement compiles for itself.
    """
    if not isinstance(sites, Mapping) or not sites:
        raise TypeError(
            "`sites` must be a dict of refinements by name, such as "
            f"{{'all': None, 'head': ['w2', 'b2']}}; got {sites!r}."
        )
    if SAMPLED in (evaluate_on or {}):
        raise ValueError(f"`evaluate_on` must not use the name {SAMPLED!r}: the data sampled on.")
    factors = {name: settings[name] for name in _FACTORS if name in settings}
    values = getattr(center, "params", center)
    reading = read_model(model, model_args, model_kwargs, center=values, **factors)
    for part in sites.values():
        if part is not None:
            split(reading.center, part)
    rows = []
    for place, part in enumerate(sites.values()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LLCWarning)  # they are the row's findings
            idata = estimate_llc(
                rng_key,
                model,
                model_args,
                model_kwargs,
                center=center,
                sites=part,
                evaluate_on=evaluate_on,
                checkpoint=None if checkpoint is None else Path(checkpoint) / str(place),
                **{"store_sites": False, **settings},
            )
        rows.append(_row(idata))
    data = [SAMPLED, *(evaluate_on or {})]
    numbers = {
        name: (("sites", "data"), np.stack([row[0][column].to_numpy() for row in rows]))
        for name, column in _NUMBERS.items()
    }
    texts = {
        "num_parameters": ("sites", [row[1]["num_parameters"] for row in rows]),
        "status": ("sites", np.array(["doubtful" if row[2] else "ok" for row in rows], object)),
        "findings": ("sites", np.array([row[2] for row in rows], object)),
    }
    shared = ("num_data", "inverse_temperature", "kernel")
    attrs = {name: rows[0][1][name] for name in shared}
    return xr.Dataset({**numbers, **texts}, {"sites": list(sites), "data": data}, attrs)


def _row(idata: Any) -> tuple[Any, dict[str, Any], str]:
    """Moments of ``llc`` and of each ``llc_on``, the attributes, and the findings as text."""
    draws = posterior(idata)
    names = [name for name in ("llc", "llc_on") if name in draws]
    found = json.loads(draws.attrs["findings"])
    return moments(draws, names), draws.attrs, " ".join(map(text_of, found))
