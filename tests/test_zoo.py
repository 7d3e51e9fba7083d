"""The zoo: losses, λ and finite-n values of its problems, by routes of their own."""

import inspect
import textwrap
from fractions import Fraction
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import regression
import scipy.stats
from numpyro import handlers

import numpyro_llc as nllc
from numpyro_llc import exact, zoo
from numpyro_llc.known.zoo import _registry

GRID = np.linspace(-2.0, 2.0, 41)


def polynomial(function):
    return lambda p: function(*p["w"])


def network(p):
    return reduce(lambda total, name: p[name] @ total, sorted(p)[1:], p["layer_1"])


def linear_network(true_map):
    return lambda p: 0.5 * np.sum((network(p) - true_map) ** 2)


def relu(x):
    return max(x, 0.0)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def cross_entropy(truth, model):
    return -np.sum(truth * np.log(model))


def logistic(p):
    inputs = [(1, 0), (0, 1), (1, 1), (1, -1)]
    truth, model = (np.array([sigmoid(np.dot(x, w)) for x in inputs]) for w in ([1, -0.5], p["w"]))
    return (cross_entropy(truth, model) + cross_entropy(1 - truth, 1 - model)) / 4


def softmax(p):
    inputs = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    truth, model = (
        np.exp(inputs @ w) / np.exp(inputs @ w).sum(axis=1, keepdims=True)
        for w in (np.array([[1, 0, -0.5], [0, -1, 0.5]]), p["w"])
    )
    return cross_entropy(truth, model) / 4


def poisson(p):
    rates = np.exp(p["w"][0] + p["w"][1] * np.array([-1, 0, 1]))
    return np.mean(rates - np.array([1, 2, 4]) * np.log(rates))


def location_scale(p):
    s = p["scale"]
    return np.log(s) + (1 + p["location"] ** 2) / (2 * s**2)


def normal_mixture(p):
    share = sigmoid(p.get("logit", 0.0))
    x = np.linspace(-12, 12, 20_001)
    densities = [scipy.stats.norm.pdf(x, m) for m in p["means"]]
    integrand = scipy.stats.norm.pdf(x) * np.log((1 - share) * densities[0] + share * densities[1])
    return -np.sum(integrand) * (x[1] - x[0])


def poisson_mixture(p):
    k = np.arange(60)
    mixed = sum(0.5 * scipy.stats.poisson.pmf(k, np.exp(z)) for z in p["log_rates"])
    return cross_entropy(scipy.stats.poisson.pmf(k, 2.0), mixed)


def latent_class(p):
    share, chances = sigmoid(p["logit"]), sigmoid(p["odds"])
    total, truth = 0.0, sigmoid(np.array([0.5, -0.5, 1.0]))
    for answer in np.ndindex(2, 2, 2):
        true, *given = (np.prod(np.where(answer, c, 1 - c)) for c in (truth, *chances))
        total -= true * np.log((1 - share) * given[0] + share * given[1])
    return total


def factor_analysis(p):
    b, variances = p["loadings"], np.exp(p["log_variances"])
    covariance = np.outer(b, b) + np.diag(variances)
    return 0.5 * (np.log(np.linalg.det(covariance)) + np.trace(np.linalg.inv(covariance)))


def tanh(p):
    a, b = np.split(p["w"], 2)
    return 0.5 * np.mean((np.tanh(np.outer(GRID, b)) @ a) ** 2)


ZERO_MAPS = ("2_2_2", "2_2_3", "5_2_2", "3_1_3", "3_3_3_3", "2_2_2_unaligned")
STATED = {
    "gaussian": polynomial(lambda a, b, c: a**2 + b**2 / 4 + c**2 / 200),
    "sum_of_two": polynomial(lambda a, b: (a + b) ** 2 / 2),
    "circle": polynomial(lambda a, b: (a**2 + b**2 - 1) ** 2 / 2),
    "fourth_power": polynomial(lambda a: a**4),
    "sixth_power": polynomial(lambda a: a**6),
    "fourth_power_in_space": polynomial(lambda a, b, c: (a**2 + b**2 + c**2) ** 2),
    "product_of_two": polynomial(lambda a, b: (a * b) ** 2 / 2),
    "product_of_three": polynomial(lambda a, b, c: (a * b * c) ** 2 / 2),
    "square_times_fourth": polynomial(lambda a, b: a**2 * b**4),
    "square_times_fourth_at_0_1": polynomial(lambda a, b: a**2 * b**4),
    "square_times_fourth_at_1_0": polynomial(lambda a, b: a**2 * b**4),
    "square_plus_fourth": polynomial(lambda a, b: a**2 + b**4),
    "fourth_plus_sixth": polynomial(lambda a, b: a**4 + b**6),
    "cusp": polynomial(lambda a, b: (a**2 - b**3) ** 2),
    "node": polynomial(lambda a, b: (a**2 - b**2) ** 2),
    "line_and_fourth_power": polynomial(lambda a, b: a**2 * (a**2 + b**2) ** 2),
    "square_feature": polynomial(lambda a: a**4 / 2),
    "tanh_unit": tanh,
    "two_tanh_units": tanh,
    "relu_unit": polynomial(lambda a, b: (a * b) ** 2 / 4),
    "relu_unit_of_two_inputs": polynomial(lambda a, b, c: a**2 * (b**2 + c**2) / 8),
    "relu_unit_at_1_1": polynomial(lambda a, b: ((a * relu(b) - 1) ** 2 + (a * relu(-b)) ** 2) / 4),
    "dead_relu_unit": polynomial(lambda b, e: np.mean([relu(b * x + e) ** 2 / 2 for x in (-1, 1)])),
    "linear_regression": lambda p: np.mean((regression.Y - regression.X @ p["w"]) ** 2) / 2,
    "logistic_regression": logistic,
    "poisson_regression": poisson,
    "softmax_regression": softmax,
    "normal_location_scale": location_scale,
    "bernoulli_product": polynomial(lambda a, b: np.log(np.cosh(a * b / 2))),
    "normal_mixture": normal_mixture,
    "normal_mixture_of_free_weight": normal_mixture,
    "poisson_mixture": poisson_mixture,
    "latent_class": latent_class,
    "factor_analysis": factor_analysis,
    "matrix_factorization": lambda p: 0.5 * np.sum((p["left"] @ p["right"]) ** 2),
    **{f"linear_network_{widths}": linear_network(0.0) for widths in ZERO_MAPS},
    "linear_network_2_2_2_rank_1_unaligned": linear_network(np.diag([1.0, 0.0])),
    **{
        name: linear_network(network(zoo.load(name).center))
        for name in ("linear_network_2_2_2_rank_1", "linear_network_10_10_10_10_rank_5")
    },
}


def x64():
    return jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64()


def total_losses(problem, points):
    """Summed negative log likelihood of the model at each of `points`, in float64."""

    @jax.jit
    @jax.vmap
    def losses(point):
        model = handlers.substitute(handlers.seed(problem.model, rng_seed=0), data=point)
        trace = handlers.trace(model).get_trace(*problem.model_args)
        observed = [s for s in trace.values() if s["type"] == "sample" and s["is_observed"]]
        return sum(jnp.sum(-s["scale"] * s["fn"].log_prob(s["value"])) for s in observed)

    with x64():
        stacked = {k: np.stack([np.asarray(p[k], float) for p in points]) for k in points[0]}
        return np.asarray(losses(stacked))


def point_near(center, rng, reach):
    """A random point at about `reach` in unconstrained space."""
    moved = {k: v + reach * rng.normal(size=np.shape(v)) for k, v in center.items()}
    if "scale" in center:
        moved["scale"] = np.exp(moved["scale"] - 1.0)
    return moved


def test_every_problem_has_its_loss_stated_here():
    assert set(STATED) == set(zoo.names())
    assert len(STATED) >= 25


@pytest.mark.parametrize("name", STATED)
def test_loss_is_n_times_the_stated_function(name):
    problem, rng = zoo.load(name, 1234), np.random.default_rng(1)
    points = [point_near(problem.center, rng, reach) for reach in (0.1, 0.4, 1.0)]
    found = total_losses(problem, [problem.center, *points])
    at_center, *stated = 1234 * np.array([STATED[name](p) for p in (problem.center, *points)])
    assert found[1:] - found[0] == pytest.approx(stated - at_center, rel=1e-5, abs=1e-6 * 1234)


# λ and m at the centre, from the papers that the entries name, or by blowing up by hand.
COEFFICIENTS = {
    "gaussian": ("3/2", 1),
    "sum_of_two": ("1/2", 1),
    "circle": ("1/2", 1),
    "fourth_power": ("1/4", 1),
    "sixth_power": ("1/6", 1),
    "fourth_power_in_space": ("3/4", 1),
    "product_of_two": ("1/2", 2),
    "product_of_three": ("1/2", 3),
    "square_times_fourth": ("1/4", 1),
    "square_times_fourth_at_0_1": ("1/2", 1),
    "square_times_fourth_at_1_0": ("1/4", 1),
    "square_plus_fourth": ("3/4", 1),
    "fourth_plus_sixth": ("5/12", 1),
    "cusp": ("5/12", 1),
    "node": ("1/2", 2),
    "line_and_fourth_power": ("1/3", 1),
    "square_feature": ("1/4", 1),
    "tanh_unit": ("1/2", 2),
    "two_tanh_units": ("2/3", 1),
    "relu_unit": ("1/2", 2),
    "relu_unit_of_two_inputs": ("1/2", 1),
    "relu_unit_at_1_1": ("1/2", 1),
    "dead_relu_unit": ("0", 1),
    "linear_regression": ("5/2", 1),
    "logistic_regression": ("1", 1),
    "poisson_regression": ("1", 1),
    "softmax_regression": ("2", 1),
    "normal_location_scale": ("1", 1),
    "bernoulli_product": ("1/2", 2),
    "normal_mixture": ("3/4", 1),
    "normal_mixture_of_free_weight": ("3/4", 1),
    "poisson_mixture": ("3/4", 1),
    "latent_class": ("9/4", 1),
    "factor_analysis": ("9/4", 1),
    "matrix_factorization": ("3", 2),
    "linear_network_2_2_2": ("3/2", 1),
    "linear_network_2_2_3": ("2", 2),
    "linear_network_5_2_2": ("2", 1),
    "linear_network_3_1_3": ("3/2", 2),
    "linear_network_3_3_3_3": ("3", 1),
    "linear_network_2_2_2_rank_1": ("2", 2),
    "linear_network_2_2_2_rank_1_unaligned": ("2", 1),
    "linear_network_2_2_2_unaligned": ("2", 1),
    "linear_network_10_10_10_10_rank_5": ("46", 3),
}


def test_learning_coefficients_are_those_of_the_literature():
    found = {name: zoo.load(name).learning_coefficient for name in zoo.names()}
    assert found == {name: (Fraction(value), m) for name, (value, m) in COEFFICIENTS.items()}


@pytest.mark.parametrize("name", STATED)
def test_center_is_a_minimum(name):
    problem, rng = zoo.load(name), np.random.default_rng(2)
    lowest = STATED[name](problem.center)
    for reach in np.geomspace(1e-3, 0.5, 20):
        assert STATED[name](point_near(problem.center, rng, reach)) >= lowest - 1e-10


# By quadrature, Bessel functions and contour integrals, computed apart from the package, for
# (n, γ) = (1000, 1), (1000, 10), (10 000, 1), (10 000, 10).
TABLE = {
    "gaussian": (1.28718767, 0.98584367, 1.45668261, 1.24894071),
    "fourth_power": (0.24309304, 0.19021959, 0.24745119, 0.22585391),
    "product_of_two": (0.34734423, 0.16337858, 0.38247572, 0.26610465),
    "product_of_three": (0.25168935, 0.03556907, 0.29483000, 0.09411122),
    "linear_network_2_2_2": (1.37556712, 0.82696422, 1.44363106, 1.16534833),
    "linear_network_2_2_3": (1.74554386, 1.10280565, 1.82695957, 1.50540422),
    "linear_network_5_2_2": (1.97323873, 1.45776699, 1.99469217, 1.83085613),
    "linear_network_3_1_3": (1.28370679, 0.81519937, 1.34682425, 1.10657170),
    "tanh_unit": (0.37161650, 0.17992919, 0.39955006, 0.28299889),
    "square_times_fourth": (0.20952939, 0.07295654, 0.22535812, 0.12591496),
    "square_plus_fourth": (0.74137204, 0.67352675, 0.74722104, 0.72356188),
    "fourth_plus_sixth": (0.39995353, 0.28149894, 0.40903359, 0.34819253),
    "relu_unit": (0.33057589, 0.12412955, 0.37224059, 0.23440080),
    "circle": (0.50018497, 0.49247832, 0.50002469, 0.49899896),
}


@pytest.mark.parametrize("name", TABLE)
def test_expectation_is_the_tabulated_value(name):
    settings = [(n, gamma) for n in (1000, 10_000) for gamma in (1.0, 10.0)]
    found = [zoo.load(name, n).expectation(gamma).mean for n, gamma in settings]
    np.testing.assert_allclose(found, TABLE[name], rtol=0, atol=2e-8)


def power_loss(exponents, *, scale=1.0, sizes=None):
    """κ prod |w_i|^(2 k_i) of the flat coordinates."""
    blocks = np.cumsum(sizes or [1] * len(exponents))[:-1]

    def loss(*w):
        norms = [np.sum(block**2) for block in np.split(np.array(w), blocks)]
        return scale * np.prod(np.array(norms) ** np.array(exponents))

    return loss


def assumed_loss(finite_n):
    """The loss of flat coordinates whose expectation `finite_n` takes; None if it is a sum."""
    kind = getattr(finite_n, "func", None)
    if kind is exact.quadrature:
        return finite_n.args[0]
    return (
        power_loss(*finite_n.args, **finite_n.keywords) if kind is exact.product_of_powers else None
    )


def flat(point):
    values = {**point, "scale": np.log(point["scale"])} if "scale" in point else point
    return np.concatenate([np.ravel(value) for value in values.values()])


# The others are tested by their values alone: in the table, or against NUTS.
OF_A_LOSS = [n for n in STATED if n != "node" and assumed_loss(zoo.load(n).finite_n)]


@pytest.mark.parametrize("name", OF_A_LOSS)
def test_expectation_is_of_the_stated_loss(name):
    problem, rng = zoo.load(name), np.random.default_rng(3)
    loss = assumed_loss(problem.finite_n)
    for reach in (0.1, 0.5, 2.0):
        point = point_near(problem.center, rng, reach)
        stated = STATED[name](point) - STATED[name](problem.center)
        assert loss(*flat(point)) - loss(*flat(problem.center)) == pytest.approx(
            stated, rel=1e-6, abs=1e-7
        )


def test_node_is_the_product_of_two_turned():
    a, b = np.random.default_rng(4).normal(size=2)
    turned = {"w": np.array([a + b, a - b]) / np.sqrt(2)}
    assert STATED["node"](turned) == pytest.approx(power_loss((1, 1), scale=4.0)(a, b))
    assert zoo.load("node").finite_n.keywords["scale"] == 4.0


LARGE = {"circle": 10**5}  # where a curved valley takes many cells; 10 million elsewhere
LIMITS = [n for n in STATED if zoo.load(n).has_expectation and n != "cusp"]


@pytest.mark.parametrize("name", LIMITS)
def test_learning_coefficient_is_the_limit_of_the_expectation(name):
    """Mean → λ - (m - 1) / (log n + ...), whose derivative in log n is mean - variance."""
    problem = zoo.load(name, LARGE.get(name, 10**7))
    mean, variance = problem.expectation(localization=100.0 if "_at_" in name else 1.0)
    value, multiplicity = problem.learning_coefficient
    limit = mean + np.sqrt((multiplicity - 1) * max(mean - variance, 0.0))
    assert limit == pytest.approx(float(value), abs=0.02 * float(value) + 0.01)


def test_area_around_the_cusp_shrinks_as_its_learning_coefficient_says():
    """{(w1² - w2³)² < e} has an area like e^λ: exactly, an integral over w2 of lengths in w1."""
    w2 = np.concatenate([-np.geomspace(1.0, 1e-9, 20_001), np.geomspace(1e-9, 1.0, 20_001)])
    areas = []
    for e in (1e-20, 1e-24):
        ends = [np.sqrt(np.maximum(w2**3 + sign * e**0.5, 0.0)) for sign in (1, -1)]
        areas.append(np.trapezoid(ends[0] - ends[1], w2))
    slope = np.log(areas[0] / areas[1]) / np.log(1e4)
    assert slope == pytest.approx(float(zoo.load("cusp").learning_coefficient.value), abs=0.002)


def widths_of(layers):
    return [layers[0].shape[1], *map(len, layers)]


def inputs_times_outputs(layers):
    return layers[0].shape[1] * len(layers[-1])


def rank_of(matrix):
    return np.linalg.matrix_rank(matrix, tol=1e-6)


def jacobian_rank(layers):
    """Rank of the derivative of the product of `layers`."""
    columns = []
    for i, layer in enumerate(layers):
        before = reduce(lambda total, new: new @ total, layers[:i], np.eye(layers[0].shape[1]))
        after = reduce(lambda total, new: new @ total, layers[i + 1 :], np.eye(len(layer)))
        columns.append(np.kron(after, before.T))
    return rank_of(np.concatenate(columns, axis=1))


@pytest.mark.parametrize("seed", range(20))
def test_random_networks_are_aligned(seed):
    (problem,) = zoo.random_deep_linear_networks(seed, 1)
    layers = list(problem.center.values())
    widths = widths_of(layers)
    rank = int(problem.name.split("_rank_")[1])
    assert problem.name == f"linear_network_{'_'.join(map(str, widths))}_rank_{rank}"
    for i in range(len(layers)):
        for j in range(i, len(layers)):
            partial_product = reduce(lambda total, new: new @ total, layers[i : j + 1])
            assert rank_of(partial_product) == rank
    for layer in layers:
        singular = np.linalg.svd(layer, compute_uv=False)[:rank]
        assert np.all((singular >= 0.5) & (singular <= 1.5))
    assert problem.learning_coefficient == exact.deep_linear_network(widths, rank)
    assert problem.num_data == 1_000_000
    assert problem.num_parameters == sum(layer.size for layer in layers)
    assert len(problem.model_args[1]) == widths[0]  # rows: a gradient's cost is free of n


def test_random_networks_fill_the_ranges():
    problems = list(zoo.random_deep_linear_networks(0, 1000, layers=(2, 4), widths=(1, 4)))
    widths = [[int(w) for w in p.name.split("_")[2:-2]] for p in problems]
    ranks = [int(p.name.split("_")[-1]) for p in problems]
    assert {len(w) for w in widths} == {3, 4}
    assert {w for row in widths for w in row} == {1, 2, 3}
    assert {(min(w), r) for w, r in zip(widths, ranks, strict=True)} == {
        (w, r) for w in (1, 2, 3) for r in range(w + 1)
    }


@pytest.mark.parametrize("seed", range(30))
def test_unaligned_networks_have_the_rank_and_layers_of_more(seed):
    (problem,) = zoo.random_deep_linear_networks(seed, 1, widths=(3, 9), aligned=False)
    layers = list(problem.center.values())
    rank = int(problem.name.split("_rank_")[1].removesuffix("_unaligned"))
    assert rank_of(reduce(lambda total, new: new @ total, layers)) == rank
    assert all(rank_of(layer) >= rank for layer in layers)
    aligned = exact.deep_linear_network(widths_of(layers), rank)
    if len(layers) == 2:  # what is linear, and a product of the rest at zero
        (inputs, hidden, outputs), (a, b) = widths_of(layers), map(rank_of, layers)
        rest = [inputs - a, hidden - a - b + rank, outputs - b]
        zero = exact.deep_linear_network(rest) if min(rest) else exact.regular(0)
        value = Fraction(int(jacobian_rank(layers)), 2) + zero.value
        assert problem.learning_coefficient == (value, zero.multiplicity)
    elif problem.learning_coefficient is not None:
        regular = exact.regular(inputs_times_outputs(layers))
        assert problem.learning_coefficient in (aligned, regular)
        assert problem.learning_coefficient.value >= aligned.value


def test_some_unaligned_networks_are_unaligned_and_some_known():
    problems = list(zoo.random_deep_linear_networks(0, 100, widths=(3, 9), aligned=False))
    ranks = [{rank_of(w) for w in p.center.values()} for p in problems]
    assert sum(len(r) > 1 for r in ranks) > 50
    deep = [p.learning_coefficient for p in problems if len(p.center) > 2]
    assert 0 < sum(known is not None for known in deep) < len(deep)
    submersions = [p for p in problems if p.source.startswith("the product of the layers")]
    for problem in submersions:
        layers = list(problem.center.values())
        assert jacobian_rank(layers) == inputs_times_outputs(layers)
        assert problem.learning_coefficient == exact.regular(jacobian_rank(layers))
    assert submersions


def test_keys_and_seeds_give_the_same_networks_again():
    for seed in (0, jax.random.key(3), jax.random.PRNGKey(3)):
        first, second = (list(zoo.random_deep_linear_networks(seed, 3)) for _ in range(2))
        for one, other in zip(first, second, strict=True):
            assert one.name == other.name
            jax.tree.map(np.testing.assert_array_equal, one.center, other.center)
    other = list(zoo.random_deep_linear_networks(1, 3))
    assert [p.name for p in first] != [p.name for p in other]


def test_zero_networks_with_one_hidden_unit_everywhere_have_an_expectation():
    problem = zoo.deep_linear_network((2, 1, 1, 3), 0, num_data=1000)
    w = {k: np.full(np.shape(v), 0.7) for k, v in problem.center.items()}
    loss = power_loss(*problem.finite_n.args, **problem.finite_n.keywords)
    first, middle, last = w.values()
    assert loss(*np.concatenate([w.ravel() for w in (first, middle, last)])) == pytest.approx(
        linear_network(0.0)(w)
    )
    wanted = exact.product_of_powers([1, 1, 1], sizes=[2, 1, 3], scale=0.5, num_data=1000)
    assert problem.expectation() == wanted


def test_more_data_weigh_more():
    one, five = (zoo.load("linear_regression", n) for n in (1000, 5000))
    (single,), (fivefold,) = (total_losses(p, [p.center]) for p in (one, five))
    assert fivefold == pytest.approx(5 * single)
    assert one.model is five.model  # so that it does not compile again


def test_expectation_takes_localization_and_inverse_temperature():
    problem = zoo.load("linear_regression", 500)
    hot = problem.expectation(localization=3.0, inverse_temperature=0.7).mean
    assert hot == pytest.approx(regression.exact(regression.OLS, 3.0, beta=0.7))
    default = problem.expectation().mean
    assert default == pytest.approx(regression.exact(regression.OLS, 1.0))
    assert zoo.load("factor_analysis").expectation() is None


def test_the_table_has_a_row_for_each_problem():
    table = zoo.table()
    assert sorted(table.index) == sorted(zoo.names())
    assert list(table.columns) == [
        "parameters",
        "learning_coefficient",
        "multiplicity",
        "exact",
        "description",
    ]
    assert table.index.name == "name"
    assert (table["description"].str.len() > 1).all()
    assert table["parameters"].is_monotonic_increasing
    for name, row in table.iterrows():
        problem = zoo.load(name)
        assert row["parameters"] == sum(np.size(v) for v in problem.center.values())
        assert Fraction(row["learning_coefficient"]) == problem.learning_coefficient.value
        assert row["multiplicity"] == problem.learning_coefficient.multiplicity
        assert row["exact"] == problem.has_expectation
        assert row["description"] == problem.description
        assert problem.name == name
        assert problem.source


def test_parameters_are_counted_in_unconstrained_space():
    def model():
        numpyro.sample("p", dist.Dirichlet(jnp.ones(3)))
        numpyro.param("a", jnp.ones(2))
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=0.0)

    problem = zoo.Problem(model, (), {"p": np.full(3, 1 / 3), "a": np.ones(2)}, 10)
    assert problem.num_parameters == 4


@pytest.fixture
def registry(monkeypatch):
    """A registry of its own."""
    monkeypatch.setattr(_registry, "_ENTRIES", dict(_registry._ENTRIES))


def test_the_example_of_the_docstring_registers_a_problem(registry):
    lines = inspect.getdoc(zoo).splitlines()
    start = lines.index("    @zoo.register")
    end = lines.index("        )", start) + 1
    code = textwrap.dedent("\n".join(lines[start:end]))
    names = {"zoo": zoo, "exact": exact, "numpyro": numpyro, "dist": dist, "jnp": jnp}
    exec(code, {**names, "partial": partial})
    problem = zoo.load("tenth_power", 500)
    assert problem.description == "One parameter, loss w¹⁰."
    assert zoo.table().loc["tenth_power", "learning_coefficient"] == "1/10"
    away, center = total_losses(problem, [{"w": 0.9}, {"w": 0.0}])
    assert away - center == pytest.approx(500 * 0.9**10, rel=1e-5)
    assert problem.expectation(0.1).mean == pytest.approx(0.1, rel=0.03)


def test_a_function_may_come_again_but_a_name_is_taken(registry):
    for _ in range(2):

        @zoo.register
        def again(num_data):
            return zoo.Problem(lambda: None, (), {}, num_data)

    with pytest.raises(ValueError, match=r"`name` 'circle' is taken"):
        zoo.register(again, name="circle")


def test_another_lambda_does_not_replace_one_of_the_same_name(registry):
    def make(value):
        def build(num_data):
            return value

        return build

    for first, same, other in (
        [lambda num_data: 1, lambda num_data: 1, lambda num_data: 2],
        [make(1), make(1), make(2)],
        [partial(max, 1), partial(max, 1), partial(max, 2)],
    ):
        _registry._ENTRIES.pop("mine", None)
        zoo.register(first, name="mine")
        zoo.register(same, name="mine")
        with pytest.raises(ValueError, match="`name` 'mine' is taken in the zoo"):
            zoo.register(other, name="mine")


def test_the_table_has_a_row_for_a_problem_that_fails(registry):
    zoo.register(lambda num_data: 1 / 0, name="unmade")
    zoo.register(lambda num_data: zoo.Problem(lambda: 1 / 0, (), {}, num_data), name="broken")
    table = zoo.table()
    assert len(table) == len(zoo.names())
    for name in ("unmade", "broken"):
        row = table.loc[name]
        assert row[["parameters", "learning_coefficient", "multiplicity"]].isna().all()
        assert not row["exact"]
        assert row["description"] == "ZeroDivisionError: division by zero"
    assert table["parameters"].notna().sum() == len(table) - 2


def test_unknown_names_are_refused_with_near_ones():
    with pytest.raises(ValueError, match=r"`name` 'tanh_units' .* 'tanh_unit'"):
        zoo.load("tanh_units")
    with pytest.raises(ValueError, match=r"zoo\.names"):
        zoo.load("zzz")


def test_registered_functions_must_return_a_problem_of_so_many_data(registry):
    zoo.register(lambda num_data: None, name="none")
    with pytest.raises(TypeError, match=r"must return a zoo.Problem; got NoneType"):
        zoo.load("none")
    zoo.register(lambda num_data: zoo.Problem(lambda: None, (), {}, 7), name="seven")
    with pytest.raises(ValueError, match=r"a problem of 7 data points for `num_data` 1000"):
        zoo.load("seven")


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: zoo.load("circle", 1), ValueError, "`num_data` must be at least 2; got 1"),
        (lambda: zoo.Problem(print, [], {}, 5), TypeError, "`model_args` must be a tuple"),
        (lambda: zoo.Problem(print, (), 3.0, 5), TypeError, "`center` must be a dict"),
        (lambda: zoo.Problem(print, (), {}, 5, 0.5), TypeError, "`learning_coefficient` must be"),
        (lambda: zoo.Problem(print, (), {}, 5, finite_n=0.5), TypeError, "`finite_n` must be"),
        (lambda: zoo.load(["circle"]), ValueError, "`name` .* is not in the zoo"),
        (lambda: zoo.deep_linear_network((3, 3), 0), ValueError, "`widths` must be those of"),
        (lambda: zoo.deep_linear_network((3, 0, 3), 0), ValueError, "`widths` must be at least 1"),
        (lambda: zoo.deep_linear_network((3, 2, 3), 3), ValueError, "`rank` must be at most .* 2"),
        (lambda: zoo.deep_linear_network((3, 2, 3), -1), ValueError, "`rank` must be at least 0"),
        (lambda: zoo.random_deep_linear_networks(0, -1), ValueError, "`count` must be at least 0"),
        (
            lambda: zoo.random_deep_linear_networks(0, 1, layers=(1, 3)),
            ValueError,
            "`layers` must be at least 2; got 1",
        ),
        (
            lambda: zoo.random_deep_linear_networks(0, 1, widths=(5, 5)),
            ValueError,
            "`widths` must be at least 6; got 5",
        ),
        (lambda: zoo.random_deep_linear_networks("a", 1), TypeError, "`rng_key` must be one"),
        (lambda: zoo.random_deep_linear_networks(-1, 1), ValueError, "`key_or_seed` must be"),
        (
            lambda: zoo.random_deep_linear_networks(0, 1, layers=(2,)),
            ValueError,
            "`layers` must have 2 entries; got 1",
        ),
        (
            lambda: zoo.random_deep_linear_networks(0, 1, layers=3),
            TypeError,
            "`layers` must be a sequence of integers; got 3",
        ),
        (
            lambda: zoo.random_deep_linear_networks(0, 1, aligned="no"),
            TypeError,
            "`aligned` must be True or False; got 'no'",
        ),
        (lambda: zoo.deep_linear_network(3, 1), TypeError, "`widths` must be a sequence"),
        (lambda: zoo.deep_linear_network((3, 2, 3), 1, seed="x"), TypeError, "`seed` must be"),
        (lambda: zoo.deep_linear_network((3, 2, 3), 1, seed=-1), ValueError, "`seed` must be"),
        (
            lambda: zoo.deep_linear_network((3, 2, 3), 1, aligned="no"),
            TypeError,
            "`aligned` must be True or False; got 'no'",
        ),
        (lambda: zoo.register("foo"), TypeError, "`build` must be a function of `num_data`"),
        (lambda: zoo.register(partial(print, 1)), TypeError, "`name` must be a text for .*; got N"),
        (lambda: zoo.register(print, name=5), TypeError, "`name` must be a text for .*; got 5"),
        (
            lambda: zoo.register(print, name="mine", description=5),
            TypeError,
            "`description` must be a text; got 5",
        ),
        (lambda: zoo.Problem(3, (), {}, 5), TypeError, "`model` must be a NumPyro model"),
        (lambda: zoo.Problem(print, (), {}, 5, name=3), TypeError, "`name` must be a text; got 3"),
        *[
            (
                lambda value=value, m=m: zoo.Problem(
                    print, (), {}, 5, exact.LearningCoefficient(value, m)
                ),
                error,
                "`learning_coefficient` must",
            )
            for value, m, error in [
                ("a", 1, ValueError),
                (-1, 1, ValueError),
                (float("nan"), 1, ValueError),
                (Fraction(1, 2), -3, ValueError),
                (Fraction(1, 2), "x", TypeError),
            ]
        ],
    ],
)
def test_bad_arguments_are_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()


# Their λ alone is known. The network 10-10-10-10 takes minutes.
LIMIT_ONLY = [
    n for n in STATED if not zoo.load(n).has_expectation and zoo.load(n).num_parameters < 100
]


def estimate(problem, **settings):
    return nllc.estimate_llc(
        jax.random.key(5),
        problem.model,
        problem.model_args,
        center=problem.center,
        num_data=problem.num_data,
        progress_bar=False,
        **settings,
    )


@pytest.mark.slow
# Along a valley that only γ closes chains mix slowly, which λ̂ does not feel.
@pytest.mark.filterwarnings("ignore:R-hat of the distance:numpyro_llc.LLCWarning")
@pytest.mark.parametrize("name", LIMIT_ONLY)
def test_sgnht_is_near_the_learning_coefficient_at_a_million_data(name, llc_of):
    problem = zoo.load(name, 10**6)
    gamma = 100.0 if "unaligned" in name else 1.0
    mean, error = llc_of(estimate(problem, localization=gamma, kernel="sgnht"))
    value = float(problem.learning_coefficient.value)
    assert abs(mean - value) < 4 * error + 0.03 * value
    assert error < 0.05 * value
