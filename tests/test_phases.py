"""Two minima, one singular and one deeper: where they cross, against exact integrals."""

import dataclasses
import runpy
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from exact_ladders import ladder_of, quantiles
from scipy.integrate import quad
from scipy.optimize import brentq

import numpyro_llc as nllc
from numpyro_llc import evidence, plots
from numpyro_llc.evidence import Phases

EXAMPLES = Path(__file__).parents[1] / "examples"
N, DEPTH, GAMMA = 1_000, 0.01, 10.0
ROWS = 8


def landscape(w):
    """A quartic minimum of height DEPTH at -1, λ = 1/4, and a quadratic one of 0 at 1, λ = 1/2."""
    u = np.clip(0.5 * (w + 1.0), 0.0, 1.0)
    step = u**4 * (35.0 - 84.0 * u + 70.0 * u**2 - 20.0 * u**3)
    return (w + 1.0) ** 4 * (w - 1.0) ** 2 + DEPTH * (1.0 - step)


CENTERS = {"singular": -1.0, "deep": 1.0}
BETAS = np.concatenate([[0.0], np.geomspace(1.0 / N, 1.0, 12)])


BARRIER = 1.0 / 3.0
SIDES = {-1.0: (-6.0, BARRIER), 1.0: (BARRIER, 6.0)}


def exact_ladder(center):
    """Draws around a centre at each rung, by the quantiles of their density under each prior.

    Under the model's prior they are of the centre's side of the barrier.
    """
    level = landscape(center)

    def density(w, beta, half_square):
        return np.exp(-beta * N * (landscape(w) - level) - half_square)

    def draws(half_square, ends):
        return [
            quantiles(lambda w, b=beta: density(w, b, half_square(w)), *ends, seed=k)
            for k, beta in enumerate(BETAS)
        ]

    local = draws(lambda w: 0.5 * GAMMA * (w - center) ** 2, (center - 2.0, center + 2.0))
    w = np.stack([local, draws(lambda w: 0.5 * w**2, SIDES[center])])
    return ladder_of(
        BETAS,
        N * (landscape(w) - level),
        0.5 * GAMMA * (w - center) ** 2,
        prior_potential=0.5 * w**2 + 0.5 * np.log(2 * np.pi),
        center_losses=np.full(ROWS, N * level / ROWS),
        num_data=N,
        localization=GAMMA,
        log_normalizer=0.5 * np.log(GAMMA / (2 * np.pi)),
    )


@pytest.fixture(scope="module")
def ladders():
    return {name: exact_ladder(center) for name, center in CENTERS.items()}


@pytest.fixture(scope="module")
def by_prior(ladders):
    return {prior: evidence.phases(ladders, prior=prior) for prior in ("local", "model")}


def local_free_energy(n, name):
    """Around a centre, under its Gaussian, in nats above the loss at 0."""
    center = CENTERS[name]
    level = landscape(center)

    def density(w):
        return np.exp(-n * (landscape(w) - level) - 0.5 * GAMMA * (w - center) ** 2)

    ends = center - 2.0, center + 2.0
    integral = quad(density, *ends, points=[-1.0, 1.0], limit=500)[0]
    return n * level - np.log(integral * np.sqrt(GAMMA / (2 * np.pi)))


def region_free_energy(n, name):
    """The posterior's own: its prior, on a centre's side of the barrier."""

    def density(w):
        return np.exp(-n * landscape(w) - 0.5 * w**2) / np.sqrt(2 * np.pi)

    return -np.log(quad(density, *SIDES[CENTERS[name]], points=[CENTERS[name]], limit=500)[0])


def exact_crossing(free_energy):
    return brentq(lambda n: free_energy(n, "singular") - free_energy(n, "deep"), 20.0, N)


def slope_at(free_energy, n):
    """Of the difference of the two free energies, in log n."""
    up, down = (
        free_energy(n * factor, "singular") - free_energy(n * factor, "deep")
        for factor in (1.01, 1 / 1.01)
    )
    return (up - down) / (2 * np.log(1.01))


@pytest.mark.parametrize(
    ("prior", "free_energy"), [("local", local_free_energy), ("model", region_free_energy)]
)
def test_the_crossing_is_that_of_the_exact_integrals(by_prior, prior, free_energy):
    found = by_prior[prior]
    (one,) = found.crossings
    wanted = exact_crossing(free_energy)
    assert (one.below, one.above) == ("singular", "deep")
    assert one.num_data == pytest.approx(wanted, rel=0.01)
    slope = slope_at(free_energy, wanted)
    spread = np.hypot(*found["error"].interp(num_data=one.num_data).to_numpy())
    assert one.error == pytest.approx(one.num_data * spread / slope, rel=0.03)
    # Leading terms alone, n DEPTH = (λ - λ') log n, are further off than that.
    leading = brentq(lambda n: n * DEPTH - 0.25 * np.log(n), 3.0, N)
    assert abs(one.num_data / leading - 1) > 0.1
    assert np.isnan(one.data_error)


@pytest.mark.parametrize("name", list(CENTERS))
def test_free_energies_between_the_rungs_are_the_exact_integrals(ladders, by_prior, name):
    found = by_prior["local"].data.sel(phase=name)
    sizes = found["num_data"].to_numpy()
    assert (sizes.size, sizes[0], sizes[-1]) == (200, pytest.approx(1.0), pytest.approx(N))
    np.testing.assert_allclose(np.diff(np.log(sizes)), np.log(N) / 199)
    wanted = np.array([local_free_energy(n, name) for n in sizes])
    # The level is the loss of the first phase.
    np.testing.assert_allclose(found["free_energy"] + sizes * DEPTH, wanted, atol=0.01)
    slope = np.gradient(wanted, np.log(sizes))
    own = found["llc"] + sizes * (DEPTH if name == "singular" else 0.0)
    np.testing.assert_allclose(own[2:-2], slope[2:-2], atol=0.02)
    curve = evidence.free_energy_curve(ladders[name]).isel(inverse_temperature=slice(1, None))
    places = np.log(N * curve["inverse_temperature"])
    np.testing.assert_allclose(found["error"], np.interp(np.log(sizes), places, curve["error"]))


def test_probabilities_add_up_and_change_sides(ladders):
    found = evidence.phases(ladders)
    np.testing.assert_allclose(found["probability"].sum("phase"), 1.0)
    assert float(found["probability"].sel(phase="deep").isel(num_data=-1)) > 0.99
    (one,) = found.crossings
    at = found["probability"].interp(num_data=one.num_data)
    np.testing.assert_allclose(at, 0.5, atol=0.005)
    apart = found["free_energy"].diff("phase").to_numpy()[0]
    np.testing.assert_allclose(found["probability"].sel(phase="deep"), 1 / (1 + np.exp(apart)))
    assert found.attrs["level"] == "singular"


def test_scatter_of_the_losses_is_the_error_from_the_data(ladders, by_prior):
    """With a loss for each of n data the data error is that of a difference of means.

    So it is where a loss has a weight: it is that of as many data.
    """
    noise = np.random.default_rng(0).normal(size=N // 4)
    noise = np.repeat(noise - noise.mean(), 4)
    given, weighted = {}, {}
    for name, ladder in ladders.items():
        total = float(ladder["center_losses"].sum())
        own = np.full(N, total / N) + (0.1 * noise if name == "deep" else 0.0)
        bare = ladder.data.drop_vars(["center_losses", "weight"])
        columns = {"center_losses": own, "weight": np.ones(N)}
        given[name] = bare.assign({k: ("datum", v) for k, v in columns.items()})
        columns = {"center_losses": 4.0 * own[::4], "weight": np.full(N // 4, 4.0)}
        weighted[name] = bare.assign({k: ("datum", v) for k, v in columns.items()})
    (in_groups,) = evidence.phases(weighted).crossings
    (one,) = evidence.phases(given).crossings
    (without,) = by_prior["local"].crossings
    assert one.num_data == pytest.approx(without.num_data, rel=1e-3)
    assert in_groups.data_error == pytest.approx(one.data_error)
    wanted = (
        one.num_data**2
        * 0.1
        * noise.std(ddof=1)
        / np.sqrt(N)
        / slope_at(local_free_energy, one.num_data)
    )
    assert one.data_error == pytest.approx(wanted, rel=0.03)


def test_the_picture_shows_phases_and_their_crossing(by_prior, tmp_path):
    found = by_prior["local"]
    found.data.to_netcdf(tmp_path / "phases.nc", engine="h5netcdf")
    again = Phases(xr.load_dataset(tmp_path / "phases.nc", engine="h5netcdf"))
    (one,) = again.crossings
    assert dataclasses.asdict(one)["below"] == "singular"
    axes = plots.plot_phases(again)
    first, second, line = axes.lines
    np.testing.assert_array_equal(first.get_ydata(), 0.0)
    apart = found["free_energy"].diff("phase").to_numpy()[0]
    np.testing.assert_allclose(second.get_ydata(), apart)
    np.testing.assert_allclose(line.get_xdata(), one.num_data)
    errors = 2 * np.hypot(*found["error"].to_numpy())
    first_band, band = (part.get_paths()[0].vertices for part in axes.collections[:2])
    np.testing.assert_array_equal(first_band[:, 1], 0.0)
    for k, n in enumerate(found["num_data"].to_numpy()):
        heights = band[np.isclose(band[:, 0], n), 1]
        ends = heights.min(), heights.max()
        np.testing.assert_allclose(ends, apart[k] + errors[k] * np.array([-1, 1]))
    (span,) = axes.patches
    ends = span.get_x(), span.get_x() + span.get_width()
    np.testing.assert_allclose(ends, one.num_data + 2 * one.error * np.array([-1, 1]))
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == list(CENTERS)
    assert axes.get_ylabel() == "free energy less that of singular (nats)"
    assert axes.get_xscale() == "log"
    assert f"n* = {one.num_data:.3g}" in axes.texts[0].get_text()
    _, other = plt.subplots()
    assert plots.plot_phases(found, axes=other) is other
    plt.close("all")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ladders: {"deep": ladders["deep"]}, "at least two phases"),
        (
            lambda ladders: {**ladders, "deep": ladders["deep"].assign_attrs(num_data=1)},
            "the same `num_data`; got {'singular': 1000, 'deep': 1}",
        ),
        (
            lambda ladders: {**ladders, "deep": ladders["deep"].isel(datum=slice(3))},
            "must be of the same data",
        ),
        (
            lambda ladders: {k: v.assign_attrs(prior="model") for k, v in ladders.items()},
            "must be of prior='local' or 'both'",
        ),
        (
            lambda ladders: {
                k: v.sel(prior="local").assign_attrs(prior="local") for k, v in ladders.items()
            },
            "`prior='model'` needs draws under that prior",
        ),
        (
            lambda ladders: {k: v.isel(inverse_temperature=[0, -1]) for k, v in ladders.items()},
            "at least two rungs above zero; 'singular' has 1. Give it more `inverse_temperatures`",
        ),
        (
            lambda ladders: {
                "singular": ladders["singular"].isel(inverse_temperature=slice(0, 4)),
                "deep": ladders["deep"].assign_coords(
                    inverse_temperature=ladders["deep"]["inverse_temperature"] * 1e3
                ),
            },
            "no range of n in common",
        ),
    ],
)
def test_what_makes_no_phases_is_said(ladders, change, message):
    prior = "model" if "prior='model'" in message else None
    given = change({name: ladder.data for name, ladder in ladders.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nllc.LLCWarning)
        with pytest.raises(ValueError, match=message):
            evidence.phases(given, prior=prior)


def test_rungs_at_which_gaussian_and_prior_are_apart_are_left_out_and_told(ladders, by_prior):
    """A prior that lies elsewhere at all but the last three rungs of one phase."""
    whole = by_prior["model"]
    spoiled = ladders["deep"].data.copy(deep=True)
    spoiled["prior_potential"][0, :-3] += 60.0
    given = {**ladders, "deep": spoiled}
    n = N * BETAS[-3]
    with pytest.warns(nllc.LLCWarning, match=f"'deep' begins at n = {n:.3g}: below, at 9 rungs"):
        found = evidence.phases(given, prior="model")
    assert float(found["num_data"][0]) == pytest.approx(n)
    for name in ("free_energy", "error"):
        wanted = whole[name].interp(num_data=found["num_data"].to_numpy()[1:-1])
        np.testing.assert_allclose(found[name][:, 1:-1], wanted, atol=0.01)
    spoiled["prior_potential"][0, -2] += 60.0  # a gap: nothing is drawn over it
    with pytest.raises(ValueError, match="at least two rungs above those where .*'deep' has 1"):
        evidence.phases(given, prior="model")


@pytest.mark.slow
def test_phases_example(tmp_path, capsys):
    example = runpy.run_path(str(EXAMPLES / "phases.py"))
    path = tmp_path / "phases.png"
    found = example["main"](["--num-samples=500", "--no-progress-bar", f"--picture={path}"])
    (one,) = found.crossings
    assert abs(one.num_data - exact_crossing(region_free_energy)) < 4 * one.error
    assert "below, deeper, λ = 1/2 above n* = " in capsys.readouterr().out
    assert path.stat().st_size > 10_000
