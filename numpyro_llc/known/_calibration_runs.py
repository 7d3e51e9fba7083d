"""The run of a problem and a kernel, here or in another process."""

import math
import time
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import jax

from numpyro_llc.errors import LLCWarning
from numpyro_llc.estimate import estimate_llc
from numpyro_llc.kernels import STOCHASTIC_NAMES
from numpyro_llc.known import zoo
from numpyro_llc.known._calibration_table import Row
from numpyro_llc.models import Fields
from numpyro_llc.results import findings, report_of, summary, text_of
from numpyro_llc.sampling import forget_compiled


class Task(NamedTuple):
    """A problem, or the name of one that every process has, and a kernel."""

    problem: zoo.Problem | str
    name: str
    kernel: str


@dataclass(frozen=True)
class Estimation:
    """From a problem and a kernel to the cells of their row.

    Attributes
    ----------
    rng_key : jax.Array
    num_data : int
        n of the problems given by name.
    shared : dict
        Settings of ``estimate_llc``.
    """

    rng_key: jax.Array
    num_data: int
    shared: Fields

    def __call__(self, task: Task) -> Row:
        """What the model or sampler raises is the cell ``failure``."""
        row: Row = {}
        began = time.perf_counter()
        try:
            given = task.problem
            problem = zoo.load(given, self.num_data) if isinstance(given, str) else given
            row["parameters"] = problem.num_parameters
            row.update(self._estimated(problem, task))
        except Exception as error:
            row["failure"] = f"{type(error).__name__}: {error}"
        forget_compiled()  # no other row has this model and kernel
        return {**row, "seconds": time.perf_counter() - began}

    def _estimated(self, problem: zoo.Problem, task: Task) -> Row:
        batch_size = self.shared["batch_size"] if task.kernel in STOCHASTIC_NAMES else None
        settings = {**self.shared, "batch_size": batch_size}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LLCWarning)  # they are the row's findings
            idata = estimate_llc(
                key_of(self.rng_key, task.name, task.kernel),
                problem.model,
                problem.model_args,
                center=problem.center,
                num_data=problem.num_data,
                kernel=task.kernel,
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


def key_of(rng_key: jax.Array, problem: str, kernel: str) -> jax.Array:
    """A key that depends on the names alone, however many runs there are."""
    for byte in f"{problem} {kernel}".encode():
        rng_key = jax.random.fold_in(rng_key, byte)
    return rng_key
