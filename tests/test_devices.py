"""Runs over several devices: the draws of one device, and what goes between the devices."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fingerprinted
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import regression
from jax.sharding import AbstractMesh, AxisType, Mesh

import numpyro_llc as nllc
from numpyro_llc.kernels import kernel_of
from numpyro_llc.local import (
    all_rows,
    draw_rows,
    make_anchor,
    noise_product,
    noise_samples,
    potential_gradient,
)
from numpyro_llc.local._shards import chains_on, over_devices
from numpyro_llc.sampling import check_schedule, fingerprint, make_plan
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
    claims = "alone", "both", "gone on", "parallel chains", "messages", "fingerprint", "imported"
    return given(tmp_path_factory.mktemp("runs"), *claims)


def test_draws_do_not_depend_on_the_mesh(found):
    """Of three chains, which its two devices do not divide."""
    assert np.shape(found["both"]) == (3, 20)
    np.testing.assert_allclose(found["both"], found["alone"], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_the_example_of_the_page_runs(tmp_path):
    assert np.shape(given(tmp_path, "example")["example"]) == (3, 20)


def test_a_run_goes_on_on_another_mesh(found):
    np.testing.assert_array_equal(found["gone on"], found["alone"])


def test_parallel_chains_use_the_devices_and_draw_the_same(found):
    np.testing.assert_allclose(found["parallel chains"], found["alone"], rtol=1e-3, atol=1e-3)


def test_a_model_has_the_same_fingerprint_in_another_process(found):
    assert found["fingerprint"] == fingerprint(fingerprinted.model())


def test_what_is_optional_is_not_imported(found):
    """By the package and its command line, in a process that imports little besides."""
    assert {"numpyro_llc.models", "numpyro_llc.cli", "numpyro.infer"} <= set(found["imported"])
    roots = {name.split(".")[0] for name in found["imported"]}
    assert not roots & {"funsor", "sklearn"}


@pytest.fixture(scope="module")
def by_shard():
    """Eight rows in two shards that differ, and all batches of two rows of each."""
    x = np.linspace(1.0, 4.0, 8)[:, None]
    local = nllc.localize(regression.model, center={"w": np.zeros(1)})
    schedule = check_schedule(1, 1, 1, 1, "vectorized", False)
    plan = make_plan(local, (x, np.sin(3 * x[:, 0])), None, kernel_of("sgld", 4), schedule)
    program = plan.target.program
    batching = replace(program.batching, shards=2)
    pairs = list(itertools.product(range(4), repeat=2))
    rows = [(*one, *(4 + k for k in two)) for one in pairs for two in pairs]
    return replace(plan.target, program=replace(program, batching=batching)), jnp.array(rows)


def test_batches_by_shard_are_unbiased_and_their_noise_is_told(by_shard):
    """Over all batches, at a point away from the centre, whose gradient has no control variates."""
    target, batches = by_shard
    batching = replace(target.program.batching, shards=1)
    as_one = replace(target, program=replace(target.program, batching=batching))
    z, one = {"w": jnp.full((1, 1), 0.7)}, {"w": jnp.ones(1)}

    @jax.jit
    def each(target):
        anchor = make_anchor(target)

        def of(rows):
            gradient = potential_gradient(target, z, rows, anchor, False)["w"][0, 0]
            half = noise_samples(target, z, rows)[1]["w"][0, 0]
            at = jax.tree.map(lambda leaf: leaf[0], z)
            products = [
                noise_product(cut, at, one, rows, 4, False)["w"][0] for cut in (target, as_one)
            ]
            return gradient, half, *products

        full = potential_gradient(target, z, None, anchor, False)["w"][0, 0]
        return full, jax.lax.map(of, batches)

    full, (gradients, halves, products, of_all) = jax.tree.map(np.asarray, each(target))
    variance = np.var(gradients)
    assert np.mean(gradients) == pytest.approx(float(full), rel=1e-4)
    assert np.mean(products) == pytest.approx(variance, rel=1e-4)
    assert np.var(halves) == pytest.approx(variance, rel=1e-4)
    assert np.mean(of_all) > 1.2 * variance


def test_each_shard_gives_its_share_of_a_batch_and_of_an_evaluation(by_shard):
    target, _ = by_shard
    rows = np.asarray(draw_rows(jax.random.key(0), target, 400)).reshape(2, 200)
    assert [set(part.tolist()) for part in rows] == [set(range(4)), set(range(4, 8))]
    seen = all_rows(target)
    assert np.ravel(seen.rows).tolist() == list(range(8))
    assert np.all(seen.weights == 1)


def test_rows_chains_and_parameters_stay_where_they_are(found):
    """Each device holds half of each; only one number for each chain is gathered.

    Devices add up gradients of the chains, and what each half of the hidden units says of their
    own rows: never rows of both, nor a parameter that is whole.
    """
    given, gradients, own_rows = found["messages"], 2 * 4 * 5, 250
    assert set(given["rows"]) == {own_rows}
    assert given["held"][0] == {"first": [1, 2, 5, 4], "last": [1, 2, 4]}
    assert given["held"][1] == {"first": [1, 5, 4], "last": [1, 4]}
    sizes = {kind: {n for k, n in given["found"] if k == kind} for kind, _ in given["found"]}
    assert set(sizes) == {"all-reduce", "all-gather"}
    assert max(sizes["all-gather"]) <= 4
    assert max(sizes["all-reduce"] - {own_rows}) <= gradients
    assert given["again"] == 0  # compilations, of other steps and draws


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


@pytest.mark.slow
def test_every_function_that_samples_takes_a_mesh(tmp_path):
    found = given(tmp_path, "tables alone", "tables")
    for name, alone in found["tables alone"].items():
        np.testing.assert_allclose(found["tables"][name], alone, rtol=1e-3, err_msg=name)


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
    "unused": (mesh("model", devices=2), {}, ValueError, r"axes \['model'\], which nothing uses"),
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


def test_chains_that_devices_do_not_divide_are_padded_to_as_many_on_each():
    """Traced alone, for a mesh of devices that are not here: 4 chains on 3 devices are 6."""
    mesh = AbstractMesh((3,), ("chain",), axis_types=(AxisType.Auto,))
    seen = []
    with chains_on(mesh):
        found = jax.eval_shape(
            lambda z: over_devices(lambda own: seen.append(own.shape) or 2 * own, z),
            jnp.ones((4, 2)),
        )
    assert found.shape == (4, 2)
    assert seen == [(2, 2)]
