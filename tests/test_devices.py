"""Runs over several devices: the draws of one device, and what goes between the devices."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import regression
from jax.sharding import Mesh

import numpyro_llc as nllc
from numpyro_llc.sampling._devices import check_shares

HERE = Path(__file__).parent


def given(folder, *claims):
    """What `on_devices.py` gives, by claim."""
    command = [sys.executable, str(HERE / "on_devices.py"), str(folder), *claims]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    claims = "alone", "both", "gone on", "batches", "messages", "parameters"
    return given(tmp_path_factory.mktemp("runs"), *claims)


def test_draws_do_not_depend_on_the_mesh(found):
    """Of three chains, which its two devices do not divide."""
    assert np.shape(found["both"]) == (3, 20)
    np.testing.assert_allclose(found["both"], found["alone"], rtol=1e-3, atol=1e-3)


def test_a_run_goes_on_on_another_mesh(found):
    np.testing.assert_array_equal(found["gone on"], found["alone"])


def test_batches_by_shard_have_the_exact_value(found):
    draws = np.reshape(found["batches"], (4, 20, -1)).mean(axis=-1)
    error = draws.std(ddof=1) / np.sqrt(draws.size)
    assert abs(draws.mean() - regression.exact(regression.OLS, 1.0)) < 4 * error
    assert error < 0.2


def test_rows_and_chains_stay_where_they_are(found):
    """Each device holds half of both; only one number for each chain is gathered."""
    given = found["messages"]
    assert set(given["rows"]) == {250}
    assert set(given["chains"]) == {2}
    kinds = {kind: max(n for k, n in given["found"] if k == kind) for kind, _ in given["found"]}
    assert set(kinds) == {"all-reduce", "all-gather"}
    assert kinds["all-gather"] <= 4
    assert kinds["all-reduce"] <= 4 * 5


def test_parameters_lie_as_those_of_the_centre_and_are_never_gathered(found):
    given = found["parameters"]
    assert given["held"][0] == {"first": [1, 4, 5, 4], "last": [1, 4, 4]}
    assert given["held"][1] == {"first": [1, 5, 4], "last": [1, 4]}
    assert {kind for kind, _ in given["found"]} == {"all-reduce"}


@pytest.mark.slow
def test_kernels_draw_the_same_on_any_mesh(tmp_path):
    meshes = [
        f"sgld {name}" for name in ("over chains", "over rows", "on data that lie on devices")
    ]
    pairs = "nuts alone", "nuts", "sequential", "parallel"
    found = given(tmp_path, "sgld alone", *meshes, *pairs)
    for name in meshes:
        np.testing.assert_allclose(found[name], found["sgld alone"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found["parallel"], found["sequential"], rtol=1e-3, atol=1e-4)
    # The trees of NUTS make rounding large.
    np.testing.assert_allclose(found["nuts"], found["nuts alone"], rtol=0.02, atol=0.02)


def mesh(*axes, devices=1):
    """Of the one device that the tests have, taken often: refused before anything runs."""
    return Mesh(
        np.array(jax.devices()[:1] * devices).reshape((devices, *(1,) * (len(axes) - 1))), axes
    )


BAD = {
    "type": (4, {}, TypeError, r"`mesh` must be a jax.sharding.Mesh.*got int"),
    "no devices": (Mesh(np.array([]), ("chain",)), {}, ValueError, "`mesh` has no devices"),
    "few chains": (mesh("chain", devices=3), {"num_chains": 2}, ValueError, "3 devices along 'ch"),
    "in turn": (
        mesh("chain", devices=2),
        {"chain_method": "sequential"},
        ValueError,
        "`mesh` has an axis 'chain', but chain_method='sequential'",
    ),
    "rows": (mesh("data", devices=3), {}, ValueError, "do not divide the 500 rows .* leave 2 rows"),
    "unused": (mesh("model", devices=2), {}, ValueError, r"axes \['model'\], along which nothing"),
}


@pytest.mark.parametrize("case", BAD)
def test_meshes_that_do_not_fit_are_refused(case):
    on, settings, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        nllc.estimate_llc(
            jax.random.key(0),
            regression.model,
            (regression.X, regression.Y),
            center={"w": regression.OLS},
            mesh=on,
            progress_bar=False,
            **settings,
        )


def test_a_batch_has_as_many_rows_of_each_device():
    with pytest.raises(ValueError, match="multiple of the 4 parts .*got 10"):
        check_shares(10, 4)
    check_shares(12, 4)
    check_shares(None, 4)
