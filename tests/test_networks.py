"""Networks of flax, nnx and equinox, as NumPyro takes them."""

import pickle
import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flax import linen, nnx
from flax.core import FrozenDict
from numpyro import handlers
from numpyro.contrib import module as contrib

import numpyro_llc as nllc
from numpyro_llc.models import check_rows_apart, read_model, with_batches

X = np.linspace(-1.0, 1.0, 30)[:, None]
Y = np.sin(2 * X[:, 0])
WIDTH = 4


class Linen(linen.Module):
    dropout: float = 0.0
    normalized: bool = False

    @linen.compact
    def __call__(self, x):
        x = jnp.tanh(linen.Dense(WIDTH)(x))
        if self.normalized:
            x = linen.BatchNorm(use_running_average=False)(x)
        x = linen.Dropout(self.dropout, deterministic=False)(x) if self.dropout else x
        return linen.Dense(1)(x)[..., 0]


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(1, WIDTH, rngs=rngs)
        self.second = nnx.Linear(WIDTH, 1, rngs=rngs)

    def __call__(self, x):
        return self.second(jnp.tanh(self.first(x)))[..., 0]


class Equinox(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear

    def __init__(self, key):
        self.first = eqx.nn.Linear(1, WIDTH, key=key)
        self.second = eqx.nn.Linear(WIDTH, 1, key=key)

    def __call__(self, x):
        return self.second(jnp.tanh(self.first(x)))[0]


RNG = np.random.default_rng(0)
W1, B1 = RNG.normal(size=(1, WIDTH)), RNG.normal(size=WIDTH)
W2, B2 = RNG.normal(size=(WIDTH, 1)), RNG.normal(size=1)
LOSS = 0.5 * np.sum((Y - (np.tanh(X @ W1 + B1) @ W2 + B2)[:, 0]) ** 2) + 15 * np.log(2 * np.pi)
PRIOR = dist.Normal(0.0, 1.0)
EQUINOX = eqx.tree_at(
    lambda net: (net.first.weight, net.first.bias, net.second.weight, net.second.bias),
    Equinox(jax.random.key(0)),
    tuple(jnp.asarray(leaf, float) for leaf in (W1.T, B1, W2.T, B2)),
)


def model_of(make):
    def model(x, y):
        net = make()
        numpyro.sample("y", dist.Normal(net(x), 1.0), obs=y)

    return model


FLAX_PARAMS = {"Dense_0": {"kernel": W1, "bias": B1}, "Dense_1": {"kernel": W2, "bias": B2}}
NNX_PARAMS = {"first": {"kernel": W1, "bias": B1}, "second": {"kernel": W2, "bias": B2}}
NETWORKS = {
    "flax_module": (
        lambda: contrib.flax_module("net", Linen(), input_shape=(1, 1)),
        {"net$params": FLAX_PARAMS},
    ),
    "random_flax_module": (
        lambda: contrib.random_flax_module("net", Linen(), PRIOR, input_shape=(1, 1)),
        {f"net/{a}.{b}": leaf for a, part in FLAX_PARAMS.items() for b, leaf in part.items()},
    ),
    "nnx_module": (
        lambda: contrib.nnx_module("net", Nnx(nnx.Rngs(0))),
        {"net$params": NNX_PARAMS},
    ),
    "random_nnx_module": (
        lambda: contrib.random_nnx_module("net", Nnx(nnx.Rngs(0)), PRIOR),
        {f"net/{a}.{b}": leaf for a, part in NNX_PARAMS.items() for b, leaf in part.items()},
    ),
    "eqx_module": (
        lambda: jax.vmap(contrib.eqx_module("net", Equinox(jax.random.key(1)))),
        {"net$params": eqx.partition(EQUINOX, eqx.is_inexact_array)[0]},
    ),
    "random_eqx_module": (
        lambda: jax.vmap(contrib.random_eqx_module("net", Equinox(jax.random.key(1)), PRIOR)),
        {
            f"net/{a}.{b}": leaf
            for a, part in {"first": (W1.T, B1), "second": (W2.T, B2)}.items()
            for b, leaf in zip(("weight", "bias"), part, strict=True)
        },
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_and_trained_modules_read_as_they_are(name):
    make, center = NETWORKS[name]
    reading = read_model(model_of(make), (X, Y), None, center=center)
    assert reading.dimension == 3 * WIDTH + 1
    assert float(jnp.sum(reading.center_losses["y"])) == pytest.approx(LOSS, rel=1e-5)
    again = jax.jit(reading.program.losses)(reading.center, reading.arrays)["y"]
    np.testing.assert_allclose(again, reading.center_losses["y"], rtol=1e-5, atol=1e-6)
    name = name.removeprefix("random_").removesuffix("_module")
    trained = read_model(model_of(make), (X, Y), None, center={"net": TRAINED[name]})
    assert set(trained.center) == set(reading.center)
    np.testing.assert_allclose(trained.center_losses["y"], again, rtol=1e-5, atol=1e-6)


NNX = Nnx(nnx.Rngs(0))
nnx.update(NNX, jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), NNX_PARAMS))
TRAINED = {
    "flax": {"params": FLAX_PARAMS},  # what linen.Module.init returns
    "nnx": NNX,
    "eqx": EQUINOX,
}


def test_a_module_of_another_form_is_refused():
    wrong = {**FLAX_PARAMS, "Dense_7": {"bias": B1}}
    with pytest.raises(ValueError, match="names 'net/Dense_7.bias', which the model does not"):
        read_model(model_of(NETWORKS["random_flax_module"][0]), (X, Y), None, center={"net": wrong})


def test_a_module_and_other_sites_make_one_center():
    def model(x, y):
        net = contrib.random_flax_module("net", Linen(), PRIOR, input_shape=(1, 1))
        sigma = numpyro.sample("sigma", dist.HalfNormal())
        numpyro.sample("y", dist.Normal(net(x), sigma), obs=y)

    reading = read_model(model, (X, Y), None, center={"net": FLAX_PARAMS, "sigma": 1.0})
    assert reading.dimension == 3 * WIDTH + 2
    with pytest.raises(ValueError, match="'sigma'"):
        read_model(model, (X, Y), None, center={"net": FLAX_PARAMS})


@pytest.mark.parametrize("name", ["flax_module", "nnx_module", "eqx_module"])
def test_untold_network_parameters_are_refused(name):
    with pytest.raises(ValueError, match=r"numpyro.param 'net\$params' is not in `center`"):
        read_model(model_of(NETWORKS[name][0]), (X, Y), None, center={})


@pytest.mark.parametrize("kept", [["Dense_0.kernel"], ["Dense_0.kernel", "Dense_1.kernel"]])
def test_a_prior_on_part_of_a_network_leaves_the_rest_to_be_told(kept):
    prior = dict.fromkeys(kept, PRIOR)
    make = lambda: contrib.random_flax_module("net", Linen(), prior, input_shape=(1, 1))  # noqa: E731
    center = {f"net/{name}": NETWORKS["random_flax_module"][1][f"net/{name}"] for name in kept}
    with pytest.raises(ValueError, match=r"numpyro.param 'net\$params' is not in `center`"):
        read_model(model_of(make), (X, Y), None, center=center)


def test_dropout_is_refused_by_name():
    def model(x, y):
        net = contrib.flax_module("net", Linen(dropout=0.5), apply_rng=["dropout"], x=x)
        mean = net(x, rngs={"dropout": numpyro.prng_key()})
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    with pytest.raises(ValueError, match="likelihood of 'y' depends on numpyro.prng_key"):
        read_model(model, (X, Y), None, center={"net$params": FLAX_PARAMS})


def test_batch_norm_is_refused_by_name():
    make = lambda: contrib.flax_module(  # noqa: E731
        "net", Linen(normalized=True), mutable=["batch_stats"], input_shape=(2, 1)
    )
    with pytest.raises(ValueError, match="mutable state|batch norm"):
        read_model(model_of(make), (X, Y), None, center={"net$params": FLAX_PARAMS})


def test_a_prior_on_part_of_a_network_reads_from_the_network():
    prior = {"Dense_0.kernel": PRIOR}
    make = lambda: contrib.random_flax_module("net", Linen(), prior, input_shape=(1, 1))  # noqa: E731
    reading = read_model(model_of(make), (X, Y), None, center={"net": FLAX_PARAMS})
    assert set(reading.program.parameters) == {"net$params", "net/Dense_0.kernel"}


class Headless(linen.Module):
    """It cannot be initialized without its inputs, whose absence it reports in its own way."""

    @linen.compact
    def __call__(self, *inputs):
        return linen.Dense(1)(inputs[0])[..., 0]


def test_a_module_that_cannot_be_initialized_takes_its_parameters():
    params = {"Dense_0": {"kernel": np.ones((1, 1)), "bias": np.zeros(1)}}
    make = lambda: contrib.flax_module("net", Headless())  # noqa: E731
    reading = read_model(model_of(make), (X, Y), None, center={"net$params": params})
    assert reading.dimension == 2


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_dicts_are_dicts_and_own_names_stay(frozen):
    freeze = FrozenDict if frozen else dict
    make = lambda: contrib.flax_module("net", Linen(), input_shape=(1, 1))  # noqa: E731
    reading = read_model(model_of(make), (X, Y), None, center={"net": freeze(FLAX_PARAMS)})
    assert reading.dimension == 3 * WIDTH + 1

    def model(x, y):
        w = numpyro.param("w", freeze({"params": jnp.zeros(1), "cache": jnp.zeros(2)}))
        numpyro.sample("y", dist.Normal(x @ w["params"] + w["cache"].sum(), 1.0), obs=y)

    tree = freeze({"params": np.ones(1), "cache": np.ones(2)})
    assert read_model(model, (X, Y), None, center={"w": tree}).dimension == 3


def wider(tree):
    """The same leaves, one of them longer."""
    leaves, form = jax.tree.flatten(tree)
    return jax.tree.unflatten(form, [jnp.concatenate([leaves[0], leaves[0]]), *leaves[1:]])


@pytest.mark.parametrize("name", ["flax_module", "nnx_module", "eqx_module"])
def test_a_network_of_another_form_is_refused_by_name(name):
    make, center = NETWORKS[name]
    params = center["net$params"]
    reading = read_model(model_of(make), (X, Y), None, center={"net": params})
    with pytest.raises(ValueError, match=r"`center\[.*net.*\]` must have shape"):
        read_model(model_of(make), (X, Y), None, center={"net": wider(params)})
    with pytest.raises(ValueError, match="must have shape"):
        reading.at({"net": wider(params)})
    if name != "eqx_module":
        with pytest.raises(ValueError, match="must be a pytree like"):
            read_model(model_of(make), (X, Y), None, center={"net": {**params, "third": params}})


def test_parameters_of_every_library_are_those_of_a_network_model():
    linen_net, nnx_net = Linen(), nnx.eval_shape(lambda: Nnx(nnx.Rngs(0)))
    graph, state = nnx.split(nnx_net)
    nnx.replace_by_pure_dict(state, NETWORKS["nnx_module"][1]["net$params"])
    ways = {
        "dict": (lambda p, x: linen_net.apply({"params": p}, x), FLAX_PARAMS),
        "variables": (linen_net.apply, {"params": FLAX_PARAMS}),
        "state": (lambda p, x: nnx.merge(graph, p)(x), state),
        "equinox": (lambda p, x: jax.vmap(p)(x), EQUINOX),
    }
    for apply, params in ways.values():
        model = nllc.network_model(apply, params)
        reading = read_model(model, (X, Y), None, center={"params": params})
        assert reading.dimension == 3 * WIDTH + 1
        assert float(reading.center_losses["y"].sum()) == pytest.approx(LOSS, rel=1e-5)
        assert hash(model) == hash(nllc.network_model(apply, params))


class Layer(NamedTuple):
    w: Any
    b: Any


@pytest.mark.parametrize("form", ["list", "tuple", "named", "nested", "state", "equinox"])
def test_a_network_that_was_pickled_takes_its_parameters(form):
    """A worker of an executor gets the model and its centre by a pickle."""
    w, b = jnp.ones((2, 1)), jnp.zeros(1)
    net = EQUINOX if form == "equinox" else nnx.split(NNX, nnx.Param)[1]
    params = {
        "list": [w, b],
        "tuple": (w, b),
        "named": Layer(w, b),
        "nested": {"a": [Layer(w, (b,)), {"w": w}], "b": b},
    }.get(form, net)
    wanted = [np.shape(leaf) for leaf in jax.tree.leaves(params) if eqx.is_inexact_array(leaf)]
    for made in (nllc.network_model(linear, params), nllc.loss_model(linear, params)):
        local = pickle.loads(pickle.dumps(nllc.localize(made, center={"params": params})))
        assert local.model == made
        assert local.model == made
        with handlers.seed(rng_seed=0):
            filled = local.model.form.filled()
        assert jax.tree.structure(filled) == jax.tree.structure(params)
        found = [np.shape(leaf) for leaf in jax.tree.leaves(filled) if eqx.is_inexact_array(leaf)]
        assert found == wanted


def normalized(params, x):
    outputs = linear(params, x)
    return (outputs - outputs.mean()) / outputs.std()


def test_what_couples_the_rows_of_a_network_model_is_refused_without_batches_too():
    params = {"w": np.ones(2), "b": np.zeros(())}
    model = nllc.network_model(normalized, params)
    with pytest.raises(ValueError, match="batch norm"):
        nllc.estimate_llc(jax.random.key(0), model, (ROWS, ROWS[:, 0]), center={"params": params})


def test_a_network_whose_rows_cannot_be_taken_out_is_not_judged():
    params, graph = {"w": np.ones(2), "b": np.zeros(())}, np.eye(10)
    model = nllc.network_model(lambda p, x: linear(p, x["graph"] @ x["nodes"]), params)
    reading = read_model(
        model, ({"nodes": ROWS, "graph": graph}, ROWS[:, 0]), None, center={"params": params}
    )
    check_rows_apart(reading)
    with pytest.raises(ValueError, match="cannot be run on a batch"):
        with_batches(reading)


def test_a_network_in_half_precision_takes_batches():
    low = lambda p, x: linear(p, x.astype(jnp.bfloat16)).astype(jnp.bfloat16)  # noqa: E731
    params = {"w": np.ones((2, 3), jnp.bfloat16), "b": np.zeros(3, jnp.bfloat16)}
    model = nllc.network_model(low, params, "categorical")
    reading = read_model(model, (ROWS, LABELS), None, center={"params": params})
    assert reading.center_losses["y"].dtype == np.float32
    assert with_batches(reading).batching.num_rows == 10


def linear(params, x):
    return x @ params["w"] + params["b"]


ROWS = np.linspace(-1.0, 1.0, 20).reshape(10, 2)
LABELS = np.arange(10) % 3
LIKELIHOODS = {
    "normal": (1, "normal", ROWS[:, 0], lambda out: dist.Normal(out, 0.5)),
    "normal of rows": (2, "normal", ROWS, lambda out: dist.Normal(out, 0.5).to_event(1)),
    "categorical": (3, "categorical", LABELS, lambda out: dist.Categorical(logits=out)),
    "bernoulli": (1, "bernoulli", LABELS % 2, lambda out: dist.Bernoulli(logits=out)),
    "student": (
        1,
        lambda out: dist.StudentT(3.0, out),
        ROWS[:, 1],
        lambda o: dist.StudentT(3.0, o),
    ),
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_network_model_has_the_loss_of_its_likelihood(name):
    size, likelihood, y, expected = LIKELIHOODS[name]
    shape = () if size == 1 else (size,)
    params = {"w": RNG.normal(size=(2, *shape)), "b": RNG.normal(size=shape)}
    model = nllc.network_model(linear, params, likelihood, scale=0.5)
    reading = read_model(model, (ROWS, y), None, center={"params": params})
    wanted = jax.jit(lambda: -expected(linear(params, ROWS)).log_prob(y))()
    np.testing.assert_allclose(reading.center_losses["y"], wanted, rtol=1e-5)
    assert reading.num_data() == 10
    assert with_batches(reading).batching.num_rows == 10


def test_network_models_of_one_kind_are_one_key_of_compiled_code():
    one, two = (
        nllc.network_model(linear, {"w": w, "b": 0.0}, scale=0.5) for w in (np.ones(2), np.zeros(2))
    )
    assert one == two
    assert hash(one) == hash(two)
    assert one != nllc.network_model(linear, {"w": np.ones(3), "b": 0.0}, scale=0.5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((linear, {}, "gauss"), ValueError, "`likelihood` must be one of"),
        ((3, {}), TypeError, "`apply` must be a function"),
        ((linear, {}, 3), TypeError, "`likelihood` a name or a function"),
        ((linear, {}), ValueError, "`params` must hold parameters"),
        ((linear, {"w": np.ones(2), "step": 3}), TypeError, r"must hold floats.*int64.*'step'"),
        ((linear, {"w": np.ones(2), "b": np.array(True)}), TypeError, "must hold floats.*bool"),
        ((linear, {"w": jnp.tanh}), TypeError, "must hold floats.*object"),
        ((NNX, {"w": np.ones(2)}), TypeError, r"`apply` must .* the NNX module Nnx.*nnx.merge"),
        ((Linen(), {"w": np.ones(2)}), TypeError, r"the Linen module Linen.*module.apply"),
        ((linear, [0.5, 0.5]), TypeError, "must not be a list of numbers"),
    ],
)
def test_a_bad_network_model_is_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        nllc.network_model(*arguments)


class Dropping(nnx.Module):
    def __init__(self):
        self.drop = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
        self.scale = nnx.Param(jnp.ones(()))

    def __call__(self, x):
        return self.scale * self.drop(x)[:, 0]


def test_dropout_in_training_mode_and_parameters_without_their_site_have_a_remedy():
    net = Dropping()
    for is_training in (True, False):
        if not is_training:
            net.eval()
        graph, params, rest = nnx.split(net, nnx.Param, ...)
        apply = lambda p, x: nnx.merge(graph, p, rest)(x)  # noqa: B023, E731
        model, data = nllc.network_model(apply, params), (ROWS, ROWS[:, 0])
        if is_training:
            with pytest.raises(TypeError, match=r"dropout and batch norm.*Call net.eval\(\)"):
                read_model(model, data, None, center={"params": params})
    assert read_model(model, data, None, center={"params": params}).dimension == 1
    with pytest.raises(ValueError, match=r"center=\{'params': params\}; got the parameters"):
        read_model(model, data, None, center=params)


def test_a_loss_that_is_a_mean_is_told_to_be_one_loss_for_each_datum():
    params = {"w": np.ones(2)}
    mean = nllc.loss_model(lambda p, x: jnp.mean(x @ p["w"]), params)
    reading = read_model(mean, (ROWS,), None, center={"params": params})
    with pytest.raises(ValueError, match=r"return one for each datum, \[n\]"):
        reading.num_data()
    with pytest.raises(ValueError, match=r"return one loss for each datum, \[n\]"):
        with_batches(reading)


def test_data_and_functions_that_do_not_fit_a_network_model_are_refused_by_name():
    params = {"w": np.ones((2, 1)), "b": np.zeros(1)}
    labels = nllc.network_model(linear, params, "categorical")
    with pytest.raises(TypeError, match="integers under 'categorical'; got float"):
        read_model(labels, (ROWS, ROWS[:, 0]), None, center={"params": params})
    for y in (None, list(LABELS), 3.0):
        with pytest.raises(TypeError, match="`y` must be an array"):
            read_model(labels, (ROWS, y), None, center={"params": params})
    for apply, likelihood, says in (
        (lambda p, x: (x, x), "normal", "`apply` must return one array"),
        (linear, jnp.exp, "`likelihood` must return a NumPyro distribution"),
    ):
        bad = nllc.network_model(apply, params, likelihood)
        with pytest.raises(TypeError, match=says):
            read_model(bad, (ROWS, ROWS[:, 0]), None, center={"params": params})
    with pytest.raises(ValueError, match=r"makes data of shape \(10, 1\)"):
        read_model(
            nllc.network_model(linear, params), (ROWS, ROWS[:, 0]), None, center={"params": params}
        )


def test_an_error_of_the_network_says_how_it_was_called():
    net = Linen()
    params = net.init(jax.random.key(0), X)
    model = nllc.network_model(net.apply, params)
    with pytest.raises(Exception, match="Dense") as seen:
        read_model(model, (np.ones((30, 3)), Y), None, center={"params": params})
    assert "arrays of shapes [(30, 3)]" in seen.value.__notes__[0]


def test_other_collections_of_a_linen_module_are_no_parameters():
    variables = Linen(normalized=True).init(jax.random.key(0), X)
    with pytest.raises(ValueError, match=r"collections \['batch_stats'\] .* would be sampled"):
        nllc.network_model(Linen(normalized=True).apply, variables)


def test_masks_may_have_the_collection_of_the_variables():
    net = Linen()
    params = net.init(jax.random.key(0), X)
    masks = jax.tree.map(lambda leaf: leaf.ndim == 1, params)
    local = nllc.localize(
        nllc.network_model(net.apply, params), center={"params": params}, sites={"params": masks}
    )
    assert local.target(local.read((X, Y)))[0].dimension == WIDTH + 1


def test_labels_from_one_are_told_where_they_begin():
    params = {"w": np.ones((2, 3)), "b": np.zeros(3)}
    model = nllc.network_model(linear, params, "categorical")
    data = ROWS, np.arange(len(ROWS)) % 3 + 1
    with pytest.raises(nllc.NonFiniteLossError, match="run from 0 to K - 1"):
        nllc.estimate_llc(jax.random.key(0), model, data, center={"params": params})
    with pytest.raises(nllc.NonFiniteLossError, match="run from 0 to K - 1"):
        nllc.find_center(jax.random.key(0), model, data, num_starts=2)


def test_n_that_is_that_of_a_batch_is_warned_of():
    params = {"w": np.ones((2, 1)), "b": np.zeros(1)}
    local = nllc.localize(nllc.network_model(linear, params), center={"params": params}, num_data=5)
    lengths = {"num_warmup": 5, "num_samples": 5, "progress_bar": False}
    warnings.simplefilter("ignore")  # what is found of a run this short
    with pytest.warns(nllc.LLCWarning, match="`num_data` is 5, as `batch_size` is, .* 10 data"):
        nllc.estimate_llc(jax.random.key(0), local, (ROWS, ROWS[:, :1]), batch_size=5, **lengths)
