"""Models with discrete latent sites, summed out datum by datum."""

import itertools
import sys
from pathlib import Path
from typing import NamedTuple

import discrete_models as models
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from metropolis import Metropolis
from numpyro.contrib.control_flow import scan
from numpyro.contrib.funsor import config_enumerate, enum
from numpyro.infer import HMC, MCMC
from numpyro.infer.util import potential_energy
from scipy.special import logsumexp
from scipy.stats import norm

import numpyro_llc as nllc
from numpyro_llc.models import constrain, read_model, with_batches
from numpyro_llc.models._measured import measure

AWAY = 0.1
"""How far from the centre, in every unconstrained coordinate, losses are looked at too."""


def moved(z, away):
    return jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(away), z)


LONG = {
    "latent classes",
    "zero-inflated counts",
    "capture with masked states",
    "two steps back",
    "mixture of one component",
    "loop over markov",
}
"""Compile for long, or show little that others do not: the second tier runs them."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(k, marks=[pytest.mark.slow] * (k in LONG)) for k in models.CASES],
    ids=str,
)
def case(request):
    return models.CASES[request.param]


@pytest.fixture(scope="module")
def reading(case):
    return read_model(case.model, case.args, None, center=case.center)


class Seen(NamedTuple):
    """What is computed of a case at one point, `numpyros` and `ours` up to the same constant."""

    values: dict
    losses: dict
    slope: dict
    rows: np.ndarray | None
    ours: np.ndarray
    numpyros: np.ndarray | None


@pytest.fixture(scope="module")
def seen_at(case, reading):
    """All that is asked of a point, in one program: rows 3 and 1, and potentials, too."""
    program = with_batches(reading) if case.rows else reading.program
    model = enum(config_enumerate(case.model), reading.program.enumeration.first_dim)

    @jax.jit
    def look(z, arrays):
        losses, back = jax.vjp(lambda z: program.losses(z, arrays), z)
        (slope,) = back(jax.tree.map(jnp.ones_like, losses))
        rows = program.row_losses(z, arrays, jnp.array([3, 1])) if case.rows else None
        values = constrain(reading.program, reading.program.parameters, z, arrays)
        ours = sum(map(jnp.sum, losses.values())) + program.prior_potential(z, arrays)
        args, kwargs = program.arguments.join(arrays)
        numpyros = potential_energy(model, args, kwargs, z, enum=True) if case.is_numpyros else None
        return Seen(values, losses, slope, rows, ours, numpyros)

    return lambda away: look(moved(reading.center, away), reading.arrays)


@pytest.fixture(scope="module")
def looked_at(seen_at):
    """Away from the centre."""
    return seen_at(AWAY)


def _close(got, wanted):
    np.testing.assert_allclose(np.asarray(got, np.float64), wanted, rtol=2e-5, atol=2e-5)


def test_losses_are_those_by_hand(case, reading, looked_at):
    losses = looked_at.losses
    assert list(losses) == [case.name]
    _close(reading.center_losses[case.name], case.oracle(case.center, *case.args))
    _close(losses[case.name], case.oracle(looked_at.values, *case.args))


def test_a_batch_has_the_losses_of_its_rows(case, looked_at):
    if case.rows:
        _close(looked_at.rows, case.oracle(looked_at.values, *case.args)[[3, 1]])


def test_slopes_are_numbers(looked_at):
    assert all(np.all(np.isfinite(leaf)) for leaf in looked_at.slope.values())


def test_number_of_data(case, reading):
    if case.num_data is None:
        counts = reading.data_counts[case.name]
        assert reading.num_data() == counts
    else:
        with pytest.raises(ValueError, match="they are one datum. Pass `num_data`"):
            reading.num_data()


def test_numpyros_own_potential_rises_as_much(case, seen_at, looked_at):
    if not case.is_numpyros:
        pytest.skip("NumPyro's own density is not looked at.")
    here, there = (np.array([seen.ours, seen.numpyros]) for seen in (seen_at(0.0), looked_at))
    ours, numpyros = there - here
    assert ours == pytest.approx(numpyros, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("length", [1, 2])
def test_short_sequences(length):
    """NumPyro takes the first step out of a scan, so that nothing, or one step, is left."""
    case = models.CASES["hidden Markov model"]
    y = case.args[0][:, :length]
    losses = read_model(case.model, (y,), None, center=case.center).center_losses
    _close(losses["y"], case.oracle(case.center, y))


def test_data_without_states_keep_a_loss_of_their_own():
    def model(x, y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", y.shape[0], subsample_size=4) as rows:
            numpyro.sample("x", dist.Normal(m, 1.0), obs=x[rows])
            z = numpyro.sample("z", dist.Bernoulli(0.5), infer=models.states())
            numpyro.sample("y", dist.Normal(m + z, 1.0), obs=y[rows])

    reading = _read(model, Y**2, Y)
    of_x = -norm.logpdf(Y**2, 0.5)
    of_y = -logsumexp(np.log(0.5) + norm.logpdf(Y[:, None], [0.5, 1.5]), axis=1)
    _close(reading.center_losses["x"], of_x)
    _close(reading.center_losses["y"], of_y)
    assert reading.num_data() == 8
    row_losses = jax.jit(with_batches(reading).row_losses)
    rows = row_losses(reading.center, reading.arrays, np.array([6, 2]))
    _close(rows, (of_x + of_y)[[6, 2]])


# --- λ̂


FOUND = {"means": [1.9621854, -1.3399572], "weights": [0.52041095, 0.47958905]}
"""Where the likelihood of the mixture is largest, as `find_center` says."""
SHORT = {"num_warmup": 300, "num_samples": 1000, "num_chains": 2, "progress_bar": False}
WALK = {**SHORT, "kernel": Metropolis(0.6), "num_samples": 8000, "thinning": 8}


@pytest.fixture(scope="module")
def by_enumeration():
    """λ̂ of the mixture, its discrete site summed out by enumeration."""
    case = models.CASES["mixture"]
    return nllc.estimate_llc(
        jax.random.key(0), case.model, case.args, center=FOUND, **WALK, log_likelihood=True
    )


@pytest.mark.slow
def test_a_mixture_by_hand_has_the_same_estimate(by_enumeration, llc_of):
    case = models.CASES["mixture"]
    by_hand = nllc.estimate_llc(
        jax.random.key(0), models.mixture_by_hand, case.args, center=FOUND, **WALK
    )
    assert llc_of(by_enumeration) == pytest.approx(llc_of(by_hand), rel=1e-3)


@pytest.mark.slow
def test_numpyros_own_kernel_agrees(by_enumeration, llc_of):
    case = models.CASES["mixture"]
    local = nllc.localize(case.model, center=FOUND)
    mcmc = MCMC(HMC(local, trajectory_length=1.5), chain_method="vectorized", **SHORT)
    mcmc.run(jax.random.key(1), *case.args)
    assert set(mcmc.get_samples()) == set(case.center)
    (one, error), (two, other) = llc_of(nllc.from_numpyro(mcmc)), llc_of(by_enumeration)
    assert abs(one - two) < 4 * np.hypot(error, other)


@pytest.mark.parametrize("name", ["capture and recapture", "spike and slab"])
def test_the_localized_model_has_the_tempered_marginal_likelihood(name):
    """Its potential is that of the engine; β inside the sum over states is another number."""
    case = models.CASES[name]
    local = nllc.localize(
        case.model, center=case.center, inverse_temperature=0.3, num_data=case.num_data
    )
    reading = local.read(case.args)
    target, _ = local.target(reading)

    @jax.jit
    def both(z):
        return potential_energy(local, case.args, {}, z), target.potential(z)

    here, there = (np.array(both(moved(reading.center, away))) for away in (0.0, 0.3))
    handlers, engines = there - here
    assert handlers == pytest.approx(engines, rel=1e-4, abs=1e-4)


def test_slope_and_curvature_of_a_batch_are_those_by_hand():
    """What the stochastic kernels take of rows, by differences of the losses in 64 bits."""
    case = models.CASES["mixture"]
    reading = read_model(case.model, case.args, None, center=case.center)
    program, rows = with_batches(reading), np.array([3, 1, 17])
    away = {"means": np.array([0.7, -0.4], np.float32), "weights": np.zeros(1, np.float32)}

    @jax.jit
    def found(z, arrays):
        slope = jax.grad(lambda z: program.row_losses(z, arrays, rows).sum())
        return jax.jvp(slope, (z,), (away,))

    def by_hand(along):
        means = case.center["means"] + along
        return case.oracle({**case.center, "means": means}, *case.args)[rows].sum()

    step, units = 1e-3, np.eye(2)
    slope, product = found(jax.tree.map(np.asarray, reading.center), reading.arrays)
    wanted = [by_hand(step * one) - by_hand(-step * one) for one in units]
    np.testing.assert_allclose(slope["means"], np.array(wanted) / (2 * step), rtol=1e-4)
    corners = [
        [
            sum(
                s * t * by_hand(step * (s * one + t * away["means"]))
                for s in (1, -1)
                for t in (1, -1)
            )
        ]
        for one in units
    ]
    wanted = np.array(corners).ravel() / (4 * step**2)
    np.testing.assert_allclose(product["means"], wanted, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["sgld", "sgnht"])
def test_minibatches_agree(kernel, by_enumeration, llc_of):
    case = models.CASES["mixture"]
    idata = nllc.estimate_llc(
        jax.random.key(2),
        case.model,
        case.args,
        center=FOUND,
        kernel=kernel,
        batch_size=10,
        **SHORT,
    )
    (one, error), (two, other) = llc_of(idata), llc_of(by_enumeration)
    assert abs(one - two) < 4 * np.hypot(error, other)


def test_new_data_compile_nothing():
    case = models.CASES["latent classes"]
    before = measure._cache_size()
    for seed in range(2):
        answers = np.random.default_rng(seed).integers(0, 2, case.args[0].shape).astype(float)
        losses = read_model(case.model, (answers,), None, center=case.center).center_losses
        _close(losses["y"], case.oracle(case.center, answers))
    assert measure._cache_size() <= before + 1


@pytest.mark.slow
def test_find_center_ends_at_the_mode_of_the_marginal_likelihood():
    case = models.CASES["mixture"]
    (y,) = case.args

    def excess(shift):
        moved = {"means": found.params["means"] + shift, "weights": found.params["weights"]}
        return case.oracle(moved, y).sum() - found.loss

    found = nllc.find_center(jax.random.key(1), case.model, case.args, num_starts=2)
    assert found.converged
    _close(found.params["means"], FOUND["means"])
    assert excess(0.0) == pytest.approx(0.0, abs=1e-3)
    assert all(excess(s * np.eye(2)[k]) > 0.0 for k in range(2) for s in (-0.05, 0.05))


def test_the_prior_of_a_mode_is_summed_over_states_too():
    """Spike and slab: -log Σ p(kind) p(slope | kind), of the slope alone."""
    case = models.CASES["spike and slab"]
    program = read_model(case.model, case.args, None, center=case.center).program.with_prior()
    reading = read_model(case.model, case.args, None, center=case.center)
    losses = jax.jit(program.losses)(reading.center, reading.arrays)
    densities = [0.7 * norm.pdf(0.4, 0.0, 0.1), 0.3 * norm.pdf(0.4, 0.0, 2.0)]
    assert float(losses["slope"]) == pytest.approx(-np.log(sum(densities)), rel=1e-5)


def weighted_mixture(x, weights):
    """The model of the zoo's `normal_mixture`, by enumeration."""
    means = numpyro.sample("means", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    with numpyro.plate("rows", x.shape[0]), numpyro.handlers.scale(scale=weights):
        z = numpyro.sample("z", dist.Bernoulli(0.5), infer=models.states())
        numpyro.sample("x", dist.Normal(means[z], 1.0), obs=x)


def weighted_classes(answers, weights):
    """The model of the zoo's `latent_class`, by enumeration."""
    logit = numpyro.sample("logit", dist.Normal(0.0, 3.0))
    odds = numpyro.sample("odds", dist.Normal(0.0, 3.0).expand([2, 3]).to_event(2))
    classes = dist.Categorical(logits=jnp.stack([jnp.zeros_like(logit), logit]))
    with numpyro.plate("rows", answers.shape[0]), numpyro.handlers.scale(scale=weights):
        z = numpyro.sample("z", classes, infer=models.states())
        numpyro.sample("answers", dist.Bernoulli(logits=odds[z]).to_event(1), obs=answers)


SINGULAR = {"normal_mixture": weighted_mixture, "latent_class": weighted_classes}


@pytest.mark.parametrize("name", SINGULAR)
def test_singular_problems_of_the_zoo_have_the_same_losses(name):
    problem = nllc.zoo.load(name, num_data=10_000)
    readings = [
        read_model(model, problem.model_args, None, center=problem.center)
        for model in (problem.model, SINGULAR[name])
    ]

    @jax.jit
    def both(z):
        return [sum(r.program.losses(z, r.arrays).values()) for r in readings]

    for away in (0.0, 0.3):
        one, two = both(moved(readings[0].center, away))
        np.testing.assert_allclose(one, two, rtol=1e-5)


@pytest.fixture(scope="module")
def singular(request):
    """A problem of the zoo, and its run by enumeration."""
    problem = nllc.zoo.load(request.param, num_data=10_000)
    walk = {"kernel": Metropolis(0.15), "num_samples": 20_000, "thinning": 10}
    of_error = {"num_warmup": 1000, "num_samples": 5000}
    idata = nllc.estimate_llc(
        jax.random.key(0),
        SINGULAR[request.param],
        problem.model_args,
        center=problem.center,
        num_data=problem.num_data,
        progress_bar=False,
        log_likelihood=True,
        **(walk if request.param == "normal_mixture" else of_error),
    )
    return problem, idata


EACH = pytest.mark.parametrize(
    "singular",
    ["normal_mixture", pytest.param("latent_class", marks=pytest.mark.slow)],
    indirect=True,
)


@EACH
def test_singular_points_have_their_learning_coefficient(singular, llc_of):
    """A component, or a class, too many: λ̂ is the exact value, and far below d/2."""
    problem, idata = singular
    mean, error = llc_of(idata)
    assert error < 0.02
    half = idata["posterior"].attrs["num_parameters"] / 2
    assert mean + 4 * error < half
    if problem.finite_n is not None:
        assert abs(mean - problem.expectation().mean) < 4 * error
    else:
        known = float(problem.learning_coefficient.value)
        assert abs(mean - known) < 4 * error + 0.1 * known  # the exact value is that of n = ∞


@pytest.mark.parametrize("singular", ["normal_mixture"], indirect=True)
def test_log_likelihood_has_the_plate_of_the_data(singular):
    problem, idata = singular
    (x, counts), log_likelihood = problem.model_args, idata["tempered_log_likelihood"]["x"]
    assert log_likelihood.dims[2:] == ("rows",)
    parts = norm.logpdf(x[:, None], idata["posterior"]["means"].to_numpy()[1, 7])
    _close(log_likelihood.to_numpy()[1, 7], counts * logsumexp(np.log(0.5) + parts, axis=1))


# --- what cannot be summed out, or is no parameter


def _read(model, *args, **kwargs):
    return read_model(model, args, None, **{"center": {"m": 0.5}, **kwargs})


def _with(site, likelihood=lambda m, z: dist.Normal(m + z, 1.0)):
    """A model with one discrete site inside of the plate of its data."""

    def model(y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", y.shape[0]):
            z = numpyro.sample("z", site(), infer=models.states())
            numpyro.sample("y", likelihood(m, z), obs=y)

    return model


Y = np.linspace(-1.0, 2.0, 8)


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (lambda: dist.Poisson(2.0), r"'z' \(Poisson\) has no finite list of states.*Categorical"),
        (lambda: dist.Geometric(0.3), r"'z' \(Geometric"),
        (lambda: dist.NegativeBinomial2(1.0, 2.0), "has no finite list of states"),
        (lambda: dist.Binomial(np.array([3] * 4 + [5] * 4), 0.5), "cannot be listed: Inhomogen"),
    ],
    ids=["poisson", "geometric", "negative binomial", "unequal binomials"],
)
def test_states_without_an_end_are_refused(site, message):
    with pytest.raises(ValueError, match=message):
        _read(_with(site), Y)


def test_a_list_of_states_may_be_set_by_data():
    def model(count, y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", y.shape[0]):
            z = numpyro.sample("z", dist.Binomial(count, 0.5), infer=models.states())
            numpyro.sample("y", dist.Normal(m + z, 1.0), obs=y)

    chances = np.log(np.array([1, 3, 3, 1]) / 8)
    wanted = -logsumexp(chances + norm.logpdf(Y[:, None], 0.5 + np.arange(4)), axis=1)
    for count in (3, jnp.asarray(3)):
        _close(_read(model, count, Y).center_losses["y"], wanted)


def test_events_of_states_are_refused():
    def model(y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        z = numpyro.sample("z", dist.Bernoulli(0.5).expand([8]).to_event(1), infer=models.states())
        numpyro.sample("y", dist.Normal(m + z, 1.0).to_event(1), obs=y)

    with pytest.raises(ValueError, match=r"'z' has event shape \(8,\).*numpyro.plate"):
        _read(model, Y)


def test_states_in_a_batch_without_a_plate_belong_to_their_datum():
    """NumPyro's own enumeration refuses it."""

    def model(y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        z = numpyro.sample("z", dist.Bernoulli(0.5).expand(y.shape), infer=models.states())
        numpyro.sample("y", dist.Normal(m + z, 1.0), obs=y)

    wanted = -logsumexp(np.log(0.5) + norm.logpdf(Y[:, None], [0.5, 1.5]), axis=1)
    _close(_read(model, Y).center_losses["y"], wanted)


def test_a_site_outside_of_the_plate_of_its_state_is_refused():
    def model(y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", y.shape[0]):
            z = numpyro.sample("z", dist.Bernoulli(0.5), infer=models.states())
        numpyro.sample("y", dist.Normal(m + z.sum(), 1.0), obs=y[0])

    with pytest.raises(
        ValueError, match=r"'y' depends on the discrete latent sites \['z'\], but not"
    ):
        _read(model, Y)


def test_a_state_that_is_lost_beside_another_is_refused():
    def model(y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        kind = numpyro.sample("kind", dist.Bernoulli(0.5), infer=models.states())
        with numpyro.plate("data", y.shape[0]):
            z = numpyro.sample("z", dist.Bernoulli(0.5), infer=models.states())
            numpyro.sample("y", dist.Normal(m + z + jnp.max(kind), 1.0), obs=y)

    with pytest.raises(ValueError, match=r"'y' depends on the discrete latent sites \['kind'\]"):
        _read(model, Y)


def _spike_and_slab(mean):
    """Three coefficients that may be zero, each by a state of its own outside of the data."""

    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0.0, 3.0).expand([3]).to_event(1))
        states = [
            numpyro.sample(f"xi{k}", dist.Bernoulli(0.5), infer=models.states()) for k in "012"
        ]
        kept = [jnp.where(xi, w[k], 0.0) for k, xi in enumerate(states)]
        with numpyro.plate("data", len(y)):
            numpyro.sample("y", dist.Normal(mean(x, kept), 1.0), obs=y)

    return model


def _by_columns(x, kept):
    return sum(x[:, k] * w for k, w in enumerate(kept))


def _by_matrix(x, kept):
    kept = jnp.stack(jnp.broadcast_arrays(*kept), axis=-1)
    return jnp.matmul(x, kept[..., None]).squeeze(-1)


SLOPES = {"w": np.array([1.0, 0.1, -0.1])}
COLUMNS = np.random.default_rng(1).normal(size=(8, 3))


def test_states_of_several_coefficients_are_summed_together():
    local = nllc.localize(_spike_and_slab(_by_columns), center=SLOPES, num_data=8)
    subsets = np.array(list(itertools.product((0, 1), repeat=3)))
    means = COLUMNS @ (SLOPES["w"] * subsets).T
    wanted = 3 * np.log(2) - logsumexp(norm.logpdf(Y[:, None], means, 1.0).sum(0))
    _close(local.read((COLUMNS, Y)).center_losses["y"], wanted)


def _column(x, kept):
    return kept[0][..., None] * x[:, 0]


@pytest.mark.parametrize("mean", [_by_matrix, _column])
def test_states_that_the_model_moved_to_other_axes_are_refused(mean):
    """They would be taken for those of another site; NumPyro refuses them as well."""
    local = nllc.localize(_spike_and_slab(mean), center=SLOPES, num_data=8)
    with pytest.raises(ValueError, match="'y' has the states .* on other axes than NumPyro"):
        local.read((COLUMNS, Y))


def _dot(z, w):
    return jnp.dot(w * jnp.ones(8), z)


def _stacked(z, w):
    return w + jnp.concatenate([z[None], jnp.zeros((1, 8))]).sum(0)


@pytest.mark.parametrize("mean", [_dot, _stacked])
def test_a_model_that_fails_with_all_states_at_once_is_told_why(mean):
    def model(y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", y.shape[0]):
            z = numpyro.sample("z", dist.Bernoulli(0.5), infer=models.states())
            numpyro.sample("y", dist.Normal(mean(z, m), 1.0), obs=y)

    with pytest.raises(ValueError, match=r"discrete latent sites \['z'\] have all their states at"):
        _read(model, Y)


def test_states_of_crossed_plates_are_refused():
    def model(y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        rows, columns = (numpyro.plate(k, n, dim=d) for k, n, d in (("r", 3, -2), ("c", 4, -1)))
        with rows:
            one = numpyro.sample("one", dist.Bernoulli(0.5), infer=models.states())
        with columns:
            two = numpyro.sample("two", dist.Bernoulli(0.5), infer=models.states())
        with rows, columns:
            numpyro.sample("y", dist.Normal(m + one * two, 1.0), obs=y)

    with pytest.raises(ValueError, match=r"\['one', 'two'\] are in different plates and meet"):
        _read(model, np.ones((3, 4)))


def test_a_scale_inside_the_sum_is_refused():
    def model(y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", y.shape[0]):
            z = numpyro.sample("z", dist.Bernoulli(0.5), infer=models.states())
            with numpyro.handlers.scale(scale=0.5):
                numpyro.sample("y", dist.Normal(m + z, 1.0), obs=y)

    with pytest.raises(ValueError, match="Put all of them under the same scale"):
        _read(model, Y)


def test_a_state_in_time_that_numpyro_counts_from_zero_is_refused():
    def model(y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))

        def step(last, now):
            z = numpyro.sample("z", dist.DiscreteUniform(1, 3), infer=models.states())
            numpyro.sample("y", dist.Normal(m + z + 0 * last, 1.0), obs=now)
            return z, None

        scan(step, 0, y)

    with pytest.raises(ValueError, match="inside scan must have the states 0, 1"):
        _read(model, Y)


def test_continuous_latents_of_each_datum_stay_refused():
    def model(y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", y.shape[0]):
            z = numpyro.sample("z", dist.Bernoulli(0.5), infer=models.states())
            u = numpyro.sample("u", dist.Normal(z, 1.0))
            numpyro.sample("y", dist.Normal(m + u + z, 1.0), obs=y)

    local = nllc.localize(model, center={"m": 0.5, "u": np.zeros(8)})
    with pytest.raises(ValueError, match="'u' has .*: the number of parameters grows with n"):
        local.target(local.read((Y,), None))


def test_a_discrete_site_is_no_part_of_the_center():
    model = _with(lambda: dist.Bernoulli(0.5))
    with pytest.raises(ValueError, match="names 'z', which is discrete and summed out"):
        _read(model, Y, center={"m": 0.5, "z": np.zeros(8)})
    local = nllc.localize(model, center={"m": 0.5}, sites=["m", "z"])
    with pytest.raises(ValueError, match=r"`sites` names \['z'\], discrete and summed out"):
        local.target(local.read((Y,)))


def test_sequential_enumeration_is_refused():
    def model(y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", y.shape[0]):
            z = numpyro.sample("z", dist.Bernoulli(0.5), infer={"enumerate": "sequential"})
            numpyro.sample("y", dist.Normal(m + z, 1.0), obs=y)

    with pytest.raises(ValueError, match="only 'parallel' sums it out"):
        _read(model, Y)


def test_unmarked_sites_are_summed_out_and_said_once():
    def model(y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", y.shape[0]):
            z = numpyro.sample("z", dist.Bernoulli(0.5))
            numpyro.sample("y", dist.Normal(m + z, 1.0), obs=y)

    wanted = -logsumexp(np.log(0.5) + norm.logpdf(Y[:, None], [0.5, 1.5]), axis=1)
    with pytest.warns(nllc.LLCWarning, match=r"\['z'\] are summed out, as by NumPyro's MCMC"):
        _close(_read(model, Y).center_losses["y"], wanted)
    for again in (model, config_enumerate(model), enum(config_enumerate(model), -2)):
        _close(_read(again, Y).center_losses["y"], wanted)


def test_sites_may_share_their_mark():
    """NumPyro writes the axes of each site into it."""
    mark = {"enumerate": "parallel"}

    def model(y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        a = numpyro.sample("a", dist.Bernoulli(0.5), infer=mark)
        with numpyro.plate("data", y.shape[0]):
            b = numpyro.sample("b", dist.Bernoulli(0.5), infer=mark)
            numpyro.sample("y", dist.Normal(m + a + b, 1.0), obs=y)

    parts = [norm.logpdf(Y[:, None], [0.5 + a, 1.5 + a]) for a in range(2)]
    joint = [logsumexp(np.log(0.5) + part, axis=1).sum() for part in parts]
    _close(_read(model, Y).center_losses["y"], -logsumexp(np.log(0.5) + np.array(joint)))


def test_deterministic_sites_of_states_are_not_stored():
    def model(y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        numpyro.deterministic("twice", 2 * m)
        with numpyro.plate("data", y.shape[0]):
            z = numpyro.sample("z", dist.Bernoulli(0.5), infer=models.states())
            numpyro.deterministic("mean", (m + z).sum())
            numpyro.sample("y", dist.Normal(m + z, 1.0), obs=y)

    assert _read(model, Y).deterministic == ("twice",)


def test_impossible_states_leave_slopes_and_steep_ones_stay_exact():
    """From state 1 none leads back, and data are 40 sd apart: products of chances underflow."""

    def model(y):
        m = numpyro.sample("m", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
        moves = jnp.array([[0.7, 0.3], [0.0, 1.0]])

        def step(z, now):
            z = numpyro.sample(
                "z", dist.Categorical(logits=jnp.log(moves)[z]), infer=models.states()
            )
            numpyro.sample("y", dist.Normal(m[z], 0.05), obs=now)
            return z, None

        scan(step, 0, y)

    y, means = np.repeat([1.0, -1.0, 1.0], 2), np.array([-1.0, 1.0])
    reading = _read(model, y, center={"m": means})
    with np.errstate(divide="ignore"):
        moves = np.array([[0.7, 0.3], [0.0, 1.0]])
        wanted = -models.forward(0, moves, norm.logpdf(y[:, None], means, 0.05))
    assert float(reading.center_losses["y"]) == pytest.approx(wanted, rel=1e-5)
    program = reading.program
    slope = jax.jit(jax.grad(lambda z: program.losses(z, reading.arrays)["y"]))(reading.center)
    assert np.all(np.isfinite(slope["m"]))


def test_a_missing_funsor_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpyro.contrib.funsor", None)
    with pytest.raises(ImportError, match="pip install funsor"):
        _read(_with(lambda: dist.Bernoulli(0.5)), Y)


@pytest.mark.slow
def test_the_page_runs():
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "discrete.md").read_text()
    names = {}
    exec(page.split("```python")[1].split("```")[0], names)
    assert "llc" in nllc.summary(names["idata"]).index


def test_data_of_states_weigh_what_their_scale_says_and_one_without_a_scale():
    case, counts = models.CASES["mixture"], np.array([1.0, 3.0, 0.5])
    plain = read_model(case.model, case.args, None, center=case.center).data_weights
    np.testing.assert_array_equal(plain["y"], np.ones(len(case.args[0])))
    args = np.array([0.1, -1.0, 2.0]), counts
    scaled = read_model(weighted_mixture, args, None, center={"means": np.array([1.0, -1.0])})
    np.testing.assert_array_equal(scaled.data_weights["x"], counts)
