"""The evidence of the mixtures of ``docs/tutorials/mixtures.md``, by tempered Monte Carlo.

Run ``python tests/benchmarks/mixture_evidence.py`` (minutes; options: ``--help``). Particles
move from the prior to the posterior (sequential Monte Carlo, Del Moral, Doucet & Jasra 2006), so
that they reach every labelling of the components, and all that connects these. Nothing of the
package is used.
"""

import argparse

import numpy as np
from scipy.special import logsumexp

Y = np.random.default_rng(3).normal(np.repeat([-2.0, 2.0], 100))
LEAST_SHARE = 0.7
"""Effective share of the particles after a step in temperature."""
MOVES = 12


def log_likelihood(means, logs):
    """Of each particle; `logs` are logarithms of Gamma(1), whose shares are Dirichlet(1)."""
    shares = logs - logsumexp(logs, axis=1, keepdims=True)
    parts = shares[:, :, None] - 0.5 * (Y - means[:, :, None]) ** 2
    return logsumexp(parts, axis=1).sum(axis=1) - 0.5 * len(Y) * np.log(2 * np.pi)


def log_prior(means, logs):
    return -0.5 * np.sum((means / 5) ** 2, axis=1) + np.sum(logs - np.exp(logs), axis=1)


def next_temperature(beta, likelihood):
    """The largest at which the weights keep their effective share."""

    def share(to):
        weight = np.exp((to - beta) * (likelihood - likelihood.max()))
        return weight.sum() ** 2 / np.sum(weight**2) / len(weight)

    low, high = beta, 1.0
    if share(1.0) >= LEAST_SHARE:
        return 1.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if share(middle) > LEAST_SHARE else (low, middle)
    return low


def moved(rng, state, beta, scale):
    """One Metropolis step of all particles, and the share that was accepted."""
    means, logs, likelihood = state
    size = scale * rng.choice([0.3, 1.0, 3.0], size=(len(means), 1))
    new = means + size * rng.normal(size=means.shape), logs + size * rng.normal(size=logs.shape)
    proposed = log_likelihood(*new)
    ratio = beta * (proposed - likelihood) + log_prior(*new) - log_prior(means, logs)
    taken = np.log(rng.random(len(means))) < ratio
    kept = [np.where(taken[:, None], a, b) for a, b in zip(new, (means, logs), strict=True)]
    return (*kept, np.where(taken, proposed, likelihood)), taken.mean()


def log_evidence(components, seed, particles):
    rng = np.random.default_rng(seed)
    means = 5.0 * rng.normal(size=(particles, components))
    logs = np.log(rng.exponential(size=(particles, components)))
    state, beta, found, scale = (means, logs, log_likelihood(means, logs)), 0.0, 0.0, 1.0
    while beta < 1:
        to = next_temperature(beta, state[2])
        weight = (to - beta) * state[2]
        found += logsumexp(weight) - np.log(particles)
        chosen = rng.choice(particles, particles, p=np.exp(weight - logsumexp(weight)))
        state, beta = tuple(values[chosen] for values in state), to
        for _ in range(MOVES):
            state, accepted = moved(rng, state, beta, scale)
            scale *= 1.1 if accepted > 0.25 else 0.9
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--particles", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=6)
    options = parser.parse_args()
    for components in (2, 3, 4):
        runs = [-log_evidence(components, seed, options.particles) for seed in range(options.runs)]
        error = np.std(runs, ddof=1) / len(runs) ** 0.5
        print(
            f"{components} components: -log evidence {np.mean(runs):.2f} ± {error:.2f}", flush=True
        )


if __name__ == "__main__":
    main()
