"""``calibrate``: kernels against known answers, one row for each problem and kernel."""

import inspect
import json
import math
import time
import warnings
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pandas as pd
from tqdm.auto import tqdm

from numpyro_llc import zoo
from numpyro_llc._checks import (
    check_key,
    check_num_data,
    check_positive,
    inverse_temperature_or_default,
)
from numpyro_llc._identity import fingerprint
from numpyro_llc.diagnosis import text_of
from numpyro_llc.errors import LLCWarning
from numpyro_llc.estimate import estimate_llc
from numpyro_llc.inference_data import posterior
from numpyro_llc.kernels import KERNEL_NAMES
from numpyro_llc.record import Record
from numpyro_llc.sampling import forget_compiled
from numpyro_llc.summaries import summary

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
    output: str | Path | None = None,
    progress_bar: bool = True,
    **settings: Any,
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
    output : path, optional
        A folder. Each row is appended to ``calibration.csv`` there as soon as it is known, and a
        second call goes on where the first stopped; at the end ``calibration.nc`` is written.
    progress_bar : bool
        One bar over the runs.
    **settings
        Further arguments of ``estimate_llc``, such as `batch_size` or `num_chains`.

    Returns
    -------
    pandas.DataFrame
        A row for each problem and kernel: ``exact`` (E[llc] at this n, β and γ, not λ, which is
        ``learning_coefficient``) with ``exact_error`` (0, or the reference's), ``llc`` and
        ``mcse``, ``z = (llc - exact) / √(mcse² + exact_error²)``, ``relative_error``, ``r_hat``,
        ``ess``, ``gradient_evaluations`` of each chain, warm-up and calibration included,
        ``seconds`` with compilation, ``findings`` (warnings of the run), ``failure``: the
        exception of a run that failed, whose other cells are empty, or of an exact value that
        failed, for which the reference stands in. Runs that failed are tried again by a second
        call, and exact values found anew.

    Raises
    ------
    ValueError, TypeError
        For a bad argument, or an `output` that holds a calibration with other settings.
    """
    check_key(rng_key)
    check_num_data(num_data)
    meaning = "It is the precision of the Gaussian around the centre, one for all problems."
    check_positive("localization", localization, meaning=meaning)
    inverse_temperature_or_default(inverse_temperature, num_data)
    _check_settings(settings, kernels, reference)
    chosen = _problems(problems, num_data)
    shared = {"localization": localization, "inverse_temperature": inverse_temperature, **settings}
    record = Record(
        output,
        {
            "num_data": num_data,
            "seed": jax.random.key_data(rng_key).tolist(),
            "reference": reference,
            "x64": bool(jax.config.read("jax_enable_x64")),
            "version": version("numpyro_llc"),
            **shared,
        },
    )
    known = [_known(problem, shared) for problem in chosen]
    plan = [
        (problem, value, kernel)
        for problem, value in zip(chosen, known, strict=True)
        for kernel in _kernels(value, kernels, reference)
    ]
    with tqdm(plan, disable=not progress_bar, unit="run") as bar:
        for problem, value, kernel in bar:
            mark = fingerprint(
                problem.model, problem.model_args, dict(problem.center), problem.num_data
            )
            row = record.get(problem.name, kernel, mark)
            if row is None:
                bar.set_description(f"{problem.name} {kernel}")
                row = _row(rng_key, problem, kernel, shared)
                forget_compiled()  # no other row has this model and kernel
            other = None if kernel == reference else record.get(problem.name, reference, mark)
            record.add({**row, **_compared(row, problem, value, other), "fingerprint": mark})
    return record.finish([(problem.name, kernel) for problem, _, kernel in plan])


class _Known(NamedTuple):
    """The exact value of λ̂, None where it is not known, and why it is not if it should be."""

    mean: float | None
    failure: str = ""


def _known(problem: zoo.Problem, shared: dict[str, Any]) -> _Known:
    try:
        found = problem.expectation(shared["localization"], shared["inverse_temperature"])
        return _Known(None if found is None else float(found.mean))
    except Exception as error:
        return _Known(None, f"No exact value: {type(error).__name__}: {error}")


def _check_settings(settings: dict[str, Any], kernels: Any, reference: str | None) -> None:
    own = {"kernel", "center", "model", "model_args", "model_kwargs", "store_sites", "checkpoint"}
    own |= {"sites", "evaluate_on"}  # which have other exact values, or none
    own |= inspect.signature(calibrate).parameters.keys()
    known = set(inspect.signature(estimate_llc).parameters) - own
    if unknown := sorted(set(settings) - known):
        raise TypeError(f"calibrate() got {unknown}; further arguments are {sorted(known)}.")
    if not isinstance(kernels, str | Sequence) or not len(kernels):
        raise TypeError(f"`kernels` must be one or more names of {KERNEL_NAMES}; got {kernels!r}.")
    names = [*([kernels] if isinstance(kernels, str) else kernels), reference or "nuts"]
    if strange := [name for name in names if name not in KERNEL_NAMES]:
        raise ValueError(f"`kernels` names {strange}; known are {KERNEL_NAMES}.")


def _problems(problems: Any, num_data: int) -> list[zoo.Problem]:
    if problems is None:
        problems = zoo.names()
    if isinstance(problems, str | zoo.Problem):
        problems = [problems]
    found = [zoo.load(p, num_data) if isinstance(p, str) else p for p in problems]
    names = [getattr(p, "name", None) for p in found]
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f"Each of `problems` must have a `name` of its own; got {names}.")
    return found


def _kernels(known: _Known, kernels: Sequence[str], reference: str | None) -> list[str]:
    """The kernels to run, the reference first where one is needed."""
    names = [kernels] if isinstance(kernels, str) else list(dict.fromkeys(kernels))
    if known.mean is not None or reference is None:
        return names
    return [reference, *(name for name in names if name != reference)]


def _row(
    rng_key: jax.Array, problem: zoo.Problem, kernel: str, shared: dict[str, Any]
) -> dict[str, Any]:
    """One run; an exception of the model or the sampler becomes the cell ``failure``."""
    row: dict[str, Any] = {"problem": problem.name, "kernel": kernel}
    began = time.perf_counter()
    try:
        row["parameters"] = problem.num_parameters
        row.update(_estimated(_key_of(rng_key, problem.name, kernel), problem, kernel, shared))
    except Exception as error:
        row["failure"] = f"{type(error).__name__}: {error}"
    row["seconds"] = time.perf_counter() - began
    return row


def _compared(
    row: dict[str, Any], problem: zoo.Problem, known: _Known, reference: dict[str, Any] | None
) -> dict[str, Any]:
    """What λ̂ should be, exactly or by the reference, and how far off it is."""
    coefficient, ran = problem.learning_coefficient, "llc" in row
    exact, error = (math.nan, math.nan) if known.mean is None else (known.mean, 0.0)
    if known.mean is None and reference is not None:
        exact, error = reference["llc"], reference["mcse"]
    off = row["llc"] - exact if ran else math.nan
    return {
        "learning_coefficient": math.nan if coefficient is None else float(coefficient.value),
        "exact": exact,
        "exact_error": error,
        "z": _ratio(off, math.hypot(row["mcse"], error)) if ran else math.nan,
        "relative_error": _ratio(off, exact),
        "failure": " ".join(filter(None, ["" if ran else row["failure"], known.failure])),
    }


def _ratio(a: float, b: float) -> float:
    if b:
        return a / b
    return a if a == 0 or math.isnan(a) else math.copysign(math.inf, a)


def _key_of(rng_key: jax.Array, problem: str, kernel: str) -> jax.Array:
    """A key that depends on the names alone, however many runs there are."""
    for byte in f"{problem} {kernel}".encode():
        rng_key = jax.random.fold_in(rng_key, byte)
    return rng_key


def _estimated(
    key: jax.Array, problem: zoo.Problem, kernel: str, shared: dict[str, Any]
) -> dict[str, Any]:
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
            **shared,
        )
    found, attrs = summary(idata).loc["llc"], posterior(idata).attrs
    if attrs["interrupted"]:  # a part of a run is no row
        raise KeyboardInterrupt
    return {
        "llc": found["mean"],
        "mcse": found["mcse_mean"],
        "r_hat": found["r_hat"],
        "ess": found["ess_bulk"],
        "gradient_evaluations": attrs.get("gradient_evaluations", math.nan),
        "findings": " ".join(map(text_of, json.loads(attrs["findings"]))),
    }
