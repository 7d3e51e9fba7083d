"""``loss_model``: any loss of each datum, on any pytree of parameters."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
import regression
from metropolis import FITTED, Metropolis
from targets import target_of

import numpyro_llc as nllc
from numpyro_llc import zoo

DATA = (regression.X, regression.Y)
CENTER = {"params": {"w": regression.OLS}}


def squares(params, x, y):
    return 0.5 * (x @ params["w"] - y) ** 2


MODEL = nllc.loss_model(squares, {"w": np.zeros(5)})


def estimate(model, data=DATA, center=CENTER, **settings):
    settings = {"progress_bar": False, **settings}
    return nllc.estimate_llc(jax.random.key(0), model, data, center=center, **settings)


WALK = {"kernel": FITTED, "num_warmup": 100, "num_samples": 8000, "thinning": 4}
BATCHES = {"kernel": "sgnht", "batch_size": 50, "num_warmup": 1000, "num_samples": 8000}


@pytest.mark.parametrize(
    "settings", [WALK, pytest.param(BATCHES, marks=pytest.mark.slow)], ids=["all", "batches"]
)
def test_squares_have_the_llc_of_the_regression(settings, llc_of):
    exact = regression.exact(regression.OLS, 1.0)
    idata = estimate(MODEL, **settings)
    mean, error = llc_of(idata)
    assert idata.attrs["num_data"] == 500
    assert abs(mean - exact) < 4 * error
    assert error < 0.05 * exact


def test_batches_have_the_losses_and_the_slope_of_their_rows():
    target = target_of(MODEL, DATA, CENTER, batches=True)
    rows, w = np.array([7, 3, 3, 499]), regression.OLS + 0.1
    z = {"params": {"w": jnp.asarray(w, jnp.float32)}}
    losses, slope = jax.jit(
        lambda target, z: (
            target.row_losses(z, rows),
            jax.grad(lambda z: jnp.sum(target.row_losses(z, rows)))(z),
        )
    )(target, z)
    residuals = regression.X[rows] @ w - regression.Y[rows]
    np.testing.assert_allclose(losses, 0.5 * residuals**2, rtol=1e-4)
    np.testing.assert_allclose(slope["params"]["w"], residuals @ regression.X[rows], rtol=1e-4)


def test_a_network_model_has_the_density_of_its_losses():
    """The losses differ by a constant, which the centre takes away."""
    network = nllc.network_model(lambda params, x: x @ params["w"], {"w": np.zeros(5)})
    z = {"params": {"w": jnp.asarray(regression.OLS + [0.1, 0.0, -0.2, 0.3, 0.0])}}
    found = []
    for model in (MODEL, network):
        local = nllc.localize(model, center=CENTER)
        found.append(float(local.target(local.read(DATA, None))[0].potential(z)))
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0] > 1.0


def test_a_potential_without_data_has_its_llc(llc_of):
    problem = zoo.load("fourth_power", 1000)
    model = nllc.loss_model(lambda w: 1000 * w**4, np.zeros(()))
    assert problem.expectation().mean == pytest.approx(0.239, abs=0.01)
    walk = {"kernel": Metropolis(0.3), "num_warmup": 300, "num_samples": 8000, "thinning": 4}
    idata = estimate(model, (), {"params": 0.0}, num_data=1000, **walk)
    mean, error = llc_of(idata)
    assert abs(mean - problem.expectation().mean) < 4 * error
    assert error < 0.05
    with pytest.raises(ValueError, match="Cannot infer n.*Pass `num_data`"):
        estimate(model, (), {"params": 0.0})


TOKENS = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)


def test_losses_of_tokens_need_n_and_are_summed_over_sequences():
    """At n sequences and at n tokens: β alone differs."""
    model = nllc.loss_model(lambda w, x: 0.5 * (x - w) ** 2, np.zeros(()))
    center = {"params": TOKENS.mean()}
    for count in (30, 120):
        local = nllc.localize(model, center=center, num_data=count)
        target, n = local.target(local.read((TOKENS,), None))
        assert n == count
        found = float(target.potential({"params": jnp.float32(TOKENS.mean() + 0.5)}))
        assert found == pytest.approx((120 / np.log(count) + 1) * 0.125, rel=1e-4)
    with pytest.raises(ValueError, match="Cannot infer n.*pass `num_data`"):
        nllc.localize(model, center=center).target(local.read((TOKENS,), None))


def test_parameters_are_a_module_and_data_a_pytree():
    net = eqx.nn.Linear(5, 1, key=jax.random.key(0))

    def losses(net, batch):
        return 0.5 * (jax.vmap(net)(batch["x"])[:, 0] - batch["y"]) ** 2

    model = nllc.loss_model(losses, net)
    assert model == nllc.loss_model(losses, net)
    assert hash(model) == hash(nllc.loss_model(losses, net))
    batch = {"x": regression.X, "y": regression.Y}
    local = nllc.localize(model, center={"params": net})
    found = local.read((batch,), None).center_losses["loss"]
    np.testing.assert_allclose(found, losses(net, batch), rtol=1e-5)


@pytest.mark.parametrize(
    ("losses", "error", "message"),
    [
        (lambda w, x: [1.0], TypeError, "`losses` must return an array of floats.*got list"),
        (lambda w, x: jnp.ones(30, int), TypeError, "`losses` must return.*got int32"),
        (lambda w, x: jnp.cumsum(x[:, 0] * w), ValueError, "rows"),
        ("squares", TypeError, "`losses` must be a function of .params, .data.; got str"),
    ],
)
def test_what_gives_no_losses_is_refused(losses, error, message):
    def run():
        model = nllc.loss_model(losses, np.zeros(()))
        estimate(model, (TOKENS,), {"params": 0.0}, kernel="sgnht", batch_size=10)

    with pytest.raises(error, match=message):
        run()


def test_numpyro_reads_the_model():
    with numpyro.handlers.seed(rng_seed=0):
        trace = numpyro.handlers.trace(MODEL).get_trace(*DATA)
    assert [k for k, site in trace.items() if site["type"] == "sample"] == ["loss"]
    np.testing.assert_allclose(
        trace["loss"]["fn"].log_prob(trace["loss"]["value"]), -0.5 * regression.Y**2, rtol=1e-5
    )
