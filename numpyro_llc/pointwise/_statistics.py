"""``pointwise_statistics``: moments and predictive densities of each datum, streamed."""

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import logsumexp

from numpyro_llc._checks import check_positive, percent
from numpyro_llc.errors import warn
from numpyro_llc.estimators import SHARE_LIMIT
from numpyro_llc.inference_data import DatasetResult, draws_of, error_of_mean, loo_of
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
        By ``datum``, a row: ``weight`` w_i, how many data it counts as (``handlers.scale``, else
        1), and of one of these ``mean_loss`` and ``loss_variance`` of ``ℓ_i(z)`` over draws,
        ``log_density``, ``log E[p(x_i | z)]``, and with `loo` ``elpd_loo`` and ``pareto_k``.
        Scalars: ``functional_variance`` ``V = Σ_i w_i Var[ℓ_i]`` and its Monte Carlo ``error``,
        ``share`` of the draws that weights to another β leave. attrs: β, that of the draws, n as
        ``Σ_i w_i``, numbers of rows and draws.
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
            n; by default that of these data, ``Σ_i w_i``.
        """
        found = self.singular_fluctuation()
        size = self.attrs["num_data"] if num_data is None else num_data
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
        β to weight the draws to, at least theirs; by default that of the draws. The weights are
        ``exp(-(β - β_0) [nL(z) - nL(z*)])``, from the `llc` of the result. To a smaller β they
        would have no bound.
    loo : bool
        Also ArviZ's PSIS-LOO of each datum, of draws at β = 1.

    Returns
    -------
    PointwiseStatistics
        The moments, and what they say: its methods ``waic``, ``singular_fluctuation`` and
        ``learning_curve``.

    Raises
    ------
    ValueError
        If β is smaller than that of the draws, for `loo` of draws at another β than 1, and if parts
        of a row count as different numbers of data.

    Warns
    -----
    LLCWarning
        If the weights leave less than a quarter of the draws: run again at that β instead.

    Notes
    -----
    A row under ``numpyro.handlers.scale(scale=w)`` is w data alike, each with its own noise: the
    sum over them of ``Var[ℓ]`` is w times that of one.

    Of draws times data no more than `max_memory` bytes are held. Variances are over all chains and
    not corrected for ``1/ESS``, as in ArviZ.
    """
    beta = losses.inverse_temperature
    if inverse_temperature is not None:
        meaning = "It is β of the density that the draws stand for."
        beta = check_positive("inverse_temperature", inverse_temperature, meaning=meaning)
    weights, share = _weights(losses, beta)
    _check_rows(losses)
    if losses.truth is not None:
        raise ValueError(
            "`pointwise_statistics`, and so WAIC and ν, need the losses of data; these are "
            "divergences from the centre. Localize with truth='data', and run again."
        )
    if loo and not (np.isclose(losses.inverse_temperature, 1.0) and share == 1.0):
        raise ValueError(
            f"`loo` needs draws at inverse_temperature = 1, not weighted to it; these are at "
            f"{losses.inverse_temperature:.4g}. Run estimate_llc with inverse_temperature=1.0, and "
            "leave `inverse_temperature` out here."
        )
    columns: dict[str, list[np.ndarray]] = {}
    by_draw = np.zeros(losses.shape)
    for rows, of_rows, reference_of_rows in losses:
        counts = losses.weights[rows]
        # Of one datum; a row that counts as none has no loss.
        each = np.divide(1.0, counts, out=np.zeros_like(counts), where=counts > 0)
        excess, reference = of_rows * each, reference_of_rows * each
        mean = np.einsum("ct,cti->i", weights, excess)
        square = (excess - mean) ** 2
        by_draw += square @ counts
        found = {
            "weight": counts,
            "mean_loss": reference + mean,
            "loss_variance": np.einsum("ct,cti->i", weights, square),
            "log_density": _log_mean(-excess, weights) - reference,
        }
        if loo:
            found["elpd_loo"], found["pareto_k"] = loo_of(losses.draws, -excess - reference)
        for name, values in found.items():
            columns.setdefault(name, []).append(values)
    return PointwiseStatistics(_dataset(columns, weights, share, by_draw, beta, losses))


def _check_rows(losses: PointwiseLosses) -> None:
    if (differ := np.isnan(losses.weights)).any():
        raise ValueError(
            "`pointwise_statistics` needs one scale for each row; numpyro.handlers.scale gives "
            f"parts of row {int(np.argmax(differ))} different ones. Use one scale for a row."
        )


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
    if beta < sampled:
        raise ValueError(
            f"`inverse_temperature` must be at least that of the draws, {sampled:.4g}; got "
            f"{beta:.4g}. Weights to a smaller one have no bound: run estimate_llc with "
            f"inverse_temperature={beta:.4g} instead."
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
            "error": error_of_mean(influence),
            "share": share,
        },
        coords={"datum": np.arange(losses.num_rows)},
        attrs={
            "inverse_temperature": beta,
            "sampled_inverse_temperature": losses.inverse_temperature,
            "num_data": float(losses.weights.sum()),
            "num_rows": losses.num_rows,
            "num_draws": weights.size,
        },
    )
