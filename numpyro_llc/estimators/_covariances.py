"""Covariances of many quantities over the same draws, with errors from batches of draws."""

import numpy as np
from numpy.typing import ArrayLike

NUM_BATCHES = 32
"""Batches of draws in all; the error itself is then known to ``1/sqrt(2 * 31)``, 13 %."""
LEAST_BATCHES, LEAST_DRAWS = 4, 8
"""Batches that a chain is cut into, and draws that it must have: two for each of them."""


def covariances(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    r"""``Cov(x_p, y_q)`` over all draws, and its Monte Carlo error by batch means.

    Parameters
    ----------
    x, y : arrays [chain, draw, p] and [chain, draw, q]
        At least 8 draws a chain.

    Returns
    -------
    tuple of two arrays [p, q]
        The error is the spread of the means of ``(x - x̄)(y - ȳ)`` over stretches of a chain, valid
        if these are long against the time in which draws forget. Biased by 1/ESS of itself.
    """
    return _products(_centered(x), _centered(y))


def means_less_covariances(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """``E[y_q] - Cov(x_p, y_q)`` and its Monte Carlo error, as :func:`covariances`.

    The error keeps the correlation of the two terms.
    """
    centered = _centered(y)
    less, error = _products(1.0 - _centered(x), centered)
    return np.asarray(y).mean(axis=(0, 1), dtype=np.float64) + less, error


def _centered(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.ndim != 3 or array.shape[1] < LEAST_DRAWS:
        raise ValueError(
            f"Batches need draws of shape [chain, draw, k], at least {LEAST_DRAWS} a chain; got "
            f"{array.shape}."
        )
    return array - array.mean(axis=(0, 1))


def _products(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of ``first_p second_q`` over draws, and the error of it."""
    chains, draws = first.shape[:2]
    per_chain = min(max(LEAST_BATCHES, -(-NUM_BATCHES // chains)), draws // 2)
    edges = np.linspace(0, draws, per_chain + 1).astype(int)
    stretches = [
        (first[chain, start:stop], second[chain, start:stop])
        for chain in range(chains)
        for start, stop in zip(edges[:-1], edges[1:], strict=True)
    ]
    total = sum(one.T @ two for one, two in stretches) / (chains * draws)
    squares = sum((one.T @ two / len(one) - total) ** 2 for one, two in stretches)
    return total, np.sqrt(squares / (len(stretches) * (len(stretches) - 1)))
