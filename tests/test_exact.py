"""Exact values against second routes: other formulas, linear programs, integrals, simulation."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.polynomial.hermite_e import hermegauss
from numpy.polynomial.legendre import leggauss
from scipy import special
from scipy.integrate import quad
from scipy.optimize import linprog

from numpyro_llc import exact
from numpyro_llc.known.exact import adaptive
from numpyro_llc.known.exact._simplex import Packing

ORIGIN = (0.0, 0.0)


def settings(c, gamma=1.0):
    """Arguments for nβ = c."""
    return {"num_data": 100, "inverse_temperature": c / 100, "localization": gamma}


def linear_program(costs, rows, lower):
    """Minimum of costs·x, x ≥ 0, rows x ≥ lower, and the dimension of the set of minimizers."""
    rows, lower = np.asarray(rows, float), np.asarray(lower, float)
    best = linprog(costs, A_ub=-rows, b_ub=-lower, method="highs")
    rng = np.random.default_rng(0)
    tight = np.vstack([-rows, costs]), np.append(-lower, best.fun + 1e-9)
    corners = [
        linprog(rng.normal(size=len(costs)), A_ub=tight[0], b_ub=tight[1], method="highs").x
        for _ in range(2 * len(costs) + 2)
    ]
    return best.fun, np.linalg.matrix_rank(np.diff(corners, axis=0), tol=1e-5)


def jacobian_rank(function, point, tol=1e-5):
    steps = 1e-5 * np.eye(len(point))
    columns = [(function(point + s) - function(point - s)) / 2e-5 for s in steps]
    return np.linalg.matrix_rank(np.array(columns), tol=tol)


# Monomials


@pytest.mark.parametrize(
    ("exponents", "sizes", "prior", "value", "multiplicity"),
    [
        ([3], None, None, Fraction(1, 6), 1),
        ([1, 1, 1], None, None, Fraction(1, 2), 3),
        ([1, 2], None, None, Fraction(1, 4), 1),
        ([1, 0], None, None, Fraction(1, 2), 1),
        ([2], [5], None, Fraction(5, 4), 1),
        ([1, 1], [3, 3], None, Fraction(3, 2), 2),
        ([1, 2], None, [0, 1], Fraction(1, 2), 2),
    ],
)
def test_normal_crossings(exponents, sizes, prior, value, multiplicity):
    assert exact.normal_crossing(exponents, sizes, prior) == (value, multiplicity)
    polyhedron = exact.newton_polyhedron([exponents], sizes=sizes, prior_exponents=prior)
    assert polyhedron == (value, multiplicity)


@pytest.mark.parametrize("seed", range(40))
def test_newton_polyhedron_is_the_linear_program(seed):
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(1, 6), rng.integers(1, 5)
    table = rng.integers(0, 4, size=(rows, columns))
    table[table.sum(axis=1) == 0, 0] = 1
    sizes = rng.integers(1, 4, size=columns)
    value, dimension = linear_program(sizes, table, np.ones(rows))
    answer = exact.newton_polyhedron(table, sizes=sizes)
    assert float(answer.value) == pytest.approx(value / 2, abs=1e-9)
    assert answer.multiplicity == 1 + dimension
    program = Packing(table.tolist(), sizes.tolist())
    assert sum(program.packing) == sum(
        n * a for n, a in zip(sizes.tolist(), program.cover, strict=True)
    )
    assert (table @ np.array(program.cover) >= 1).all()
    assert min(program.cover) >= 0 <= min(program.packing)
    assert (np.array(program.packing) @ table <= sizes).all()


def test_blocks_add():
    one, two = exact.newton_polyhedron([[2, 0], [0, 3]]), exact.normal_crossing([2])
    assert exact.independent(two, exact.normal_crossing([3])) == one == (Fraction(5, 12), 1)
    crossing = exact.normal_crossing([1, 1])
    assert exact.independent(crossing, crossing) == (1, 3)
    assert exact.newton_polyhedron([[1, 1, 0, 0], [0, 0, 1, 1]]) == (1, 3)
    both = exact.independent(exact.Expectation(1.0, 2.0), exact.Expectation(3.0, 5.0))
    assert both == exact.Expectation(4.0, 7.0)
    assert exact.regular(7) == exact.independent(*[exact.normal_crossing([1])] * 7)


@pytest.mark.parametrize(
    ("exponents", "sizes"),
    [([2], None), ([1, 1], None), ([1, 2], None), ([1, 1, 1], None), ([1, 1], [3, 3])],
)
def test_expectations_approach_the_learning_coefficient(exponents, sizes):
    value, multiplicity = exact.normal_crossing(exponents, sizes)

    def gap(c):
        return float(value) - exact.product_of_powers(exponents, sizes=sizes, **settings(c)).mean

    if multiplicity == 1:
        assert abs(gap(1e20)) < 1e-3
    else:  # The gap is (m - 1) / (log c + const), so that its inverse has slope 1 / (m - 1).
        slope = (1 / gap(1e24) - 1 / gap(1e16)) / math.log(1e8)
        assert slope == pytest.approx(1 / (multiplicity - 1), rel=0.03)


@pytest.mark.parametrize(
    ("loss", "rows"),
    [
        (lambda a, b: a**4 + b**6, [[2, 0], [0, 3]]),
        (lambda a, b: (a * b**2) ** 2 + a**6, [[1, 2], [3, 0]]),
        (lambda a, b: (a**3 + a * b**2) ** 2, [[3, 0], [1, 2]]),
        (lambda a, b: (a * a * b) ** 2 + (a * b * b) ** 2, [[2, 1], [1, 2]]),
    ],
)
def test_newton_polyhedron_is_the_limit_of_quadrature(loss, rows):
    first, second, third = (
        exact.quadrature(loss, ORIGIN, **settings(c)).mean for c in (1e6, 1e9, 1e12)
    )
    # The next pole leaves a power of c, which Aitken's extrapolation takes away.
    limit = third - (third - second) ** 2 / (third - 2 * second + first)
    value, multiplicity = exact.newton_polyhedron(rows)
    assert multiplicity == 1
    assert limit == pytest.approx(float(value), abs=1e-3)


# Linear networks


def one_liner(n, h, m, r=0):
    """λ and m of a product of matrices, from the singular values of one of them."""
    m_, n_, h_ = m - r, n - r, h - r
    terms = [(m_, abs(n_ - h_) + 2 * i - 1) for i in range(1, min(n_, h_) + 1)]
    value = Fraction(r * (m + n - r) + sum(min(t) for t in terms), 2)
    return value, 1 + sum(x == y for x, y in terms)


SIZES = [(n, h, m) for n, h, m in itertools.product(range(1, 7), repeat=3)]


@pytest.mark.parametrize(("n", "h", "m"), SIZES)
def test_reduced_rank_regression_is_the_sum_over_singular_values(n, h, m):
    for r in range(min(n, h, m) + 1):
        value = exact.reduced_rank_regression(n, h, m, r)
        assert value == one_liner(n, h, m, r)
        assert value == exact.reduced_rank_regression(m, h, n, r)
        assert value == exact.matrix_factorization(m, h, n, r)
        assert value == exact.deep_linear_network([n, h, m], r)
        assert value == exact.reduced_rank_regression(n, h, m, r, rank_first=r, rank_second=r)


def local_points(n, h, m):
    for a, b in itertools.product(range(min(n, h) + 1), range(min(h, m) + 1)):
        for r in range(max(0, a + b - h), min(a, b) + 1):
            yield a, b, r


def layers_of_rank(n, h, m, a, b, r):
    """A and B of ranks a and b, whose product has rank r."""
    first, second = np.zeros((h, n)), np.zeros((m, h))
    first[range(a), range(a)] = 1.0
    second[range(b), [*range(r), *range(a, a + b - r)]] = 1.0
    assert np.linalg.matrix_rank(second @ first) == r
    return first, second


@pytest.mark.parametrize(("n", "h", "m"), [(2, 2, 2), (3, 2, 4), (3, 4, 2), (2, 3, 3)])
def test_local_reduced_rank_regression(n, h, m):
    for a, b, r in local_points(n, h, m):
        value, multiplicity = exact.reduced_rank_regression(n, h, m, r, rank_first=a, rank_second=b)
        mirrored = exact.reduced_rank_regression(m, h, n, r, rank_first=b, rank_second=a)
        assert (value, multiplicity) == mirrored
        factors = exact.matrix_factorization(m, h, n, r, rank_first=b, rank_second=a)
        assert (value, multiplicity) == factors
        first, second = layers_of_rank(n, h, m, a, b, r)

        def product(w):
            return (w[h * n :].reshape(m, h) @ w[: h * n].reshape(h, n)).ravel()

        rank = jacobian_rank(product, np.append(first, second))
        rest = one_liner(n - a, h - a - b + r, m - b)
        assert (value, multiplicity) == (Fraction(int(rank), 2) + rest[0], rest[1])


@pytest.mark.parametrize("m", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("a", "b", "r"), [(1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 2, 1), (2, 1, 1)])
def test_local_reduced_rank_regression_is_the_slope_of_the_evidence(m, a, b, r):
    """B is integrated exactly; A by importance sampling around A*."""
    truth, second = layers_of_rank(2, 2, m, a, b, r)
    rng = np.random.default_rng(0)
    p, s = rng.uniform(-0.3, 0.3, size=(2, 200_000))
    size = np.exp(rng.uniform(math.log(1e-8), math.log(0.3), size=(2, 200_000)))
    q, y = size * rng.choice([-1.0, 1.0], size=size.shape)
    corner = truth[1, 1] + y + s * q / (1 + p)  # Of unit Jacobian; puts det A = 0 at y = 0.
    layer = np.moveaxis(np.array([[1 + p, q], [s, corner]]), 2, 0)
    error = second @ (layer - truth)

    def log_evidence(c):
        noise = np.eye(2) / c + np.swapaxes(layer, 1, 2) @ layer / 100  # B stays within 0.1.
        misfit = np.einsum("zij,zjk,zik->z", error, np.linalg.inv(noise), error)
        _, determinant = np.linalg.slogdet(c * noise)
        logs = np.log(size).sum(axis=0) - 0.5 * misfit - 0.5 * m * determinant
        return special.logsumexp(logs)

    slope = (log_evidence(1e6) - log_evidence(1e11)) / math.log(1e5)
    value, multiplicity = exact.reduced_rank_regression(2, 2, m, r, rank_first=a, rank_second=b)
    assert slope == pytest.approx(float(value) - (multiplicity - 1) * 0.07, abs=0.02)


def test_layers_of_unequal_rank_have_another_value():
    local = exact.reduced_rank_regression(10, 10, 10, 4, rank_first=10, rank_second=4)
    assert local == (50, 1)
    assert exact.reduced_rank_regression(10, 10, 10, 4) == (Fraction(91, 2), 1)


def rayleigh_product(widths):
    """λ at true rank 0 from the diversity of Rayleigh product channels (Yang and Belfiore)."""
    n = sorted(widths)
    return Fraction(
        sum(
            1 - i + min((sum(n[: k + 1]) - i) // k for k in range(1, len(n)))
            for i in range(1, n[0] + 1)
        ),
        2,
    )


def singular_value_program(widths):
    """λ and m from the joint law of the scales of the singular values of the partial products.

    Layers in ascending order of width; ``σ_i² = c^(-β_i)``, β ascending. Given α before a layer
    with n rows, β has density ``c^-E`` with ``2 E = Σ (n - k + 1 + 2 (k - i)) β_i - n Σ α_i +
    Σ_{i<j} max(α_j - β_i, 0)``, and the product is of size ``c^(-1/2)`` once ``β_1 ≥ 1``.
    """
    n = sorted(widths)
    k, layers = n[0], len(n) - 1
    pairs = list(itertools.combinations(range(k), 2))
    total = layers * (k + len(pairs))
    costs, rows, lower = np.zeros(total), [], []

    def at_least(terms, bound=0.0):
        row = np.zeros(total)
        for index, sign in terms:
            row[index] += sign
        rows.append(row)
        lower.append(bound)

    for layer in range(layers):
        now, before = layer * k, (layer - 1) * k
        for i in range(k):
            costs[now + i] += n[layer + 1] - k + 1 + 2 * (k - 1 - i)
            if layer:
                costs[before + i] -= n[layer + 1]
                at_least([(now + i, 1), (before + i, -1)])
            if i:
                at_least([(now + i, 1), (now + i - 1, -1)])
        for number, (i, j) in enumerate(pairs):
            slack = layers * k + layer * len(pairs) + number
            costs[slack] = 1.0
            old = [(before + j, -1)] if layer else []
            at_least([(slack, 1), (now + i, 1), *old])
    at_least([((layers - 1) * k, 1)], 1.0)
    value, dimension = linear_program(costs, rows, lower)
    return value / 2, 1 + dimension


def test_deep_linear_networks_have_the_diversity_of_product_channels():
    for length in (2, 3, 4, 5):
        for widths in itertools.combinations_with_replacement(range(1, 7), length):
            found = exact.deep_linear_network(widths).value
            assert (
                found == rayleigh_product(widths) == exact.deep_linear_network(widths[::-1]).value
            )


@pytest.mark.parametrize(
    "widths",
    [(1, 1), (2, 3), (1, 2, 2), (2, 2, 2), (2, 2, 3), (2, 3, 3), (3, 3, 5), (1, 1, 1, 1)]
    + [(1, 1, 2, 2), (2, 2, 2, 2), (2, 2, 2, 3), (2, 3, 3, 4), (3, 3, 3, 3), (2, 2, 2, 2, 2)],
)
def test_deep_linear_network_is_the_program_of_its_singular_values(widths):
    value, multiplicity = exact.deep_linear_network(widths)
    assert singular_value_program(widths) == (pytest.approx(float(value)), multiplicity)


@pytest.mark.parametrize(
    ("widths", "rank", "value", "multiplicity"),
    [
        ((5, 3, 5), 2, Fraction(19, 2), 2),
        ((10, 4, 10), 2, Fraction(51, 2), 1),
        ((2, 2, 2, 2), 1, 2, 3),
        ((4, 3, 5, 4), 1, 6, 1),
        ((5, 5, 5, 5, 5), 0, 8, 4),
        ((7, 9, 4, 12, 6), 1, 13, 1),
        ((100, 50, 100), 10, 2550, 1),
        ((10, 10, 10, 10), 5, 46, 3),
        ((3, 3, 3, 3), 3, Fraction(9, 2), 1),
        ((2, 3), 1, 3, 1),
    ],
)
def test_deep_linear_networks_of_positive_rank(widths, rank, value, multiplicity):
    assert exact.deep_linear_network(widths, rank) == (value, multiplicity)
    rest = exact.deep_linear_network([w - rank for w in widths if w > rank] or [1, 1])
    smooth = Fraction(rank * (widths[0] + widths[-1]) - rank**2, 2)
    if min(widths) > rank:
        assert (smooth + rest.value, rest.multiplicity) == (value, multiplicity)


# tanh networks


def trees(leaves):
    """Rooted binary trees with one leaf "0" and as many other leaves, as nested pairs."""

    def shapes(count, zero):
        if count + zero == 1:
            yield 0 if zero else "b"
            return
        for left in range(count + 1):
            if left < 1 and not zero:
                continue
            right = count - left
            if zero and right:  # The leaf 0 goes left.
                yield from itertools.product(shapes(left, True), shapes(right, False))
            elif not zero and left <= right:
                yield from itertools.product(shapes(left, False), shapes(right, False))

    return shapes(leaves, True)


def cluster_program(tree):
    """Exponent of ``∫ det(1 + c G)^(-1/2) db`` over weights b clustered as in a tree.

    An inner node says how close (``c^-e``) the b under it, 0 among them, come to each other; and
    ``det(1 + c G)`` is a sum over subsets S of units of ``c^|S| Π b_i² Π (b_i² - b_j²)²``.
    """
    parents, ancestors = [], {}

    def walk(node, path):
        if not isinstance(node, tuple):
            ancestors["0" if node == 0 else f"b{len(ancestors)}"] = path
            return
        parents.append(path[-1] if path else None)
        here = len(parents) - 1
        for child in node:
            walk(child, (*path, here))

    walk(tree, ())
    units = [name for name in ancestors if name != "0"]

    def meet(one, other):
        return max(set(ancestors[one]) & set(ancestors[other]), key=ancestors[one].index)

    def nearer_root(one, other):
        return min(one, other, key=ancestors["0"].index)

    size = len(parents)
    rows, lower = [], []
    for child, parent in enumerate(parents):
        if parent is not None:
            rows.append(np.eye(size + 1)[child] - np.eye(size + 1)[parent])
            lower.append(0.0)
    for count in range(1, len(units) + 1):
        for subset in itertools.combinations(units, count):
            row = np.eye(size + 1)[size]
            for i in subset:
                row[meet(i, "0")] += 2
            for i, j in itertools.combinations(subset, 2):
                row[meet(i, j)] += 2
                row[nearer_root(meet(i, "0"), meet(j, "0"))] += 2
            rows.append(row)
            lower.append(count)
    return linear_program(np.append(np.ones(size), 0.5), rows, lower)


@pytest.mark.parametrize("hidden", [1, 2, 3, 4, 5])
def test_tanh_network_is_the_program_over_clusters_of_units(hidden):
    programs = [cluster_program(tree) for tree in trees(hidden)]
    best = min(value for value, _ in programs)
    dimension = max(d for value, d in programs if value < best + 1e-9)
    value, multiplicity = exact.tanh_network(hidden)
    assert (best, 1 + dimension) == (pytest.approx(float(value)), multiplicity)


def test_tanh_unit_approaches_its_learning_coefficient():
    def mean(c):
        loss = lambda a, b: 0.5 * (a * np.tanh(b)) ** 2  # noqa: E731
        return exact.quadrature(loss, ORIGIN, **settings(c)).mean

    gaps = [float(exact.tanh_network(1).value) - mean(c) for c in (1e5, 1e8)]
    assert (1 / gaps[1] - 1 / gaps[0]) / math.log(1e3) == pytest.approx(1.0, rel=0.05)


# Mixtures, latent classes, factors


def divergence(truth, model):
    return np.sum(truth * np.log(truth / model) - truth + model, axis=-1)


def mixed_density(kind, offsets, weights):
    """Density of a mixture around parameter 0, at nodes, over weights of the nodes."""
    b = np.asarray(offsets)[..., None, :]
    if kind == "normal":
        x, w = hermegauss(20)
        ratio = np.exp(x[:, None] * b - 0.5 * b**2)
        base = w / w.sum()
    elif kind == "poisson":
        x = np.arange(40.0)
        base = np.exp(x * math.log(2.0) - 2.0 - special.gammaln(x + 1))
        ratio = np.exp(-b + x[:, None] * np.log1p(b / 2.0))
    else:
        x = np.arange(kind + 1.0)
        base = special.binom(kind, x) * 0.3**x * 0.7 ** (kind - x)
        ratio = (1 + b / 0.3) ** x[:, None] * (1 - b / 0.7) ** (kind - x[:, None])
    return base, base * np.sum(weights * ratio, axis=-1)


def moment_ratios(kind):
    """Least and largest excess loss over ``m_1² + m_2²``, far from 0 and close to it."""
    rng = np.random.default_rng(1)
    for scale in (0.1, 0.01):
        b = scale * rng.normal(size=(2000, 3))
        b[::2] -= b[::2].mean(axis=1, keepdims=True)  # On the plane of equal means.
        b[1::2] -= (1 - scale) * b[1::2].mean(axis=1, keepdims=True)  # And close to it.
        moments = b.mean(axis=1) ** 2 + (b**2).mean(axis=1) ** 2
        ratio = divergence(*mixed_density(kind, b, 1 / 3)) / moments
        yield ratio.min(), ratio.max()


@pytest.mark.parametrize("kind", ["normal", "poisson", 2, 5])
def test_excess_loss_of_mixtures_is_that_of_their_first_two_moments(kind):
    far, near = moment_ratios(kind)
    assert 0.5 < near[0] / far[0] < 2
    assert 0.5 < near[1] / far[1] < 2
    assert next(moment_ratios(1))[0] < 1e-6  # One trial sees the first moment only.


@pytest.mark.slow
def test_normal_mixture_is_the_limit_of_quadrature():
    def loss(a, b):
        return divergence(*mixed_density("normal", np.stack([a, b], axis=-1), 0.5))

    found = exact.quadrature(loss, ORIGIN, **settings(1e7, 20.0)).mean
    assert found == pytest.approx(float(exact.normal_mixture(2).value), abs=3e-3)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("components", [1, 2, 3, 4])
def test_mixtures_are_newton_polyhedra(components, dim):
    idle = components - 1
    rows, sizes = (
        [[1] + [0] * idle, *([0] + [2 * (i == j) for j in range(idle)] for i in range(idle))],
        None,
    )
    sizes = [dim] * (idle + 1)
    interior = exact.newton_polyhedron(rows, sizes=sizes)
    assert exact.normal_mixture(components, dim) == interior
    assert exact.normal_mixture(components, dim, weights="fixed") == interior
    for concentration in (1, 2):
        rows = [[1] + [0] * (2 * idle)] + [
            [0] + [int(i == j) for j in range(idle)] + [2 * (i == j) for j in range(idle)]
            for i in range(idle)
        ]
        boundary = exact.newton_polyhedron(
            rows,
            sizes=[dim] + [1] * idle + [dim] * idle,
            prior_exponents=[0] + [concentration - 1] * idle + [0] * idle,
        )
        found = exact.normal_mixture(
            components, dim, weights="simplex", concentration=concentration
        )
        assert found == boundary
        assert found.value <= interior.value


def test_mixtures_of_counts():
    assert exact.poisson_mixture(3) == exact.binomial_mixture(3, 2) == (1, 1)
    assert exact.binomial_mixture(3, 1) == (Fraction(1, 2), 1)
    assert exact.normal_mixture(3, 4, weights="simplex", concentration=Fraction(1, 2)).value == 2.5


def class_table(n, w):
    """Probabilities of all outcomes; w: skew s, marginal means, differences u between classes."""
    skew, means, apart = w[0], w[1 : n + 1], w[n + 1 :]
    outcomes = np.array(list(itertools.product([0, 1], repeat=n)))
    table = np.zeros(len(outcomes))
    for weight, sign in [((1 + skew) / 2, 1 - skew), ((1 - skew) / 2, -1 - skew)]:
        p = means + sign * apart
        table += weight * np.prod(np.where(outcomes, p, 1 - p), axis=1)
    return table


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_latent_classes(n):
    rng = np.random.default_rng(n)
    means = np.full(n, 0.5) + 0.1 * rng.uniform(size=n)
    free = [[int(i == j) for j in range(n)] + [0] * (n + 1) for i in range(n)]
    pairs = [
        [0] * n + [0] + [int(k in pair) for k in range(n)]
        for pair in itertools.combinations(range(n), 2)
    ]
    boundary = [[*row[:n], 1, *row[n + 1 :]] for row in pairs]
    assert exact.latent_class(n, "independent") == exact.newton_polyhedron(free + pairs)
    assert exact.latent_class(n, "boundary") == exact.newton_polyhedron(free + boundary)
    truth = class_table(n, np.concatenate([[0.0], means, np.zeros(n)]))
    ratios = []
    for edge, scale in itertools.product([1e-3, 1.0], [0.03, 0.1]):
        for _ in range(50):
            apart, shift = scale * rng.normal(size=n), scale**2 * edge * rng.normal(size=n)
            w = np.concatenate([[1 - edge * rng.uniform(0.5, 1)], means + shift, apart])
            covariances = (1 - w[0] ** 2) * np.outer(apart, apart)[np.triu_indices(n, 1)]
            size = np.sum(shift**2) + np.sum(covariances**2)
            ratios.append(divergence(truth, class_table(n, w)) / size)
    assert 0.5 < min(ratios) < max(ratios) < 20.0
    for structure, dependent in [("pair", 2), ("regular", 3)]:
        if dependent > n:
            continue
        apart = 0.1 * (np.arange(n) < dependent)
        point = np.concatenate([[0.2], means, apart])
        rank = jacobian_rank(lambda w: class_table(n, w), point, tol=1e-7)
        assert exact.latent_class(n, structure) == exact.regular(int(rank))


def covariance(p, k, w):
    loadings = w[p:].reshape(p, k)
    return (np.diag(w[:p]) + loadings @ loadings.T)[np.triu_indices(p)]


@pytest.mark.parametrize("p", [1, 2, 3, 4, 6])
def test_factor_analysis(p):
    rows = [[int(i == j) for j in range(2 * p)] for i in range(p)] + [
        [0] * p + [int(k in pair) for k in range(p)] for pair in itertools.combinations(range(p), 2)
    ]
    assert exact.factor_analysis(p) == exact.newton_polyhedron(rows)
    assert exact.factor_analysis(p).value == exact.factor_analysis_bound(p, 1)
    assert exact.factor_analysis(p, 0) == exact.regular(p)
    rng = np.random.default_rng(p)
    for k in (1, 2):
        rank = jacobian_rank(lambda w: covariance(p, k, w), rng.uniform(0.5, 2, p * (k + 1)))  # noqa: B023
        assert exact.factor_analysis_bound(p, k, k) == Fraction(int(rank), 2)
        if p > 2 and k == 1:
            assert exact.factor_analysis(p, 1, 1) == exact.regular(int(rank))


@pytest.mark.parametrize("p", [1, 2, 5])
def test_more_true_factors_than_variables_are_as_many_as_variables(p):
    for k in range(p, 12):
        bounds = {exact.factor_analysis_bound(p, k, true) for true in range(p, k + 1)}
        assert bounds == {Fraction(p * (p + 1), 4)}


# Expectations at finite n and γ

CASES = {
    "gaussian": lambda **k: exact.gaussian_linear([2.0, 0.5, 0.01], **k),
    "w^4": lambda **k: exact.product_of_powers([2], **k),
    "(w1 w2)^2 / 2": lambda **k: exact.product_of_powers([1, 1], scale=0.5, **k),
    "(w1 w2 w3)^2 / 2": lambda **k: exact.product_of_powers([1, 1, 1], scale=0.5, **k),
    "2,2,2": lambda **k: exact.rank_two_product(2, 2, **k),
    "tanh": lambda **k: exact.quadrature(tanh_loss, ORIGIN, **k),
    "2,2,3": lambda **k: exact.rank_two_product(2, 3, **k),
    "5,2,2": lambda **k: exact.rank_two_product(5, 2, **k),
    "3,1,3": lambda **k: exact.product_of_powers([1, 1], sizes=[3, 3], scale=0.5, **k),
    "w1^2 w2^4": lambda **k: exact.product_of_powers([1, 2], **k),
    "w1^2 + w2^4": lambda **k: exact.independent(
        exact.product_of_powers([1], **k), exact.product_of_powers([2], **k)
    ),
    "w1^4 + w2^6": lambda **k: exact.quadrature(lambda a, b: a**4 + b**6, ORIGIN, **k),
    "relu": lambda **k: exact.product_of_powers([1, 1], scale=0.25, **k),
    "circle": lambda **k: exact.quadrature(circle_loss, (1.0, 0.0), **k),
}
TABLE = {  # n = 1000 and 10000, γ = 1 and 10 each: mean and variance.
    "gaussian": "1.28718767 1.157933 0.98584367 0.861150 1.45668261 1.416923 1.24894071 1.112990",
    "w^4": "0.24309304 0.239697 0.19021959 0.164968 0.24745119 0.246185 0.22585391 0.214498",
    "(w1 w2)^2 / 2": "0.34734423 0.325240 0.16337858 0.106494 0.38247572 0.368840 "
    "0.26610465 0.223652",
    "(w1 w2 w3)^2 / 2": "0.25168935 0.226949 0.03556907 0.013854 0.29483000 0.276468 "
    "0.09411122 0.059588",
    "2,2,2": "1.37556712 1.327115 0.82696422 0.616050 1.44363106 1.421274 1.16534833 1.041547",
    "tanh": "0.37161650 0.353009 0.17992919 0.119273 0.39955006 0.389097 0.28299889 0.242895",
    "2,2,3": "1.74554386 1.689741 1.10280565 0.844425 1.82695957 1.798270 1.50540422 1.362434",
    "5,2,2": "1.97323873 1.952646 1.45776699 1.185280 1.99469217 1.990277 1.83085613 1.721745",
    "3,1,3": "1.28370679 1.241358 0.81519937 0.627807 1.34682425 1.323982 1.10657170 1.002745",
    "w1^2 w2^4": "0.20952939 0.199648 0.07295654 0.046793 0.22535812 0.219253 0.12591496 0.101037",
    "w1^2 + w2^4": "0.74137204 0.736261 0.67352675 0.632140 0.74722104 0.745724 "
    "0.72356188 0.709924",
    "w1^4 + w2^6": "0.39995353 0.393387 0.28149894 0.238181 0.40903359 0.406098 "
    "0.34819253 0.324276",
    "relu": "0.33057589 0.304155 0.12412955 0.068597 0.37224059 0.356261 0.23440080 0.185447",
    "circle": "0.50018497 0.500370 0.49247832 0.484943 0.50002468 0.500049 0.49899896 0.497998",
}


def tanh_loss(a, b):
    x = np.linspace(-2.0, 2.0, 41)
    return 0.5 * np.mean((a[:, None] * np.tanh(b[:, None] * x)) ** 2, axis=1)


def circle_loss(a, b):
    return 0.5 * (a**2 + b**2 - 1.0) ** 2


@pytest.mark.parametrize("name", CASES)
def test_table_to_the_printed_digits(name):
    rows = np.array(TABLE[name].split(), float).reshape(4, 2)
    cells = itertools.product([1000, 10000], [1.0, 10.0])
    found = [CASES[name](num_data=n, localization=gamma) for n, gamma in cells]
    assert (np.abs(rows - found).max(axis=0) < [5.1e-9, 5.1e-7]).all()


@pytest.mark.parametrize(
    ("center", "listed"),
    [
        ((0, 1), (0.42675661, 0.48140279)),
        ((1, 0), (0.14315604, 0.20136112)),
        ((0, 0), (0.02689532, 0.07127211)),
    ],
)
def test_points_of_one_loss_differ(center, listed):
    def loss(a, b):
        return a**2 * b**4

    found = [
        exact.quadrature(loss, center, num_data=n, localization=20).mean for n in (1000, 10000)
    ]
    assert found == pytest.approx(listed, abs=5.1e-9)


def test_regression_on_noisy_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 5)) * [2, 1, 0.5, 0.2, 0.05]
    y = x @ np.ones(5) + rng.normal(size=500)
    away = 1.0 - np.linalg.lstsq(x, y, rcond=None)[0]
    listed = {0.0: (1.93552767, 1.38577325, 0.69767738), 1.0: (1.61470969, 1.11939534, 0.57889928)}
    for scale, means in listed.items():
        found = [
            exact.gaussian_linear(
                x.T @ x / 500, displacement=scale * away, num_data=500, localization=gamma
            )
            for gamma in (1.0, 10.0, 100.0)
        ]
        assert [e.mean for e in found] == pytest.approx(means, abs=5.1e-9)


@pytest.mark.slow
def test_logistic_regression_on_noisy_data():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1000, 2))
    y = rng.random(1000) < special.expit(x @ [1, -0.5])

    def loss(a, b):
        total = 0.0
        for (u, v), label in zip(x, y, strict=True):
            logit = u * a + v * b
            total = total + np.logaddexp(0.0, logit) - label * logit
        return total / 1000

    center = (1.00120888, -0.64729716)
    found = exact.quadrature(loss, center, num_data=1000, localization=10.0)
    assert found == (pytest.approx(0.68748431, abs=5e-8), pytest.approx(0.473004, abs=5e-7))


HESSIAN = np.array([[2.0, 0.6], [0.6, 0.3]])
PRECISION = np.array([[3.0, -1.0], [-1.0, 5.0]])


def gaussian_moments(mean, covariance_, function):
    """Mean and variance of a quadratic function under a Gaussian, by Gauss-Hermite."""
    x, w = hermegauss(6)
    points = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
    weights = np.outer(w, w).ravel() / (2 * np.pi)
    values = function(mean + points @ np.linalg.cholesky(covariance_).T)
    first = weights @ values
    return first, weights @ (values - first) ** 2


@pytest.mark.parametrize("step_size", [None, 1e-3, 0.05])
@pytest.mark.parametrize("localization", [3.0, [1.0, 7.0], PRECISION])
def test_gaussian_is_the_fixed_point_of_the_langevin_recursion(localization, step_size):
    c, away = 10.0, np.array([0.3, -0.2])
    precision = np.asarray(localization) * np.eye(2) if np.ndim(localization) < 2 else localization
    a = c * HESSIAN + precision
    if step_size is None:
        mean, spread = np.linalg.solve(a, -c * HESSIAN @ away), np.linalg.inv(a)
    else:
        decay, mean, spread = np.eye(2) - step_size / 2 * a, np.zeros(2), np.zeros((2, 2))
        for _ in range(int(60 / step_size / np.linalg.eigvalsh(a)[0]) + 1):
            mean = decay @ mean - step_size / 2 * c * HESSIAN @ away
            spread = decay @ spread @ decay + step_size * np.eye(2)

    def llc(offset):
        moved = offset + away
        return c / 2 * (np.einsum("zi,ij,zj->z", moved, HESSIAN, moved) - away @ HESSIAN @ away)

    found = exact.gaussian_linear(
        HESSIAN, displacement=away, step_size=step_size, **settings(c, localization)
    )
    assert found == pytest.approx(gaussian_moments(mean, spread, llc), rel=1e-9)
    if step_size == 0.05:
        exact_draws = exact.gaussian_linear(HESSIAN, displacement=away, **settings(c, localization))
        assert found.variance > 1.2 * exact_draws.variance


def test_gaussian_is_the_quadrature():
    away = np.array([0.05, -0.02])

    def loss(a, b):
        x = np.stack([a, b], axis=-1)
        return 0.5 * np.einsum("zi,ij,zj->z", x, HESSIAN, x)

    for c, gamma in itertools.product([1.0, 300.0], [0.1, 10.0]):
        found = exact.quadrature(loss, away, **settings(c, gamma))
        closed = exact.gaussian_linear(HESSIAN, displacement=away, **settings(c, gamma))
        assert found == pytest.approx(closed, rel=1e-8)
    diagonal = exact.gaussian_linear([2.0, 0.3], displacement=away, num_data=50)
    dense = exact.gaussian_linear(np.diag([2.0, 0.3]), displacement=away, num_data=50)
    assert diagonal == pytest.approx(dense, rel=1e-13)


EXTREMES = list(itertools.product([1.0, 1e3, 1e6], [0.1, 1.0, 100.0]))


@pytest.mark.parametrize(("c", "gamma"), EXTREMES)
def test_products_are_bessel_functions(c, gamma):
    def logarithmic_slope(order, u):
        return special.kvp(order, u) / special.kv(order, u)

    u = gamma**2 / (8 * c)
    if u < 600:
        found = exact.product_of_powers([1, 1], **settings(c, gamma)).mean
        closed = 0.5 + u + u * logarithmic_slope(0, u)
        assert found == pytest.approx(closed, abs=1e-12 * (1 + u))
    u = gamma**2 / (32 * c)
    found = exact.product_of_powers([2], **settings(c, gamma)).mean
    closed = 0.5 + u + u * logarithmic_slope(0.25, u)
    assert found == pytest.approx(closed, abs=1e-12 * (1 + u))


@pytest.mark.parametrize(("c", "gamma"), EXTREMES)
def test_products_are_quadratures(c, gamma):
    losses = {
        (3,): (lambda a: 0.7 * a**6, 0.0),
        (1, 1): (lambda a, b: 0.7 * (a * b) ** 2, ORIGIN),
        (1, 3): (lambda a, b: 0.7 * a**2 * b**6, ORIGIN),
    }
    for exponents, (loss, center) in losses.items():
        closed = exact.product_of_powers(exponents, scale=0.7, **settings(c, gamma))
        assert exact.quadrature(loss, center, **settings(c, gamma)) == pytest.approx(
            closed, rel=1e-9
        )


@pytest.mark.parametrize(("size", "power"), [(3, 2), (2, 1), (40, 1)])
def test_blocks_of_products_are_radial_integrals(size, power):
    c, gamma = 30.0, 2.0

    def moment(order):
        def integrand(r):
            f = c * r ** (2 * power)
            return f**order * r ** (size - 1) * math.exp(-f - gamma / 2 * r**2)

        return quad(integrand, 0, 6, epsabs=0, epsrel=1e-12, limit=500)[0]

    weight, first, second = (moment(order) for order in range(3))
    mean, variance = first / weight, second / weight - (first / weight) ** 2
    found = exact.product_of_powers([power], sizes=[size], **settings(c, gamma))
    assert found == pytest.approx((mean, variance), rel=1e-9)
    if power == 1:
        regular = exact.gaussian_linear([2.0] * size, **settings(c, gamma))
        assert found == pytest.approx(regular, rel=1e-11)


@pytest.mark.parametrize(("c", "gamma"), EXTREMES)
def test_rank_two_products_with_one_output_have_one_unit(c, gamma):
    for inputs in (1, 2, 5, 60):
        closed = exact.product_of_powers([1, 1], sizes=[2, inputs], scale=0.5, **settings(c, gamma))
        assert exact.rank_two_product(inputs, 1, **settings(c, gamma)) == pytest.approx(
            closed, rel=1e-9
        )
        mirrored = exact.rank_two_product(3, inputs, **settings(c, gamma))
        straight = exact.rank_two_product(inputs, 3, **settings(c, gamma))
        assert mirrored == pytest.approx(straight, rel=1e-8)


@pytest.mark.parametrize("shape", [(3, 2, 4), (2, 5, 3)])
def test_rank_two_products_are_averages_over_weighted_matrices(shape):
    inputs, hidden, outputs = shape
    c, gamma, draws = 40.0, 3.0, 200_000
    rng = np.random.default_rng(0)
    layer = rng.normal(size=(draws, hidden, inputs)) / math.sqrt(gamma)
    values = c / gamma * np.linalg.svd(layer, compute_uv=False) ** 2
    weight = np.prod((1 + values) ** (-outputs / 2), axis=1)
    weight /= weight.sum()
    shrinkage = values / (1 + values)
    given = outputs / 2 * shrinkage.sum(axis=1)
    mean = weight @ given
    second = given**2 + outputs / 2 * (shrinkage**2).sum(axis=1)
    errors = [
        math.sqrt(np.sum(weight**2 * (x - weight @ x) ** 2))
        for x in (given, second - 2 * mean * given)
    ]
    widths = sorted(shape)  # The law is the same for each order of the widths.
    found = exact.rank_two_product(*widths[1:], **settings(c, gamma))
    assert abs(found.mean - mean) < 4 * errors[0]
    assert abs(found.variance - (weight @ second - mean**2)) < 4 * errors[1]
    wrong = exact.rank_two_product(*widths[1:], scale=1.0, **settings(c, gamma))
    assert abs(wrong.mean - mean) > 4 * errors[0]


SMOOTH = [*CASES, "logistic"]


def value_of(name, c, gamma):
    if name == "logistic":
        return exact.quadrature(half_log_cosh, ORIGIN, **settings(c, gamma))
    return CASES[name](**settings(c, gamma))


def half_log_cosh(a, b):
    return np.logaddexp(0.5 * a * b, -0.5 * a * b) - math.log(2.0)


@pytest.mark.parametrize("name", SMOOTH)
def test_mean_rises_with_temperature_by_mean_less_variance(name):
    c, gamma, step = 50.0, 2.0, 0.01
    up, down = (value_of(name, c * math.exp(s), gamma).mean for s in (step, -step))
    mean, variance = value_of(name, c, gamma)
    assert (up - down) / (2 * step) == pytest.approx(mean - variance, abs=2e-5)


@pytest.mark.parametrize(
    ("name", "degree"), [("w^4", 4), ("(w1 w2 w3)^2 / 2", 6), ("2,2,3", 4), ("3,1,3", 4)]
)
def test_homogeneous_losses_depend_on_one_number(name, degree):
    mean, variance = value_of(name, 50.0, 2.0)
    up, down = (value_of(name, 50.0, 2.0 * math.exp(s)).mean for s in (0.01, -0.01))
    assert (up - down) / 0.02 == pytest.approx(-degree / 2 * (mean - variance), abs=1e-4)
    assert value_of(name, 50.0 * 3 ** (degree / 2), 6.0) == pytest.approx(
        (mean, variance), rel=1e-8
    )


def test_mean_falls_with_localization_by_half_a_covariance():
    c, gamma = 50.0, 2.0
    x = np.linspace(-7.0, 7.0, 1401)
    a, b = x[:, None], x[None, :]
    f, distance = c * half_log_cosh(a, b), a**2 + b**2
    weight = np.exp(-f - gamma / 2 * distance)
    weight /= weight.sum()
    mean = np.sum(weight * f)
    covariance_ = np.sum(weight * (f - mean) * distance)
    found = value_of("logistic", c, gamma)
    assert found == pytest.approx((mean, np.sum(weight * (f - mean) ** 2)), rel=1e-7)
    up, down = (value_of("logistic", c, gamma + s).mean for s in (0.01, -0.01))
    assert (up - down) / 0.02 == pytest.approx(-covariance_ / 2, rel=1e-4)


@pytest.mark.parametrize(("c", "gamma"), [(1.0, 0.1), (1e3, 10.0), (1e4, 1.0)])
def test_quadrature_follows_a_curved_valley(c, gamma):
    """The circle, by an integral over its radius: the angle gives a Bessel function."""
    edges = np.unique(np.concatenate([1 - 0.5 ** np.arange(13), 1 + 0.5 ** np.arange(13), [4, 30]]))
    nodes, weights = leggauss(40)
    half = np.diff(edges)[:, None] / 2
    r = edges[:-1, None] + half * (nodes + 1)
    f = c / 2 * (r**2 - 1) ** 2
    weight = half * weights * r * np.exp(-f - gamma / 2 * (r - 1) ** 2) * special.ive(0, gamma * r)
    mean = np.sum(weight * f) / weight.sum()
    variance = np.sum(weight * (f - mean) ** 2) / weight.sum()
    found = exact.quadrature(circle_loss, (1.0, 0.0), **settings(c, gamma))
    assert found == pytest.approx((mean, variance), rel=1e-9)


def test_quadrature_of_hard_cases():
    narrow = exact.quadrature(
        lambda a, b: 0.5 * (1e6 * a**2 + 1e-3 * b**2), ORIGIN, **settings(1e3)
    )
    closed = exact.gaussian_linear([1e6, 1e-3], **settings(1e3))
    assert narrow == pytest.approx(closed, rel=1e-9)
    oblique = exact.quadrature(lambda a, b: 0.5 * (a + 2 * b) ** 2, ORIGIN, **settings(1e3))
    closed = exact.gaussian_linear([[1, 2], [2, 4]], **settings(1e3))
    assert oblique == pytest.approx(closed, rel=1e-9)
    rotated = exact.quadrature(lambda a, b: 0.125 * (a**2 - b**2) ** 2, ORIGIN, **settings(1e3))
    crossing = exact.product_of_powers([1, 1], scale=0.5, **settings(1e3))
    assert rotated == pytest.approx(crossing, rel=1e-9)
    # Far below the loss at the center.
    away = exact.quadrature(lambda a: 0.5 * (a - 2) ** 2, 0.0, **settings(1e3))
    closed = exact.gaussian_linear([1.0], displacement=[-2.0], **settings(1e3))
    assert away == pytest.approx(closed, rel=1e-8)
    assert exact.quadrature(lambda a, b: 0 * a, ORIGIN, **settings(1e3)) == (0.0, 0.0)
    raised = exact.quadrature(lambda a: a**2 + 5.0, [0.0], num_data=1000)
    assert raised == pytest.approx(exact.gaussian_linear([2.0], num_data=1000), rel=1e-9)


@pytest.mark.parametrize("n", [10**3, 10**6, 10**9, 10**12, 10**15])
def test_quadrature_keeps_the_variance_far_below_the_loss_at_the_center(n):
    found = exact.quadrature(lambda w: 5 * (w - 3) ** 2, 0.0, num_data=n)
    closed = exact.gaussian_linear([10.0], displacement=[-3.0], num_data=n)
    assert found == pytest.approx(closed, rel=1e-8)


@pytest.mark.parametrize("n", [10**7, 10**9, 10**11, 10**13, 10**16])
def test_quadrature_is_exact_or_says_that_the_loss_lacks_the_digits(n):
    try:
        found = exact.quadrature(lambda w: 0.5 * (w - 1) ** 2 + 100, 1.0, num_data=n)
    except ArithmeticError as refused:
        said = str(refused)
        assert n > 10**8
        assert "`loss` is not precise enough" in said
        return
    assert n < 10**10
    assert found == pytest.approx(exact.gaussian_linear([1.0], num_data=n), rel=1e-8)


def test_extreme_scales_are_taken_in_logs():
    regular = exact.product_of_powers([1], scale=1e300, num_data=10**18)
    assert regular == pytest.approx((0.5, 0.5), rel=1e-9)
    tiny = exact.product_of_powers([1, 1], localization=1e-310, num_data=1000)
    assert tiny.mean == pytest.approx(0.5, abs=1e-3)
    # A power of γ and the same power of κ are one number.
    one = exact.rank_two_product(3, 4, scale=1e-60, localization=1e-30, num_data=1000)
    assert one == pytest.approx(exact.rank_two_product(3, 4, scale=1.0, num_data=1000), rel=1e-9)


def test_small_integers_of_numpy_do_not_overflow():
    ranks = {"rank_first": np.int8(100), "rank_second": np.int8(0)}
    wide = [np.int8(100)] * 3
    assert exact.reduced_rank_regression(*wide, **ranks) == (5000, 1)
    assert exact.matrix_factorization(*wide, np.int8(0), **ranks) == (5000, 1)


# What must hold for all arguments

few = hypothesis_settings(max_examples=60, deadline=None, derandomize=True)
numbers = st.floats(0.2, 5.0)


@st.composite
def polyhedra(draw):
    """Exponents without a row of zeros, sizes and powers of the prior."""
    columns = draw(st.integers(1, 4))
    entries = st.lists(st.integers(0, 4), min_size=columns, max_size=columns)
    rows = draw(st.lists(entries.filter(any), min_size=1, max_size=4))
    sizes = draw(st.lists(st.integers(1, 3), min_size=columns, max_size=columns))
    prior = draw(st.lists(st.integers(0, 2), min_size=columns, max_size=columns))
    return np.array(rows), np.array(sizes), np.array(prior)


def polyhedron(rows, sizes, prior):
    return exact.newton_polyhedron(rows, sizes=sizes, prior_exponents=prior)


@few
@given(polyhedra(), st.randoms(), st.integers(2, 5))
def test_polyhedra_know_no_order_names_or_redundant_monomials(problem, random, factor):
    rows, sizes, prior = problem
    value, multiplicity = polyhedron(*problem)
    rank, file = (random.sample(range(size), size) for size in rows.shape)
    assert polyhedron(rows[rank][:, file], sizes[file], prior[file]) == (value, multiplicity)
    assert polyhedron(factor * rows, sizes, prior) == (value / factor, multiplicity)
    multiple = np.vstack([rows, rows[0] + random.choice(rows.tolist())])
    assert polyhedron(multiple, sizes, prior) == (value, multiplicity)
    assert polyhedron(rows, sizes + prior, 0 * prior) == (value, multiplicity)
    idle = np.pad(rows, [(0, 0), (0, 1)])  # a parameter that no monomial has
    assert polyhedron(idle, [*sizes, 3], [*prior, 0]) == (value, multiplicity)


@few
@given(polyhedra(), polyhedra())
def test_polyhedra_of_separate_parameters_add(one, other):
    apart = np.block(
        [
            [one[0], np.zeros((len(one[0]), len(other[1])), int)],
            [np.zeros((len(other[0]), len(one[1])), int), other[0]],
        ]
    )
    both = polyhedron(apart, *(np.append(x, y) for x, y in zip(one[1:], other[1:], strict=True)))
    assert both == exact.independent(polyhedron(*one), polyhedron(*other))


@few
@given(st.lists(st.integers(1, 60), min_size=2, max_size=7), st.randoms())
def test_linear_networks_split_off_their_rank_and_know_no_order(widths, random):
    rank = random.randint(0, min(widths) - 1)
    value, multiplicity = exact.deep_linear_network(widths, rank)
    rest = [width - rank for width in widths]
    smooth = Fraction(rank * (widths[0] + widths[-1] - rank), 2)
    shuffled = exact.deep_linear_network(random.sample(rest, len(rest)))
    assert (value, multiplicity) == (smooth + shuffled.value, shuffled.multiplicity)
    assert shuffled.value == rayleigh_product(rest)
    if len(widths) == 3:
        assert exact.reduced_rank_regression(*widths, rank) == (value, multiplicity)
    wide = [*rest[:1], sum(rest), *rest[1:]]  # a layer as wide as all others narrows nothing
    assert exact.deep_linear_network(wide) == shuffled
    parameters = sum(x * y for x, y in itertools.pairwise(rest))
    assert shuffled.value <= Fraction(min(parameters, rest[0] * rest[-1]), 2)


@few
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 6)), min_size=1, max_size=4), numbers)
def test_products_of_powers_know_no_order_and_one_number(factors, gamma):
    powers, sizes = zip(*factors, strict=True)
    found = exact.product_of_powers(powers, sizes=sizes, **settings(7.0, gamma))
    back = exact.product_of_powers(powers[::-1], sizes=sizes[::-1], **settings(7.0, gamma))
    scale = gamma ** -sum(powers)  # of coordinates in units of 1/sqrt(γ)
    units = exact.product_of_powers(powers, sizes=sizes, scale=scale, **settings(7.0))
    warmer = exact.product_of_powers(powers, sizes=sizes, scale=7.0, **settings(1.0, gamma))
    assert found == pytest.approx(back, rel=1e-9)
    assert found == pytest.approx(units, rel=1e-9)
    assert found == pytest.approx(warmer, rel=1e-9)


@few
@given(st.integers(1, 4), st.integers(0, 10**6), numbers, st.booleans())
def test_gaussian_expectations_know_no_coordinates(dim, seed, factor, is_langevin):
    rng = np.random.default_rng(seed)
    root, other, delta = (
        rng.normal(size=(dim, dim)),
        rng.normal(size=(dim, dim)),
        rng.normal(size=dim),
    )
    h, gamma = root @ root.T, other @ other.T + 0.1 * np.eye(dim)
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    step = 0.5 / np.linalg.eigvalsh(9 * h + gamma).max() if is_langevin else None

    def expectation(h, gamma, delta, step=step):
        return exact.gaussian_linear(h, displacement=delta, step_size=step, **settings(9.0, gamma))

    found = expectation(h, gamma, delta)
    assert found == pytest.approx(
        expectation(turn @ h @ turn.T, turn @ gamma @ turn.T, turn @ delta), rel=1e-7
    )
    stretched = expectation(factor * h, factor * gamma, delta / factor**0.5, step and step / factor)
    assert found == pytest.approx(stretched, rel=1e-7)
    assert found == pytest.approx(expectation(h, gamma, -delta), rel=1e-7)


@hypothesis_settings(few, max_examples=8)
@given(st.lists(numbers, min_size=3, max_size=3), numbers, st.floats(-3.0, 3.0))
def test_quadrature_knows_no_place_unit_or_order(coefficients, unit, place):
    def loss(a, b):
        return coefficients[0] * a**2 + coefficients[1] * (a * b) ** 2 + coefficients[2] * b**4

    found = exact.quadrature(loss, ORIGIN, **settings(20.0, 2.0))
    turned = exact.quadrature(lambda a, b: loss(b, a), ORIGIN, **settings(20.0, 2.0))
    moved = exact.quadrature(
        lambda a, b: loss((a - place) * unit, (b + place) * unit) + place,
        (place, -place),
        **settings(20.0, 2.0 * unit**2),
    )
    assert found == pytest.approx(turned, rel=1e-7)
    assert found == pytest.approx(moved, rel=1e-7)


# Refusals


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: exact.regular(-1), ValueError, "`dim` must be at least 0; got -1"),
        (lambda: exact.normal_crossing([0, 0]), ValueError, "`exponents` must have a positive"),
        (lambda: exact.normal_crossing([1.5]), TypeError, "`exponents` must be an integer"),
        (lambda: exact.normal_crossing(3), TypeError, "`exponents` must be a sequence"),
        (lambda: exact.normal_crossing([1, 1], [1]), ValueError, "`sizes` must have 2 entries"),
        (lambda: exact.newton_polyhedron([[1, 0], [0, 0]]), ValueError, "a row of zeros"),
        (lambda: exact.newton_polyhedron([[1, 0], [1]]), ValueError, "must have 2 entries; got 1"),
        (lambda: exact.newton_polyhedron([1, 2]), TypeError, "a sequence of rows"),
        (lambda: exact.newton_polyhedron([[]]), TypeError, "a sequence of rows"),
        (lambda: exact.newton_polyhedron(3), TypeError, "a sequence of rows"),
        (lambda: exact.reduced_rank_regression(0, 1, 1), ValueError, "`inputs` must be at least"),
        (lambda: exact.matrix_factorization(1, 0, 1), ValueError, "`inner` must be at least 1"),
        (
            lambda: exact.reduced_rank_regression(3, 2, 3, 3),
            ValueError,
            "`rank` must be at most the smallest width 2; got 3",
        ),
        (
            lambda: exact.reduced_rank_regression(2, 2, 2, rank_first=1),
            ValueError,
            "must be given together",
        ),
        (
            lambda: exact.reduced_rank_regression(2, 2, 2, 1, rank_first=0, rank_second=1),
            ValueError,
            "`rank_first` must lie between `rank` = 1",
        ),
        (
            lambda: exact.reduced_rank_regression(2, 2, 2, 0, rank_first=2, rank_second=1),
            ValueError,
            "must be at most the inner width 2; got 3",
        ),
        (lambda: exact.deep_linear_network([3]), ValueError, "`widths` must have at least 2"),
        (lambda: exact.deep_linear_network([3, 2, 3], 3), ValueError, "`rank` must be at most"),
        (lambda: exact.tanh_network(0), ValueError, "`hidden` must be at least 1"),
        (lambda: exact.normal_mixture(2, weights="x"), ValueError, "`weights` must be 'free'"),
        (
            lambda: exact.normal_mixture(2, concentration=2),
            ValueError,
            "`concentration` must be left out",
        ),
        (
            lambda: exact.normal_mixture(2, weights="simplex", concentration=0),
            ValueError,
            "`concentration` must be finite and positive",
        ),
        (
            lambda: exact.normal_mixture(2, weights="simplex", concentration="x"),
            TypeError,
            "`concentration` must be a number",
        ),
        (
            lambda: exact.normal_mixture(2, weights="simplex", concentration=True),
            TypeError,
            "`concentration` must be a number",
        ),
        (
            lambda: exact.normal_mixture(2, weights="simplex", concentration=2**0.5),
            ValueError,
            "`concentration` must be a fraction",
        ),
        (lambda: exact.binomial_mixture(2, 0), ValueError, "`trials` must be at least 1"),
        (lambda: exact.latent_class(3, "x"), ValueError, "`structure` must be one of"),
        (lambda: exact.latent_class(2, ["pair"]), ValueError, "`structure` must be one of"),
        (lambda: exact.latent_class(2, "regular"), ValueError, "`features` must be at least 3"),
        (lambda: exact.factor_analysis(4, 2), ValueError, "factor_analysis_bound gives an upper"),
        (lambda: exact.factor_analysis(2, 1, 1), ValueError, "`variables` at least 3"),
        (lambda: exact.factor_analysis(4, 1, 2), ValueError, "`true_factors` must be at most"),
        (lambda: exact.independent(), TypeError, "got none"),
        (
            lambda: exact.independent(exact.regular(1), exact.Expectation(1.0, 1.0)),
            TypeError,
            "`blocks` must be one or more Expectation",
        ),
        (lambda: exact.gaussian_linear([1.0], num_data=1), ValueError, "`num_data` must be at"),
        (
            lambda: exact.gaussian_linear([1.0], num_data=9, inverse_temperature=0),
            ValueError,
            "`inverse_temperature` must be finite and positive",
        ),
        (
            lambda: exact.gaussian_linear([1.0, 0.0], num_data=9, localization=0.0),
            ValueError,
            "`localization` must make",
        ),
        (
            lambda: exact.gaussian_linear([1.0], num_data=9, localization=-1.0),
            ValueError,
            "`localization` must be finite and at least 0",
        ),
        (
            lambda: exact.gaussian_linear([1.0], num_data=9, localization=[1.0, 2.0]),
            ValueError,
            "`localization` must be a number or have 1 rows",
        ),
        (
            lambda: exact.gaussian_linear([1.0, 1.0], num_data=9, localization=[-1.0, 2.0]),
            ValueError,
            "`localization` must be at least 0; got -1",
        ),
        (
            lambda: exact.gaussian_linear(
                np.eye(2), num_data=9, localization=[[1.0, 2.0], [2.0, 1.0]]
            ),
            ValueError,
            "`localization` must be at least 0; got -1, the smallest entry or eigenvalue",
        ),
        (
            lambda: exact.gaussian_linear([[1.0, 2.0], [0.0, 1.0]], num_data=9),
            ValueError,
            "`hessian` must be symmetric",
        ),
        (
            lambda: exact.gaussian_linear([[1.0, 2.0]], num_data=9),
            ValueError,
            "`hessian` must be a square matrix",
        ),
        (
            lambda: exact.gaussian_linear([1.0], displacement=[1.0, 2.0], num_data=9),
            ValueError,
            "`displacement` must be 1 finite numbers",
        ),
        (
            lambda: exact.gaussian_linear([3.0], step_size=1.0, **settings(1.0)),
            ValueError,
            "`step_size` must be below 1, where",
        ),
        (lambda: exact.product_of_powers([0], num_data=9), ValueError, "`exponents` must be at"),
        (
            lambda: exact.product_of_powers([1, 1], sizes=[10**8] * 2, num_data=9),
            ValueError,
            "`sizes` must leave min n_i / \\(2 k_i\\) at most 100000",
        ),
        (
            lambda: exact.product_of_powers([1], scale=0, num_data=9),
            ValueError,
            "`scale` must be finite and positive",
        ),
        (lambda: exact.rank_two_product(1001, 2, num_data=9), ValueError, "must be at most 1000"),
        (
            lambda: exact.rank_two_product(2, 2, localization=0, num_data=9),
            ValueError,
            "`localization` must be finite and positive",
        ),
        (
            lambda: exact.quadrature(lambda a: a, [0, 0, 0], num_data=9),
            ValueError,
            "`center` must be one or two finite numbers",
        ),
        (
            lambda: exact.quadrature(lambda a: np.where(a > 1, np.nan, a), 0.0, num_data=9),
            ValueError,
            "`loss` must be finite",
        ),
        (
            lambda: exact.quadrature(lambda a, b: np.mean(a * b), ORIGIN, num_data=9),
            ValueError,
            "`loss` must give one value for each point",
        ),
        (
            lambda: exact.quadrature(lambda a: -(a**4), 0.0, num_data=9),
            ArithmeticError,
            "`center` is too far from the mass: it reaches the edge of the box of ± 9.5 around",
        ),
        (
            lambda: exact.quadrature(lambda w: (w - 20) ** 2 / 2, 0.0, num_data=10**4),
            ArithmeticError,
            "Start at the minimum of `loss`, or lower `localization`",
        ),
        (
            lambda: exact.quadrature(lambda a, b: (a - 20) ** 2 + b**2, ORIGIN, num_data=10**4),
            ArithmeticError,
            "reaches the edge of the box",
        ),
        (
            lambda: exact.quadrature(lambda a: (a - 1e15) ** 2, 1e15, num_data=1000),
            ArithmeticError,
            "`loss` is not precise enough: its rounding, or that of its arguments",
        ),
        *[
            (
                lambda center=center: exact.quadrature(lambda a: a**2, center, num_data=9),
                TypeError,
                "`center` must hold real numbers; got",
            )
            for center in ("x", {"w": 0}, True, 1j, [[1], [1, 2]], None)
        ],
        *[
            (
                lambda loss=loss: exact.quadrature(loss, 0.0, num_data=9),
                TypeError,
                "`loss` must be a function of 1 vector of coordinates",
            )
            for loss in (3, lambda a, b: a * b, lambda: 0)
        ],
        *[
            (
                lambda loss=loss: exact.quadrature(loss, 0.0, num_data=9),
                TypeError,
                "`loss` must hold real numbers; got",
            )
            for loss in (lambda a: a**2 + 1j * a, lambda a: ["x"] * len(a), lambda a: None)
        ],
        *[
            (
                lambda h=h: exact.gaussian_linear(h, num_data=9),
                TypeError,
                "`hessian` must hold real numbers; got",
            )
            for h in ("abc", [[1], [1, 2]], [[True]], np.array([[2, 1j], [-1j, 2]]))
        ],
        (
            lambda: exact.gaussian_linear([1.0], displacement="x", num_data=9),
            TypeError,
            "`displacement` must hold real numbers; got 'x'",
        ),
        (
            lambda: exact.rank_two_product(3, 4, localization=1e-300, num_data=9),
            ValueError,
            "`scale` and `localization` must leave k",
        ),
        (
            lambda: exact.rank_two_product(3, 4, scale=1e300, num_data=10**18),
            ValueError,
            "`scale` and `localization` must leave k",
        ),
        (
            lambda: exact.product_of_powers([10**400], num_data=9),
            ValueError,
            "`exponents` and `sizes` must be at most 1e\\+09",
        ),
    ],
)
def test_refusals(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_arrays_and_short_fractions_are_taken():
    rows = np.array([[1, 2], [3, 0]])
    wanted = exact.newton_polyhedron(rows.tolist())
    assert exact.newton_polyhedron(rows) == exact.newton_polyhedron(list(rows)) == wanted
    tenth, third = (
        exact.normal_mixture(2, weights="simplex", concentration=x) for x in (0.1, np.int64(3))
    )
    assert tenth.value == Fraction(1, 2) + Fraction(1, 20)
    assert third == (Fraction(3, 4), 1)
    c, semidefinite = 9 / math.log(9), np.ones((2, 2))
    found = exact.gaussian_linear(np.eye(2), num_data=9, localization=semidefinite)
    shares = np.array([1.0, c / (c + 2)])  # of the directions (1, -1) and (1, 1)
    assert found == pytest.approx((shares.sum() / 2, (shares**2).sum() / 2))


def test_products_of_the_largest_blocks_are_as_good_as_their_limit():
    """``c |w1|² |w2|²``: given t = |w1|² it is Gamma(n/2, 1) times 2 c t / (2 c t + γ)."""
    n, c = 99_999, 1000 / math.log(1000)
    log_t = np.linspace(-30, 20, 200_001)
    t = np.exp(log_t)
    log_weight = n / 2 * (log_t - np.log1p(2 * c * t)) - t / 2
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    share = 2 * c * t / (1 + 2 * c * t)
    mean = n / 2 * (weight @ share)
    variance = n / 2 * (weight @ share**2) + (n / 2) ** 2 * (weight @ (share - weight @ share) ** 2)
    found = exact.product_of_powers([1, 1], sizes=[n] * 2, num_data=1000)
    assert found.mean == pytest.approx(mean, rel=1e-9)
    assert found.variance == pytest.approx(variance, rel=1e-4)  # a difference of large squares


def test_quadrature_gives_up_on_losses_it_cannot_resolve(monkeypatch):
    monkeypatch.setattr(adaptive, "_MAX_CELLS", 1000)
    with pytest.raises(ArithmeticError, match="cells do not resolve it to 1e-07"):
        exact.quadrature(lambda a, b: np.abs(a + b - 0.1), ORIGIN, **settings(1e3))


def test_public_names_are_documented_and_sorted():
    assert exact.__all__ == sorted(exact.__all__)
    for name in exact.__all__:
        assert getattr(exact, name).__doc__
