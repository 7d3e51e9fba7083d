"""``llc_trajectory``: λ̂ at each checkpoint of a training run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import jax
import xarray as xr
from jax.sharding import Mesh
from numpyro.infer.mcmc import MCMCKernel
from tqdm.auto import tqdm

from numpyro_llc._checks import check_key
from numpyro_llc.errors import (
    CheckpointError,
    ExecutorError,
    LLCWarning,
    TrajectoryError,
    warn,
)
from numpyro_llc.kernels import kernel_of
from numpyro_llc.local import TRUTHS, LocalizedModel, as_localized
from numpyro_llc.models import Arguments, PyTree
from numpyro_llc.sampling import (
    Executor,
    Processes,
    check_executor,
    check_output,
    check_schedule,
)
from numpyro_llc.studies._automatic import with_chosen_localization
from numpyro_llc.studies._centers import Centers
from numpyro_llc.studies._checkpoint import Checkpoints
from numpyro_llc.studies._recipe import Recipe
from numpyro_llc.studies._walk import Walk


def llc_trajectory(
    rng_key: jax.Array,
    model: LocalizedModel | Callable,
    centers: PyTree,
    model_args: Arguments = (),
    model_kwargs: Mapping[str, object] | None = None,
    *,
    steps: Sequence[float] | None = None,
    center_of: Callable[[PyTree], PyTree] | None = None,
    kernel: str | MCMCKernel | None = None,
    batch_size: int | None = None,
    num_warmup: int | None = None,
    num_samples: int | None = None,
    num_chains: int = 4,
    thinning: int | None = None,
    until: float | Mapping[str, float] | None = None,
    chain_method: str = "vectorized",
    mesh: Mesh | None = None,
    warm_start: bool | None = None,
    executor: Executor | None = None,
    truth: str | Sequence[str] | None = None,
    output: str | Path | None = None,
    progress_bar: bool = True,
) -> xr.Dataset:
    """Estimate λ̂ at each checkpoint of a training run.

    Parameters
    ----------
    rng_key : jax.Array
        A JAX random key; that of a checkpoint depends on its place.
    model : LocalizedModel or callable
        What ``localize(model, center=None, ...)`` returned: the centres come from `centers`. A
        plain model is localized with the defaults. With ``localization="auto"``
        :func:`choose_localization` chooses γ at the last checkpoint, for all of them, by
        ``truth="center"`` where that is among the truths; the reason is the attribute
        ``localization_reason``.
    centers
        The checkpoints, of one structure: a dict ``{site: arrays stacked along a leading axis}``,
        a list, an iterator (read one at a time, so that they need not fit into memory together), or
        a folder of Orbax checkpoints.
    steps : sequence of numbers, optional
        Training step of each checkpoint; by default those of the folder, else 0, 1, 2, ...
    center_of : callable, optional
        From a checkpoint to its centre ``{site: constrained value}``, such as
        ``lambda state: {"net": state["params"]}``.
    model_args, model_kwargs, kernel, batch_size
        As in ``estimate_llc``, for every checkpoint.
    num_warmup, num_samples, num_chains, thinning, until, chain_method, mesh
        Likewise; left out, each checkpoint runs until it is known well enough.
    warm_start : bool, optional
        Start chains at the offsets from the centre where those of the checkpoint before ended,
        each where the loss allows it (``carried`` counts them); the warm-up follows all the same.
        Left out, they do without an `executor`, and do not with one.
    executor : concurrent.futures.Executor, optional
        Whose workers sample at the checkpoints, each by itself: a process pool, Dask's
        ``client.get_executor()``, or others. The rows are those of ``warm_start=False`` without it.
    truth : {"data", "center"} or sequence of these, optional
        What losses are measured against, as in ``localize``; by default as `model` says. Of a
        sequence, each in one pass over the checkpoints, along a dimension ``truth``.
    output : path, optional
        A folder to which each row is written as it comes. The same call again goes on from there.
    progress_bar : bool

    Returns
    -------
    xarray.Dataset
        Over ``checkpoint``, with the coordinate ``step``, and over ``truth`` where it is a
        sequence: ``llc`` (λ̂), ``sd`` of the draws,
        ``mcse_mean``, ``ess_bulk``, ``ess_tail``, ``r_hat``, ``error`` (the Monte Carlo error with
        slow directions, at least ``mcse_mean``), ``center_loss`` (nL(w*) in nats, of the data),
        ``carried`` (chains carried over), ``step_size_used``, ``gradient_evaluations``,
        ``seconds``, ``status`` ("ok"; "doubtful": with findings, other than ``localization`` at a
        γ that ``choose_localization`` chose; "diverged"; "failed":
        parameters or loss of this checkpoint are not finite, or its worker failed twice),
        ``checks`` (the names of those that found something) and their ``findings``; and what γ
        does: ``localization_share``, ``mcse_share``, ``distance``, ``reached``. attrs: n, β,
        γ, kernel, d, truth.

    Raises
    ------
    ValueError, TypeError
        For a bad argument or model, by name.
    CheckpointError
        If `output` holds another trajectory, is in use by another process, damaged, or cannot be
        written; the rows so far are its ``table``.
    ExecutorError
        If `executor` takes no more tasks, such as a pool of which a worker was killed; likewise.
    TrajectoryError
        If a later checkpoint fails: it is of another structure, say. Holds the rows before it.

    Notes
    -----
    All checkpoints run through one compilation, for each truth. A checkpoint in the midst of
    training is no local minimum: by the data λ̂ is then no learning coefficient, and it may be
    negative, which the findings say. ``truth="center"`` measures the function that is computed
    there, of which it is always a minimum.
    Ctrl-C returns the checkpoints so far.
    """
    check_key(rng_key)
    check_executor(executor, mesh, model_args, model_kwargs)
    is_warm = _is_warm(warm_start, executor)
    local = as_localized(model, center=None)
    truths = _truths(local.truth if truth is None else truth)
    schedule = check_schedule(
        num_warmup, num_samples, num_chains, thinning, chain_method, False, until, mesh
    )
    chosen = kernel_of(kernel, batch_size, model_args)
    given = Centers(centers, steps, center_of)
    local = with_chosen_localization(
        rng_key,
        replace(local, truth="center" if "center" in truths else truths[0]),
        model_args,
        model_kwargs,
        check_output(output),
        center=given.last,
        kernel=kernel,
        batch_size=batch_size,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        progress_bar=progress_bar,
    )
    recipe = Recipe(replace(local, truth=truths[0]), model_args, model_kwargs, schedule)
    is_stacked = truth is not None and not isinstance(truth, str)
    checkpoints = Checkpoints(recipe, chosen, truths)
    is_hidden = not progress_bar or not Processes(schedule.mesh).is_first
    with (
        Walk(rng_key, checkpoints, output, is_warm, is_stacked) as walk,
        tqdm(total=given.count, disable=is_hidden, unit="checkpoint") as bar,
    ):
        try:
            for count in walk.visit(given, executor):
                bar.update(count - bar.n)
        except KeyboardInterrupt:
            if not walk.num_rows:
                raise
            warn(f"The trajectory was interrupted after {walk.num_rows} checkpoints.")
        except (CheckpointError, ExecutorError, LLCWarning):
            raise
        except Exception as error:  # of whatever kind: what was computed is not lost with it
            if not walk.num_rows:
                raise
            raise TrajectoryError(_text(walk, error), walk.table()) from error
        return walk.table()


def _text(walk: Walk, error: Exception) -> str:
    """What to say of a checkpoint that failed."""
    what = f"Checkpoint {walk.at} of `centers` failed: {type(error).__name__}"
    where = "" if walk.output is None else f", and in {str(walk.output)!r}"
    reason = str(error).rstrip(".")
    return f"{what}: {reason}. The rows before it are in this error's `trajectory`{where}."


def _is_warm(warm_start: bool | None, executor: Executor | None) -> bool:
    if warm_start and executor is not None:
        raise ValueError(
            "`warm_start` carries chains from one checkpoint to the next, and `executor` computes "
            "them side by side. Leave one out: with `executor` each checkpoint has chains and a "
            "warm-up of its own."
        )
    return executor is None if warm_start is None else bool(warm_start)


def _truths(truth: str | Sequence[str]) -> tuple[str, ...]:
    given = (truth,) if isinstance(truth, str) else tuple(truth)
    if not given or len(set(given)) < len(given) or not set(given) <= set(TRUTHS):
        raise ValueError(
            f"`truth` must be one of {list(TRUTHS)}, or a sequence of these, each once; got "
            f"{truth!r}."
        )
    return given
