"""Arguments of models: which are data, which are structure, and which are refused."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
from metropolis import Metropolis
from numpyro.infer.util import potential_energy

import numpyro_llc as nllc
from numpyro_llc.models import read_model, with_batches

RNG = np.random.default_rng(0)
GROUP = RNG.integers(0, 3, 30)
X = RNG.normal(size=30)
Y = np.array([0.0, 1.0, 2.0])[GROUP] + X + RNG.normal(size=30)
CENTER = {"a": np.array([0.2, 0.8, 2.1]), "b": 0.9}
LOSSES = 0.5 * (Y - CENTER["a"][GROUP] - 0.9 * X) ** 2 + 0.5 * np.log(2 * np.pi)


def observe(effects, group, x, y):
    slope = numpyro.sample("b", dist.Normal(0.0, 1.0))
    with numpyro.plate("N", len(y)) as i:
        numpyro.sample("y", dist.Normal(effects[group[i]] + slope * x[i], 1.0), obs=y[i])


def effects_of(count):
    return numpyro.sample("a", dist.Normal(0.0, 1.0).expand([count]).to_event(1))


def by_unique(group, x, y):
    observe(effects_of(len(np.unique(group))), group, x, y)


def by_maximum(group, x, y):
    observe(effects_of(int(group.max()) + 1), group, x, y)


def by_jax(group, x, y):
    observe(effects_of(int(jnp.max(group)) + 1), group, x, y)


def by_branch(group, x, y):
    if group.min() != 0:
        group = group - group.min()
    observe(effects_of(len(set(group.tolist()))), group, x, y)


def by_counter(group, x, y):
    names = sorted(collections.Counter(np.asarray(group)))
    numbers = np.array([names.index(one) for one in np.asarray(group)])
    observe(effects_of(len(names)), jnp.asarray(numbers), x, y)


MODELS = [by_unique, by_maximum, by_jax, by_branch, by_counter]


@pytest.mark.parametrize(
    ("model", "as_array"),
    [(by_unique, np.asarray), *((model, jnp.asarray) for model in MODELS)],
)
def test_an_array_whose_values_are_read_is_structure_and_the_others_are_data(model, as_array):
    reading = read_model(model, tuple(map(as_array, (GROUP, X, Y))), None, center=CENTER)
    np.testing.assert_allclose(reading.center_losses["y"], LOSSES, rtol=1e-5)
    assert [array.shape for array in reading.arrays] == [(30,), (30,)]
    np.testing.assert_allclose(reading.arrays[0], X, rtol=1e-6)
    other = read_model(model, tuple(map(as_array, (GROUP, X, Y + 1))), None, center=CENTER)
    assert other.program == reading.program
    shifted = GROUP[::-1]
    turned = read_model(model, tuple(map(as_array, (shifted, X, Y))), None, center=CENTER)
    assert turned.program != reading.program
    expected = 0.5 * (Y - CENTER["a"][shifted] - 0.9 * X) ** 2 + 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(turned.center_losses["y"], expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["U", object])
def test_arrays_of_texts_are_structure(kind):
    names = np.array(["north", "south", "west"])[GROUP].astype(kind)
    reading = read_model(by_counter, (names, X, Y), None, center=CENTER)
    np.testing.assert_allclose(reading.center_losses["y"], LOSSES, rtol=1e-5)
    turned = read_model(by_counter, (names[::-1], X, Y), None, center=CENTER)
    assert turned.program.arguments != reading.program.arguments


def missing(age, y):
    places = np.nonzero(np.isnan(age))[0]
    filler = numpyro.sample("filler", dist.Normal(0.0, 1.0).expand([len(places)]).to_event(1))
    age = jnp.asarray(age).at[places].set(filler)
    numpyro.sample("y", dist.Normal(age, 1.0), obs=y)


def test_places_of_missing_values_are_read():
    age = X.copy()
    age[[2, 7]] = np.nan
    reading = read_model(missing, (age, Y), None, center={"filler": [0.5, -0.5]})
    full = X.copy()
    full[[2, 7]] = 0.5, -0.5
    expected = 0.5 * (Y - full) ** 2 + 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(reading.center_losses["y"], expected, rtol=1e-5)


@pytest.mark.parametrize("model", [by_unique, by_jax])
def test_batches_by_a_plate_take_rows_of_what_is_read_too(model):
    program = with_batches(read_model(model, (GROUP, X, Y), None, center=CENTER))
    reading = read_model(model, (GROUP, X, Y), None, center=CENTER)
    rows = jnp.array([4, 0, 17])
    got = jax.jit(program.row_losses)(reading.center, reading.arrays, rows)
    np.testing.assert_allclose(got, LOSSES[np.asarray(rows)], rtol=1e-5)


def test_what_is_read_and_would_have_to_be_sliced_is_refused_by_name():
    def model(group, x, y):
        slope, effects = (
            numpyro.sample("b", dist.Normal(0.0, 1.0)),
            effects_of(int(group.max()) + 1),
        )
        numpyro.sample("y", dist.Normal(effects[group] + slope * x, 1.0), obs=y)

    reading = read_model(model, (GROUP, X, Y), None, center=CENTER)
    with pytest.raises(ValueError, match=r"reads the values of 'group'.*functools.partial"):
        with_batches(reading)


def test_a_model_that_reads_its_parameters_is_refused_as_such():
    def model(x, y):
        slope = numpyro.sample("b", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(slope * x if slope > 0 else 0.0 * x, 1.0), obs=y)

    with pytest.raises(ValueError, match="values that depend on its parameters.*jnp.where"):
        read_model(model, (X, Y), None, center={"b": 1.0})


def test_every_way_in_takes_a_model_that_reads_values():
    center = nllc.find_center(jax.random.key(0), by_maximum, (GROUP, X, Y), num_starts=1)
    design = np.column_stack([np.eye(3)[GROUP], X])
    fit = np.linalg.lstsq(design, Y, rcond=None)[0]
    np.testing.assert_allclose(center.params["a"], fit[:3], atol=1e-3)
    local = nllc.localize(by_maximum, center=center)
    args = (GROUP, X, Y)
    idata = nllc.estimate_llc(
        jax.random.key(1), local, args, kernel=METROPOLIS, num_warmup=300, progress_bar=False
    )
    assert set(idata["constant_data"].data_vars) == {"group", "x"}
    np.testing.assert_array_equal(idata["constant_data"]["group"], GROUP)
    target, _ = local.target(local.read(args))
    both = jax.jit(lambda z: (potential_energy(local, args, {}, z), target.potential(z)))
    points = ({"a": np.array(a, np.float32), "b": np.float32(0.7)} for a in (fit[:3], [0, 1, 2]))
    here, there = (np.array(both(z)) for z in points)
    handlers, engines = there - here
    assert handlers == pytest.approx(engines, rel=1e-4)


METROPOLIS = Metropolis(0.3)


def ignore(x, y):
    numpyro.sample("y", dist.Normal(numpyro.sample("b", dist.Normal(0.0, 1.0)), 1.0), obs=y)


MASKED = np.ma.masked_array(X, mask=X > 1.0)
REFUSED = {
    "masked": (MASKED, TypeError, r"`model_args\[0\]` is a masked array.*handlers.mask"),
    "unmasked": (np.ma.masked_array(X), TypeError, "is a masked array"),
    "objects": (
        np.array([1, None], object),
        TypeError,
        r"`model_args\[0\]` is an array of dtype obj",
    ),
    "dates": (np.array(["2020-01-01"], "M8[D]"), TypeError, "is an array of dtype datetime64"),
    "records": (np.zeros(2, [("a", float)]), TypeError, "is an array of dtype .*'a'"),
    "table": (pd.DataFrame({"x": X}), TypeError, r"is a pandas DataFrame.*\.to_numpy\(\)"),
    "series": (pd.Series(X), TypeError, r"is a pandas Series.*\.to_numpy\(\)"),
    "set": ({1, 2}, TypeError, "is a set, neither an array nor a plain value"),
    "large": (np.array([5 * 10**9, 1]), ValueError, "holds integers up to 5000000000, too large"),
    "negative": (np.array([-(10**10), 1]), ValueError, "up to 10000000000, too large for int32"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_data_is_refused_by_name(name):
    value, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        nllc.estimate_llc(jax.random.key(0), ignore, (value, Y), center={"b": 0.0})


@pytest.mark.parametrize(
    "value",
    [None, "text", 3, [X, X], {"a": X, "b": [1, 2]}, X > 0, jax.random.key(0)],
    ids=["None", "text", "int", "list", "dict", "truth values", "key"],
)
def test_what_is_data_or_structure_gives_the_same_losses(value):
    reading = read_model(ignore, (value, Y), None, center={"b": 0.0})
    expected = 0.5 * Y**2 + 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(reading.center_losses["y"], expected, rtol=1e-5)
