"""The two answers that the rest of the package gives, and how independent parts of a model add."""

import numbers
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from numpyro_llc._checks import check_integer, check_num_data, inverse_temperature_or_default

Array = NDArray[np.float64]


class LearningCoefficient(NamedTuple):
    """Learning coefficient λ and its multiplicity m, exact.

    Near ``w*``, ``volume{K < e} ~ e^λ (-log e)^(m-1)`` as ``e -> 0``, where K is the excess of the
    population loss.
    """

    value: Fraction
    """λ."""
    multiplicity: int
    """m."""


class Expectation(NamedTuple):
    """Mean and variance of ``llc = β (nL(w) - nL(w*))`` under the localized posterior.

    The density is ``exp(-β nL(w) - γ/2 |w - w*|²)``. The mean is what λ̂ estimates; the variance is
    that of the draws, so that the Monte Carlo error of λ̂ is ``sqrt(variance / ESS)``.
    """

    mean: float
    """λ̂ without Monte Carlo error."""
    variance: float
    """Variance of a draw of ``llc``."""


@overload
def independent(*blocks: Expectation) -> Expectation: ...
@overload
def independent(*blocks: LearningCoefficient) -> LearningCoefficient: ...
def independent(
    *blocks: Expectation | LearningCoefficient,
) -> Expectation | LearningCoefficient:
    """Return the value of a loss that is a sum of terms in separate parameters.

    Means, variances and learning coefficients add, and so do the multiplicities less one.

    Parameters
    ----------
    *blocks
        The values of the terms: all of them expectations, or all of them learning coefficients.

    Returns
    -------
    Expectation or LearningCoefficient
        Whichever the blocks are.

    Raises
    ------
    TypeError
        If there are no blocks, or blocks of both kinds.
    """
    expectations = [block for block in blocks if isinstance(block, Expectation)]
    coefficients = [block for block in blocks if isinstance(block, LearningCoefficient)]
    if blocks and len(expectations) == len(blocks):
        return Expectation(sum(b.mean for b in expectations), sum(b.variance for b in expectations))
    if blocks and len(coefficients) == len(blocks):
        value = sum((b.value for b in coefficients), Fraction(0))
        return LearningCoefficient(value, 1 + sum(b.multiplicity - 1 for b in coefficients))
    kinds = sorted({type(block).__name__ for block in blocks})
    raise TypeError(
        "`blocks` must be one or more Expectation, or one or more LearningCoefficient; got "
        f"{kinds or 'none'}. Compute each block with a function of numpyro_llc.exact."
    )


def real_array(name: str, values: object, meaning: str) -> Array:
    """Return `values` as an array of floats, or raise where they are not all real numbers."""
    try:
        array = np.asarray(values)
        if array.dtype == object and all(isinstance(x, numbers.Real) for x in array.flat):
            array = array.astype(float)  # fractions and large integers
        if array.dtype != bool and np.can_cast(array.dtype, float, "same_kind"):
            return array.astype(float)
    except (ValueError, OverflowError):  # of rows of different lengths, or of an integer
        pass
    shown = repr(values)
    shown = shown if len(shown) <= 200 else f"{shown[:200]}..."
    raise TypeError(f"`{name}` must hold real numbers; got {shown}. {meaning}")


def check_integers(
    name: str, values: object, *, minimum: int, meaning: str, length: int | None = None
) -> tuple[int, ...]:
    """Return `values` as ints of at least `minimum`, or raise."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        values = getattr(values, "tolist", lambda: values)()
    if isinstance(values, str) or not isinstance(values, Sequence) or not len(values):
        raise TypeError(f"`{name}` must be a sequence of integers; got {values!r}. {meaning}")
    if length is not None and len(values) != length:
        raise ValueError(f"`{name}` must have {length} entries; got {len(values)}. {meaning}")
    return tuple(check_integer(name, v, minimum=minimum, meaning=meaning) for v in values)


def effective_number(num_data: int, inverse_temperature: float | None) -> float:
    """Return ``c = nβ``, which multiplies the average loss."""
    num_data = check_num_data(num_data)
    return num_data * inverse_temperature_or_default(inverse_temperature, num_data)
