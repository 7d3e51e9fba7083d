"""The error of λ̂ where a direction is slower than the run, on Gaussian draws of known λ̂."""

import jax
import numpy as np
import pytest
import regression
from metropolis import METROPOLIS

import numpyro_llc as nllc
from numpyro_llc.inference_data import monte_carlo, monte_carlo_of_llc

CURVATURES = np.r_[np.full(6, 1.0), np.geomspace(200.0, 1000.0, 50)]
"""β H along each direction; γ is 1. The first six hold 3 % of the variance of `llc`."""
REPEATS, CHAINS, DRAWS = 100, 4, 250


def runs(rate):
    """`llc` and `penalty` ``[run, chain, draw]`` of exact Langevin chains, which start stationary.

    `rate` is the time between draws over that of the stiffest direction.
    """
    rng, precision = np.random.default_rng(0), CURVATURES + 1.0
    keep = np.exp(-rate * precision / precision.max())
    shape = (REPEATS, CHAINS, len(precision))
    z = rng.normal(size=shape) / np.sqrt(precision)
    llc, penalty = (np.empty((REPEATS, CHAINS, DRAWS)) for _ in range(2))
    for draw in range(DRAWS):
        noise = rng.normal(size=shape) * np.sqrt((1.0 - keep**2) / precision)
        z = keep * z + noise
        llc[..., draw], penalty[..., draw] = 0.5 * z**2 @ CURVATURES, 0.5 * np.sum(z**2, axis=-1)
    return llc, penalty


def spread(errors, llc):
    """Root mean square of (λ̂ - exact)/error: 1 where errors cover."""
    exact = 0.5 * np.sum(CURVATURES / (CURVATURES + 1.0))
    return float(np.sqrt(np.mean(((llc.mean(axis=(1, 2)) - exact) / errors) ** 2)))


def both(rate):
    llc, penalty = runs(rate)
    plain = np.array([monte_carlo(one).error for one in llc])
    slow = np.array([monte_carlo_of_llc(*one).error for one in zip(llc, penalty, strict=True)])
    assert np.all(slow >= plain)
    return spread(plain, llc), spread(slow, llc), slow / plain


def test_the_error_counts_directions_that_are_slower_than_the_run():
    """The spread is 1.7 without them; with them somewhat above 1, as four chains tell errors."""
    plain, slow, _ = both(rate=1.0)  # the slow directions need 500 draws, the others 1 to 5
    assert plain > 1.5
    assert 0.72 < slow < 1.4


def test_the_error_is_that_of_arviz_where_no_direction_is_slow():
    plain, slow, ratio = both(rate=2000.0)
    assert 0.72 < slow <= plain < 1.28
    assert np.median(ratio) < 1.02


def test_draws_that_stand_still_or_are_too_few_have_the_error_of_arviz():
    llc, still = np.random.default_rng(0).normal(size=(4, 50)), np.ones((4, 50))
    assert monte_carlo_of_llc(llc, still) == monte_carlo(llc)
    assert monte_carlo_of_llc(still, llc) == monte_carlo(still)
    assert np.isnan(monte_carlo_of_llc(llc[:, :10], llc[:, :10]).error)
    assert np.isnan(monte_carlo_of_llc(llc, np.where(llc > 0, np.inf, llc)).error) is np.False_


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_until_and_the_table_of_a_trajectory_take_the_error_with_slow_directions():
    found = nllc.llc_trajectory(
        jax.random.key(0),
        regression.model,
        [{"w": regression.OLS}] * 2,
        (regression.X, regression.Y),
        kernel=METROPOLIS,
        num_warmup=100,
        until={"relative_error": 0.1, "r_hat": 2.0},
        progress_bar=False,
    )
    assert (found["error"] <= 0.1 * found["llc"]).all()
    assert (found["error"] > found["mcse_mean"]).any()
