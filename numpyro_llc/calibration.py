"""``calibrate``: kernels against known answers, one row for each problem and kernel."""

import inspect
import json
import math
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

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
from numpyro_llc.errors import LLCWarning
from numpyro_llc.estimate import estimate_llc
from numpyro_llc.inference_data import posterior
from numpyro_llc.kernels import KERNEL_NAMES
from numpyro_llc.record import Record, fingerprint
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
        exception of a run that failed, whose other cells are empty.

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
            **shared,
        },
    )
    plan = [(p, kernel) for p in chosen for kernel in _kernels(p, kernels, reference)]
    with tqdm(plan, disable=not progress_bar, unit="run") as bar:
        for problem, kernel in bar:
            mark = fingerprint(problem.model_args, dict(problem.center), problem.num_data)
            if record.get(problem.name, kernel, mark) is None:
                bar.set_description(f"{problem.name} {kernel}")
                other = None if kernel == reference else record.get(problem.name, reference, mark)
                row = _row(rng_key, problem, kernel, shared, other)
                record.add({**row, "fingerprint": mark})
                forget_compiled()  # no other row has this model and kernel
    return record.finish([(problem.name, kernel) for problem, kernel in plan])


def _check_settings(settings: dict[str, Any], kernels: Any, reference: str | None) -> None:
    own = {"kernel", "center", "model", "model_args", "model_kwargs", "store_sites"}
    known = set(inspect.signature(estimate_llc).parameters) - own
    if unknown := sorted(set(settings) - known):
        raise TypeError(f"calibrate() got {unknown}; further arguments are {sorted(known)}.")
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


def _kernels(problem: zoo.Problem, kernels: Sequence[str], reference: str | None) -> list[str]:
    """The kernels to run, the reference first where one is needed."""
    names = [kernels] if isinstance(kernels, str) else list(dict.fromkeys(kernels))
    if problem.has_expectation or reference is None:
        return names
    return [reference, *(name for name in names if name != reference)]


def _row(
    rng_key: jax.Array,
    problem: zoo.Problem,
    kernel: str,
    shared: dict[str, Any],
    reference: dict[str, Any] | None,
) -> dict[str, Any]:
    """One run; an exception of the model or the sampler becomes the cell ``failure``."""
    known = problem.learning_coefficient
    row: dict[str, Any] = {
        "problem": problem.name,
        "kernel": kernel,
        "learning_coefficient": math.nan if known is None else float(known.value),
    }
    began = time.perf_counter()
    try:
        row["parameters"] = problem.num_parameters
        row.update(_exact(problem, shared, reference))
        row.update(_estimated(_key_of(rng_key, problem.name, kernel), problem, kernel, shared))
    except Exception as error:
        row["failure"] = f"{type(error).__name__}: {error}"
    row["seconds"] = time.perf_counter() - began
    if "llc" in row and "exact" in row:
        off = row["llc"] - row["exact"]
        row["z"] = _ratio(off, math.hypot(row["mcse"], row["exact_error"]))
        row["relative_error"] = _ratio(off, row["exact"])
    return row


def _ratio(a: float, b: float) -> float:
    if b:
        return a / b
    return 0.0 if a == 0 else math.copysign(math.inf, a)


def _key_of(rng_key: jax.Array, problem: str, kernel: str) -> jax.Array:
    """A key that depends on the names alone, however many runs there are."""
    for byte in f"{problem} {kernel}".encode():
        rng_key = jax.random.fold_in(rng_key, byte)
    return rng_key


def _exact(
    problem: zoo.Problem, shared: dict[str, Any], reference: dict[str, Any] | None
) -> dict[str, float]:
    """What λ̂ should be, and the error of that; nothing if it is not known."""
    found = problem.expectation(shared["localization"], shared["inverse_temperature"])
    if found is not None:
        return {"exact": found.mean, "exact_error": 0.0}
    if reference is None or reference.get("failure"):
        return {}
    return {"exact": reference["llc"], "exact_error": reference["mcse"]}


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
        "findings": " ".join(json.loads(attrs["findings"])),
    }
