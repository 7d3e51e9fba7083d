"""Minibatch gradients, control variates, noise and evaluation, against sums over all batches."""

import itertools
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import regression
from targets import target_of

from numpyro_llc.local import _evaluation as evaluation
from numpyro_llc.local._evaluation import (
    EvaluationRows,
    all_rows,
    rows_to_evaluate,
    some_rows,
)
from numpyro_llc.local._gradients import (
    curvature_product,
    draw_rows,
    make_anchor,
    noise_product,
    noise_samples,
    potential_gradient,
    square_norm,
)

N, DIM, BETA, GAMMA = 7, 2, 0.3, 2.0
X, Y = regression.X[:N, :DIM], regression.Y[:N]
CENTER = np.array([1.0, 0.8])
Z = {"w": jnp.array([[0.4, 1.7], [1.2, -0.3]])}
V = {"w": jnp.array([[1.0, 2.0], [-0.5, 0.3]])}
excess_losses = jax.jit(evaluation.excess_losses, static_argnames="with_slope")


@pytest.fixture(scope="module")
def target():
    return target_of(regression.model, (X, Y), {"w": CENTER}, beta=BETA, gamma=GAMMA, batches=True)


@pytest.fixture(scope="module")
def whole():
    """The same without batches."""
    return target_of(regression.model, (X, Y), {"w": CENTER}, beta=BETA, gamma=GAMMA)


def batches(size):
    """All batches of so many rows, ``[batch, size]``."""
    return jnp.array(list(itertools.product(range(N), repeat=size)))


def over(function, size):
    """The values of a function of the rows, of all batches."""
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(function))(batches(size)))


def per_datum(w):
    """β N ∇ℓ_i, by hand."""
    return BETA * N * (X @ w - Y)[:, None] * X


def gradients(w):
    """∇U of chains, by hand."""
    return np.stack([per_datum(one).mean(axis=0) + GAMMA * (one - CENTER) for one in w])


@pytest.mark.parametrize("use_anchor", [False, True])
def test_gradient_is_unbiased_over_all_batches(target, use_anchor):
    anchor = jax.jit(make_anchor)(target)
    got = over(lambda rows: potential_gradient(target, Z, rows, anchor, use_anchor)["w"], 2)
    np.testing.assert_allclose(got.mean(axis=0), gradients(np.asarray(Z["w"])), rtol=1e-4)
    assert got.std(axis=0).min() > 0.1  # of batches that differ


def test_gradient_of_the_full_data_takes_no_rows(whole):
    take = jax.jit(lambda: potential_gradient(whole, Z, None, make_anchor(whole), True))
    got = take()["w"]
    np.testing.assert_allclose(got, gradients(np.asarray(Z["w"])), rtol=1e-4)


def test_anchored_gradient_has_no_noise_at_the_center(target):
    anchor, here = jax.jit(make_anchor)(target), {"w": target.center["w"][None]}
    got = over(lambda rows: potential_gradient(target, here, rows, anchor, True)["w"][0], 1)
    wanted = np.broadcast_to(per_datum(CENTER).mean(axis=0), got.shape)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.parametrize("use_anchor", [False, True])
def test_noise_product_and_sample_have_the_covariance_of_the_batch_gradient(target, use_anchor):
    size = 2

    def product(rows):
        one = partial(noise_product, target, rows=rows, batch_size=size, use_anchor=use_anchor)
        found, along = jax.vmap(one)(Z, V)
        wanted = jnp.sum(found["w"] * V["w"], axis=1)
        return found["w"], along - wanted

    def square(rows):
        one = noise_samples(target, Z, rows)[not use_anchor]["w"]
        return one[:, :, None] * one[:, None, :]

    products, apart = over(product, 3)
    np.testing.assert_allclose(apart, 0.0, atol=1e-4 * np.abs(products).max())
    products, samples = products.mean(axis=0), over(square, 2).mean(axis=0)
    for chain in range(2):
        terms = per_datum(np.asarray(Z["w"][chain]))
        if use_anchor:
            terms = terms - per_datum(CENTER)
        covariance = np.cov(terms.T, bias=True) / size
        wanted = covariance @ np.asarray(V["w"][chain])
        np.testing.assert_allclose(products[chain], wanted, rtol=1e-3)
        np.testing.assert_allclose(samples[chain], covariance, rtol=1e-3)


def test_a_noise_sample_of_an_odd_number_of_rows_leaves_the_last_out(target):
    draw = jax.jit(lambda rows: noise_samples(target, Z, rows)[1]["w"])
    three, two = draw(jnp.array([4, 2, 6])), draw(jnp.array([4, 2]))
    np.testing.assert_array_equal(three, two)
    half = 0.5 * (per_datum(np.asarray(Z["w"][0]))[4] - per_datum(np.asarray(Z["w"][0]))[2])
    np.testing.assert_allclose(two[0], half, rtol=1e-4)


def test_curvature_product_is_that_of_the_rows_and_of_gamma(target):
    for rows in (None, jnp.array([5, 1, 1])):
        x = X if rows is None else X[np.asarray(rows)]
        hessian = BETA * N / len(x) * x.T @ x + GAMMA * np.eye(DIM)
        got = jax.jit(curvature_product)(target, Z, V, rows)["w"]
        np.testing.assert_allclose(got, np.asarray(V["w"]) @ hessian, rtol=1e-4)


def test_square_norm_sums_over_all_but_the_chains():
    tree = {"a": jnp.array([[[3.0, 1.0]], [[0.0, 2.0]]]), "b": jnp.array([2.0, 1.0])}
    np.testing.assert_array_equal(square_norm(tree), [14.0, 5.0])


def test_drawn_rows_are_uniform_over_the_data(target):
    counts = np.bincount(draw_rows(jax.random.key(0), target, 7000), minlength=N)
    assert counts.shape == (N,)
    assert np.all(np.abs(counts - 1000) < 4 * np.sqrt(1000 * (1 - 1 / N)))


def test_rows_are_cut_into_slices_whose_padding_weighs_nothing(target, monkeypatch):
    for most, length in ((8192, 7), (7, 7), (4, 4), (3, 3)):
        monkeypatch.setattr("numpyro_llc.models._plates.SLICE_ROWS", most)
        rows, weights = target.row_slices(jnp)
        padding = rows.size - N
        assert rows.shape == weights.shape == (-(-N // most), length)
        np.testing.assert_array_equal(rows.ravel(), [*range(N), *[N - 1] * padding])
        np.testing.assert_array_equal(weights.ravel(), [*np.ones(N), *np.zeros(padding)])
    gradient = jax.jit(lambda: make_anchor(target).gradient["w"])()  # in slices of three
    np.testing.assert_allclose(gradient, per_datum(CENTER).mean(axis=0), rtol=1e-4)
    rows, _ = target.row_slices(jnp, jnp.array([6, 0, 5, 2]))
    np.testing.assert_array_equal(rows, [[6, 0], [5, 2]])


# --- evaluation ---------------------------------------------------------------------------------


def excess_by_datum(w, center=CENTER, x=X, y=Y):
    """ℓ_i(w) - ℓ_i(w*) of chains, ``[chain, datum]``."""
    return 0.5 * (np.asarray(w, float) @ x.T - y) ** 2 - 0.5 * (x @ center - y) ** 2


def signs_of(contrasts, excess):
    """The signs with which each contrast sums the excess of the data, ``[contrast, datum]``."""
    every = np.array(list(itertools.product([-1.0, 1.0], repeat=excess.shape[1])))
    far = np.abs((excess @ every.T)[:, None, :] - np.asarray(contrasts)[:, :, None]).max(axis=0)
    assert np.all(far.min(axis=1) < 1e-4)
    assert np.all(np.sort(far, axis=1)[:, 1] > 1e-3)
    return every[far.argmin(axis=1)]


ROWS = {
    "full data": None,
    "one slice": EvaluationRows(jnp.arange(N)[None], jnp.ones((1, N))),
    "slices": EvaluationRows(
        jnp.array([[0, 1, 2, 3], [4, 5, 6, 6]]), jnp.array([[1.0] * 4, [1.0] * 3 + [0.0]])
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_evaluation_sums_the_excess_of_each_datum(target, name):
    rows, excess = ROWS[name], excess_by_datum(Z["w"])
    found = excess_losses(target, Z, rows)
    np.testing.assert_allclose(found.excess, excess.sum(axis=1), rtol=1e-5)
    ends = [0, 4] if name == "slices" else [0]
    np.testing.assert_allclose(found.by_part, np.add.reduceat(excess, ends, axis=1), rtol=1e-5)
    signs = signs_of(found.contrasts, excess)
    assert signs.shape == (evaluation.NUM_CONTRASTS, N)
    assert np.abs(signs.mean()) < 4 / np.sqrt(signs.size)
    assert len(np.unique(signs, axis=0)) > evaluation.NUM_CONTRASTS / 2
    assert len(np.unique(signs, axis=1).T) > 1
    moved = np.asarray(Z["w"]) + np.float32(0.1)
    again = excess_losses(target, {"w": moved}, rows).contrasts
    np.testing.assert_array_equal(signs_of(again, excess_by_datum(moved)), signs)


@pytest.mark.parametrize("name", ROWS)
def test_a_chain_at_the_center_has_an_excess_of_exactly_zero(target, name):
    here = {"w": jnp.stack([target.center["w"], target.center["w"]])}
    for part in excess_losses(target, here, ROWS[name]):
        assert np.all(np.asarray(part) == 0.0)


@pytest.mark.parametrize(("name", "forward"), [*((name, True) for name in ROWS), ("slices", False)])
def test_the_slope_of_each_chain_is_along_its_offset(target, name, forward):
    way = replace(target, program=replace(target.program, has_forward_mode=forward))
    found = excess_losses(way, Z, ROWS[name], with_slope=True)
    offset = np.asarray(Z["w"], float) - CENTER
    wanted = np.einsum("cn,cn->c", offset @ X.T, np.asarray(Z["w"], float) @ X.T - Y)
    np.testing.assert_allclose(found.slope, wanted, rtol=1e-5)
    plain = excess_losses(target, Z, ROWS[name])
    np.testing.assert_array_equal(plain.slope, 0.0)
    np.testing.assert_allclose(found.excess, plain.excess, rtol=1e-6)


def test_a_row_that_stands_for_several_adds_their_variance(target):
    rows = jnp.array([[6, 1], [0, 3]])
    found = excess_losses(target, Z, EvaluationRows(rows, jnp.full((2, 2), N / 4)))
    excess = excess_by_datum(Z["w"])[:, [6, 1, 0, 3]]
    np.testing.assert_allclose(found.excess, N / 4 * excess.sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(
        found.by_part, N / 4 * excess.reshape(2, 2, 2).sum(axis=2), rtol=1e-5
    )
    signs_of(found.contrasts, np.sqrt(N / 4) * excess)


def test_without_batches_all_data_are_evaluated(target, whole):
    assert all_rows(whole) is None
    rows = all_rows(target)
    np.testing.assert_array_equal(rows.rows, [np.arange(N)])
    np.testing.assert_array_equal(rows.weights, np.ones((1, N)))


def test_some_rows_stand_for_all():
    target = target_of(
        regression.model,
        (regression.X, regression.Y),
        {"w": regression.OLS},
        beta=BETA,
        gamma=GAMMA,
        batches=True,
    )
    z = {"w": jnp.full((1, 5), 10.0)}
    wanted = excess_by_datum(z["w"], regression.OLS, regression.X, regression.Y).sum()
    rows = some_rows(target, 333, jax.random.key(0))
    assert rows.rows.shape == rows.weights.shape == (evaluation.NUM_PARTS, 20)
    assert len(np.unique(rows.rows)) == 320
    np.testing.assert_allclose(rows.weights, 500 / 320)
    total, parts, *_ = excess_losses(target, z, rows)
    np.testing.assert_allclose(parts.sum(), total[0], rtol=1e-5)
    error = np.std(np.asarray(parts[0]), ddof=1) * np.sqrt(16 * (1 - 320 / 500))
    assert abs(float(total[0]) - wanted) < 4 * error
    assert abs(float(total[0]) * 320 / 500 - wanted) > 4 * error  # of rows that stand for one
    assert some_rows(target, 3, jax.random.key(0)).rows.shape == (evaluation.NUM_PARTS, 1)
    assert rows_to_evaluate(target, 500, jax.random.key(0)).rows.shape == (1, 500)
    assert rows_to_evaluate(target, 499, jax.random.key(0)).rows.shape == (16, 31)
