"""``estimate_llc``: from a model to inference data."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from numpyro_llc._checks import check_key
from numpyro_llc._identity import fingerprint
from numpyro_llc.kernels import metropolis_report
from numpyro_llc.results import assemble, curvature_settings, run_settings, sites_to_store
from numpyro_llc.sampling import Checkpoint, Run, check_schedule, finish, prepare


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
    sites: Any = None,
    evaluate_on: Mapping[str, Any] | None = None,
    num_warmup: int | None = None,
    num_samples: int | None = None,
    num_chains: int = 4,
    thinning: int | None = None,
    until: float | Mapping[str, float] | None = None,
    chain_method: str = "vectorized",
    checkpoint: str | Path | None = None,
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
    sites : str, sequence of str or dict, optional
        What to sample, the rest being held at ``w*`` (the weight-refined λ̂): names of sites or of
        parts of a network (``"net$params.Dense_0"``, as results name them), or masks
        ``{site: True, False, array or pytree of them}`` over unconstrained values. Default: all.
    evaluate_on : dict, optional
        Other data by name (the data-refined λ̂), each a tuple in place of `model_args` or a dict in
        place of entries of `model_kwargs`. The same draws give, in the variable ``llc_on``,
        ``nβ [L'(z) - L'(z*)]`` of each, L' the mean loss over those data.
    num_warmup, num_samples, thinning : int, optional
        As in :class:`numpyro.infer.MCMC`: each chain keeps ``num_samples // thinning`` draws.
        Left out: 1000, 1000 and 1 for NUTS, HMC and MALA; for the stochastic-gradient kernels the
        warm-up runs until the loss shows no drift, and sampling until the Monte Carlo error is 1 %
        of λ̂ and R-hat below 1.01, or a limit of work is reached, which is said.
    num_chains : int
    until : float or dict, optional
        Sample until the Monte Carlo error is this share of λ̂ and R-hat below 1.01. As a dict with
        ``relative_error`` (0.01), ``r_hat`` (1.01), and limits: ``steps`` of sampling, ``seconds``
        of wall time. What ended the run is the attribute ``ended_by``. Not with `num_samples`.
    checkpoint : path, optional
        A folder to which the run is written as it goes. The same call again goes on from there, to
        the same draws bit for bit; a folder of another model, data or setting is refused.
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
        ``observed_data``, ``constant_data``. With `sites`, distance and penalty are of what is
        sampled. attrs hold n, β, γ, the loss and curvature at the
        centre, and the findings of the checks.

    Warns
    -----
    LLCWarning
        With what :func:`diagnose` finds, such as a centre that is no local minimum of the loss, or
        chains that have not converged.

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
        num_warmup, num_samples, num_chains, thinning, chain_method, progress_bar, until
    )
    problem = prepare(
        model,
        model_args,
        model_kwargs,
        schedule,
        center=center,
        kernel=kernel,
        num_data=num_data,
        inverse_temperature=inverse_temperature,
        localization=localization,
        batch_size=batch_size,
        in_axes=in_axes,
        step_size=step_size,
        sites=sites,
        evaluate_on=evaluate_on,
        likelihood_factors=likelihood_factors,
        prior_factors=prior_factors,
    )
    names = sites_to_store(
        problem.reading, not problem.is_stochastic if store_sites is None else store_sites
    )
    stored = tuple(problem.target.center) if names or log_likelihood else ()
    saved = None
    if checkpoint is not None:
        own = {"center": fingerprint(problem.target.center), "stored sites": stored}
        saved = Checkpoint(checkpoint, {**problem.run_identity(rng_key), **own})
    key_check, key_starts, key_chains = jax.random.split(rng_key, 3)
    curvature = problem.curvature(key_check)
    run = Run(
        problem.sampler,
        problem.target,
        problem.starts(curvature, key_starts),
        key_chains,
        problem.schedule,
        sites=stored,
        elsewhere=problem.elsewhere,
        checkpoint=saved,
    )
    finished = finish(run, problem.schedule, problem.rows_of_a_step, key_starts)
    settings = {
        **run_settings(problem, finished),
        **curvature_settings(curvature),
        **problem.sampler.report(run.state, problem.target, finished.draws.statistics),
        **metropolis_report(problem.sampler, run.state, problem.target, run.rows, key_check),
    }
    return assemble(
        problem.reading,
        problem.target,
        finished.draws,
        problem.num_data,
        names,
        log_likelihood,
        settings,
    )
