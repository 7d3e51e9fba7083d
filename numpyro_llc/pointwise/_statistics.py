"""``pointwise_statistics``: moments and predictive densities of each datum, streamed."""

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import logsumexp

from numpyro_llc._checks import check_positive, percent
from numpyro_llc.errors import warn
from numpyro_llc.estimators import SHARE_LIMIT
from numpyro_llc.inference_data import DatasetResult, draws_of, loo_of, monte_carlo
from numpyro_llc.pointwise._criteria import (
    SingularFluctuation,
    learning_curve,
    singular_fluctuation,
    waic,
)
from numpyro_llc.pointwise._losses import PointwiseLosses

SAME_TEMPERATURE = 1e-4
"""Relative difference of two β that counts as none: weights are then not worth their error."""


class PointwiseStatistics(DatasetResult):
    """Moments of each datum's loss over draws at β, as :func:`pointwise_statistics` returns them.

    ``PointwiseStatistics(xarray.load_dataset(path))`` is what ``found.data.to_netcdf(path)``
    stored.

    Attributes
    ----------
    data : xarray.Dataset
        By ``datum``: ``mean_loss`` and ``loss_variance`` of ``ℓ_i(z)`` over draws, ``log_density``,
        ``log E[p(x_i | z)]``, and with `loo` ``elpd_loo`` and ``pareto_k``. Scalars:
        ``functional_variance`` ``V = Σ_i Var[ℓ_i]`` and its Monte Carlo ``error``, ``share`` of the
        draws that the weights leave. attrs: β, that of the draws, numbers of rows and draws.
    """

    def waic(self) -> pd.Series:
        """WAIC and its parts, of draws at β = 1: see :func:`waic`."""
        return waic(self)

    def singular_fluctuation(self) -> SingularFluctuation:
        """ν̂ at β: see :func:`singular_fluctuation`."""
        return singular_fluctuation(self)

    def learning_curve(self, llc: float, *, num_data: int | None = None) -> pd.Series:
        """Mean errors over data sets, from λ, and ν̂ and β of these: see :func:`learning_curve`.

        Parameters
        ----------
        llc : float
            λ.
        num_data : int, optional
            n; by default the rows of these data.
        """
        found = self.singular_fluctuation()
        size = int(self.attrs["num_rows"]) if num_data is None else num_data
        return learning_curve(llc, found.value, size, inverse_temperature=found.inverse_temperature)


def pointwise_statistics(
    losses: PointwiseLosses, *, inverse_temperature: float | None = None, loo: bool = False
) -> PointwiseStatistics:
    r"""Mean, variance and log mean density of each datum, in one pass over blocks of data.

    Parameters
    ----------
    losses : PointwiseLosses
        What :func:`pointwise_losses` returned.
    inverse_temperature : float, optional
        β to weight the draws to; by default that of the draws. The weights are
        ``exp(-(β - β_0) [nL(z) - nL(z*)])``, from the `llc` of the result.
    loo : bool
        Also ArviZ's PSIS-LOO of each datum. Of draws that are not weighted.

    Returns
    -------
    PointwiseStatistics
        The moments, and what they say: its methods ``waic``, ``singular_fluctuation`` and
        ``learning_curve``.

    Warns
    -----
    LLCWarning
        If the weights leave less than a quarter of the draws: run again at that β instead.

    Notes
    -----
    Of draws times data no more than `max_memory` bytes are held. Variances are over all chains and
    not corrected for ``1/ESS``, as in ArviZ.
    """
    beta = losses.inverse_temperature
    if inverse_temperature is not None:
        meaning = "It is β of the density that the draws stand for."
        beta = check_positive("inverse_temperature", inverse_temperature, meaning=meaning)
    weights, share = _weights(losses, beta)
    if loo and share < 1.0:
        raise ValueError(
            f"`loo` is of draws that are not weighted, at β = {losses.inverse_temperature:.4g}; "
            "leave out `inverse_temperature`, or run at it."
        )
    columns: dict[str, list[np.ndarray]] = {}
    by_draw = np.zeros(losses.shape)
    for _, excess, reference in losses:
        mean = np.einsum("ct,cti->i", weights, excess)
        square = (excess - mean) ** 2
        by_draw += square.sum(axis=2)
        found = {
            "mean_loss": reference + mean,
            "loss_variance": np.einsum("ct,cti->i", weights, square),
            "log_density": _log_mean(-excess, weights) - reference,
        }
        if loo:
            found["elpd_loo"], found["pareto_k"] = loo_of(losses.draws, -excess - reference)
        for name, values in found.items():
            columns.setdefault(name, []).append(values)
    return PointwiseStatistics(_dataset(columns, weights, share, by_draw, beta, losses))


def _weights(losses: PointwiseLosses, beta: float) -> tuple[np.ndarray, float]:
    """Weights ``[chain, draw]`` that add to one, and the share of the draws that they leave."""
    count = losses.shape[0] * losses.shape[1]
    sampled = losses.inverse_temperature
    if np.isclose(beta, sampled, rtol=SAME_TEMPERATURE, atol=0.0):
        return np.full(losses.shape, 1.0 / count), 1.0
    if "llc" not in losses.draws:
        raise ValueError(
            f"The draws are at inverse_temperature = {sampled:g} and have no `llc` to weight them "
            f"to {beta:g} with. Leave `inverse_temperature` out."
        )
    log_weights = -(beta / sampled - 1.0) * draws_of(losses.draws, "llc")
    weights = np.exp(log_weights - logsumexp(log_weights))
    share = float(1.0 / (count * np.sum(weights**2)))
    if share < SHARE_LIMIT:
        warn(
            f"Weights from β = {sampled:.3g} to {beta:.3g} leave {percent(share, 2)} of the draws "
            f"(want > {percent(SHARE_LIMIT)}): what they give is not to be trusted. Run "
            f"estimate_llc with inverse_temperature={beta:.3g} instead."
        )
    return weights, share


def _log_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    result: np.ndarray = logsumexp(values, axis=(0, 1), b=weights[..., None])
    return result


def _dataset(
    columns: dict[str, list[np.ndarray]],
    weights: np.ndarray,
    share: float,
    by_draw: np.ndarray,
    beta: float,
    losses: PointwiseLosses,
) -> xr.Dataset:
    variance = float(np.sum(weights * by_draw))
    # A ratio of means; that the means of the data are of the same draws is of second order.
    influence = weights * weights.size * (by_draw - variance)
    return xr.Dataset(
        {
            **{name: ("datum", np.concatenate(parts)) for name, parts in columns.items()},
            "functional_variance": variance,
            "error": monte_carlo(influence).error,
            "share": share,
        },
        coords={"datum": np.arange(losses.num_rows)},
        attrs={
            "inverse_temperature": beta,
            "sampled_inverse_temperature": losses.inverse_temperature,
            "num_rows": losses.num_rows,
            "num_draws": weights.size,
        },
    )
