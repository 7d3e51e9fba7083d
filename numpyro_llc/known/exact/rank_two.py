"""Expectations under the squared norm of a product of two matrices with two inner columns."""

import math

import numpy as np

from numpyro_llc._checks import check_integer, check_positive
from numpyro_llc.known.exact.products import product_of_powers
from numpyro_llc.known.exact.values import Expectation, effective_number

_WIDEST = 1000
_LARGEST_LOG = 100.0 * math.log(10.0)


def rank_two_product(
    inputs: int,
    outputs: int,
    *,
    scale: float = 0.5,
    num_data: int,
    localization: float = 1.0,
    inverse_temperature: float | None = None,
) -> Expectation:
    r"""Return mean and variance of ``llc`` for ``L = κ |B A|²`` at 0, with two hidden units.

    A has shape (2, inputs) and B (outputs, 2): reduced-rank regression with whitened inputs and
    true rank 0. With N inputs, M outputs and ``γ A A'`` of eigenvalues x_1, x_2, integrating B
    exactly leaves the density

    .. math:: |x_1 - x_2| \prod_i x_i^{(N-3)/2} e^{-x_i/2} (1 + k x_i)^{-M/2},
              \qquad k = \frac{2 nβ κ}{γ^2},

    given which ``llc`` has mean ``M/2 Σ s_i`` and variance ``M/2 Σ s_i²``,
    ``s_i = k x_i / (1 + k x_i)``.

    Parameters
    ----------
    inputs, outputs
        N and M, from 1 to 1000.
    scale
        κ > 0; 1/2 for a Gaussian likelihood of unit variance.
    num_data
        n.
    localization
        γ > 0, the precision of the Gaussian around 0.
    inverse_temperature
        β; 1 / log n when left out.

    Returns
    -------
    Expectation
        Mean and variance, to about 12 digits.

    Raises
    ------
    ValueError
        If a width is larger than 1000, or k beyond 1e±100.

    Notes
    -----
    The law of ``|B A|²`` under the Gaussian is the same for every order of the three widths, so
    that this covers any hidden width where there are two inputs or two outputs:
    ``rank_two_product(hidden, outputs)`` is that of two inputs. With one hidden unit see
    :func:`product_of_powers`.
    """
    meaning = "It is a width of the network."
    n = check_integer("inputs", inputs, minimum=1, meaning=meaning)
    m = check_integer("outputs", outputs, minimum=1, meaning=meaning)
    if max(n, m) > _WIDEST:
        raise ValueError(
            f"`inputs` and `outputs` must be at most {_WIDEST}, for memory; got {n} and {m}. "
            "For wider layers see reduced_rank_regression, which gives the limit of many data."
        )
    kappa = check_positive("scale", scale, meaning="It multiplies the squared norm.")
    gamma = check_positive(
        "localization", localization, meaning="It is the precision of the Gaussian around 0."
    )
    if n == 1:  # A A' has one eigenvalue: the two hidden units act as the inputs of one.
        return product_of_powers(
            [1, 1],
            sizes=[2, m],
            scale=kappa,
            num_data=num_data,
            localization=gamma,
            inverse_temperature=inverse_temperature,
        )
    c = effective_number(num_data, inverse_temperature)
    log_k = math.log(2.0 * c) + math.log(kappa) - 2.0 * math.log(gamma)
    if abs(log_k) > _LARGEST_LOG:
        raise ValueError(
            "`scale` and `localization` must leave k = 2 nβκ/γ² between 1e-100 and 1e100; got "
            f"scale={scale!r} and localization={localization!r}. Choose them nearer to 1."
        )
    # With half a standard deviation of log x to a step, the rule is exact to all digits.
    return _trapezoid(n, m, math.exp(log_k), step=min(0.2, math.sqrt(0.5 / max(n, m))))


def _trapezoid(n: int, m: int, k: float, step: float) -> Expectation:
    """Integrate over ``log x_1`` and the logit of ``x_2 / x_1``: no singularity is left."""
    # Below k x = 1 the weight falls like a power; above x = 8 n + 200 it is nil.
    top = np.log(8.0 * n + 200.0)
    knee = max(np.log(k), -top) + 5.0
    u = np.arange(-knee - 50.0 / n, top, step)[:, None]
    logit = np.arange(-knee - top - 100.0 / (n - 1), 25.0, step)[None, :]
    log_ratio, log_gap = -np.logaddexp(0.0, -logit), -np.logaddexp(0.0, logit)
    large = np.exp(u)
    small = large * np.exp(log_ratio)
    log_weight = (
        n * u
        + 0.5 * (n - 1) * log_ratio
        + 2.0 * log_gap
        - 0.5 * (large + small)
        - 0.5 * m * (np.log1p(k * large) + np.log1p(k * small))
    )
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    shrinkage = [k * x / (1.0 + k * x) for x in (large, small)]
    given = 0.5 * m * (shrinkage[0] + shrinkage[1])
    within = 0.5 * m * np.sum(weight * (shrinkage[0] ** 2 + shrinkage[1] ** 2))
    mean = np.sum(weight * given)
    return Expectation(float(mean), float(within + np.sum(weight * (given - mean) ** 2)))
