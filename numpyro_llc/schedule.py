"""How long to run: the numbers the user gives, and what stands in for those left out."""

from typing import Any, NamedTuple

from numpyro_llc._checks import check_integer

CHAIN_METHODS = ("vectorized", "sequential", "parallel")
DEFAULT_STEPS = 1000
"""Steps of the warm-up and of sampling, for kernels whose steps are nearly independent (NUTS)."""


class Schedule(NamedTuple):
    """How long to run, how many chains, and how; None is chosen along the way."""

    num_warmup: int | None
    num_samples: int | None
    num_chains: int
    thinning: int | None
    chain_method: str
    progress_bar: bool


def check_schedule(
    num_warmup: Any,
    num_samples: Any,
    num_chains: Any,
    thinning: Any,
    chain_method: Any,
    progress_bar: Any,
) -> Schedule:
    """Refuse what cannot be run, by name."""
    steps, chains = "It counts steps of one chain.", "R-hat wants at least 2, better 4."
    kept = "Every thinning-th step is kept."

    def optional(name: str, value: Any, minimum: int, meaning: str) -> int | None:
        if value is None:
            return None
        return check_integer(name, value, minimum=minimum, meaning=meaning)

    schedule = Schedule(
        optional("num_warmup", num_warmup, 0, steps),
        optional("num_samples", num_samples, 1, steps),
        check_integer("num_chains", num_chains, minimum=1, meaning=chains),
        optional("thinning", thinning, 1, kept),
        chain_method,
        bool(progress_bar),
    )
    if schedule.thinning and schedule.num_samples and schedule.thinning > schedule.num_samples:
        raise ValueError(
            f"`thinning` must be at most `num_samples`; got {thinning} > {num_samples}. "
            "num_samples // thinning draws are kept."
        )
    if chain_method not in CHAIN_METHODS:
        raise ValueError(f"`chain_method` must be one of {CHAIN_METHODS}; got {chain_method!r}.")
    return schedule


def with_defaults(schedule: Schedule) -> Schedule:
    """The schedule of a kernel whose length is not chosen along the way."""
    thinning = schedule.thinning or 1
    return schedule._replace(
        num_warmup=DEFAULT_STEPS if schedule.num_warmup is None else schedule.num_warmup,
        num_samples=schedule.num_samples or max(DEFAULT_STEPS, thinning),
        thinning=thinning,
    )
