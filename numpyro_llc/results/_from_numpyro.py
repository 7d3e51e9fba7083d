"""``from_numpyro``: a finished ``MCMC`` run on a localized model to inference data."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import HMCECS, MCMC

from numpyro_llc.inference_data import InferenceData
from numpyro_llc.kernels import kernel_statistics, name_of
from numpyro_llc.local import LocalizedModel, LocalTarget, curvature_at_center, reason_of
from numpyro_llc.models import FROM_MCMC, ModelReading, Parameters, constrain, named_leaves
from numpyro_llc.results._assemble import assemble
from numpyro_llc.results._draws import check_log_likelihood, evaluated, unconstrained_samples
from numpyro_llc.results._keep import keeping
from numpyro_llc.results._labels import Coords, Dims
from numpyro_llc.results._report import RunReport, report_of_center
from numpyro_llc.results._stored import what_to_store
from numpyro_llc.sampling import run_keys


def from_numpyro(
    mcmc: MCMC,
    *,
    store_sites: bool | Sequence[str] = True,
    log_likelihood: bool = False,
    coords: Coords | None = None,
    dims: Dims | None = None,
) -> InferenceData:
    """Convert an ``MCMC`` run on a localized model to what :func:`estimate_llc` returns.

    Parameters
    ----------
    mcmc : numpyro.infer.MCMC
        A finished run of a kernel built on ``localize(model, ...)``. The extra fields
        ``diverging``, ``num_steps``, ``accept_prob``, ``energy`` and ``adapt_state.step_size``
        become ``sample_stats``, if ``mcmc.run`` collected them.
    store_sites, log_likelihood, coords, dims
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
        name = getattr(model, "__name__", type(model).__name__)
        raise TypeError(
            "`mcmc` must be a run of a kernel on numpyro_llc.localize(model, center=...); got a "
            f"kernel on {name!r}, whose draws are of the posterior. They can give the centre. "
            f"{FROM_MCMC}"
        )
    if mcmc.last_state is None:
        raise ValueError("`mcmc` has not run yet: call mcmc.run(...) first.")
    check_log_likelihood(log_likelihood, model)
    args, kwargs = mcmc._args, mcmc._kwargs  # as ArviZ's own converter reads them
    reading = model.read(args, kwargs)
    target, num_data = model.target(reading)
    stored = what_to_store(reading, store_sites, log_likelihood, coords, dims)
    samples = named_leaves(mcmc.get_samples(group_by_chain=True))
    positions = _sampled_positions(reading, target, samples)
    draws = evaluated(target, positions, kernel_statistics(mcmc))
    with keeping(draws, target):
        report = RunReport(
            kernel=name_of(mcmc.sampler),
            localization_reason=reason_of(model.localization),
            num_warmup=mcmc.num_warmup,
            thinning=mcmc.thinning,
            chain_method=str(mcmc.chain_method),
            **report_of_center(curvature_at_center(target, run_keys(_last_key(mcmc)).curvature)),
        )
        return assemble(reading, target, draws, num_data, stored, report)


def _sampled_positions(
    reading: ModelReading, target: LocalTarget, samples: Mapping[str, jax.Array]
) -> Parameters:
    """Unconstrained draws of the parameters that are sampled."""
    if target.fixed is None:
        return unconstrained_samples(reading, samples)
    shape = np.shape(next(iter(samples.values())))[:2]
    program = reading.program
    center = constrain(program, program.parameters, reading.center, reading.arrays)
    fixed = {k: np.broadcast_to(v, (*shape, *v.shape)) for k, v in named_leaves(center).items()}
    return target.fixed.free(unconstrained_samples(reading, {**fixed, **samples}))


def _last_key(mcmc: MCMC) -> jax.Array:
    """A key of the run: the same run gives the same result."""
    key = mcmc.last_state.rng_key
    is_typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return key.reshape(-1)[0] if is_typed else key.reshape(-1, key.shape[-1])[0]
