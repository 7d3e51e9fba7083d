"""Losses whose derivatives are missing, partly missing, or not finite."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import regression
from jax.experimental.ode import odeint
from metropolis import Metropolis
from numpyro.infer import HMC, MCMC
from targets import target_of

import numpyro_llc as nllc
from numpyro_llc.inference_data import posterior
from numpyro_llc.local import UNKNOWN, curvature_at_center, noise_product, spread_starts
from numpyro_llc.local._curvature import extreme_eigenvalues
from numpyro_llc.local._derivatives import gradient_and_product, hessian_product, push_and_pull
from numpyro_llc.local._doubt import doubt_of
from numpyro_llc.models._fingerprint import calls

X, Y = regression.X[:60, :2], regression.Y[:60]
OLS = np.linalg.lstsq(X, Y, rcond=None)[0]
SHORT = {"num_warmup": 100, "num_samples": 100, "progress_bar": False}


# --- functions with a reverse rule of their own -------------------------------------------------


@jax.custom_vjp
def cube(x):
    """x³, whose reverse rule calls functions without a forward rule, as that of odeint does."""
    return x**3


@jax.custom_vjp
def slope(x):
    return 3 * x**2


slope.defvjp(lambda x: (slope(x), x), lambda x, g: (g * 6 * x,))
cube.defvjp(lambda x: (cube(x), x), lambda x, g: (g * slope(x),))


def called(function, x):
    return jax.pure_callback(
        lambda x: np.asarray(function(np.asarray(x)), x.dtype),
        jax.ShapeDtypeStruct(jnp.shape(x), x.dtype),
        x,
        vmap_method="expand_dims",
    )


@jax.custom_vjp
def outside(x):
    """x³, computed outside of JAX with its derivative: there is no second derivative at all."""
    return called(lambda x: x**3, x)


outside.defvjp(lambda x: (outside(x), x), lambda x, g: (g * called(lambda x: 3 * x**2, x),))


def decay(x):
    """exp(-x), by an integrator of JAX's."""
    return odeint(lambda y, t: -x * y, jnp.ones(1), jnp.array([0.0, 1.0]), rtol=1e-6)[-1, 0]


@pytest.mark.parametrize(
    ("function", "first", "second", "rtol"),
    [
        (lambda x: x**3, lambda x: 3 * x**2, lambda x: 6 * x, 1e-6),
        (cube, lambda x: 3 * x**2, lambda x: 6 * x, 1e-5),
        (outside, lambda x: 3 * x**2, lambda x: 6 * x, 3e-3),
        pytest.param(
            jax.vmap(decay),
            lambda x: -np.exp(-x),
            lambda x: np.exp(-x),
            1e-4,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["plain", "own rule", "callback", "odeint"],
)
def test_products_are_those_of_the_derivatives(function, first, second, rtol):
    z, v = np.array([0.7, -0.4, 1.2]), np.array([1.0, 2.0, -1.0])
    jacobian, hessian = np.diag(first(z)), np.diag(second(z))

    def of_row(z):
        return jnp.sum(function(z))

    forward = not calls(jax.make_jaxpr(function)(z), "custom_vjp")
    assert forward == (rtol == 1e-6)

    def pushed(z, v):
        push, pull = push_and_pull(function, z, v, forward=forward)
        return push, pull(v)

    for got in jax.jit(pushed)(z.astype("f"), v.astype("f")):
        np.testing.assert_allclose(got, jacobian @ v, rtol=rtol)

    def products(z, v):
        gradient, product = gradient_and_product(jax.grad(of_row), z, forward=forward)
        other = hessian_product(jax.grad(of_row), z, v, forward=forward)
        return gradient, product(v), other

    gradient, *twice = jax.jit(products)(z.astype("f"), v.astype("f"))
    np.testing.assert_allclose(gradient, first(z), rtol=rtol)
    for got in twice:
        np.testing.assert_allclose(got, hessian @ v, rtol=rtol)


@jax.custom_vjp
def same(x):
    """The identity, with a reverse rule that has no forward rule."""
    return x


same.defvjp(lambda x: (same(x), None), lambda _, g: (same(g),))


def own_rule(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 10.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", dist.Normal(same(x @ w), 1.0), obs=y)


def test_noise_and_curvature_of_a_reverse_rule_are_those_of_the_plain_model():
    rows, z, v = jnp.arange(7), {"w": jnp.asarray(OLS + 0.1)}, {"w": jnp.array([1.0, 2.0])}
    found = []
    for model in (regression.model, own_rule):
        target = target_of(model, (X, Y), {"w": OLS}, beta=0.3, batches=True)
        assert target.program.has_forward_mode == (model is regression.model)
        push = partial(noise_product, batch_size=7)
        noise = [jax.jit(push)(target, z, v, rows, use_anchor=on)[0]["w"] for on in (True, False)]
        hessian = curvature_at_center(target, jax.random.key(0)).hessian
        found.append(np.concatenate([*noise, hessian.ravel()]))
    assert np.abs(found[0]).min() > 1e-3
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


@pytest.mark.slow
def test_a_reverse_rule_of_the_users_own_changes_nothing():
    """With and without it the same program of numbers runs."""
    kernel = nllc.SGLD(batch_size=20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)  # of runs this short
        one, other = (
            nllc.estimate_llc(
                jax.random.key(0), model, (X, Y), center={"w": OLS}, kernel=kernel, **SHORT
            )
            for model in (regression.model, own_rule)
        )
    one, other = posterior(one), posterior(other)
    for name in ("center_largest_eigenvalue", "center_expected_llc", "gradient_noise"):
        assert other.attrs[name] == pytest.approx(one.attrs[name], rel=1e-3)
    np.testing.assert_allclose(other["llc"].mean(), one["llc"].mean(), rtol=0.02)


# --- no derivative ------------------------------------------------------------------------------


def with_loop(y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    power = jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * w), (0, 1.0))[1]
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", dist.Normal(power, 1.0), obs=y)


def with_callback(y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", dist.Normal(called(np.square, w), 1.0), obs=y)


@pytest.mark.parametrize(
    ("model", "message"),
    [(with_loop, "lax.while_loop.*Use lax.scan"), (with_callback, "pure_callback.*custom_vjp")],
)
def test_a_loss_without_a_gradient_is_refused_with_the_reason(model, message):
    key, local = jax.random.key(0), nllc.localize(model, center={"w": 0.5})
    calls = [
        lambda: nllc.estimate_llc(key, local, (Y,), **SHORT),
        lambda: nllc.estimate_llc(key, local, (Y,), kernel="sgld", **SHORT),
        lambda: nllc.find_center(key, model, (Y,)),
        lambda: nllc.sweep(key, local, (Y,), localization=[1.0, 2.0]),
        lambda: nllc.evidence.temperature_ladder(key, local, (Y,)),
        lambda: MCMC(nllc.SGLD(local), num_warmup=1, num_samples=1).run(key, Y),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"has no gradient.*{message}"):
            call()


def test_a_kernel_without_gradients_needs_none(llc_of):
    """nL = ½ Σ (y - w³)²: nearly quadratic at w³ = ȳ, with curvature 9 n w⁴."""
    y = np.random.default_rng(0).normal(0.8, 0.2, 4000)
    w = y.mean() ** (1 / 3)
    idata = nllc.estimate_llc(
        jax.random.key(0),
        with_loop,
        (y,),
        center={"w": w},
        localization=100.0,
        kernel=Metropolis(0.05),
        num_samples=3000,
        progress_bar=False,
    )
    assert "center_smallest_eigenvalue" not in posterior(idata).attrs
    mean, error = llc_of(idata)
    curved = 9 * 4000 * w**4 / np.log(4000)
    assert abs(mean - 0.5 * curved / (curved + 100.0)) < 4 * error
    assert abs(mean - 0.5 * curved / (curved + 10_000.0)) > 4 * error


# --- derivatives that are not finite ------------------------------------------------------------


def norm(y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", dist.Normal(jnp.linalg.norm(w), 1.0), obs=y)


def trap(y):
    """A square root that is NaN for a < 0, hidden by a where, but not from its derivative."""
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", dist.Normal(b + jnp.where(a > 0, jnp.sqrt(a), 0.0), 1.0), obs=y)


NANS = {norm: ({"w": np.zeros(2)}, "'w': 2"), trap: ({"a": -1.0, "b": 0.0}, "{'a': 1}")}


@pytest.mark.parametrize(
    ("model", "kernel"),
    [*((norm, kernel) for kernel in ("nuts", "hmc", "mala", "sgnht")), (trap, "sgld")],
)
def test_a_gradient_that_is_nan_at_the_center_is_refused_by_site(model, kernel):
    center, named = NANS[model]
    with pytest.raises(nllc.NonFiniteLossError, match=f"gradient .*at `center` is not.*{named}"):
        nllc.estimate_llc(jax.random.key(0), model, (Y,), center=center, kernel=kernel, **SHORT)


def test_a_gradient_that_is_nan_fails_the_studies_too():
    key, bad = jax.random.key(0), {"w": np.zeros(2)}
    local = nllc.localize(norm, center=bad)
    with pytest.raises(nllc.NonFiniteLossError, match="gradient.*where the chains start.*'w': 2"):
        nllc.sweep(key, local, (Y,), localization=[1.0, 2.0], kernel="sgld", num_warmup=10)
    table = nllc.llc_trajectory(key, nllc.localize(norm, center=None), [bad], (Y,), **SHORT)
    assert table["status"].to_numpy().tolist() == ["failed"]


@pytest.mark.slow
def test_a_gradient_that_is_nan_is_refused_under_numpyro_too():
    kernel = nllc.SGLD(nllc.localize(norm, center={"w": np.zeros(2)}))
    with pytest.raises(nllc.NonFiniteLossError, match="gradient.*where the chains start.*'w': 2"):
        MCMC(kernel, num_warmup=1, num_samples=1, progress_bar=False).run(jax.random.key(0), Y)


def test_starts_have_a_gradient():
    """Half of the starts around a = 0.05 would have none; those are pulled in."""

    target = target_of(trap, (Y,), {"a": 0.05, "b": 0.0}, beta=0.01)
    free, held = (
        spread_starts(target, UNKNOWN, jax.random.key(0), 64, with_gradient=flag)
        for flag in (False, True)
    )
    assert 8 < np.sum(np.asarray(free["a"]) < 0) < 56
    assert np.all(np.asarray(held["a"]) > 0)
    kept = np.asarray(free["a"]) > 0
    np.testing.assert_array_equal(np.asarray(held["a"])[kept], np.asarray(free["a"])[kept])


def test_hmc_takes_a_bounded_number_of_steps():
    kernel = HMC(regression.model, step_size=1e-6, adapt_step_size=False)
    with pytest.warns(nllc.LLCWarning, match="R-hat"):
        idata = nllc.estimate_llc(
            jax.random.key(0),
            regression.model,
            (X, Y),
            center={"w": OLS},
            kernel=kernel,
            num_warmup=5,
            num_samples=5,
            progress_bar=False,
        )
    steps = idata["sample_stats"]["n_steps"].to_numpy()
    assert np.all((steps >= 1024) & (steps <= 1025))  # not 2π / 1e-6


# --- many parameters ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.full(200, 4.0), (4.0, 4.0)),
        (np.zeros(200), (0.0, 0.0)),
        (np.r_[np.zeros(199), 7.0], (0.0, 7.0)),
        (np.r_[np.full(150, 1.0), np.full(50, 5.0)], (1.0, 5.0)),
        (np.r_[-3.0, np.full(199, 5.0)], (-3.0, 5.0)),
        (np.r_[-5.0, np.logspace(-3, 4, 199)], (-5.0, 1e4)),
        (np.full(200, np.nan), (np.nan, np.nan)),
    ],
    ids=["equal", "zero", "rank one", "two", "saddle", "hidden saddle", "NaN"],
)
def test_extreme_eigenvalues_of_any_spectrum(values, wanted):
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(200, 200)))[0]
    matrix = jnp.asarray((basis * values) @ basis.T, float)
    start = jax.random.normal(jax.random.key(0), (200,))
    found = jax.jit(lambda m, v: extreme_eigenvalues(lambda x: m @ x, v))(matrix, start)
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=1e-4 * max(1.0, wanted[1]))


def groups(index, y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([150]).to_event(1))
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", dist.Normal(w[index], 1.0), obs=y)


def test_many_equal_eigenvalues_are_a_minimum():
    """150 groups of 4: the Hessian is 4·I, too large to be kept; half of d stands for λ̂."""
    index = np.repeat(np.arange(150), 4)
    y = np.random.default_rng(0).normal(size=600)
    target = target_of(groups, (index, y), {"w": y.reshape(150, 4).mean(axis=1)}, beta=0.2)
    found = curvature_at_center(target, jax.random.key(0))
    assert (found.smallest, found.largest) == pytest.approx((4, 4), rel=1e-4)
    assert found.expected_llc == 75.0
    assert not doubt_of(found, target, "mle")
