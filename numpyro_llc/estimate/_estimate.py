"""``estimate_llc``: from a model to inference data."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import jax
from jax.sharding import Mesh
from numpyro.infer.mcmc import MCMCKernel

from numpyro_llc._checks import check_key
from numpyro_llc.inference_data import InferenceData
from numpyro_llc.kernels import kernel_of
from numpyro_llc.local import Curvature, LocalizedModel, as_localized
from numpyro_llc.models import Arguments, PyTree, check_given_in_memory
from numpyro_llc.results import Coords, Dims, check_log_likelihood, result_of, what_to_store
from numpyro_llc.sampling import (
    Clock,
    CommonRunFolder,
    Finished,
    Plan,
    Run,
    RunFolder,
    check_output,
    check_schedule,
    evaluation_rows,
    fingerprint,
    finish,
    make_plan,
    run_keys,
)
from numpyro_llc.studies import with_chosen_localization


def estimate_llc(
    rng_key: jax.Array,
    model: LocalizedModel | Callable,
    model_args: Arguments = (),
    model_kwargs: Mapping[str, object] | None = None,
    *,
    center: PyTree = None,
    localization: float | str | Mapping[str, float] = 1.0,
    inverse_temperature: float | None = None,
    num_data: int | None = None,
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
    store_sites: bool | Sequence[str] | None = None,
    evaluate_on: Mapping[str, object] | None = None,
    log_likelihood: bool = False,
    coords: Coords | None = None,
    dims: Dims | None = None,
) -> InferenceData:
    r"""Estimate the local learning coefficient λ̂ of a NumPyro model at a point.

    Samples ``p(z) ∝ exp(-β nL(z) - γ/2 |z - z*|²)`` in unconstrained space and returns
    ``λ̂ = β (E[nL(z)] - nL(z*))`` as the posterior mean of the variable ``llc``.

    Parameters
    ----------
    rng_key : jax.Array
        A JAX random key; the same key gives the same draws, for one `chain_method`.
    model : LocalizedModel or callable
        What :func:`localize` returned; or a NumPyro model, with `center` and, if wanted,
        `localization`, `inverse_temperature` and `num_data` given here. Other options of what is
        sampled (parts of the parameters, the truth, factors) are arguments of ``localize``.
    model_args, model_kwargs
        The model's arguments, data included. Arrays are runtime data; Python numbers are structure
        (they compile again when they change), and so are arrays whose values the model reads, as
        in ``int(group.max())``. With `batch_size`, memory maps and arrays of Zarr or HDF5 stay in
        their files, and rows of them are read as they are needed. A :class:`Stream` in the place of
        `model_args` gives batches of a data loader.
    center, localization, inverse_temperature, num_data
        For a plain model only; as in :func:`localize`. ``localization="auto"`` chooses γ by
        :func:`choose_localization` first, with these `num_warmup` and `num_samples` at each of nine
        values; the reason is the attribute ``localization_reason``.
    kernel : {"nuts", "hmc", "mala", "sgld", "psgld", "sgnht", "sgd"} or kernel object, optional
        A name, or an object with its settings: :class:`SGNHT`, :class:`SGLD`, :class:`PSGLD`, or a
        NumPyro kernel, whose model is replaced. The default is NUTS on the full data, and "sgnht"
        with `batch_size`.
    batch_size : int, optional
        Rows of a minibatch, beside the name of a stochastic-gradient kernel; the full data if left
        out. Rows are drawn in the kernel and put into the plate of the observed sites, with or
        without `subsample_size`; in a model that does not index by a plate, the array arguments as
        long as the data are sliced.
    num_warmup, num_samples, thinning : int, optional
        As in :class:`numpyro.infer.MCMC`: each chain keeps ``num_samples // thinning`` draws.
        Left out: 1000, 1000 and 1 for NUTS, HMC and MALA; for the stochastic-gradient kernels the
        warm-up runs until the loss shows no drift, and sampling until the Monte Carlo error is 1 %
        of λ̂ and R-hat below 1.01, or the work limit is reached, which is reported as a finding.
        With `num_samples` and a batch, `thinning` is chosen such that recording the loss of a draw
        costs less than the steps between draws; the attribute ``thinning`` holds it.
    num_chains : int
    until : float or dict, optional
        Sample until the Monte Carlo error is this share of λ̂ and R-hat below 1.01. As a dict with
        ``relative_error`` (0.01), ``r_hat`` (1.01), and limits: ``steps`` of sampling, ``seconds``
        of wall time of the call, up to half of them for the warm-up. Compilation, the
        attribute ``compilation_time``, is not counted, and the last step is completed. What ended
        the run is the attribute ``ended_by``. Not with `num_samples`.
    chain_method : {"vectorized", "sequential", "parallel"}
        "parallel" spreads chains over the devices of `mesh`, or those of this process. Its draws
        are those of "sequential", up to rounding, on any number of devices. With NumPyro's kernels
        "vectorized" has the same draws too. With a stochastic-gradient kernel, "vectorized" chains
        share their batches and what the warm-up learns, and the others do not: the draws differ,
        and have the same density.
    mesh : jax.sharding.Mesh, optional
        Devices to run on, such as ``jax.make_mesh((4, 2), ("chain", "data"))``: chains lie along an
        axis "chain" and rows of the data along an axis "data", if there is such an axis, and
        parameters as the arrays of `center` do. Left out, data and centre stay on the devices where
        they are. Draws do not depend on the mesh, up to rounding, except for minibatches of data on
        several devices, where each device draws its share from its own rows.
    output : path, optional
        A folder to which the run is written as it goes. The same call again goes on from there, to
        the same draws bit for bit, or on another `mesh` up to rounding; a folder of another model,
        data or setting is refused, and so is one that another process writes to.
    progress_bar : bool
    store_sites : bool or sequence of str
        Which sites to keep in the posterior, constrained: all parameters (True), none (False), or
        the named ones, deterministic sites included. Left out: all, but none for the
        stochastic-gradient kernels, whose memory then does not grow with draws times parameters.
    evaluate_on : dict, optional
        Other data by name (the data-refined λ̂), each a tuple in place of `model_args` or a dict in
        place of entries of `model_kwargs`. The same draws give, in the variable ``llc_on``,
        ``nβ [L'(z) - L'(z*)]`` of each, L' the mean loss over those data.
    log_likelihood : bool
        Keep ``log p(x_i | z_t)`` of every datum and draw: an array [chain, draw, n] a site, moved
        off the device draw by draw. At β = 1 it is the group ``log_likelihood``, which ArviZ's
        ``loo`` and ``compare`` read. These hold at β = 1 only: at another β the group is
        ``tempered_log_likelihood``, which they refuse.
    coords : dict of str to array, optional
        Coordinate values by dimension, as in ``arviz.from_numpyro``. The dimensions are those of
        plates, of ``infer={"event_dims": [...]}``, and of `dims`.
    dims : dict of str to list of str, optional
        Names of dimensions by site or array argument, from the left, None for one without a name.
        They replace the plates of that variable.

    Returns
    -------
    arviz.InferenceData (ArviZ 0.x) or xarray.DataTree (ArviZ 1.x)
        ``posterior`` (``llc`` and the stored sites), ``sample_stats`` (``loss`` = nL in nats, or
        with ``truth="center"`` the sum of the divergences,
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
    CheckpointError
        If `output` is of another run, in use by another process, damaged, or cannot be written;
        what was drawn when a disk became full is its ``idata``.
    DataError
        If rows of an argument that lies in a file cannot be read; its ``idata`` are the draws.

    Notes
    -----
    Lau, Furman, Wang, Murfet, Wei (2023), arXiv:2308.12108. Losses are centred datum by datum
    before they are summed, so float32 is accurate for large n. The error in ``summary`` is Monte
    Carlo error; it does not cover the data, γ, or the distance of λ̂ at this n from its limit λ.

    Examples
    --------
    A model of one parameter, of which d/2 = 0.5:

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import numpyro
    >>> import numpyro.distributions as dist
    >>> import numpyro_llc as nllc
    >>> def model(x, y):
    ...     w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    ...     with numpyro.plate("N", len(x)):
    ...         numpyro.sample("y", dist.Normal(w * x, 1.0), obs=y)
    >>> x = jnp.linspace(-1.0, 1.0, 100)
    >>> y = 2.0 * x + jnp.sin(30.0 * x)
    >>> center = nllc.find_center(jax.random.key(0), model, (x, y))
    >>> idata = nllc.estimate_llc(
    ...     jax.random.key(1), model, (x, y), center=center, progress_bar=False
    ... )
    >>> bool(0.3 < nllc.summary(idata).loc["llc", "mean"] < 0.6)
    True
    """
    check_key(rng_key)
    path = check_output(output)
    local = as_localized(
        model,
        center=center,
        localization=localization,
        inverse_temperature=inverse_temperature,
        num_data=num_data,
    )
    check_log_likelihood(log_likelihood, local)
    if log_likelihood:
        check_given_in_memory(model_args, model_kwargs, "`log_likelihood` takes")
    schedule = check_schedule(
        num_warmup, num_samples, num_chains, thinning, chain_method, progress_bar, until, mesh
    )
    local = with_chosen_localization(
        rng_key,
        local,
        model_args,
        model_kwargs,
        path,
        center=lambda: local.center,
        kernel=kernel,
        batch_size=batch_size,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        progress_bar=progress_bar,
    )
    clock, keys = Clock(), run_keys(rng_key)
    plan = make_plan(
        local,
        model_args,
        model_kwargs,
        kernel_of(kernel, batch_size, model_args),
        schedule,
        evaluate_on,
        keys.other_rows,
    )
    store_sites = not plan.is_stochastic if store_sites is None else store_sites
    stored = what_to_store(plan.reading, store_sites, log_likelihood, coords, dims)
    sampled = tuple(plan.target.center) if stored.sites or log_likelihood else ()
    run, finished, curvature = _sampled(plan, rng_key, sampled, output, clock)
    return result_of(run, finished, keys.report, curvature=curvature, stored=stored)


def _sampled(
    plan: Plan,
    rng_key: jax.Array,
    stored: tuple[str, ...],
    output: str | Path | None,
    clock: Clock,
) -> tuple[Run, Finished, Curvature]:
    """The run of a plan, in its folder if it has one, and the curvature that it began with."""
    keys = run_keys(rng_key)
    with ExitStack() as stack:
        folder = None
        if output is not None:
            own = {"center": fingerprint(plan.target.center), "stored sites": stored}
            settings = {**plan.run_identity(rng_key), **own}
            opened = partial(RunFolder, output, settings)
            folder = stack.enter_context(CommonRunFolder(opened, plan.processes))
        curvature = None if plan.is_large else plan.curvature(keys.curvature)
        run = Run(
            plan,
            plan.starts(curvature, keys.starts),
            keys.chains,
            rows=evaluation_rows(plan, keys.rows),
            sites=stored,
            folder=folder,
            clock=clock,
        )
        if curvature is None:  # the chains hold the gradient at the centre
            curvature = plan.curvature(keys.curvature, plan.sampler.gradient(run.state))
        return run, finish(run), curvature
