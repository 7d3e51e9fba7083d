"""Batches of a data loader in the place of the data: λ̂ on rows of their own, and its limits."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import regression
from compilations import EVENT

import numpyro_llc as nllc
from numpyro_llc import estimators
from numpyro_llc.errors import DataError
from numpyro_llc.estimators import RESOLVED
from numpyro_llc.models import Loader, fetched, let_go
from numpyro_llc.results import findings, report_of
from numpyro_llc.sampling._clock import Pace

KEY = jax.random.key(3)
X, Y = regression.X.astype(np.float32), regression.Y.astype(np.float32)
NUM_DATA = 2000
"""As if each row of `X` were there four times."""
ROWS = np.random.default_rng(2).permutation(len(X))[:100]
EVALUATION = X[ROWS], Y[ROWS]
GAMMA = 10.0
CENTER = regression.OLS + [0.01, -0.01, 0.02, 0.05, 0.1]
"""Off the minimum, where the gradient at the centre of other rows would show."""
LOCAL = nllc.localize(regression.model, center={"w": CENTER}, localization=GAMMA)
SETTINGS = {"num_warmup": 100, "num_samples": 200, "thinning": 5, "num_chains": 2}
pytestmark = pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")


class Batches:
    """A data loader: random rows, in the same order at each pass."""

    def __init__(self, count=10**9, size=100, shift=0.0):
        self.count, self.size, self.shift, self.passes = count, size, shift, 0

    def __iter__(self):
        self.passes += 1
        rng = np.random.default_rng(self.passes)
        for _ in range(self.count):
            rows = rng.integers(0, len(X), self.size)
            yield [X[rows], Y[rows].astype(float) + self.shift]


def stream(batches=None, **changes):
    given = {"num_data": NUM_DATA, "evaluation": EVALUATION, **changes}
    return nllc.Stream(Batches() if batches is None else batches, **given)


def penalty(idata):
    return idata["sample_stats"]["penalty"].to_numpy()


def estimate(batches=None, model=LOCAL, evaluation=EVALUATION, num_data=NUM_DATA, **settings):
    given = stream(batches, evaluation=evaluation, num_data=num_data)
    return nllc.estimate_llc(KEY, model, given, **{**SETTINGS, "progress_bar": False, **settings})


def llc(idata):
    return idata["posterior"]["llc"].to_numpy()


def moments(*, gradient_of=None):
    """Mean shift and covariance of the Gaussian that is sampled, over all rows or some."""
    beta, n = 1 / np.log(NUM_DATA), NUM_DATA
    covariance = np.linalg.inv(beta * n / len(X) * X.T @ X + GAMMA * np.eye(5))
    x, y = (X, Y) if gradient_of is None else gradient_of
    gradient = n / len(x) * x.T @ (x @ CENTER - y)
    return -covariance @ (beta * gradient), covariance


def terms(shift, covariance, x, y):
    """``nβ E[ℓ_i(w) - ℓ_i(w*)]`` of each row."""
    square = np.einsum("ij,jk,ik->i", x, covariance + np.outer(shift, shift), x)
    return NUM_DATA / np.log(NUM_DATA) * ((x @ CENTER - y) * (x @ shift) + 0.5 * square)


def check_exact(idata):
    """Against the closed form, and not the forms of two mistakes."""
    report, error = report_of(idata), nllc.summary(idata)["mcse_mean"].llc
    found, each = llc(idata).mean(), terms(*moments(), *EVALUATION)
    assert abs(found - each.mean()) < 4 * error
    by_evaluation = terms(*moments(gradient_of=EVALUATION), *EVALUATION)
    for wrong in (by_evaluation, each * len(each) / NUM_DATA):
        assert abs(wrong.mean() - each.mean()) > 8 * error
    spread = each.std() * np.sqrt((1 / len(each)) * (1 - len(each) / NUM_DATA))
    assert 0.5 < report.evaluation_error / spread < 2.0
    return report


@pytest.fixture(scope="module")
def found():
    return estimate(num_samples=20_000, thinning=20, num_warmup=1000)


def test_lambda_hat_is_exact_on_the_evaluation_rows(found):
    report = check_exact(found)
    assert (report.num_data, report.evaluation_rows, report.batch_size) == (NUM_DATA, 100, 100)
    assert (report.kernel, report.control_variates, report.from_stream) == ("sgnht", False, True)
    residuals = EVALUATION[1] - EVALUATION[0] @ CENTER
    loss = NUM_DATA * np.mean(0.5 * residuals**2 + 0.5 * np.log(2 * np.pi))
    assert report.center_loss == pytest.approx(loss, rel=1e-4)
    assert report.inverse_temperature == pytest.approx(1 / np.log(NUM_DATA))


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["sgld", "psgld"])
def test_lambda_hat_of_other_kernels_is_exact(kernel):
    settings = {"num_samples": 100_000, "thinning": 50, "num_warmup": 10_000}
    check_exact(estimate(Batches(size=250), kernel=kernel, **settings))


def test_what_takes_the_loss_of_all_rows_is_not_judged(found):
    assert llc(found).var() > 3 * llc(found).mean()  # no law of the loss of all rows
    assert llc(found).min() < -RESOLVED * report_of(found).evaluation_error
    names = {finding.check for finding in findings(found)}
    assert names.isdisjoint({"gamma_law", "below_center", "center_gradient"})
    assert np.isnan(nllc.error_budget(found).loc["data", "value"])
    assert "lowest_point" not in found
    with pytest.raises(ValueError, match="`wbic` needs the loss at the centre of all the data"):
        nllc.wbic(found)


def test_draws_are_the_same_whenever_python_looks_and_a_loader_compiles_nothing(monkeypatch):
    compiled, found = [], estimate()
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if event == EVENT else None
    )
    monkeypatch.setattr(Pace, "steps", lambda *_: 7)
    np.testing.assert_array_equal(llc(estimate()), llc(found))
    assert np.abs(llc(estimate(Batches(shift=0.2))) - llc(found)).max() > 1e-2
    assert compiled == []


def test_the_next_batches_come_for_other_numbers_and_the_same_for_the_same():
    loader, batches = Loader(stream()), iter(Batches())
    sources, take = loader.sources(), jax.jit(fetched)
    for numbers in (np.arange(300).reshape(3, 100), np.full((3, 100), 9), np.full((1, 100), 9)):
        wanted = list(itertools.islice(batches, len(numbers)))
        for _ in range(2):
            for got, expected in zip(
                take(sources, numbers, numbers), zip(*wanted, strict=True), strict=True
            ):
                np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert loader.count == 7


def test_a_loader_that_ends_begins_again():
    batches = Batches(count=40)
    assert llc(estimate(batches)).shape == (2, 40)
    assert batches.passes > 5
    made = []
    estimate(lambda: made.append(1) or Batches(count=40))
    assert len(made) > 5


class Patient(Batches):
    """A loader that takes its time, but for what a run needs to begin."""

    given, wait = 0, 0.0

    def __iter__(self):
        for batch in super().__iter__():
            time.sleep(self.wait)
            self.given += 1
            yield batch


def test_a_run_that_is_over_leaves_the_loader_alone_and_the_next_goes_on_where_it_ended():
    batches, expected = Patient(), iter(Batches())
    loader = Loader(stream(batches))
    sources, take = loader.sources(), jax.jit(fetched)

    def check(numbers, upcoming, wanted):
        x, _ = take(sources, numbers, upcoming)
        np.testing.assert_allclose(x, [x for x, _ in wanted], rtol=1e-6)

    for turn in range(4):
        batches.wait = 0.0
        first, second, third = (np.full((20, 100), 10 * turn + k) for k in range(3))
        given = [list(itertools.islice(expected, 20)) for _ in range(2)]
        check(first, second, given[0])
        check(second, third, given[1])
        if turn % 2:  # a calibration reads after what was read ahead, and a draw asks again
            ahead = list(itertools.islice(expected, 20))
            check(*(np.full((3, 100), -turn),) * 2, list(itertools.islice(expected, 3)))
            check(second, third, given[1])
            expected = itertools.chain(ahead, expected)
        else:
            let_go(sources)
            check(third, first, list(itertools.islice(expected, 20)))
        batches.wait = 0.02
        let_go(sources)
        count = batches.given
        time.sleep(0.1)
        assert batches.given == count < 70 * (turn + 1) + 20


def test_a_generator_goes_on_in_the_next_run():
    batches, expected = iter(Batches(count=60)), list(Batches(count=60))
    take, numbers = jax.jit(fetched), np.arange(2000).reshape(20, 100)
    for turn in range(2):
        sources = Loader(stream(batches)).sources()
        x, _ = take(sources, numbers, numbers + 1)
        np.testing.assert_allclose(x, [x for x, _ in expected[20 * turn :][:20]], rtol=1e-6)
        let_go(sources)


class Still(Batches):
    """Stands still once told to."""

    def __init__(self):
        super().__init__()
        self.goes, self.stands = threading.Event(), threading.Event()
        self.goes.set()

    def __iter__(self):
        for batch in super().__iter__():
            if not self.goes.is_set():
                self.stands.set()
                self.goes.wait()
            yield batch


def test_a_loader_that_stands_still_holds_up_no_other(monkeypatch):
    monkeypatch.setattr("numpyro_llc.models._loader.PATIENCE", 0.1)
    batches, take = Still(), jax.jit(fetched)
    sources = Loader(stream(batches)).sources()
    numbers, upcoming = (np.full((20, 100), k) for k in range(2))
    take(sources, numbers, upcoming)[0].block_until_ready()
    jax.block_until_ready(take(sources, upcoming, upcoming))
    batches.goes.clear()
    jax.block_until_ready(take(sources, upcoming, numbers + 2))
    batches.stands.wait()
    let_go(sources)
    try:
        assert Loader(stream()).batch_size == 100
        assert np.isfinite(llc(estimate(num_warmup=20, num_samples=10))).all()
    finally:
        batches.goes.set()


class Broken(Batches):
    def __init__(self, batch):
        super().__init__(count=600)
        self.batch = batch

    def __iter__(self):
        yield from super().__iter__()
        yield self.batch()


def no_file():
    raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("batches", "wanted"),
    [
        (lambda: iter(Batches(count=600)), "ended after 600 batches.*cannot be iterated again"),
        (lambda: Broken(lambda: (X[:9], Y[:9])), "Batch 601 .* has 9 rows.*drop_last"),
        (lambda: Broken(lambda: (X[:100, :4], Y[:100])), r"\[\(100, 4\), \(100,\)\].*\(rows, 5\)"),
        (lambda: Broken(lambda: (X[:100], Y[:99])), "has 100, 99 rows, and the first had 100"),
        (lambda: Broken(lambda: {"x": X[:100]}), r"is a dict with the keys \['x'\], whose order"),
        (lambda: Broken(no_file), "failed after 600 batches: OSError: the disk is gone"),
    ],
)
def test_a_loader_that_fails_ends_the_run_and_keeps_its_draws(batches, wanted):
    with pytest.raises(DataError, match=wanted) as seen:
        estimate(batches(), num_samples=5_000)
    assert 0 < llc(seen.value.idata).shape[1] < 200


@pytest.mark.parametrize(
    ("given", "error", "wanted"),
    [
        ({"batches": 3}, TypeError, "`batches` must be an iterable"),
        ({"evaluation": X}, TypeError, r"`evaluation` must be a tuple.*evaluation=\(x, y\)"),
        ({"evaluation": (X, 3.0)}, ValueError, r"one number of rows.*\[0, 500\].*model_kwargs"),
        ({"num_data": 1}, ValueError, "`num_data` must be at least 2"),
        ({"num_data": 99}, ValueError, "`num_data` must be at least the 100 rows of `evaluation`"),
    ],
)
def test_a_stream_checks_what_it_is_given(given, error, wanted):
    with pytest.raises(error, match=wanted):
        stream(**given)


@pytest.mark.parametrize(
    ("batches", "wanted"),
    [
        ([(X[:100], Y[:100])] * 20, "as many as the data have, 2000.*RandomSampler"),
        ([], "holds no batch"),
        (no_file, "failed after 0 batches: OSError: the disk is gone"),
    ],
)
def test_a_loader_is_looked_at_before_the_run(batches, wanted):
    with pytest.raises(DataError, match=wanted):
        estimate(batches)


def test_passes_that_give_each_row_once_are_refused_when_the_first_ends():
    """Their noise cancels: λ̂ of a regression was 9 % too small with passes of 20 batches."""
    wanted = "20 batches of 100 rows, as many as the data have, 2000: each row once"
    with pytest.raises(DataError, match=wanted):
        estimate(Batches(count=20))
    with pytest.raises(DataError, match="19 batches of 100 rows"):
        estimate(Batches(count=19), evaluation=EVALUATION, num_data=1999)
    estimate(Batches(count=19))


def test_what_gamma_takes_is_told_by_the_draws_alone():
    """The derivative of the evaluated rows' loss is not that of the density."""
    found = estimate(num_samples=20_000, evaluation=(X[:50], Y[:50]))
    share = nllc.summary(found)["localization_share"].llc
    assert "virial" not in found["sample_stats"]
    assert share == estimators.localization_share(llc(found), penalty(found)).value


@pytest.mark.parametrize(
    ("batches", "wanted"),
    [
        ([X[:9]], r"shapes \[\(9, 5\)\].*\(rows, 5\), \(rows,\)"),
        ([(Y[:9], X[:9])], r"\[\(9,\), \(9, 5\)\]"),
        ([(X[:9], Y[:9] + 1j)], "complex64.*float32"),
    ],
)
def test_the_first_batch_must_fit(batches, wanted):
    with pytest.raises(ValueError, match=wanted):
        estimate(batches)


def scaled(factor):
    def model(x, y):
        with numpyro.handlers.scale(scale=factor(x)):
            numpyro.sample("y", dist.Normal(x @ coefficients(), 1.0), obs=y)

    return nllc.localize(model, center={"w": CENTER})


def coefficients():
    return numpyro.sample("w", dist.Normal(0.0, 1.0).expand([5]).to_event(1))


@partial(nllc.localize, center={"w": CENTER})
def in_plate_of_all(x, y):
    means = x @ coefficients()
    with numpyro.plate("rows", NUM_DATA, subsample_size=len(x)):
        numpyro.sample("y", dist.Normal(means, 1.0), obs=y)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"kernel": "nuts"}, "`kernel` 'nuts' takes all the data.*'sgnht'"),
        ({"batch_size": 20}, "`batch_size` is 20.*have 100 rows"),
        ({"kernel": nllc.SGLD(control_variates=True)}, "`control_variates` needs the gradient"),
        ({"kernel": nllc.SGLD(in_axes=(0, 0))}, "`in_axes` is not.*model_kwargs"),
        ({"chain_method": "sequential"}, "`chain_method` 'sequential' is not for a stream"),
        ({"mesh": jax.make_mesh((1, 1), ("chain", "data"))}, "`mesh`.*one device"),
        ({"log_likelihood": True}, "`log_likelihood` takes all the data"),
        ({"model": in_plate_of_all}, "stream counts the rows .* without subsample_size"),
    ],
)
def test_settings_that_need_all_rows_are_refused(settings, wanted):
    with pytest.raises(ValueError, match=wanted):
        estimate(**settings)


@pytest.mark.parametrize(
    ("factor", "size", "wanted"),
    [(20.0, 50, "'y' by 20 .*100 rows of 2000"), (40.0, 50, "by 40 .* 50 rows of 2000")],
)
def test_a_model_that_counts_all_rows_itself_is_warned_of(factor, size, wanted):
    with pytest.warns(nllc.LLCWarning, match=wanted):
        estimate(Batches(size=size), scaled(lambda x: factor))
    with pytest.raises(ValueError, match="scaled by its length"):
        estimate(Batches(size=size), scaled(lambda x: NUM_DATA / len(x)))


class Unsized(Batches):
    def __len__(self):
        raise TypeError("object of type 'Unsized' has no len()")


def test_a_loader_may_say_that_it_has_no_length():
    assert np.isfinite(llc(estimate(Unsized()))).all()


def test_what_takes_all_rows_is_refused():
    for door in (nllc.refined_llc, nllc.evidence.temperature_ladder, nllc.evidence.volume_scaling):
        settings = {"sites": {"all": None}} if door is nllc.refined_llc else {}
        with pytest.raises(ValueError, match="takes all the data.*is a stream of batches"):
            door(KEY, LOCAL, stream(), **settings)
    with pytest.raises(ValueError, match="takes all the data"):
        nllc.find_center(KEY, regression.model, stream())
    with pytest.raises(ValueError, match="`executor` takes all the data"):
        nllc.sweep(KEY, LOCAL, stream(), localization=[1.0], executor=ThreadPoolExecutor(1))
    with pytest.raises(TypeError, match="without a tuple around it"):
        nllc.estimate_llc(KEY, LOCAL, (stream(),))


def test_rows_must_be_those_of_the_observations():
    def model(x):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([5]).to_event(1))
        with numpyro.plate("columns", 5):
            numpyro.sample("x", dist.Normal(w, 1.0), obs=x)

    data = (X[:3],)
    with pytest.raises(ValueError, match="`evaluation` has 3 rows.*have 5"):
        estimate([data], nllc.localize(model, center={"w": CENTER}), data)


def test_a_loader_that_fails_in_a_sweep_leaves_its_table():
    with pytest.raises(DataError, match="failed after 600 batches") as seen:
        nllc.sweep(
            *(KEY, LOCAL, stream(Broken(no_file))),
            localization=[GAMMA, 15.0],
            **(SETTINGS | {"num_samples": 400}),
            max_memory=1,
        )
    done = seen.value.table["status"].to_numpy()
    assert done[0] != ""
    assert done[1] == ""


def test_a_gamma_that_was_chosen_is_of_its_number_of_rows(tmp_path):
    model = replace(LOCAL, localization="auto")
    settings = {"output": tmp_path / "run", "num_samples": 100}
    first = estimate(model=model, **settings)
    assert first.attrs["localization"] == estimate(model=model, **settings).attrs["localization"]
    with pytest.raises(nllc.errors.CheckpointError, match="another key, centre or data"):
        nllc.estimate_llc(KEY, model, stream(num_data=4000), **{**SETTINGS, **settings})


def test_batches_may_be_of_one_row():
    found = estimate(Batches(size=1), num_samples=50)
    assert np.isfinite(llc(found)).all()
    assert report_of(found).batch_size == 1


def test_a_folder_goes_on(tmp_path):
    first, again = (estimate(output=tmp_path / "run") for _ in range(2))
    np.testing.assert_array_equal(llc(first), llc(again))


@pytest.mark.slow
def test_a_sweep_and_a_trajectory_take_a_stream():
    settings = {**SETTINGS, "progress_bar": False, "num_warmup": 1000, "num_samples": 10_000}
    table = nllc.sweep(KEY, LOCAL, stream(), localization=[GAMMA, 15.0], **settings)
    centers = [{"w": CENTER}, {"w": regression.OLS}]
    model = replace(LOCAL, center=None)
    walk = nllc.llc_trajectory(KEY, model, centers, stream(), **settings)
    wanted = terms(*moments(), *EVALUATION).mean()
    for one in (table.isel(localization=0), walk.isel(checkpoint=0)):
        assert abs(one["llc"] - wanted) < 4 * one["mcse_mean"]


@pytest.mark.slow
def test_the_truth_at_the_center_is_that_of_the_batch():
    """Whose gradients vanish there, row by row, so that λ̂ is that of the Hessian alone."""
    found = estimate(model=replace(LOCAL, truth="center"), num_warmup=1000, num_samples=20_000)
    _, covariance = moments()
    wanted = terms(np.zeros(5), covariance, *EVALUATION).mean()
    assert abs(llc(found).mean() - wanted) < 4 * nllc.summary(found)["mcse_mean"].llc
