"""The error of λ̂ with what directions add along which chains hardly move during a run."""

import numpy as np

from numpyro_llc.inference_data._arviz import MonteCarlo, error_of_mean, monte_carlo


def error_of_llc(llc: np.ndarray, penalty: np.ndarray) -> float:
    r"""The error of the mean of `llc`, directions slower than the run included.

    ``error² = (1 - r²) mcse(X)² + b² mcse(P)²``, or ``mcse(X)²`` where that is larger: ``r`` is
    the correlation of `llc` X and `penalty` P, and ``b = Cov(X, P)/Var(P)``.

    Parameters
    ----------
    llc, penalty : arrays [chain, draw]
        ``β [nL(z) - nL(z*)]`` and ``½ γ |z - z*|²`` of each draw.

    Notes
    -----
    A direction with a curvature near γ is the slowest, and holds a percent of the variance of X. If
    chains stand still along it during the run, each has its own mean of X, too near the others for
    R-hat, and the autocorrelation of X looks short. The error of the mean is then up to twice
    ``mcse(X)``. P consists of such directions, so that its effective sample size counts them: of
    the variance of X, the share r² that goes with P has that size and no larger one.
    """
    error, slow = error_of_mean(llc), error_of_mean(penalty)
    if not (error > 0 and slow > 0):  # of draws that stand still, or are too few
        return error
    (total, both), (_, spread) = np.cov(llc.ravel(), penalty.ravel())
    slope = both / spread
    square = (1.0 - slope * both / total) * error**2 + (slope * slow) ** 2
    return max(error, float(np.sqrt(square)))


def monte_carlo_of_llc(llc: np.ndarray, penalty: np.ndarray) -> MonteCarlo:
    """ArviZ's numbers of `llc`, with the error of :func:`error_of_llc`."""
    return monte_carlo(llc)._replace(error=error_of_llc(llc, penalty))
