"""Regular models: linear, logistic, Poisson and softmax regression, location and scale."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpy.typing import ArrayLike

from numpyro_llc.known import exact
from numpyro_llc.known.zoo import _designed_data
from numpyro_llc.known.zoo._gaussian import regression
from numpyro_llc.known.zoo._problem import Problem, independent
from numpyro_llc.known.zoo._registry import register

_SCHWARZ = "Schwarz (1978), Annals of Statistics 6, 461"
_MORSE_BOTT = "Morse-Bott: half the rank of the Hessian"


def linear(w: jax.Array, x: jax.Array) -> jax.Array:
    """``x · w``."""
    return (x @ w)[:, None]


@register
def linear_regression(num_data: int) -> Problem:
    """Linear regression on 500 noisy data with 5 features, at least squares."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 5)) * [2.0, 1.0, 0.5, 0.2, 0.05]
    y = x @ np.ones(5) + rng.normal(size=500)
    return Problem(
        model=regression,
        model_args=(linear, 5, x, y[:, None], _designed_data.weights_of(np.ones(500), num_data)),
        center={"w": np.linalg.lstsq(x, y)[0]},
        num_data=num_data,
        learning_coefficient=exact.regular(5),
        finite_n=partial(exact.gaussian_linear, x.T @ x / len(x)),
        source=_SCHWARZ,
    )


def logistic(x: jax.Array, y: jax.Array, weights: jax.Array) -> None:
    """Rows of outcomes 0 and 1 with log odds ``x · w``."""
    w = _designed_data.coefficients("w", x.shape[1])
    with _designed_data.weighted_rows(weights):
        numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


@register
def logistic_regression(num_data: int) -> Problem:
    """Logistic regression with 2 features: outcomes of 4 inputs, as likely as at w = (1, -½)."""
    inputs, w = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0]]), np.array([1.0, -0.5])
    odds = inputs @ w
    chance = 1.0 / (1.0 + np.exp(-odds))

    def loss(a: np.ndarray, b: np.ndarray) -> ArrayLike:
        terms = zip(inputs, chance, strict=True)
        return sum(_entropy(x[0] * a + x[1] * b, p) for x, p in terms) / len(inputs)

    return Problem(
        model=logistic,
        model_args=(
            np.repeat(inputs, 2, axis=0),
            np.tile([1.0, 0.0], len(inputs)),
            _designed_data.weights_of(np.stack([chance, 1.0 - chance], axis=1).ravel(), num_data),
        ),
        center={"w": w},
        num_data=num_data,
        learning_coefficient=exact.regular(2),
        finite_n=partial(exact.quadrature, loss, w),
        source=_SCHWARZ,
    )


def _entropy(logit: np.ndarray, chance: float) -> np.ndarray:
    """Cross entropy in nats of an outcome of this chance."""
    return np.logaddexp(0.0, logit) - chance * logit


def poisson(x: jax.Array, y: jax.Array, weights: jax.Array) -> None:
    """Rows of counts with log rate ``x · w``."""
    w = _designed_data.coefficients("w", x.shape[1])
    with _designed_data.weighted_rows(weights):
        numpyro.sample("y", dist.Poisson(jnp.exp(x @ w)), obs=y)


@register
def poisson_regression(num_data: int) -> Problem:
    """Poisson regression with intercept and slope: counts 1, 2, 4 at x = -1, 0, 1."""
    x, counts = np.array([[1.0, -1.0], [1.0, 0.0], [1.0, 1.0]]), np.array([1, 2, 4])

    def loss(a: np.ndarray, b: np.ndarray) -> ArrayLike:
        logs = [row[0] * a + row[1] * b for row in x]
        return sum(np.exp(z) - k * z for z, k in zip(logs, counts, strict=True)) / len(x)

    w = np.log([2.0, 2.0])
    return Problem(
        model=poisson,
        model_args=(x, counts, _designed_data.weights_of(np.ones(3), num_data)),
        center={"w": w},
        num_data=num_data,
        learning_coefficient=exact.regular(2),
        finite_n=partial(exact.quadrature, loss, w),
        source=_SCHWARZ,
    )


def softmax(classes: int, x: jax.Array, y: jax.Array, weights: jax.Array) -> None:
    """Rows of classes with logits ``W x``, a weight for each class: one column too many."""
    w = _designed_data.coefficients("w", x.shape[1], classes)
    with _designed_data.weighted_rows(weights):
        numpyro.sample("y", dist.Categorical(logits=x @ w), obs=y)


@register
def softmax_regression(num_data: int) -> Problem:
    """Softmax regression with 3 classes and 2 features, over-parametrized: 2 flat directions."""
    w = np.array([[1.0, 0.0, -0.5], [0.0, -1.0, 0.5]])
    inputs = np.concatenate([np.eye(2), -np.eye(2)])
    chances = np.exp(inputs @ w)
    chances /= chances.sum(axis=1, keepdims=True)
    by_feature = [partial(_softmax_loss, w[i], chances[[i, i + 2]]) for i in range(2)]
    return Problem(
        model=softmax,
        model_args=(
            3,
            np.repeat(inputs, 3, axis=0),
            np.tile(np.arange(3), len(inputs)),
            _designed_data.weights_of(chances.ravel(), num_data),
        ),
        center={"w": w},
        num_data=num_data,
        learning_coefficient=exact.regular(4),
        finite_n=independent(*(partial(exact.quadrature, loss, (0, 0)) for loss in by_feature)),
        source=_MORSE_BOTT,
    )


def _softmax_loss(w: np.ndarray, chances: np.ndarray, u: np.ndarray, v: np.ndarray) -> ArrayLike:
    """Loss of one feature, at x = ±1, in orthonormal coordinates across the flat direction."""
    plane = np.array([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]])
    plane /= np.linalg.norm(plane, axis=1, keepdims=True)
    logits = [w[k] + plane[0, k] * u + plane[1, k] * v for k in range(3)]
    total = 0.0
    for sign, chance in zip((1.0, -1.0), chances, strict=True):
        signed = [sign * logit for logit in logits]
        total += np.logaddexp(np.logaddexp(signed[0], signed[1]), signed[2])
        total -= sum(p * z for p, z in zip(chance, signed, strict=True))
    return total / 4.0


def location_scale(x: jax.Array, weights: jax.Array) -> None:
    """A normal distribution; its scale is positive, so γ acts on its logarithm."""
    location = numpyro.sample("location", dist.Normal(0.0, 3.0))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with _designed_data.weighted_rows(weights):
        numpyro.sample("x", dist.Normal(location, scale), obs=x)


@register
def normal_location_scale(num_data: int) -> Problem:
    """A normal distribution of unknown location and scale, on data of mean 0 and variance 1."""

    def loss(location: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        return log_scale + 0.5 * (1.0 + location**2) * np.exp(-2.0 * log_scale)

    return Problem(
        model=location_scale,
        model_args=(np.array([-1.0, 1.0]), _designed_data.weights_of(np.ones(2), num_data)),
        center={"location": 0.0, "scale": 1.0},
        num_data=num_data,
        learning_coefficient=exact.regular(2),
        finite_n=partial(exact.quadrature, loss, (0.0, 0.0)),
        source=_SCHWARZ,
    )


def bernoulli(x: jax.Array, y: jax.Array, weights: jax.Array) -> None:
    """Rows of outcomes 0 and 1 with log odds ``w1 w2 x``."""
    w = _designed_data.coefficients("w", 2)
    with _designed_data.weighted_rows(weights):
        numpyro.sample("y", dist.Bernoulli(logits=w[0] * w[1] * x), obs=y)


@register
def bernoulli_product(num_data: int) -> Problem:
    """Outcomes with log odds w1 w2 x, x = ±1, truth even odds: log cosh(w1 w2 / 2)."""
    return Problem(
        model=bernoulli,
        model_args=(
            np.array([-1.0, -1.0, 1.0, 1.0]),
            np.array([0.0, 1.0, 0.0, 1.0]),
            _designed_data.weights_of(np.ones(4), num_data),
        ),
        center={"w": np.zeros(2)},
        num_data=num_data,
        learning_coefficient=exact.normal_crossing((1, 1)),
        finite_n=partial(exact.quadrature, lambda a, b: _entropy(a * b, 0.5), (0.0, 0.0)),
        source="the loss is (w1 w2)² times a positive function",
    )
