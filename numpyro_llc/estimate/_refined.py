"""``refined_llc``: λ̂ of parts of a model, and on other data, in one table."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jax.sharding import Mesh
from numpyro.infer.mcmc import MCMCKernel
from tqdm.auto import tqdm

from numpyro_llc._checks import check_localization
from numpyro_llc.errors import (
    CheckpointError,
    DataError,
    ExecutorError,
    LLCWarning,
    going_with,
    warn,
)
from numpyro_llc.estimate._estimate import estimate_llc
from numpyro_llc.inference_data import InferenceData, Table, moments, posterior
from numpyro_llc.kernels import kernel_of
from numpyro_llc.local import LocalizedModel, Sites, check_localized, split
from numpyro_llc.models import ModelReading
from numpyro_llc.results import (
    RunReport,
    findings,
    names_of,
    report_of,
    status_of,
    text_of,
)
from numpyro_llc.sampling import (
    CommonFolder,
    Executor,
    Failed,
    OutputFolder,
    Processes,
    check_executor,
    check_output,
    check_schedule,
    mesh_of,
    outcomes,
)
from numpyro_llc.studies import ERROR, MOMENTS, OF_GAMMA, TEXTS, error_of, of_gamma

SAMPLED = "sampled"
"""The name, among the data, of those that are sampled on."""


class _Refined(NamedTuple):
    """What the table keeps of a run: moments of ``llc`` and each ``llc_on``, and its columns."""

    moments: Table
    columns: dict[str, Any]
    report: RunReport


_Row = _Refined | Failed


def refined_llc(
    rng_key: jax.Array,
    model: LocalizedModel,
    model_args: Sequence[object] = (),
    model_kwargs: Mapping[str, object] | None = None,
    *,
    sites: Mapping[str, Sites | None],
    evaluate_on: Mapping[str, object] | None = None,
    kernel: str | MCMCKernel | None = None,
    batch_size: int | None = None,
    num_warmup: int | None = None,
    num_samples: int | None = None,
    num_chains: int = 4,
    thinning: int | None = None,
    until: float | Mapping[str, float] | None = None,
    chain_method: str = "vectorized",
    mesh: Mesh | None = None,
    executor: Executor | None = None,
    output: str | Path | None = None,
    progress_bar: bool = True,
) -> xr.Dataset:
    """Estimate λ̂ refined to parts of the parameters and to other data.

    Parameters
    ----------
    rng_key : jax.Array
        A JAX random key, the same for every refinement.
    model : LocalizedModel
        What :func:`localize` returned; each refinement takes the place of its `sites`.
    sites : dict
        Refinements by name, each what the argument `sites` of ``localize`` takes: names of
        sites or of parts of a network, or masks; None is all parameters.
    model_args, model_kwargs, evaluate_on, kernel, batch_size, num_warmup, num_samples, num_chains
        As in ``estimate_llc``.
    thinning, until, chain_method, mesh, progress_bar
        Likewise.
    executor : concurrent.futures.Executor, optional
        Whose workers compute the refinements: a process pool, Dask's ``client.get_executor()``, or
        others.
    output : path, optional
        A folder with one for each refinement, by its place in `sites`: the same call again goes on
        where it stopped. The workers of an `executor` write to it: it must be where they see it.

    Returns
    -------
    xarray.Dataset
        ``llc``, ``sd``, ``mcse_mean``, ``ess_bulk``, ``ess_tail``, ``r_hat`` over ``sites`` and
        ``data``, whose first entry, "sampled", is the data sampled on. Over ``sites``:
        ``num_parameters``; ``error``, ``localization_share``, ``mcse_share``, ``distance`` and
        ``reached``, as :func:`~numpyro_llc.sweep` has them; ``status`` ("ok"; "doubtful": with
        findings; "failed": its worker, twice), the names of the ``checks`` that found something,
        and their ``findings``.

    Raises
    ------
    ValueError, TypeError
        As ``estimate_llc``. All refinements are checked before the first is sampled.
    CheckpointError
        As ``estimate_llc``; the refinements before it are its ``table``.
    ExecutorError
        If `executor` takes no more tasks, such as a pool of which a worker was killed; likewise.

    Notes
    -----
    Wang, Hoogland, van Wingerden, Furman, Murfet (2024), arXiv:2410.02984. What is fixed at ``w*``
    takes no part: at a minimum λ̂ of the whole is at least that of each part, up to γ. A refinement
    compiles for itself, unless another has masks with as many True in the same arrays: of heads
    that are stacked in one array, the first compiles for all.
    """
    check_output(output)
    check_executor(executor, mesh, model_args, model_kwargs)
    _check(sites, evaluate_on)
    in_axes = getattr(kernel_of(kernel, batch_size), "in_axes", None)
    schedule = check_schedule(
        num_warmup, num_samples, num_chains, thinning, chain_method, False, until, mesh
    )
    local = check_localized(model)
    reading = local.read(model_args, model_kwargs, in_axes)
    _check_parts(local, reading, sites)
    settings = {
        "evaluate_on": evaluate_on,
        "kernel": kernel,
        "batch_size": batch_size,
        "num_warmup": num_warmup,
        "num_samples": num_samples,
        "num_chains": num_chains,
        "thinning": thinning,
        "until": until,
        "chain_method": chain_method,
        "mesh": mesh,
        "progress_bar": progress_bar and executor is None,
    }
    folder = None if output is None else Path(output).absolute()
    work = _Refinement(
        rng_key, local, model_args, model_kwargs, settings, folder, executor is not None
    )
    rows: dict[int, _Row] = {}
    data = [SAMPLED, *(evaluate_on or {})]
    so_far = partial(_so_far, rows, sites, data)
    tasks = ((place, (place, part)) for place, part in enumerate(sites.values()))
    is_hidden = not progress_bar or executor is None  # each run has a bar of its own
    with (
        _opened(folder, Processes(mesh_of(reading, schedule.mesh)[0])),
        going_with(so_far),
        closing(outcomes(executor, work, tasks)) as found,
        tqdm(total=len(sites), disable=is_hidden, unit="refinement") as bar,
    ):
        try:
            for place, row in found:
                rows[place] = row
                bar.update()
        except (CheckpointError, DataError, ExecutorError) as error:
            error.table = so_far()
            raise
        except KeyboardInterrupt:
            if executor is None or not rows:
                raise
            warn(f"The refinements were interrupted after {len(rows)}.")
    return _table(rows, sites, data)


def _check(sites: object, evaluate_on: Mapping[str, object] | None) -> None:
    if not isinstance(sites, Mapping) or not sites:
        raise TypeError(
            "`sites` must be a dict of refinements by name, such as "
            f"{{'all': None, 'head': ['w2', 'b2']}}; got {sites!r}."
        )
    if SAMPLED in (evaluate_on or {}):
        raise ValueError(f"`evaluate_on` must not use the name {SAMPLED!r}: the data sampled on.")


def _check_parts(
    local: LocalizedModel, reading: ModelReading, sites: Mapping[str, Sites | None]
) -> None:
    """Refuse γ and parts that do not fit the parameters."""
    check_localization(local.localization, reading.center)
    for part in (one for one in sites.values() if one is not None):
        split(reading.center, part)


def _opened(path: Path | None, processes: Processes) -> AbstractContextManager:
    """The folder of all refinements, which no other call writes to."""
    if path is None:
        return nullcontext()
    return CommonFolder(partial(OutputFolder, path, {}, what="refinement"), processes)


@dataclass(frozen=True)
class _Refinement:
    """From a refinement and its place to its row, here or in another process."""

    rng_key: jax.Array
    local: LocalizedModel
    model_args: Sequence[object]
    model_kwargs: Mapping[str, object] | None
    settings: dict[str, Any]
    folder: Path | None
    is_remote: bool

    def __call__(self, task: tuple[int, Sites | None]) -> _Row:
        place, part = task
        idata = _quietly(
            self.rng_key,
            replace(self.local, sites=part),
            self.model_args,
            self.model_kwargs,
            output=None if self.folder is None else self.folder / str(place),
            store_sites=False,
            **self.settings,
        )
        report = report_of(idata)
        if self.is_remote and report.interrupted:  # by Ctrl-C, which a terminal sends to workers
            raise KeyboardInterrupt
        draws, found = posterior(idata), findings(idata)
        columns = {
            "num_parameters": report.num_parameters or 0,
            ERROR: error_of(idata),
            **of_gamma(idata),
            "status": status_of(found, report),
            "checks": names_of(found),
            "findings": text_of(found),
        }
        names = [name for name in ("llc", "llc_on") if name in draws]
        return _Refined(moments(draws, names), columns, report)


def _quietly(*args: Any, **settings: Any) -> InferenceData:
    """``estimate_llc`` without its warnings, which are the row's findings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LLCWarning)
        return estimate_llc(*args, **settings)


def _so_far(rows: Mapping[int, _Row], sites: Iterable[str], data: list[str]) -> xr.Dataset | None:
    return _table(rows, sites, data) if rows else None


def _table(rows: Mapping[int, _Row], sites: Iterable[str], data: list[str]) -> xr.Dataset:
    """The rows by place, in the order of the refinements."""
    found = [row for _, row in sorted(rows.items())]
    numbers = {
        name: (("sites", "data"), np.stack([_numbers(row, name, len(data)) for row in found]))
        for name in MOMENTS
    }
    columns = [_columns(row) for row in found]
    told = {name: ("sites", [own[name] for own in columns]) for name in (*_UNKNOWN, "findings")}
    texts = {name: ("sites", np.array(told[name][1], object)) for name in TEXTS}
    names = [name for place, name in enumerate(sites) if place in rows]
    reports = [row.report for row in found if isinstance(row, _Refined)]
    shared = ("num_data", "inverse_temperature", "kernel") if reports else ()
    attrs = {name: getattr(reports[0], name) for name in shared}
    return xr.Dataset({**numbers, **told, **texts}, {"sites": names, "data": data}, attrs)


def _numbers(row: _Row, name: str, count: int) -> np.ndarray:
    """One of the moments, of each of the data."""
    if isinstance(row, Failed):
        return np.full(count, np.nan)
    return row.moments["mean" if name == "llc" else name].to_numpy()


_UNKNOWN: dict[str, Any] = {
    "num_parameters": 0,
    **dict.fromkeys((ERROR, *OF_GAMMA), float("nan")),
    "status": "failed",
    "checks": "",
}
"""The columns of a refinement whose worker failed, but for the reason."""


def _columns(row: _Row) -> dict[str, Any]:
    return {**_UNKNOWN, "findings": row.reason} if isinstance(row, Failed) else row.columns
