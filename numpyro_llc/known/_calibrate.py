"""``calibrate``: kernels against known answers, one row for each problem and kernel."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import jax
import pandas as pd
from tqdm.auto import tqdm

from numpyro_llc._checks import (
    check_integer,
    check_key,
    check_num_data,
    check_positive,
    inverse_temperature_or_default,
)
from numpyro_llc.errors import ExecutorError, going_with
from numpyro_llc.kernels import KERNEL_NAMES
from numpyro_llc.known import zoo
from numpyro_llc.known._calibration_cases import Cases
from numpyro_llc.known._calibration_runs import Estimation
from numpyro_llc.known._calibration_table import CalibrationTable
from numpyro_llc.models import Fields
from numpyro_llc.sampling import (
    Executor,
    check_executor,
    check_output,
    check_schedule,
    outcomes,
)

DEFAULT_KERNELS = ("nuts", "sgld", "psgld", "sgnht")


def calibrate(
    rng_key: jax.Array,
    problems: Iterable[str | zoo.Problem] | str | zoo.Problem | None = None,
    *,
    kernels: Sequence[str] = DEFAULT_KERNELS,
    num_data: int = 1000,
    localization: float = 1.0,
    inverse_temperature: float | None = None,
    reference: str | None = "nuts",
    batch_size: int | None = None,
    num_warmup: int | None = None,
    num_samples: int | None = None,
    num_chains: int = 4,
    thinning: int | None = None,
    until: float | Mapping[str, float] | None = None,
    chain_method: str = "vectorized",
    executor: Executor | None = None,
    output: str | Path | None = None,
    progress_bar: bool = True,
) -> pd.DataFrame:
    """Estimate λ̂ where the answer is known, and say how far off each kernel is.

    Parameters
    ----------
    rng_key : jax.Array
        A JAX random key; the row of a problem and kernel depends on it, not on what else is run.
    problems : names, zoo.Problem objects, or a mixture, optional
        All of the zoo, if left out. For your own model pass ``zoo.Problem(model, model_args,
        center, num_data, name=...)``.
    kernels : sequence of str
        Names as of ``estimate_llc``.
    num_data : int
        n of the problems given by name.
    localization, inverse_temperature : float
        γ and β; β is ``1 / log(n)`` if left out.
    reference : str or None
        The kernel whose λ̂ stands for ``exact``, with its own error, where no exact value is known;
        added to `kernels` there if it is not among them. None for no reference.
    batch_size : int, optional
        Of the stochastic-gradient kernels among `kernels`.
    num_warmup, num_samples, num_chains, thinning, until, chain_method
        As in ``estimate_llc``.
    executor : concurrent.futures.Executor, optional
        Whose workers make the runs: a process pool, Dask's ``client.get_executor()``, or others.
        Exact values are computed here.
    output : path, optional
        A folder. Each row is appended to ``calibration.csv`` there as soon as it is known, and a
        second call goes on where the first stopped; at the end ``calibration.nc`` is written.
    progress_bar : bool
        One bar over the runs.

    Returns
    -------
    pandas.DataFrame
        A row for each problem and kernel: ``exact`` (E[llc] at this n, β and γ, not λ, which is
        ``learning_coefficient``) with ``exact_error`` (0, or the reference's), ``llc`` and
        ``mcse_mean``, ``z = (llc - exact) / √(mcse_mean² + exact_error²)``, ``relative_error``,
        ``r_hat``, ``ess_bulk``, ``gradient_evaluations`` of each chain, warm-up included,
        ``seconds`` with compilation, ``findings`` (warnings of the run), ``failure``: the
        exception of a run that failed, whose other cells are empty, or of an exact value that
        failed, for which the reference stands in. A second call tries again what failed, and finds
        exact values anew where there was none or its function has changed.

    Raises
    ------
    ValueError, TypeError
        For a bad argument, or an `output` that holds a calibration with other settings.
    ExecutorError
        If `executor` takes no more tasks, such as a pool of which a worker was killed; the rows so
        far are its ``table``.
    """
    check_key(rng_key)
    check_output(output)
    check_executor(executor)
    check_num_data(num_data)
    meaning = "It is the precision of the Gaussian around the centre, one for all problems."
    check_positive("localization", localization, meaning=meaning)
    inverse_temperature_or_default(inverse_temperature, num_data)
    names = _check_kernels(kernels, reference)
    lengths: Fields = {
        "num_warmup": num_warmup,
        "num_samples": num_samples,
        "num_chains": num_chains,
        "thinning": thinning,
        "until": until,
        "chain_method": chain_method,
    }
    check_schedule(**lengths, progress_bar=False)
    if batch_size is not None:
        check_integer("batch_size", batch_size, minimum=1, meaning="It counts rows of a minibatch.")
    chosen = _check_problems(problems)
    shared = {
        "localization": localization,
        "inverse_temperature": inverse_temperature,
        "batch_size": batch_size,
        **lengths,
    }
    record = CalibrationTable(
        output,
        {
            "num_data": num_data,
            "seed": jax.random.key_data(rng_key).tolist(),
            "reference": reference,
            "x64": bool(jax.config.read("jax_enable_x64")),
            "version": version("numpyro_llc"),
            **{**shared, "batch_size": batch_size},
        },
    )
    work = Estimation(rng_key, num_data, shared)
    with tqdm(total=len(chosen) * len(names), disable=not progress_bar, unit="run") as bar:
        cases = Cases(chosen, num_data, names, reference, record, shared, bar)
        tasks = outcomes(executor, work, cases.tasks(executor is not None))
        with going_with(cases.table), closing(tasks) as found:
            try:
                for place, row in found:
                    cases.add(place, row)
            except ExecutorError as error:
                error.table = cases.table()
                raise
    return record.finish(cases.places)


def _check_kernels(kernels: str | Sequence[str], reference: str | None) -> list[str]:
    """Refuse at once what would fail in every row; return the names of the kernels."""
    if not isinstance(kernels, str | Sequence) or not len(kernels):
        raise TypeError(f"`kernels` must be one or more names of {KERNEL_NAMES}; got {kernels!r}.")
    names = [kernels] if isinstance(kernels, str) else list(kernels)
    if strange := [name for name in (*names, reference or "nuts") if name not in KERNEL_NAMES]:
        raise ValueError(f"`kernels` names {strange}; known are {KERNEL_NAMES}.")
    return list(dict.fromkeys(names))


def _check_problems(
    problems: Iterable[str | zoo.Problem] | str | zoo.Problem | None,
) -> list[str | zoo.Problem]:
    if problems is None:
        return list(zoo.names())
    if isinstance(problems, str | zoo.Problem) or not isinstance(problems, Iterable):
        problems = [problems]
    chosen = list(problems)
    for problem in chosen:
        if not isinstance(problem, str | zoo.Problem):
            raise TypeError(f"`problems` must be names or zoo.Problem objects; got {problem!r}.")
        if isinstance(problem, str) and problem not in zoo.names():
            zoo.load(problem)  # which says what is near it
    names = [p if isinstance(p, str) else p.name for p in chosen]
    if not names:
        raise ValueError("`problems` must hold at least one; got none. Leave it out for all.")
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f"Each of `problems` must have a `name` of its own; got {names}.")
    return chosen
