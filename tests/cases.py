"""Known answers: models whose λ̂ at finite n and γ is known exactly.

Each loss is a function of the parameters alone (noise-free, designed data), so that λ̂ is a ratio
of integrals; `values` are those integrals, by closed form or quadrature to all printed digits.
``test_known_answers`` recomputes those of low dimension by quadrature.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

SETTINGS = ((1_000, 1.0), (1_000, 10.0), (10_000, 1.0), (10_000, 10.0))


class Case(NamedTuple):
    """`outputs(w, x)` are means of unit-variance Gaussians, a row for each of `x`; data are 0."""

    outputs: Callable
    x: np.ndarray
    center: np.ndarray
    values: dict[tuple[int, float], float]
    loss: Callable | None = None  # L(w) per datum, for quadrature where the dimension is 1 or 2


def model(outputs, x, y, weight):
    """Gaussian rows, each counting `weight` times, so that n enters through the weight alone."""
    dimension = outputs.dimension
    w = numpyro.sample("w", dist.Normal(0.0, 3.0).expand([dimension]).to_event(1))
    with numpyro.plate("rows", x.shape[0]), numpyro.handlers.scale(scale=weight):
        numpyro.sample("y", dist.Normal(outputs(w, x), 1.0).to_event(1), obs=y)


def arguments(case: Case, n: int) -> tuple:
    """Model arguments whose weighted rows make up n data points."""
    shape = np.shape(case.outputs(case.center, case.x))
    return case.outputs, case.x, np.zeros(shape), np.asarray(n / len(case.x))


def _outputs(dimension: int):
    def mark(function):
        function.dimension = dimension
        return function

    return mark


def _polynomial(dimension: int, function: Callable, loss: Callable | None, center, *values) -> Case:
    """A loss without inputs: one row."""

    @_outputs(dimension)
    def outputs(w, x):
        return jnp.broadcast_to(jnp.stack(function(w)), (x.shape[0], len(function(w))))

    table = values[0] if isinstance(values[0], dict) else dict(zip(SETTINGS, values, strict=True))
    return Case(outputs, np.zeros((4, 1)), np.asarray(center, float), table, loss)


def _linear_network(inputs: int, hidden: int, outs: int, *values) -> Case:
    @_outputs(hidden * (inputs + outs))
    def outputs(w, x):
        first = w[: inputs * hidden].reshape(hidden, inputs)
        second = w[inputs * hidden :].reshape(outs, hidden)
        return x @ first.T @ second.T

    rows = np.sqrt(inputs) * np.eye(inputs)  # second moment exactly the identity
    return Case(
        outputs, rows, np.zeros(outputs.dimension), dict(zip(SETTINGS, values, strict=True))
    )


@_outputs(2)
def _tanh(w, x):
    return w[0] * jnp.tanh(w[1] * x)


@_outputs(2)
def _relu(w, x):
    return w[0] * jnp.maximum(w[1] * x, 0.0)


_GRID = np.linspace(-2.0, 2.0, 41)
_R2 = np.sqrt(2.0)
_SQUARE_FOURTH = (
    lambda w: [_R2 * w[0] * w[1] ** 2],
    lambda a, b: a**2 * b**4,
)

CASES = {
    "gaussian": _polynomial(
        3,
        lambda w: [_R2 * w[0], np.sqrt(0.5) * w[1], 0.1 * w[2]],
        None,
        np.zeros(3),
        1.28718767,
        0.98584367,
        1.45668261,
        1.24894071,
    ),
    "fourth_power": _polynomial(
        1,
        lambda w: [_R2 * w[0] ** 2],
        lambda a: a**4,
        [0.0],
        0.24309304,
        0.19021959,
        0.24745119,
        0.22585391,
    ),
    "product_of_two": _polynomial(
        2,
        lambda w: [w[0] * w[1]],
        lambda a, b: 0.5 * (a * b) ** 2,
        [0.0, 0.0],
        0.34734423,
        0.16337858,
        0.38247572,
        0.26610465,
    ),
    "product_of_three": _polynomial(
        3,
        lambda w: [w[0] * w[1] * w[2]],
        None,
        np.zeros(3),
        0.25168935,
        0.03556907,
        0.29483000,
        0.09411122,
    ),
    "linear_network_2_2_2": _linear_network(
        2, 2, 2, 1.37556712, 0.82696422, 1.44363106, 1.16534833
    ),
    "tanh": Case(
        _tanh,
        _GRID[:, None],
        np.zeros(2),
        dict(zip(SETTINGS, (0.37161650, 0.17992919, 0.39955006, 0.28299889), strict=True)),
        lambda a, b: 0.5 * a**2 * np.mean(np.tanh(np.multiply.outer(b, _GRID)) ** 2, axis=-1),
    ),
    "linear_network_2_2_3": _linear_network(
        2, 2, 3, 1.74554386, 1.10280565, 1.82695957, 1.50540422
    ),
    "linear_network_5_2_2": _linear_network(
        5, 2, 2, 1.97323873, 1.45776699, 1.99469217, 1.83085613
    ),
    "linear_network_3_1_3": _linear_network(
        3, 1, 3, 1.28370679, 0.81519937, 1.34682425, 1.10657170
    ),
    "square_times_fourth": _polynomial(
        2,
        *_SQUARE_FOURTH,
        [0.0, 0.0],
        0.20952939,
        0.07295654,
        0.22535812,
        0.12591496,
    ),
    "square_plus_fourth": _polynomial(
        2,
        lambda w: [_R2 * w[0], _R2 * w[1] ** 2],
        lambda a, b: a**2 + b**4,
        [0.0, 0.0],
        0.74137204,
        0.67352675,
        0.74722104,
        0.72356188,
    ),
    "fourth_plus_sixth": _polynomial(
        2,
        lambda w: [_R2 * w[0] ** 2, _R2 * w[1] ** 3],
        lambda a, b: a**4 + b**6,
        [0.0, 0.0],
        0.39995353,
        0.28149894,
        0.40903359,
        0.34819253,
    ),
    "relu": Case(
        _relu,
        np.array([[1.0], [-1.0]]),
        np.zeros(2),
        dict(zip(SETTINGS, (0.33057589, 0.12412955, 0.37224059, 0.23440080), strict=True)),
        lambda a, b: 0.25 * (a * b) ** 2,
    ),
    "circle": _polynomial(
        2,
        lambda w: [w[0] ** 2 + w[1] ** 2 - 1.0],
        lambda a, b: 0.5 * (a**2 + b**2 - 1.0) ** 2,
        [1.0, 0.0],
        0.50018497,
        0.49247832,
        0.50002469,
        0.49899896,
    ),
    "square_times_fourth_at_0_1": _polynomial(
        2,
        *_SQUARE_FOURTH,
        [0.0, 1.0],
        {(1_000, 20.0): 0.42675661, (10_000, 20.0): 0.48140279},
    ),
    "square_times_fourth_at_1_0": _polynomial(
        2,
        *_SQUARE_FOURTH,
        [1.0, 0.0],
        {(1_000, 20.0): 0.14315604, (10_000, 20.0): 0.20136112},
    ),
    "square_times_fourth_at_0_0": _polynomial(
        2,
        *_SQUARE_FOURTH,
        [0.0, 0.0],
        {(1_000, 20.0): 0.02689532, (10_000, 20.0): 0.07127211},
    ),
}
