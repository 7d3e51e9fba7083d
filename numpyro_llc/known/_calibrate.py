"""``calibrate``: kernels against known answers, one row for each problem and kernel."""

import math
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

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
from numpyro_llc.errors import LLCWarning
from numpyro_llc.estimate import estimate_llc
from numpyro_llc.kernels import KERNEL_NAMES, STOCHASTIC_NAMES
from numpyro_llc.known import zoo
from numpyro_llc.known._calibration_table import CalibrationTable, Row, compared
from numpyro_llc.models import Fields
from numpyro_llc.results import findings, report_of, summary, text_of
from numpyro_llc.sampling import check_output, check_schedule, fingerprint, forget_compiled

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
    """
    check_key(rng_key)
    check_output(output)
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
    with tqdm(total=len(chosen) * len(names), disable=not progress_bar, unit="run") as bar:
        for problem in chosen:
            case = _case(problem, num_data)
            bar.set_description(f"{case.name} exact value")
            case = _known(case, record, names, shared)
            runs = _kernels(case, names, reference)
            bar.total += len(runs) - len(names)
            for kernel in runs:
                bar.set_description(f"{case.name} {kernel}")
                row = _row(rng_key, case, kernel, record, shared)
                record.add({**row, **_compared(row, case, reference, record)})
                bar.update()
    return record.finish(list(record.own))


class _Case(NamedTuple):
    """A problem, or why there is none; the exact value of λ̂, or why there is none."""

    name: str
    problem: zoo.Problem | None = None
    fingerprint: str = ""
    failure: str = ""
    exact: float = math.nan
    exact_fingerprint: str = ""
    exact_failure: str = ""


def _case(problem: str | zoo.Problem, num_data: int) -> _Case:
    name = problem if isinstance(problem, str) else problem.name
    try:
        found = zoo.load(problem, num_data) if isinstance(problem, str) else problem
        mark = fingerprint(found.model, found.model_args, dict(found.center), found.num_data)
        return _Case(name, found, mark, exact_fingerprint=fingerprint(found.finite_n))
    except Exception as error:
        return _Case(name, failure=f"{type(error).__name__}: {error}")


def _known(case: _Case, record: CalibrationTable, kernels: list[str], shared: Fields) -> _Case:
    """The case with its exact value, which may take long: one that is on record is taken."""
    if case.problem is None:
        return case
    for kernel in kernels:
        row = record.get(case.name, kernel, case.fingerprint)
        if row and row["exact_fingerprint"] == case.exact_fingerprint != "":
            return case._replace(exact=row["exact"])
    try:
        found = case.problem.expectation(shared["localization"], shared["inverse_temperature"])
        if found is None:
            return case
        if math.isfinite(found.mean):
            return case._replace(exact=float(found.mean))
        failure = f"`finite_n` gave a mean of {found.mean}"
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
    return case._replace(exact_failure=f"No exact value: {failure}")


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


def _kernels(case: _Case, names: list[str], reference: str | None) -> list[str]:
    """The kernels to run, the reference first where one is needed."""
    if not math.isnan(case.exact) or reference is None:
        return names
    return [reference, *(name for name in names if name != reference)]


def _row(
    rng_key: jax.Array, case: _Case, kernel: str, record: CalibrationTable, shared: Fields
) -> Row:
    """The row on record, or one run; what the model or sampler raises is its cell ``failure``."""
    row: Row = {"problem": case.name, "kernel": kernel}
    if case.problem is None:
        return {**row, "failure": case.failure}
    if known := record.get(case.name, kernel, case.fingerprint):
        return known
    began = time.perf_counter()
    try:
        row["parameters"] = case.problem.num_parameters
        row.update(_estimated(_key_of(rng_key, case.name, kernel), case.problem, kernel, shared))
    except Exception as error:
        row["failure"] = f"{type(error).__name__}: {error}"
    forget_compiled()  # no other row has this model and kernel
    return {**row, "seconds": time.perf_counter() - began}


def _compared(row: Row, case: _Case, reference: str | None, record: CalibrationTable) -> Row:
    """What λ̂ should be, exactly or by the reference, and how far off it is."""
    exact, error, stand_in = case.exact, 0.0, None
    if math.isnan(exact):
        if case.problem is not None and row["kernel"] != reference:
            stand_in = record.get(case.name, reference, case.fingerprint)
        exact, error = (
            (stand_in["llc"], stand_in["mcse_mean"]) if stand_in else (math.nan, math.nan)
        )
    coefficient = getattr(case.problem, "learning_coefficient", None)
    failure = "" if "llc" in row else row["failure"]
    return {
        **compared(row, exact, error),
        "learning_coefficient": math.nan if coefficient is None else float(coefficient.value),
        "failure": " ".join(filter(None, [failure, case.exact_failure])),
        "fingerprint": case.fingerprint,
        "exact_fingerprint": "" if math.isnan(case.exact) else case.exact_fingerprint,
    }


def _key_of(rng_key: jax.Array, problem: str, kernel: str) -> jax.Array:
    """A key that depends on the names alone, however many runs there are."""
    for byte in f"{problem} {kernel}".encode():
        rng_key = jax.random.fold_in(rng_key, byte)
    return rng_key


def _estimated(key: jax.Array, problem: zoo.Problem, kernel: str, shared: Fields) -> Row:
    batch_size = shared["batch_size"] if kernel in STOCHASTIC_NAMES else None
    settings = {**shared, "batch_size": batch_size}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LLCWarning)  # they are the row's findings
        idata = estimate_llc(
            key,
            problem.model,
            problem.model_args,
            center=problem.center,
            num_data=problem.num_data,
            kernel=kernel,
            progress_bar=False,
            store_sites=False,
            **settings,
        )
        found, report = summary(idata).loc["llc"], report_of(idata)
    if report.interrupted:  # a part of a run is no row
        raise KeyboardInterrupt
    gradients = report.gradient_evaluations
    return {
        "llc": found["mean"],
        **{name: found[name] for name in ("mcse_mean", "ess_bulk", "r_hat")},
        "gradient_evaluations": math.nan if gradients is None else gradients,
        "findings": text_of(findings(idata)),
    }
