"""Checks of the chains: did they run to their end, agree, and draw enough."""

import math

import numpy as np

from numpyro_llc._checks import number, percent
from numpyro_llc.inference_data import LEAST_DRAWS, error_of_mean
from numpyro_llc.results.checks._check import CheckInput, NotMeasured, Outcome, at_least, at_most
from numpyro_llc.sampling import RELATIVE_ERROR

R_HAT_LIMIT = 1.02
"""Chains then differ by a fifth of a draw's spread, more than any error bar of 400 draws."""
DISTANCE_R_HAT_LIMIT = 1.3
"""Flat directions mix slowly and matter little to λ̂ (1.16 in the zoo); one chain of four in another
place gives more than 1.5."""
ESS_LIMIT = 100.0
"""Below it an estimated error is itself off by some 10 %; ArviZ says so too."""
ERROR_LIMIT = 0.2
"""What 100 independent draws of Gamma(1/4, 1) leave; beyond it 1/4 is not told from 1/2."""
NEAR_CENTER = 0.02
"""Share of d below which the potential of all draws of a chain means that it stands still: the mean
of the potential is d/2 of a quadratic loss, and d/2k of a loss w^(2k)."""
EARLY, LATE = 0.1, 0.5
"""First and last parts of the draws that are compared (Geweke 1992)."""
DRIFT_LIMIT = 5.0
"""Errors of their difference: more than for other numbers, since the error of half a run is itself
uncertain. 3.3 was the largest of 217 healthy runs, 4.7 that of an ensemble's dependent chains."""
MANY_DATA = 10_000
"""From this n on a step on all data costs so much more than a batch that minibatches may help."""


def non_finite(e: CheckInput) -> Outcome:
    """No draw of `llc` may be NaN or infinite."""
    if e.broken is None:
        return Outcome(0.0, 0.0, False, "All draws of `llc` are finite.", "")
    chain, draw = e.broken
    said = (
        f"`llc` is not finite in chain {chain} from draw {draw} on; the other checks are of the "
        f"{draw} draws of each chain before it."
    )
    remedy = f"{e.report.shorter_steps}, or raise `localization`."
    return Outcome(1.0, 0.0, True, said, remedy)


def standing_still(e: CheckInput) -> Outcome:
    """The chains moved: their loss varies, and they got as far out as the density reaches.

    ``E[(z - z*)·∇U] = d`` exactly, so that a chain whose potential never exceeds ``NEAR_CENTER`` d
    has not seen the density, but where the loss grows with a power of 1/``NEAR_CENTER``.
    """
    if e.llc.shape[1] < 2 or e.report.kernel == "sgd":  # which goes to a minimum and stays there
        raise NotMeasured("chains that move")
    is_still = np.ptp(e.llc, axis=1) == 0
    value = float(np.mean(is_still | _is_near_center(e)))
    if value == 0:
        return Outcome(value, 0.0, False, "All chains moved.", "")
    if np.all(is_still) and _varies(e, "distance") and e.report.constant_loss:
        said = (
            "`llc` is the same in all draws of chains that moved: all lie where the loss is "
            "constant around the centre."
        )
        return Outcome(value, 0.0, True, said, "Lower `localization`, so that they go beyond.")
    if np.all(is_still) and _varies(e, "distance"):
        said = (
            "`llc` is the same in all draws of chains that moved: the loss does not depend on the "
            "parameters that are sampled."
        )
        return Outcome(value, 0.0, True, said, "Sample others (`sites`).")
    said = (
        f"{100 * value:.0f} % of the chains did not move, or hardly: the largest `llc` of any draw "
        f"is {np.max(e.llc):.3g}, so λ̂ and its error say nothing about the loss."
    )
    return Outcome(value, 0.0, True, said, _longer_steps(e))


def _is_near_center(e: CheckInput) -> np.ndarray:
    """Of each chain, whether no draw left the centre's closest neighbourhood, ``[chain]``."""
    try:
        penalty, limit = e.draws("penalty"), NEAR_CENTER * e.number("num_parameters")
        is_bounded = e.smallest_localization > 0
    except NotMeasured:
        is_bounded = False
    if not is_bounded:
        return np.zeros(len(e.llc), bool)
    return np.asarray(np.max(np.abs(e.llc) + penalty, axis=1) < limit)


def _varies(e: CheckInput, name: str) -> bool:
    try:
        return bool(np.all(np.ptp(e.draws(name), axis=1) > 0))
    except NotMeasured:
        return False


def _longer_steps(e: CheckInput) -> str:
    if e.report.step_size is None:
        return "Raise `num_warmup`, in which the step is adapted, or use kernel='nuts'."
    if e.report.step_size_is_automatic:
        return f"Give a `step_size` larger than {e.report.step_size:.3g}, or raise `num_samples`."
    return (
        f"The reason is `step_size`, which is {e.report.step_size:.3g}: raise it, or leave it out "
        "to have it found."
    )


def few_draws(e: CheckInput) -> Outcome:
    """Each chain has draws enough to tell how they hang together."""
    if e.broken is not None:
        raise NotMeasured("draws that are finite")
    draws = e.llc.shape[1]
    said = f"Each chain has {draws} draw(s) (want at least {LEAST_DRAWS})"
    if draws >= LEAST_DRAWS:
        return Outcome(draws, LEAST_DRAWS, False, f"{said}.", "")
    meaning = (
        f"{said}: these are too few to estimate an effective sample size, so the Monte Carlo "
        "error of λ̂ and R-hat are unknown."
    )
    remedy = "Raise `num_samples`, or lower `thinning`."
    if e.report.ended_by == "seconds":
        remedy = "Give `until` more seconds, or lower `thinning`."
    return Outcome(draws, LEAST_DRAWS, True, meaning, remedy)


def warmup_limit(e: CheckInput) -> Outcome:
    """The time that was given did not end the warm-up."""
    value, steps = e.number("warmup_was_cut"), e.number("num_warmup")
    if not value:
        return Outcome(value, 0.0, False, "The warm-up was complete.", "")
    meaning = (
        f"The warm-up was cut after {steps:.0f} steps, by its share of the "
        f"{e.number('seconds_given'):g} seconds of `until`: the chains may not have converged, "
        "and step sizes may not be adapted."
    )
    return Outcome(value, 0.0, True, meaning, "Give `until` more seconds, or lower `num_warmup`.")


def interrupted(e: CheckInput) -> Outcome:
    """Ctrl-C did not end the run."""
    value = e.number("interrupted")
    if not value:
        return Outcome(value, 0.0, False, "The run was not interrupted.", "")
    said = f"Ctrl-C ended the run after {e.llc.shape[1]} draws of each chain."
    return Outcome(
        value,
        0.0,
        True,
        said,
        "Repeat the call for more; with the same `output` it goes on.",
    )


def step_limit(e: CheckInput) -> Outcome:
    """A run that goes on until the error is as wanted came near that before a limit ended it."""
    ended, wanted = e.number("ended_at_limit"), e.report.relative_error_wanted or RELATIVE_ERROR
    if not ended:
        return Outcome(ended, 0.0, False, "No limit ended the run early.", "")
    said = f"Sampling ended at its limit of {_limit(e)}, "
    try:
        said += (
            f"with a Monte Carlo error of {percent(e.relative(e.of_llc('mcse_mean')))} of λ̂ (want "
            f"{percent(wanted)}) and R-hat {e.of_llc('r_hat'):.3f}."
        )
    except NotMeasured:
        said += f"with too few draws to tell the Monte Carlo error of λ̂ (want {percent(wanted)})."
    return Outcome(ended, 0.0, True, said, f"{_longer(e, wanted)}{_another_kernel(e)}.")


def _longer(e: CheckInput, wanted: float) -> str:
    """How long a run would have the error that is wanted, which falls as 1/√steps."""
    remedy = "give `num_warmup` and `num_samples`, or wider limits in `until`"
    try:
        made = e.number("num_steps") - e.number("num_warmup")
        steps = made * (e.relative(e.error_of_llc()) / wanted) ** 2
    except NotMeasured:
        made, steps = 0.0, 0.0
    if steps <= made:  # R-hat alone is too large, or the draws too few to tell
        return remedy.capitalize()
    return (
        f"An error of {percent(wanted)} takes about {number(steps, 2)} steps of each chain after "
        f"the warm-up, {number(steps / made, 2)} times as many, at this mixing: {remedy}"
    )


def _another_kernel(e: CheckInput) -> str:
    """A kernel that mixes faster, or whose steps cost less."""
    if e.report.kernel in ("sgld", "psgld", "sgd"):
        return "; or take kernel='sgnht', whose momentum moves along flat directions faster"
    if e.report.kernel == "sgnht":
        return "; or take kernel='psgld', which scales each parameter, if their scales differ much"
    if e.report.kernel in ("nuts", "hmc", "mala") and (e.report.num_data or 0) >= MANY_DATA:
        return "; or give `batch_size`: the steps of kernel='sgnht' cost the same at every n"
    return ""


def _limit(e: CheckInput) -> str:
    steps = f"{e.number('num_steps'):.0f} steps"
    if e.report.ended_by == "seconds":
        return f"{e.number('seconds_given'):g} seconds, after {steps}"
    if e.report.ended_by == "draws":
        return f"{e.llc.shape[1]} draws of each chain, after {steps}"
    return steps


def r_hat(e: CheckInput) -> Outcome:
    """R-hat of `llc`."""
    value, chains = e.of_llc("r_hat"), e.llc.shape[0]
    if math.isnan(value):
        if e.llc.size and np.ptp(e.llc) == 0:
            said = "R-hat of `llc` cannot be judged: it is the same in all draws."
            return Outcome(value, R_HAT_LIMIT, True, said, "See the other findings.")
        said = f"R-hat of `llc` cannot be judged from {chains} chain(s) this short."
        remedy = "Raise `num_chains` (to 4) or `num_samples`."
        return Outcome(value, R_HAT_LIMIT, True, said, remedy)
    return at_most(
        value,
        R_HAT_LIMIT,
        f"R-hat of `llc` over {chains} chains",
        "they disagree",
        "Raise `num_warmup` and `num_samples`.",
    )


def r_hat_distance(e: CheckInput) -> Outcome:
    """R-hat of the distance from the centre, which tells apart regions of equal loss."""
    distance = e.draws("distance")
    value = e.monte_carlo(distance).r_hat
    if math.isnan(value) or len(distance) < 2:
        raise NotMeasured("chains")
    return at_most(
        value,
        DISTANCE_R_HAT_LIMIT,
        "R-hat of the distance from the centre",
        "the chains are in different places, though λ̂ may agree by chance",
        "Raise `num_warmup` and `num_samples`, or `localization` to keep them in one basin.",
    )


def ess_bulk(e: CheckInput) -> Outcome:
    """Bulk effective sample size of `llc`."""
    return at_least(
        e.of_llc("ess_bulk"),
        ESS_LIMIT,
        "The bulk effective sample size of `llc`",
        "its error is itself uncertain",
        "Raise `num_samples`.",
    )


def ess_tail(e: CheckInput) -> Outcome:
    """Tail effective sample size of `llc`."""
    return at_least(
        e.of_llc("ess_tail"),
        ESS_LIMIT,
        "The tail effective sample size of `llc`",
        "its high draws, which weigh most in λ̂ and its variance, are few",
        "Raise `num_samples`.",
    )


def monte_carlo_error(e: CheckInput) -> Outcome:
    """Monte Carlo error of λ̂, as a share of it."""
    return at_most(
        e.relative(e.error_of_llc()),
        ERROR_LIMIT,
        "The Monte Carlo error, relative to λ̂,",
        "λ̂ has hardly one reliable digit",
        "Raise `num_samples`.",
        percent=True,
    )


def drift(e: CheckInput) -> Outcome:
    """First tenth of the draws against the last half, pooled over chains.

    The error of the difference is that of the last half, for both by their lengths: in a first
    part that drifts, the drift itself would enter. At its limit the early draws move λ̂ by more
    than its own error.
    """
    draws = e.llc.shape[1]
    early, late = e.llc[:, : int(EARLY * draws)], e.llc[:, draws - int(LATE * draws) :]
    if early.size == 0 or not (error := error_of_mean(late)) > 0:
        raise NotMeasured("draws")
    error *= math.sqrt(1.0 + late.shape[1] / early.shape[1])
    settled = float(np.mean(late))
    value = abs(float(np.mean(early)) - settled) / error
    said = (
        f"The first tenth of the draws has a mean `llc` of {np.mean(early):.4g}, the last half "
        f"{settled:.4g}; their difference in standard errors"
    )
    return at_most(
        value,
        DRIFT_LIMIT,
        said,
        "the chains had not converged when sampling began",
        "Raise `num_warmup`, or leave it out with the stochastic-gradient kernels.",
    )
