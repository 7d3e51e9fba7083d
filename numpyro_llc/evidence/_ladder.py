"""``temperature_ladder``: one model at many inverse temperatures, from its prior to its data."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from jax.sharding import Mesh
from numpyro.infer.mcmc import MCMCKernel

from numpyro_llc._checks import check_key, percent
from numpyro_llc.errors import going_with, warn
from numpyro_llc.evidence._base import (
    base_draws,
    log_normalizer,
    potentials,
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
from numpyro_llc.models import Losses, check_no_stream
from numpyro_llc.results import evaluated, one_or_by_site
from numpyro_llc.sampling import Draws, Plan, Run, check_schedule, finish, make_plan, with_defaults

PRIORS = {"local": ("local",), "model": ("model",), "both": ("local", "model")}
"""Under which densities the rungs are sampled."""
MOST_R_HAT = 1.05
"""Of the loss at a rung: chains then differ by ``sqrt(1.05² - 1)``, a third of a draw's spread.
Looser than for one run, since many rungs are judged at once."""
MOST_DIVERGING = 0.05
"""Share of a rung's draws: a region that they miss moves the free energy by about as many nats."""


class TemperatureLadder(DatasetResult):
    """Draws of one model at many inverse temperatures, as :func:`temperature_ladder` returns them.

    ``TemperatureLadder(xarray.load_dataset(path))`` is what ``ladder.data.to_netcdf(path)`` stored;
    ``TemperatureLadder(ladder.data.isel(inverse_temperature=...))`` has fewer rungs.

    Attributes
    ----------
    data : xarray.Dataset
        ``excess_loss`` [inverse_temperature, chain, draw] (nL(z) - nL(z*), nats), the rung β = 0
        first, whose draws are independent; ``penalty`` (of the Gaussian) or ``prior_potential``
        (-log φ(z), Jacobian included), ``center_losses`` [datum] and the ``weight`` [datum] that
        ``handlers.scale`` gives each of them. With ``prior="both"`` all
        have a dimension ``prior`` more, and each draw has both potentials. attrs: n, d, the loss at
        the centre, `prior`, γ.
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
    mesh: Mesh | None = None,
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
    prior : {"local", "model", "both"}
        φ: the Gaussian of precision γ > 0 around the centre, normalized; the model's own prior,
        where γ says only where chains start; or one ladder of each, which gives what the region
        around the centre contributes under the model's prior, at twice the cost.
    inverse_temperatures : sequence of float, optional
        The rungs above zero, increasing. By default a geometric series up to 1, whose steps are
        such that neighbours overlap if ``llc`` is about Gamma(d/2, 1).
    kernel : {"nuts", "hmc", "mala"} or MCMCKernel
        A full-data kernel; NUTS by default.
    num_warmup, num_samples, num_chains : int
        Of each rung.
    chain_method : {"vectorized", "sequential"}
        Rungs side by side, or one after the other; in both cases compiled once.
    mesh : jax.sharding.Mesh, optional
        As in ``estimate_llc``.
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
        For rungs whose chains disagree, or where draws diverged.
    """
    check_key(rng_key)
    if prior not in PRIORS:
        raise ValueError(f"`prior` must be one of {PRIORS}; got {prior!r}.")
    schedule = with_defaults(
        check_schedule(
            num_warmup, num_samples, num_chains, 1, chain_method, progress_bar, mesh=mesh
        )
    )
    local = replace(check_localized(model), inverse_temperature=1.0)
    check_no_stream(model_args, "`temperature_ladder` takes")
    plan = make_plan(local, model_args, model_kwargs, kernel_of(kernel), schedule)
    _check(plan, prior)
    keys = dict(zip(("local", "model"), jax.random.split(rng_key), strict=True))
    rungs = None if inverse_temperatures is None else check_rungs(inverse_temperatures)
    parts: dict[str, _Draws] = {}
    for half in PRIORS[prior]:
        rungs, parts[half] = _sample(plan, half, rungs, keys[half])
    ladder = TemperatureLadder(_dataset(plan, prior, np.concatenate([[0.0], rungs]), parts))
    with going_with(lambda: ladder):
        for half, draws in parts.items():
            _warn_of_chains(half, ladder.data["inverse_temperature"].to_numpy(), draws)
    return ladder


_Draws = list[Draws]


def _sample(
    plan: Plan, prior: str, rungs: np.ndarray | None, rng_key: jax.Array
) -> tuple[np.ndarray, _Draws]:
    """The rungs above zero, chosen if they are not given, and the draws of all, β = 0 first."""
    key_base, key_check, key_starts, key_chains = jax.random.split(rng_key, 4)
    target = target_of_prior(plan, prior)
    base = evaluated(target, base_draws(plan, target, key_base), {})
    # A loss that is no number has no likelihood, as for the chains, which do not go there.
    base = replace(base, excess_loss=np.nan_to_num(base.excess_loss, nan=np.inf, posinf=np.inf))
    if rungs is None:
        rungs = default_rungs(base.excess_loss, plan.target.dimension)
    run = Run(
        replace(plan, target=target),
        starts_of_rungs(plan, rungs, key_check, key_starts),
        key_chains,
        sites=tuple(target.center),
        cells={"inverse_temperature": jnp.asarray(rungs, jnp.result_type(float))},
    )
    draws = finish(run).draws
    return rungs, [base, *(draws.part(block, len(rungs)) for block in range(len(rungs)))]


def _check(plan: Plan, prior: str) -> None:
    if plan.local.truth != "data":
        raise ValueError(
            "`temperature_ladder` computes the free energy of data; got a model localized with "
            f"truth={plan.local.truth!r}. Localize with truth='data'; volume_scaling takes both."
        )
    if plan.is_stochastic:
        raise ValueError(
            f"`kernel` {plan.kernel!r} takes minibatches; a ladder needs exact draws at each "
            "rung. Use 'nuts', 'hmc' or 'mala'."
        )
    if "model" in PRIORS[prior]:
        _check_model_prior(plan, prior)
    if "local" in PRIORS[prior] and not all(
        float(g) > 0 for g in plan.target.localization.values()
    ):
        raise ValueError(
            "`localization` must be positive for every site, for the Gaussian to be normalized."
        )


def _check_model_prior(plan: Plan, prior: str) -> None:
    """The evidence is of a prior whose integral is 1, over all parameters."""
    if plan.target.fixed is not None:
        raise ValueError(
            f"`prior={prior!r}` is the prior of all parameters; `sites` fixes some at the centre. "
            "Use prior='local', or localize without `sites`."
        )
    if without := list(plan.reading.improper):
        raise ValueError(
            f"`prior={prior!r}` needs a prior of integral 1 for every parameter; {without} have "
            "none (numpyro.param, ImproperUniform, or a prior under handlers.scale or "
            "handlers.mask). Use prior='local', or give them one."
        )
    if factors := list(plan.reading.program.prior_factors):
        raise ValueError(
            f"`prior={prior!r}` needs a prior of integral 1; {factors} of `prior_factors` multiply "
            "it by numbers whose integral is not known. Use prior='local', or write the prior as "
            "sample statements alone."
        )


def _dataset(plan: Plan, prior: str, betas: np.ndarray, parts: dict[str, _Draws]) -> xr.Dataset:
    dims: tuple[str, ...] = ("inverse_temperature", "chain", "draw")
    found = {half: _variables(plan, half, draws, prior) for half, draws in parts.items()}
    arrays = next(iter(found.values()))
    coords: dict[str, object] = {"inverse_temperature": betas}
    if len(found) > 1:
        arrays = {k: np.stack([one[k] for one in found.values()]) for k in arrays}
        dims, coords = ("prior", *dims), {"prior": list(found), **coords}
    by_datum = {"center_losses": plan.reading.center_losses, "weight": plan.reading.data_weights}
    return xr.Dataset(
        {
            **{name: (dims, values) for name, values in arrays.items()},
            **{name: ("datum", _joined(losses)) for name, losses in by_datum.items()},
        },
        coords=coords,
        attrs=attributes(
            {
                "num_data": plan.num_data,
                "num_parameters": plan.target.dimension,
                "center_loss": total_loss(plan.reading.center_losses),
                "localization": one_or_by_site(plan.target.localization),
                **({} if prior == "model" else {"log_normalizer": log_normalizer(plan.target)}),
                "prior": prior,
                "kernel": plan.kernel,
            }
        ),
    )


def _joined(losses: Losses) -> np.ndarray:
    """The losses of all sites in one row, float64."""
    return np.concatenate([np.ravel(loss) for loss in losses.values()]).astype(np.float64)


def _variables(plan: Plan, half: str, draws: _Draws, prior: str) -> dict[str, np.ndarray]:
    """Losses and potentials ``[rung, chain, draw]`` of the rungs under one prior."""
    found = {"excess_loss": np.stack([one.excess_loss for one in draws])}
    if prior == "both":
        each = [potentials(plan, one.positions) for one in draws]
        return {**found, **{name: np.stack([one[name] for one in each]) for name in each[0]}}
    penalty = np.stack([one.statistics["penalty"] for one in draws]).astype(np.float64)
    return {**found, "penalty" if half == "local" else "prior_potential": penalty}


def _warn_of_chains(prior: str, betas: np.ndarray, draws: _Draws) -> None:
    """R-hat of the loss, and divergences, at the rungs that were sampled by chains."""
    r_hats = {b: monte_carlo(d.excess_loss).r_hat for b, d in _chains(betas, draws)}
    if found := {beta: r_hat for beta, r_hat in r_hats.items() if r_hat > MOST_R_HAT}:
        worst = max(found, key=lambda beta: found[beta])
        warn(
            f"The chains disagree at {len(found)} of {len(draws)} rungs of prior={prior!r}: R-hat "
            f"of the loss is {found[worst]:.3g} at β = {worst:.3g} (want < {MOST_R_HAT:g}). Raise "
            "`num_warmup` and `num_samples`."
        )
    shares = {
        b: float(np.mean(d.statistics.get("diverging", 0.0))) for b, d in _chains(betas, draws)
    }
    if found := {beta: share for beta, share in shares.items() if share > MOST_DIVERGING}:
        worst = max(found, key=lambda beta: found[beta])
        warn(
            f"Draws diverged at {len(found)} of {len(draws)} rungs of prior={prior!r}, "
            f"{percent(found[worst], 2)} of them at β = {worst:.3g} (want < "
            f"{percent(MOST_DIVERGING)}): a region may be missed, and the free energy wrong. Use "
            "a kernel object with a higher target_accept_prob, or write the likelihood so that its "
            "gradient is finite wherever the prior is, as with logits or logarithms of rates."
        )


def _chains(betas: np.ndarray, draws: _Draws) -> list[tuple[float, Draws]]:
    return list(zip(map(float, betas[1:]), draws[1:], strict=True))
