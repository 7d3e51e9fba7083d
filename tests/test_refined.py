"""λ̂ of a part of the parameters, and on other data, against exact values of Gaussian models."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from flax import linen
from numpyro.contrib.module import random_flax_module

import numpyro_llc as nllc
from numpyro_llc.inference_data import posterior

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


def estimate(kernel="nuts", **settings):
    chosen = {"center": CENTER, "kernel": kernel, "progress_bar": False, **settings}
    if kernel != "nuts":
        chosen |= {"batch_size": 100, "num_warmup": 1000, "num_samples": 4000}
    return nllc.estimate_llc(jax.random.key(0), model, (X, Y), **chosen)


def refined(**settings):
    lengths = {"num_warmup": 100, "num_samples": 100, "progress_bar": False}
    key = jax.random.key(0)
    return nllc.refined_llc(key, model, (X, Y), center=CENTER, **lengths, **settings)


PARTS = {
    "a site": ("nuts", "w", [3, 4]),
    "masks": ("nuts", {"v": np.array([False, True, False]), "w": True}, [1, 3, 4]),
    "a mask": ("sgld", {"v": np.array([True, False, True])}, [0, 2]),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_has_its_exact_value(name, llc_of):
    kernel, sites, coordinates = PARTS[name]
    idata = estimate(kernel, sites=sites)
    llc, error = llc_of(idata)
    assert abs(llc - exact(coordinates)) < 4 * error + (0.01 * llc if kernel == "sgld" else 0)
    assert abs(llc - exact([0, 1, 2, 3, 4][: len(coordinates)])) > 4 * error
    assert posterior(idata).attrs["num_parameters"] == len(coordinates)


def test_all_refinements_are_checked_before_the_first_is_sampled(tmp_path):
    parts = {"all": None, "w": "w", "none": "u"}
    with pytest.raises(ValueError, match="`sites` names 'u'"):
        refined(sites=parts, checkpoint=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_refinements_go_on_where_they_stopped(tmp_path):
    parts = {"all": None, "w": "w"}
    once = refined(sites=parts, checkpoint=tmp_path)
    again = refined(sites=parts, checkpoint=tmp_path)
    xr.testing.assert_equal(once, again)
    xr.testing.assert_equal(once, refined(sites=parts))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def test_what_is_held_stays_at_the_center():
    draws = posterior(estimate(sites={"v": np.array([True, False, True])}, num_samples=50))
    for site, where in (("v", 1), ("w", 0), ("w", 1)):
        values = draws[site].to_numpy()[..., where]
        np.testing.assert_array_equal(values, np.float32(CENTER[site][where]))
    assert draws["v"].to_numpy()[..., 0].std() > 0


@pytest.mark.parametrize("kernel", ["nuts", "sgld"])
def test_a_refinement_to_everything_changes_no_bit(kernel):
    lengths = {"num_warmup": 100, "num_samples": 100}
    everything = {"v": True, "w": np.array([True, True])}
    one, two = (
        posterior(estimate(kernel, sites=sites, **(lengths if kernel == "nuts" else {})))
        for sites in (None, everything)
    )
    np.testing.assert_array_equal(one["llc"], two["llc"])


def test_other_data_have_their_exact_value_and_the_same_data_the_same_bits():
    rows = slice(0, 150)
    others = {"same": (X, Y), "part": (X[rows], Y[rows]), "by name": {"x": X, "y": Y}}
    idata = nllc.estimate_llc(
        jax.random.key(0), model, (), {"x": X, "y": Y},
        center=CENTER, progress_bar=False, evaluate_on={"by name": {"y": Y}, "same": {}},
    )  # fmt: skip
    np.testing.assert_array_equal(
        *(posterior(idata)["llc_on"].sel(data=k) for k in ("by name", "same"))
    )
    others.pop("by name")
    draws = posterior(estimate(evaluate_on=others, num_samples=4000))
    np.testing.assert_array_equal(draws["llc_on"].sel(data="same"), draws["llc"])
    on = draws["llc_on"].sel(data="part")
    table = nllc.inference_data.moments(on.to_dataset(name="x"), ["x"])
    row = table.loc["x"]
    # Off its own least squares, the other loss also has a slope, whose mean over draws is 0.
    assert abs(row["mean"] - exact([0, 1, 2, 3, 4], rows)) < 4 * row["mcse_mean"]


def test_a_table_of_refinements_agrees_with_single_runs():
    table = nllc.refined_llc(
        jax.random.key(0),
        model,
        (X, Y),
        center=CENTER,
        sites={"all": None, "w": "w", "first": {"v": np.array([True, False, False])}},
        evaluate_on={"half": (X[:250], Y[:250])},
        progress_bar=False,
        num_samples=2000,
    )
    assert dict(table.sizes) == {"sites": 3, "data": 2}
    assert table["num_parameters"].to_numpy().tolist() == [5, 2, 1]
    for name, coordinates in {"all": [0, 1, 2, 3, 4], "w": [3, 4], "first": [0]}.items():
        for data, rows in {"sampled": slice(None), "half": slice(0, 250)}.items():
            cell = table.sel(sites=name, data=data)
            assert abs(cell["llc"] - exact(coordinates, rows)) < 4 * cell["mcse"]
    llc, error = table["llc"].sel(data="sampled"), table["mcse"].sel(data="sampled")
    for part in ("w", "first"):
        slack = 4 * np.hypot(error.sel(sites="all"), error.sel(sites=part))
        assert llc.sel(sites="all") >= llc.sel(sites=part) - slack


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
    parts = {"net": 12, "net/kernel": 10, "net.kernel": 10, "net.bias": 2}
    for sites, count in [*parts.items(), ({"net": mask}, 3), ({"net": True}, 12)]:
        idata = nllc.estimate_llc(
            jax.random.key(0), with_priors, (X, y), center={"net": params}, sites=sites,
            num_warmup=10, num_samples=10, num_chains=2, progress_bar=False,
        )  # fmt: skip
        assert posterior(idata).attrs["num_parameters"] == count


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
    for sites, count in {"params.0": 18, "params.0.w": 15, "params.1": 6, "params": 24}.items():
        idata = nllc.estimate_llc(
            jax.random.key(0), net, data, center={"params": params}, sites=sites,
            kernel="sgld", num_warmup=5, num_samples=8, step_size=1e-5, progress_bar=False,
        )  # fmt: skip
        assert posterior(idata).attrs["num_parameters"] == count


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
