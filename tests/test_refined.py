"""λ̂ of a part of the parameters, and on other data, against exact values of Gaussian models."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from flax import linen
from metropolis import Metropolis
from numpyro.contrib.module import random_flax_module

import numpyro_llc as nllc
from numpyro_llc.inference_data import posterior
from numpyro_llc.local._parts import split
from numpyro_llc.models import read_model

# Features as weak as these are bounded by γ, and some runs here are short: both are said.
pytestmark = pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")

N = 500
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 5)) * [1.0, 0.05, 1.0, 0.1, 0.03]
Y = X @ np.arange(1.0, 6.0) + RNG.normal(size=N)
OLS = np.linalg.lstsq(X, Y, rcond=None)[0]
CENTER = {"v": OLS[:3], "w": OLS[3:]}
BETA = 1.0 / np.log(N)


def model(x, y):
    v = numpyro.sample("v", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with numpyro.plate("data", len(x)):
        numpyro.sample("y", dist.Normal(x[:, :3] @ v + x[:, 3:] @ w, 1.0), obs=y)


def exact(coordinates, rows=slice(None), gamma=1.0):
    """``E[llc]`` on other rows of what is sampled on all: ½ β tr(H' (βH + γ)⁻¹)."""
    sampled, other = X[:, coordinates], X[rows][:, coordinates]
    hessian, there = sampled.T @ sampled, other.T @ other * (N / len(other))
    return 0.5 * BETA * np.trace(there @ np.linalg.inv(BETA * hessian + gamma * np.eye(len(there))))


def estimate(kernel="nuts", sites=None, **settings):
    local = nllc.localize(model, center=CENTER, sites=sites)
    chosen = {"kernel": kernel, "progress_bar": False, **settings}
    if kernel == "sgld":
        chosen |= {"batch_size": 100, "num_warmup": 1000, "num_samples": 4000}
    return nllc.estimate_llc(jax.random.key(0), local, (X, Y), **chosen)


WALK = Metropolis(0.3)


def refined(**settings):
    """Of all parameters and of some, on all data and on half; by Metropolis."""
    some = {"v": np.array([True, False, True])}
    chosen = {"sites": {"all": None, "some": some}, "evaluate_on": {"half": (X[:250], Y[:250])}}
    chosen |= {"num_warmup": 100, "num_samples": 100, "progress_bar": False, "kernel": WALK}
    local = nllc.localize(model, center=CENTER)
    return nllc.refined_llc(jax.random.key(0), local, (X, Y), **{**chosen, **settings})


PARTS = {
    "a site": ("nuts", "w", [3, 4]),
    "masks": ("nuts", {"v": np.array([False, True, False]), "w": True}, [1, 3, 4]),
    "a mask": ("sgld", {"v": np.array([True, False, True])}, [0, 2]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_a_part_has_its_exact_value(name, llc_of):
    kernel, sites, coordinates = PARTS[name]
    idata = estimate(kernel, sites=sites)
    llc, error = llc_of(idata)
    assert abs(llc - exact(coordinates)) < 4 * error + (0.01 * llc if kernel == "sgld" else 0)
    assert abs(llc - exact([0, 1, 2, 3, 4][: len(coordinates)])) > 4 * error
    assert posterior(idata).attrs["num_parameters"] == len(coordinates)


TREE = {
    "a": jnp.asarray([0.0, 1.0, 2.0]),
    "b": {"x": jnp.asarray([[3.0, 4.0], [5.0, 6.0]]), "y": jnp.asarray(7.0)},
    "c": jnp.asarray([8.0]),
}
"""Each number is its own place in the raveled tree."""
CUTS = {
    "a site": ("a", [0, 1, 2]),
    "names": (["c", "a"], [0, 1, 2, 8]),
    "part of a site": ("b.x", [3, 4, 5, 6]),
    "part, as a path": (("b/y",), [7]),
    "a pytree": ("b", [3, 4, 5, 6, 7]),
    "a mask": ({"a": np.array([True, False, True])}, [0, 2]),
    "masks": ({"a": np.array([False, True, False]), "c": True}, [1, 8]),
    "a number's mask": ({"b": {"x": False, "y": np.array(True)}}, [7]),
    "a pytree of masks": (
        {"b": {"x": np.array([[False, True], [True, False]]), "y": True}, "a": False},
        [4, 5, 7],
    ),
    "one truth value for a pytree": ({"b": True, "c": False}, [3, 4, 5, 6, 7]),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_cut_fixes_the_rest_and_puts_each_number_where_it_belongs(name):
    sites, places = CUTS[name]
    sampled, fixed = split(TREE, sites)
    assert sorted(float(x) for leaf in jax.tree.leaves(sampled) for x in leaf.ravel()) == places
    whole = fixed.whole(jax.tree.map(lambda leaf: leaf + 100.0, sampled))
    wanted = np.arange(9.0)
    wanted[places] += 100.0
    assert jax.tree.structure(whole) == jax.tree.structure(TREE)
    found = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(whole)])
    np.testing.assert_array_equal(found, wanted)
    assert [x.shape for x in jax.tree.leaves(whole)] == [x.shape for x in jax.tree.leaves(TREE)]
    draws = jax.tree.map(lambda leaf: np.stack([leaf] * 2), whole)
    again = fixed.free(draws)
    assert jax.tree.structure(again) == jax.tree.structure(sampled)
    for part, own in zip(jax.tree.leaves(again), jax.tree.leaves(sampled), strict=True):
        np.testing.assert_array_equal(part, [own + 100.0] * 2)


@pytest.mark.parametrize(
    "sites",
    [["a", "b", "c"], {"a": True, "b": True, "c": np.array([True])}],
    ids=["names", "masks"],
)
def test_a_cut_that_fixes_nothing_is_none(sites):
    sampled, fixed = split(TREE, sites)
    assert sampled is TREE
    assert fixed is None


@pytest.mark.parametrize("bad", ["a.x", "bb", "b.", "x", "b.x.y"])
def test_a_name_that_only_looks_like_a_part_is_refused(bad):
    with pytest.raises(ValueError, match=r"`sites` names .*\['a', 'b.x', 'b.y', 'c'\]"):
        split(TREE, ["a", bad])


def test_all_refinements_are_checked_before_the_first_is_sampled(tmp_path):
    parts = {"all": None, "w": "w", "none": "u"}
    with pytest.raises(ValueError, match="`sites` names 'u'"):
        refined(sites=parts, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_refinements_go_on_where_they_stopped(tmp_path):
    once, again = (refined(output=tmp_path) for _ in range(2))
    xr.testing.assert_equal(once, again)
    xr.testing.assert_equal(once, refined())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "settings.json"]


def test_a_refinement_to_everything_is_the_whole():
    """The same compiled code gets the same numbers."""
    everything = {"v": True, "w": np.array([True, True])}
    reading = nllc.localize(model, center=CENTER).read((X, Y))
    one, two = (
        nllc.localize(model, center=CENTER, sites=sites).target(reading)[0]
        for sites in (None, everything)
    )
    assert jax.tree.structure(one) == jax.tree.structure(two)
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_draws_keep_what_is_fixed_and_are_evaluated_on_other_data_by_name():
    sampled = {"v": np.array([True, False, True])}
    others = {
        "changed": (X, Y + 1.0, {"y": Y + 1.0}),
        "part": (X[:150], Y[:150], {"x": X[:150], "y": Y[:150]}),
        "one": (X[:1], Y[:1], {"x": X[:1], "y": Y[:1]}),
    }
    draws = posterior(
        nllc.estimate_llc(
            jax.random.key(0),
            nllc.localize(model, center=CENTER, sites=sampled),
            model_kwargs={"x": X, "y": Y},
            kernel=WALK,
            num_warmup=100,
            num_samples=100,
            evaluate_on={"same": {}, **{name: given for name, (*_, given) in others.items()}},
            progress_bar=False,
        )
    )
    w = np.concatenate([draws["v"].to_numpy(), draws["w"].to_numpy()], axis=-1).astype(float)
    np.testing.assert_array_equal(w[..., [1, 3, 4]] - np.float32(OLS[[1, 3, 4]]), 0.0)
    assert w[..., [0, 2]].std(axis=(0, 1)).min() > 0
    np.testing.assert_array_equal(draws["llc_on"].sel(data="same"), draws["llc"])
    for name, (x, y, _) in others.items():
        loss = 0.5 * np.sum((w @ x.T - y) ** 2, axis=-1) - 0.5 * np.sum((x @ OLS - y) ** 2)
        wanted = BETA * loss * N / len(x)  # n times the mean loss
        np.testing.assert_allclose(draws["llc_on"].sel(data=name), wanted, rtol=1e-3, atol=2e-3)


def test_a_table_of_refinements_has_the_exact_values():
    table = refined(num_samples=40_000, thinning=20)
    assert dict(table.sizes) == {"sites": 2, "data": 2}
    assert table["num_parameters"].to_numpy().tolist() == [5, 2]
    parts = {"all": [0, 1, 2, 3, 4], "some": [0, 2]}
    for name, coordinates in parts.items():
        for data, rows in {"sampled": slice(None), "half": slice(0, 250)}.items():
            cell = table.sel(sites=name, data=data)
            assert abs(cell["llc"] - exact(coordinates, rows)) < 4 * cell["mcse_mean"]
        hessian = X[:, coordinates].T @ X[:, coordinates]
        square = np.trace(np.linalg.inv(BETA * hessian + np.eye(len(coordinates))))
        row = table.sel(sites=name)
        np.testing.assert_allclose(row["distance"], np.sqrt(square), rtol=0.05)
        np.testing.assert_allclose(row["error"], row["mcse_mean"].sel(data="sampled"), rtol=0.2)
    apart = [abs(exact(parts["all"]) - exact(parts["some"])), abs(exact([0, 2]) - exact([0, 1]))]
    assert min(apart) > 4 * table["mcse_mean"].max()


@pytest.mark.slow
def test_other_data_may_be_fewer_than_a_batch():
    others = {"few": (X[:20], Y[:20]), "one": (X[:1], Y[:1])}
    draws = posterior(estimate("sgld", evaluate_on=others))
    for name, rows in {"few": slice(0, 20), "one": slice(0, 1)}.items():
        on = draws["llc_on"].sel(data=name).to_dataset(name="x")
        row = nllc.inference_data.moments(on, ["x"]).loc["x"]
        assert abs(row["mean"] - exact([0, 1, 2, 3, 4], rows)) < 4 * row["mcse_mean"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ((X[:0], Y[:0]), "does not fit the model"),
        ((X[:5], np.full(5, np.nan)), "holds 5 NaN"),
        ((X[:5],), "does not fit the model"),
        ((X[:5, :2], Y[:5]), "does not fit the model"),
    ],
)
def test_other_data_that_do_not_fit_are_named(data, says):
    with pytest.raises(ValueError, match=rf"`evaluate_on\['digit 3'\]`.*{says}"):
        estimate(evaluate_on={"digit 3": data})


def test_parts_go_by_the_name_of_a_random_module():
    module = linen.Dense(2)
    params = module.init(jax.random.key(0), X)["params"]

    def with_priors(x, y):
        prior = dist.Normal(0.0, 1.0)
        net = random_flax_module("net", module, prior, input_shape=(1, 5))
        with numpyro.plate("data", len(x)):
            numpyro.sample("y", dist.Normal(net(x), 1.0).to_event(1), obs=y)

    y = np.asarray(module.apply({"params": params}, X))
    mask = {"kernel": np.arange(10).reshape(5, 2) < 2, "bias": np.array([True, False])}
    center = read_model(with_priors, (X, y), None, center={"net": params}).center
    parts = {"net": 12, "net/kernel": 10, "net.kernel": 10, "net.bias": 2}
    for sites, count in [*parts.items(), ({"net": mask}, 3), ({"net": True}, 12)]:
        sampled, fixed = split(center, sites)
        assert sum(leaf.size for leaf in jax.tree.leaves(sampled)) == count
        whole = center if fixed is None else fixed.whole(sampled)
        assert jax.tree.map(np.array_equal, whole, center) == jax.tree.map(lambda _: True, center)
    for name in ("kernel", "bias"):
        (leaf,) = jax.tree.leaves(split(center, f"net.{name}")[0])
        np.testing.assert_allclose(leaf, params[name], rtol=1e-6)


def network(params, x):
    for layer in params[:-1]:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"]


def test_parts_of_a_pytree_go_by_the_names_of_results():
    params = [
        {"w": RNG.normal(size=(5, 3)), "b": RNG.normal(size=3)},
        {"w": RNG.normal(size=(3, 2))},
    ]
    net = nllc.network_model(network, params)
    data = X, np.asarray(network(params, jnp.asarray(X)))
    center = read_model(net, data, None, center={"params": params}).center
    first, last = params
    wanted = {
        "params.0": [first["b"], first["w"]],
        "params.0.w": [first["w"]],
        "params.1": [last["w"]],
        "params": [first["b"], first["w"], last["w"]],
    }
    for sites, leaves in wanted.items():
        found = jax.tree.leaves(split(center, sites)[0])
        assert len(found) == len(leaves)
        for one, other in zip(found, leaves, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"sites": "u"}, ValueError, "`sites` names 'u'"),
        ({"sites": {"u": True}}, ValueError, r"`sites` names \['u'\]"),
        ({"sites": {"v": False}}, ValueError, "leaves nothing to sample"),
        ({"sites": {"v": np.ones(2, bool)}}, ValueError, r"mask of shape \(2,\) at 'v'"),
        ({"sites": {"v": np.ones(3)}}, TypeError, "masks of True and False"),
        ({"sites": 3}, TypeError, "must be names of sites or a dict of masks"),
        ({"evaluate_on": (X, Y)}, TypeError, "`evaluate_on` must be a dict"),
        ({"evaluate_on": {"a": X}}, TypeError, "must be a tuple in place of `model_args`"),
        ({"evaluate_on": {"a": (X, Y + np.nan)}}, ValueError, "NaN or infinite"),
    ],
)
def test_bad_refinements_are_refused_by_name(settings, error, message):
    with pytest.raises(error, match=message):
        estimate(**settings)
