"""Draws to labelled data, in the container of the installed ArviZ; numbers of ArviZ."""

from numpyro_llc.inference_data._arviz import (
    LEAST_DRAWS,
    Groups,
    InferenceData,
    MonteCarlo,
    Table,
    attributes,
    checked_posterior,
    comparison_columns,
    draws_of,
    error_of_mean,
    group_of,
    inference_data,
    loo_of,
    moments,
    moments_of_draws,
    monte_carlo,
    posterior,
    read_netcdf,
    statistics,
)
from numpyro_llc.inference_data._dataset import DatasetResult, dataset_of
from numpyro_llc.inference_data._labels import labelled
from numpyro_llc.inference_data._names import variable_name, variable_names
from numpyro_llc.inference_data._slow import error_of_llc, monte_carlo_of_llc

__all__ = [
    "DatasetResult",
    "Groups",
    "InferenceData",
    "LEAST_DRAWS",
    "MonteCarlo",
    "Table",
    "attributes",
    "checked_posterior",
    "comparison_columns",
    "dataset_of",
    "draws_of",
    "error_of_llc",
    "error_of_mean",
    "group_of",
    "inference_data",
    "labelled",
    "loo_of",
    "moments",
    "moments_of_draws",
    "monte_carlo",
    "monte_carlo_of_llc",
    "posterior",
    "read_netcdf",
    "statistics",
    "variable_name",
    "variable_names",
]
