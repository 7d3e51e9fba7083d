"""Singular fluctuation, WAIC, and the learning curves that join λ, ν and the prediction error."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from numpyro_llc._checks import check_positive
from numpyro_llc.inference_data import DatasetResult, dataset_of

MOST_VARIANCE = 0.4
"""Of a datum's log density, above which its part of WAIC is doubtful: Vehtari, Gelman and Gabry
(2017), Statistics and Computing 27:1413-1432; as in ArviZ."""


class SingularFluctuation(NamedTuple):
    """ν̂ of these data.

    Attributes
    ----------
    value : float
        Without unit.
    error : float
        Its Monte Carlo standard error; it does not cover the data, over which ν is a mean.
    inverse_temperature : float
        β. ν depends on it, except in regular models.
    share : float
        Share of the draws (Kish) that weights to this β left; 1 without weights.
    """

    value: float
    error: float
    inverse_temperature: float
    share: float


def singular_fluctuation(statistics: DatasetResult | xr.Dataset) -> SingularFluctuation:
    r"""``ν̂ = β/2 Σ_i Var_β[ℓ_i]``, half of β times the functional variance.

    Parameters
    ----------
    statistics : PointwiseStatistics or xarray.Dataset
        What :func:`pointwise_statistics` returned, at β.

    Notes
    -----
    Watanabe (2010), JMLR 11:3571-3594. d/2 for a regular model that contains the truth, and
    ``tr(I J⁻¹)/2`` for one that does not. Around a centre γ takes from it as it takes from λ̂.
    """
    data = dataset_of(statistics)
    beta = float(data.attrs["inverse_temperature"])
    return SingularFluctuation(
        0.5 * beta * float(data["functional_variance"]),
        0.5 * beta * float(data["error"]),
        beta,
        float(data["share"]),
    )


def waic(statistics: DatasetResult | xr.Dataset) -> pd.Series:
    """WAIC, on the scale of the log density, summed over the data.

    Parameters
    ----------
    statistics : PointwiseStatistics or xarray.Dataset
        What :func:`pointwise_statistics` returned, at β = 1.

    Returns
    -------
    pandas.Series
        As ArviZ 0.x's: ``elpd_waic`` (larger is better), ``se`` (over the data), ``p_waic``,
        ``n_samples``, ``n_data_points``, ``warning`` (a datum's variance above 0.4). A row counts
        as many times as its ``weight`` says.

    Notes
    -----
    Watanabe (2010), JMLR 11:3571-3594. ``elpd_waic / n`` estimates minus the generalization loss.
    Of draws around a centre the Gaussian there is the prior.
    """
    data = dataset_of(statistics)
    beta = data.attrs["inverse_temperature"]
    if not np.isclose(beta, 1.0):
        raise ValueError(
            f"`waic` needs draws at inverse_temperature = 1; these are at {beta:.4g}. Run "
            "estimate_llc with inverse_temperature=1.0, or weight them in pointwise_statistics."
        )
    by_datum = (data["log_density"] - data["loss_variance"]).to_numpy()
    counts = data["weight"].to_numpy()
    size, total = counts.sum(), np.sum(counts * by_datum)
    return pd.Series(
        {
            "elpd_waic": float(total),
            "se": float(np.sqrt(np.sum(counts * (by_datum - total / size) ** 2))),
            "p_waic": float(data["functional_variance"]),
            "n_samples": int(data.attrs["num_draws"]),
            "n_data_points": int(round(size)),
            "warning": bool((data["loss_variance"] > MOST_VARIANCE).any()),
        }
    )


def learning_curve(
    llc: float, fluctuation: float, num_data: int, *, inverse_temperature: float = 1.0
) -> pd.Series:
    r"""Mean errors over data sets, to first order in 1/n, from λ and ν.

    Parameters
    ----------
    llc, fluctuation : float
        λ, and ν at this β.
    num_data : int
        n, or an array of them.
    inverse_temperature : float
        β of the posterior that predicts.

    Returns
    -------
    pandas.Series
        Excess over the loss of the true parameters, in nats a datum: ``bayes_generalization``
        ``((λ - ν)/β + ν)/n``, ``bayes_training`` ``((λ - ν)/β - ν)/n``, ``gibbs_generalization``
        ``(λ/β + ν)/n`` and ``gibbs_training`` ``(λ/β - ν)/n``.

    Notes
    -----
    Watanabe (2009), Algebraic Geometry and Statistical Learning Theory, Main Theorem 6.10 and its
    corollaries. At β = 1 the Bayes generalization error is λ/n whatever ν is. For models that
    contain the truth, or are renormalizable towards it; of one data set the errors scatter by as
    much as they are.
    """
    meaning = "It is β of the posterior that predicts."
    beta = check_positive("inverse_temperature", inverse_temperature, meaning=meaning)
    bayes = (llc - fluctuation) / beta
    gibbs = llc / beta
    return pd.Series(
        {
            "bayes_generalization": (bayes + fluctuation) / num_data,
            "bayes_training": (bayes - fluctuation) / num_data,
            "gibbs_generalization": (gibbs + fluctuation) / num_data,
            "gibbs_training": (gibbs - fluctuation) / num_data,
        }
    )
