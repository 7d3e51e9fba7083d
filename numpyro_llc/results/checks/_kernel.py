"""Checks of the kernel: divergences, acceptance, step size, gradient noise, evaluation."""

import math

import numpy as np

from numpyro_llc.results.checks._check import CheckInput, NotMeasured, Outcome, at_least, at_most

DIVERGENCE_LIMIT = 0.005
"""At 0.65 % λ̂ of ``w1² w2⁴`` at (0, 1) was 8 % low."""
ACCEPTANCE_LIMIT = 0.4
"""Langevin steps are nearly as efficient as can be from 0.4 to 0.8 (Roberts & Rosenthal 1998)."""
BIAS_LIMIT = 0.1
"""Share of λ̂ that a finite step, gradient noise or rows left out may make up."""


def divergences(e: CheckInput) -> Outcome:
    """Share of the draws that ended in a divergence."""
    return at_most(
        float(np.mean(e.draws("diverging"))),
        DIVERGENCE_LIMIT,
        "The share of the draws that diverged",
        "a region may be missed",
        "Use a kernel object with a higher target_accept_prob, or raise `localization`.",
        percent=True,
    )


def acceptance(e: CheckInput) -> Outcome:
    """Acceptance of a Metropolis-adjusted Langevin kernel, of its worst chain."""
    rate = e.draws("acceptance_rate")
    if e.report.kernel != "mala" and not np.all(e.draws("n_steps") == 1):
        raise NotMeasured("a Langevin kernel")
    return at_least(
        float(np.min(rate.mean(axis=1))),
        ACCEPTANCE_LIMIT,
        "The acceptance of the Langevin steps of the worst chain",
        "it hardly moves",
        "Raise `num_warmup`, in which the step is adapted, or use kernel='nuts'.",
    )


def mala_acceptance(e: CheckInput) -> Outcome:
    """What a Metropolis test would have let pass of the unadjusted steps of SGLD and PSGLD.

    In d equal directions of curvature A, Euler's steps of ``ε A = 4 b`` make λ̂ too large by a
    share b, and a test would pass ``erfc((b³ d / 2)^½)`` of them; the limit is that of a tenth.
    Steps that were found are not judged: their scheme is exact on quadratics, where the acceptance
    falls with the dimension all the same.
    """
    value = e.number("mala_acceptance")
    given = not e.report.step_size_is_automatic
    return at_least(
        value,
        math.erfc((BIAS_LIMIT**3 * e.number("num_parameters") / 2) ** 0.5) if given else 0.0,
        "The acceptance that a Metropolis test would give the steps",
        "they are too long, and λ̂ is too large",
        "Lower `step_size`, or leave it out to have it found.",
    )


def step_size(e: CheckInput) -> Outcome:
    """What the finite step may shift λ̂ by, as a share of it; gradient noise not counted.

    Not told where the noise itself is too large: it is known to a factor of two or three from the
    few batches of the calibrations, and what is left of the whole is then mostly its error.
    """
    # Of a step that was found, what is left of the noise is no part of the bias of the step.
    noise = 0.0 if e.report.step_size_is_automatic else e.report.gradient_noise_bias or 0.0
    bias = e.number("step_size_bias") - noise
    if e.relative(noise) > BIAS_LIMIT:
        raise NotMeasured("step_size_bias")
    return at_most(
        e.relative(max(bias, 0.0)),
        BIAS_LIMIT,
        "What the finite `step_size` may add, relative to λ̂,",
        "the step is too long for the curvature that the chains meet",
        "Lower `step_size`, or leave it out to have it found.",
        percent=True,
    )


def gradient_noise(e: CheckInput) -> Outcome:
    """What gradient noise adds to λ̂: of a given step all of it, else what is not corrected."""
    return at_most(
        e.relative(e.number("gradient_noise_bias")),
        BIAS_LIMIT,
        "What uncorrected minibatch noise adds, relative to λ̂,",
        "the batches are too small for this step",
        "Raise `batch_size`, or leave out `step_size` and `control_variates`: the noise is then "
        "lowered and corrected for.",
        percent=True,
    )


def evaluation(e: CheckInput) -> Outcome:
    """Error of λ̂ for the rows on which the loss was not evaluated."""
    return at_most(
        e.relative(e.number("evaluation_error")),
        BIAS_LIMIT,
        "The error for rows that were not evaluated, relative to λ̂,",
        "the loss was recorded on too few of the data",
        "Give more rows in `evaluation`."
        if e.report.from_stream
        else "Raise `thinning` or `batch_size`, with which the evaluated rows grow.",
        percent=True,
    )
