"""The progress bar: λ̂ so far is that of the draws so far, and costs less than its share."""

import re

import jax
import numpy as np
import pytest
import regression
from metropolis import METROPOLIS

import numpyro_llc as nllc
from numpyro_llc.inference_data import MonteCarlo, monte_carlo_of_llc
from numpyro_llc.sampling import _bar, _run

SEEN = MonteCarlo(2.5, 0.125, 400.0, 1.003)


class Clock:
    """Seconds that a test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def bar_of(clock, capsys, **options):
    made = _bar.Bar(is_shown=True, clock=clock, **options)
    capsys.readouterr()
    return made


@pytest.mark.parametrize("cost", [0.002, 0.03, 0.4, 7.0])
def test_telling_takes_less_than_its_share_of_the_time(capsys, cost):
    """Draws come every tenth of a second, for an hour; the first telling's cost is not known."""
    clock, told = Clock(), []
    bar = bar_of(clock, capsys)

    def estimate():
        told.append(clock.now)
        clock.now += cost
        return SEEN

    while clock.now < 3600.0:
        clock.now += 0.1
        bar.tell(estimate)
    spent = cost * np.arange(1, len(told) + 1)
    assert told[0] == pytest.approx(3.0, abs=0.2)
    assert np.all(spent[1:] <= 0.0101 * np.array(told[1:]))
    assert np.min(np.diff(told)) >= 2.0
    often = min(3600.0 / 2.1, 36.0 / cost)
    assert len(told) > 0.9 * np.floor(often)


def test_at_the_end_it_is_told_again_if_the_share_allows(capsys):
    for now, is_told in ((2.9, False), (100.0, True)):
        clock, told = Clock(), []
        bar = bar_of(clock, capsys)
        clock.now = bar.last = now
        bar.tell(lambda told=told: told.append(1) or SEEN)
        bar.tell(lambda told=told: told.append(2) or SEEN, is_last=True)
        assert told == ([2] if is_told else [])


@pytest.mark.parametrize("options", [{"is_shown": False}, {"is_shown": True, "has_llc": False}])
def test_without_a_bar_or_of_many_cells_nothing_is_computed(options):
    clock = Clock()
    bar = _bar.Bar(clock=clock, **options)
    clock.now = 1e6
    bar.tell(pytest.fail)
    bar.show(SEEN)
    assert not bar.bar.postfix if options["is_shown"] else True


def test_errors_that_are_not_known_are_not_shown(capsys):
    bar = bar_of(Clock(), capsys)
    bar.show(MonteCarlo(2.5, np.nan, np.nan, np.nan))
    assert bar.bar.postfix is None
    bar.show(SEEN)
    assert bar.bar.postfix == "λ̂ 2.5 ± 0.12, R-hat 1.003"


short = pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")


def run(**settings):
    """λ̂ of the regression with short chains."""
    return nllc.estimate_llc(
        jax.random.key(0),
        regression.model,
        (regression.X, regression.Y),
        center={"w": regression.OLS},
        num_warmup=100,
        num_samples=200,
        kernel=METROPOLIS,
        **settings,
    )


@short
def test_what_is_shown_is_the_summary_of_the_draws_so_far(monkeypatch, capsys):
    """Every chunk is told: the last text is of the draws that come back, in λ̂'s own unit."""
    monkeypatch.setattr(_bar, "MOST_SHARE", np.inf)
    monkeypatch.setattr(_bar, "SECONDS_BETWEEN", 0.0)
    shown = []
    monkeypatch.setattr(_run.Bar, "show", lambda self, llc: shown.append(llc))
    idata = run()
    row = nllc.summary(idata).loc["llc"]
    assert len(shown) >= 4  # chunks of at most 64 draws, and the end
    assert shown[-1].mean == pytest.approx(row["mean"], rel=1e-6)
    penalty = idata["sample_stats"]["penalty"].to_numpy()
    error = monte_carlo_of_llc(idata["posterior"]["llc"].to_numpy(), penalty).error
    assert shown[-1].error == pytest.approx(error, rel=1e-6)
    assert error >= row["mcse_mean"]
    assert shown[-1].r_hat == pytest.approx(row["r_hat"], rel=1e-6)
    assert re.fullmatch(r"λ̂ \S+ ± \S+, R-hat \d\.\d{3}", _bar.text_of(shown[-1]))


@short
def test_a_run_that_shows_it_ends_in_the_same_draws(monkeypatch, capsys):
    monkeypatch.setattr(_bar, "MOST_SHARE", np.inf)
    monkeypatch.setattr(_bar, "SECONDS_BETWEEN", 0.0)
    draws = [run(progress_bar=shown)["posterior"]["llc"].to_numpy() for shown in (True, False)]
    np.testing.assert_array_equal(*draws)
    assert "λ̂" in capsys.readouterr().err
