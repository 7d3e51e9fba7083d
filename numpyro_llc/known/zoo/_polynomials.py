"""Losses ``½ Σ f_j(w)²`` of polynomials, without inputs."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial

import numpy as np

from numpyro_llc.known import exact
from numpyro_llc.known.zoo._gaussian import Features, Values, add
from numpyro_llc.known.zoo._problem import FiniteN, independent
from numpyro_llc.models import PyTree

_R2 = 2.0**0.5
_CURVATURES = (2.0, 0.5, 0.01)
_WATANABE = "Watanabe (2009), Algebraic Geometry and Statistical Learning Theory, chapter 4"
_MORSE_BOTT = "Morse-Bott: half the rank of the Hessian"
_NEWTON = "Newton polyhedron of the monomials: Lin (2011), arXiv:1003.5338"

_crossing, _newton = exact.normal_crossing, exact.newton_polyhedron


def _add(
    name: str,
    description: str,
    functions: Callable[[PyTree], Sequence[Values]],
    center: Sequence[float],
    known: exact.LearningCoefficient,
    finite_n: FiniteN | None = None,
    source: str = _WATANABE,
) -> None:
    features = Features(functions)
    finite_n = finite_n or partial(exact.quadrature, features.loss, center)
    add(name, description, features, center, known, finite_n, source=source)


def _power(
    exponents: Sequence[int], scale: float = 1.0, sizes: Sequence[int] | None = None
) -> FiniteN:
    return partial(exact.product_of_powers, exponents, scale=scale, sizes=sizes)


def _square_times_fourth(w: PyTree) -> list[Values]:
    return [_R2 * w[0] * w[1] ** 2]


_add(
    "gaussian",
    "w1² + w2²/4 + w3²/200: regular, of curvatures 2, 1/2 and 1/100",
    lambda w: [h**0.5 * w[i] for i, h in enumerate(_CURVATURES)],
    (0, 0, 0),
    exact.regular(3),
    partial(exact.gaussian_linear, np.diag(_CURVATURES)),
    "Schwarz (1978), Annals of Statistics 6, 461",
)
_add(
    "sum_of_two",
    "½ (w1 + w2)², as y = (w1 + w2) x: a flat direction",
    lambda w: [w[0] + w[1]],
    (0, 0),
    exact.regular(1),
    partial(exact.gaussian_linear, np.ones((2, 2))),
    _MORSE_BOTT,
)
_add(
    "circle",
    "½ (w1² + w2² - 1)² at (1, 0): a curved valley",
    lambda w: [w[0] ** 2 + w[1] ** 2 - 1.0],
    (1, 0),
    exact.regular(1),
    source=_MORSE_BOTT,
)
_add("fourth_power", "w⁴", lambda w: [_R2 * w[0] ** 2], (0,), _crossing((2,)), _power((2,)))
_add("sixth_power", "w⁶", lambda w: [_R2 * w[0] ** 3], (0,), _crossing((3,)), _power((3,)))
_add(
    "fourth_power_in_space",
    "|w|⁴ of three parameters",
    lambda w: [_R2 * (w[0] ** 2 + w[1] ** 2 + w[2] ** 2)],
    (0, 0, 0),
    _crossing((2,), sizes=(3,)),
    _power((2,), sizes=(3,)),
)
_add(
    "product_of_two",
    "½ (w1 w2)²",
    lambda w: [w[0] * w[1]],
    (0, 0),
    _crossing((1, 1)),
    _power((1, 1), 0.5),
)
_add(
    "product_of_three",
    "½ (w1 w2 w3)²: a deep linear network of scalars",
    lambda w: [w[0] * w[1] * w[2]],
    (0, 0, 0),
    _crossing((1, 1, 1)),
    _power((1, 1, 1), 0.5),
)
_add(
    "square_times_fourth",
    "w1² w2⁴ at the origin",
    _square_times_fourth,
    (0, 0),
    _crossing((1, 2)),
    _power((1, 2)),
)
_add(
    "square_times_fourth_at_0_1",
    "w1² w2⁴ at (0, 1): λ is larger than at the origin",
    _square_times_fourth,
    (0, 1),
    _crossing((1,)),
)
_add(
    "square_times_fourth_at_1_0",
    "w1² w2⁴ at (1, 0)",
    _square_times_fourth,
    (1, 0),
    _crossing((2,)),
)
_add(
    "square_plus_fourth",
    "w1² + w2⁴",
    lambda w: [_R2 * w[0], _R2 * w[1] ** 2],
    (0, 0),
    _newton(((1, 0), (0, 2))),
    independent(_power((1,)), _power((2,))),
)
_add(
    "fourth_plus_sixth",
    "w1⁴ + w2⁶",
    lambda w: [_R2 * w[0] ** 2, _R2 * w[1] ** 3],
    (0, 0),
    _newton(((2, 0), (0, 3))),
    independent(_power((2,)), _power((3,))),
)
_add(
    "cusp",
    "(w1² - w2³)²",
    lambda w: [_R2 * (w[0] ** 2 - w[1] ** 3)],
    (0, 0),
    exact.LearningCoefficient(Fraction(5, 12), 1),
    source="half the log canonical threshold 5/6 of the cusp",
)
_add(
    "node",
    "(w1² - w2²)²: the product of two, turned by 45 degrees",
    lambda w: [_R2 * (w[0] ** 2 - w[1] ** 2)],
    (0, 0),
    _crossing((1, 1)),
    _power((1, 1), 4.0),
)
_add(
    "line_and_fourth_power",
    "(w1³ + w1 w2²)²: w1² |w|⁴",
    lambda w: [_R2 * (w[0] ** 3 + w[0] * w[1] ** 2)],
    (0, 0),
    _newton(((3, 0), (1, 2))),
    source=_NEWTON,
)
