"""λ from the loss at two inverse temperatures: of one run by weights, or of two runs."""

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from numpyro_llc._checks import check_positive
from numpyro_llc.estimators._estimate import Estimate, average, checked
from numpyro_llc.estimators._weights import NARROW, tempering_weights

LEAST_APART = 1e-3
"""Relative difference of two inverse temperatures that counts as none."""


def two_temperatures(llc: ArrayLike, *, ratio: float | None = None) -> Estimate:
    r"""``(E_β[nL] - E_ρβ[nL]) / (1/β - 1/(ρβ))``, from draws at β; no L(z*) is needed.

    The second mean is of the same draws under the weights ``exp(-(ρ - 1) X)``.

    Parameters
    ----------
    llc : array [chain, draw]
        ``β nL(z)`` of each draw, up to a constant.
    ratio : float above 1, optional
        ρ; by default 1.5, or less where weights would cost more than half of the draws.

    Returns
    -------
    Estimate
        With a doubt if the weights leave less than a quarter of the draws.

    Notes
    -----
    Watanabe (2013), JMLR 14:867-897. The mean over an interval of temperatures of what
    :func:`variance` is at one, with its bias and a smaller error. γ stays as it was.
    """
    x = checked("llc", llc)
    weights, ratio, doubts = tempering_weights(x, ratio, widest=NARROW)
    gap = average(x) - average(x, weights)
    return replace(gap * (ratio / (ratio - 1.0)), doubts=doubts)


def two_runs(
    loss: ArrayLike,
    inverse_temperature: float,
    other_loss: ArrayLike,
    other_inverse_temperature: float,
) -> tuple[Estimate, Estimate]:
    """``(E_b1[nL] - E_b2[nL]) / (1/b1 - 1/b2)`` from two runs, as two terms to be added.

    The runs are independent, so that the errors of the terms add in squares. Both terms are taken
    from the mean loss of the first run, which cancels.

    Parameters
    ----------
    loss, other_loss : arrays [chain, draw]
        nL(z) of each draw of a run, in nats, of the same data and with the same γ.
    inverse_temperature, other_inverse_temperature : float
        β of each run.

    Notes
    -----
    Watanabe (2013), JMLR 14:867-897.
    """
    meaning = "It is β of a run."
    first = check_positive("inverse_temperature", inverse_temperature, meaning=meaning)
    second = check_positive("other_inverse_temperature", other_inverse_temperature, meaning=meaning)
    if np.isclose(first, second, rtol=LEAST_APART, atol=0.0):
        raise ValueError(
            f"The runs must differ in inverse temperature; got {first:g} and {second:g}. Watanabe "
            "(2013) takes 1/log(n) and 1.5/log(n)."
        )
    one, two = checked("loss", loss), checked("other_loss", other_loss)
    level, scale = float(np.mean(one)), 1.0 / (1.0 / first - 1.0 / second)
    return average(one - level) * scale, average(two - level) * -scale
