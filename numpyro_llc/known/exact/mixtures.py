"""Learning coefficients of mixtures and latent classes with more components than the truth."""

import numbers
from fractions import Fraction

from numpyro_llc._checks import check_integer, check_positive
from numpyro_llc.known.exact.values import LearningCoefficient


def normal_mixture(
    components: int, dim: int = 1, *, weights: str = "free", concentration: Fraction | float = 1
) -> LearningCoefficient:
    r"""Return λ of a mixture of normals of known covariance when the truth is one of them.

    The model is ``sum_i a_i N(b_i, S)`` with H components in p dimensions, S known; ``w*`` has all
    means equal to the true one. With positive weights, known or not:

    .. math:: \lambda = \frac{p}{2} + \frac{(H - 1) p}{4}, \qquad m = 1

    The smallest λ over all true points, the weights' simplex closed and under a prior
    ``prod a_i^(φ-1)`` (``weights="simplex"``):

    .. math:: \lambda = \frac{p}{2} + \frac{H - 1}{2} \min\Bigl(φ, \frac{p}{2}\Bigr), \qquad
              m = H \text{ if } φ = p/2 \text{ else } 1

    Parameters
    ----------
    components
        H, at least 1.
    dim
        p, the dimension of an observation.
    weights
        ``"fixed"``: known, all positive. ``"free"``: parameters, all positive at ``w*``; the local
        value there, which is the same. ``"simplex"``: the global value, weights of 0 included.
    concentration
        φ of the Dirichlet prior, a positive integer, fraction or float that is a short fraction
        (0.1 is 1/10); only for ``"simplex"``.

    Returns
    -------
    LearningCoefficient
        λ and m.

    Raises
    ------
    ValueError
        For other `weights`, and for a `concentration` with weights that are not on the simplex.

    Notes
    -----
    Our own. The excess loss is equivalent to ``|Σ a_i b_i|² + |Σ a_i b_i b_i'|²``, means relative
    to the true one, and since weights are not negative the second term is equivalent to
    ``(Σ a_i |b_i|²)²``: nothing cancels. It covers neither unknown covariances, whose heat equation
    makes λ smaller, nor weights of either sign, nor a truth of several components.
    """
    h = check_integer("components", components, minimum=1, meaning="It counts components.")
    p = check_integer("dim", dim, minimum=1, meaning="It is the dimension of an observation.")
    if weights not in ("free", "fixed", "simplex"):
        raise ValueError(
            f"`weights` must be 'free', 'fixed' or 'simplex'; got {weights!r}. "
            "'free' and 'fixed' want positive weights at w*; 'simplex' is the global value."
        )
    phi = _check_concentration(concentration)
    if weights != "simplex":
        if phi != 1:
            raise ValueError(
                f"`concentration` must be left out for weights={weights!r}; got {concentration!r}. "
                "A prior that is positive at w* does not change λ."
            )
        return LearningCoefficient(Fraction(p * (h + 1), 4), 1)
    value = Fraction(p, 2) + Fraction(h - 1, 2) * min(phi, Fraction(p, 2))
    return LearningCoefficient(value, h if phi == Fraction(p, 2) else 1)


def poisson_mixture(components: int) -> LearningCoefficient:
    r"""Return λ of a mixture of H Poissons when the truth is one: ``λ = (H + 1) / 4``, ``m = 1``.

    Parameters
    ----------
    components
        H, at least 1.

    Returns
    -------
    LearningCoefficient
        λ and m.

    Notes
    -----
    As :func:`normal_mixture` in one dimension: it needs the first two derivatives of the density in
    its parameter to be linearly independent. Positive weights, fixed or free; a positive true rate.
    """
    return normal_mixture(components)


def binomial_mixture(components: int, trials: int) -> LearningCoefficient:
    r"""Return λ of a mixture of H binomials when the truth is one.

    ``λ = (H + 1) / 4`` with 2 or more trials; ``λ = 1/2`` with 1, for then only the mean
    probability matters. ``m = 1``.

    Parameters
    ----------
    components
        H, at least 1.
    trials
        Number of trials of an observation, the same for all and known.

    Returns
    -------
    LearningCoefficient
        λ and m.

    Notes
    -----
    As :func:`normal_mixture` in one dimension. Positive weights, fixed or free; a true probability
    other than 0 and 1.
    """
    trials = check_integer("trials", trials, minimum=1, meaning="It counts trials.")
    mixture = normal_mixture(components)
    return mixture if trials > 1 else LearningCoefficient(Fraction(1, 2), 1)


def latent_class(features: int, structure: str) -> LearningCoefficient:
    r"""Return λ of a naive Bayes model with two hidden classes and binary features.

    With n features, the model has 2n + 1 parameters: the weight of a class and the probabilities of
    each feature in either. The true distribution is of one of these kinds; "dependent" features are
    those whose probability differs between the true classes.

    ============= ============================================= ============== ===========
    structure     the truth, and ``w*``                         λ              m
    ============= ============================================= ============== ===========
    "regular"     3 or more dependent features                  (2n + 1) / 2   1
    "pair"        exactly 2 dependent features                  (2n - 1) / 2   1
    "independent" none; both classes have positive weight, and  3n / 4         1
                  the same probabilities                        (n = 2: 3/2)   (n = 2: 2)
    "boundary"    none; one class has weight 0, and the same    (n + 1) / 2    1
                  probabilities as the other                    (n = 2: 3/2)   (n = 2: 3)
    ============= ============================================= ============== ===========

    Parameters
    ----------
    features
        n: at least 3 for "regular", at least 2 for the others.
    structure
        ``"regular"``, ``"pair"``, ``"independent"`` or ``"boundary"``.

    Returns
    -------
    LearningCoefficient
        λ and m at that ``w*``. Of two kinds with the same truth, the smaller is the global value.

    Raises
    ------
    ValueError
        For another structure, or too few features.

    Notes
    -----
    Rusakov and Geiger (2005), *JMLR* 6, 1-35, and Newton polyhedra of the model's covariances. All
    probabilities and, but for "boundary", the weights lie strictly between 0 and 1; the prior is
    positive at ``w*``, for "boundary" at weight 0 too.
    """
    least = {"regular": 3, "pair": 2, "independent": 2, "boundary": 2}
    if not isinstance(structure, str) or structure not in least:
        raise ValueError(f"`structure` must be one of {list(least)}; got {structure!r}.")
    meaning = f"The structure {structure!r} needs as many binary features."
    n = check_integer("features", features, minimum=least[structure], meaning=meaning)
    value, multiplicity = {
        "regular": (Fraction(2 * n + 1, 2), 1),
        "pair": (Fraction(2 * n - 1, 2), 1),
        "independent": (Fraction(max(3 * n, 6), 4), 2 if n == 2 else 1),
        "boundary": (Fraction(n + 1, 2), 3 if n == 2 else 1),
    }[structure]
    return LearningCoefficient(value, multiplicity)


def _check_concentration(concentration: Fraction | float) -> Fraction:
    meaning = "It is that of a Dirichlet prior; 1 is uniform."
    number = check_positive("concentration", concentration, meaning=meaning)
    if isinstance(concentration, numbers.Rational):
        return Fraction(concentration)
    short = Fraction(number).limit_denominator(1000)
    if float(short) != number:
        raise ValueError(
            f"`concentration` must be a fraction, as λ is; got {concentration!r}, which is none of "
            "a denominator up to 1000. Give fractions.Fraction(p, q)."
        )
    return short
