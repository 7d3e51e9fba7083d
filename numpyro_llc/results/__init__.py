"""A finished run as inference data, and what is read from it."""

from numpyro_llc.results._assemble import (
    assemble,
    curvature_settings,
    evaluated,
    run_settings,
    sites_to_store,
    unconstrained_samples,
)
from numpyro_llc.results._budget import error_budget
from numpyro_llc.results._diagnose import diagnose, text_of
from numpyro_llc.results._from_numpyro import from_numpyro
from numpyro_llc.results._lowest_point import lowest_point
from numpyro_llc.results._summary import summary, two_run_summary

__all__ = [
    "assemble",
    "curvature_settings",
    "diagnose",
    "error_budget",
    "evaluated",
    "from_numpyro",
    "lowest_point",
    "run_settings",
    "sites_to_store",
    "summary",
    "text_of",
    "two_run_summary",
    "unconstrained_samples",
]
