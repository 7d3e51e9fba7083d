"""Learning coefficients of factor analysis: exact for up to one factor, bounded for more."""

from fractions import Fraction

from numpyro_llc._checks import check_integer
from numpyro_llc.known.exact.values import LearningCoefficient


def factor_analysis(variables: int, factors: int = 1, true_factors: int = 0) -> LearningCoefficient:
    r"""Return λ of ``y ~ N(0, diag(ψ) + B B')`` with at most one factor.

    With p variables:

    ======= ============ ======================== ====================================
    factors true factors λ                        m
    ======= ============ ======================== ====================================
    0       0            p / 2                    1
    1       0            3p / 4 (p = 1: 1/2)      1 (p = 2: 2)
    1       1            p, for p of at least 3   1, if 3 or more true loadings are not 0
    ======= ============ ======================== ====================================

    Parameters
    ----------
    variables
        p, at least 1.
    factors
        Columns of B, 0 or 1.
    true_factors
        Factors of the true distribution, the rank of its loadings; at ``w*`` the loadings of the
        others are 0.

    Returns
    -------
    LearningCoefficient
        λ and m.

    Raises
    ------
    ValueError
        For any other combination, of which no exact value is known here.

    Notes
    -----
    With no true factor the excess loss is equivalent to ``Σ (ψ_i + b_i² - ψ*_i)² + Σ (b_i b_j)²``,
    a Newton polyhedron; with one, the covariance determines ψ and, but for its sign, B. Means are
    known, and the true ψ_i are positive; p parameters of free means add p / 2.
    """
    p, k, true = _check(variables, factors, true_factors)
    if k == 0:
        return LearningCoefficient(Fraction(p, 2), 1)
    if k == 1 and true == 0:
        value = Fraction(1, 2) if p == 1 else Fraction(3 * p, 4)
        return LearningCoefficient(value, 2 if p == 2 else 1)
    if k == 1 and p >= 3:
        return LearningCoefficient(Fraction(p), 1)
    raise ValueError(
        "`factors` must be 0 or 1, and `variables` at least 3 if the truth has a factor; got "
        f"factors={k}, variables={p}, true_factors={true}. No exact value is known here: "
        "factor_analysis_bound gives an upper bound."
    )


def factor_analysis_bound(variables: int, factors: int, true_factors: int = 0) -> Fraction:
    r"""Return an upper bound of λ of ``y ~ N(0, diag(ψ) + B B')``.

    With p variables, k factors and l true ones:

    .. math:: \lambda \le \min\Bigl(\frac{(k + 2) p + l (p - k + 1)}{4}, \frac{p (p + 1)}{4}\Bigr)

    Parameters
    ----------
    variables, factors, true_factors
        p of at least 1, k of at least 0, l of at most k: the rank of the true loadings. More than p
        true factors count as p, which a rotation leaves of them.

    Returns
    -------
    Fraction
        The bound, of the value at a ``w*`` that has the true loadings in l columns and 0 in the
        others, and so of the global value too.

    Raises
    ------
    ValueError
        If there are more true factors than factors.

    Notes
    -----
    Drton and Plummer (2017), *JRSS B* 79, for the first term. A rotation of the factors turns
    ``l (k - l)`` of the idle loadings to 0, the others enter by their squares at most. The second
    term counts the covariances. Where :func:`factor_analysis` has a value the bound equals it;
    elsewhere it may be too high.
    """
    p, k, true = _check(variables, factors, true_factors)
    true = min(true, p)
    return min(Fraction((k + 2) * p + true * (p - k + 1), 4), Fraction(p * (p + 1), 4))


def _check(variables: int, factors: int, true_factors: int) -> tuple[int, int, int]:
    p = check_integer("variables", variables, minimum=1, meaning="It counts observed variables.")
    k = check_integer("factors", factors, minimum=0, meaning="It counts the model's factors.")
    true = check_integer("true_factors", true_factors, minimum=0, meaning="It counts true factors.")
    if true > k:
        raise ValueError(
            f"`true_factors` must be at most `factors` = {k}; got {true}. "
            "Otherwise the model does not contain the truth."
        )
    return p, k, true
