"""A finished run as inference data, and what is read from it.

``_assemble`` puts it together, ``_report`` is what a run says of itself, ``checks`` and
``_diagnose`` what is doubtful about it, ``_findings`` how that is kept.
"""

from numpyro_llc.results._assemble import assemble, result_of
from numpyro_llc.results._budget import error_budget
from numpyro_llc.results._diagnose import diagnose
from numpyro_llc.results._draws import (
    check_log_likelihood,
    evaluated,
    unconstrained_samples,
)
from numpyro_llc.results._findings import Finding, findings, names_of, status_of, text_of
from numpyro_llc.results._from_numpyro import from_numpyro
from numpyro_llc.results._intervals import check_probability, half_width, named, table_of_rows
from numpyro_llc.results._labels import Coords, Dims, read_labels
from numpyro_llc.results._lowest_point import lowest_point
from numpyro_llc.results._penalty import penalty_of, share_columns, virial_of
from numpyro_llc.results._report import RunReport, one_or_by_site, report_of, report_of_software
from numpyro_llc.results._stored import sites_to_store, what_to_store
from numpyro_llc.results._summary import summary

__all__ = [
    "Coords",
    "Dims",
    "Finding",
    "RunReport",
    "assemble",
    "check_log_likelihood",
    "check_probability",
    "diagnose",
    "error_budget",
    "evaluated",
    "findings",
    "from_numpyro",
    "half_width",
    "lowest_point",
    "named",
    "names_of",
    "one_or_by_site",
    "penalty_of",
    "read_labels",
    "share_columns",
    "virial_of",
    "report_of",
    "report_of_software",
    "result_of",
    "sites_to_store",
    "status_of",
    "summary",
    "table_of_rows",
    "text_of",
    "unconstrained_samples",
    "what_to_store",
]
