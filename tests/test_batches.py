"""Rows of the data taken out of a model: plates, slices, what is inferred and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import regression

import numpyro_llc as nllc
from numpyro_llc.models import read_model, with_batches

N = 40
rng = np.random.default_rng(0)
X = rng.normal(size=(N, 3))
Y = X @ np.ones(3) + rng.normal(size=N)
ROWS = jnp.array([7, 3, 3, 39, 0])


def weights():
    return numpyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))


def plate_by_shape(x, y):
    w = weights()
    with numpyro.plate("N", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def plate_by_number(x, y):
    w = weights()
    with numpyro.plate("N", N):
        numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def indexed(x, y):
    w = weights()
    with numpyro.plate("N", N) as rows:
        numpyro.sample("y", dist.Normal(x[rows] @ w, 1.0), obs=y[rows])


def subsampled(x, y):
    w = weights()
    with numpyro.plate("N", N, subsample_size=8) as rows:
        numpyro.sample("y", dist.Normal(x[rows] @ w, 1.0), obs=y[rows])


def primitive(x, y):
    w = weights()
    with numpyro.plate("N", N, subsample_size=8):
        x, y = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
        numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def no_plate(x, y):
    numpyro.sample("y", dist.Normal(x @ weights(), 1.0), obs=y)


def scaled(x, y):
    w = weights()
    with numpyro.plate("N", x.shape[0]), numpyro.handlers.scale(scale=3.0):
        numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def masked(x, y):
    w = weights()
    with numpyro.plate("N", x.shape[0]), numpyro.handlers.mask(mask=x[:, 0] > -1):
        numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def two_plates(x, y):
    w = weights()
    with numpyro.plate("outputs", 2, dim=-1), numpyro.plate("N", N, dim=-2) as rows:
        numpyro.sample(
            "y", dist.Normal((x @ w)[rows][:, None], 1.0), obs=y[rows][:, None] + jnp.arange(2)
        )


def two_sites(x, y):
    w = weights()
    with numpyro.plate("N", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)
        numpyro.sample("x", dist.Normal(0.0, 1.0 + w[0] ** 2).expand([3]).to_event(1), obs=x)


MODELS = [
    plate_by_shape,
    plate_by_number,
    indexed,
    subsampled,
    primitive,
    no_plate,
    scaled,
    masked,
    two_plates,
    two_sites,
]


def read(model, *data):
    return read_model(model, data or (X, Y), None, center={"w": np.full(3, 0.9)})


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_losses_of_rows_are_those_of_the_full_data(model):
    reading = read(model)
    program = with_batches(reading)
    z = {"w": jnp.array([0.3, -1.0, 2.0])}

    @jax.jit
    def both(z, arrays):
        return program.losses(z, arrays), program.row_losses(z, arrays, ROWS)

    losses, rows = both(z, reading.arrays)
    full = sum(np.asarray(loss).reshape(N, -1).sum(axis=1) for loss in losses.values())
    np.testing.assert_allclose(rows, full[np.asarray(ROWS)], rtol=1e-5)


@pytest.mark.parametrize("model", [indexed, plate_by_shape, no_plate])
def test_cost_of_a_batch_does_not_grow_with_the_data(model):
    """The compiled code holds no array as long as the data but the data themselves."""
    reading = read(model)
    program = with_batches(reading)
    compiled = jax.jit(program.row_losses).lower(reading.center, reading.arrays, ROWS).compile()
    lines = [line for line in compiled.as_text().splitlines() if f"[{N}" in line.split("(")[0]]
    assert all("parameter(" in line or "HloModule" in line for line in lines)


def half_indexed(x, y):
    w = weights()
    with numpyro.plate("N", N) as rows:
        numpyro.sample("y", dist.Normal(x[rows] @ w, 1.0), obs=y)


def declared_not_indexed(x, y):
    w = weights()
    with numpyro.plate("N", N, subsample_size=8):
        numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def normalized(x, y):
    numpyro.sample("y", dist.Normal((x - x.mean(0)) @ weights(), 1.0), obs=y)


def with_table(x, y, table):
    numpyro.sample("y", dist.Normal(x @ weights() + table.sum(), 1.0), obs=y)


@pytest.mark.parametrize("model", [half_indexed, declared_not_indexed])
def test_observations_that_do_not_follow_their_plate_are_named(model):
    with pytest.raises(ValueError, match=r"do not follow the indices of plate 'N'.*obs=y\[idx\]"):
        with_batches(read(model))


def test_rows_that_depend_on_one_another_are_refused():
    with pytest.raises(ValueError, match="not those of the full data.*normalised over the batch"):
        with_batches(read(normalized))


def test_axes_are_told_where_they_are_in_doubt():
    reading = read(with_table, X, Y, np.ones(N) / N)
    with pytest.raises(ValueError, match="`in_axes`"):
        with_batches(reading)
    for told in ((0, 0, None), (0, 0), {"x": 0, "y": 0}):
        assert with_batches(reading, told).batching.axes == (0, 0, None)
    turned = read(lambda xt, y: plate_by_shape(xt.T, y), X.T, Y)
    assert with_batches(turned, (1, 0)).batching.axes == (1, 0)


@pytest.mark.parametrize(
    ("axes", "error", "message"),
    [
        ({"z": 0}, ValueError, "`in_axes` must have at most one entry for each argument"),
        ((0, 0, 0, 0), ValueError, "`in_axes` must have at most one entry for each argument"),
        ((5, 0, None), ValueError, "`in_axes` gives axis 5 of 'x', of shape"),
        ("xy", TypeError, "`in_axes` must be a tuple"),
    ],
)
def test_bad_axes_are_refused(axes, error, message):
    with pytest.raises(error, match=message):
        with_batches(read(with_table, X, Y, np.ones(N)), axes)


def test_a_likelihood_without_rows_is_refused():
    def model(x, y):
        numpyro.sample("y", dist.Normal(x @ weights(), 1.0).to_event(1), obs=y)

    with pytest.raises(ValueError, match="needs observed sites with rows in common"):
        nllc.estimate_llc(
            jax.random.key(0),
            model,
            (X, Y),
            center={"w": np.ones(3)},
            num_data=N,
            kernel="sgld",
            batch_size=8,
        )


def test_a_model_that_scales_a_batch_to_all_the_data_is_warned_of(recwarn):
    """By hand, as an optimizer would need it; weights of the data are what they are."""

    def model(x, y, factor):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([5]).to_event(1))
        with numpyro.plate("rows", len(y)), numpyro.handlers.scale(scale=factor):
            numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)

    settings = {"center": {"w": regression.OLS}, "num_warmup": 1, "num_samples": 30}
    count = len(regression.Y)
    weights = np.random.default_rng(0).exponential(size=count)
    for factor, is_told in ((count / 40, True), (2.0, False), (weights * 12.5, False)):
        recwarn.clear()
        data = regression.X, regression.Y, factor
        nllc.estimate_llc(jax.random.key(0), model, data, batch_size=40, **settings)
        told = [str(one.message) for one in recwarn if "take the factor out" in str(one.message)]
        assert len(told) == is_told
        assert not told or "'y' by 12.5 " in told[0]
        assert not told or "as 40 rows of 500" in told[0]
