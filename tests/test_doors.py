"""What ``localize`` says has its effect in every function that takes a localized model."""

import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from metropolis import Metropolis
from numpyro.infer import HMC, MCMC
from numpyro.infer.util import potential_energy

import numpyro_llc as nllc
from numpyro_llc.inference_data import monte_carlo, posterior

# The centre is no minimum in `a`, and runs are short: both are said.
pytestmark = pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")

ROWS, N, BETA, GAMMA, TILT = 40, 120, 2.0, {"a": 2.0, "b": 12.0}, 6.0
RNG = np.random.default_rng(0)
Q = np.sqrt(10.0) * np.linalg.qr(RNG.normal(size=(ROWS, 3)))[0]
X = np.stack([0.8 * Q[:, 2] + 0.6 * Q[:, 0], Q[:, 0], Q[:, 1]], axis=1)
Y, OTHER = X @ [1.0, -1.0, 0.5] + RNG.normal(size=(2, ROWS))
DATA = (X, Y, OTHER)
A = 1.3
B = X[:, 1:].T @ (0.5 * (Y + OTHER) - A * X[:, 0]) / 10.0
CENTER = {"a": A, "b": B}
"""The minimum in `b` at this `a`."""


def model(x, y, other):
    """The data are observed in part, in part a factor; the prior holds a factor too."""
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.factor("tilt", -TILT * b.sum())
    with numpyro.plate("N", len(x)):
        mean = a * x[:, 0] + x[:, 1:] @ b
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        numpyro.factor("fit", -0.5 * (jnp.asarray(other) - mean) ** 2)


LOCAL = nllc.localize(
    model,
    center=CENTER,
    localization=GAMMA,
    inverse_temperature=BETA,
    num_data=N,
    sites="b",
    likelihood_factors=["fit"],
    prior_factors=["tilt"],
)


def exact(
    free=(1, 2), gamma=(2.0, 12.0, 12.0), beta=BETA, step=0.0, parts=2, tilt=0.0, center=(A, *B)
):
    """``E[llc]`` of the parameters `free`, by Langevin steps of that size.

    `parts` is 1 if the factor `fit` is left out, `tilt` is 1 if the factor `tilt` is sampled.
    """
    free = list(free)
    x, data = X[:, free], (Y, OTHER)[:parts]
    hessian = parts * x.T @ x
    gradient = sum(x.T @ (X @ center - y) for y in data)
    curved = beta * hessian + np.diag(np.asarray(gamma)[free])
    pull = beta * gradient + tilt * TILT * (np.asarray(free) > 0)
    shift = -np.linalg.solve(curved, pull)
    spread = np.linalg.inv(curved @ (np.eye(len(free)) - step / 4 * curved))
    moved = gradient @ shift + 0.5 * shift @ hessian @ shift
    return beta * (0.5 * np.trace(hessian @ spread) + moved)


WITHOUT = {
    "localization": {"gamma": (1.0, 1.0, 1.0)},
    "sites in order": {"gamma": (12.0, 2.0, 2.0)},
    "inverse_temperature": {"beta": 1 / np.log(N)},
    "sites": {"free": (0, 1, 2)},
    "likelihood_factors": {"parts": 1},
    "prior_factors": {"tilt": 1.0},
}
"""What to change of the exact value for one setting of ``localize`` to have no effect."""

KEY, QUIET = jax.random.key(0), {"progress_bar": False}
WALK = {"kernel": Metropolis(0.2), "num_warmup": 200, **QUIET}
LONG = {"num_samples": 10_000, "thinning": 5}
STEP = 2e-3
STEPS = {"num_warmup": 500, "num_samples": 40_000, "thinning": 20}


@pytest.fixture(scope="module")
def estimated():
    """A result of ``estimate_llc``, with its sites."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)
        return nllc.estimate_llc(KEY, LOCAL, DATA, **WALK, **LONG, store_sites=True)


def of_result(idata):
    row = nllc.summary(idata).loc["llc"]
    return row["mean"], row["mcse_mean"], posterior(idata).attrs


def of_table(table):
    return table["llc"].item(), table["mcse_mean"].item(), table.attrs


def by_trajectory(local):
    walk = {**WALK, **LONG}
    return of_table(nllc.llc_trajectory(KEY, replace(local, center=None), [CENTER], DATA, **walk))


def by_sweep(local):
    """Over one centre, so that no other setting of the localized model is an axis."""
    return of_table(nllc.sweep(KEY, local, DATA, center=[CENTER], **WALK, **LONG))


def by_refinement(local):
    return of_table(nllc.refined_llc(KEY, local, DATA, sites={"own": "b"}, **WALK, **LONG))


def by_ladder(local):
    rungs = {"inverse_temperatures": [0.5, BETA]}
    ladder = nllc.evidence.temperature_ladder(KEY, local, DATA, **rungs, **WALK, num_samples=5000)
    found = monte_carlo(BETA * ladder["excess_loss"].sel(inverse_temperature=BETA).to_numpy())
    return found.mean, found.error, ladder.attrs


def by_hmc(local):
    kernel = HMC(local, trajectory_length=1.5)
    return of_result(nllc.from_numpyro(under_mcmc(kernel, num_warmup=300, num_samples=1000)))


def by_steps(local):
    return of_result(nllc.from_numpyro(under_mcmc(nllc.SGLD(local, step_size=STEP), **STEPS)))


def under_mcmc(kernel, **lengths):
    mcmc = MCMC(kernel, num_chains=4, chain_method="vectorized", **lengths, **QUIET)
    mcmc.run(KEY, *DATA)
    return mcmc


DOORS = {
    "llc_trajectory": by_trajectory,
    "sweep": by_sweep,
    "refined_llc": by_refinement,
    "temperature_ladder": by_ladder,
    "HMC under MCMC": by_hmc,  # whose density is held by itself below
    "SGLD under MCMC": by_steps,
}
NO_EFFECT = {"temperature_ladder": ["inverse_temperature"]}
"""Each rung has its own temperature."""


def assert_all_settings_count(llc, error, *, step=0.0, besides=()):
    """The value is that of all settings, and not of all but one of them."""
    assert error < 0.03
    assert abs(llc - exact(step=step)) < 4 * error
    for name in WITHOUT.keys() - set(besides):
        assert abs(llc - exact(step=step, **WITHOUT[name])) > 4 * error, name


ATTRS = {
    "num_data": N,
    "num_parameters": 2,
    "localization": 12.0,
    "inverse_temperature": BETA,
}


def test_every_setting_has_its_effect_in_estimate_llc(estimated):
    llc, error, attrs = of_result(estimated)
    assert_all_settings_count(llc, error)
    assert {name: attrs[name] for name in ATTRS} == ATTRS
    draws = posterior(estimated)
    np.testing.assert_array_equal(draws["a"], np.float32(A))
    assert (draws["b"].std(("chain", "draw")) > 0).all()


@pytest.mark.parametrize(
    "door",
    [pytest.param(door, marks=[pytest.mark.slow] * (door == "HMC under MCMC")) for door in DOORS],
)
def test_every_setting_has_its_effect_in(door):
    llc, error, attrs = DOORS[door](LOCAL)
    step = STEP if door == "SGLD under MCMC" else 0.0
    assert_all_settings_count(llc, error, step=step, besides=NO_EFFECT.get(door, ()))
    assert {name: attrs[name] for name in ATTRS if name in attrs} == {
        name: value for name, value in ATTRS.items() if name in attrs
    }
    told = {"sweep": 0, "refined_llc": 2, "temperature_ladder": 3}.get(door, len(ATTRS))
    assert len(ATTRS.keys() & attrs.keys()) == told


def test_every_setting_has_its_effect_in_the_density_that_numpyro_samples():
    """Of `b` alone, and by how much less it is for each setting without effect."""

    def rise(b, *, gamma=GAMMA["b"], beta=BETA, parts=2, tilt=0.0):
        losses = [
            [0.5 * np.sum((y - X @ [A, *at]) ** 2) for y in (Y, OTHER)[:parts]] for at in (b, B)
        ]
        squares = 0.5 * gamma * np.sum((b - B) ** 2)
        return beta * (np.sum(losses[0]) - np.sum(losses[1])) + squares + tilt * np.sum(b - B)

    potential = jax.jit(lambda b: potential_energy(LOCAL, DATA, {}, {"b": b}))
    b = B + [0.3, 0.1]
    found = float(potential(jnp.asarray(b)) - potential(jnp.asarray(B)))
    assert found == pytest.approx(rise(b), rel=1e-4)
    for other in ({"gamma": 1.0}, {"gamma": 2.0}, {"beta": 1 / np.log(N)}, {"parts": 1}):
        assert found != pytest.approx(rise(b, **other), rel=1e-2)
    assert found != pytest.approx(rise(b, tilt=TILT), rel=1e-2)


def test_n_sets_the_temperature_of_a_sweep_that_leaves_it_open():
    llc, error, _ = by_sweep(replace(LOCAL, inverse_temperature=None))
    assert abs(llc - exact(beta=1 / np.log(N))) < 4 * error
    assert abs(llc - exact(beta=1 / np.log(ROWS))) > 4 * error


def test_a_refinement_takes_the_place_of_its_sites_and_keeps_all_else():
    best = X[:, 0] @ (0.5 * (Y + OTHER) - X[:, 1:] @ B) / np.sum(X[:, 0] ** 2)
    local = replace(LOCAL, center={"a": best, "b": B})
    table = nllc.refined_llc(KEY, local, DATA, sites={"other": "a"}, **WALK, **LONG)
    llc, error, _ = of_table(table)
    assert table["num_parameters"].item() == 1
    own = {"free": [0], "center": (best, *B)}
    assert abs(llc - exact(**own)) < 4 * error
    for change in ({"gamma": (12.0, 12.0, 12.0)}, {"beta": 1 / np.log(N)}, {"parts": 1}):
        assert abs(llc - exact(**own, **change)) > 4 * error, change


def test_every_setting_has_its_effect_in_volume_scaling():
    """The columns of `b` are orthogonal: ``V(ε) = 1 - exp(-γ n ε / h)``, h = 20."""
    counts = {"num_particles": 200, "num_replicas": 8, "num_moves": 5}
    found = nllc.evidence.volume_scaling(KEY, LOCAL, DATA, least=1e-4, **counts)
    assert abs(found.learning_coefficient - 1.0) < 4 * found.error
    assert found.error < 0.1

    def volume(n=N, gamma=12.0, hessian=20.0):
        return np.log1p(-np.exp(-gamma * n * found.curve["epsilon"].to_numpy() / hessian))

    log_volume, error = (found.curve[name].to_numpy()[2:] for name in ("log_volume", "error"))
    assert (abs(log_volume - volume()[2:]) < 5 * error).all()
    for other in ({"n": ROWS}, {"gamma": 2.0}, {"gamma": 1.0}, {"hessian": 10.0}):
        assert (abs(log_volume - volume(**other)[2:]) > 5 * error).all(), other


def test_every_setting_has_its_effect_in_pointwise_losses(estimated):
    losses = nllc.pointwise.pointwise_losses(estimated, LOCAL, DATA)
    assert losses.is_center
    assert losses.num_rows == ROWS
    assert losses.inverse_temperature == BETA
    assert losses.localization()["b"] == 12.0
    excess, reference = losses.of(np.arange(ROWS))
    mean = X @ [A, *B]
    own = 0.5 * (Y - mean) ** 2 + 0.5 * np.log(2 * np.pi) + 0.5 * (OTHER - mean) ** 2
    np.testing.assert_allclose(reference, own, rtol=1e-4, atol=1e-4)
    recorded = estimated["sample_stats"]["excess_loss"].to_numpy()
    np.testing.assert_allclose(excess.sum(axis=-1), recorded, rtol=1e-3, atol=1e-3)


EVERY_DOOR = {
    "estimate_llc": lambda local: nllc.estimate_llc(KEY, local, DATA, **WALK),
    "volume_scaling": lambda local: nllc.evidence.volume_scaling(KEY, local, DATA),
    **DOORS,
    "sweep": lambda local: nllc.sweep(KEY, local, DATA, inverse_temperature=[BETA], **WALK),
}


UNFIT = {
    "likelihood_factors": ([], "Factor site 'fit' may be prior or likelihood"),
    "prior_factors": (["tilt", "none"], "name 'none', which is no numpyro.factor"),
    "localization": ({"b": 1.0}, "`localization` must be a number or name each parameter site"),
    "sites": ("c", "`sites` names 'c'"),
    "center": ({"a": 1.0}, "`center` lacks 'b'"),
}
"""A value of a setting that does not fit the model, and what is said of it."""
IN_ITS_PLACE = [("refined_llc", "sites"), ("llc_trajectory", "center")]
"""Arguments of their own that take the place of the setting."""


@pytest.mark.parametrize(
    ("door", "name"),
    [(d, name) for d in EVERY_DOOR for name in UNFIT if (d, name) not in IN_ITS_PLACE],
)
def test_a_setting_that_does_not_fit_the_model_is_named_by(door, name):
    value, match = UNFIT[name]
    with pytest.raises(ValueError, match=match):
        EVERY_DOOR[door](replace(LOCAL, **{name: value}))


def test_pointwise_losses_are_those_of_the_settings_of_the_result(estimated):
    other = replace(LOCAL, prior_factors=["tilt", "fit"], likelihood_factors=[])
    with pytest.raises(ValueError, match="losses of this model and data differ by"):
        nllc.pointwise.pointwise_losses(estimated, other, DATA)
    with pytest.raises(ValueError, match="may be prior or likelihood"):
        nllc.pointwise.pointwise_losses(estimated, replace(LOCAL, prior_factors=[]), DATA)


@pytest.mark.parametrize("door", [door for door in EVERY_DOOR if door != "llc_trajectory"])
def test_a_model_without_a_centre_is_for_trajectories(door):
    with pytest.raises(ValueError, match="`center` must be given: center={site"):
        EVERY_DOOR[door](replace(LOCAL, center=None))


@pytest.mark.parametrize("door", ["temperature_ladder", "volume_scaling", "HMC under MCMC"])
def test_a_gaussian_of_no_precision_is_refused_by(door):
    """By those that draw from it; of what is sampled alone."""
    with pytest.raises(ValueError, match="`localization` must be positive for every site"):
        EVERY_DOOR[door](replace(LOCAL, localization={"a": 1.0, "b": 0.0}))


def test_masks_of_parts_of_a_site_need_the_package_to_sample():
    masked = replace(LOCAL, sites={"b": np.array([True, False])})
    with pytest.raises(ValueError, match="`sites` masks parts of an array"):
        by_hmc(masked)


def test_the_prior_of_all_parameters_has_no_sites_for_a_ladder():
    with pytest.raises(ValueError, match="`prior='model'` is the prior of all parameters; `sites`"):
        nllc.evidence.temperature_ladder(KEY, LOCAL, DATA, prior="model", **WALK)


@pytest.mark.parametrize(
    "settings",
    [{"center": CENTER}, {"localization": 2.0}, {"inverse_temperature": 0.5}, {"num_data": 9}],
    ids=lambda settings: next(iter(settings)),
)
def test_a_localized_model_has_its_settings_from_localize_alone(settings):
    with pytest.raises(ValueError, match=f"`{next(iter(settings))}` is a setting of the localized"):
        nllc.estimate_llc(KEY, LOCAL, DATA, **settings, **WALK)
