"""Learning coefficients of networks with one hidden layer of tanh units."""

import math
from fractions import Fraction

from numpyro_llc._checks import check_integer
from numpyro_llc.known.exact.values import LearningCoefficient


def tanh_network(hidden: int) -> LearningCoefficient:
    r"""Return λ at 0 of ``y = sum_i a_i tanh(b_i x) + noise`` when the truth is 0.

    With H hidden units and ``h = floor(sqrt(H))``:

    .. math:: \lambda = \frac{H + h^2 + h}{4 h + 2}, \qquad
              m = 2 \text{ if } h^2 = H \text{ else } 1

    Parameters
    ----------
    hidden
        H, at least 1.

    Returns
    -------
    LearningCoefficient
        λ and m.

    Notes
    -----
    The formula is Aoyagi's and Watanabe's. Integrating the a_i leaves ``det(I + c G(b))^(-1/2)``;
    letting all b_i shrink alike proves it an upper bound for every H, and a count over all ways the
    b_i may cluster proves it for H up to 5. One input, which takes at least H distinct
    absolute values besides 0, one output and no biases. It holds for every odd analytic
    activation whose first H odd Taylor coefficients differ from 0. It is the value at
    ``a = b = 0``, not at points where only a or only b is 0.
    """
    hidden = check_integer("hidden", hidden, minimum=1, meaning="It counts hidden units.")
    h = math.isqrt(hidden)
    return LearningCoefficient(Fraction(hidden + h * h + h, 4 * h + 2), 1 + (h * h == hidden))
