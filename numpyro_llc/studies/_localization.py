"""``choose_localization``: a γ for a centre or a whole training run, and the reason for it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from numpyro.infer.mcmc import MCMCKernel

from numpyro_llc._checks import check_positive, number
from numpyro_llc.inference_data import DatasetResult
from numpyro_llc.kernels import kernel_of
from numpyro_llc.local import (
    ChosenLocalization,
    LocalizedModel,
    as_localized,
    rows_to_evaluate,
    spectrum_at_center,
)
from numpyro_llc.models import Arguments, PyTree, reading_errors
from numpyro_llc.sampling import Plan, check_schedule, make_plan, run_keys
from numpyro_llc.studies._cells import is_axis
from numpyro_llc.studies._chosen_gamma import choose
from numpyro_llc.studies._sweep import sweep

NUM_WARMUP, NUM_SAMPLES = 1000, 2000
"""Steps of a look at each γ."""
DECADES = 2
"""How far the grid goes, either way, from the γ at which ``√(d/γ)`` is the length of the centre."""
LEAST_MIDDLE, MOST_MIDDLE = 0.1, 100.0
"""The middle of the grid stays within these, of a centre at or near zero, or a very long one."""
NEGATIVE = 4.0
"""Monte Carlo errors below zero at which λ̂ is negative."""
SPECTRUM_ROWS = 8192
"""Rows of the data, at most, from which the spectrum of the Hessian is measured."""


@dataclass(frozen=True, eq=False)
class LocalizationChoice(DatasetResult):
    """A chosen γ, the reason, and what each γ of a grid gives.

    Attributes
    ----------
    data : xarray.Dataset [center, localization]
        What :func:`~numpyro_llc.sweep` returns, of each centre and γ, with also
        ``localization_share`` and ``mcse_share`` (which share of λ̂ γ takes, ``-d ln λ̂/d ln γ``),
        ``distance`` of the draws from the centre (root mean square), ``reached`` (which part of
        the density's spread the draws have, 1 where chains have arrived), ``expected_llc`` and
        ``large_localization_limit`` (``½ tr βH (βH + γ)⁻¹`` and ``β tr H/(2γ)``, H the Hessian of
        nL at the centre), ``on_plateau``, ``is_usable``, and ``center_norm`` [center].
    """

    @cached_property
    def localization(self) -> ChosenLocalization:
        """γ, a number with the reason; give it as `localization`, of all runs to compare."""
        return ChosenLocalization(float(self.attrs["chosen"]), self.reason)

    @property
    def reason(self) -> str:
        """Why this γ, in words and numbers."""
        return str(self.attrs["reason"])

    @property
    def has_plateau(self) -> bool:
        """Whether λ̂ does not depend on γ around the one chosen."""
        return bool(self.attrs["has_plateau"])

    @property
    def table(self) -> pd.DataFrame:
        """The main numbers, a row for each centre and γ."""
        columns = (
            "llc mcse_mean localization_share mcse_share distance reached r_hat expected_llc "
            "on_plateau status"
        )
        return self.data[columns.split()].to_dataframe()[columns.split()]

    def __str__(self) -> str:
        return self.reason


def choose_localization(
    rng_key: jax.Array,
    model: LocalizedModel | Callable,
    model_args: Arguments = (),
    model_kwargs: Mapping[str, object] | None = None,
    *,
    center: PyTree = None,
    localization: Sequence[float] | None = None,
    kernel: str | MCMCKernel | None = None,
    batch_size: int | None = None,
    num_warmup: int | None = None,
    num_samples: int | None = None,
    num_chains: int = 4,
    progress_bar: bool = True,
) -> LocalizationChoice:
    """Choose γ by what λ̂, its draws and the curvature at the centre say over a grid of γ.

    Parameters
    ----------
    rng_key : jax.Array
    model : LocalizedModel or callable
        What :func:`localize` returned, whose γ is not used, or a plain model with `center`. With
        ``localize(model, center=None, truth="center")`` the centres need not be minima.
    model_args, model_kwargs, kernel, batch_size, num_chains
        As in ``estimate_llc``.
    center : dict, Center or a list of them, optional
        The centre, in place of that of `model`. Of several, such as the first, a middle and the
        last checkpoint of a training run, one γ is chosen for all, so that they compare.
    localization : sequence of floats, optional
        The grid. Left out, nine values, two a decade, around ``d/|z*|²``, where draws that only γ
        bounds lie as far from the centre as that from zero.
    num_warmup, num_samples : int, optional
        Steps of each chain at each γ: those of the run to come, for the verdict whether chains
        arrive in so many; by default a short look of 1000 and 2000.
    progress_bar : bool

    Returns
    -------
    LocalizationChoice
        ``choice.localization`` is γ, ``choice.reason`` says why, ``choice.table`` has the numbers.

    Raises
    ------
    ValueError, TypeError
        For a bad argument or model, by name.

    Notes
    -----
    A γ is usable at a centre where chains agree (R-hat), have arrived (``reached``), and the draws
    lie no further from the centre than that from zero. A plateau is a run of at least three
    neighbouring γ whose λ̂ all agree with that of the chosen γ up to 5 % plus three errors, at each
    centre, and of which γ takes at most a third. With a plateau the choice is its smallest usable
    γ, else the smallest usable γ of the grid: there γ takes the smallest share. Without a plateau
    λ̂ depends on γ: it counts the directions that the data determine better than γ does, and
    compares at one γ alone.
    """
    centers = list(center) if is_axis(center) else [center]
    local = _at(model, centers[0])
    num_warmup = NUM_WARMUP if num_warmup is None else num_warmup
    num_samples = NUM_SAMPLES if num_samples is None else num_samples
    schedule = check_schedule(num_warmup, num_samples, num_chains, None, "vectorized", False, None)
    chosen = kernel_of(kernel, batch_size, model_args)
    plan = make_plan(local, model_args, model_kwargs, chosen, schedule)
    centers = [local.center] if center is None else centers
    plans = [plan.varied(center=one) for one in centers]
    grid = _grid_around(plans) if localization is None else _checked(localization)
    found = sweep(
        rng_key,
        local,
        model_args,
        model_kwargs,
        center=centers,
        localization=grid,
        kernel=kernel,
        batch_size=batch_size,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        progress_bar=progress_bar,
    )
    if np.any(found["status"] == ""):  # of Ctrl-C, after which `sweep` gives what there is
        raise KeyboardInterrupt
    key = run_keys(rng_key).curvature
    found = xr.merge([found, _curves(key, plans, grid)], combine_attrs="override")
    chosen = choose(found, plan.target.dimension, num_warmup + num_samples)
    chosen.attrs["reason"] += _no_minimum(chosen)
    return LocalizationChoice(chosen)


def _at(model: LocalizedModel | Callable, center: PyTree) -> LocalizedModel:
    """The model at this centre, if one is given, with a γ of which each cell has its own."""
    if isinstance(model, LocalizedModel):
        local = model if center is None else replace(model, center=center)
    else:
        local = as_localized(model, center=center)
    return replace(local, localization=1.0)


def _no_minimum(grid: xr.Dataset) -> str:
    """Which centres have points of lower loss nearby, and what may be measured at these."""
    below = grid["llc"] < -NEGATIVE * grid["mcse_mean"]
    centers = np.flatnonzero(below.any("localization"))
    if not centers.size:
        return ""
    which = "The centre" if grid.sizes["center"] == 1 else f"Centre {', '.join(map(str, centers))}"
    return (
        f" {which} is no minimum of the loss by the data: λ̂ is negative, down to "
        f"{number(float(grid['llc'].min()), 3)}. It is no learning coefficient there, whatever γ. "
        "truth='center' in localize measures the function that is computed at the centre, which "
        "needs no minimum: localize(model, center=None, truth='center') in the place of the model."
    )


def _checked(localization: Sequence[float]) -> list[float]:
    """The grid as the user gave it, in rising order."""
    if not is_axis(localization):
        raise TypeError(
            f"`localization` must be a sequence of numbers to choose from; got {localization!r}."
        )
    meaning = "It is a γ to choose from."
    return sorted({check_positive("localization", one, meaning=meaning) for one in localization})


def _norm(plan: Plan) -> float:
    leaves = jax.tree.leaves(plan.target.center)
    return float(np.sqrt(sum(float(jnp.sum(jnp.square(leaf))) for leaf in leaves)))


def _grid_around(plans: Sequence[Plan]) -> list[float]:
    """Two values a decade, around ``d/|z*|²`` of the median centre, as 1 and 3 times powers."""
    norm = float(np.median([_norm(plan) for plan in plans]))
    middle = plans[0].target.dimension / max(norm, 1e-3) ** 2
    half = round(2.0 * np.log10(np.clip(middle, LEAST_MIDDLE, MOST_MIDDLE)))
    places = range(half - 2 * DECADES, half + 2 * DECADES + 1)
    return [float(f"{10 ** (place / 2):.0e}") for place in places]


def _curves(rng_key: jax.Array, plans: Sequence[Plan], grid: Sequence[float]) -> xr.Dataset:
    """What the curvature at each centre expects of λ̂, and how long each centre is."""
    beta = float(plans[0].target.inverse_temperature)
    shape = (len(plans), len(grid))
    expected, error, limit = (np.empty(shape) for _ in range(3))
    for place, plan in enumerate(plans):
        has_rows = plan.target.program.batching is not None
        rows = rows_to_evaluate(plan.target, SPECTRUM_ROWS, rng_key) if has_rows else None
        with reading_errors():
            spectrum = spectrum_at_center(plan.target, rng_key, rows)
        for cell, gamma in enumerate(grid):
            expected[place, cell], error[place, cell] = spectrum.expected_llc(beta, gamma)
        limit[place] = 0.5 * beta * spectrum.trace()[0] / np.asarray(grid)
    dims = ("center", "localization")
    return xr.Dataset(
        {
            "expected_llc": (dims, expected),
            "expected_llc_error": (dims, error),
            "large_localization_limit": (dims, limit),
            "center_norm": ("center", [_norm(plan) for plan in plans]),
        },
        coords={"center": np.arange(len(plans)), "localization": np.asarray(grid)},
    )
