"""Learning coefficients of linear networks: reduced-rank regression and deeper products."""

from collections.abc import Sequence
from fractions import Fraction

from numpyro_llc._checks import check_integer
from numpyro_llc.known.exact.values import LearningCoefficient, check_integers


def reduced_rank_regression(
    inputs: int,
    hidden: int,
    outputs: int,
    rank: int = 0,
    *,
    rank_first: int | None = None,
    rank_second: int | None = None,
) -> LearningCoefficient:
    r"""Return λ of ``y = B A x + noise``, A of shape (hidden, inputs), B (outputs, hidden).

    With N inputs, H hidden, M outputs and true rank r of BA, where both layers have rank r
    ("aligned", also the global value):

    .. math:: \lambda = \begin{cases}
        (2(H+r)(M+N) + 2MN - (H+r)^2 - M^2 - N^2 + e)/8 & \text{(1), } m = 1 + e\\
        (HM - Hr + Nr)/2 & M + H < N + r\\
        (HN - Hr + Mr)/2 & N + H < M + r\\
        MN/2 & M + N < H + r \end{cases}

    where (1) is everything else, e = 1 if M + H + N + r is odd and 0 otherwise, and m = 1 outside
    (1). At a true point where A has rank a and B has rank b,

    .. math:: \lambda = \tfrac12 (aM + bN - ab) + \lambda_0(N - a, H - a - b + r, M - b)

    with λ_0 the value above at true rank 0, and m that of λ_0.

    Parameters
    ----------
    inputs, hidden, outputs
        N, H, M, at least 1.
    rank
        Rank r of the true product.
    rank_first, rank_second
        Ranks a of A and b of B at ``w*``; both or neither. Left out, both are `rank`.

    Returns
    -------
    LearningCoefficient
        λ and m.

    Raises
    ------
    ValueError
        If no such pair of matrices exists.

    Notes
    -----
    Aoyagi and Watanabe (2005), *Neural Networks* 18, 924-933, main theorem, for the aligned value.
    The local value is our own: the basis of the hidden layer is chosen so that A has the identity
    in its corner; ``aM + b(N - a)`` coordinates then enter linearly, and what is left is a product
    of two matrices near 0. The second moments of the inputs must have full rank; the noise may be
    any whose loss is smooth and has a positive definite Hessian in the outputs.
    """
    meaning = "It is a width of the network."
    inputs = check_integer("inputs", inputs, minimum=1, meaning=meaning)
    hidden = check_integer("hidden", hidden, minimum=1, meaning=meaning)
    outputs = check_integer("outputs", outputs, minimum=1, meaning=meaning)
    widths = (inputs, hidden, outputs)
    rank = _check_rank(rank, widths)
    first, second = _check_ranks(rank_first, rank_second, rank, widths)
    if first == second == rank:
        return _aligned(inputs, hidden, outputs, rank)
    rest = _aligned(inputs - first, hidden - first - second + rank, outputs - second, 0)
    smooth = Fraction(first * outputs + second * inputs - first * second, 2)
    return LearningCoefficient(smooth + rest.value, rest.multiplicity)


def matrix_factorization(
    rows: int,
    inner: int,
    columns: int,
    rank: int = 0,
    *,
    rank_first: int | None = None,
    rank_second: int | None = None,
) -> LearningCoefficient:
    """Return λ of ``Y = U V + noise``, U of shape (rows, inner) and V (inner, columns).

    It is :func:`reduced_rank_regression` with whitened inputs, for which a transposition changes
    nothing: U stands for the first layer.

    Parameters
    ----------
    rows, inner, columns
        Shapes, at least 1.
    rank
        Rank of the true product.
    rank_first, rank_second
        Ranks of U and V at ``w*``; both or neither. Left out, both are `rank`.

    Returns
    -------
    LearningCoefficient
        λ and m.

    Raises
    ------
    ValueError
        If no such pair of matrices exists.

    Notes
    -----
    Every entry of Y is observed, and the entries of U and V have either sign. It covers neither
    missing entries nor nonnegative factors.
    """
    rows, inner, columns = (
        check_integer(name, size, minimum=1, meaning="It is a side of a factor.")
        for name, size in [("rows", rows), ("inner", inner), ("columns", columns)]
    )
    return reduced_rank_regression(
        rows, inner, columns, rank, rank_first=rank_first, rank_second=rank_second
    )


def deep_linear_network(widths: Sequence[int], rank: int = 0) -> LearningCoefficient:
    r"""Return λ of ``y = W_L ⋯ W_1 x + noise`` at an aligned point.

    With ``M_s = H_s - r`` for the widths H_0, ..., H_L and true rank r, there is a set Σ of l + 1
    smallest M_s with ``sum Σ >= l max Σ`` and ``sum Σ < l M`` for each M outside. With its sum S,
    ``a = S - (ceil(S / l) - 1) l``:

    .. math:: \lambda = \frac{r (H_0 + H_L) - r^2}{2} + \frac{a (l - a)}{4 l}
        - \frac{l (l - 1)}{4} \Bigl(\frac{S}{l}\Bigr)^2 + \frac12 \sum_{i<j \in \Sigma} M_i M_j,
        \qquad m = a (l - a) + 1

    Parameters
    ----------
    widths
        H_0 (inputs), the hidden widths, H_L (outputs): two or more, each at least 1.
    rank
        Rank r of the true product; at ``w*`` every layer, too, has rank r.

    Returns
    -------
    LearningCoefficient
        λ and m; λ is also the global value.

    Raises
    ------
    ValueError
        If the rank exceeds a width.

    Notes
    -----
    Aoyagi (2024), *Neural Networks* 172, for inputs whose second moments have full rank. It does
    not cover minima at which a layer has a rank above r (for two layers see
    :func:`reduced_rank_regression`).
    """
    meaning = "It holds the widths of the network, inputs and outputs included."
    sizes = check_integers("widths", widths, minimum=1, meaning=meaning)
    if len(sizes) < 2:
        raise ValueError(f"`widths` must have at least 2 entries; got {len(sizes)}. {meaning}")
    rank = _check_rank(rank, sizes)
    chosen = _smallest(sorted(width - rank for width in sizes))
    layers, total = len(chosen) - 1, sum(chosen)
    a = total - (-(-total // layers) - 1) * layers
    pairs = (total**2 - sum(x * x for x in chosen)) // 2
    value = (
        Fraction(rank * (sizes[0] + sizes[-1]) - rank**2 + pairs, 2)
        + Fraction(a * (layers - a), 4 * layers)
        - Fraction((layers - 1) * total**2, 4 * layers)
    )
    return LearningCoefficient(value, a * (layers - a) + 1)


def _smallest(widths: list[int]) -> list[int]:
    """Return Σ, the widths that matter, of widths in ascending order."""
    for size in range(2, len(widths)):
        total, layers = sum(widths[:size]), size - 1
        if layers * widths[size - 1] <= total < layers * widths[size]:
            return widths[:size]
    return widths


def _aligned(inputs: int, hidden: int, outputs: int, rank: int) -> LearningCoefficient:
    n, h, m, r = inputs, hidden, outputs, rank
    if m + h < n + r:
        return LearningCoefficient(Fraction(h * m - h * r + n * r, 2), 1)
    if n + h < m + r:
        return LearningCoefficient(Fraction(h * n - h * r + m * r, 2), 1)
    if m + n < h + r:
        return LearningCoefficient(Fraction(m * n, 2), 1)
    odd = (m + h + n + r) % 2
    twice = 2 * (h + r) * (m + n) + 2 * m * n - (h + r) ** 2 - m**2 - n**2
    return LearningCoefficient(Fraction(twice + odd, 8), 1 + odd)


def _check_rank(rank: int, widths: Sequence[int]) -> int:
    meaning = "It is the rank of the true product."
    rank = check_integer("rank", rank, minimum=0, meaning=meaning)
    if rank > min(widths):
        raise ValueError(f"`rank` must be at most the smallest width {min(widths)}; got {rank}.")
    return rank


def _check_ranks(
    first: int | None, second: int | None, rank: int, widths: Sequence[int]
) -> tuple[int, int]:
    if first is None and second is None:
        return rank, rank
    if first is None or second is None:
        raise ValueError(
            "`rank_first` and `rank_second` must be given together; got "
            f"{first!r} and {second!r}. Leave both out where both equal `rank`."
        )
    inputs, hidden, outputs = widths
    meaning = "It is the rank of a layer at w*."
    first = check_integer("rank_first", first, minimum=0, meaning=meaning)
    second = check_integer("rank_second", second, minimum=0, meaning=meaning)
    for name, value, limit in [
        ("rank_first", first, min(inputs, hidden)),
        ("rank_second", second, min(hidden, outputs)),
    ]:
        if not rank <= value <= limit:
            raise ValueError(
                f"`{name}` must lie between `rank` = {rank} and the smaller side {limit} of the "
                f"layer; got {value}. A product has no rank above that of its factors."
            )
    if first + second - rank > hidden:
        raise ValueError(
            f"`rank_first` + `rank_second` - `rank` must be at most the inner width {hidden}; got "
            f"{first + second - rank}. Layers of such ranks have a product of higher rank."
        )
    return first, second
