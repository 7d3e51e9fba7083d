"""What counts as n where a row is a sequence: sequences, tokens, or another tool's nβ."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import regression
from numpyro.infer import HMC

import numpyro_llc as nllc
from numpyro_llc.models import read_model, with_batches

N, TOKENS, DIM = 100, 5, 5
X, Y = regression.X.reshape(N, TOKENS, DIM), regression.Y.reshape(N, TOKENS)
CENTER = {"params": {"w": regression.OLS}}


def linear(params, x):
    return x @ params["w"]


def token_losses(params, x, y):
    return 0.5 * (y - linear(params, x)) ** 2


def mean_losses(params, x, y):
    return token_losses(params, x, y).mean(axis=1)


def in_two_plates(x, y):
    params = numpyro.param("params", {"w": jnp.zeros(DIM)})
    with numpyro.plate("sequences", N, dim=-2), numpyro.plate("tokens", TOKENS, dim=-1):
        numpyro.sample("y", dist.Normal(linear(params, x), 1.0), obs=y)


ROWS = nllc.network_model(linear, CENTER["params"])
LOSSES = nllc.loss_model(token_losses, CENTER["params"])
MEANS = nllc.loss_model(mean_losses, CENTER["params"])
KERNEL = HMC(ROWS, trajectory_length=1.5)  # a quarter turn: draws hardly hang together
BY_SEQUENCE, BY_TOKEN = 1.0 / np.log(N), 1.0 / np.log(N * TOKENS)
NBETA = N / np.log(N)
"""Of a tool whose L is the mean loss of a token, and whose n is the number of sequences."""
BY_NBETA = NBETA / (N * TOKENS)
# The model, what `localize` is told, n, and what multiplies the sum of the losses of all tokens.
CONVENTIONS = {
    "sequences": (ROWS, {}, N, BY_SEQUENCE),
    "sequences of losses": (LOSSES, {"num_data": N}, N, BY_SEQUENCE),
    "tokens by num_data": (ROWS, {"num_data": N * TOKENS}, N * TOKENS, BY_TOKEN),
    "tokens by plates": (in_two_plates, {}, N * TOKENS, BY_TOKEN),
    "nβ of mean losses": (ROWS, {"inverse_temperature": BY_NBETA}, N, BY_NBETA),
    "means over tokens": (MEANS, {}, N, BY_NBETA),
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_each_convention_multiplies_the_sum_over_tokens_as_the_page_says(name):
    model, told, num_data, factor = CONVENTIONS[name]
    local = nllc.localize(model, center=CENTER, localization=0.0, **told)
    target, n = local.target(local.read((X, Y)))
    moved = {"params": {"w": regression.OLS + 0.1}}
    rise = 0.5 * np.sum((Y - X @ (regression.OLS + 0.1)) ** 2 - (Y - X @ regression.OLS) ** 2)
    assert n == num_data
    assert jax.jit(target.potential)(moved) == pytest.approx(factor * rise, rel=1e-4)


@pytest.mark.filterwarnings("ignore:The share of λ̂ that γ takes")
@pytest.mark.parametrize("gamma", [0.0, 30.0])
@pytest.mark.parametrize("name", ["sequences", "tokens by num_data", "nβ of mean losses"])
def test_a_regular_model_has_half_its_parameters_whatever_n_counts(name, gamma, llc_of):
    """Without γ. With it the temperature matters, and T times as much of it is a lower λ̂."""
    model, told, _, factor = CONVENTIONS[name]
    idata = nllc.estimate_llc(
        jax.random.key(0),
        nllc.localize(model, center=CENTER, localization=gamma, **told),
        (X, Y),
        kernel=KERNEL,
        num_warmup=300,
        num_samples=2000,
        progress_bar=False,
    )
    value, error = llc_of(idata)
    assert abs(value - regression.exact(regression.OLS, gamma, beta=factor)) < 4 * error
    if gamma == 0.0:
        assert abs(value - DIM / 2) < 4 * error
    others = {BY_SEQUENCE, BY_TOKEN, BY_NBETA} - {factor}
    wrong = [regression.exact(regression.OLS, gamma, beta=other) for other in others]
    assert gamma == 0.0 or np.all(np.abs(value - np.array(wrong)) > 4 * error)


def test_losses_of_tokens_ask_what_a_datum_is():
    with pytest.raises(ValueError, match="`num_data`"):
        nllc.localize(LOSSES, center=CENTER).target(read_model(LOSSES, (X, Y), None, center=CENTER))


VOCABULARY = 3
LABELS = np.random.default_rng(1).integers(0, VOCABULARY, (N, TOKENS))
READOUT = {"params": {"w": np.random.default_rng(2).normal(size=(DIM, VOCABULARY))}}


def test_logits_of_tokens_make_a_sequence_a_datum():
    model = nllc.network_model(linear, READOUT["params"], "categorical")
    reading = read_model(model, (X, LABELS), None, center=READOUT)
    logs = jax.nn.log_softmax(X @ READOUT["params"]["w"])
    wanted = -np.take_along_axis(np.asarray(logs), LABELS[..., None], -1)[..., 0].sum(axis=1)
    np.testing.assert_allclose(reading.center_losses["y"], wanted, rtol=1e-5)
    assert reading.num_data() == N
    assert with_batches(reading).batching.num_rows == N
