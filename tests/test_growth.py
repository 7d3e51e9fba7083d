"""Sites that grow with the data are refused; as many parameters as data by chance are not."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

import numpyro_llc as nllc

N = 24
RNG = np.random.default_rng(0)
Y = RNG.normal(size=N)
T = np.linspace(0.0, 1.0, N)
NORMAL = dist.Normal(0.0, 1.0)


def effects(y):
    mu = numpyro.sample("mu", NORMAL)
    t = numpyro.sample("t", dist.Normal(mu, 1.0).expand([len(y)]))
    numpyro.sample("y", dist.Normal(t, 0.3), obs=y)


def effects_of_event(y):
    t = numpyro.sample("t", NORMAL.expand([y.shape[0]]).to_event(1))
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", dist.Normal(t, 0.3), obs=y)


def effects_of_number(y, n):
    t = numpyro.sample("t", NORMAL.expand([n]).to_event(1))
    numpyro.sample("y", dist.Normal(t, 0.3), obs=y)


def closed_effects(y):
    t = numpyro.sample("t", NORMAL.expand([N]).to_event(1))
    numpyro.sample("y", dist.Normal(t[::-1], 0.3), obs=y)


def data_outside():
    t = numpyro.sample("t", NORMAL.expand([N]).to_event(1))
    numpyro.sample("y", dist.Normal(t, 0.3), obs=Y)


def walk(y):
    steps = numpyro.sample("t", NORMAL.expand([len(y)]).to_event(1))
    numpyro.sample("y", dist.Normal(jnp.cumsum(steps), 0.3), obs=y)


def walk_of_increments(y):
    steps = numpyro.sample("t", NORMAL.expand([len(y) - 1]).to_event(1))
    level = jnp.concatenate([jnp.zeros(1), jnp.cumsum(steps)])
    numpyro.sample("y", dist.Normal(level, 0.3), obs=y)


def volatility(y):
    h = numpyro.sample("t", dist.GaussianRandomWalk(0.2, len(y)))
    numpyro.sample("y", dist.Normal(0.0, jnp.exp(0.5 * h)), obs=y)


def states(y):
    def move(state, seen):
        state = numpyro.sample("t", dist.Normal(state, 1.0))
        numpyro.sample("y", dist.Normal(state, 1.0), obs=seen)
        return state, None

    scan(move, 0.0, y)


def process(x, y):
    kernel = jnp.exp(-8.0 * (x[:, None] - x) ** 2) + 1e-3 * jnp.eye(len(x))
    f = numpyro.sample("t", dist.MultivariateNormal(jnp.zeros(len(x)), kernel))
    numpyro.sample("y", dist.Bernoulli(logits=f), obs=y)


def process_of_matrix(kernel, y):
    white = numpyro.sample("t", NORMAL.expand([len(y)]).to_event(1))
    numpyro.sample("y", dist.Normal(jnp.linalg.cholesky(kernel) @ white, 0.3), obs=y)


GROWING = {
    "effects": (effects, (Y,)),
    "effects of an event": (effects_of_event, (Y,)),
    "effects of a given number": (effects_of_number, (Y, N)),
    "effects of a closed-over number": (closed_effects, (Y,)),
    "data from outside": (data_outside, ()),
    "a random walk": (walk, (Y,)),
    "a random walk of increments": (walk_of_increments, (Y,)),
    "stochastic volatility": (volatility, (Y,)),
    "a state space model": (states, (Y,)),
    "a Gaussian process": (process, (T, (Y > 0).astype(int))),
    "a process of a given matrix": (
        process_of_matrix,
        (np.exp(-np.abs(T[:, None] - T)), Y),
    ),
}


def center_of(model, args):
    seeded = numpyro.handlers.seed(model, 0)
    trace = numpyro.handlers.trace(seeded).get_trace(*args)
    return {
        name: np.asarray(site["value"])
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"]
    }


def read(model, args, **settings):
    local = nllc.localize(model, center=center_of(model, args), **settings)
    return local, local.target(local.read(args))


@pytest.mark.parametrize("name", GROWING)
def test_sites_that_grow_with_the_data_are_refused(name):
    model, args = GROWING[name]
    with pytest.raises(ValueError, match="Latent site 't' has .*Marginalise it"):
        read(model, args)


def regression(x, y):
    w = numpyro.sample("w", NORMAL.expand([x.shape[1]]).to_event(1))
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def closed_regression():
    w = numpyro.sample("w", NORMAL.expand([N]).to_event(1))
    numpyro.sample("y", dist.Normal(SQUARE @ w, 1.0), obs=Y)


def grouped(index, y, groups):
    w = numpyro.sample("w", NORMAL.expand([groups]).to_event(1))
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", dist.Normal(w[index], 1.0), obs=y)


def closed_groups():
    """More groups than data, of which many share one."""
    w = numpyro.sample("w", NORMAL.expand([N + 6]).to_event(1))
    numpyro.sample("y", dist.Normal(w[np.arange(N) // 3], 1.0), obs=Y)


def network(x, y):
    a = numpyro.sample("a", NORMAL.expand([1, 40]).to_event(2))
    b = numpyro.sample("b", NORMAL.expand([40]).to_event(1))
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", dist.Normal(jnp.tanh(x[:, None] @ a) @ b, 1.0), obs=y)


SQUARE = RNG.normal(size=(N, N))


def transitions(y):
    """A simplex has more values than coordinates."""
    rows = numpyro.sample("rows", dist.Dirichlet(jnp.ones((2, 2 * N))).to_event(1))
    with numpyro.plate("N", len(y)):
        numpyro.sample("y", dist.Normal(rows[0, 0], 1.0), obs=y)


WELCOME = {
    "simplexes": (transitions, (Y,)),
    "a square regression": (regression, (SQUARE, Y)),
    "more columns than rows": (regression, (RNG.normal(size=(N, 3 * N)), Y)),
    "a square regression from outside": (closed_regression, ()),
    "groups of two": (grouped, (np.arange(N) // 2, Y, N // 2)),
    "as many groups as data, shared": (grouped, (np.arange(N) // 2, Y, N)),
    "shared groups from outside": (closed_groups, ()),
    "a network": (network, (T, Y)),
}


@pytest.mark.parametrize("name", WELCOME)
def test_as_many_parameters_as_data_by_chance_are_welcome(name):
    model, args = WELCOME[name]
    _, (target, num_data) = read(model, args)
    assert target.dimension >= num_data // 2


def network_of_one_event(x, y):
    w = numpyro.sample("w", NORMAL.expand([2 * N]).to_event(1))
    mean = jnp.tanh(x[:, None] * w[:N]) @ w[N:]
    numpyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=y)


def test_data_in_one_event_have_no_parameters_of_their_own():
    """Their loss is one number, so that nothing tells whose a parameter is."""
    _, (target, num_data) = read(network_of_one_event, (T, Y), num_data=N)
    assert (target.dimension, num_data) == (2 * N, N)


def counts(successes, total):
    logit = numpyro.sample("t", NORMAL.expand([len(successes)]).to_event(1))
    numpyro.sample("y", dist.Binomial(total, logits=logit), obs=successes)


def test_a_row_that_counts_many_data_may_have_a_parameter():
    args = (RNG.integers(0, 50, N), 50)
    _, (_, num_data) = read(counts, args, num_data=50 * N)
    assert num_data == 50 * N
    for given in (None, N):
        with pytest.raises(ValueError, match=f"`num_data`, above {N}"):
            read(counts, args, num_data=given)


def test_effects_that_are_held_fixed_do_not_count():
    _, (target, _) = read(effects, (Y,), sites="mu")
    assert target.dimension == 1
    with pytest.raises(ValueError, match="Latent site 't'"):
        read(effects, (Y,), sites=["t", "mu"])


def test_the_functions_that_sample_refuse_them():
    key, center = jax.random.key(0), center_of(effects, (Y,))
    local = nllc.localize(effects, center=center)
    calls = [
        lambda: nllc.estimate_llc(key, effects, (Y,), center=center),
        lambda: nllc.estimate_llc(key, local, (Y,), kernel="sgld", batch_size=8),
        lambda: nllc.sweep(key, local, (Y,), localization=[1.0, 2.0]),
        lambda: numpyro.handlers.seed(local, 0)(Y),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="Latent site 't' has 24 values, and 23"):
            call()
