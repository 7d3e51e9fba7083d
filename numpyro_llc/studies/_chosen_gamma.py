"""From what a grid of γ gave to one γ and the reason for it."""

import numpy as np
import xarray as xr

from numpyro_llc._checks import number, percent
from numpyro_llc.estimators import RESOLVED
from numpyro_llc.results.checks import ABOVE_HALF_D
from numpyro_llc.studies._plateau import Plateau, plateau

R_HAT_LIMIT = 1.05
"""R-hat of a look, which is shorter than a run."""
REACHED = 0.1
"""By how much the spread that the draws have may differ from that of the density, relative."""
FLATTEST = 1 / 3
"""Share of λ̂ that γ may take on a plateau: across a decade λ̂ then changes by a factor 2."""


def choose(grid: xr.Dataset, dimension: int, steps: int) -> xr.Dataset:
    """The grid with ``on_plateau`` and ``is_usable``, and the choice and its reason in the attrs.

    Parameters
    ----------
    grid : xarray.Dataset [center, localization]
    dimension : int
        d.
    steps : int
        Steps of each chain.
    """
    grid = grid.transpose("center", "localization", ...)
    dims, arrived, near = ("center", "localization"), _has_arrived(grid), _is_near(grid)
    possible = _is_possible(grid, dimension)
    usable = arrived & near & possible
    everywhere = np.all(usable, axis=0)
    found = _plateau(grid, arrived & possible, everywhere)
    on_plateau = np.broadcast_to(found.cells, usable.shape)
    grid = grid.assign(on_plateau=(dims, on_plateau), is_usable=(dims, usable))
    gammas = grid["localization"].to_numpy()
    if found.chosen:
        (cell,) = found.chosen
        why = _on_plateau(grid, found, cell)
    elif everywhere.any():
        cell = int(np.argmax(everywhere))
        why = _smallest(grid, near, possible, cell, dimension, steps)
    else:
        cell = len(gammas) - 1
        why = _none_usable(grid, arrived, near, cell, steps)
    if not found.chosen:
        why = f"{_no_plateau(grid, arrived, steps)} {why}"
    attrs = {
        "chosen": float(gammas[cell]),
        "has_plateau": int(found.cells.any()),
        "reason": f"γ = {number(gammas[cell])}. {why}",
        "num_parameters": dimension,
    }
    return grid.assign_attrs({**_without_recommendation(grid.attrs), **attrs})


def _without_recommendation(attrs: dict[str, object]) -> dict[str, object]:
    return {k: v for k, v in attrs.items() if not k.startswith("recommend")}


def _has_arrived(grid: xr.Dataset) -> np.ndarray:
    """Whether the chains agree and have spread as far as the density, ``[center, γ]``."""
    agree = ((grid["r_hat"] <= R_HAT_LIMIT) & np.isfinite(grid["llc"])).to_numpy()
    reached = grid["reached"].to_numpy()
    # Where it is not known, as of a kernel without gradients, R-hat alone tells.
    return agree & ~(np.abs(reached - 1.0) > REACHED)


def _is_near(grid: xr.Dataset) -> np.ndarray:
    """Whether the draws lie no further from the centre than that from zero, ``[center, γ]``."""
    norm = grid["center_norm"].to_numpy()[:, None]
    return (grid["distance"].to_numpy() <= norm) | (norm == 0)


def _is_possible(grid: xr.Dataset, dimension: int) -> np.ndarray:
    """Whether λ̂ is not above d/2, which no λ of a smooth loss exceeds, ``[center, γ]``."""
    limit = ABOVE_HALF_D * dimension / 2 + RESOLVED * grid["mcse_mean"].to_numpy()
    return ~(grid["llc"].to_numpy() > limit)


def _plateau(grid: xr.Dataset, arrived: np.ndarray, everywhere: np.ndarray) -> Plateau:
    is_flat = ~(grid["localization_share"].to_numpy() > FLATTEST)
    llc, error = (grid[name].to_numpy() for name in ("llc", "mcse_mean"))
    return plateau(llc, error, arrived & is_flat, everywhere, takes_first=True)


def _range(values: np.ndarray, digits: int = 3) -> str:
    low, high = (number(end, digits) for end in (np.nanmin(values), np.nanmax(values)))
    return low if low == high else f"{low} to {high}"


def _shares(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    if not known.size:
        return "an unknown share"
    low, high = (percent(float(end), 2) for end in (known.min(), known.max()))
    return low if low == high else f"{low.removesuffix(' %')} to {high}"


def _on_plateau(grid: xr.Dataset, found: Plateau, cell: int) -> str:
    on, here = grid.isel(localization=found.cells), grid.isel(localization=cell)
    gammas, count = on["localization"].to_numpy(), grid.sizes["center"]
    where = "" if count == 1 else f" at each of the {count} centres"
    is_near = on["is_usable"].all("center").any()
    beyond = "" if is_near else ": further than it is long, at every γ of the plateau"
    return (
        f"It is the smallest {'usable ' if is_near else ''}γ of a plateau: for γ from "
        f"{number(gammas.min())} to {number(gammas.max())} λ̂ agrees with that at this γ up to 5 % "
        f"plus three errors{where}, differs from it by at most {percent(found.change, 2)} (λ̂ at "
        f"this γ: {_range(here['llc'].to_numpy())}), and γ "
        f"takes {_shares(on['localization_share'].to_numpy())} of it. The draws lie "
        f"{_range(here['distance'].to_numpy())} from a centre of length "
        f"{_range(here['center_norm'].to_numpy())}{beyond}."
    )


def _no_plateau(grid: xr.Dataset, arrived: np.ndarray, steps: int) -> str:
    gammas, llc = grid["localization"].to_numpy(), grid["llc"].to_numpy()
    known = np.isfinite(llc).any(axis=0)
    if not known.any():
        return "At no γ of the grid did chains give a λ̂."
    ends = np.flatnonzero(known)[[0, -1]]
    share = grid["localization_share"].to_numpy()
    said = (
        f"from γ = {number(gammas[ends[0]])} to {number(gammas[ends[1]])} λ̂ goes "
        f"{_by_center(llc[:, ends])}, and γ takes {_shares(share)} of it."
    )
    is_open = np.any((share < FLATTEST) & ~arrived, axis=0)
    if is_open.any():
        low, high = (number(end) for end in gammas[is_open][[0, -1]])
        return (
            f"No plateau is seen: {said} There may be one at γ = {low} to {high}, where γ takes "
            f"less, but in {steps} steps chains do not agree or arrive there: longer runs tell."
        )
    return (
        f"λ̂ has no plateau: {said} So λ̂ is no learning coefficient at any of these γ: it counts "
        "the directions that the data determine better than γ does. Compare it at one γ only."
    )


def _by_center(llc: np.ndarray) -> str:
    """λ̂ at the first and the last γ, centre by centre."""
    said = [f"from {number(first, 3)} to {number(last, 3)}" for first, last in llc]
    if len(said) == 1:
        return said[0]
    return ", ".join(f"{one} at centre {k}" for k, one in enumerate(said))


def _smallest(
    grid: xr.Dataset,
    near: np.ndarray,
    possible: np.ndarray,
    cell: int,
    dimension: int,
    steps: int,
) -> str:
    here, gammas = grid.isel(localization=cell), grid["localization"].to_numpy()
    said = (
        f"This γ is the smallest at which chains arrive in {steps} steps and draws stay nearer to "
        f"the centre ({_range(here['distance'].to_numpy())}; √(d/γ) is "
        f"{number((dimension / gammas[cell]) ** 0.5, 3)}) than the centre is long "
        f"({_range(here['center_norm'].to_numpy())}); γ takes "
        f"{_shares(here['localization_share'].to_numpy())} of λ̂ there."
    )
    if cell == 0:
        return f"{said} It is the first of the grid: smaller ones may do too."
    below = grid.isel(localization=cell - 1)
    if not possible[:, cell - 1].all():
        why = f"λ̂ is {_range(below['llc'].to_numpy())}, above d/2 = {number(dimension / 2)}"
    elif not near[:, cell - 1].all():
        why = f"draws lie {_range(below['distance'].to_numpy())} away"
    else:
        has_agreed = (below["r_hat"] <= R_HAT_LIMIT).all()
        why = f"chains do not {'arrive' if has_agreed else 'agree'} ({_arrival(below)})"
    return f"{said} At γ = {number(gammas[cell - 1])} {why}."


def _arrival(here: xr.Dataset) -> str:
    return (
        f"R-hat {_range(here['r_hat'].to_numpy())}, and "
        f"{_shares(here['reached'].to_numpy())} of the spread that the density has"
    )


def _none_usable(
    grid: xr.Dataset, arrived: np.ndarray, near: np.ndarray, cell: int, steps: int
) -> str:
    here = grid.isel(localization=cell)
    if not arrived[:, cell].all():
        return (
            f"At no γ of the grid do the chains arrive in {steps} steps at all centres; this is "
            f"the largest ({_arrival(here)}). Raise `num_warmup` and `num_samples`, or give a "
            "larger `localization`."
        )
    if near[:, cell].all():
        return (
            f"At no γ of the grid is λ̂ at most d/2; this is the largest, where λ̂ is "
            f"{_range(here['llc'].to_numpy())}. The check above_half_dimension says why."
        )
    return (
        f"At no γ of the grid do the draws stay nearer to the centre than that is long; this is "
        f"the largest ({_range(here['distance'].to_numpy())} from a centre of length "
        f"{_range(here['center_norm'].to_numpy())}). Give a larger `localization`."
    )
