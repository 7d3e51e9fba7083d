"""The front door of the room."""

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import xarray as xr
from tqdm.auto import tqdm

from numpyro_llc._checks import check_key, check_positive
from numpyro_llc.errors import LLCWarning
from numpyro_llc.sampling import check_schedule, prepare
from numpyro_llc.studies._cells import Problems, groups, is_axis, run_group
from numpyro_llc.studies._grid import identity, resumed
from numpyro_llc.studies._plateau import recommend
from numpyro_llc.studies._rows import empty, save, write

AXES = ("center", "batch_size", "step_size", "localization", "inverse_temperature")
MAX_MEMORY = 2**30
"""Bytes that the cells under way at once may take, by default."""


def sweep(
    rng_key: jax.Array,
    model: Callable,
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
    *,
    center: Any,
    kernel: Any = "sgld",
    localization: Any = 1.0,
    inverse_temperature: Any = None,
    step_size: Any = None,
    batch_size: Any = None,
    num_data: int | None = None,
    in_axes: Any = None,
    num_warmup: int | None = None,
    num_samples: int | None = None,
    num_chains: int = 4,
    thinning: int | None = None,
    chain_method: str = "vectorized",
    max_memory: float = MAX_MEMORY,
    output: str | Path | None = None,
    progress_bar: bool = True,
    likelihood_factors: Sequence[str] = (),
    prior_factors: Sequence[str] = (),
) -> xr.Dataset:
    """Estimate λ̂ over a grid of settings, each cell with its diagnostics.

    Parameters
    ----------
    rng_key : jax.Array
        A JAX random key; that of a cell depends on its place in the grid.
    model, model_args, model_kwargs, kernel, num_data, in_axes, num_chains, thinning
        As in ``estimate_llc``.
    center : dict, Center or list of them
        A list is an axis ``center``.
    localization, inverse_temperature, step_size, batch_size : number or sequence
        γ, β, ε, B; a sequence is an axis of that name.
    num_warmup, num_samples : int, optional
        Of every cell. With stochastic-gradient kernels they may be left out: each cell then runs,
        one after the other, until it is known to 1 %.
    chain_method : {"vectorized", "sequential"}
        "vectorized" runs as many cells at once as `max_memory` allows, of stochastic-gradient
        kernels whose lengths are given; "sequential" one after the other.
    max_memory : float
        Bytes that cells under way may take: about 16 times the parameters of their chains.
    output : path, optional
        A folder. Cells are written to ``sweep.nc`` there as they end, and a second call goes on
        where the first stopped.
    progress_bar : bool
    likelihood_factors, prior_factors : sequences of str
        As in ``estimate_llc``.

    Returns
    -------
    xarray.Dataset
        Dimensions are the axes; variables ``llc`` (λ̂), ``mcse``, ``sd`` of the draws, ``ess_bulk``,
        ``ess_tail``, ``r_hat``, ``center_loss`` (nL(w*) in nats), ``step_size_used``, ``seconds``,
        ``status`` ("ok"; "doubtful": with ``findings``; "diverged": of the draws before; "": not
        run), ``findings``. attrs: ``recommendation``, the plateau that was found or that there is
        none, and ``recommended``.

    Raises
    ------
    ValueError, TypeError
        For a bad argument or model, by name, and for an `output` of other settings.

    Notes
    -----
    All cells of a batch size run through one compilation: γ, β, ε and the centre are runtime data.
    Ctrl-C returns the cells so far, the others NaN.
    """
    check_key(rng_key)
    check_positive("max_memory", max_memory, meaning="It is a number of bytes.")
    schedule = check_schedule(num_warmup, num_samples, num_chains, thinning, chain_method, False)
    given = dict(
        zip(AXES, (center, batch_size, step_size, localization, inverse_temperature), strict=True)
    )
    axes = {name: list(value) for name, value in given.items() if is_axis(value)}
    _check_axes(axes)
    cells = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]

    problem_of = Problems(
        given,
        lambda center, batch_size, step_size: prepare(
            model,
            model_args,
            model_kwargs,
            schedule,
            center=center,
            kernel=kernel,
            num_data=num_data,
            inverse_temperature=None,
            localization=1.0,
            batch_size=batch_size,
            in_axes=in_axes,
            step_size=step_size,
            likelihood_factors=likelihood_factors,
            prior_factors=prior_factors,
        ),
    )
    grid = empty(axes)
    if output is not None:
        grid = resumed(output, grid, problem_of(cells[0]), identity(rng_key, given, schedule))
    todo = [k for k, status in enumerate(grid["status"].to_numpy().reshape(-1)) if not status]
    with tqdm(total=len(todo), disable=not progress_bar, unit="cell") as bar:
        try:
            for places in groups(cells, todo, problem_of, schedule, max_memory):
                group = [cells[place] for place in places]
                rows = run_group(jax.random.fold_in(rng_key, places[0]), group, problem_of)
                for place, row in zip(places, rows, strict=False):  # the last group is padded
                    write(grid, place, row)
                if output is not None:
                    save(grid, Path(output) / "sweep.nc")
                bar.update(len(set(places)))
        except KeyboardInterrupt:
            warnings.warn(
                "The sweep was interrupted: some cells are NaN.", LLCWarning, stacklevel=2
            )
    if "center" not in axes:
        grid.attrs |= recommend(grid, list(axes))
    if output is not None:
        save(grid, Path(output) / "sweep.nc")
    return grid


def _check_axes(axes: Mapping[str, list[Any]]) -> None:
    if not axes:
        raise ValueError(
            f"`sweep` has no axis: give one of {list(AXES)} as a sequence, or call estimate_llc."
        )
    for name, values in axes.items():
        if not values or name != "center" and len(set(map(str, values))) < len(values):
            raise ValueError(f"`{name}` must hold different values, at least one; got {values}.")
