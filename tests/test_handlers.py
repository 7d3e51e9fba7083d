"""``localize`` against the engine's potential, and as an ordinary NumPyro model."""

import every_support
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import regression
from numpyro.infer import HMC, HMCECS, MCMC, NUTS
from numpyro.infer.util import potential_energy

import numpyro_llc as nllc
from numpyro_llc.local._target import make_target
from numpyro_llc.models import read_model


def both_potentials(model, args, center, beta, gamma):
    """The handler's potential (NumPyro's own machinery) and the engine's, of unconstrained z."""
    localized = nllc.localize(model, center=center, inverse_temperature=beta, localization=gamma)
    reading = read_model(model, args, None, center=center)
    by_site = gamma if isinstance(gamma, dict) else dict.fromkeys(reading.center, gamma)
    target = make_target(
        reading.program,
        reading.arrays,
        reading.center,
        inverse_temperature=beta,
        localization=by_site,
    )
    by_handler = jax.jit(jax.value_and_grad(lambda z: potential_energy(localized, args, {}, z)))
    return by_handler, jax.jit(jax.value_and_grad(target.potential)), reading.center


def test_handler_and_engine_agree_on_every_kind_of_support():
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        x, y = jnp.linspace(0.0, 1.0, 20), jnp.linspace(0.1, 1.1, 20)
        handler, engine, z0 = both_potentials(
            every_support.model, (x, y), every_support.CENTER, 0.3, 1.5
        )
        constant = handler(z0)[0] - engine(z0)[0]
        assert float(engine(z0)[0]) == 0.0
        z0 = {name: np.asarray(leaf) for name, leaf in z0.items()}
        for seed in range(5):
            rng = np.random.default_rng(seed)
            z = {name: leaf + 0.3 * rng.normal(size=leaf.shape) for name, leaf in z0.items()}
            (one, slope_one), (two, slope_two) = handler(z), engine(z)
            assert abs(one - two - constant) < 1e-10
            for name in z:
                np.testing.assert_allclose(slope_one[name], slope_two[name], atol=1e-10)


def test_priors_factors_and_their_scales_play_no_part():
    def with_prior(y):
        with numpyro.handlers.scale(scale=5.0):
            w = numpyro.sample("w", dist.Gamma(3.0, 7.0))
        numpyro.factor("extra", -(w**4))
        numpyro.sample("y", dist.Normal(w, 1.0), obs=y)

    def flat(y):
        w = numpyro.sample("w", dist.ImproperUniform(dist.constraints.positive, (), ()))
        numpyro.sample("y", dist.Normal(w, 1.0), obs=y)

    y = jnp.arange(5.0)
    settings = {"center": {"w": 2.0}, "inverse_temperature": 0.5}
    one = nllc.localize(with_prior, **settings, prior_factors=["extra"])
    two = nllc.localize(flat, **settings)
    both = jax.jit(lambda z: [potential_energy(m, (y,), {}, {"w": z}) for m in (one, two)])
    for z in (-1.0, 0.3):
        first, second = map(float, both(z))
        assert first == pytest.approx(second, rel=1e-6)


def test_param_sites_become_latent_ones():
    def model(x, y):
        net = numpyro.param("net", {"a": jnp.zeros(2), "b": jnp.zeros(())})
        s = numpyro.param("s", 1.0, constraint=dist.constraints.positive)
        numpyro.sample("y", dist.Normal(x * net["a"][0] + net["a"][1] + net["b"], s), obs=y)

    x, y = jnp.linspace(0, 1, 10), jnp.linspace(1, 2, 10)
    center = {"net": {"a": np.array([1.0, 0.5]), "b": 0.5}, "s": 0.2}
    handler, engine, z0 = both_potentials(model, (x, y), center, 0.3, {"net": 2.0, "s": 0.5})

    def flat(z):
        return {"net.a": z["net"]["a"], "net.b": z["net"]["b"], "s": z["s"]}

    constant = handler(flat(z0))[0] - engine(z0)[0]
    z = jax.tree.map(lambda leaf: leaf + 0.1, z0)
    (one, slopes), (two, expected) = handler(flat(z)), engine(z)
    assert float(one - two - constant) == pytest.approx(0.0, abs=1e-4)
    np.testing.assert_allclose(slopes["net.a"], expected["net"]["a"], rtol=1e-4)
    np.testing.assert_allclose(slopes["s"], expected["s"], rtol=1e-4)


@pytest.mark.parametrize("jit_model_args", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_users_own_run_gives_the_same_estimate(llc_of, jit_model_args):
    localized = nllc.localize(
        regression.model, center={"w": regression.OLS}, inverse_temperature=1 / np.log(500)
    )
    mcmc = MCMC(
        HMC(localized, trajectory_length=1.5) if jit_model_args else NUTS(localized),
        num_warmup=500,
        num_samples=1000,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
        jit_model_args=jit_model_args,
    )
    mcmc.run(jax.random.key(0), jnp.asarray(regression.X), jnp.asarray(regression.Y))
    idata = nllc.from_numpyro(mcmc)
    mean, error = llc_of(idata)
    assert abs(mean - regression.exact(regression.OLS, 1.0)) < 4 * error
    assert error < 0.1
    w = idata["posterior"]["w"].to_numpy()
    excess = 0.5 * np.sum((regression.Y - w @ regression.X.T) ** 2, axis=-1)
    excess -= 0.5 * np.sum((regression.Y - regression.X @ regression.OLS) ** 2)
    np.testing.assert_allclose(
        idata["posterior"]["llc"], excess / np.log(500), rtol=1e-2, atol=1e-3
    )
    assert "diverging" in idata["sample_stats"]
    assert idata.attrs["num_data"] == 500


def test_a_subsampled_plate_is_full_in_a_localized_model():
    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        with numpyro.plate("N", 20, subsample_size=5) as rows:
            numpyro.sample("y", dist.Normal(w * x[rows], 1.0), obs=y[rows])

    x, y = jnp.linspace(0, 1, 20), jnp.linspace(1, 2, 20)
    handler, engine, z0 = both_potentials(model, (x, y), {"w": 0.5}, 0.3, 2.0)
    constant = handler(z0)[0] - engine(z0)[0]
    moved = {"w": jnp.array(0.7)}
    assert float(handler(moved)[0] - engine(moved)[0] - constant) == pytest.approx(0, abs=1e-5)


def test_from_numpyro_refuses_a_run_on_another_model():
    mcmc = MCMC(NUTS(regression.model), num_warmup=1, num_samples=1)
    with pytest.raises(
        TypeError, match="must be a run of a kernel on numpyro_llc.localize"
    ) as said:
        nllc.from_numpyro(mcmc)
    assert "a kernel on 'model', whose draws are of the posterior" in str(said.value)
    assert "mcmc.get_samples().items()" in str(said.value)


def test_a_run_in_the_place_of_a_centre_is_refused_with_the_way_to_one():
    mcmc = MCMC(NUTS(regression.model), num_warmup=1, num_samples=1)
    args = regression.X, regression.Y
    with pytest.raises(
        TypeError, match=r"got MCMC. Of one mode take the mean.*find_center.*get_samples"
    ):
        nllc.estimate_llc(jax.random.key(0), regression.model, args, center=mcmc)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, "one"])
def test_bad_inverse_temperature_is_refused(bad):
    with pytest.raises((ValueError, TypeError), match="`inverse_temperature` must be"):
        nllc.localize(regression.model, center={"w": regression.OLS}, inverse_temperature=bad)


@pytest.mark.parametrize("gamma", [-1.0, np.inf, "one", {"w": -1.0}])
def test_bad_localization_is_refused(gamma):
    with pytest.raises((ValueError, TypeError), match="`localization` must be"):
        nllc.localize(
            regression.model,
            center={"w": regression.OLS},
            inverse_temperature=0.1,
            localization=gamma,
        )


@pytest.mark.parametrize("center", [None, {"w": None}, {}])
def test_bad_center_is_refused_at_the_first_call(center):
    model = nllc.localize(regression.model, center=center, inverse_temperature=0.1)
    with (
        pytest.raises((ValueError, TypeError), match="`center`|`center.'w'.`"),
        numpyro.handlers.seed(rng_seed=0),
    ):
        model(jnp.asarray(regression.X), jnp.asarray(regression.Y))


def test_from_numpyro_refuses_what_subsamples_and_what_has_not_run():
    localized = nllc.localize(
        regression.model, center={"w": regression.OLS}, inverse_temperature=0.1
    )
    for kernel, error, message in (
        (HMCECS(NUTS(localized)), TypeError, "ran HMCECS"),
        (NUTS(localized), ValueError, "has not run yet"),
    ):
        with pytest.raises(error, match=message):
            nllc.from_numpyro(MCMC(kernel, num_warmup=1, num_samples=1))


# --- parts of the parameters, and what is left to be inferred -------------------------------------

DATA = (regression.X, regression.Y)
KEPT = regression.X[:, 0] > 0


def several(x, y, keep=True):
    """A regression on five features: two leaves of a param, a site, and the scale of the noise."""
    net = numpyro.param("net", {"a": jnp.zeros(2), "b": jnp.zeros(2)})
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    mean = x[:, :2] @ net["a"] + x[:, 2] * w + x[:, 3:] @ net["b"]
    with numpyro.plate("N", x.shape[0]), numpyro.handlers.mask(mask=keep):
        numpyro.sample("y", dist.Normal(mean, scale), obs=y)


SAMPLED = ["net.a", "w"]
"""The first three features."""


@pytest.fixture(scope="module")
def found():
    """What `find_center` would find, by least squares."""
    net = {"a": regression.OLS[:2], "b": regression.OLS[3:]}
    scale = np.std(regression.Y - regression.X @ regression.OLS)
    return nllc.Center(
        params={"net": net, "w": regression.OLS[2], "scale": scale},
        loss=500 * (np.log(scale) + 0.5 + 0.5 * np.log(2 * np.pi)),
        gradient_norm=0.0,
        smallest_eigenvalue=1.0,
        largest_eigenvalue=2000.0,
        converged=True,
        start=0,
        start_objectives=np.zeros(1),
        minima=(),
        objective="mle",
    )


def test_fixed_sites_stay_at_the_center_under_a_users_own_kernel(found, llc_of):
    local = nllc.localize(several, center=found, sites=SAMPLED)
    mcmc = MCMC(
        HMC(local, trajectory_length=1.5),
        num_warmup=200,
        num_samples=1000,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), *DATA)
    assert set(mcmc.get_samples()) == set(SAMPLED)
    scale = float(found.params["scale"])
    curved = np.linalg.eigvalsh(regression.X[:, :3].T @ regression.X[:, :3]) / scale**2
    curved /= np.log(500)
    idata = nllc.from_numpyro(mcmc)
    draws = idata["posterior"]
    for name, value in (("net.b", found.params["net"]["b"]), ("scale", scale)):
        np.testing.assert_allclose(draws[name] - value, 0.0, atol=1e-6)
    for name in SAMPLED:
        assert np.all(draws[name].to_numpy().std(axis=(0, 1)) > 0.01)
    assert idata.attrs["num_parameters"] == 3
    assert idata.attrs["inverse_temperature"] == pytest.approx(1 / np.log(500), rel=1e-6)
    mean, error = llc_of(idata)
    assert abs(mean - 0.5 * np.sum(curved / (curved + 1.0))) < 4 * error
    assert error < 0.07  # and λ̂ of all six parameters is 2.4


def shifted(local, data, by=0.1):
    """What NumPyro's potential rises by when all sites go by as much from zero."""
    points = [{k: np.full(s, x, np.float32) for k, s in SHAPES.items()} for x in (0.0, by)]
    low, high = (potential_energy(local, data, {}, z) for z in points)
    return high - low


def exact_rise(center, data, beta, by=0.1):
    """The same for β by hand, at γ = 1."""
    x, y, keep = data if len(data) == 3 else (*data, True)
    scale = np.log(center["scale"])
    z_star = np.concatenate([center["net"]["a"], center["net"]["b"], [center["w"], scale]])

    def potential(z):
        squares = ((y - x @ np.full(5, z)) / np.exp(z)) ** 2
        return beta * np.sum(np.where(keep, 0.5 * squares + z, 0.0)) + 0.5 * np.sum(
            (z - z_star) ** 2
        )

    return potential(by) - potential(0.0)


SHAPES = {"net.a": (2,), "net.b": (2,), "w": (), "scale": ()}


@pytest.mark.parametrize("data", [DATA, (*DATA, KEPT)], ids=["all", "masked"])
def test_without_an_inverse_temperature_it_is_one_over_log_n(found, data):
    count = KEPT.sum() if len(data) == 3 else 500
    local = nllc.localize(several, center=found)
    one, traced = shifted(local, data), jax.jit(lambda *data: shifted(local, data))(*data)
    wanted, wrong = (
        exact_rise(found.params, data, beta) for beta in (1 / np.log(count), 1.01 / np.log(count))
    )
    for rise in (float(one), float(traced)):
        assert rise == pytest.approx(wanted, rel=1e-5)
        assert rise != pytest.approx(wrong, rel=1e-3)


def test_only_the_default_inverse_temperature_needs_the_number_of_data():
    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(w, 1.0), obs=x)
        numpyro.sample("y", dist.Normal(w, 2.0), obs=y)

    args, z = (jnp.arange(3.0), jnp.arange(5.0)), {"w": jnp.array(0.7)}
    beta = 1 / np.log(8)
    told, counted, unknown = (
        nllc.localize(model, center={"w": 1.0}, **given)
        for given in ({"inverse_temperature": beta}, {"num_data": 8}, {})
    )
    one, two = (float(potential_energy(local, args, {}, z)) for local in (told, counted))
    assert one == pytest.approx(two, rel=1e-6)
    with pytest.raises(ValueError, match="Cannot infer n: the observed sites differ.*`num_data`"):
        potential_energy(unknown, args, {}, z)


def test_masks_of_whole_sites_are_their_names_and_only_what_is_sampled_needs_gamma(found):
    masks = {"net": {"a": True, "b": False}, "w": np.array(True)}
    gamma = {"net": 1.0, "w": 2.0, "scale": 0.0}
    by_name, by_mask = (
        nllc.localize(several, center=found, localization=gamma, sites=sites)
        for sites in (SAMPLED, masks)
    )
    one, two = (float(shifted(local, DATA)) for local in (by_name, by_mask))
    assert np.isfinite(one)
    assert one == two


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"sites": {"net": {"a": np.array([True, False]), "b": True}, "w": True}},
            "`sites` masks parts of an array.*Use estimate_llc, or name whole sites",
        ),
        ({"localization": 0.0}, "`localization` must be positive for every site.*estimate_llc"),
        (
            {"localization": {"net": 1.0, "w": 0.0, "scale": 1.0}},
            "`localization` must be positive for every site.*estimate_llc",
        ),
    ],
)
def test_what_no_numpyro_site_can_hold_is_refused_with_the_remedy(found, settings, message):
    for center in (found, found.params):
        local = nllc.localize(several, center=center, **settings)
        mcmc = MCMC(NUTS(local), num_warmup=1, num_samples=1, progress_bar=False)
        with pytest.raises(ValueError, match=message):
            mcmc.run(jax.random.key(0), *DATA)
