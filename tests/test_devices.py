"""Runs over several devices: the draws of one device, and what goes between the devices."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import fingerprinted
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
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
from numpyro_llc.local._evaluation import some_rows
from numpyro_llc.local._shards import chains_on, over_devices
from numpyro_llc.models import ShardsOfRows, make_truth
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
    runs = "alone", "both", "uneven rows", "gone on", "parallel chains"
    claims = *runs, "messages", "uneven messages", "fingerprint", "imported"
    return given(tmp_path_factory.mktemp("runs"), *claims)


def test_draws_do_not_depend_on_the_mesh(found):
    """Of three chains, which two devices do not divide, and 500 rows, which three do not."""
    assert np.shape(found["both"]) == (3, 20)
    for name in ("both", "uneven rows"):
        np.testing.assert_allclose(found[name], found["alone"], rtol=1e-3, atol=1e-3)


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


@pytest.fixture(scope="module", params=[8, 7])
def by_shard(request):
    """Eight or seven rows in two shards that differ, and all batches of two rows of each."""
    x = np.linspace(1.0, 4.0, request.param)[:, None]
    local = nllc.localize(regression.model, center={"w": np.zeros(1)})
    schedule = check_schedule(1, 1, 1, 1, "vectorized", False)
    plan = make_plan(local, (x, np.sin(3 * x[:, 0])), None, kernel_of("sgld", 4), schedule)
    program = plan.target.program
    batching = replace(program.batching, shards=2)
    of_one, of_two = ([*itertools.product(range(k), repeat=2)] for k in (4, request.param - 4))
    rows = [(*one, *(4 + k for k in two)) for one in of_one for two in of_two]
    arrays = tuple(batching.places.padded(array, 0) for array in plan.target.arrays)
    target = replace(plan.target, program=replace(program, batching=batching), arrays=arrays)
    return target, jnp.array(rows)


def in_one_shard(target):
    batching = target.program.batching
    arrays = tuple(batching.rows_alone(target.arrays))
    program = replace(target.program, batching=replace(batching, shards=1))
    return replace(target, program=program, arrays=arrays)


def test_batches_by_shard_are_unbiased_and_their_noise_is_told(by_shard):
    """Over all batches, at a point away from the centre, whose gradient has no control variates."""
    target, batches = by_shard
    as_one = in_one_shard(target)
    z, one = {"w": jnp.full((1, 1), 0.7)}, {"w": jnp.ones(1)}

    @jax.jit
    def each(target):
        anchor = make_anchor(target)

        def of(rows):
            gradient = potential_gradient(target, z, rows, anchor, False)["w"][0, 0]
            half = noise_samples(target, z, rows)[1]["w"][0, 0]
            at = jax.tree.map(lambda leaf: leaf[0], z)
            products = [
                noise_product(cut, at, one, rows, 4, False)[0]["w"][0] for cut in (target, as_one)
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
    num_rows = target.num_rows
    rows = np.asarray(draw_rows(jax.random.key(0), target, 400)).reshape(2, 200)
    assert [set(part.tolist()) for part in rows] == [set(range(4)), set(range(4, num_rows))]
    seen = all_rows(target)
    assert np.ravel(seen.rows).tolist() == list(range(8))
    assert np.ravel(seen.weights).tolist() == [1] * num_rows + [0] * (8 - num_rows)


def test_some_rows_of_each_shard_stand_for_all(by_shard, monkeypatch):
    """Of each three, without repetition; over many draws each row counts as once."""
    target, _ = by_shard
    monkeypatch.setattr("numpyro_llc.local._evaluation.NUM_PARTS", 3)
    chosen = [some_rows(target, 6, jax.random.key(k)) for k in range(300)]
    total = np.zeros(8)
    for rows, weights in chosen:
        parts = np.asarray(rows).reshape(3, 2)
        assert all(len(set(part.tolist())) == 3 for part in parts.T)
        np.add.at(total, np.ravel(rows), np.ravel(weights) / len(chosen))
        assert np.sum(weights) == pytest.approx(target.num_rows)
    np.testing.assert_allclose(total[: target.num_rows], 1.0, atol=0.15)
    assert np.all(total[target.num_rows :] == 0)


@pytest.mark.parametrize("truth", ["data", "center"])
def test_the_loss_of_all_rows_does_not_depend_on_shards(by_shard, truth):
    z = {"w": jnp.full(1, 0.7)}

    @jax.jit
    def loss_and_gradients(target):
        return jax.value_and_grad(target.excess_loss)(z), make_anchor(target).gradient

    def found(target):
        if truth == "center":
            there = make_truth(target.program, target.center, target.arrays)
            target = replace(target, truth=there, center_losses={})
        return loss_and_gradients(target)

    wanted = found(in_one_shard(by_shard[0]))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), found(by_shard[0]), wanted)


@pytest.mark.parametrize("shards", [1, 2, 3, 4, 10])
def test_each_row_has_a_place(shards):
    places, rows = ShardsOfRows(10, shards), jnp.arange(10)
    padded = places.padded(rows, 0)
    assert padded.shape == (places.count * places.length,)
    np.testing.assert_array_equal(places.rows_alone(padded, 0), rows)
    counts = places.counts(np, np.arange(padded.size))
    np.testing.assert_array_equal(padded[counts], rows)
    assert np.ptp(counts.reshape(shards, -1).sum(axis=1)) <= 1
    weights = places.weights(jnp.flatnonzero(counts))
    assert np.mean(weights.reshape(-1)) >= 1.0  # rows of a longer part count more
    np.testing.assert_allclose(places.lengths.sum(), 10)


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


def test_rows_that_devices_do_not_divide_stay_where_they_are(found):
    """Gradients of two chains are added up, five numbers each, and no rows are sent."""
    given = found["uneven messages"]
    assert set(given["rows"]) == {167}
    assert max(size for _, size in given["found"]) <= 2 * 5


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


def indexed(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([5]).to_event(1))
    with numpyro.plate("N", 500) as rows:
        numpyro.sample("y", dist.Normal(x[rows] @ w, 1.0), obs=y[rows])


def joint(x, y):
    """Rows that depend on their mean."""
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([5]).to_event(1))
    with numpyro.plate("N", 500):
        numpyro.sample("y", dist.Normal((x - x.mean(axis=0)) @ w, 1.0), obs=y)


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
    "indexed rows": (
        mesh("data", devices=3),
        {"model": indexed},
        ValueError,
        "do not divide the 500 rows .* leave 2 rows .* not indexed by the indices of a plate",
    ),
    "one row": (
        mesh("data", devices=3),
        {"model": joint},
        ValueError,
        "do not divide the 500 rows .* rows cannot be taken out of the model",
    ),
    "unused": (mesh("model", devices=2), {}, ValueError, r"axes \['model'\], which nothing uses"),
}


@pytest.mark.parametrize("case", BAD)
def test_meshes_that_do_not_fit_are_refused(case):
    on, settings, kind, message = BAD[case]
    settings = dict(settings)
    with pytest.raises(kind, match=message):
        nllc.estimate_llc(
            jax.random.key(0),
            settings.pop("model", regression.model),
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
