"""``fit_multiplicity``: m from how λ̂ rises along a ladder."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from scipy.optimize import least_squares
from scipy.stats import chi2

from numpyro_llc._checks import check_integer, check_positive
from numpyro_llc.estimators import Estimate, localization_corrected
from numpyro_llc.evidence._free_energy import ladder_dataset
from numpyro_llc.inference_data import DatasetResult, error_of_mean

MOST_MULTIPLICITY = 3
"""The largest m that is tried; see the Notes of :func:`fit_multiplicity` on how few can be told."""
SHARE_OF_LARGEST = 0.6
"""Rungs whose λ̂ is below this share of the largest are left out: the law is of large c."""
LEAST_RUNGS = 5
"""Two more than the three parameters of the largest fit."""
FIRST_VALUE = 1.2
"""The start of λ, in units of the largest λ̂: the law rises to it from below."""
POWER_STARTS = ((-1.0, -1.0), (-3.0, 0.0))
"""Starts of ``(ln A, ln a)``."""
LOGARITHM_STARTS = ((0.0,), (1.5,), (3.0,))
"""Starts of ``ln(ln c + C)`` at the first rung."""


def fit_multiplicity(
    ladder: DatasetResult | xr.Dataset,
    *,
    most: int = MOST_MULTIPLICITY,
    least_inverse_temperature: float | None = None,
) -> pd.DataFrame:
    r"""Fit how λ̂ rises with ``c = nβ``, for each multiplicity m up to `most`.

    For m above 1, ``λ̂(c) = λ - (m - 1)/(ln c + C)``; for m = 1, whose corrections are powers of c,
    ``λ̂(c) = λ - A c^(-a)``. λ̂ is corrected for γ to first order.

    Parameters
    ----------
    ladder : TemperatureLadder or xarray.Dataset
        What :func:`temperature_ladder` returned, with ``prior="local"`` or "both". A wide range of
        β helps; it may go beyond 1.
    most : int
        The largest multiplicity to try.
    least_inverse_temperature : float, optional
        Rungs below are left out; by default those whose λ̂ is below 0.6 of the largest.

    Returns
    -------
    pandas.DataFrame
        A row for each m, the best first: ``llc`` (λ of the fit) and its ``error``, ``chi_square``,
        its ``degrees`` of freedom, and ``p_value``. An m whose chi-square is within a few of the
        best is not excluded by these draws.

    Notes
    -----
    From ``-ln Z = λ ln c - (m - 1) ln(ln c + C)``, weighted by Monte Carlo errors. A logarithm and
    a small power of c are alike over a few decades: at 2 % errors, from c = 10 to 10⁵, exact values
    of ``(w1 w2)²`` (m = 2) fit as well with m = 3, and with m = 1 and a = 0.18. So m alone is
    rarely identified; λ given the right m is. A small ``p_value`` for every m says that rungs with
    too small β take part.
    """
    check_integer("most", most, minimum=1, meaning="It is the largest multiplicity to try.")
    betas, llc, error = _corrected_rungs(ladder_dataset(ladder))
    kept = llc > SHARE_OF_LARGEST * llc.max()
    if least_inverse_temperature is not None:
        meaning = "Rungs below it are left out."
        kept = betas >= check_positive(
            "least_inverse_temperature", least_inverse_temperature, meaning=meaning
        )
    if kept.sum() < LEAST_RUNGS:
        raise ValueError(
            f"Five rungs are needed to fit m; {int(kept.sum())} are left. Give more "
            "`inverse_temperatures`, or a smaller `least_inverse_temperature`."
        )
    order = np.log(betas[kept] / betas[kept][0])
    rows = {m: _fit(m, order, llc[kept], error[kept]) for m in range(1, most + 1)}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("multiplicity")
    return table.sort_values("chi_square")


def _corrected_rungs(ladder: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """β above zero, ``λ̂ + Cov(X, P)`` there and its Monte Carlo error."""
    if ladder.attrs["prior"] == "model":
        raise ValueError(
            "`ladder` must be of prior='local' or 'both', around its centre, to fit m."
        )
    if ladder.attrs["prior"] == "both":
        ladder = ladder.sel(prior="local")
    above = ladder.isel(inverse_temperature=ladder["inverse_temperature"].to_numpy() > 0)
    above = above.transpose("inverse_temperature", "chain", "draw", "datum")
    betas = above["inverse_temperature"].to_numpy()
    rungs: list[Estimate] = [
        localization_corrected(beta * excess, penalty)
        for beta, excess, penalty in zip(
            betas, above["excess_loss"].to_numpy(), above["penalty"].to_numpy(), strict=True
        )
    ]
    errors = np.array([error_of_mean(rung.influence) for rung in rungs])
    return betas, np.array([rung.value for rung in rungs]), errors


Curve = Callable[[np.ndarray], np.ndarray]


def _fit(m: int, order: np.ndarray, llc: np.ndarray, error: np.ndarray) -> dict[str, float]:
    """Least squares from several starts; `order` is ln c from the first rung on."""

    def power(x: np.ndarray) -> np.ndarray:
        return np.asarray(x[0] - np.exp(x[1] - np.exp(x[2]) * order))

    def logarithm(x: np.ndarray) -> np.ndarray:
        return np.asarray(x[0] - (m - 1) / (order + np.exp(x[1])))

    curve: Curve = power if m == 1 else logarithm
    starts: Sequence[tuple[float, ...]] = POWER_STARTS if m == 1 else LOGARITHM_STARTS
    best = min(
        (
            least_squares(lambda x: (curve(x) - llc) / error, (FIRST_VALUE * llc.max(), *start))
            for start in starts
        ),
        key=lambda one: float(one.cost),
    )
    chi_square, degrees = 2.0 * float(best.cost), len(llc) - best.x.size
    return {
        "llc": float(best.x[0]),
        "error": float(np.linalg.pinv(best.jac.T @ best.jac)[0, 0] ** 0.5),
        "chi_square": chi_square,
        "degrees": degrees,
        "p_value": float(chi2.sf(chi_square, degrees)),
    }
