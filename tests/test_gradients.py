"""Minibatch gradients, control variates and noise, against sums over all batches."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import regression

from numpyro_llc.local._evaluation import all_rows, excess_losses, some_rows
from numpyro_llc.local._gradients import (
    make_anchor,
    noise_product,
    noise_sample,
    potential_gradient,
)
from numpyro_llc.local._target import make_target
from numpyro_llc.models import read_model, with_batches

N, DIM = 6, 2
X, Y = regression.X[:N, :DIM], regression.Y[:N]
Z = {"w": jnp.array([[0.4, 1.7], [1.2, -0.3]])}


@pytest.fixture(scope="module")
def target():
    reading = read_model(regression.model, (X, Y), None, center={"w": np.array([1.0, 0.8])})
    return make_target(
        with_batches(reading),
        reading.arrays,
        reading.center,
        inverse_temperature=0.3,
        localization={"w": 2.0},
    )


def batches(size):
    return [jnp.array(rows) for rows in itertools.product(range(N), repeat=size)]


def per_datum(w):
    """β N ∇ℓ_i, by hand."""
    return 0.3 * N * (X @ w - Y)[:, None] * X


@pytest.mark.parametrize("use_anchor", [False, True])
def test_gradient_is_unbiased_over_all_batches(target, use_anchor):
    anchor = make_anchor(target)
    wanted = jax.vmap(jax.grad(target.potential))(Z)["w"]
    gradient = jax.jit(lambda rows: potential_gradient(target, Z, rows, anchor, use_anchor)["w"])
    got = [gradient(rows) for rows in batches(2)]
    np.testing.assert_allclose(np.mean(got, axis=0), wanted, rtol=1e-4)


def test_anchored_gradient_has_no_noise_at_the_center(target):
    anchor, here = make_anchor(target), {"w": target.center["w"][None]}
    wanted = jax.grad(target.potential)(target.center)["w"]
    gradient = jax.jit(lambda rows: potential_gradient(target, here, rows, anchor, True)["w"][0])
    for rows in batches(1):
        np.testing.assert_allclose(gradient(rows), wanted, rtol=1e-5)


@pytest.mark.parametrize("use_anchor", [False, True])
def test_noise_product_and_sample_have_the_covariance_of_the_batch_gradient(target, use_anchor):
    size, v = 2, {"w": jnp.array([[1.0, 2.0], [-0.5, 0.3]])}
    anchor = make_anchor(target)

    @jax.jit
    def product(rows):
        one = partial(noise_product, target, rows=rows, batch_size=size, use_anchor=use_anchor)
        return jax.vmap(one)(Z, v)["w"]

    @jax.jit
    def square(rows):
        one = noise_sample(target, Z, rows, anchor, jnp.array(use_anchor))["w"]
        return one[:, :, None] * one[:, None, :]

    products, samples = list(map(product, batches(3))), list(map(square, batches(2)))
    for chain in range(2):
        terms = per_datum(np.asarray(Z["w"][chain]))
        if use_anchor:
            terms = terms - per_datum(np.asarray(target.center["w"]))
        covariance = np.cov(terms.T, bias=True) / size
        wanted = covariance @ np.asarray(v["w"][chain])
        np.testing.assert_allclose(np.mean(products, axis=0)[chain], wanted, rtol=1e-3)
        np.testing.assert_allclose(np.mean(samples, axis=0)[chain], covariance, rtol=1e-3)


def test_excess_loss_in_slices_equals_the_whole(target, monkeypatch):
    wanted = jax.vmap(target.excess_loss)(Z)
    np.testing.assert_allclose(excess_losses(target, Z, None)[0], wanted, rtol=1e-5)
    monkeypatch.setattr("numpyro_llc.gradients.SLICE_ROWS", 4)
    rows = all_rows(target)
    assert rows.rows.shape == (2, 3)
    np.testing.assert_allclose(excess_losses(target, Z, rows)[0], wanted, rtol=1e-5)
    np.testing.assert_allclose(
        make_anchor(target).gradient["w"], per_datum(np.array([1.0, 0.8])).mean(axis=0), rtol=1e-4
    )


def test_some_rows_stand_for_all():
    reading = read_model(
        regression.model, (regression.X, regression.Y), None, center={"w": regression.OLS}
    )
    target = make_target(
        with_batches(reading),
        reading.arrays,
        reading.center,
        inverse_temperature=0.3,
        localization={"w": 2.0},
    )
    z = {"w": jnp.ones((1, 5))}
    wanted = float(excess_losses(target, z, None)[0][0])
    rows = some_rows(target, 320, jax.random.key(0))
    assert len(np.unique(rows.rows)) == 320
    total, parts, _ = excess_losses(target, z, rows)
    np.testing.assert_allclose(parts.sum(), total[0], rtol=1e-5)
    error = np.std(np.asarray(parts[0]), ddof=1) * np.sqrt(16 * (1 - 320 / 500))
    assert abs(float(total[0]) - wanted) < 4 * error
