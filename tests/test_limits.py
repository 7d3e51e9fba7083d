"""``until={"seconds": ...}``: a limit of the whole call, and what a run says that it ended."""

import json
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import regression
from metropolis import METROPOLIS

import numpyro_llc as nllc
from numpyro_llc import sampling
from numpyro_llc.inference_data import LEAST_DRAWS
from numpyro_llc.sampling._clock import Clock, Pace, _Compiling

pytestmark = pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")
SGNHT = {"kernel": "sgnht", "batch_size": 50}
WALK = {"kernel": METROPOLIS}


def run(output=None, **settings):
    own = {"center": {"w": regression.OLS}, "progress_bar": False, "num_chains": 4}
    data = regression.X, regression.Y
    return nllc.estimate_llc(
        jax.random.key(0), regression.model, data, output=output, **{**own, **settings}
    )


def llc(idata):
    return idata["posterior"]["llc"].to_numpy()


def found(idata):
    return {one["check"]: one["meaning"] for one in json.loads(idata.attrs["findings"])}


@pytest.fixture
def slow(monkeypatch):
    """Steps that take as long as is said, in seconds of the runs' clock: nobody waits for them."""
    advance, taken = sampling.advance, [0.0]
    clock = SimpleNamespace(perf_counter=lambda: time.perf_counter() + taken[0])
    monkeypatch.setattr("numpyro_llc.sampling._clock.time", clock)

    def set_to(seconds):
        def slowed(*args):
            *_, draws, thinning, _, _ = args
            taken[0] += seconds * draws * thinning
            return advance(*args)

        monkeypatch.setattr(sampling._run, "advance", slowed)
        return taken

    return set_to


@pytest.mark.parametrize(
    ("settings", "step", "seconds"),
    [
        ({**WALK, "num_warmup": 100}, 0.2, 15.0),
        ({**WALK, "num_warmup": 100, "thinning": 100_000}, 0.04, 10.0),
        (SGNHT, 0.2, 15.0),
    ],
    ids=["a long warm-up", "a long way between draws", "a round of the warm-up"],
)
def test_seconds_limit_the_call(settings, step, seconds, slow, tmp_path):
    """Without the limit these take 20 s, 4000 s and 100 s before the first draw."""
    taken = slow(step)
    first = run(tmp_path / "a", until={"seconds": seconds, "relative_error": 1e-6}, **settings)
    assert taken[0] < seconds + 1.0
    assert first.attrs["ended_by"] == "seconds"
    assert f"limit of {seconds:g} seconds, after" in found(first)["step_limit"]
    if "thinning" in settings:
        assert llc(first).shape[1] == 1
        assert "few_draws" in found(first)
    else:
        assert first.attrs["warmup_was_cut"] == 1
        assert f"share of the {seconds:g} seconds" in found(first)["warmup_limit"]
        assert llc(first).shape[1] >= LEAST_DRAWS
    again = run(tmp_path / "a", until={"seconds": seconds, "relative_error": 1e-6}, **settings)
    np.testing.assert_array_equal(llc(again), llc(first))
    for name in ("num_warmup", "thinning", "num_steps", "ended_by", "warmup_was_cut"):
        assert again.attrs[name] == first.attrs[name]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [(WALK, [0, 10, 19]), ({"kernel": "sgnht", "batch_size": 400}, [0, 12, 19])],
)
def test_warmup_steps_that_take_long_are_seldom_looked_at(settings, wanted, slow, monkeypatch):
    """Of a batch of 400 of the 500 rows, looks at all of them are a tenth of the work or less."""
    slow(10.0)
    advance, looks = sampling._run.advance, []

    def noted(*args):
        *_, observes, counts = args
        looks.append(observes and not counts)
        return advance(*args)

    monkeypatch.setattr(sampling._run, "advance", noted)
    run(num_warmup=20, num_samples=2, **settings)
    assert [k for k, is_look in enumerate(looks) if is_look] == wanted


def test_nuts_that_was_cut_adapts_no_more(slow):
    slow(0.2)
    whole = {"num_warmup": 1000, "until": {"seconds": 20.0, "relative_error": 1e-6}}
    cut = run(kernel="nuts", **whole)
    assert 5 < cut.attrs["num_warmup"] < 200
    steps = cut["sample_stats"]["step_size"].to_numpy()
    assert np.ptp(steps, axis=1).max() == 0  # while it adapts, each step has its own
    assert (steps > 0).all()


def test_a_run_within_its_seconds_says_nothing_of_them(slow):
    idata = run(num_warmup=100, until={"seconds": 1000.0, "relative_error": 0.2}, **WALK)
    assert idata.attrs["ended_by"] == "relative_error"
    assert idata.attrs["warmup_was_cut"] == 0
    assert not {"step_limit", "warmup_limit", "few_draws"} & set(found(idata))


@pytest.mark.parametrize("draws", [1, 3, 4, 8, LEAST_DRAWS - 1])
def test_of_few_draws_no_error_is_stated(draws):
    """Of 4 chains of 8 draws ArviZ's ESS is its cap, 32 log10(32) = 48.16, whatever they are."""
    idata = run(num_warmup=100, num_samples=draws, **WALK)
    assert list(found(idata)) == ["few_draws"]
    assert list(nllc.diagnose(idata).index) == ["few_draws"]
    assert f"has {draws} draw(s) (want at least {LEAST_DRAWS})" in found(idata)["few_draws"]
    with pytest.warns(nllc.LLCWarning, match=rf"has {draws} draw\(s\)"):
        table = nllc.summary(idata, var_names=["llc", "w"])
    assert list(table.index) == ["llc", *(f"w[{k}]" for k in range(5))]
    np.testing.assert_allclose(table.loc["llc", "mean"], llc(idata).mean(), rtol=1e-6)
    np.testing.assert_allclose(table.loc["llc", "sd"], llc(idata).std(ddof=1), rtol=1e-6)
    for name in ("mcse_mean", "ess_bulk", "ess_tail", "r_hat"):
        assert table[name].isna().all()
    with pytest.warns(nllc.LLCWarning, match=rf"has {draws} draw\(s\)"):
        rows = nllc.summary(idata, estimators="all")
    assert rows["mcse_mean"].isna().all()
    assert np.isnan(nllc.error_budget(idata).loc["monte_carlo", "value"])


def test_rows_of_few_draws_have_no_error():
    table = nllc.llc_trajectory(
        jax.random.key(0),
        regression.model,
        [{"w": regression.OLS}],
        (regression.X, regression.Y),
        **{**WALK, "num_warmup": 100, "num_samples": 8, "progress_bar": False},
    )
    assert np.isfinite(table["llc"][0])
    assert np.isnan(table["mcse_mean"][0])
    assert np.isnan(table["ess_bulk"][0])
    assert "8 draw(s)" in str(table["findings"].values[0])


def test_a_row_takes_its_time_however_its_chains_run(slow):
    """Not a part of it for each chain."""
    slow(0.004)
    table = nllc.llc_trajectory(
        jax.random.key(0),
        regression.model,
        [{"w": regression.OLS}],
        (regression.X, regression.Y),
        **{**WALK, "num_warmup": 100, "num_samples": 200, "chain_method": "sequential"},
        progress_bar=False,
    )
    assert table["seconds"][0] >= 300 * 0.004


def test_compilation_within_compilation_counts_once(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("numpyro_llc.sampling._clock.time.perf_counter", lambda: now[0])
    compiling = _Compiling()
    for end, length in ((1.0, 0.5), (3.0, 1.0), (4.0, 3.8), (6.0, 1.0)):
        now[0] = end
        compiling.add(length)
    assert compiling.seconds == pytest.approx(4.8)


def test_the_pace_follows_the_clock_and_the_time_that_is_left():
    pace = Pace()
    assert pace.steps(1.0) == 1
    for _ in range(5):
        pace.took(pace.steps(np.inf), 0.001 * pace.steps(np.inf))
    assert pace.steps(np.inf) == 300  # of a millisecond each, for 0.3 s
    assert pace.steps(0.1) == 100
    assert pace.steps(-1.0) == 1
    for seconds, at_once in ((0.1, 16), (0.5, 4), (3.0, 1)):  # a call costs as much as a step
        for _ in range(5):
            pace.took(pace.steps(np.inf), seconds * pace.steps(np.inf))
        assert pace.steps(np.inf) == at_once


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100 %"), (0.99996, "100 %"), (12.34, "1230 %"), (0.0512, "5.12 %")],
)
def test_shares_are_written_without_an_exponent(share, text):
    from numpyro_llc._checks import percent

    assert percent(share) == text


def test_all_draws_below_the_center_are_100_percent():
    center = {"w": regression.OLS + np.array([2.0, 0, 0, 0, 0])}
    idata = run(center=center, num_warmup=100, num_samples=100, **WALK)
    assert "100 % of the draws" in found(idata)["below_center"]
    assert "1e+02" not in idata.attrs["findings"]


def test_a_clock_leaves_out_what_compiled_while_it_ran(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("numpyro_llc.sampling._clock.time.perf_counter", lambda: now[0])
    compiling = _Compiling()
    compiling.seconds = 7.0  # of what ran before
    monkeypatch.setattr("numpyro_llc.sampling._clock._compiling", compiling)
    clock = Clock()
    clock.earlier, clock.earlier_compiling = 20.0, 5.0
    now[0] = 110.0
    compiling.add(4.0)
    assert (clock.seconds, clock.compiling, clock.working) == (30.0, 9.0, 21.0)
