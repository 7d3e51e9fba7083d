"""Phases: which of several centres of one model the posterior prefers, at which n."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import xarray as xr
from scipy.interpolate import CubicHermiteSpline
from scipy.optimize import brentq

from numpyro_llc.errors import warn
from numpyro_llc.evidence._free_energy import curve_of, ladder_dataset
from numpyro_llc.inference_data import DatasetResult

NUM_POINTS = 200
"""Values of n, evenly spaced in its logarithm: a crossing is refined between two of them."""
LEAST_RUNGS = 2
"""Of a curve in n."""


@dataclass(frozen=True)
class Crossing:
    """Where two phases have the same free energy.

    Attributes
    ----------
    below, above : str
        The phase that is preferred for fewer, and for more data.
    num_data : float
        n*.
    error : float
        Its Monte Carlo standard error.
    data_error : float
        Its standard error over other data sets of the size that was given, to which n* of these
        data would be compared: from the scatter of the difference of the two centres' losses over
        the data. NaN where these are not one a datum, and no weight says how many each is.
    """

    below: str
    above: str
    num_data: float
    error: float
    data_error: float


class Phases(DatasetResult):
    """Free energies of several centres as functions of n, as :func:`phases` returns them.

    ``Phases(xarray.load_dataset(path))`` is what ``found.data.to_netcdf(path)`` stored.

    Attributes
    ----------
    data : xarray.Dataset
        ``free_energy`` [phase, num_data] and its Monte Carlo ``error`` in nats, ``llc``, and
        ``probability`` (``exp(-F)`` normalized over these phases).
    """

    @property
    def crossings(self) -> list[Crossing]:
        """Where the phase that is preferred changes, by rising n."""
        return [Crossing(**one) for one in json.loads(self.attrs["crossings"])]


def phases(
    ladders: Mapping[str, DatasetResult | xr.Dataset], *, prior: str | None = None
) -> Phases:
    r"""Free energies of the regions around several centres, as functions of n.

    ``F_k(n') = n' L_k + [-log ∫ exp(-n' (L(z) - L_k)) φ_k(z) dz]``, the free energy of n' data with
    the same average loss L as those given: the rung ``β = n'/n`` of a ladder.

    Parameters
    ----------
    ladders : dict of str to TemperatureLadder or xarray.Dataset
        By the name of the phase, what :func:`temperature_ladder` returned at its centre: the same
        model and data, ``prior="local"`` or ``prior="both"``, and a `localization` that keeps the
        other phases out. For n' above n take `inverse_temperatures` beyond 1.
    prior : {"local", "model"}, optional
        φ: the Gaussian around each centre, or of ladders with ``prior="both"`` the model's prior,
        as in :func:`free_energy_curve`. With "model" a phase's share of the posterior is
        ``exp(-F)``.

    Returns
    -------
    Phases
        The free energies, and where they cross: ``phases(...).crossings``.

    Raises
    ------
    ValueError
        If the ladders are of different data, were not sampled under the prior that is asked for, or
        have no n' in common.

    Warns
    -----
    LLCWarning
        If neighbouring rungs hardly overlap, or if Gaussian and prior hardly overlap at some rungs:
        the curves then begin above these.

    Notes
    -----
    Between rungs a cubic through the free energies and their exact slopes, ``n' L_k + λ̂_k(n')`` in
    ``log n'``. Of fewer data than were given this is the mean over no data sets: it keeps the noise
    of the data at hand, scaled down. `data_error` says how much that matters.
    """
    if not isinstance(ladders, Mapping) or len(ladders) < 2:
        raise ValueError("`ladders` must be a dict of at least two phases {name: ladder}.")
    data = {name: ladder_dataset(ladder) for name, ladder in ladders.items()}
    _check_alike(data)
    curves = {name: _usable(name, ladder, prior) for name, ladder in data.items()}
    n = int(next(iter(data.values())).attrs["num_data"])
    ends = [curve["inverse_temperature"].to_numpy()[[0, -1]] * n for curve in curves.values()]
    low, high = max(end[0] for end in ends), min(end[1] for end in ends)
    if not low < high:
        raise ValueError(f"The ladders have no range of n in common; theirs are {ends}.")
    order = np.linspace(np.log(low), np.log(high), NUM_POINTS)
    found = _dataset(curves, _centered_losses(data), n, order)
    found.attrs["crossings"] = json.dumps([asdict(one) for one in _find(found, data, n)])
    return Phases(found)


def _usable(name: str, ladder: xr.Dataset, prior: str | None) -> xr.Dataset:
    """The rungs above zero, and above all at which Gaussian and prior are too far apart."""
    curve, doubts, apart = curve_of(ladder, prior)
    if doubts:
        warn(
            f"The free energy of phase {name!r} is doubtful: {'; '.join(doubts)}. Give its ladder "
            "more `inverse_temperatures`."
        )
    begin = max(apart, default=0.0)
    kept = curve.isel(inverse_temperature=curve["inverse_temperature"].to_numpy() > begin)
    if (count := kept.sizes["inverse_temperature"]) < LEAST_RUNGS:
        remedy = "Lower its `localization`." if apart else "Give it more `inverse_temperatures`."
        cause = "above those where Gaussian and prior are too far apart" if apart else "above zero"
        raise ValueError(
            f"`ladders` must have at least two rungs {cause}; {name!r} has {count}. {remedy}"
        )
    if apart:
        n = float(kept["inverse_temperature"][0]) * int(ladder.attrs["num_data"])
        warn(
            f"The curve of phase {name!r} begins at n = {n:.3g}: below, at {len(apart)} rungs, the "
            "Gaussian around its centre and the model's prior are too far apart. Lower its "
            "`localization`."
        )
    return kept


def _check_alike(ladders: Mapping[str, xr.Dataset]) -> None:
    for what in ("num_data", "num_parameters", "prior"):
        values = {name: ladder.attrs[what] for name, ladder in ladders.items()}
        if len(set(values.values())) > 1:
            raise ValueError(f"`ladders` must have the same `{what}`; got {values}.")
    if next(iter(ladders.values())).attrs["prior"] == "model":
        raise ValueError("`ladders` must be of prior='local' or 'both', each around its centre.")
    sizes = {name: ladder.sizes["datum"] for name, ladder in ladders.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"`ladders` must be of the same data; they have {sizes} losses.")


def _centered_losses(ladders: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """``nL_k`` of each phase less that of the first: datum by datum, then their sum."""
    losses = {name: ladder["center_losses"].to_numpy() for name, ladder in ladders.items()}
    first = next(iter(losses.values()))
    return {name: float(np.sum(own - first)) for name, own in losses.items()}


def _dataset(
    curves: Mapping[str, xr.Dataset], losses: Mapping[str, float], n: int, order: np.ndarray
) -> xr.Dataset:
    """Free energies on the grid; the first phase's loss is the level of all."""
    sizes = np.exp(order)
    rows: dict[str, list[np.ndarray]] = {"free_energy": [], "error": [], "llc": []}
    for name, curve in curves.items():
        places = np.log(curve["inverse_temperature"].to_numpy() * n)
        spline = CubicHermiteSpline(places, curve["excess"], curve["llc"])
        rows["free_energy"].append(spline(order) + sizes * losses[name] / n)
        rows["llc"].append(spline(order, 1))
        rows["error"].append(np.interp(order, places, curve["error"]))
    values = np.stack(rows["free_energy"])
    weights = np.exp(values.min(axis=0) - values)
    columns = {name: np.stack(parts) for name, parts in rows.items()}
    columns["probability"] = weights / weights.sum(axis=0)
    return xr.Dataset(
        {name: (("phase", "num_data"), column) for name, column in columns.items()},
        coords={"phase": list(curves), "num_data": sizes},
        attrs={"level": next(iter(curves))},
    )


def _find(found: xr.Dataset, ladders: Mapping[str, xr.Dataset], n: int) -> list[Crossing]:
    """Crossings of the phase that is lowest with the next one."""
    energies = found["free_energy"].to_numpy()
    order = np.log(found["num_data"].to_numpy())
    names = [str(name) for name in found["phase"].to_numpy()]
    best = energies.argmin(axis=0)
    places = np.flatnonzero(np.diff(best))
    result = []
    for k, (one, two) in ((k, (best[k], best[k + 1])) for k in places):
        gap = energies[one] - energies[two]
        line = CubicHermiteSpline(order, gap, np.gradient(gap, order))
        root = float(brentq(line, order[k], order[k + 1]))
        slope = abs(float(line(root, 1)))
        spread = np.hypot(*(found["error"].to_numpy()[phase][k] for phase in (one, two)))
        size = float(np.exp(root))
        scatter = size * _loss_scatter(ladders[names[one]], ladders[names[two]], n)
        result.append(
            Crossing(
                names[one], names[two], size, size * float(spread) / slope, size * scatter / slope
            )
        )
    return result


def _loss_scatter(one: xr.Dataset, two: xr.Dataset, n: int) -> float:
    """Standard error of the difference of the average losses, nats a datum.

    A loss of weight w is that of w data: their scatter is w times that of one.
    """
    weights = one["weight"].to_numpy()
    total = weights.sum()
    if np.all(weights == 1.0) and total != n:
        return float("nan")  # rows that stand for n data, nobody knows how
    apart = (one["center_losses"] - two["center_losses"]).to_numpy()
    each = np.divide(apart, weights, out=np.zeros_like(apart), where=weights > 0)
    square = np.sum(weights * (each - apart.sum() / total) ** 2)
    return float(np.sqrt(square * total / (total - 1)) / n)
