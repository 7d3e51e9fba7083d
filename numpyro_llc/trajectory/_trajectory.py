"""The front door of the room."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import xarray as xr
from tqdm.auto import tqdm

from numpyro_llc._checks import check_key
from numpyro_llc.automatic import finish
from numpyro_llc.errors import (
    CheckpointError,
    LLCWarning,
    NonFiniteCenterError,
    NonFiniteLossError,
    TrajectoryError,
)
from numpyro_llc.problem import Problem, prepare
from numpyro_llc.rows import failed_row, row_of
from numpyro_llc.sampling import Run
from numpyro_llc.schedule import check_schedule
from numpyro_llc.trajectory._carry import Carried, carried_from, carry
from numpyro_llc.trajectory._centers import Centers
from numpyro_llc.trajectory._record import Record


def llc_trajectory(
    rng_key: jax.Array,
    model: Callable,
    centers: Any,
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
    *,
    steps: Sequence[float] | None = None,
    center_of: Callable[[Any], Any] | None = None,
    kernel: Any = "sgld",
    num_data: int | None = None,
    inverse_temperature: float | None = None,
    localization: float | Mapping[str, float] = 1.0,
    batch_size: int | None = None,
    in_axes: Any = None,
    step_size: float | None = None,
    sites: Any = None,
    num_warmup: int | None = None,
    num_samples: int | None = None,
    num_chains: int = 4,
    thinning: int | None = None,
    until: float | Mapping[str, float] | None = None,
    chain_method: str = "vectorized",
    warm_start: bool = True,
    output: str | Path | None = None,
    progress_bar: bool = True,
    likelihood_factors: Sequence[str] = (),
    prior_factors: Sequence[str] = (),
) -> xr.Dataset:
    """Estimate λ̂ at each checkpoint of a training run.

    Parameters
    ----------
    rng_key : jax.Array
        A JAX random key; that of a checkpoint depends on its place.
    model, model_args, model_kwargs
        As in ``estimate_llc``.
    centers
        The checkpoints, of one structure: a dict ``{site: arrays stacked along a leading axis}``,
        a list, an iterator (read one at a time, so that they need not fit into memory together), or
        a folder of Orbax checkpoints.
    steps : sequence of numbers, optional
        Training step of each checkpoint; by default those of the folder, else 0, 1, 2, ...
    center_of : callable, optional
        From a checkpoint to its centre ``{site: constrained value}``, such as
        ``lambda state: {"net": state["params"]}``.
    kernel, num_data, inverse_temperature, localization, batch_size, in_axes, step_size, sites
        As in ``estimate_llc``, for every checkpoint.
    num_warmup, num_samples, num_chains, thinning, until, chain_method
        Likewise; left out, each checkpoint runs until it is known well enough.
    warm_start : bool
        Start chains at the offsets from the centre where those of the checkpoint before ended,
        each where the loss allows it (``carried`` counts them); the warm-up follows all the same.
    output : path, optional
        A folder to which each row is written as it comes. The same call again goes on from there.
    progress_bar : bool
    likelihood_factors, prior_factors : sequences of str
        As in ``estimate_llc``.

    Returns
    -------
    xarray.Dataset
        Over ``checkpoint``, with the coordinate ``step``: ``llc`` (λ̂), ``mcse``, ``sd`` of the
        draws, ``ess_bulk``, ``ess_tail``, ``r_hat``, ``center_loss`` (nL(w*) in nats),
        ``carried`` (chains carried over), ``step_size_used``, ``gradient_evaluations``,
        ``seconds``, ``status`` ("ok"; "doubtful": with ``findings``; "diverged"; "failed":
        parameters or loss of this checkpoint are not finite), ``findings``. attrs: n, β, γ,
        kernel, d.

    Raises
    ------
    ValueError, TypeError
        For a bad argument or model, by name.
    CheckpointError
        If `output` holds another trajectory.
    TrajectoryError
        If a later checkpoint cannot be read: of another structure, say. Holds the rows before it.

    Notes
    -----
    All checkpoints run through one compilation. A checkpoint in the midst of training is no local
    minimum: λ̂ is then of the point as it is, the findings say so, and it may be negative.
    Ctrl-C returns the checkpoints so far.
    """
    check_key(rng_key)
    schedule = check_schedule(
        num_warmup, num_samples, num_chains, thinning, chain_method, False, until
    )
    given = Centers(centers, steps, center_of)
    arguments = {
        "center": None,
        "kernel": kernel,
        "num_data": num_data,
        "inverse_temperature": inverse_temperature,
        "localization": localization,
        "batch_size": batch_size,
        "in_axes": in_axes,
        "step_size": step_size,
        "sites": sites,
        "likelihood_factors": likelihood_factors,
        "prior_factors": prior_factors,
    }

    def prepared(center: Any) -> Problem:
        settings = {**arguments, "center": center}
        return prepare(model, model_args, model_kwargs, schedule, **settings)

    walk = _Walk(rng_key, prepared, output, warm_start)
    with tqdm(total=given.count, disable=not progress_bar, unit="checkpoint") as bar:
        try:
            for step, center in given:
                walk.visit(step, center)
                bar.update()
        except KeyboardInterrupt:
            if not walk.num_rows:
                raise
            warnings.warn(
                f"The trajectory was interrupted after {walk.num_rows} checkpoints.",
                LLCWarning,
                stacklevel=2,
            )
        except CheckpointError:
            raise
        except Exception as error:  # of whatever kind: what was computed is not lost with it
            if not walk.num_rows:
                raise
            raise TrajectoryError(
                f"Checkpoint {walk.num_rows} of `centers` could not be read: "
                f"{type(error).__name__}: {error} The rows before it are in this error's "
                "`trajectory`" + (f", and in {str(output)!r}." if output is not None else "."),
                walk.table(),
            ) from error
    return walk.table()


class _Walk:
    """From checkpoint to checkpoint: the problem, read at the first that is finite, and the rows.

    Parameters
    ----------
    rng_key : jax.Array
    prepared : callable
        From the first centre to the problem.
    output : path, optional
    warm_start : bool
    """

    def __init__(
        self,
        rng_key: jax.Array,
        prepared: Callable[[Any], Problem],
        output: str | Path | None,
        warm_start: bool,
    ) -> None:
        self.rng_key, self.prepared = rng_key, prepared
        self.output, self.warm_start = output, warm_start
        self.problem: Problem | None = None
        self.record: Record | None = None
        self.carried: Carried | None = None
        self.failed: list[tuple[float, Any, Exception]] = []

    @property
    def num_rows(self) -> int:
        return 0 if self.record is None else len(self.record.rows)

    def visit(self, step: float, center: Any) -> None:
        """Make the row of a checkpoint, or take it from the folder."""
        if self.problem is None:
            try:
                self.problem = self.prepared(center)
            except (NonFiniteCenterError, NonFiniteLossError) as error:
                self.failed.append((step, center, error))  # until it is known of what run
                return
            settings = {**self.problem.run_identity(self.rng_key), "warm_start": self.warm_start}
            self.record = Record(self.output, settings)
            for earlier, bad, error in self.failed:
                if not self.record.recall(bad, earlier):
                    self.record.add({**failed_row(error), "carried": 0.0, "step": earlier}, bad)
        assert self.record is not None
        if self.record.recall(center, step):
            return
        if self.warm_start and self.carried is None:
            form = jax.tree.structure(self.problem.target.center)
            self.carried = self.record.carried(form)
        key = jax.random.fold_in(self.rng_key, self.num_rows)
        row, ended = _checkpoint(key, self.problem, center, self.carried)
        self.carried = ended if self.warm_start else None
        self.record.add({**row, "step": step}, center, self.carried)

    def table(self) -> xr.Dataset:
        """The rows so far."""
        if self.problem is None or self.record is None:
            if self.failed:
                raise self.failed[0][2]  # none of them could be read
            raise ValueError("`centers` holds no checkpoint.")
        return self.record.table(_attrs(self.problem))


def _checkpoint(
    rng_key: jax.Array, problem: Problem, center: Any, carried: Carried | None
) -> tuple[dict[str, Any], Carried | None]:
    """The row of one checkpoint, and where its chains ended, if they are sound."""
    try:
        here = problem.at(center)
    except (NonFiniteCenterError, NonFiniteLossError) as error:
        return {**failed_row(error), "carried": 0.0}, None
    key_check, key_starts, key_chains = jax.random.split(rng_key, 3)
    starts = here.starts(None if here.is_stochastic else here.curvature(key_check), key_starts)
    num_carried = 0.0
    if carried is not None:
        starts, count = carry(here.target, starts, carried)
        num_carried = float(count)
    run = Run(here.sampler, here.target, starts, key_chains, here.schedule, sites=())
    finished = finish(run, here.schedule, here.rows_of_a_step, key_starts)
    if finished.ended_by == "interrupt":
        raise KeyboardInterrupt
    row = {**row_of(here, run, finished, key_check), "carried": num_carried}
    return row, None if row["status"] == "diverged" else carried_from(run, finished.draws)


def _attrs(problem: Problem) -> dict[str, Any]:
    target = problem.target
    localization = {name: float(gamma) for name, gamma in target.localization.items()}
    same = len(set(localization.values())) == 1
    return {
        "kernel": problem.kernel,
        "num_data": problem.num_data,
        "num_parameters": target.dimension,
        "inverse_temperature": float(target.inverse_temperature),
        "localization": next(iter(localization.values())) if same else json.dumps(localization),
    }
