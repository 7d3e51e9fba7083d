"""Models with hidden variables, summed out, at a truth that needs none of them.

The rows are all outcomes, or the nodes of a quadrature rule, weighted as the truth has them: the
loss is that of the population.
"""

from collections.abc import Iterable
from functools import partial
from itertools import product
from math import lgamma

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from numpyro_llc.known import exact
from numpyro_llc.known.zoo import _designed_data
from numpyro_llc.known.zoo._problem import Problem
from numpyro_llc.known.zoo._registry import register

_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(30)  # of N(0, 1), exact to degree 59
_COUNTS = np.arange(31)
_RATE = 2.0
_COUNT_WEIGHTS = np.exp([k * np.log(_RATE) - _RATE - lgamma(k + 1) for k in _COUNTS])
_EXPANSION = "lowest terms of the Kullback-Leibler divergence; checked numerically"


def _even_mixture(
    log_densities: Iterable[tuple[np.ndarray, np.ndarray]], weights: np.ndarray
) -> np.ndarray:
    """Cross entropy in nats of two components; `log_densities` yields both for each row."""
    pairs = zip(weights, log_densities, strict=True)
    return -sum(p * np.logaddexp(first, second) for p, (first, second) in pairs)


def normals(x: jax.Array, weights: jax.Array) -> None:
    """An even mixture of two normal distributions of variance 1."""
    means = _designed_data.coefficients("means", 2)
    component = dist.Categorical(logits=jnp.zeros(2))
    with _designed_data.weighted_rows(weights):
        numpyro.sample("x", dist.MixtureSameFamily(component, dist.Normal(means, 1.0)), obs=x)


@register
def normal_mixture(num_data: int) -> Problem:
    """Even mixture of N(w1, 1) and N(w2, 1), truth N(0, 1)."""

    def loss(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        pairs = ((x * a - a**2 / 2, x * b - b**2 / 2) for x in _NODES)
        return _even_mixture(pairs, _NODE_WEIGHTS / _NODE_WEIGHTS.sum())

    return Problem(
        model=normals,
        model_args=(_NODES, _designed_data.weights_of(_NODE_WEIGHTS, num_data)),
        center={"means": np.zeros(2)},
        num_data=num_data,
        learning_coefficient=exact.normal_mixture(2, weights="fixed"),
        finite_n=partial(exact.quadrature, loss, (0.0, 0.0)),
        source=_EXPANSION,
    )


def weighted_normals(x: jax.Array, weights: jax.Array) -> None:
    """A mixture of two normal distributions of variance 1, of free weight."""
    logit = numpyro.sample("logit", dist.Normal(0.0, 3.0))
    means = _designed_data.coefficients("means", 2)
    component = dist.Categorical(logits=jnp.stack([jnp.zeros_like(logit), logit]))
    with _designed_data.weighted_rows(weights):
        numpyro.sample("x", dist.MixtureSameFamily(component, dist.Normal(means, 1.0)), obs=x)


@register
def normal_mixture_of_free_weight(num_data: int) -> Problem:
    """Mixture of N(w1, 1) and N(w2, 1) with free weight, at equal weights, truth N(0, 1)."""
    return Problem(
        model=weighted_normals,
        model_args=(_NODES, _designed_data.weights_of(_NODE_WEIGHTS, num_data)),
        center={"logit": 0.0, "means": np.zeros(2)},
        num_data=num_data,
        learning_coefficient=exact.normal_mixture(2),
        source=_EXPANSION,
    )


def poissons(counts: jax.Array, weights: jax.Array) -> None:
    """An even mixture of two Poisson distributions, with the logarithms of their rates."""
    rates = jnp.exp(_designed_data.coefficients("log_rates", 2))
    component = dist.Categorical(logits=jnp.zeros(2))
    with _designed_data.weighted_rows(weights):
        numpyro.sample("counts", dist.MixtureSameFamily(component, dist.Poisson(rates)), obs=counts)


@register
def poisson_mixture(num_data: int) -> Problem:
    """Even mixture of two Poisson distributions, truth one of rate 2."""

    def loss(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        pairs = ((k * a - np.exp(a), k * b - np.exp(b)) for k in _COUNTS)
        return _even_mixture(pairs, _COUNT_WEIGHTS / _COUNT_WEIGHTS.sum())

    return Problem(
        model=poissons,
        model_args=(_COUNTS, _designed_data.weights_of(_COUNT_WEIGHTS, num_data)),
        center={"log_rates": np.full(2, np.log(_RATE))},
        num_data=num_data,
        learning_coefficient=exact.poisson_mixture(2),
        finite_n=partial(exact.quadrature, loss, np.full(2, np.log(_RATE))),
        source=_EXPANSION,
    )


def latent_classes(answers: jax.Array, weights: jax.Array) -> None:
    """Yes-or-no answers, independent given one of two classes."""
    logit = numpyro.sample("logit", dist.Normal(0.0, 3.0))
    odds = _designed_data.coefficients("odds", 2, answers.shape[1])
    component = dist.Categorical(logits=jnp.stack([jnp.zeros_like(logit), logit]))
    given_class = dist.Bernoulli(logits=odds).to_event(1)
    with _designed_data.weighted_rows(weights):
        mixed = dist.MixtureSameFamily(component, given_class)
        numpyro.sample("answers", mixed, obs=answers)


@register
def latent_class(num_data: int) -> Problem:
    """Two classes with three yes-or-no answers, truth independent answers, at equal classes."""
    # Log odds other than 0, where automatic derivatives of Bernoulli(logits=...) are wrong.
    answers, odds = np.array([*product((0.0, 1.0), repeat=3)]), np.array([0.5, -0.5, 1.0])
    chances = np.prod(1.0 / (1.0 + np.exp(np.where(answers, -odds, odds))), axis=1)
    return Problem(
        model=latent_classes,
        model_args=(answers, _designed_data.weights_of(chances, num_data)),
        center={"logit": 0.0, "odds": np.tile(odds, (2, 1))},
        num_data=num_data,
        learning_coefficient=exact.latent_class(3, "independent"),
        source="Newton polyhedron of the Kullback-Leibler divergence in suitable coordinates",
    )


def one_factor(x: jax.Array, weights: jax.Array) -> None:
    """Variables with one common factor, and variances of their own."""
    loadings = _designed_data.coefficients("loadings", x.shape[1])
    log_variances = _designed_data.coefficients("log_variances", x.shape[1])
    covariance = jnp.outer(loadings, loadings) + jnp.diag(jnp.exp(log_variances))
    with _designed_data.weighted_rows(weights):
        numpyro.sample("x", dist.MultivariateNormal(0.0, covariance), obs=x)


@register
def factor_analysis(num_data: int) -> Problem:
    """One factor of three variables, truth no factor: covariance the identity, loadings 0."""
    return Problem(
        model=one_factor,
        model_args=(np.sqrt(3.0) * np.eye(3), _designed_data.weights_of(np.ones(3), num_data)),
        center={"loadings": np.zeros(3), "log_variances": np.zeros(3)},
        num_data=num_data,
        learning_coefficient=exact.factor_analysis(3),
        source="Newton polyhedron of loadings' products and variances",
    )
