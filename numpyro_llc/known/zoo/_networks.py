"""Small nonlinear networks on a designed grid of inputs, with no noise."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc.known import exact
from numpyro_llc.known.zoo._gaussian import add
from numpyro_llc.known.zoo._problem import independent

_GRID = np.linspace(-2.0, 2.0, 41)[:, None]
_SIGNS = np.array([[-1.0], [1.0]])
_CROSS = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
_WATANABE = "Watanabe (2009), Algebraic Geometry and Statistical Learning Theory"
_MORSE_BOTT = "Morse-Bott: half the rank of the Hessian"


def square_feature(w: jax.Array, x: jax.Array) -> jax.Array:
    """``w² x``."""
    return w[0] ** 2 * x


def tanh_units(w: jax.Array, x: jax.Array) -> jax.Array:
    """``Σ a_i tanh(b_i x)``, w = (a, b)."""
    a, b = jnp.split(jnp.asarray(w), 2)
    return (jnp.tanh(x * b) @ a)[:, None]


def relu_unit(w: jax.Array, x: jax.Array) -> jax.Array:
    """``a relu(b · x)``, w = (a, b)."""
    return w[0] * jax.nn.relu(x @ w[1:])[:, None]


def relu_with_bias(w: jax.Array, x: jax.Array) -> jax.Array:
    """``relu(b x + e)``, w = (b, e)."""
    return jax.nn.relu(w[0] * x + w[1])


def _tanh_loss(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``½ a² mean_x tanh(b x)²``, of positive x alone: tanh is odd."""
    half = [np.tanh(b * x) ** 2 for x in _GRID[_GRID > 0]]
    return a**2 * sum(half) / len(_GRID)


def _relu_loss_at_1_1(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return 0.25 * ((a * np.maximum(b, 0.0) - 1.0) ** 2 + (a * np.minimum(b, 0.0)) ** 2)


def _half_relu_loss(u: np.ndarray) -> np.ndarray:
    """``½ mean relu(±b + e)²`` is the sum of this at ``(e ± b) / √2``."""
    return 0.5 * np.maximum(u, 0.0) ** 2


add(
    "square_feature",
    "y = w² x, truth 0: ½ w⁴",
    square_feature,
    (0,),
    exact.normal_crossing((2,)),
    partial(exact.product_of_powers, (2,), scale=0.5),
    x=_SIGNS,
    source=_WATANABE,
)
add(
    "tanh_unit",
    "y = a tanh(b x) on 41 points from -2 to 2, truth 0",
    tanh_units,
    (0, 0),
    exact.tanh_network(1),
    partial(exact.quadrature, _tanh_loss, (0.0, 0.0)),
    x=_GRID,
    source=_WATANABE,
)
add(
    "two_tanh_units",
    "y = a1 tanh(b1 x) + a2 tanh(b2 x) on 41 points from -2 to 2, truth 0",
    tanh_units,
    (0, 0, 0, 0),
    exact.tanh_network(2),
    x=_GRID,
    source="Aoyagi and Watanabe (2006), as quoted; checked numerically",
)
add(
    "relu_unit",
    "y = a relu(b x), x = ±1, truth 0: ¼ (a b)²",
    relu_unit,
    (0, 0),
    exact.normal_crossing((1, 1)),
    partial(exact.product_of_powers, (1, 1), scale=0.25),
    x=_SIGNS,
    source=_WATANABE,
)
add(
    "relu_unit_of_two_inputs",
    "y = a relu(b · x) on the four unit vectors, truth 0: ⅛ a² |b|²",
    relu_unit,
    (0, 0, 0),
    exact.normal_crossing((1, 1), sizes=(1, 2)),
    partial(exact.product_of_powers, (1, 1), sizes=(1, 2), scale=0.125),
    x=_CROSS,
    source=_WATANABE,
)
add(
    "relu_unit_at_1_1",
    "y = a relu(b x), x = ±1, at a = b = 1: scaling is a flat direction",
    relu_unit,
    (1, 1),
    exact.regular(1),
    partial(exact.quadrature, _relu_loss_at_1_1, (1.0, 1.0)),
    x=_SIGNS,
    source=_MORSE_BOTT,
)
add(
    "dead_relu_unit",
    "y = relu(b x + e), x = ±1, at b = 0, e = -1: the loss is 0 around",
    relu_with_bias,
    (0, -1),
    exact.regular(0),
    independent(*2 * [partial(exact.quadrature, _half_relu_loss, -(0.5**0.5))]),
    x=_SIGNS,
    source="a constant loss",
)
