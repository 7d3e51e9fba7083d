"""``estimate_llc``: from a model to inference data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc._checks import (
    check_key,
    check_num_data,
    inverse_temperature_or_default,
)
from numpyro_llc.assemble import (
    assemble,
    curvature_settings,
    sites_to_store,
)
from numpyro_llc.automatic import Finished, finish
from numpyro_llc.center import check_is_minimum
from numpyro_llc.curvature import DENSE_LIMIT, Curvature, curvature_at_center, gradient_at_center
from numpyro_llc.kernels import (
    Sampler,
    StochasticSampler,
    check_batch_size,
    in_axes_of,
    make_sampler,
)
from numpyro_llc.models import ModelReading, Parameters, read_model, with_batches
from numpyro_llc.problem import target_of
from numpyro_llc.sampling import Run
from numpyro_llc.schedule import DEFAULT_STEPS, check_schedule, with_defaults
from numpyro_llc.target import LocalTarget
from numpyro_llc.tuning import spread_starts


def estimate_llc(
    rng_key: jax.Array,
    model: Callable,
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
    *,
    center: Any,
    kernel: Any = "nuts",
    num_data: int | None = None,
    inverse_temperature: float | None = None,
    localization: float | Mapping[str, float] = 1.0,
    batch_size: int | None = None,
    in_axes: Any = None,
    step_size: float | None = None,
    num_warmup: int | None = None,
    num_samples: int | None = None,
    num_chains: int = 4,
    thinning: int | None = None,
    chain_method: str = "vectorized",
    progress_bar: bool = True,
    store_sites: bool | Sequence[str] | None = None,
    log_likelihood: bool = False,
    likelihood_factors: Sequence[str] = (),
    prior_factors: Sequence[str] = (),
) -> Any:
    r"""Estimate the local learning coefficient λ̂ of a NumPyro model at a point.

    Samples ``p(z) ∝ exp(-β nL(z) - γ/2 |z - z*|²)`` in unconstrained space and returns
    ``λ̂ = β (E[nL(z)] - nL(z*))`` as the posterior mean of the variable ``llc``.

    Parameters
    ----------
    rng_key : jax.Array
        A JAX random key; the same key gives the same draws.
    model, model_args, model_kwargs
        A NumPyro model and its arguments, data included. Arrays are runtime data; Python numbers
        are structure (they compile again when they change).
    center : dict or Center
        The point ``w*``: ``{site: constrained value}`` for each latent sample site and each
        ``numpyro.param`` (a pytree for a network's ``params``), or what ``find_center`` returned.
    kernel : {"nuts", "hmc", "mala", "sgld", "psgld", "sgnht", "sgd"} or MCMCKernel
        A name, or a NumPyro kernel object: its settings are used, its model is replaced. The last
        four take minibatches; see :class:`SGLD`, :class:`PSGLD`, :class:`SGNHT`.
    num_data : int, optional
        n. Inferred from plates or shapes where the model leaves no doubt. Sets the default of β.
    inverse_temperature : float, optional
        β > 0, a multiplier of the summed loss. Default ``1 / log(n)``.
    localization : float or dict of str to float
        γ ≥ 0, the precision of the Gaussian around ``z*`` in unconstrained space, for all sites or
        by site.
    batch_size : int, optional
        Rows of a minibatch, for the stochastic-gradient kernels; the full data if left out. Rows
        are drawn in the kernel and put into the plate of the observed sites, with or without
        `subsample_size`; in a model that does not index by a plate, the array arguments as long as
        the data are sliced.
    in_axes : sequence or dict, optional
        Which axis of each argument holds the rows, as in :func:`jax.vmap`, where that is in doubt.
    step_size : float, optional
        For NUTS, HMC and MALA the first step of the warm-up, which adapts it. For the
        stochastic-gradient kernels ε, kept as it is; left out, it is found in the warm-up.
    num_warmup, num_samples, thinning : int, optional
        As in :class:`numpyro.infer.MCMC`: each chain keeps ``num_samples // thinning`` draws.
        Left out: 1000, 1000 and 1 for NUTS, HMC and MALA; for the stochastic-gradient kernels the
        warm-up runs until the loss shows no drift, and sampling until the Monte Carlo error is 1 %
        of λ̂ and R-hat below 1.01, or a limit of work is reached, which is said.
    num_chains : int
    chain_method : {"vectorized", "sequential", "parallel"}
        "parallel" spreads chains over the devices JAX has.
    progress_bar : bool
    store_sites : bool or sequence of str
        Which sites to keep in the posterior, constrained: all parameters (True), none (False), or
        the named ones, deterministic sites included. Left out: all, but none for the
        stochastic-gradient kernels, whose memory then does not grow with draws times parameters.
    log_likelihood : bool
        Keep ``log p(x_i | z_t)`` of every datum and draw, as ArviZ's ``loo`` needs it: an array
        [chain, draw, n] a site, moved off the device draw by draw.
    likelihood_factors, prior_factors : sequences of str
        What each ``numpyro.factor`` of the model is.

    Returns
    -------
    arviz.InferenceData (ArviZ 0.x) or xarray.DataTree (ArviZ 1.x)
        ``posterior`` (``llc`` and the stored sites), ``sample_stats`` (``loss`` = nL in nats,
        ``excess_loss`` = nL(z) - nL(z*), ``distance`` = \|z - z*\|,
        ``penalty`` = ½ Σ γ_s \|z_s - z*_s\|², and the kernel's own),
        ``observed_data``, ``constant_data``. attrs hold n, β, γ, the loss and curvature at the
        centre, and the findings of the checks.

    Warns
    -----
    LLCWarning
        If the centre is no local minimum of the loss, or the chains have not converged.

    Raises
    ------
    ValueError, TypeError
        For a bad argument, centre or model, by name, before sampling.
    NonFiniteLossError
        If the loss is not finite at the centre or along a chain; holds the draws so far.

    Notes
    -----
    Lau, Furman, Wang, Murfet, Wei (2023), arXiv:2308.12108. Losses are centred datum by datum
    before they are summed, so float32 is accurate for large n. The error in ``summary`` is Monte
    Carlo error; it does not cover the data, γ, or the distance of λ̂ at this n from its limit λ.
    """
    check_key(rng_key)
    schedule = check_schedule(
        num_warmup, num_samples, num_chains, thinning, chain_method, progress_bar
    )
    sampler = make_sampler(
        kernel,
        num_warmup=DEFAULT_STEPS if schedule.num_warmup is None else schedule.num_warmup,
        num_chains=schedule.num_chains,
        step_size=step_size,
        batch_size=batch_size,
    )
    is_stochastic = isinstance(sampler, StochasticSampler)
    if not is_stochastic:
        schedule = with_defaults(schedule)
    if num_data is not None:
        num_data = check_num_data(num_data)
    inverse_temperature_or_default(inverse_temperature, num_data or 2)
    reading = read_model(
        model,
        model_args,
        model_kwargs,
        center=getattr(center, "params", center),
        likelihood_factors=likelihood_factors,
        prior_factors=prior_factors,
    )
    reading = _batched(reading, sampler, in_axes_of(kernel, in_axes))
    target, num_data = target_of(reading, num_data, inverse_temperature, localization)
    names = sites_to_store(reading, not is_stochastic if store_sites is None else store_sites)
    key_check, key_starts, key_chains = jax.random.split(rng_key, 3)
    curvature, findings = _check_center(target, reading.dimension, is_stochastic, key_check)
    run = Run(
        sampler,
        target,
        _starts(target, curvature, key_starts, schedule.num_chains, is_stochastic),
        key_chains,
        schedule,
        sites=reading.program.parameters if names or log_likelihood else (),
    )
    # Rows that a step evaluates: of the full data as many as there are losses, whatever they count.
    rows = max(np.size(losses) for losses in reading.center_losses.values())
    finished = finish(run, schedule, getattr(sampler, "batch_size", None) or rows, key_starts)
    settings = {
        "kernel": kernel if isinstance(kernel, str) else type(kernel).__name__,
        "chain_method": schedule.chain_method,
        **_settings(finished, float(target.inverse_temperature)),
        **curvature_settings(curvature),
        **sampler.report(run.state, finished.draws.statistics),
    }
    findings = findings + finished.findings
    return assemble(
        reading, target, finished.draws, num_data, names, log_likelihood, settings, findings
    )


def _batched(reading: ModelReading, sampler: Sampler, in_axes: Any) -> ModelReading:
    """The reading with rows that can be taken out, for a sampler that takes batches."""
    batch_size = getattr(sampler, "batch_size", None)
    if batch_size is None:
        if in_axes is not None:
            raise ValueError("`in_axes` says where a batch's rows are; give `batch_size` too.")
        return reading
    program = with_batches(reading, in_axes)
    check_batch_size(batch_size, program.batching.num_rows)  # type: ignore[union-attr]
    return replace(reading, program=program)


def _check_center(
    target: LocalTarget, dimension: int, is_stochastic: bool, rng_key: jax.Array
) -> tuple[Curvature, list[str]]:
    """Curvature at the centre, and what is wrong with it; of a large batched model the gradient."""
    if is_stochastic and dimension > DENSE_LIMIT:
        return gradient_at_center(target), []
    curvature = curvature_at_center(target, rng_key)
    return curvature, check_is_minimum(curvature, target)


def _starts(
    target: LocalTarget, curvature: Curvature, rng_key: jax.Array, chains: int, is_stochastic: bool
) -> Parameters:
    """Around the centre; of the stochastic-gradient kernels, whose warm-up is long, at it."""
    if not is_stochastic:
        return spread_starts(target, curvature, rng_key, chains)
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (chains, *leaf.shape)), target.center)


def _settings(finished: Finished, inverse_temperature: float) -> dict[str, Any]:
    return {
        "num_warmup": finished.num_warmup,
        "tuning_steps": finished.num_warmup,
        "thinning": finished.thinning,
        "num_steps": finished.num_steps,
        "sampling_time": finished.seconds,
        "interrupted": finished.interrupted,
        "evaluation_rows": finished.evaluation_rows,
        "evaluation_error": finished.evaluation_error * inverse_temperature,
    }
