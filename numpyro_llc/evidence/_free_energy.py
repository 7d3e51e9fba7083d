"""``free_energy`` and its curve over temperatures, from a ladder."""

import numpy as np
import xarray as xr
from scipy.special import logsumexp

from numpyro_llc.errors import warn
from numpyro_llc.estimators import bennett
from numpyro_llc.evidence._criteria import FreeEnergy
from numpyro_llc.inference_data import DatasetResult, dataset_of, monte_carlo

LEAST_SHARE = 0.1
"""Share of the draws (Kish) that weights from the Gaussian to the prior must leave. The error
of the log of their mean, ``sqrt((1/share - 1)/N)``, is then 0.1 nats for 1000 independent draws."""


def free_energy(ladder: DatasetResult | xr.Dataset, *, prior: str | None = None) -> FreeEnergy:
    r"""``F = -log ∫ exp(-nL(z)) φ(z) dz``, from a temperature ladder up to β = 1.

    Parameters
    ----------
    ladder : TemperatureLadder or xarray.Dataset
        What :func:`temperature_ladder` returned, or its dataset.
    prior : {"local", "model"}, optional
        φ; that of the ladder if left out. See :func:`free_energy_curve`.

    Returns
    -------
    FreeEnergy
        `error` is the Monte Carlo error.

    Notes
    -----
    Of the model's own prior it is minus the log evidence (marginal likelihood), as far as the
    chains have visited all of the posterior; around a centre, minus the log of what the region
    there contributes.
    """
    data = ladder_dataset(ladder)
    betas = data["inverse_temperature"].to_numpy()
    if not np.isclose(betas[-1], 1.0):
        raise ValueError(
            f"`free_energy` needs a ladder that ends at β = 1; this one ends at {betas[-1]:g}. "
            "See free_energy_curve for the free energy at its rungs."
        )
    last = free_energy_curve(data, prior=prior).isel(inverse_temperature=-1)
    attrs = data.attrs
    return FreeEnergy(
        float(last["free_energy"]),
        float(last["error"]),
        float(attrs["center_loss"]),
        int(attrs["num_data"]),
        "free_energy",
    )


def free_energy_curve(
    ladder: DatasetResult | xr.Dataset, *, prior: str | None = None
) -> xr.Dataset:
    r"""``F(β) = -log ∫ exp(-β nL(z)) φ(z) dz`` at every rung, with λ̂ there.

    As a function of ``βn`` it is the free energy of as many data with the same average loss.

    Parameters
    ----------
    ladder : TemperatureLadder or xarray.Dataset
    prior : {"local", "model"}, optional
        φ. With "model" of a ladder with "local", each rung's draws are weighted by the ratio of the
        model's prior to the Gaussian: the contribution of the region around the centre to the
        evidence. Rungs where the weights leave less than a tenth of the draws are NaN.

    Returns
    -------
    xarray.Dataset
        By ``inverse_temperature``: ``free_energy`` and ``excess`` (less ``β nL(z*)``), in nats,
        their ``error``; ``llc``, the mean of ``β [nL(z) - nL(z*)]``, which is
        ``d excess / d ln β``, its ``llc_error``, and ``ess_bulk`` and ``r_hat`` of its draws.

    Notes
    -----
    Bennett's acceptance ratio between neighbouring rungs, added up. Each draw's contributions to
    the two ratios that it enters are added before their error is taken.
    """
    data = ladder_dataset(ladder)
    prior = _check_prior(data, prior)
    betas, excess = data["inverse_temperature"].to_numpy(), _by_rung(data["excess_loss"])
    values, influences = _cumulative(betas, excess)
    relative = np.ones(excess.shape)
    if prior != data.attrs["prior"]:
        relative, log_ratio = _weights_to_prior(data)
        values = values - log_ratio
        for k, of_rungs in enumerate(influences):
            of_rungs[k] = of_rungs[k] - (relative[k] - 1.0)
    known: dict[int, float] = {}
    errors = [_error(of_rungs, known) for of_rungs in influences]
    llc = [_mean(beta * rung, w) for beta, rung, w in zip(betas, excess, relative, strict=True)]
    rows = [monte_carlo(beta * rung) for beta, rung in zip(betas, excess, strict=True)]
    columns = {
        "free_energy": values + betas * float(data.attrs["center_loss"]),
        "excess": values,
        "error": np.where(np.isnan(values), np.nan, errors),
        "llc": [value for value, _ in llc],
        "llc_error": [error for _, error in llc],
        "ess_bulk": [row.ess for row in rows],
        "r_hat": [row.r_hat for row in rows],
    }
    return xr.Dataset(
        {name: ("inverse_temperature", np.asarray(x, float)) for name, x in columns.items()},
        coords={"inverse_temperature": betas},
        attrs={**data.attrs, "prior": prior},
    )


def ladder_dataset(ladder: DatasetResult | xr.Dataset) -> xr.Dataset:
    """The dataset of a ladder, or an error that says what was given."""
    data = dataset_of(ladder)
    if not isinstance(data, xr.Dataset) or "excess_loss" not in data:
        raise TypeError(
            f"`ladder` must be what temperature_ladder returned; got {type(ladder).__name__}."
        )
    return data


def _check_prior(data: xr.Dataset, prior: str | None) -> str:
    """The prior that was asked for, or that of the ladder; the model's has no way back."""
    own = str(data.attrs["prior"])
    prior = own if prior is None else prior
    if prior not in ("local", "model") or (own, prior) == ("model", "local"):
        choice = "'local' or 'model'" if own == "local" else "'model'"
        raise ValueError(f"`prior` must be {choice}, of a {own!r} ladder; got {prior!r}.")
    return prior


def _by_rung(values: xr.DataArray) -> np.ndarray:
    return values.transpose("inverse_temperature", "chain", "draw").to_numpy()


Influences = list[dict[int, np.ndarray]]
"""For each rung's value, what the draws of the rungs up to it contribute to its error."""


def _cumulative(betas: np.ndarray, excess: np.ndarray) -> tuple[np.ndarray, Influences]:
    """``-log Z(β)/Z(0)`` at every rung."""
    values, influences, doubts = [0.0], [{0: np.zeros(excess.shape[1:])}], []
    for k, step in enumerate(np.diff(betas)):
        low, high = bennett(step * excess[k], step * excess[k + 1])
        before = influences[-1]
        values.append(values[-1] + low.value)
        influences.append({**before, k: before[k] + low.influence, k + 1: high.influence})
        doubts += [f"{doubt} at β = {betas[k]:.3g} and {betas[k + 1]:.3g}" for doubt in low.doubts]
    if doubts:
        warn(f"The free energy is doubtful: {'; '.join(doubts)}. Give more `inverse_temperatures`.")
    return np.asarray(values), influences


def _error(influences: dict[int, np.ndarray], known: dict[int, float]) -> float:
    """Of independent rungs; `known` has the error of each array, most of which rungs share."""
    for one in influences.values():
        if id(one) not in known:
            known[id(one)] = monte_carlo(one).error
    return float(np.sqrt(sum(known[id(one)] ** 2 for one in influences.values())))


def _mean(values: np.ndarray, relative: np.ndarray) -> tuple[float, float]:
    """Weighted mean and its Monte Carlo error; an infinite value counts only without weight."""
    if not np.isfinite(values).all():
        return float("nan"), float("nan")
    mean = float(np.mean(relative * values))
    return mean, monte_carlo(relative * (values - mean)).error


def _weights_to_prior(data: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """φ/g of every draw over its mean, g the Gaussian, and the log of the mean, NaN in doubt."""
    if "prior_potential" not in data:
        raise ValueError(
            "`prior='model'` needs a model with a prior of integral 1 for every parameter."
        )
    log_weights = _by_rung(data["penalty"] - data["prior_potential"] - data.attrs["log_normalizer"])
    log_mean = logsumexp(log_weights, axis=(1, 2)) - np.log(log_weights[0].size)
    relative = np.exp(log_weights - log_mean[:, None, None])
    share = 1.0 / np.mean(relative**2, axis=(1, 2))
    return relative, np.where(share < LEAST_SHARE, np.nan, log_mean)
