"""Learning coefficients of losses made of monomials, and of models that are regular."""

from collections.abc import Sequence
from fractions import Fraction

from numpyro_llc._checks import check_integer
from numpyro_llc.known.exact._simplex import Packing
from numpyro_llc.known.exact.values import LearningCoefficient, check_integers

_SIZES = "It gives the number of coordinates of each w_i."
_PRIOR = "It gives the power of |w_i| in the prior density; 0 where the prior is positive."


def regular(dim: int) -> LearningCoefficient:
    r"""Return λ of a regular model: ``λ = dim / 2``, ``m = 1``.

    More generally, this is the value of every point near which the set of minima is a smooth
    manifold and the Hessian has rank `dim` across it (Morse-Bott): flat directions count nothing.

    Parameters
    ----------
    dim
        Number of parameters, or rank of the Hessian.

    Returns
    -------
    LearningCoefficient
        λ and m.

    Notes
    -----
    Schwarz (1978). Misspecified models have the same λ. It does not cover a Hessian whose rank is
    smaller at ``w*`` than at minima nearby, nor minima at which the loss grows slower than the
    square of the distance to the set of minima.
    """
    meaning = "It counts parameters, or the rank of the Hessian."
    return LearningCoefficient(
        Fraction(check_integer("dim", dim, minimum=0, meaning=meaning), 2), 1
    )


def normal_crossing(
    exponents: Sequence[int],
    sizes: Sequence[int] | None = None,
    prior_exponents: Sequence[int] | None = None,
) -> LearningCoefficient:
    r"""Return λ at 0 of ``K = prod_i |w_i|^(2 k_i)``, ``w_i`` in ``R^(n_i)``.

    .. math:: \lambda = \min_i \frac{n_i + h_i}{2 k_i}, \qquad m = \#\{i : \text{the minimum}\}

    Parameters
    ----------
    exponents
        k_i, at least 0 and not all 0.
    sizes
        n_i, at least 1; 1 for all when left out.
    prior_exponents
        h_i of a prior ``prod_i |w_i|^(h_i)``; 0 for all when left out.

    Returns
    -------
    LearningCoefficient
        λ and m.

    Raises
    ------
    ValueError
        If all exponents are 0 or the lengths differ.

    Notes
    -----
    Watanabe (2009), *Algebraic Geometry and Statistical Learning Theory*, chapter 4, with polar
    coordinates for the blocks. Positive factors that do not vanish at 0 change nothing. It is the
    value at 0; at a point where some w_i differ from 0, leave those out.
    """
    meaning = "It gives k_i of K = prod |w_i|^(2 k_i)."
    powers = check_integers("exponents", exponents, minimum=0, meaning=meaning)
    weights = _weights(len(powers), sizes, prior_exponents)
    if not any(powers):
        raise ValueError(
            f"`exponents` must have a positive entry; got {exponents!r}: K does not vanish at 0."
        )
    ratios = [Fraction(n, 2 * k) for n, k in zip(weights, powers, strict=True) if k]
    return LearningCoefficient(min(ratios), ratios.count(min(ratios)))


def newton_polyhedron(
    exponents: Sequence[Sequence[int]],
    *,
    sizes: Sequence[int] | None = None,
    prior_exponents: Sequence[int] | None = None,
) -> LearningCoefficient:
    r"""Return λ at 0 of ``K = sum_j prod_i |w_i|^(2 u_ji)``, a sum of squares of monomials.

    .. math:: \lambda = \tfrac12 \min\{\textstyle\sum_i (n_i + h_i) a_i : U a \ge 1, a \ge 0\},
              \qquad m = 1 + \dim \arg\min

    Parameters
    ----------
    exponents
        U, one row ``u_j`` for each monomial and one column for each w_i; integers of at least 0.
    sizes
        n_i, the number of coordinates of w_i; 1 for all when left out.
    prior_exponents
        h_i of a prior ``prod_i |w_i|^(h_i)``; 0 for all when left out.

    Returns
    -------
    LearningCoefficient
        λ and m, from a linear program solved in exact arithmetic.

    Raises
    ------
    ValueError
        If a row is 0 (K does not vanish at 0) or the rows differ in length.

    Notes
    -----
    Lin (2011), *Algebraic Methods for Evaluating Integrals in Bayesian Statistics*. Positive
    coefficients of the monomials change nothing, and so do terms whose exponents lie in the convex
    hull of the others plus the positive orthant. Some dozens of monomials take seconds. It does not
    cover polynomials whose monomials may
    cancel, such as ``(w_1² - w_2³)²``.
    """
    meaning = "Each row holds the exponents of one monomial."
    table = [tuple(row) for row in _as_rows(exponents)]
    rows = [
        check_integers("exponents", row, minimum=0, meaning=meaning, length=len(table[0]))
        for row in table
    ]
    if not all(any(row) for row in rows):
        raise ValueError(
            "`exponents` has a row of zeros, so that K does not vanish at 0. Leave constants out."
        )
    weights = _weights(len(rows[0]), sizes, prior_exponents)
    rows = _undominated(rows)
    program = Packing(rows, weights)
    return LearningCoefficient(program.value / 2, 1 + program.cover_face_dimension(rows))


def _as_rows(exponents: object) -> list[Sequence]:
    rows = _as_list(exponents)
    parts = [_as_list(row) for row in rows] if isinstance(rows, Sequence) else []
    found = [row for row in parts if isinstance(row, Sequence) and row]
    if not parts or len(found) < len(parts):
        raise TypeError(
            f"`exponents` must be a sequence of rows of integers; got {exponents!r}. "
            "For one monomial use normal_crossing."
        )
    return found


def _as_list(values: object) -> object:
    """An array as a list, all else as it is."""
    return getattr(values, "tolist", lambda: values)()


def _undominated(rows: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Drop each monomial that another one divides."""
    distinct = list(dict.fromkeys(rows))
    return [
        row
        for row in distinct
        if not any(
            other != row and all(x <= y for x, y in zip(other, row, strict=True))
            for other in distinct
        )
    ]


def _weights(
    length: int, sizes: Sequence[int] | None, prior_exponents: Sequence[int] | None
) -> list[int]:
    """Return ``n_i + h_i``, the power of ``d log |w_i|`` in the prior measure."""
    sizes = [1] * length if sizes is None else sizes
    prior_exponents = [0] * length if prior_exponents is None else prior_exponents
    n = check_integers("sizes", sizes, minimum=1, meaning=_SIZES, length=length)
    h = check_integers("prior_exponents", prior_exponents, minimum=0, meaning=_PRIOR, length=length)
    return [x + y for x, y in zip(n, h, strict=True)]
