"""λ̂ of NUTS against exact finite-n, finite-γ values."""

import cases
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import regression

import numpyro_llc as nllc

CELLS = [(name, *cell) for name, case in cases.CASES.items() for cell in case.values]


def quadrature(case, n, gamma):
    """E[c (L - L*)] by the trapezoid rule on a fine grid around the centre, in float64."""
    c = n / np.log(n)
    reach = 9.0 / np.sqrt(gamma)
    if len(case.center) == 1:
        axis = np.linspace(-reach, reach, 400_001)
        loss, distance = case.loss(axis), axis**2
        area = np.ones_like(axis)
    else:
        # Dense near the axes, where the mass of a product lies: u -> sinh.
        unit = np.arcsinh(reach * 400.0)
        u = np.linspace(-unit, unit, 3001)
        step, jacobian = np.sinh(u) / 400.0, np.cosh(u)
        a, b = case.center[0] + step[:, None], case.center[1] + step[None, :]
        loss = case.loss(a, b)
        distance = step[:, None] ** 2 + step[None, :] ** 2
        area = jacobian[:, None] * jacobian[None, :]
    weight = area * np.exp(-c * loss - 0.5 * gamma * distance)
    return float(np.sum(c * loss * weight) / np.sum(weight))


@pytest.mark.parametrize(
    ("name", "n", "gamma"), [cell for cell in CELLS if cases.CASES[cell[0]].loss is not None]
)
def test_tabulated_values_are_the_integrals(name, n, gamma):
    case = cases.CASES[name]
    assert quadrature(case, n, gamma) == pytest.approx(case.values[n, gamma], rel=2e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* of the draws diverged:numpyro_llc.LLCWarning")
@pytest.mark.parametrize("name", cases.CASES)
def test_nuts_is_within_four_errors_of_the_exact_value(name, llc_of):
    case = cases.CASES[name]
    z_scores, wrong = [], []
    for seed, ((n, gamma), exact) in enumerate(case.values.items()):
        idata = nllc.estimate_llc(
            jax.random.key(seed),
            cases.model,
            cases.arguments(case, n),
            center={"w": case.center},
            num_data=n,
            localization=gamma,
            num_samples=2000,
            progress_bar=False,
        )
        mean, error = llc_of(idata)
        z_scores.append((mean - exact) / error)
        wrong += [
            abs(mean - other) / error for key, other in case.values.items() if key[1] != gamma
        ]
    assert np.abs(z_scores).max() < 4, dict(zip(case.values, z_scores, strict=True))
    # The test has power: the exact value of another γ is not within the error somewhere.
    assert not wrong or max(wrong) > 4 or name == "circle"


@pytest.mark.parametrize("gamma", [1.0, 10.0, 100.0])
@pytest.mark.parametrize(
    ("center", "listed"),
    [
        (regression.OLS, {1.0: 1.93552767, 10.0: 1.38577325, 100.0: 0.69767738}),
        (regression.TRUTH, {1.0: 1.61470969, 10.0: 1.11939534, 100.0: 0.57889928}),
    ],
    ids=["least squares", "truth"],
)
@pytest.mark.filterwarnings("ignore:`center` is no local minimum:numpyro_llc.LLCWarning")
def test_noisy_regression(center, listed, gamma, llc_of):
    assert regression.exact(center, gamma) == pytest.approx(listed[gamma], rel=1e-7)
    idata = nllc.estimate_llc(
        jax.random.key(3),
        regression.model,
        (regression.X, regression.Y),
        center={"w": center},
        localization=gamma,
        num_samples=2000,
        progress_bar=False,
    )
    mean, error = llc_of(idata)
    assert abs(mean - listed[gamma]) < 4 * error
    assert error < 0.03 * listed[gamma] + 0.01


def test_localization_by_site_and_inverse_temperature(llc_of):
    gammas = np.array([1.0, 1.0, 1.0, 50.0, 50.0])

    def model(x, y):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        b = numpyro.sample("b", dist.Cauchy(0.0, 1.0).expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal(x[:, :3] @ a + x[:, 3:] @ b, 1.0), obs=y)

    idata = nllc.estimate_llc(
        jax.random.key(0),
        model,
        (regression.X, regression.Y),
        center={"a": regression.OLS[:3], "b": regression.OLS[3:]},
        localization={"a": 1.0, "b": 50.0},
        inverse_temperature=0.7,
        num_samples=2000,
        progress_bar=False,
    )
    mean, error = llc_of(idata)
    assert abs(mean - regression.exact(regression.OLS, gammas, beta=0.7)) < 4 * error
    assert abs(mean - regression.exact(regression.OLS, 1.0, beta=0.7)) > 4 * error


def test_logistic_regression(llc_of):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1000, 2))
    y = (rng.random(1000) < 1 / (1 + np.exp(-x @ [1.0, -0.5]))).astype(float)

    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)

    center = {"w": np.array([1.00120888, -0.64729716])}
    for gamma, exact in {1.0: 0.96495073, 10.0: 0.68748431}.items():
        idata = nllc.estimate_llc(
            jax.random.key(0),
            model,
            (x, y),
            center=center,
            localization=gamma,
            num_samples=2000,
            progress_bar=False,
        )
        mean, error = llc_of(idata)
        assert abs(mean - exact) < 4 * error
        assert idata.attrs["center_loss"] / 1000 == pytest.approx(0.5701563853, rel=1e-6)


@pytest.mark.slow
def test_the_stated_error_is_honest():
    exact = regression.exact(regression.OLS, 1.0)
    covered = 0
    for seed in range(100):
        idata = nllc.estimate_llc(
            jax.random.key(seed),
            regression.model,
            (regression.X, regression.Y),
            center={"w": regression.OLS},
            progress_bar=False,
        )
        row = nllc.summary(idata, ci_prob=0.9).loc["llc"]
        covered += row["ci90_lb"] < exact < row["ci90_ub"]
    assert 80 <= covered <= 97


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* of the draws diverged:numpyro_llc.LLCWarning")
@pytest.mark.parametrize("name", ["tanh", "circle", "linear_network_2_2_2", "square_plus_fourth"])
def test_stein_identity_holds_whatever_the_answer(name):
    """E[(z - z*)·∇U] = d for U = β nL + γ/2 |z - z*|²: a check that needs no known λ̂."""
    case = cases.CASES[name]
    arguments, center = cases.arguments(case, 1000), {"w": case.center}
    idata = nllc.estimate_llc(
        jax.random.key(11),
        cases.model,
        arguments,
        center=center,
        num_data=1000,
        num_samples=2000,
        progress_bar=False,
    )
    beta, w = 1 / np.log(1000), idata["posterior"]["w"].to_numpy()

    def potential(w):
        outputs, x, y, weight = arguments
        loss = 0.5 * weight * jax.numpy.sum((outputs(w, x) - y) ** 2)
        return beta * loss + 0.5 * jax.numpy.sum((w - case.center) ** 2)

    slope = jax.vmap(jax.vmap(jax.grad(potential)))(w)
    stein = np.sum((w - case.center) * np.asarray(slope, float), axis=-1)
    batches = stein.reshape(4, 20, -1).mean(axis=-1)
    error = batches.std() / np.sqrt(batches.size)
    assert abs(stein.mean() - len(case.center)) < 4 * error
    untempered = stein + (1 / beta - 1) * (stein - np.sum((w - case.center) ** 2, axis=-1))
    assert abs(untempered.mean() - len(case.center)) > 4 * error
