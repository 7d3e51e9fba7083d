"""``from_numpyro``: a finished ``MCMC`` run on a localized model to inference data."""

from collections.abc import Sequence
from typing import Any

import jax
from numpyro.infer import HMCECS, MCMC

from numpyro_llc._checks import check_num_data
from numpyro_llc.kernels import kernel_statistics
from numpyro_llc.local import LocalizedModel, curvature_at_center
from numpyro_llc.results._assemble import (
    assemble,
    curvature_settings,
    evaluated,
    sites_to_store,
    unconstrained_samples,
)
from numpyro_llc.sampling import target_of


def from_numpyro(
    mcmc: MCMC,
    *,
    num_data: int | None = None,
    store_sites: bool | Sequence[str] = True,
    log_likelihood: bool = False,
) -> Any:
    """Convert an ``MCMC`` run on a localized model to what :func:`estimate_llc` returns.

    Parameters
    ----------
    mcmc : numpyro.infer.MCMC
        A finished run of a kernel built on ``localize(model, ...)``. The extra fields
        ``diverging``, ``num_steps``, ``accept_prob``, ``energy`` and ``adapt_state.step_size``
        become ``sample_stats``, if ``mcmc.run`` collected them.
    num_data, store_sites, log_likelihood
        As in :func:`estimate_llc`.

    Returns
    -------
    arviz.InferenceData (ArviZ 0.x) or xarray.DataTree (ArviZ 1.x)

    Raises
    ------
    TypeError
        If the kernel's model is not the result of ``localize``.
    """
    if isinstance(getattr(mcmc, "sampler", None), HMCECS):
        raise TypeError(
            "`mcmc` ran HMCECS, whose subsampling adds noise to λ̂ and whose Taylor proxy undoes "
            "the tempering. Run NUTS or HMC on the full data."
        )
    model = getattr(getattr(mcmc, "sampler", None), "model", None)
    if not isinstance(model, LocalizedModel):
        raise TypeError(
            "`mcmc` must be a run of a kernel on numpyro_llc.localize(model, ...); "
            f"got a kernel on {model!r}."
        )
    if mcmc.last_state is None:
        raise ValueError("`mcmc` has not run yet: call mcmc.run(...) first.")
    args, kwargs = mcmc._args, mcmc._kwargs  # as ArviZ's own converter reads them
    reading = model.read(*args, **kwargs)
    target, num_data = target_of(
        reading,
        None if num_data is None else check_num_data(num_data),
        float(model.settings["inverse_temperature"]),
        model.settings["localization"],
    )
    names = sites_to_store(reading, store_sites)
    positions = unconstrained_samples(reading, mcmc.get_samples(group_by_chain=True))
    draws = evaluated(target, positions, kernel_statistics(mcmc))
    settings = {
        "kernel": type(mcmc.sampler).__name__,
        "num_warmup": mcmc.num_warmup,
        "tuning_steps": mcmc.num_warmup,
        "thinning": mcmc.thinning,
        "chain_method": str(mcmc.chain_method),
    }
    curvature = curvature_at_center(target, jax.random.key(0))
    settings |= curvature_settings(curvature)
    return assemble(reading, target, draws, num_data, names, log_likelihood, settings)
