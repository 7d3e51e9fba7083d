"""Dimensions and coordinates: what ArviZ's ``from_numpyro`` calls an axis, results call it too."""

from functools import partial
from typing import NamedTuple

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from metropolis import Metropolis
from numpyro.infer import MCMC
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import constrain_fn

import numpyro_llc as nllc
from numpyro_llc.results import read_labels

CHAINS, DRAWS = 2, 24
GROUPS = ("posterior", "observed_data", "log_likelihood", "constant_data")
SCHOOLS, TERMS, X = ["north", "east", "south"], ["intercept", "slope"], np.linspace(-1, 1, 8)
pytestmark = pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")


def group(idata, name):
    return idata[name] if isinstance(idata[name], xr.Dataset) else idata[name].to_dataset()


def nested(x, y):
    """Plates in plates, events in plates, deterministic sites with axes of their own."""
    with numpyro.plate("kind", 2):
        slope = numpyro.sample(
            "slope",
            dist.Normal(0.0, 1.0).expand([2]).to_event(1),
            infer={"event_dims": ["term"]},
        )
    with numpyro.plate("school", 3, dim=-2):
        level = numpyro.sample("level", dist.Normal(0.0, 1.0))
        with numpyro.plate("pupil", 8):
            parts = jnp.stack(jnp.broadcast_arrays(level, x * slope.sum()), axis=-1)
            parts = numpyro.deterministic("parts", parts)
            mean = numpyro.deterministic("mean", parts.sum(-1))
            numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def bare(x, z):
    """No plate over the slopes, some axes without a name, a plate of one."""
    w = numpyro.sample(
        "w", dist.Normal(0.0, 1.0).expand([2, 3]).to_event(2), infer={"event_dims": ["term"]}
    )
    numpyro.sample("v", dist.Normal(jnp.zeros(2), 1.0), infer={"event_dims": ["term"]})
    numpyro.sample("u", dist.Normal(0.0, 1.0).expand([2, 2]).to_event(2))
    with numpyro.plate("only", 1):
        shift = numpyro.sample("shift", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with numpyro.plate("pupil", 8):
        mean = x[:, None] * w.sum(0) + shift[0, 0]
        numpyro.sample(
            "z", dist.Normal(mean, 1.0).to_event(1), obs=z, infer={"event_dims": ["school"]}
        )


def both(x, y, z):
    nested(x, y)
    bare(x, z)


Y = np.sin(np.arange(24.0))
NESTED = (X, Y.reshape(3, 8))
NESTED_CENTER = {"slope": np.zeros((2, 2)), "level": np.zeros((3, 1))}
ARGS = (*NESTED, Y.reshape(8, 3))
LOCAL = nllc.localize(
    both,
    center={
        **NESTED_CENTER,
        "w": np.zeros((2, 3)),
        "v": np.zeros(2),
        "u": np.zeros((2, 2)),
        "shift": np.zeros((1, 2)),
    },
    inverse_temperature=1.0,
    num_data=48,
)
SITES = ("slope", "level", "parts", "mean", "w", "v", "u", "shift")
WHO = 10 * np.arange(8)
CASES = {
    "plates": {},
    "coordinates": {"coords": {"school": SCHOOLS, "term": TERMS, "pupil": WHO, "only": ["all"]}},
    # ArviZ names no plates where `dims` is given, so all are named here.
    "dims of every variable": {
        "coords": {"where": SCHOOLS, "what": TERMS, "who": WHO},
        "dims": {
            "level": ["where"],
            "slope": [None, "what"],
            "parts": ["where", "who", "part"],
            "mean": ["where", "who"],
            "w": [None, "where"],
            "v": ["what"],
            "u": ["one", "other"],
            "shift": ["only"],
            "y": ["where", "who"],
            "z": ["who", "where"],
            "x": ["who"],
        },
    },
}


class State(NamedTuple):
    z: dict
    rng_key: jax.Array


class Walk(MCMCKernel):
    """A random walk from the centre; all sites are unconstrained."""

    sample_field, model = "z", LOCAL

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs):
        return State({name: jnp.asarray(LOCAL.center[name]) for name in LOCAL.center}, rng_key)

    def sample(self, state, model_args, model_kwargs):
        key, draw = jax.random.split(state.rng_key)
        return State(
            jax.tree.map(lambda leaf: leaf + jax.random.normal(draw, leaf.shape), state.z), key
        )

    def postprocess_fn(self, args, kwargs):
        return partial(constrain_fn, LOCAL, args, kwargs, return_deterministic=True)


@pytest.fixture(scope="module")
def sampled():
    """A run, which the cases share."""
    run = MCMC(
        Walk(),
        num_warmup=0,
        num_samples=DRAWS,
        num_chains=CHAINS,
        chain_method="sequential",
        progress_bar=False,
    )
    run.run(jax.random.key(0), *ARGS)
    return run


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture(scope="module")
def by_arviz(case, sampled):
    return az.from_numpyro(sampled, log_likelihood=True, constant_data={"x": X}, **case)


def assert_labelled_alike(found, wanted):
    """Every variable that `wanted` holds has these dimensions and coordinates in `found`."""
    for name in GROUPS:
        ours, theirs = group(found, name), group(wanted, name)
        assert set(theirs) <= set(ours)
        for variable in theirs:
            assert ours[variable].dims == theirs[variable].dims, variable
            for dim in theirs[variable].dims:
                np.testing.assert_array_equal(ours[variable][dim], theirs[variable][dim])


def test_a_run_of_numpyro_is_labelled_as_by_arviz(case, by_arviz, sampled):
    found = nllc.from_numpyro(sampled, store_sites=SITES, log_likelihood=True, **case)
    assert_labelled_alike(found, by_arviz)
    for name in GROUPS:
        for variable in group(by_arviz, name):
            ours, theirs = group(found, name)[variable], group(by_arviz, name)[variable]
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_run_of_ours_is_labelled_as_by_arviz(case, by_arviz):
    found = nllc.estimate_llc(
        jax.random.key(0),
        LOCAL,
        ARGS,
        kernel=Metropolis(0.2),
        num_warmup=0,
        num_samples=DRAWS,
        num_chains=CHAINS,
        store_sites=SITES,
        log_likelihood=True,
        progress_bar=False,
        **case,
    )
    assert_labelled_alike(found, by_arviz)


# --- where ArviZ has no name, or another one ------------------------------------------------------


def read(model, *args, center=None):
    """The labels of a model, and what they are checked against."""
    reading = nllc.localize(model, center=center).read(args, {})
    return reading, partial(read_labels, reading)


def test_names_stay_at_their_axes():
    """ArviZ counts from the left, and would call the axis of length one "term"."""

    def model(y):
        with numpyro.plate("school", 3, dim=-2):
            normal = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
            level = numpyro.sample("level", normal, infer={"event_dims": ["term"]})
        with numpyro.plate("pupil", 8):
            rows = numpyro.sample("rows", dist.Normal(jnp.zeros((2, 1)), 1.0).expand([2, 8]))
        numpyro.deterministic("total", level.sum())
        with numpyro.plate("datum", 8):
            numpyro.deterministic("scalar", level.sum())
            numpyro.sample("y", dist.Normal(level.sum() + rows.sum(), 1.0), obs=y)

    reading, _ = read(model, X, center={"level": np.zeros((3, 1, 2)), "rows": np.zeros((2, 8))})
    assert reading.axis_names["level"] == {-3: "school", -1: "term"}
    assert reading.axis_names["rows"] == {-1: "pupil"}
    assert reading.axis_names["total"] == reading.axis_names["scalar"] == {}


def test_dims_of_one_variable_leave_the_plates_of_the_others():
    _, labels = read(nested, *NESTED, center=NESTED_CENTER)
    found = labels({"where": SCHOOLS}, {"level": ["where"]})
    assert found.sites["level"] == {-2: "where"}
    assert found.sites["slope"] == {-2: "kind", -1: "term"}
    assert found.losses["y"] == {-2: "school", -1: "pupil"}


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ({"coords": ["school"]}, TypeError, "`coords` must be a dict"),
        ({"dims": "school"}, TypeError, "`dims` must be a dict"),
        ({"dims": {"levels": ["school"]}}, ValueError, r"`dims` names \['levels'\]; the model has"),
        ({"dims": {"level": "school"}}, TypeError, "`dims` must be .* got 'level': 'school'"),
        ({"dims": {"level": ["a", "b", "c"]}}, ValueError, "of 'level' must have at most 2 names"),
        ({"dims": {"x": ["a", "b"]}}, ValueError, "of 'x' must have at most 1 names"),
        ({"dims": {"level": ["a", "a"]}}, ValueError, "must be different names"),
        ({"dims": {"level": ["draw"]}}, ValueError, "without 'chain' and 'draw'"),
        ({"coords": {"schools": SCHOOLS}}, ValueError, r"`coords` names \['schools'\]; the dim"),
        ({"coords": {"school": SCHOOLS[:2]}}, ValueError, "must have 3 entries.*'level'; got 2"),
        ({"coords": {"school": "north"}}, ValueError, "got 'school': 'north'"),
        ({"coords": {"a": X}, "dims": {"level": ["a"]}}, ValueError, "must have 3 entries.* got 8"),
    ],
)
def test_what_does_not_fit_is_refused_before_sampling(labels, error, message, monkeypatch):
    monkeypatch.setattr("numpyro_llc.estimate._estimate._sampled", None)
    local = nllc.localize(nested, center=NESTED_CENTER)
    with pytest.raises(error, match=message):
        nllc.estimate_llc(jax.random.key(0), local, NESTED, kernel=Metropolis(0.2), **labels)


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("term", TypeError, "`event_dims` of site 'w' must be a list of names; got 'term'"),
        (["a", "b", "c"], ValueError, "Site 'w' has `event_dims` .* for 2 axes"),
        (["a", "a"], ValueError, "Site 'w' has one name for two axes"),
    ],
)
def test_bad_event_dims_are_refused(names, error, message):
    def model(y):
        normal = dist.Normal(0.0, 1.0).expand([2, 2]).to_event(2)
        w = numpyro.sample("w", normal, infer={"event_dims": names})
        with numpyro.plate("datum", 8):
            numpyro.sample("y", dist.Normal(w.sum(), 1.0), obs=y)

    with pytest.raises(error, match=message):
        read(model, X, center={"w": np.zeros((2, 2))})
