"""``sweep``: λ̂ over a grid of settings."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import cast

import jax
import xarray as xr
from jax.sharding import Mesh
from numpyro.infer.mcmc import MCMCKernel
from tqdm.auto import tqdm

from numpyro_llc._checks import check_key, check_positive
from numpyro_llc.errors import DataError, ExecutorError, going_with, warn
from numpyro_llc.local import Localization, LocalizedModel, check_localized
from numpyro_llc.models import Arguments, PyTree
from numpyro_llc.sampling import (
    CommonFolder,
    Executor,
    Failed,
    OutputFolder,
    check_executor,
    check_output,
    check_schedule,
    outcomes,
)
from numpyro_llc.studies._cells import Axes, Cell, Group, Plans, groups, is_axis, run_group
from numpyro_llc.studies._grid import resumed, settings_of
from numpyro_llc.studies._plateau import recommend
from numpyro_llc.studies._recipe import Recipe
from numpyro_llc.studies._rows import FILE, Row, empty, failed_row, keep, write

AXES = ("center", "batch_size", "step_size", "localization", "inverse_temperature")
MAX_MEMORY = 2**30
"""Bytes that the cells under way at once may take, by default."""


def sweep(
    rng_key: jax.Array,
    model: LocalizedModel,
    model_args: Arguments = (),
    model_kwargs: Mapping[str, object] | None = None,
    *,
    center: Sequence[PyTree] | None = None,
    localization: Sequence[Localization] | None = None,
    inverse_temperature: Sequence[float] | None = None,
    step_size: Sequence[float] | None = None,
    batch_size: int | Sequence[int] | None = None,
    kernel: str | MCMCKernel | None = None,
    num_warmup: int | None = None,
    num_samples: int | None = None,
    num_chains: int = 4,
    thinning: int | None = None,
    until: float | Mapping[str, float] | None = None,
    chain_method: str = "vectorized",
    mesh: Mesh | None = None,
    max_memory: float = MAX_MEMORY,
    executor: Executor | None = None,
    output: str | Path | None = None,
    progress_bar: bool = True,
) -> xr.Dataset:
    """Estimate λ̂ over a grid of settings, each cell with its diagnostics.

    Parameters
    ----------
    rng_key : jax.Array
        A JAX random key; that of a cell depends on its place in the grid and on `max_memory`.
    model : LocalizedModel
        What :func:`localize` returned. An axis takes the place of its own setting.
    model_args, model_kwargs, num_chains, thinning, until
        As in ``estimate_llc``.
    center : sequence of dicts or Centers, optional
        An axis ``center``.
    localization, inverse_temperature, step_size, batch_size : sequence, optional
        γ, β, ε, B: axes of these names. One `batch_size` is that of all cells.
    kernel : optional
        As in ``estimate_llc``; with an axis `step_size` a stochastic-gradient kernel.
    num_warmup, num_samples : int, optional
        Of every cell. With stochastic-gradient kernels they may be left out: each cell then runs,
        one after the other, until it is known to 1 %.
    chain_method : {"vectorized", "sequential"}
        "vectorized" runs as many cells at once as `max_memory` allows, of stochastic-gradient
        kernels whose lengths are given; "sequential" one after the other.
    mesh : jax.sharding.Mesh, optional
        As in ``estimate_llc``; cells that run side by side all lie on it.
    max_memory : float
        Bytes that cells under way may take: about 16 times the parameters of their chains.
    executor : concurrent.futures.Executor, optional
        Whose workers run the cells: a process pool, Dask's ``client.get_executor()``, or others.
        Cells that run side by side are one task, which `max_memory` makes smaller.
    output : path, optional
        A folder. Cells are written to ``sweep.nc`` there as they end, and a second call goes on
        where the first stopped.
    progress_bar : bool

    Returns
    -------
    xarray.Dataset
        Dimensions are the axes; variables ``llc`` (λ̂), ``sd`` of the draws, ``mcse_mean``,
        ``ess_bulk``, ``ess_tail``, ``r_hat``, ``error`` (the Monte Carlo error with slow
        directions), ``center_loss`` (nL(w*) in nats), ``step_size_used``,
        ``gradient_evaluations``, ``seconds``, ``status`` ("ok"; "doubtful": with findings;
        "diverged": of the draws before; "failed": its worker, twice; "": not run), ``checks`` (the
        names of those that found something) and their ``findings``; and what γ does:
        ``localization_share``, ``mcse_share``, ``distance``, ``reached``.
        attrs: ``recommendation``, the plateau that was found or that there is none, and
        ``recommended``. A plateau is a set of at least three neighbouring cells without a finding
        whose λ̂ all agree with that of the recommended one up to 5 % plus three errors.

    Raises
    ------
    ValueError, TypeError
        For a bad argument or model, by name.
    CheckpointError
        If `output` is of other settings, in use by another process, damaged, or cannot be written;
        the cells so far are its ``table``.
    ExecutorError
        If `executor` takes no more tasks, such as a pool of which a worker was killed; likewise.

    Notes
    -----
    All cells of a batch size run through one compilation: γ, β, ε and the centre are runtime data.
    Ctrl-C returns the cells so far, the others NaN.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import numpyro
    >>> import numpyro.distributions as dist
    >>> import numpyro_llc as nllc
    >>> def model(x, y):
    ...     w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    ...     with numpyro.plate("N", len(x)):
    ...         numpyro.sample("y", dist.Normal(w * x, 1.0), obs=y)
    >>> x = jnp.linspace(-1.0, 1.0, 100)
    >>> y = 2.0 * x + jnp.sin(30.0 * x)
    >>> local = nllc.localize(model, center={"w": float(x @ y / (x @ x))})
    >>> table = nllc.sweep(
    ...     jax.random.key(1),
    ...     local,
    ...     (x, y),
    ...     localization=[0.1, 1.0, 10.0],
    ...     num_samples=500,
    ...     progress_bar=False,
    ... )
    >>> table["llc"].dims
    ('localization',)
    >>> bool(table["llc"].sel(localization=10.0) < table["llc"].sel(localization=0.1))
    True
    """
    check_key(rng_key)
    check_output(output)
    check_positive("max_memory", max_memory, meaning="It is a number of bytes.")
    check_executor(executor, mesh, model_args, model_kwargs)
    local = check_localized(model)
    schedule = check_schedule(
        num_warmup, num_samples, num_chains, thinning, chain_method, False, until, mesh
    )
    given = dict(
        zip(AXES, (center, batch_size, step_size, localization, inverse_temperature), strict=True)
    )
    axes = _axes(given)
    cells = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    one_size = None if is_axis(batch_size) else cast("int | None", batch_size)
    plan_of = Plans(kernel, one_size, axes, Recipe(local, model_args, model_kwargs, schedule))
    with ExitStack() as stack:
        processes, grid, folder = plan_of(cells[0]).processes, empty(axes), None
        if output is not None:
            settings = settings_of(axes, plan_of(cells[0]), rng_key, max_memory)
            opened = partial(OutputFolder, output, settings, what="sweep")
            folder = stack.enter_context(CommonFolder(opened, processes))
            grid = folder.of_first(lambda own: resumed(own.path / FILE, empty(axes)))
        todo = _todo(grid)
        if folder is not None and todo:
            folder.check_writable()
        tasks = _tasks(rng_key, cells, todo, plan_of, max_memory)
        stack.enter_context(going_with(lambda: grid))
        found = stack.enter_context(closing(outcomes(executor, partial(run_group, plan_of), tasks)))
        is_hidden = not progress_bar or not processes.is_first
        with tqdm(total=len(todo), disable=is_hidden, unit="cell") as bar:
            try:
                for places, rows in found:
                    _write(grid, places, rows)
                    keep(grid, folder)
                    bar.update(len(todo & set(places)))
            except KeyboardInterrupt:
                warn("The sweep was interrupted: some cells are NaN.")
            except (DataError, ExecutorError) as error:
                error.table = grid
                raise
        if "center" not in axes:
            grid.attrs |= _recommended(grid, list(axes))
        if folder is not None and (todo or folder.can_write):
            keep(grid, folder)
    return grid


def _recommended(grid: xr.Dataset, axes: list[str]) -> dict[str, str]:
    """What to choose; of a grid without a number, why there is none."""
    failed = int((grid["status"] == "failed").sum())
    if failed < grid["status"].size:
        return recommend(grid, axes)
    said = f"None: {failed} of {failed} cells failed: see `findings`. The same call tries again."
    return {"recommendation": said, "recommended": "{}"}


def _tasks(
    rng_key: jax.Array, cells: Sequence[Cell], todo: set[int], plan_of: Plans, max_memory: float
) -> Iterator[tuple[list[int], Group]]:
    """Places of the cells of a group, and the group, of those that are to do.

    Groups are those of all cells, whatever is done: the key of a cell is that of its group.
    """
    for places in groups(cells, list(range(len(cells))), plan_of, max_memory):
        if not todo.isdisjoint(places):
            key = jax.random.fold_in(rng_key, places[0])
            yield places, Group(key, [cells[place] for place in places])


def _write(grid: xr.Dataset, places: list[int], rows: list[Row] | Failed) -> None:
    """Put the rows of a group at their places; the last group is padded."""
    if isinstance(rows, Failed):
        rows = [failed_row(rows.reason)] * len(places)
    for place, row in zip(places, rows, strict=False):
        write(grid, place, row)


def _todo(grid: xr.Dataset) -> set[int]:
    """Places of the cells that have no row yet, or one whose worker failed."""
    states = grid["status"].to_numpy().reshape(-1)
    return {k for k, status in enumerate(states) if status in ("", "failed")}


def _axes(given: Mapping[str, PyTree]) -> dict[str, list[PyTree]]:
    """The axes of the grid, checked."""
    for name, value in given.items():
        if value is not None and not is_axis(value) and name != "batch_size":
            owner = "localize" if name != "step_size" else "the kernel object"
            raise TypeError(
                f"`{name}` must be a sequence, which makes it an axis; got {value!r}. One value "
                f"for all cells belongs to {owner}."
            )
    axes = {name: list(value) for name, value in given.items() if is_axis(value)}
    _check_axes(axes)
    return axes


def _check_axes(axes: Axes) -> None:
    if not axes:
        raise ValueError(
            f"`sweep` has no axis: give one of {list(AXES)} as a sequence, or call estimate_llc."
        )
    for name, values in axes.items():
        if not values or name != "center" and len(set(map(str, values))) < len(values):
            raise ValueError(f"`{name}` must hold different values, at least one; got {values}.")
