"""``temperature_ladder``: one model at many inverse temperatures, from its prior to its data."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from numpyro.infer.mcmc import MCMCKernel

from numpyro_llc._checks import check_key
from numpyro_llc.errors import warn
from numpyro_llc.evidence._base import (
    base_draws,
    log_normalizer,
    prior_potential,
    starts_of_rungs,
    target_of_prior,
)
from numpyro_llc.evidence._criteria import FreeEnergy
from numpyro_llc.evidence._free_energy import free_energy, free_energy_curve
from numpyro_llc.evidence._multiplicity import MOST_MULTIPLICITY, fit_multiplicity
from numpyro_llc.evidence._rungs import check_rungs, default_rungs
from numpyro_llc.inference_data import DatasetResult, attributes, monte_carlo
from numpyro_llc.kernels import kernel_of
from numpyro_llc.local import LocalizedModel, check_localized, total_loss
from numpyro_llc.results import evaluated, one_or_by_site
from numpyro_llc.sampling import Draws, Plan, Run, check_schedule, finish, make_plan, with_defaults

PRIORS = ("local", "model")
MOST_R_HAT = 1.05
"""Of the loss at a rung: chains then differ by ``sqrt(1.05² - 1)``, a third of a draw's spread.
Looser than for one run, since many rungs are judged at once."""


class TemperatureLadder(DatasetResult):
    """Draws of one model at many inverse temperatures, as :func:`temperature_ladder` returns them.

    ``TemperatureLadder(xarray.load_dataset(path))`` is what ``ladder.data.to_netcdf(path)`` stored;
    ``TemperatureLadder(ladder.data.isel(inverse_temperature=...))`` has fewer rungs.

    Attributes
    ----------
    data : xarray.Dataset
        ``excess_loss`` [inverse_temperature, chain, draw] (nL(z) - nL(z*), nats), the rung β = 0
        first, whose draws are independent; ``penalty`` (of the Gaussian) or ``prior_potential``
        (-log φ(z), Jacobian included; of a local ladder both, if each parameter has a prior), and
        ``center_losses`` [datum]. attrs: n, d, the loss at the centre, `prior`, γ.
    """

    def free_energy(self, *, prior: str | None = None) -> FreeEnergy:
        """``-log ∫ exp(-nL) φ dz``: see :func:`free_energy`."""
        return free_energy(self, prior=prior)

    def free_energy_curve(self, *, prior: str | None = None) -> xr.Dataset:
        """The free energy at every rung: see :func:`free_energy_curve`."""
        return free_energy_curve(self, prior=prior)

    def multiplicity(
        self, *, most: int = MOST_MULTIPLICITY, least_inverse_temperature: float | None = None
    ) -> pd.DataFrame:
        """λ for each multiplicity, and how well it fits: see :func:`fit_multiplicity`."""
        return fit_multiplicity(
            self, most=most, least_inverse_temperature=least_inverse_temperature
        )


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
) -> TemperatureLadder:
    r"""Sample ``p(z) ∝ exp(-β nL(z)) φ(z)`` at many β at once, down to β = 0.

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
    TemperatureLadder
        The draws of the loss by rung. Its methods ``free_energy``, ``free_energy_curve`` and
        ``multiplicity`` read them.

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
    target = target_of_prior(plan, prior)
    key_prior, key_check, key_starts, key_chains = jax.random.split(rng_key, 4)
    base = evaluated(target, base_draws(plan, target, key_prior), {})
    if inverse_temperatures is None:
        rungs = default_rungs(base.excess_loss, plan.target.dimension)
    else:
        rungs = check_rungs(inverse_temperatures)
    run = Run(
        replace(plan, target=target),
        starts_of_rungs(plan, rungs, key_check, key_starts),
        key_chains,
        sites=tuple(target.center),
        cells={"inverse_temperature": jnp.asarray(rungs, jnp.result_type(float))},
    )
    finished = finish(run)
    draws = [base, *(run.of_block(finished.draws, block) for block in range(len(rungs)))]
    ladder = _dataset(plan, prior, np.concatenate([[0.0], rungs]), draws)
    _warn_of_chains(ladder)
    return TemperatureLadder(ladder)


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


def _dataset(plan: Plan, prior: str, betas: np.ndarray, draws: list[Draws]) -> xr.Dataset:
    dims = ("inverse_temperature", "chain", "draw")
    variables = {"excess_loss": (dims, np.stack([one.excess_loss for one in draws]))}
    penalty = np.stack([one.statistics["penalty"] for one in draws]).astype(np.float64)
    variables["penalty" if prior == "local" else "prior_potential"] = (dims, penalty)
    if prior == "local" and plan.target.fixed is None and not plan.reading.improper:
        found = [prior_potential(plan, one.positions) for one in draws]
        variables["prior_potential"] = (dims, np.stack(found))
    losses = [np.ravel(loss) for loss in plan.reading.center_losses.values()]
    return xr.Dataset(
        {**variables, "center_losses": ("datum", np.concatenate(losses).astype(np.float64))},
        coords={"inverse_temperature": betas},
        attrs=attributes(
            {
                "num_data": plan.num_data,
                "num_parameters": plan.target.dimension,
                "center_loss": total_loss(plan.reading.center_losses),
                "localization": one_or_by_site(plan.target.localization),
                **({"log_normalizer": log_normalizer(plan.target)} if prior == "local" else {}),
                "prior": prior,
                "kernel": plan.kernel,
            }
        ),
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
