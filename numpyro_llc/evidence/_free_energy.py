"""``free_energy`` and its curve over temperatures, from a ladder."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from numpyro_llc.errors import warn
from numpyro_llc.estimators import bennett
from numpyro_llc.evidence._criteria import FreeEnergy
from numpyro_llc.inference_data import (
    DatasetResult,
    MonteCarlo,
    dataset_of,
    error_of_mean,
    monte_carlo,
)


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

    Raises
    ------
    ValueError
        If the ladder does not end at β = 1, was not sampled under the prior that is asked for, or
        if Gaussian and prior hardly overlap at β = 1.

    Warns
    -----
    LLCWarning
        If neighbouring rungs hardly overlap.

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
    found = curve_of(data, prior)
    last, attrs = found.data.isel(inverse_temperature=-1), data.attrs
    if doubts := found.apart.get(float(betas[-1])):
        raise ValueError(
            f"The Gaussian around the centre and the model's prior are too far apart at β = 1: "
            f"{'; '.join(doubts)}. Lower `localization`, or sample temperature_ladder with "
            "prior='model' for the evidence of all parameters."
        )
    found.warn_of_rungs()
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
        φ; that of the ladder if left out, and "local" of a ladder with ``prior="both"``. With
        "model" of such a ladder it is what the region around the centre contributes to the
        evidence: at each rung the ratio from the Gaussian to the model's prior is added. Rungs
        where the two hardly overlap are NaN.

    Returns
    -------
    xarray.Dataset
        By ``inverse_temperature``: ``free_energy`` and ``excess`` (less ``β nL(z*)``), in nats,
        their ``error``; ``llc``, the mean of ``β [nL(z) - nL(z*)]``, which is
        ``d excess / d ln β``, its ``llc_error``, and ``ess_bulk`` and ``r_hat`` of its draws.

    Raises
    ------
    ValueError
        If the ladder was not sampled under the prior that is asked for.

    Warns
    -----
    LLCWarning
        If neighbouring rungs hardly overlap, or at some rungs Gaussian and prior.

    Notes
    -----
    Bennett's acceptance ratio between neighbouring densities, added up. Each draw's contributions
    to the ratios that it enters are added before their error is taken. Draws under the Gaussian
    alone do not tell the integral under a prior that is wider than it: weights between the two have
    no variance along directions that the data leave free.
    """
    found = curve_of(ladder_dataset(ladder), prior)
    found.warn_of_rungs()
    if found.apart:
        warn(
            f"The Gaussian around the centre and the model's prior are too far apart at "
            f"{len(found.apart)} of {found.data.sizes['inverse_temperature']} rungs, up to β = "
            f"{max(found.apart):.3g}, where the free energy is NaN. Lower `localization`."
        )
    return found.data


class Curve(NamedTuple):
    """A curve, and what is doubtful about it.

    Attributes
    ----------
    data : xarray.Dataset
        As :func:`free_energy_curve` gives it.
    doubts : list of str
        About neighbouring rungs.
    apart : dict of float to tuple of str
        About Gaussian and prior, by β.
    """

    data: xr.Dataset
    doubts: list[str]
    apart: dict[float, tuple[str, ...]]

    def warn_of_rungs(self) -> None:
        """Say which neighbours hardly overlap."""
        if self.doubts:
            warn(
                f"The free energy is doubtful: {'; '.join(self.doubts)}. Give more "
                "`inverse_temperatures`."
            )


def curve_of(data: xr.Dataset, prior: str | None) -> Curve:
    """The curve of a checked ladder, and what is doubtful about it."""
    own, prior = str(data.attrs["prior"]), _check_prior(data, prior)
    local = data.sel(prior="local") if own == "both" else data
    betas, excess = data["inverse_temperature"].to_numpy(), _by_rung(local["excess_loss"])
    values, influences, doubts = _cumulative(betas, excess)
    apart: dict[float, tuple[str, ...]] = {}
    if prior != own and prior == "model":
        apart = _to_prior(data, betas, values, influences)
        excess = _by_rung(data.sel(prior="model")["excess_loss"])
    known: dict[int, float] = {}
    errors = np.array([_error(of_rungs, known) for of_rungs in influences])
    is_apart = np.isin(betas, list(apart))
    excesses, errors = (np.where(is_apart, np.nan, column) for column in (values, errors))
    rows = [_llc(beta, rung) for beta, rung in zip(betas, excess, strict=True)]
    columns = {
        "free_energy": excesses + betas * float(data.attrs["center_loss"]),
        "excess": excesses,
        "error": errors,
        "llc": [row.mean for row in rows],
        "llc_error": [row.error for row in rows],
        "ess_bulk": [row.ess for row in rows],
        "r_hat": [row.r_hat for row in rows],
    }
    curve = xr.Dataset(
        {name: ("inverse_temperature", np.asarray(x, float)) for name, x in columns.items()},
        coords={"inverse_temperature": betas},
        attrs={**data.attrs, "prior": prior},
    )
    return Curve(curve, doubts, apart)


def ladder_dataset(ladder: DatasetResult | xr.Dataset) -> xr.Dataset:
    """The dataset of a ladder, or an error that says what was given."""
    data = dataset_of(ladder)
    if not isinstance(data, xr.Dataset) or "excess_loss" not in data:
        raise TypeError(
            f"`ladder` must be what temperature_ladder returned; got {type(ladder).__name__}."
        )
    return data


def _check_prior(data: xr.Dataset, prior: str | None) -> str:
    """The prior that was asked for, or that of the ladder, which must have draws under it."""
    own = str(data.attrs["prior"])
    has = ("local", "model") if own == "both" else (own,)
    prior = has[0] if prior is None else prior
    if prior not in ("local", "model"):
        raise ValueError(f"`prior` must be 'local' or 'model'; got {prior!r}.")
    if prior not in has:
        remedy = {
            "model": "'both' for what the region around the centre contributes under the model's "
            "prior, or with 'model' for the evidence of all parameters",
            "local": "'local' or 'both'",
        }
        raise ValueError(
            f"`prior={prior!r}` needs draws under that prior; this ladder has prior={own!r}. "
            f"Sample temperature_ladder with prior={remedy[prior]}."
        )
    return prior


def _by_rung(values: xr.DataArray) -> np.ndarray:
    return values.transpose("inverse_temperature", "chain", "draw").to_numpy()


Influences = list[dict[int, np.ndarray]]
"""For each rung's value, what the draws of the rungs up to it contribute to its error."""


def _cumulative(betas: np.ndarray, excess: np.ndarray) -> tuple[np.ndarray, Influences, list[str]]:
    """``-log Z(β)/Z(0)`` at every rung."""
    values, influences, doubts = [0.0], [{0: np.zeros(excess.shape[1:])}], []
    for k, step in enumerate(np.diff(betas)):
        low, high = bennett(step * excess[k], step * excess[k + 1])
        before = influences[-1]
        values.append(values[-1] + low.value)
        influences.append({**before, k: before[k] + low.influence, k + 1: high.influence})
        doubts += [f"{doubt} at β = {betas[k]:.3g} and {betas[k + 1]:.3g}" for doubt in low.doubts]
    return np.asarray(values), influences, doubts


def _to_prior(
    data: xr.Dataset, betas: np.ndarray, values: np.ndarray, influences: Influences
) -> dict[float, tuple[str, ...]]:
    """Add the ratio from the Gaussian to the prior to each rung above zero, where both are 1.

    Returns what is doubtful about it, by β.
    """
    normalizer = float(data.attrs["log_normalizer"])
    work = data["prior_potential"] - data["penalty"] + normalizer  # log of Gaussian over prior
    from_local, from_model = (_by_rung(work.sel(prior=half)) for half in ("local", "model"))
    apart = {}
    for k in range(1, len(betas)):
        low, high = bennett(from_local[k], from_model[k])
        values[k] += low.value
        influences[k][k] = influences[k][k] + low.influence
        influences[k][~k] = high.influence  # of other draws than any rung under the Gaussian
        if low.doubts:
            apart[float(betas[k])] = low.doubts
    values[0], influences[0] = 0.0, {0: np.zeros(from_local.shape[1:])}
    return apart


def _error(influences: dict[int, np.ndarray], known: dict[int, float]) -> float:
    """Of independent rungs; `known` has the error of each array, most of which rungs share."""
    for one in influences.values():
        if id(one) not in known:
            known[id(one)] = error_of_mean(one)
    return float(np.sqrt(sum(known[id(one)] ** 2 for one in influences.values())))


def _llc(beta: float, excess: np.ndarray) -> MonteCarlo:
    """Of ``β [nL(z) - nL(z*)]``; NaN where the loss is infinite, as it may be at β = 0."""
    if not np.isfinite(excess).all():
        return MonteCarlo(*(float("nan"),) * 4)
    return monte_carlo(beta * excess)
