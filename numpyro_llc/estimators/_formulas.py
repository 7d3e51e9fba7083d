"""Estimators in closed form: the mean, the variance, and corrections of the mean.

Notation: ``X = β [nL(z) - nL(z*)]`` is `llc` of a draw, ``P = γ/2 |z - z*|²`` its `penalty`, μ and
σ are mean and variance of X, and ``c = nβ``.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from numpyro_llc._checks import check_integer
from numpyro_llc.estimators._estimate import Estimate, Root, average, checked, covariance
from numpyro_llc.estimators._pull import localization_pull, pull
from numpyro_llc.estimators._weights import WIDE, tempering_weights


def mean(llc: ArrayLike) -> Estimate:
    """``μ = E[X]``: λ̂ of Lau, Furman, Wang, Murfet, Wei (2023), arXiv:2308.12108.

    Parameters
    ----------
    llc : array [chain, draw]
        ``β [nL(z) - nL(z*)]`` of each draw.

    Notes
    -----
    Needs L(z*). Low at finite n by about ``½ Σ γ/(c h + γ)`` over regular directions of curvature
    h, and by ``(m - 1)/(ln c + const)`` for a multiplicity m.
    """
    return average(checked("llc", llc))


def variance(llc: ArrayLike) -> Estimate:
    """``σ = Var[X]``, which a constant in the loss leaves as it is: no L(z*) is needed.

    Parameters
    ----------
    llc : array [chain, draw]
        As in :func:`mean`; any constant may be added to it.

    Notes
    -----
    Imai (2019), arXiv:1906.01341. By ``dμ/d ln c = μ - σ`` it is the limit of
    :func:`two_temperatures` for equal temperatures, and shares the bias of the mean, a little
    larger. Its error is that of a second moment, about ``sqrt((6λ + 2λ²)/ESS)`` against
    ``sqrt(λ/ESS)`` of the mean. Noise in the losses, as of minibatches, adds to it.
    """
    x = checked("llc", llc)
    return covariance(x, x)


def localization_corrected(
    llc: ArrayLike, penalty: ArrayLike, virial: ArrayLike | None = None
) -> Estimate:
    r"""``μ + Cov(X, P)``: the mean, extrapolated to γ → 0 to first order.

    Since ``γ dμ/dγ = -Cov(X, P)`` exactly, the term is what γ takes from the mean, as far as that
    is linear in γ. γ may differ by site.

    Parameters
    ----------
    llc : array [chain, draw]
        As in :func:`mean`.
    penalty : array [chain, draw]
        ``½ Σ_s γ_s |z_s - z*_s|²`` of each draw, over sites s.
    virial : array [chain, draw], optional
        ``β (z - z*)·∇nL(z)`` of each draw, with which the error is smaller: see
        :func:`localization_pull`.

    Notes
    -----
    Gaussian posterior with ``r = γ/(c h + γ)``: ½ Σ (1 - r²), where the mean is ½ Σ (1 - r); a flat
    direction adds nothing to either. The derivative of the mean was checked by finite differences
    of integrals. What it does not cover: curvature in γ, so it is incomplete where γ rules a
    direction (r near 1); and it corrects away locality, so that near a worse singularity that γ
    alone keeps out, it moves towards λ of that one.
    """
    return average(checked("llc", llc)) + localization_pull(llc, penalty, virial)


def multiplicity_corrected(llc: ArrayLike, multiplicity: int) -> Estimate:
    r"""``μ + sqrt((m - 1)(μ - σ))``, for a known multiplicity m.

    Where the integral obeys ``-ln Z = λ ln c - (m - 1) ln(ln c + C)``, the mean is
    ``λ - (m - 1)/l`` with ``l = ln c + C``, and ``μ - σ = dμ/d ln c = (m - 1)/l²`` gives l.

    Parameters
    ----------
    llc : array [chain, draw]
        As in :func:`mean`.
    multiplicity : int
        m, at least 1; with 1 it is the mean.

    Notes
    -----
    Valid if ``μ - σ`` comes from the multiplicity; what γ adds to it (in a regular direction
    ½ s(1 - s), with ``s = c h/(c h + γ)``) is taken for it: :func:`corrected` removes that first.
    The root of a difference, 0 where that is below zero. Its error is not symmetric before the
    difference is three errors above zero: at n = 1000 that takes some 500 independent draws of
    ``(w1 w2)²`` with γ = 10, and 20 000 with γ = 1. `influence` is of the slope there; the ends of
    an interval, at any number of draws, are those of `root`.
    """
    excess = check_multiplicity(multiplicity) - 1
    x = checked("llc", llc)
    first = average(x)
    if excess == 0:
        return first
    gap = first - covariance(x, x)
    root = Root(first, gap, lambda g: np.sqrt(excess * g))
    if gap.value <= 0:
        return replace(first, root=root)
    step = float(root.function(gap.value))
    return replace(first + gap.through(step, 0.5 * step / gap.value), root=root)


def corrected(
    llc: ArrayLike,
    penalty: ArrayLike,
    multiplicity: int,
    virial: ArrayLike | None = None,
    *,
    ratio: float | None = None,
) -> Estimate:
    r"""The mean, corrected for γ and then for a known multiplicity m.

    Let ``ν(c) = μ + Cov(X, P)``, at c and, by weights, at ``ρ c``. Where ``ν = λ - (m - 1)/(ln c +
    C)``, their difference ``Δ = ν(ρ c) - ν(c)`` determines C, and with ``T = ln ρ``::

        λ = ν(c) + ½ [Δ + sqrt(Δ² + 4 (m - 1) Δ / T)].

    For ``ρ → 1`` that is ``ν + sqrt((m - 1) dν/d ln c)``, as :func:`multiplicity_corrected` with ν
    for μ; a wide ratio has the smaller error. For m = 1 it is :func:`localization_corrected`.

    Parameters
    ----------
    llc, penalty : arrays [chain, draw]
        As in :func:`localization_corrected`.
    multiplicity : int
        m, at least 1.
    virial : array [chain, draw], optional
        As in :func:`localization_corrected`.
    ratio : float above 1, optional
        ρ; by default 8, or less where weights would cost more than half of the draws.

    Notes
    -----
    Where the loss is homogeneous of degree 2k and γ alone bounds its zeros, so that
    ``l = ln c - k ln γ + C``, the rest is ``-k² (m - 1)/(2 l³)``, against ``-(m - 1)/l`` of the
    mean. What :func:`localization_corrected` does not cover, this does not either. The error of the
    root is as in :func:`multiplicity_corrected`.
    """
    first = localization_corrected(llc, penalty, virial)
    excess = check_multiplicity(multiplicity) - 1
    if excess == 0:
        return first
    x, p = checked("llc", llc), checked("penalty", penalty)
    weights, ratio, doubts = tempering_weights(x, ratio, widest=WIDE)
    v = None if virial is None else ratio * checked("virial", virial)
    second = average(ratio * x, weights) + pull(ratio * x, p, v, weights)
    gap, scale = second - first, 2.0 * excess / np.log(ratio)
    root = Root(first, gap, lambda g: 0.5 * (g + np.sqrt(g * (g + 2.0 * scale))))
    if gap.value <= 0:
        return replace(first, root=root, doubts=doubts)
    step = float(root.function(gap.value))
    slope = 0.5 + 0.5 * (gap.value + scale) / (2.0 * step - gap.value)
    return replace(first + gap.through(step, slope), root=root, doubts=doubts)


def check_multiplicity(multiplicity: object) -> int:
    """Return m as an int of at least 1."""
    return check_integer(
        "multiplicity", multiplicity, minimum=1, meaning="It is m, the order of the pole at λ."
    )
