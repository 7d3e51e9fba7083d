"""The error of λ̂ with what directions add along which chains hardly move during a run."""

import numpy as np

from numpyro_llc.inference_data._arviz import MonteCarlo, monte_carlo


def monte_carlo_of_llc(llc: np.ndarray, penalty: np.ndarray) -> MonteCarlo:
    r"""ArviZ's numbers of `llc`, with an error that counts directions slower than the run.

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
    found, slow = monte_carlo(llc), monte_carlo(penalty)
    if not (found.error > 0 and slow.error > 0):  # of draws that stand still, or are too few
        return found
    (total, both), (_, spread) = np.cov(llc.ravel(), penalty.ravel())
    slope = both / spread
    square = (1.0 - slope * both / total) * found.error**2 + (slope * slow.error) ** 2
    return found._replace(error=max(found.error, float(np.sqrt(square))))
