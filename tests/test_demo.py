"""The demo: every number of its table by a second route, which is exact but for its own error.

Given the weights into the hidden units, those out of them are normal. So the loss, tempered and
localized or not, is integrated over the latter in closed form, and over the former by importance
sampling, with a proposal that is fitted in rounds. Neither a chain nor the package takes part.
"""

from math import lgamma, log, pi

import arviz as az
import numpy as np
import pandas as pd
import pytest

import numpyro_llc as nllc
from numpyro_llc.cli import main
from numpyro_llc.demo import MOST_UNITS, best_fit, irises, network, table_text

ROUNDS, POINTS, FREEDOM = 8, 6000, 8
SPECIES, MEASURED = irises()
N = len(SPECIES)
MEANS = np.array([MEASURED[50 * k : 50 * (k + 1)].mean(axis=0) for k in range(3)])
WITHIN = np.sum((MEASURED - SPECIES @ MEANS) ** 2)
LOSS_OF_MEANS = 0.5 * WITHIN + 0.5 * MEASURED.size * log(2 * pi)


def importance(log_density, mean, covariance):
    """Points and log weights: Student's t, fitted in rounds to what it is to stand for."""
    rng, size = np.random.default_rng(0), len(mean)
    norm = lgamma((FREEDOM + size) / 2) - lgamma(FREEDOM / 2) - 0.5 * size * log(FREEDOM * pi)
    for last in range(ROUNDS - 1, -1, -1):
        root = np.linalg.cholesky(covariance)
        stretch = np.sqrt(FREEDOM / rng.chisquare(FREEDOM, POINTS))
        z = rng.standard_normal((POINTS, size)) * stretch[:, None]
        points = mean + z @ root.T
        fall = 0.5 * (FREEDOM + size) * np.log1p(np.sum(z**2, axis=1) / FREEDOM)
        log_weights = log_density(points) + fall - norm + np.log(np.diag(root)).sum()
        power = 1.0
        weights = np.exp(log_weights - log_weights.max())
        while last and weights.sum() ** 2 < np.sum(weights**2) * POINTS / 20:
            power *= 0.7  # too few points carry the weight: a flatter density first
            weights = np.exp(power * (log_weights - log_weights.max()))
        if last:
            share = weights / weights.sum()
            mean = share @ points
            covariance = 1.1 * ((points - mean).T * share) @ (points - mean)
            covariance += 1e-9 * np.eye(size)
    return points, log_weights


def given_the_first_layer(into, out, precision, of_group):
    """Log of the integral over the second layer, and the mean of half the squares there.

    ``exp(-½ Σ_g of_group |mean_g - into_g out|²)`` under ``out ~ N(out*, 1/precision)``.
    """
    root = np.sqrt(of_group)
    values, basis = np.linalg.eigh(of_group / precision * into @ into.swapaxes(1, 2))
    left = 1.0 / (1.0 + np.clip(values, 0.0, None))[:, :, None]
    apart = basis.swapaxes(1, 2) @ (root * (MEANS - into @ out))
    log_integral = 0.5 * 4 * np.log(left).sum(axis=(1, 2)) - 0.5 * np.sum(left * apart**2, (1, 2))
    squares = 0.5 * np.sum((left * apart) ** 2 + 1.0 - left, axis=(1, 2))
    return log_integral, squares


def exact_llc(units, gamma=1.0, turn=0.01):
    """λ̂ at finite n and γ of the demo's model, its error, and its derivative by log γ."""
    center = best_fit(SPECIES, MEASURED, units)
    into, out = center["into"][:, :units], center["out"][:units]
    of_group = N / 3 / log(N)

    def parts(points, gamma):
        """Log density but for a constant, and λ̂, given the first layer."""
        at = into + points.reshape(-1, 3, units)
        log_integral, squares = given_the_first_layer(at, out, gamma, of_group)
        llc = squares - 0.5 * of_group * np.sum((MEANS - into @ out) ** 2)
        return log_integral - 0.5 * gamma * np.sum(points**2, axis=1), llc

    size = 3 * units
    points, log_weights = importance(
        lambda points: parts(points, gamma)[0], np.zeros(size), np.eye(size) / gamma
    )
    here = parts(points, gamma)[0]

    def mean_at(gamma):
        log_density, llc = parts(points, gamma)
        weights = np.exp(log_weights - log_weights.max() + log_density - here)
        weights /= weights.sum()
        mean = weights @ llc
        return mean, np.sqrt(np.sum((weights * (llc - mean)) ** 2))

    more, less = (mean_at(gamma * np.exp(h))[0] for h in (turn, -turn))
    return *mean_at(gamma), (more - less) / (2 * turn)


def exact_evidence(units):
    """Minus the log evidence of the demo's model, all weights standard normal, and its error."""
    size = 3 * units

    def log_density(points):
        at = points.reshape(-1, 3, units)
        prior = -0.5 * np.sum(points**2, axis=1) - 0.5 * size * log(2 * pi)
        return given_the_first_layer(at, np.zeros((units, 4)), 1.0, N / 3)[0] + prior

    # One unit has two modes, of opposite sign: one of them is sampled, and counts twice.
    start, copies = (best_fit(SPECIES, MEASURED, 1)["into"][:, 0], 2) if units == 1 else (0.0, 1)
    spread = 0.1 if units == 1 else 1.0
    _, log_weights = importance(log_density, start + np.zeros(size), spread * np.eye(size))
    weights = np.exp(log_weights - log_weights.max())
    value = LOSS_OF_MEANS - log_weights.max() - np.log(weights.mean()) - log(copies)
    return value, weights.std() / weights.mean() / np.sqrt(POINTS)


def test_the_measurements_are_fishers():
    """The means that Fisher (1936) prints in his table II and III, in centimetres."""
    means = [
        [5.006, 3.428, 1.462, 0.246],
        [5.936, 2.770, 4.260, 1.326],
        [6.588, 2.974, 5.552, 2.026],
    ]
    centred = np.array(means) - np.mean(means, axis=0)
    spread = centred[1] / MEANS[1]
    np.testing.assert_allclose(MEANS * spread, centred, rtol=1e-9, atol=1e-9)
    assert pytest.approx(4 * N) == WITHIN  # in units of the spread within a species
    data = pytest.importorskip("sklearn.datasets").load_iris()["data"]
    np.testing.assert_allclose(MEASURED * spread, data - data.mean(axis=0), atol=1e-9)


@pytest.mark.parametrize("units", [1, 2, 3, 6])
def test_the_centre_is_the_best_fit(units):
    """No better fit of rank k exists: its loss by the singular values alone (Eckart & Young)."""
    center = best_fit(SPECIES, MEASURED, units)
    missing = np.linalg.svd(MEANS)[1][min(units, 3) :]
    loss = LOSS_OF_MEANS + 0.5 * N / 3 * np.sum(missing**2)
    product = center["into"] @ center["out"]
    here = LOSS_OF_MEANS + 0.5 * N / 3 * np.sum((MEANS - product) ** 2)
    assert here == pytest.approx(loss, rel=1e-12)
    assert np.linalg.matrix_rank(product) == min(units, 2)
    used = np.arange(MOST_UNITS) < units
    idata_loss = nllc.localize(network, center=center).read((SPECIES, used, MEASURED), {})
    total = sum(float(np.sum(x)) for x in idata_loss.center_losses.values())
    assert total == pytest.approx(loss, rel=1e-5)


def test_the_exact_values_level_off():
    """The second route by itself: λ̂ nears λ from below, and the evidence hardly moves."""
    llc = {k: exact_llc(k) for k in (1, 2, 3, 6)}
    known = {1: 3.0, 2: 5.0, 3: 5.5, 6: 6.0}
    for k, (value, error, _) in llc.items():
        assert error < 0.03
        assert 0.9 * known[k] < value < known[k]
    above, below = (exact_llc(3, gamma=np.exp(h))[0] for h in (0.3, -0.3))
    assert llc[3][2] == pytest.approx((above - below) / 0.6, abs=0.06)
    near, error, _ = exact_llc(1, gamma=0.01)
    assert near == pytest.approx(3.0, abs=4 * error + 0.01)


@pytest.mark.slow
def test_every_number_of_the_demo_has_its_exact_value(tmp_path, capsys):
    main(["demo", "--no-progress-bar", f"--output={tmp_path}"])
    printed = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "table.csv", index_col=0)
    assert table_text(table) in printed
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert list(table.index) == list(range(1, MOST_UNITS + 1))
    missing = np.linalg.svd(MEANS)[1] ** 2
    for k, row in table.iterrows():
        known = nllc.exact.reduced_rank_regression(3, k, 4, rank=min(k, 2))
        assert row["λ"] == known.value
        assert row["d/2"] == 3.5 * k
        llc, error, slope = exact_llc(k)
        assert row["llc_se"] < 0.15
        assert abs(row["llc"] - llc) < 4 * np.hypot(error, row["llc_se"])
        of_gamma = 4 * np.hypot(2 * error, row["corrected_se"])
        assert abs(row["corrected"] - (llc - slope)) < of_gamma
        loss = LOSS_OF_MEANS + 0.5 * N / 3 * missing[k:].sum()
        assert row["bic"] == pytest.approx(loss + 3.5 * k * log(N), rel=1e-5)
        assert row["local_free_energy"] == pytest.approx(loss + row["llc"] * log(N), rel=1e-5)
        evidence, error = exact_evidence(k)
        assert row["evidence_se"] < 0.5
        assert abs(row["evidence"] - evidence) < 4 * np.hypot(error, row["evidence_se"])
        saved = nllc.summary(az.from_netcdf(str(tmp_path / f"units_{k}.nc"))).loc["llc"]
        assert row["llc"] == pytest.approx(saved["mean"])
        assert row["r_hat"] == pytest.approx(saved["r_hat"])
        assert row["r_hat"] < 1.03
