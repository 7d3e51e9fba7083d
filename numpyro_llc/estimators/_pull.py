"""What γ takes from the mean of `llc`, and which share of it.

Notation: ``X`` is `llc` of a draw, ``P`` its `penalty`, ``V = (z - z*)·∇X`` its `virial`.
"""

import numpy as np
from numpy.typing import ArrayLike

from numpyro_llc.estimators._estimate import Estimate, average, checked, covariance, like

BATCHES = 16
"""Stretches of a chain whose means tell how noisy an estimate is, correlated draws included."""


def localization_pull(
    llc: ArrayLike, penalty: ArrayLike, virial: ArrayLike | None = None
) -> Estimate:
    r"""``-dμ/d ln γ = Cov(X, P) = ½ (E[V] - Cov(X, V))``: what γ takes from the mean μ.

    Parameters
    ----------
    llc : array [chain, draw]
        ``β [nL(z) - nL(z*)]`` of each draw.
    penalty : array [chain, draw]
        ``½ Σ_s γ_s |z_s - z*_s|²`` of each draw, over sites s.
    virial : array [chain, draw], optional
        ``β (z - z*)·∇nL(z)`` of each draw.

    Notes
    -----
    The second form follows from ``E[∇·f - f·∇U] = 0`` with ``f = z - z*`` and ``f = X (z - z*)``
    (Stein's identity), U the potential. P spreads by ``d/2``, V by as much as X: with `virial` the
    combination of both forms is taken whose error over stretches of the chains is least. For draws
    of an approximate sampler the forms differ by as much as its bias.
    """
    x, p = checked("llc", llc), like("penalty", penalty, llc)
    return pull(x, p, None if virial is None else like("virial", virial, llc))


def localization_share(
    llc: ArrayLike, penalty: ArrayLike, virial: ArrayLike | None = None
) -> Estimate:
    r"""``-d ln μ/d ln γ``: the share of the mean that γ takes, to first order.

    Near 0 where the loss alone bounds the draws, and 1 where ``μ ~ 1/γ``, that is, where γ does:
    the mean is then ``β tr H/(2γ)``, with H the Hessian of nL, and no learning coefficient.

    Parameters
    ----------
    llc, penalty, virial
        As in :func:`localization_pull`; the mean of `llc` must not be zero.

    Notes
    -----
    Gaussian posterior with ``s = c h/(c h + γ)``: ``Σ s (1 - s) / Σ s``. For a homogeneous loss
    of degree 2k it is ``k (1 - Var[X]/E[X])``.
    """
    first = average(checked("llc", llc))
    taken = localization_pull(llc, penalty, virial)
    if first.value == 0:
        return Estimate(float("nan"), np.zeros_like(first.influence))
    share = taken.value / first.value
    return Estimate(share, (taken - first * share).influence / first.value)


def pull(
    x: np.ndarray, p: np.ndarray, v: np.ndarray | None, weights: np.ndarray | None = None
) -> Estimate:
    """The same of checked arrays, under weights if they are given."""
    first = covariance(x, p, weights)
    if v is None:
        return first
    other = (average(v, weights) - covariance(x, v, weights)) * 0.5
    gap = first - other
    one, two = _of_stretches(first.influence), _of_stretches(gap.influence)
    square = float(two @ two)
    part = float(np.clip(one @ two / square, 0.0, 1.0)) if square > 0 else 0.0
    return first - gap * part


def _of_stretches(influence: np.ndarray) -> np.ndarray:
    """Means over stretches of each chain, ``[stretch]``."""
    count = max(1, min(BATCHES, influence.shape[1] // 2))
    parts = np.array_split(influence, count, axis=1)
    return np.concatenate([part.mean(axis=1) for part in parts])
