"""``llc_changes``: level and power on normal errors, intervals, and the order of p-values."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import numpyro_llc as nllc


def trajectory(llc, error):
    llc, error = np.asarray(llc, float), np.broadcast_to(error, np.shape(llc)).astype(float)
    columns = {"llc": ("checkpoint", llc), "error": ("checkpoint", error)}
    columns["status"] = "checkpoint", np.where(llc < 5, "doubtful", "ok")
    return xr.Dataset(columns, coords={"step": ("checkpoint", 100 * np.arange(len(llc)))})


ERRORS = np.array([0.1, 0.3, 0.2, 0.1, 0.4, 0.1])


@pytest.mark.parametrize("pairs", ["neighbors", "all"])
def test_without_a_change_one_run_in_twenty_finds_one(pairs):
    rng, runs = np.random.default_rng(0), 400
    wrong = outside = 0
    for _ in range(runs):
        table = nllc.llc_changes(trajectory(5 + ERRORS * rng.normal(size=6), ERRORS), pairs=pairs)
        wrong += (table["p_value"] < 0.05).any()
        outside += ((table["ci95_lb"] > 0) | (table["ci95_ub"] < 0)).any()
    # Šidák's levels are exact for independent changes; those of pairs are correlated.
    low, high = stats.binom.ppf([1e-4, 1 - 1e-4], runs, 0.05)
    for count in (wrong, outside):
        assert count <= high
        assert count >= (low if pairs == "neighbors" else 0.4 * low)
    alone = 1 - 0.95 ** len(table)  # of tests each at its own level, were they independent
    assert high < alone * runs * 0.75


def test_a_change_is_found_where_it_is():
    rng, found, covered = np.random.default_rng(1), [], 0
    truth = np.array([5.0, 5.0, 6.0, 6.0, 6.0, 6.0])
    for _ in range(200):
        table = nllc.llc_changes(trajectory(truth + 0.15 * rng.normal(size=6), 0.15))
        found.append((table["p_value"] < 0.05).to_numpy())
        change = np.diff(truth)
        covered += ((table["ci95_lb"] < change) & (change < table["ci95_ub"])).all()
    power = stats.norm.cdf(1 / (0.15 * 2**0.5) - stats.norm.ppf(1 - 0.5 * (1 - 0.95**0.2)))
    rates = np.mean(found, axis=0)
    assert abs(rates[1] - power) < 4 * np.sqrt(power * (1 - power) / 200) + 0.01
    assert np.delete(rates, 1).max() < 0.05
    assert abs(covered / 200 - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 200)


def test_numbers_of_a_run_by_hand():
    run = trajectory([1.0, 1.5, 1.4], [0.1, 0.2, 0.05])
    table = nllc.llc_changes(run, pairs="all", ci_prob=0.9)
    assert list(table.index) == [(0, 100), (0, 200), (100, 200)]
    np.testing.assert_allclose(table["change"], [0.5, 0.4, -0.1])
    np.testing.assert_allclose(table["error"], np.sqrt([0.05, 0.0125, 0.0425]))
    width = stats.norm.ppf(0.5 + 0.5 * 0.9 ** (1 / 3)) * table["error"]
    np.testing.assert_allclose(table["ci90_ub"] - table["change"], width)
    np.testing.assert_allclose(table["change"] - table["ci90_lb"], width)
    wide = nllc.llc_changes(run, pairs="all", ci_prob=0.9, error_factor=2.0)
    np.testing.assert_allclose(wide["error"], 2 * table["error"])
    np.testing.assert_allclose(wide["ci90_ub"] - wide["change"], 2 * width)
    alone = 2 * stats.norm.sf(np.abs(table["change"] / table["error"]))
    third, first, second = alone[1], alone[0], alone[2]  # from the smallest on
    wanted = [1 - (1 - first) ** 2, 1 - (1 - third) ** 3, second]
    np.testing.assert_allclose(table["p_value"], np.maximum(wanted, [wanted[1], 0, wanted[0]]))


def test_checkpoints_without_an_estimate_are_passed_over():
    table = nllc.llc_changes(trajectory([1.0, np.nan, 9.0], 0.1))
    assert list(table.index) == [(0, 200)]
    assert table.attrs == {"checkpoints": 2, "doubtful": 1}
    assert table["p_value"].item() < 1e-300 or table["p_value"].item() == 0.0
    same = nllc.llc_changes(trajectory([1.0, 1.0, 2.0], 0.0))["p_value"]
    assert list(same) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("table", "settings", "match"),
    [
        (trajectory([1.0], 0.1), {}, "at least two checkpoints"),
        (
            trajectory([1.0, 2.0], 0.1).expand_dims(truth=["data", "center"]),
            {},
            r"one truth, and has \['data', 'center'\].*sel\(truth='center'\)",
        ),
        (xr.Dataset(), {}, r"it lacks \['error', 'llc', 'status'\]"),
        (trajectory([1.0, 2.0], 0.1), {"pairs": "some"}, "`pairs` must be one of"),
        (trajectory([1.0, 2.0], 0.1), {"ci_prob": 95}, "`ci_prob` must be below 1"),
    ],
)
def test_bad_arguments_are_named(table, settings, match):
    with pytest.raises(ValueError, match=match):
        nllc.llc_changes(table, **settings)
