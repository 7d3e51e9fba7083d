"""``temperature_ladder``: one model at many inverse temperatures, from its prior to its data."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from numpyro.infer.initialization import init_to_sample
from numpyro.infer.mcmc import MCMCKernel

from numpyro_llc._checks import check_key
from numpyro_llc.errors import warn
from numpyro_llc.evidence._rungs import check_rungs, default_rungs
from numpyro_llc.inference_data import attributes, monte_carlo
from numpyro_llc.kernels import kernel_of
from numpyro_llc.local import (
    LocalizedModel,
    LocalTarget,
    PosteriorTarget,
    check_localized,
    total_loss,
)
from numpyro_llc.models import Parameters, draw_starts
from numpyro_llc.results import evaluated, one_or_by_site
from numpyro_llc.sampling import Draws, Plan, Run, check_schedule, finish, make_plan, with_defaults

PRIORS = ("local", "model")
MOST_R_HAT = 1.05
_PRIOR_DRAW = init_to_sample()


def temperature_ladder(
    rng_key: jax.Array,
    model: LocalizedModel,
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
    *,
    prior: str = "local",
    inverse_temperatures: Sequence[float] | None = None,
    kernel: str | MCMCKernel | None = None,
    num_warmup: int = 500,
    num_samples: int = 1000,
    num_chains: int = 4,
    chain_method: str = "vectorized",
    progress_bar: bool = True,
) -> xr.Dataset:
    r"""Sample ``p(z) ∝ exp(-β nL(z)) φ(z)`` at many β at once, down to β = 0.

    What :func:`free_energy`, :func:`free_energy_curve` and :func:`fit_multiplicity` read.

    Parameters
    ----------
    rng_key : jax.Array
    model : LocalizedModel
        What :func:`~numpyro_llc.localize` returned. Chains start around its centre; its
        `inverse_temperature` plays no part.
    model_args, model_kwargs
        The model's arguments.
    prior : {"local", "model"}
        φ: the Gaussian of precision γ > 0 around the centre, normalized, or the model's own prior,
        where γ says only where chains start.
    inverse_temperatures : sequence of float, optional
        The rungs above zero, increasing. By default a geometric series up to 1, whose steps are
        such that neighbours overlap if ``llc`` is about Gamma(d/2, 1).
    kernel : {"nuts", "hmc", "mala"} or MCMCKernel
        A full-data kernel; NUTS by default.
    num_warmup, num_samples, num_chains : int
        Of each rung.
    chain_method : {"vectorized", "sequential"}
        Rungs side by side, or one after the other; in both cases compiled once.
    progress_bar : bool

    Returns
    -------
    xarray.Dataset
        ``excess_loss`` [inverse_temperature, chain, draw] (nL(z) - nL(z*), nats), the rung β = 0
        first, whose draws are independent; ``penalty`` (of the Gaussian) or ``prior_potential``
        (-log φ(z), Jacobian included; of a local ladder both, if each parameter has a prior), and
        ``center_losses`` [datum]. attrs: n, d, the loss at the centre, `prior`, γ.

    Raises
    ------
    ValueError, TypeError
        For a bad argument, centre or model, by name.

    Warns
    -----
    LLCWarning
        For rungs whose chains disagree.
    """
    check_key(rng_key)
    if prior not in PRIORS:
        raise ValueError(f"`prior` must be one of {PRIORS}; got {prior!r}.")
    schedule = with_defaults(
        check_schedule(num_warmup, num_samples, num_chains, 1, chain_method, progress_bar)
    )
    local = replace(check_localized(model), inverse_temperature=1.0)
    plan = make_plan(local, model_args, model_kwargs, kernel_of(kernel), schedule)
    _check(plan, prior)
    target = _target(plan, prior)
    key_prior, key_check, key_starts, key_chains = jax.random.split(rng_key, 4)
    base = evaluated(target, _base_draws(plan, target, key_prior), {})
    if inverse_temperatures is None:
        rungs = default_rungs(base.excess_loss, plan.target.dimension)
    else:
        rungs = check_rungs(inverse_temperatures)
    run = Run(
        replace(plan, target=target),
        _starts(plan, rungs, key_check, key_starts),
        key_chains,
        sites=tuple(target.center),
        cells={"inverse_temperature": jnp.asarray(rungs, jnp.result_type(float))},
    )
    finished = finish(run)
    draws = [base, *(run.of_block(finished.draws, block) for block in range(len(rungs)))]
    return _dataset(plan, prior, np.concatenate([[0.0], rungs]), draws)


def _check(plan: Plan, prior: str) -> None:
    if plan.is_stochastic:
        raise ValueError(
            f"`kernel` {plan.kernel!r} takes minibatches; a ladder needs exact draws at each "
            "rung. Use 'nuts', 'hmc' or 'mala'."
        )
    if prior == "model" and (without := list(plan.reading.improper)):
        raise ValueError(
            f"`prior='model'` needs a prior of integral 1 for every parameter; {without} have none "
            "(numpyro.param, ImproperUniform). Use prior='local', or give them one."
        )
    if prior == "model" and plan.target.fixed is not None:
        raise ValueError(
            "`prior='model'` is the prior of all parameters; `sites` fixes some at the centre. Use "
            "prior='local', or localize without `sites`."
        )
    if prior == "local" and not all(float(g) > 0 for g in plan.target.localization.values()):
        raise ValueError(
            "`localization` must be positive for every site, for the Gaussian to be normalized."
        )


def _target(plan: Plan, prior: str) -> LocalTarget:
    if prior == "local":
        return plan.target
    parts = {field.name: getattr(plan.target, field.name) for field in fields(LocalTarget)}
    return PosteriorTarget(**{**parts, "program": plan.reading.keyed_by_prior()})


def _base_draws(plan: Plan, target: LocalTarget, rng_key: jax.Array) -> Parameters:
    """Independent draws ``[chain, draw, ...]`` at β = 0."""
    schedule = plan.schedule
    shape = (schedule.num_chains, schedule.num_samples or 1)
    if isinstance(target, PosteriorTarget):
        keys = jax.random.split(rng_key, shape[0] * shape[1])
        drawn = draw_starts(target.program, _PRIOR_DRAW, target.arrays, keys)
        return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), drawn)
    keys = jax.random.split(rng_key, len(target.center))

    def around(key: jax.Array, name: str) -> Any:
        leaves, form = jax.tree.flatten(target.center[name])
        scale = jax.lax.rsqrt(target.localization[name])
        own = jax.random.split(key, len(leaves))
        drawn = [
            leaf + scale * jax.random.normal(k, (*shape, *leaf.shape), leaf.dtype)
            for k, leaf in zip(own, leaves, strict=True)
        ]
        return jax.tree.unflatten(form, drawn)

    return {name: around(key, name) for key, name in zip(keys, target.center, strict=True)}


def _starts(
    plan: Plan, rungs: np.ndarray, key_check: jax.Array, key_starts: jax.Array
) -> Parameters:
    """Starts of all rungs around the centre, ``[rung * chain, ...]``."""
    curvature = plan.curvature(key_check)
    scalar = partial(jnp.asarray, dtype=jnp.result_type(float))
    of_rungs = [
        replace(plan, target=replace(plan.target, inverse_temperature=scalar(beta))).starts(
            curvature, jax.random.fold_in(key_starts, k)
        )
        for k, beta in enumerate(rungs)
    ]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *of_rungs)


def _dataset(plan: Plan, prior: str, betas: np.ndarray, draws: list[Draws]) -> xr.Dataset:
    dims = ("inverse_temperature", "chain", "draw")
    variables = {"excess_loss": (dims, np.stack([one.excess_loss for one in draws]))}
    penalty = np.stack([one.statistics["penalty"] for one in draws]).astype(np.float64)
    variables["penalty" if prior == "local" else "prior_potential"] = (dims, penalty)
    if prior == "local" and plan.target.fixed is None and not plan.reading.improper:
        found = [_prior_potential(plan, one.positions) for one in draws]
        variables["prior_potential"] = (dims, np.stack(found))
    losses = [np.ravel(loss) for loss in plan.reading.center_losses.values()]
    ladder = xr.Dataset(
        {**variables, "center_losses": ("datum", np.concatenate(losses).astype(np.float64))},
        coords={"inverse_temperature": betas},
        attrs=attributes(
            {
                "num_data": plan.num_data,
                "num_parameters": plan.target.dimension,
                "center_loss": total_loss(plan.reading.center_losses),
                "localization": one_or_by_site(plan.target.localization),
                "log_normalizer": _log_normalizer(plan.target),
                "prior": prior,
                "kernel": plan.kernel,
            }
        ),
    )
    _warn_of_chains(ladder)
    return ladder


def _prior_potential(plan: Plan, positions: Parameters) -> np.ndarray:
    """``-log φ`` of the model's prior, ``[chain, draw]``."""
    potential = _prior_potentials(plan.reading.keyed_by_prior(), positions, plan.reading.arrays)
    return np.asarray(potential, np.float64)


@partial(jax.jit, static_argnums=0)
def _prior_potentials(program: Any, z: Parameters, arrays: Any) -> jax.Array:
    return jax.vmap(jax.vmap(lambda one: program.prior_potential(one, arrays)))(z)


def _log_normalizer(target: LocalTarget) -> float:
    """Log density of the Gaussian at its centre, ``½ Σ log(γ/2π)``."""
    size = {name: sum(map(np.size, jax.tree.leaves(z))) for name, z in target.center.items()}
    return float(
        sum(0.5 * size[k] * np.log(float(g) / (2 * np.pi)) for k, g in target.localization.items())
    )


def _warn_of_chains(ladder: xr.Dataset) -> None:
    betas = ladder["inverse_temperature"].to_numpy()
    rungs = ladder["excess_loss"].to_numpy()
    found = {
        beta: r_hat
        for beta, rung in zip(betas[1:], rungs[1:], strict=True)
        if (r_hat := monte_carlo(rung).r_hat) > MOST_R_HAT
    }
    if found:
        worst = max(found, key=lambda beta: found[beta])
        warn(
            f"The chains disagree at {len(found)} of {len(rungs)} rungs: R-hat of the loss is "
            f"{found[worst]:.3g} at β = {worst:.3g} (want < {MOST_R_HAT:g}). Raise `num_warmup` "
            "and `num_samples`."
        )
