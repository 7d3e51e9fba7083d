"""Reading NumPyro programs: losses against hand-written ones, and refusals by name."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats as st
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.infer.reparam import LocScaleReparam

from numpyro_llc.local import make_target
from numpyro_llc.models import read_model

FINE_W = {"w": 0.3}
RNG = np.random.default_rng(0)
X = RNG.normal(size=20)
Y = 0.5 * X + RNG.normal(size=20)


def read(model, args=(X, Y), center=FINE_W, **kwargs):
    return read_model(model, args, kwargs.pop("model_kwargs", None), center=center, **kwargs)


def total(reading):
    return sum(float(jnp.sum(loss)) for loss in reading.center_losses.values())


def gaussian(mean, scale=1.0):
    return lambda values: -st.norm(mean, scale).logpdf(values)


def plain(x, y):
    w = numpyro.sample("w", dist.StudentT(3.0, 0.0, 7.0))
    numpyro.sample("y", dist.Normal(w * x, 1.0), obs=y)


def plated(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    with numpyro.plate("N", 20, subsample_size=5) as rows:
        numpyro.sample("y", dist.Normal(w * x[rows], 1.0), obs=y[rows])


def subsampled(x, y):
    w = numpyro.sample("w", dist.ImproperUniform(dist.constraints.real, (), ()))
    with numpyro.plate("N", 20, subsample_size=5):
        batch, target = numpyro.subsample(x, 0), numpyro.subsample(y, 0)
        numpyro.sample("y", dist.Normal(w * batch, 1.0), obs=target)


def with_param(x, y):
    w = numpyro.param("w", 3.0)
    numpyro.sample("y", dist.Normal(w * x, 1.0), obs=y)


def with_factor(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    numpyro.factor("prior", -0.5 * w**2)
    numpyro.factor("nll", dist.Normal(w * x, 1.0).log_prob(y))


def in_scan(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))

    def step(carry, xy):
        numpyro.sample("y", dist.Normal(w * xy[0], 1.0), obs=xy[1])
        return carry, None

    scan(step, 0.0, (x, y))


def conditioned(x, y):
    def generate(x):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        numpyro.deterministic("mean", w * x)
        numpyro.sample("y", dist.Normal(w * x, 1.0))

    handlers.condition(generate, data={"y": y})(x)


EQUAL_MODELS = {
    "shape of the observations": (plain, {}),
    "subsampled plate": (plated, {}),
    "numpyro.subsample, ImproperUniform": (subsampled, {}),
    "numpyro.param": (with_param, {}),
    "factors": (with_factor, {"likelihood_factors": ["nll"], "prior_factors": ["prior"]}),
    "scan": (in_scan, {}),
    "condition, deterministic": (conditioned, {}),
}


@pytest.mark.parametrize("name", EQUAL_MODELS)
def test_equal_programs_have_equal_losses_and_data(name):
    model, factors = EQUAL_MODELS[name]
    reading = read(model, center={"w": 0.3}, **factors)
    assert total(reading) == pytest.approx(gaussian(0.3 * X)(Y).sum(), rel=1e-5)
    assert reading.num_data() == 20
    moved = reading.program.losses({"w": jnp.array(0.7)}, reading.arrays)
    expected = gaussian(0.7 * X)(Y).sum()
    assert float(jnp.sum(next(iter(moved.values())))) == pytest.approx(expected, rel=1e-5)


def test_mask_counts_and_sums_only_what_it_keeps():
    keep = X > 0

    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        with numpyro.plate("N", 20), handlers.mask(mask=x > 0):
            numpyro.sample("y", dist.Normal(w * x, 1.0), obs=y)

    reading = read(model, center={"w": 0.3})
    assert total(reading) == pytest.approx(gaussian(0.3 * X)(Y)[keep].sum(), rel=1e-5)
    assert reading.num_data() == keep.sum()
    holes = np.where(keep, Y, np.nan)
    assert read(model, (X, holes), {"w": 0.3}).num_data() == keep.sum()


def test_a_scale_handler_on_the_likelihood_weighs_the_data():
    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        with handlers.scale(scale=3.0):
            numpyro.sample("y", dist.Normal(w * x, 1.0), obs=y)

    reading = read(model, center={"w": 0.3})
    assert total(reading) == pytest.approx(3 * gaussian(0.3 * X)(Y).sum(), rel=1e-5)
    assert reading.num_data() == 20


def test_dynamic_supports_follow_the_parameters():
    def model(y):
        high = numpyro.sample("high", dist.HalfNormal(1.0))
        low = numpyro.sample("low", dist.Uniform(0.0, high))
        numpyro.sample("y", dist.Normal(low, high), obs=y)

    reading = read(model, (Y,), {"high": 2.0, "low": 0.5})
    assert float(reading.center["low"]) == pytest.approx(np.log(0.25 / 0.75), rel=1e-5)
    z = {"high": jnp.log(4.0), "low": reading.center["low"]}
    (losses,) = reading.program.losses(z, reading.arrays).values()
    np.testing.assert_allclose(losses, gaussian(1.0, 4.0)(Y), rtol=1e-5)


def test_latents_inside_scan_and_a_reparametrised_site():
    def model(y):
        base = numpyro.sample("base", dist.Normal(1.0, 2.0))

        def step(level, y):
            slope = numpyro.sample("slope", dist.HalfNormal(1.0))
            numpyro.sample("y", dist.Normal(level + slope, 1.0), obs=y)
            return level + slope, None

        scan(step, base, y)

    slopes = np.array([0.1, 0.2, 0.3])
    centred = handlers.reparam(model, config={"base": LocScaleReparam(0.0)})
    reading = read(centred, (Y[:3],), {"base_decentered": 0.25, "slope": slopes})
    expected = gaussian(1.0 + 2.0 * 0.25 + np.cumsum(slopes))(Y[:3]).sum()
    assert total(reading) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(reading.center["slope"], np.log(slopes), rtol=1e-5)


def test_two_sites_of_one_plate_are_one_datum_each():
    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        with numpyro.plate("N", 20):
            numpyro.sample("x", dist.Normal(w, 1.0), obs=x)
            numpyro.sample("y", dist.Normal(w * x, 1.0), obs=y)

    reading = read(model, center={"w": 0.3})
    assert reading.num_data() == 20
    expected = gaussian(0.3)(X).sum() + gaussian(0.3 * X)(Y).sum()
    assert total(reading) == pytest.approx(expected, rel=1e-5)


def test_losses_are_centred_before_they_are_summed():
    # A loss of 1e6 a datum: sums of it would be off by thousands in float32.
    def model(y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        offset = numpyro.sample("offset", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(w, 1.0), obs=y)
        with handlers.scale(scale=1e6):
            numpyro.sample("constant", dist.Normal(offset * 0.0, 1.0).expand([20]), obs=0 * y)

    reading = read(model, (Y,), {"w": 0.0, "offset": 0.0})
    target = make_target(
        reading.program,
        reading.arrays,
        reading.center,
        inverse_temperature=1.0,
        localization={"w": 1.0, "offset": 1.0},
    )
    excess = target.excess_loss({"w": jnp.array(0.1), "offset": jnp.array(0.0)})
    expected = (gaussian(0.1)(Y) - gaussian(0.0)(Y)).sum()
    assert float(excess) == pytest.approx(expected, rel=1e-4)


def test_static_arguments_are_structure_and_nested_arrays_are_data():
    def model(data, *, degree, names):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([degree]).to_event(1))
        powers = data["x"][:, None] ** jnp.arange(degree)
        assert names == ("a", "b")
        numpyro.sample("y", dist.Normal(powers @ w, 1.0), obs=data["y"])

    kwargs = {"degree": 3, "names": ("a", "b")}
    reading = read(model, ({"x": X, "y": Y},), {"w": [0.1, 0.2, 0.3]}, model_kwargs=kwargs)
    assert total(reading) == pytest.approx(gaussian(0.1 + 0.2 * X + 0.3 * X**2)(Y).sum(), rel=1e-5)
    assert [a.shape for a in reading.arrays] == [(20,), (20,)]


# --- refusals ------------------------------------------------------------------------------------


def regression(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    p = numpyro.sample("p", dist.Dirichlet(jnp.ones(3)))
    numpyro.sample("y", dist.Normal(w[0] * x + w[1] + p[0], s), obs=y)


FINE = {"w": np.zeros(2), "s": 1.0, "p": np.ones(3) / 3}

BAD_CENTERS = {
    "missing site": ({"w": np.zeros(2), "s": 1.0}, "`center` lacks 'p'"),
    "unknown site": ({**FINE, "v": 1.0}, "`center` names 'v', which the model does not have"),
    "wrong shape": (
        {**FINE, "w": np.zeros(3)},
        r"`center\['w'\]` must have shape \(2,\); got \(3,",
    ),
    "outside": ({**FINE, "s": -1.0}, r"`center\['s'\]` is outside or on the edge"),
    "edge": ({**FINE, "s": 0.0}, r"`center\['s'\]` is outside or on the edge"),
    "edge of the simplex": ({**FINE, "p": np.eye(3)[0]}, r"`center\['p'\]` is outside or on the"),
    "NaN": ({**FINE, "w": np.array([0.0, np.nan])}, r"`center\['w'\]` holds NaN"),
    "text": ({**FINE, "w": "zero"}, r"`center\['w'\]` must hold numbers"),
    "no dict": ([1.0, 2.0], "`center` must be a dict"),
    "None": (None, "`center` must be a dict.*got NoneType"),
    "None inside": ({**FINE, "s": None}, r"`center\['s'\]` must hold numbers; got None"),
}


@pytest.mark.parametrize("name", BAD_CENTERS)
def test_bad_center_is_refused(name):
    center, message = BAD_CENTERS[name]
    with pytest.raises((ValueError, TypeError), match=message):
        read(regression, center=center)


def _w():
    return numpyro.sample("w", dist.Normal(0.0, 1.0))


def no_data(x, y):
    numpyro.sample("y", dist.Normal(_w() * x, 1.0))


def endless_states(x, y):
    k = numpyro.sample("k", dist.Poisson(0.5))
    numpyro.sample("y", dist.Normal(_w() * k, 1.0), obs=y)


def delta(x, y):
    k = numpyro.sample("k", dist.Delta(1.0))
    numpyro.sample("y", dist.Normal(_w() * k, 1.0), obs=y)


def local(x, y):
    w = _w()
    with numpyro.plate("N", 20):
        theta = numpyro.sample("theta", dist.Normal(w, 1.0))
        numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)


def frozen(x, y):
    numpyro.sample("y", dist.Normal(_w() * x, numpyro.param("scale", 1.0)), obs=y)


def factor(x, y):
    numpyro.factor("nll", -jnp.square(y - _w() * x))


def dropout(x, y):
    keep = jax.random.bernoulli(numpyro.prng_key(), 0.5, x.shape)
    numpyro.sample("y", dist.Normal(_w() * x * keep, 1.0), obs=y)


def batch_norm(x, y):
    state = numpyro.primitives.mutable("state", {"mean": jnp.zeros(())})
    numpyro.sample("y", dist.Normal(_w() * (x - state["mean"]), 1.0), obs=y)


def obs_mask(x, y):
    w = _w()
    with numpyro.plate("N", 20):
        numpyro.sample("y", dist.Normal(w * x, 1.0), obs=y, obs_mask=x > 0)


BAD_MODELS = {
    "no observed site": (no_data, ValueError, "no observed site, so it has no loss"),
    "endless states": (endless_states, ValueError, "'k' .Poisson. has no finite.*Marginalise"),
    "Delta latent": (delta, ValueError, "Latent site 'k' is a Delta"),
    "local latent": (local, ValueError, "Latent site 'theta' has one value per observation of 'y'"),
    "frozen param": (frozen, ValueError, "numpyro.param 'scale' is not in `center`"),
    "undeclared factor": (factor, ValueError, "Factor site 'nll' may be prior or likelihood. Pass"),
    "dropout": (
        dropout,
        ValueError,
        "likelihood of 'y' depends on numpyro.prng_key.*deterministic",
    ),
    "batch norm": (batch_norm, ValueError, "Site 'state' is mutable state.*inference mode"),
    "obs_mask": (obs_mask, ValueError, "Site 'y' uses `obs_mask`"),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_model_without_a_learning_coefficient_is_refused(name):
    model, kind, message = BAD_MODELS[name]
    with pytest.raises(kind, match=message):
        read(model, center={"w": 0.3})


def test_missing_values_in_the_data_are_refused():
    holes = np.where(X > 0, Y, np.nan)
    count = int(np.isnan(holes).sum())
    with pytest.raises(ValueError, match=f"Observed site 'y' holds {count} NaN"):
        read(plain, (X, holes), {"w": 0.3})


def joint(x, y):
    numpyro.sample("y", dist.Normal(_w() * x, 1.0).to_event(1), obs=y)


def unequal(x, y):
    w = _w()
    numpyro.sample("x", dist.Normal(w, 1.0), obs=x[:7])
    numpyro.sample("y", dist.Normal(w * x, 1.0), obs=y)


def outputs(x, y):
    w = _w()
    with numpyro.plate("N", 20, dim=-2):
        numpyro.sample("y", dist.Normal(w * x[:, None], 1.0), obs=jnp.stack([y, y], axis=1))


def broadcast(x, y):
    w = _w()
    with numpyro.plate("N", 20):
        numpyro.sample("y", dist.Normal(w * x[:, None], 1.0), obs=y)


def two_plates(x, y):
    w = _w()
    with numpyro.plate("M", 20):
        numpyro.sample("x", dist.Normal(w, 1.0), obs=x)
    with numpyro.plate("N", 20):
        numpyro.sample("y", dist.Normal(w * x, 1.0), obs=y)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (joint, "to_event"),
        (unequal, "differ in size"),
        (two_plates, "differ in size or plate"),
        (outputs, r"batch shape \(20, 2\), but its plates are {'N': 20}"),
        (broadcast, r"batch shape \(20, 20\), but its plates are {'N': 20}"),
    ],
)
def test_doubtful_number_of_data_asks_for_num_data(model, message):
    with pytest.raises(ValueError, match=f"Cannot infer n.*{message}.*`num_data`"):
        read(model, center={"w": 0.3}).num_data()


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((X, np.array([None])), None, r"`model_args\[1\]` is an array of dtype object"),
        (X, None, "`model_args` must be a tuple"),
        ((X, Y), [1], "`model_kwargs` must be a dict"),
    ],
)
def test_bad_arguments_are_refused(args, kwargs, message):
    with pytest.raises(TypeError, match=message):
        read_model(plain, args, kwargs, center={"w": 0.3})


def test_unknown_factor_is_refused():
    with pytest.raises(ValueError, match="name 'typo', which is no numpyro.factor.*'prior', 'nll'"):
        read(with_factor, center={"w": 0.3}, likelihood_factors=["typo"])


def scanned(x, y):
    def step(level, value):
        rise = numpyro.sample("w", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(level + rise, 1.0), obs=value)
        return level + rise, None

    scan(step, 0.0, y[:5])


@pytest.mark.parametrize("wrong", [0.0, np.zeros(4), np.zeros(7), np.zeros((5, 1))])
def test_center_of_a_scanned_site_must_have_its_length(wrong):
    assert read(scanned, center={"w": np.zeros(5)}).dimension == 5
    with pytest.raises(ValueError, match=r"`center\['w'\]` must have shape"):
        read(scanned, center={"w": wrong})


def param_tree(x, y):
    w = numpyro.param("w", {"a": jnp.zeros(3), "b": jnp.zeros(())})
    numpyro.sample("y", dist.Normal(w["a"][0] * x + w["b"], 1.0), obs=y)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"a": np.zeros(3)}, "must be a pytree like the param's initial value"),
        ({"a": np.zeros(3), "b": 0.0, "c": 1.0}, "must be a pytree like the param's initial value"),
        ({"a": np.zeros(2), "b": 0.0}, r"must have shape \(3,\); got \(2,\)"),
        (np.zeros(3), "must be a pytree like the param's initial value"),
    ],
)
def test_center_of_a_param_must_look_like_its_initial_value(wrong, message):
    assert read(param_tree, center={"w": {"a": np.zeros(3), "b": 0.0}}).dimension == 4
    with pytest.raises(ValueError, match=message):
        read(param_tree, center={"w": wrong})


def test_arrays_of_the_center_are_not_copied():
    """What is as the model takes it; NumPy's arrays, which their owner may change, and others are.

    Of a huge network a copy counts.
    """

    def model():
        w = numpyro.sample("w", dist.Normal(0, 1).expand([3]).to_event(1))
        net = numpyro.param("net", {"a": jnp.zeros(2), "b": jnp.zeros(())})
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        loc = w.sum() + net["a"].sum() + net["b"]
        with numpyro.plate("N", 4):
            numpyro.sample("y", dist.Normal(loc, scale), obs=jnp.zeros(4))

    net = {"a": jnp.arange(2.0), "b": np.ones((), np.float32)}
    center = {"w": jnp.ones(3), "net": net, "scale": jnp.asarray(2.0)}
    reading = read_model(model, (), None, center=center)
    again = reading.at(center)
    for z in (reading.center, again.center):
        assert z["w"] is center["w"]
        assert z["net"]["a"] is net["a"]
        assert float(z["scale"]) == pytest.approx(np.log(2.0))
    net["b"][...] = 5.0
    assert float(again.center["net"]["b"]) == 1.0


def test_dropout_is_found_where_it_multiplies_zeros():
    with pytest.raises(ValueError, match="depends on numpyro.prng_key"):
        read(dropout, center={"w": 0.0})


def test_a_batch_in_place_of_the_data_is_refused():
    def model(x, y):
        w = _w()
        with numpyro.plate("N", 20, subsample_size=1):
            numpyro.sample("y", dist.Normal(w * x, 1.0), obs=y)

    with pytest.raises(ValueError, match="'y' has shape .1,., which does not fill plate 'N' of si"):
        read(model, (X[:1], Y[:1]), {"w": 0.3})


@pytest.mark.parametrize("rows", [2, 5])
@pytest.mark.parametrize("plate", ["N", "items"])
def test_a_batch_of_several_rows_in_place_of_the_data_is_refused(rows, plate):
    def model(x, y):
        w = _w()
        with numpyro.plate(plate, 20, subsample_size=rows):
            numpyro.sample("y", dist.Normal(w * x, 1.0), obs=y)

    with pytest.raises(ValueError, match=f"'{plate}' .size 20..*pass all rows"):
        read(model, (X[:rows], Y[:rows]), {"w": 0.3})


def test_latents_in_a_plate_as_large_as_the_data_are_refused():
    def model(x, y):
        with numpyro.plate("N", 20):
            theta = numpyro.sample("w", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)

    reading = read(model, center={"w": np.zeros(20)})
    for given in (None, 20, 10):
        with pytest.raises(ValueError, match="Latent site 'w' has 20 values in its plates"):
            reading.num_data(given)
    assert reading.num_data(1000) == 1000


def test_data_that_the_model_reads_from_outside_may_change():
    data = {"y": Y}

    def model():
        numpyro.sample("y", dist.Normal(_w(), 1.0), obs=data["y"])

    first = read(model, ())
    data["y"] = Y + 5.0
    second = read(model, ())
    assert total(first) == pytest.approx(gaussian(0.3)(Y).sum(), rel=1e-5)
    assert total(second) == pytest.approx(gaussian(0.3)(Y + 5.0).sum(), rel=1e-5)
    assert first.program != second.program
    assert second.program == read(model, ()).program


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint])
def test_outside_numbers_are_noticed_wherever_they_are_used(wrap):
    outside = {"factor": 2.0 * np.ones(20)}

    def model(y):
        mean = wrap(lambda w: w * outside["factor"])(_w())
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    for factor in (2.0, 4.0):
        outside["factor"] = factor * np.ones(20)
        expected = gaussian(0.3 * factor)(Y).sum()
        assert total(read(model, (Y,))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("key", [0, 1])
def test_a_model_may_hold_a_random_key(key):
    def shifted(x, y):
        shift = jax.random.normal(held)
        numpyro.sample("y", dist.Normal(_w() * x + shift, 1.0), obs=y)

    held = jax.random.key(key)
    expected = gaussian(0.3 * X + float(jax.random.normal(held)))(Y).sum()
    assert total(read(shifted)) == pytest.approx(expected, rel=1e-5)
    seeded = handlers.seed(plain, jax.random.key(key))
    assert total(read(seeded)) == pytest.approx(gaussian(0.3 * X)(Y).sum(), rel=1e-5)


def test_a_model_that_cannot_key_compiled_code_is_refused():
    class Model:
        __hash__ = None

        def __call__(self, x, y):
            plain(x, y)

    with pytest.raises(TypeError, match="`model` is a Model that cannot be hashed"):
        read(Model())
    with pytest.raises(TypeError, match="`model` must be a NumPyro model"):
        read("model")
