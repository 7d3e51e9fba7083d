"""Products of matrices are as exact as their factors, whatever the device makes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.lax import Precision
from targets import target_of

import numpyro_llc as nllc

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 3)), RNG.normal(size=(20, 2))
COVARIANCE = np.eye(2) + 0.5


def two_layers(x, y):
    a = numpyro.sample("a", dist.Normal(0, 1).expand([3, 4]).to_event(2))
    b = numpyro.sample("b", dist.Normal(0, 1).expand([4, 2]).to_event(2))
    mean = jnp.matmul(jnp.tanh(x @ a), b)
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.MultivariateNormal(mean, COVARIANCE), obs=y)


CENTER = {"a": np.zeros((3, 4)), "b": np.zeros((4, 2))}


def precisions(part):
    """Of each product in a jaxpr and those nested in it."""
    if isinstance(part, list | tuple):
        return set().union(*map(precisions, part))
    found = set()
    for equation in getattr(part, "eqns", ()):
        if equation.primitive.name == "dot_general":
            found.add(equation.params["precision"])
        found |= precisions(list(equation.params.values()))
    return found


def of_losses(has_rows, **factors):
    """Of the losses and of their gradient, of all data or of a batch."""
    target = target_of(two_layers, (X, Y), CENTER, batches=True, **factors)
    rows = np.arange(4)

    def total(z):
        losses = target.row_losses(z, rows) if has_rows else target.losses(z)["y"]
        return jnp.sum(losses)

    return precisions(jax.make_jaxpr(jax.value_and_grad(total))(target.center))


@pytest.mark.parametrize("has_rows", [False, True])
def test_products_do_not_round_their_factors(has_rows):
    assert of_losses(has_rows) == {(Precision.HIGHEST, Precision.HIGHEST)}


@pytest.mark.parametrize("chosen", ["default", "high"])
def test_what_the_user_has_set_is_kept(chosen):
    with jax.default_matmul_precision(chosen):
        found = of_losses(True)
    assert Precision.HIGHEST not in {one for pair in found if pair for one in pair}


@pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
def test_a_result_says_what_products_were_rounded_to():
    def estimated():
        settings = {"num_warmup": 10, "num_samples": 10, "progress_bar": False}
        found = nllc.estimate_llc(
            jax.random.key(0), two_layers, (X, Y), center=CENTER, kernel="sgld", **settings
        )
        return found.attrs["precision"]

    assert estimated() == "float32"
    with jax.default_matmul_precision("tensorfloat32"):
        assert estimated() == "float32, products in tensorfloat32"
