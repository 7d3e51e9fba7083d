"""The error of λ̂ from the data: what another data set of the same size would give."""

import numpy as np
from numpy.typing import ArrayLike

from numpyro_llc.estimators._estimate import checked


def data_error(llc: ArrayLike, contrasts: ArrayLike) -> float:
    r"""Standard deviation of λ̂ over data sets of the same size, at the same ``w*``.

    With ``y_i = β [ℓ_i(z) - ℓ_i(z*)]`` of a datum, weights of the data move λ̂ by
    ``F_i = E[y_i] - Cov(X, y_i)`` to first order and by about ``-K_ij``, ``K = Cov(y, y')``, to
    second. Where ``w*`` is the minimum of the population, as in regular models, the first order
    vanishes there but not at the sample: ``Σ F_i²`` has the mean ``F² + tr K²``, the variance of λ̂
    is ``F² + ½ tr K²``. Taken is ``max(Σ F_i² - ½ tr K², ½ tr K²)``.

    Parameters
    ----------
    llc : array [chain, draw]
        X of each draw.
    contrasts : array [chain, draw, k]
        ``Σ_i η_i y_i`` with k random signings η of independent data: mean squares over η are sums
        of squares over the data.

    Returns
    -------
    float
        In units of λ̂; NaN with fewer than two signings or four draws.

    Notes
    -----
    A functional delta method; the second order is exact for regular models, and for singular ones
    whose loss is homogeneous. Regular and well specified it is ``β sqrt(d/2)``. It does not cover
    another centre: at the minimum of each data set λ̂ varies less. Products of independent halves
    of the draws keep Monte Carlo noise out of the squares.
    """
    x, y = checked("llc", llc), np.asarray(contrasts, np.float64)
    if y.shape[2] < 2 or x.size < 4:
        return float("nan")
    if len(x) == 1:
        half = x.shape[1] // 2
        x, y = x[0, : 2 * half].reshape(2, half), y[0, : 2 * half].reshape(2, half, -1)
    y_off = y - y.mean(axis=1, keepdims=True)
    x_off = x - x.mean(axis=1, keepdims=True)
    draws = x.shape[1]
    first = y.mean(axis=1) - np.einsum("ct,ctk->ck", x_off, y_off) / draws
    second = np.einsum("ctk,ctl->ckl", y_off, y_off) / draws
    pairs = ~np.eye(y.shape[2], dtype=bool)
    half_trace = 0.5 * float(_square(second)[pairs].mean())
    return float(np.sqrt(max(_square(first).mean() - half_trace, half_trace, 0.0)))


def parts_error(llc: ArrayLike, parts: ArrayLike) -> float:
    r"""Standard error of λ̂ for a loss that is the mean of `parts` that are independent alike.

    A part of the loss in the place of all would move λ̂ by ``F_k = E[Δ_k] - Cov(X, Δ_k)`` to first
    order, Δ_k the part less the mean of all; the error is the standard deviation of F over the root
    of the number of parts. Monte Carlo noise of F is in it.

    Parameters
    ----------
    llc : array [chain, draw]
        X of each draw.
    parts : array [chain, draw, k]
        ``β nL`` of each part.

    Returns
    -------
    float
        In units of λ̂.
    """
    x = checked("llc", llc)
    apart = np.asarray(parts, np.float64)
    apart = apart - apart.mean(axis=2, keepdims=True)
    moved = apart.mean(axis=(0, 1)) - np.einsum("ct,ctk->k", x - x.mean(), apart) / x.size
    return float(np.std(moved, ddof=1) / np.sqrt(len(moved)))


def _square(parts: np.ndarray) -> np.ndarray:
    """The square of what independent `parts` (leading axis) estimate, without its noise."""
    count = len(parts)
    return (parts.sum(axis=0) ** 2 - (parts**2).sum(axis=0)) / (count * (count - 1))
