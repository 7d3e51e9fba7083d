"""How long to run: the numbers the user gives, and what stands in for those left out."""

from collections.abc import Mapping
from typing import NamedTuple

from jax.sharding import Mesh

from numpyro_llc._checks import check_integer, check_positive
from numpyro_llc.sampling._devices import check_mesh, mesh_of_chains

CHAIN_METHODS = ("vectorized", "sequential", "parallel")
DEFAULT_STEPS = 1000
"""Steps of the warm-up and of sampling, for kernels whose steps are nearly independent (NUTS)."""
RELATIVE_ERROR = 0.01
"""The Monte Carlo error of λ̂, relative to it, at which an automatic run ends."""


R_HAT = 1.01
"""The R-hat below which it may end."""


class Until(NamedTuple):
    """When sampling may end, and when it must.

    It may once the Monte Carlo error is `relative_error` of λ̂ and R-hat is below `r_hat`; it must
    after `steps` of sampling, or `seconds` of wall time since the start, less compilation.
    """

    relative_error: float = RELATIVE_ERROR
    r_hat: float = R_HAT
    steps: int | None = None
    seconds: float | None = None


class Schedule(NamedTuple):
    """How long to run, how many chains, and how; None is chosen along the way."""

    num_warmup: int | None
    num_samples: int | None
    num_chains: int
    thinning: int | None
    chain_method: str
    progress_bar: bool
    until: Until | None = None
    mesh: Mesh | None = None


def check_until(
    until: float | Mapping[str, float] | Until | None, num_samples: object
) -> Until | None:
    """A number is the relative error; a dict has the fields of :class:`Until`."""
    if until is None:
        return None
    if num_samples is not None:
        raise ValueError(
            f"`until` and `num_samples` both say when sampling ends; got {until!r} and "
            f"{num_samples!r}. Leave one out: until={{'steps': ...}} limits it, too."
        )
    if not isinstance(until, Mapping):
        until = until._asdict() if isinstance(until, Until) else {"relative_error": until}
    if unknown := sorted(set(until) - set(Until._fields)):
        raise ValueError(f"`until` has {unknown}; it may hold {list(Until._fields)}.")
    checked = Until(**until)
    check_positive("until", checked.relative_error, meaning="It is an error relative to λ̂.")
    if not check_positive("until", checked.r_hat, meaning="It holds R-hat's limit.") > 1:
        raise ValueError(f"`until` must hold an R-hat above 1, such as 1.01; got {checked.r_hat}.")
    if checked.steps is not None:
        check_integer("until", checked.steps, minimum=1, meaning="It holds a number of steps.")
    if checked.seconds is not None:
        check_positive("until", checked.seconds, meaning="It holds a number of seconds.")
    return checked


def check_schedule(
    num_warmup: object,
    num_samples: object,
    num_chains: object,
    thinning: object,
    chain_method: str,
    progress_bar: object,
    until: float | Mapping[str, float] | Until | None = None,
    mesh: Mesh | None = None,
) -> Schedule:
    """Refuse what cannot be run, by name."""
    steps, chains = "It counts steps of one chain.", "R-hat wants at least 2, better 4."
    kept = "Every thinning-th step is kept."

    def optional(name: str, value: object, minimum: int, meaning: str) -> int | None:
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
        check_until(until, num_samples),
    )
    if schedule.thinning and schedule.num_samples and schedule.thinning > schedule.num_samples:
        raise ValueError(
            f"`thinning` must be at most `num_samples`; got {thinning} > {num_samples}. "
            "num_samples // thinning draws are kept."
        )
    if chain_method not in CHAIN_METHODS:
        raise ValueError(f"`chain_method` must be one of {CHAIN_METHODS}; got {chain_method!r}.")
    mesh = check_mesh(mesh, chain_method, schedule.num_chains)
    if chain_method == "parallel" and mesh is None:
        mesh = mesh_of_chains(schedule.num_chains)
    return schedule._replace(mesh=mesh)


def with_defaults(schedule: Schedule) -> Schedule:
    """The schedule of a kernel whose length is not chosen along the way."""
    thinning = schedule.thinning or 1
    num_samples = schedule.num_samples or max(DEFAULT_STEPS, thinning)
    return schedule._replace(
        num_warmup=DEFAULT_STEPS if schedule.num_warmup is None else schedule.num_warmup,
        num_samples=None if schedule.until else num_samples,
        thinning=thinning,
    )
