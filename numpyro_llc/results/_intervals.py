"""Intervals of an estimate and the columns that hold them."""

from collections.abc import Mapping
from statistics import NormalDist

import pandas as pd

from numpyro_llc._checks import check_positive
from numpyro_llc.estimators import Row


def check_probability(ci_prob: object) -> float:
    """The probability of an interval as a float in (0, 1), or an error."""
    value = check_positive("ci_prob", ci_prob, meaning="It is a probability, such as 0.9.")
    if value >= 1:
        raise ValueError(f"`ci_prob` must be below 1; got {ci_prob}. It is a probability.")
    return value


def half_width(ci_prob: float) -> float:
    """Half the width of a normal interval, in standard errors."""
    return NormalDist().inv_cdf(0.5 + 0.5 * ci_prob)


def table_of_rows(rows: Mapping[str, Row]) -> pd.DataFrame:
    """A row an estimate, by its name."""
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(Row._fields)).astype(float)


def named(table: pd.DataFrame, ci_prob: float) -> pd.DataFrame:
    """The table with the ends of its intervals under ArviZ's names, such as ``ci90_lb``."""
    percent = f"{100 * ci_prob:g}"
    return table.rename(columns={"lower": f"ci{percent}_lb", "upper": f"ci{percent}_ub"})
