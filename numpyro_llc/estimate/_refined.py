"""``refined_llc``: λ̂ of parts of a model, and on other data, in one table."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
from jax.sharding import Mesh
from numpyro.infer.mcmc import MCMCKernel

from numpyro_llc._checks import check_localization
from numpyro_llc.errors import CheckpointError, LLCWarning
from numpyro_llc.estimate._estimate import estimate_llc
from numpyro_llc.inference_data import InferenceData, Table, moments, posterior
from numpyro_llc.local import LocalizedModel, Sites, check_localized, split
from numpyro_llc.results import RunReport, findings, report_of, text_of
from numpyro_llc.sampling import OutputFolder, check_output
from numpyro_llc.studies import MOMENTS

_Row = tuple[Table, RunReport, str]
"""Moments of ``llc`` and of each ``llc_on``, the report, and the findings as text."""
SAMPLED = "sampled"
"""The name, among the data, of those that are sampled on."""


def refined_llc(
    rng_key: jax.Array,
    model: LocalizedModel,
    model_args: Sequence[object] = (),
    model_kwargs: Mapping[str, object] | None = None,
    *,
    sites: Mapping[str, Sites | None],
    evaluate_on: Mapping[str, object] | None = None,
    kernel: str | MCMCKernel | None = None,
    batch_size: int | None = None,
    num_warmup: int | None = None,
    num_samples: int | None = None,
    num_chains: int = 4,
    thinning: int | None = None,
    until: float | Mapping[str, float] | None = None,
    chain_method: str = "vectorized",
    mesh: Mesh | None = None,
    output: str | Path | None = None,
    progress_bar: bool = True,
) -> xr.Dataset:
    """Estimate λ̂ refined to parts of the parameters and to other data.

    Parameters
    ----------
    rng_key : jax.Array
        A JAX random key, the same for every refinement.
    model : LocalizedModel
        What :func:`localize` returned; each refinement takes the place of its `sites`.
    sites : dict
        Refinements by name, each what the argument `sites` of ``localize`` takes: names of
        sites or of parts of a network, or masks; None is all parameters.
    model_args, model_kwargs, evaluate_on, kernel, batch_size, num_warmup, num_samples, num_chains
        As in ``estimate_llc``.
    thinning, until, chain_method, mesh, progress_bar
        Likewise.
    output : path, optional
        A folder with one for each refinement, by its place in `sites`: the same call again goes on
        where it stopped.

    Returns
    -------
    xarray.Dataset
        ``llc``, ``sd``, ``mcse_mean``, ``ess_bulk``, ``ess_tail``, ``r_hat`` over ``sites`` and
        ``data``, whose first entry, "sampled", is the data sampled on; ``num_parameters``,
        ``status`` ("ok", or "doubtful": with ``findings``) and ``findings`` over ``sites``.

    Raises
    ------
    ValueError, TypeError
        As ``estimate_llc``. All refinements are checked before the first is sampled.
    CheckpointError
        As ``estimate_llc``; the refinements before it are its ``table``.

    Notes
    -----
    Wang, Hoogland, van Wingerden, Furman, Murfet (2024), arXiv:2410.02984. What is fixed at ``w*``
    takes no part: at a minimum λ̂ of the whole is at least that of each part, up to γ. Each
    refinement compiles for itself.
    """
    check_output(output)
    if not isinstance(sites, Mapping) or not sites:
        raise TypeError(
            "`sites` must be a dict of refinements by name, such as "
            f"{{'all': None, 'head': ['w2', 'b2']}}; got {sites!r}."
        )
    if SAMPLED in (evaluate_on or {}):
        raise ValueError(f"`evaluate_on` must not use the name {SAMPLED!r}: the data sampled on.")
    local = check_localized(model)
    reading = local.read(model_args, model_kwargs)
    check_localization(local.localization, reading.center)
    for part in sites.values():
        if part is not None:
            split(reading.center, part)
    rows: list[_Row] = []
    names = list(sites), [SAMPLED, *(evaluate_on or {})]
    with ExitStack() as stack:
        if output is not None:
            stack.enter_context(OutputFolder(output, {}, what="refinement"))
        for place, part in enumerate(sites.values()):
            try:
                idata = _quietly(
                    rng_key,
                    replace(local, sites=part),
                    model_args,
                    model_kwargs,
                    kernel=kernel,
                    batch_size=batch_size,
                    num_warmup=num_warmup,
                    num_samples=num_samples,
                    num_chains=num_chains,
                    thinning=thinning,
                    until=until,
                    chain_method=chain_method,
                    mesh=mesh,
                    output=None if output is None else Path(output) / str(place),
                    progress_bar=progress_bar,
                    store_sites=False,
                    evaluate_on=evaluate_on,
                )
            except CheckpointError as error:
                error.table = _table(rows, names[0][: len(rows)], names[1]) if rows else None
                raise
            rows.append(_row(idata))
    return _table(rows, *names)


def _quietly(*args: Any, **settings: Any) -> InferenceData:
    """``estimate_llc`` without its warnings, which are the row's findings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LLCWarning)
        return estimate_llc(*args, **settings)


def _row(idata: InferenceData) -> _Row:
    draws = posterior(idata)
    names = [name for name in ("llc", "llc_on") if name in draws]
    return moments(draws, names), report_of(idata), text_of(findings(idata))


def _table(rows: list[_Row], sites: list[str], data: list[str]) -> xr.Dataset:
    numbers = {
        name: (
            ("sites", "data"),
            np.stack([table["mean" if name == "llc" else name].to_numpy() for table, _, _ in rows]),
        )
        for name in MOMENTS
    }
    status = ["doubtful" if found else "ok" for _, _, found in rows]
    texts = {
        "num_parameters": ("sites", [report.num_parameters for _, report, _ in rows]),
        "status": ("sites", np.array(status, object)),
        "findings": ("sites", np.array([found for _, _, found in rows], object)),
    }
    first = rows[0][1]
    attrs = {name: getattr(first, name) for name in ("num_data", "inverse_temperature", "kernel")}
    return xr.Dataset({**numbers, **texts}, {"sites": sites, "data": data}, attrs)
