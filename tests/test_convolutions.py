"""Convolutions as matrix products: the same numbers, and none left where chains are sampled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from targets import target_of

import numpyro_llc as nllc
from numpyro_llc.models import _convolutions, read_model
from numpyro_llc.models._convolutions import CONVOLUTION, without_convolutions
from numpyro_llc.models._fingerprint import calls

RNG = np.random.default_rng(0)
NHWC = ("NHWC", "HWIO", "NHWC")
# Shapes of image and kernel, and what jax.lax.conv_general_dilated is told beside.
CASES = {
    "same": ((2, 6, 5, 3), (3, 3, 3, 4), {"padding": "SAME", "dimension_numbers": NHWC}),
    "strides": (
        (2, 3, 7, 8),
        (4, 3, 3, 2),
        {"window_strides": (2, 3), "padding": ((1, 2), (0, 1)), "rhs_dilation": (2, 1)},
    ),
    "transposed": (
        (2, 5, 3, 4),
        (2, 3, 4, 6),
        {
            "padding": ((2, -1), (0, 3)),
            "lhs_dilation": (2, 3),
            "dimension_numbers": ("HNWC", "HWIO", "CWNH"),
        },
    ),
    "groups": ((2, 6, 5, 6), (3, 2, 2, 9), {"dimension_numbers": NHWC, "feature_group_count": 3}),
    "depthwise": ((2, 6, 5), (12, 1, 3), {"feature_group_count": 6}),
    "no space": ((2, 3), (4, 3), {"window_strides": (), "padding": ()}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_product_of_patches_is_the_convolution(name):
    image, kernel, told = CASES[name]
    image, kernel = RNG.normal(size=image), RNG.normal(size=kernel)
    told = {"window_strides": (1,) * (image.ndim - 2), "padding": "VALID", **told}

    def convolved(image, kernel):
        return jax.lax.conv_general_dilated(image, kernel, **told)

    product = without_convolutions(convolved)
    assert not calls(jax.make_jaxpr(product)(image, kernel), CONVOLUTION)
    np.testing.assert_allclose(
        jax.jit(product)(image, kernel), jax.jit(convolved)(image, kernel), rtol=1e-4, atol=1e-5
    )


def test_what_is_no_gain_is_left_as_it_is():
    """A kernel of a thousand taps would make the image a thousand times as large."""
    image, kernel = jnp.ones((1, 1, 2000)), jnp.ones((1, 1, 1000))
    for stride, is_left in ((1, True), (100, False)):
        convolved = lambda x, y, by=stride: jax.lax.conv(x, y, (by,), "VALID")  # noqa: E731
        jaxpr = jax.make_jaxpr(without_convolutions(convolved))(image, kernel)
        assert calls(jaxpr, CONVOLUTION) == is_left


IMAGES, LABELS = RNG.normal(size=(30, 4, 4, 1)), RNG.integers(0, 3, 30)
PARAMS = {"first": RNG.normal(size=(3, 3, 1, 2)), "second": RNG.normal(size=(3, 3, 2, 3))}


def layer(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC)


def plain(params, x):
    return layer(jnp.tanh(layer(x, params["first"])), params["second"]).mean(axis=(1, 2))


def nested(params, x):
    """The same within a branch, a loop, a call, and one that is computed again for its gradient."""
    layers = [lambda x, w=w: layer(x, w) for w in (params["first"], params["second"][:, :, :1, :2])]
    x = jax.lax.cond(params["first"].sum() > 0.0, *layers, x)
    x = jax.checkpoint(jnp.tanh)(x)
    x = jax.lax.fori_loop(0, 1, lambda _, x: jax.checkpoint(layer)(x, params["second"][..., :2]), x)
    return x.mean(axis=(1, 2))


def test_no_convolution_is_left_where_a_model_is_sampled():
    model = nllc.network_model(plain, PARAMS, "categorical")
    target = target_of(model, (IMAGES, LABELS), {"params": PARAMS}, batches=True)
    sampler = nllc.SGLD(batch_size=6).sampler
    keys = jax.random.split(jax.random.key(0), 2)
    z = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), target.center)
    state = jax.eval_shape(sampler.init, keys, z, target)
    jaxpr = jax.make_jaxpr(sampler.step)(state, target)
    assert calls(jaxpr, "dot_general")
    assert not calls(jaxpr, CONVOLUTION)


def test_convolutions_in_loops_branches_and_calls_are_found():
    model = nllc.network_model(nested, PARAMS, "categorical")
    target = target_of(model, (IMAGES, LABELS % 2), {"params": PARAMS})
    assert target.program.has_convolutions
    assert calls(jax.make_jaxpr(lambda x: nested(PARAMS, x))(IMAGES), CONVOLUTION)
    assert not calls(jax.make_jaxpr(jax.grad(target.potential))(target.center), CONVOLUTION)
    losses = jax.jit(target.losses)(target.center)["y"]
    wanted = -jax.nn.log_softmax(nested(PARAMS, jnp.asarray(IMAGES)))[np.arange(30), LABELS % 2]
    np.testing.assert_allclose(losses, wanted, rtol=1e-4)


def test_losses_and_gradients_are_those_of_the_convolutions(monkeypatch):
    model = nllc.network_model(plain, PARAMS, "categorical")
    target = target_of(model, (IMAGES, LABELS), {"params": PARAMS}, batches=True)

    def found(z):
        of_rows = lambda z: jnp.sum(target.row_losses(z, jnp.arange(7)))  # noqa: E731
        return jax.value_and_grad(of_rows)(z), jax.value_and_grad(target.potential)(z)

    z = jax.tree.map(lambda leaf: leaf + 0.1, target.center)
    got = jax.jit(found)(z)
    monkeypatch.setattr(_convolutions, "without_convolutions", lambda function: function)
    compiled = jax.jit(lambda z: found(z)).lower(z).compile()
    assert " convolution(" in compiled.as_text()
    wanted = compiled(z)
    assert min(jnp.abs(leaf).max() for leaf in jax.tree.leaves(wanted)) > 0.1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, wanted)


def test_a_dense_model_is_left_as_it_is():
    reading = read_model(
        nllc.network_model(lambda p, x: x.reshape(len(x), -1) @ p["w"], {"w": np.ones((16, 3))}),
        (IMAGES, RNG.normal(size=(30, 3))),
        None,
        center={"params": {"w": np.ones((16, 3))}},
    )
    assert not reading.program.has_convolutions
