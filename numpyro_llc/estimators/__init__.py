"""Estimators of λ from one set of draws: arrays ``[chain, draw]`` in, :class:`Estimate` out.

Each is a function of its own and a line of :data:`ESTIMATORS`; the error of each comes from what
every draw contributes to it, so it counts effective draws and keeps correlations.
"""

from numpyro_llc.estimators._bennett import bennett
from numpyro_llc.estimators._covariances import covariances, means_less_covariances
from numpyro_llc.estimators._data import data_error, parts_error
from numpyro_llc.estimators._estimate import RESOLVED, Estimate, covariance
from numpyro_llc.estimators._formulas import (
    check_multiplicity,
    corrected,
    localization_corrected,
    mean,
    multiplicity_corrected,
    variance,
)
from numpyro_llc.estimators._gamma import gamma_fit
from numpyro_llc.estimators._pull import localization_pull, localization_share
from numpyro_llc.estimators._table import ESTIMATORS, Row, rows_of
from numpyro_llc.estimators._temperatures import two_runs, two_temperatures
from numpyro_llc.estimators._weights import SHARE_LIMIT

__all__ = [
    "ESTIMATORS",
    "RESOLVED",
    "SHARE_LIMIT",
    "Estimate",
    "Row",
    "bennett",
    "check_multiplicity",
    "corrected",
    "covariance",
    "covariances",
    "data_error",
    "gamma_fit",
    "localization_corrected",
    "localization_pull",
    "localization_share",
    "mean",
    "means_less_covariances",
    "multiplicity_corrected",
    "parts_error",
    "rows_of",
    "two_runs",
    "two_temperatures",
    "variance",
]
