"""``llc_changes``: between which checkpoints λ̂ changes, beyond its errors."""

import itertools
from statistics import NormalDist

import numpy as np
import pandas as pd
import xarray as xr

from numpyro_llc._checks import check_positive
from numpyro_llc.results import check_probability

PAIRS = ("neighbors", "all")
_NORMAL = NormalDist()


def llc_changes(
    trajectory: xr.Dataset,
    *,
    pairs: str = "neighbors",
    ci_prob: float = 0.95,
    error_factor: float = 1.0,
) -> pd.DataFrame:
    r"""Test between which checkpoints of a training run λ̂ changes.

    The change of a pair over its error, ``(λ̂_b - λ̂_a)/√(s_a² + s_b²)``, is standard normal if λ̂
    does not change. p-values and intervals hold for all pairs at once: with probability `ci_prob`
    no interval misses its change, and no p-value is below ``1 - ci_prob`` by chance alone.

    Parameters
    ----------
    trajectory : xarray.Dataset
        What :func:`~numpyro_llc.llc_trajectory` returned, its file read back, or a part of it taken
        with ``isel`` or ``sel``. Checkpoints without λ̂ are left out.
    pairs : {"neighbors", "all"}
        Each checkpoint with the next, or with every later one.
    ci_prob : float in (0, 1)
        Probability that all intervals hold.
    error_factor : float
        What to multiply the errors by, where repeats of one checkpoint scatter more than they say.

    Returns
    -------
    pandas.DataFrame
        A row a pair, by ``step`` and ``later_step``: ``change`` of λ̂, its ``error``, the interval
        ``ci<percent>_lb`` and ``ci<percent>_ub``, and ``p_value``. Checkpoints count whatever their
        findings, and ``.attrs["doubtful"]`` says how many have any, of ``.attrs["checkpoints"]``.
        Where the centre is no minimum, a change of λ̂ is real and of no learning coefficient.

    Raises
    ------
    ValueError
        For a table without λ̂ and its errors, with more than one truth, or with fewer than two
        checkpoints.

    Notes
    -----
    Intervals are those of Šidák (1967), Journal of the American Statistical Association
    62:626-633, which hold whatever the correlation of normal changes; p-values are stepped down
    (Holm 1979, Scandinavian Journal of Statistics 6:65-70, with Šidák's levels). The errors are
    Monte Carlo errors: the test is of λ̂ at the γ, β and data of the run. Chains that are carried
    from one checkpoint to the next make neighbours alike, and the test conservative.
    """
    ci_prob = check_probability(ci_prob)
    if pairs not in PAIRS:
        raise ValueError(f"`pairs` must be one of {list(PAIRS)}; got {pairs!r}.")
    if missing := {"llc", "error", "status"} - set(trajectory):
        raise ValueError(
            f"`trajectory` must be what `llc_trajectory` returns; it lacks {sorted(missing)}."
        )
    if "truth" in trajectory.dims:
        truths = trajectory["truth"].to_numpy().tolist()
        raise ValueError(
            f"`trajectory` must have one truth, and has {truths}. Choose one: "
            f"trajectory.sel(truth={truths[-1]!r})."
        )
    step, llc, error = (trajectory[name].to_numpy() for name in ("step", "llc", "error"))
    meaning = "It multiplies the errors of λ̂."
    error = error * check_positive("error_factor", error_factor, meaning=meaning)
    known = np.flatnonzero(np.isfinite(llc) & np.isfinite(error))
    if len(known) < 2:
        raise ValueError(
            f"`trajectory` must have at least two checkpoints with λ̂ and error; got {len(known)}."
        )
    chosen = itertools.pairwise(known) if pairs == "neighbors" else itertools.combinations(known, 2)
    first, second = np.array(list(chosen)).T
    change, spread = llc[second] - llc[first], np.hypot(error[first], error[second])
    half = _quantile(ci_prob, len(change)) * spread
    percent = f"{100 * ci_prob:g}"
    table = pd.DataFrame(
        {
            "change": change,
            "error": spread,
            f"ci{percent}_lb": change - half,
            f"ci{percent}_ub": change + half,
            "p_value": _stepped_down(_p_values(change, spread)),
        },
        index=pd.MultiIndex.from_arrays([step[first], step[second]], names=["step", "later_step"]),
    )
    table.attrs = _doubts(trajectory, known)
    return table


def _doubts(trajectory: xr.Dataset, known: np.ndarray) -> dict[str, int]:
    """How many checkpoints there are, and how many have findings."""
    states = trajectory["status"].to_numpy()[known]
    return {"checkpoints": len(known), "doubtful": int(np.sum(states != "ok"))}


def _quantile(probability: float, count: int) -> float:
    """Errors within which `count` normal numbers lie together with at least this probability."""
    each = -np.expm1(np.log(probability) / count)  # 1 - probability^(1/count)
    return -_NORMAL.inv_cdf(0.5 * each)


def _p_values(change: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Two-sided, of each pair by itself; of two λ̂ without any error whether they are equal."""
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.where(change == 0, 0.0, np.abs(change) / error)
    return np.array([2.0 * _NORMAL.cdf(-one) for one in size])


def _stepped_down(p_values: np.ndarray) -> np.ndarray:
    """For all at once: the k-th smallest of m counts as the smallest of m - k + 1."""
    order = np.argsort(p_values)
    left = np.arange(len(p_values), 0, -1)
    with np.errstate(divide="ignore"):  # of a p-value of 1
        raised = -np.expm1(left * np.log1p(-p_values[order]))
    found = np.empty_like(raised)
    found[order] = np.maximum.accumulate(raised)
    return found
