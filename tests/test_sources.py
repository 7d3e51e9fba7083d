"""Data that stay on disk: rows are read as they are needed, and the draws are those from memory."""

import gc
import os
import re
import shutil
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import regression
import zarr
from compilations import EVENT
from numpyro.infer import MCMC, NUTS

import numpyro_llc as nllc
from numpyro_llc.errors import CheckpointError, DataError
from numpyro_llc.estimate import _estimate
from numpyro_llc.kernels import _ahead, bytes_ahead, kernel_of
from numpyro_llc.local import _evaluation, later_drawn, some_rows
from numpyro_llc.local._slices import cut_rows, sum_over_slices
from numpyro_llc.models import _host_array, _plates, _sources
from numpyro_llc.results import result_of
from numpyro_llc.sampling import check_schedule, make_plan
from numpyro_llc.sampling._clock import Pace
from numpyro_llc.studies import _cells

KEY = jax.random.key(3)
SHORT = {
    "kernel": "sgld",
    "batch_size": 20,
    "num_warmup": 24,
    "num_samples": 30,
    "thinning": 4,
    "num_chains": 2,
}
QUIET = {"center": {"w": regression.OLS}, "progress_bar": False}
DATA = regression.X.astype(np.float32), regression.Y.astype(np.float32)
SIZES = [
    (module, name, getattr(module, name))
    for module, name in (
        (_plates, "SLICE_BYTES"),
        (_ahead, "BLOCK_BYTES"),
        (_evaluation, "HELD_BYTES"),
    )
]
"""What users have."""
ROW_BYTES, MOST, BLOCK = 24, 150, 5
"""Of `DATA`; most rows of a slice, and steps of a block, here."""
pytestmark = pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")


@pytest.fixture(scope="module", autouse=True)
def _small_slices_and_blocks():
    """Small slices and blocks, for all tests here, which share their programs.

    Chunks have the same length on any machine, so that as much is read before a draw.
    """
    with pytest.MonkeyPatch.context() as patch:
        for (module, name, _), value in zip(
            SIZES, (MOST * ROW_BYTES, BLOCK * 20 * ROW_BYTES, 0), strict=True
        ):
            patch.setattr(module, name, value)
        patch.setattr(Pace, "steps", lambda *_: 8)
        yield


class Counted:
    """Rows like those of an HDF5 file: by a slice, or by numbers that increase."""

    def __init__(self, array, fails_after=10**9):
        self.array, self.sizes, self.fails_after = array, [], fails_after
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, rows):
        if len(self.sizes) == self.fails_after:
            raise OSError("the disk is gone")
        assert isinstance(rows, slice) or np.all(np.diff(rows) > 0)
        found = self.array[rows]
        self.sizes.append(len(found))
        return found


def counted(_, *arrays):
    return tuple(map(Counted, arrays))


def memory_maps(folder, *arrays):
    maps = []
    for array in arrays:
        path = Path(folder) / f"{len(list(Path(folder).iterdir()))}.npy"
        np.save(path, array)
        maps.append(np.load(path, mmap_mode="r"))
    return tuple(maps)


def in_zarr(folder, *arrays):
    made = []
    for k, array in enumerate(arrays):
        chunks = (100, *array.shape[1:])
        stored = zarr.create_array(
            Path(folder) / f"{k}.zarr", shape=array.shape, dtype=array.dtype, chunks=chunks
        )
        stored[:] = array
        made.append(stored)
    return tuple(made)


def in_hdf5(folder, *arrays):
    file = h5py.File(Path(folder) / "data.h5", "w")
    return tuple(file.create_dataset(str(k), data=array) for k, array in enumerate(arrays))


def estimate(data, model=regression.model, **settings):
    return nllc.estimate_llc(KEY, model, data, **{**SHORT, **QUIET, **settings})


def llc(idata):
    return idata["posterior"]["llc"].to_numpy()


@pytest.fixture(scope="module")
def from_memory():
    return estimate(DATA, store_sites=["w"])


def same(one, other):
    """Draws that rounding alone sets apart, and the same numbers of the centre."""
    np.testing.assert_allclose(llc(one), llc(other), rtol=2e-3, atol=2e-3)
    attrs, wanted = one["posterior"].attrs, other["posterior"].attrs
    for name in ("center_loss", "center_largest_eigenvalue", "num_data", "step_size"):
        np.testing.assert_allclose(attrs[name], wanted[name], rtol=1e-3, atol=1e-2)


def test_draws_are_those_from_memory_and_another_file_compiles_nothing(from_memory, tmp_path):
    data, compiled = counted(tmp_path, *DATA), []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if event == EVENT else None
    )
    found = estimate(data)
    same(found, from_memory)
    assert all(0 < max(x.sizes) <= MOST for x in data)
    assert np.ptp(llc(found)) > 0.1
    assert "observed_data" not in found
    assert "constant_data" not in found
    compiled.clear()
    other = estimate(memory_maps(tmp_path, DATA[0], DATA[1] + 0.1))
    assert np.abs(llc(other) - llc(found)).max() > 1e-3
    assert compiled == []


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["sgnht", "psgld"])
def test_draws_of_other_kernels_are_those_from_memory(kernel, tmp_path):
    same(estimate(memory_maps(tmp_path, *DATA), kernel=kernel), estimate(DATA, kernel=kernel))


def test_rows_of_any_size_are_read_in_slices_of_some_bytes():
    local = nllc.localize(regression.model, center={"w": regression.OLS})
    data = counted(None, *DATA)
    target, _ = local.target(local.read(data))
    rows = some_rows(target, 400, KEY)
    assert rows.weights.shape[1] <= target.slice_rows == MOST
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_plates, "SLICE_BYTES", 7 * ROW_BYTES)
        patch.setattr("numpyro_llc.models._sources.VALUES_BYTES", 7 * 20)
        fewer = some_rows(target, 400, KEY)
        assert len(_sources.values_at_rows(target.arrays[0], 100)[2]) == 7
    assert fewer.weights.shape[1] <= 7
    assert len(np.unique(fewer.rows)) == fewer.weights.size > 380
    assert float(fewer.weights.sum()) == pytest.approx(500)


@pytest.mark.slow
def test_a_sweep_of_data_partly_on_disk_is_that_from_memory():
    x = Counted(DATA[0])
    local = nllc.localize(regression.model, center={"w": regression.OLS}, truth="center")
    kernel = nllc.SGLD(batch_size=20, step_size=1e-3)  # which takes no substeps
    settings = {**SHORT, "thinning": None, "progress_bar": False, "kernel": kernel}
    del settings["batch_size"]
    one, other = (
        np.asarray(nllc.sweep(KEY, local, data, localization=[1.0, 10.0], **settings)["llc"])
        for data in (DATA, (x, DATA[1]))
    )
    np.testing.assert_allclose(one, other, rtol=2e-3)
    # Each of the two cells has its own batches; they are read by blocks, and none by itself.
    assert 40 < min(x.sizes)
    assert [140 < size <= 2 * BLOCK * 20 for size in x.sizes].count(True) > 50 / BLOCK


def test_losses_of_each_datum_are_those_from_memory(from_memory):
    local = nllc.localize(regression.model, center={"w": regression.OLS})
    one, other = (
        nllc.pointwise.pointwise_losses(from_memory, local, data).of([3, 499, 7])
        for data in (DATA, counted(None, *DATA))
    )
    for here, there in zip(one, other, strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-4, atol=1e-4)


def test_a_read_that_fails_ends_the_run_and_keeps_its_draws():
    y = Counted(DATA[1])
    gone = Counted(DATA[0], fails_after=600)
    wanted = r"`model_args\[0\]` \(Counted\).*OSError: the disk is gone"
    with pytest.raises(DataError, match=wanted) as seen:
        estimate((gone, y), num_samples=8_000)
    assert 0 < llc(seen.value.idata).shape[1] < 2_000
    with pytest.raises(DataError, match=wanted):
        estimate((Counted(DATA[0], fails_after=1), y))


def test_a_read_that_fails_after_sampling_keeps_all_draws(monkeypatch):
    gone, y = counted(None, *DATA)
    whole = estimate((gone, y))

    def begun(*args, **kwargs):
        gone.fails_after = len(gone.sizes)
        return result_of(*args, **kwargs)

    monkeypatch.setattr(_estimate, "result_of", begun)
    with pytest.raises(DataError, match="the disk is gone") as seen:
        estimate((gone, y))
    np.testing.assert_array_equal(llc(seen.value.idata), llc(whole))


def test_a_folder_goes_on_and_knows_its_data(tmp_path):
    settings = {"output": tmp_path / "run"}
    first, again = (estimate(counted(None, *DATA), **settings) for _ in range(2))
    np.testing.assert_array_equal(llc(first), llc(again))
    with pytest.raises(CheckpointError, match="data"):
        estimate(counted(None, DATA[0], DATA[1] + 1.0), **settings)


@pytest.mark.parametrize("store", [memory_maps, in_zarr, in_hdf5])
def test_rows_are_those_of_the_store(store, tmp_path):
    (x,) = store(tmp_path, DATA[0])
    assert _sources.is_source(x)
    host = _host_array.HostArray(x, "`x`")
    for rows in (np.arange(200, 330), np.array([[9, 2], [499, 9]]), np.array([7])):
        np.testing.assert_array_equal(host.rows(rows), DATA[0][rows])


def test_items_of_a_data_set_are_rows_as_the_page_says():
    page = Path(__file__).parents[1] / "docs" / "how-to" / "large-data.md"
    found = {"np": np}
    exec(re.search(r"class Rows:.*?\n\n\n", page.read_text(), re.DOTALL)[0], found)
    dataset = list(zip(*DATA, strict=True))
    for part, wanted in enumerate(DATA):
        x = found["Rows"](dataset, part)
        assert _sources.is_source(x)
        host = _host_array.HostArray(x, "`x`")
        for rows in (np.arange(3, 9), np.array([9, 2, 9])):
            np.testing.assert_array_equal(host.rows(rows), wanted[rows])


def test_a_file_that_is_cut_or_gone_is_said_to_be(tmp_path):
    (whole,) = memory_maps(tmp_path, DATA[0])
    (stored,), (in_file,) = in_zarr(tmp_path, DATA[0]), in_hdf5(tmp_path, DATA[0])
    part, copy = whole[5:][::2], whole.copy()
    hosts = [_host_array.HostArray(x, "`x`") for x in (whole, part, stored, in_file, copy)]
    rows = np.array([9, 2])
    np.testing.assert_array_equal(hosts[1].rows(rows), DATA[0][[23, 9]])
    os.truncate(whole.filename, whole.offset + whole.nbytes - 1)
    shutil.rmtree(tmp_path / "0.zarr")
    in_file.file.close()
    np.testing.assert_array_equal(hosts.pop().rows(rows), DATA[0][rows])
    for host, wanted in zip(hosts, ["10127 bytes.*needs 10128"] * 2 + ["gone", ""], strict=True):
        with pytest.raises(DataError, match=f"Rows of `x`.*{wanted}"):
            host.rows(rows)


def test_what_takes_all_rows_is_refused_by_name(tmp_path):
    data = memory_maps(tmp_path, *DATA)
    local = nllc.localize(regression.model, center={"w": regression.OLS})
    wanted = r"the whole of `model_args\[0\]`, a .* of shape \(500, 5\).*np.asarray"
    with pytest.raises(ValueError, match="'nuts'.*" + wanted):
        nllc.estimate_llc(KEY, local, data)
    with pytest.raises(ValueError, match="under NumPyro.*" + wanted):
        MCMC(NUTS(local), num_warmup=1, num_samples=1).run(KEY, *data)
    with pytest.raises(ValueError, match="find_center.*" + wanted):
        nllc.find_center(KEY, regression.model, data)
    with pytest.raises(ValueError, match="mesh.*" + wanted):
        estimate(data, mesh=jax.make_mesh((1, 1), ("chain", "data")))
    turned = memory_maps(tmp_path, np.ascontiguousarray(DATA[0].T))

    def of_columns(x, y):
        regression.model(x.T, y)

    with pytest.raises(ValueError, match=r"`model_args\[0\]`.*must have the 500 rows"):
        estimate((*turned, DATA[1]), of_columns)


def counts_model(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    with numpyro.plate("N", x.shape[0]):
        numpyro.sample("y", dist.Normal(x * w, 1.0), obs=y)


def test_integers_that_do_not_fit_are_refused(tmp_path):
    if jax.config.jax_enable_x64:
        pytest.skip("64 bits hold them")
    x = np.full(40, 2**40)
    with pytest.raises(DataError, match=r"`model_args\[0\]`.*too large for int32"):
        estimate((*memory_maps(tmp_path, x), DATA[1][:40]), counts_model, center={"w": 0.0})


def test_a_row_that_depends_on_others_is_refused(tmp_path):
    def normalized(x, y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([5]).to_event(1))
        with numpyro.plate("N", x.shape[0]):
            numpyro.sample("y", dist.Normal((x - x.mean(0)) @ w, 1.0), obs=y)

    with pytest.raises(ValueError, match="not those of the full data"):
        estimate(memory_maps(tmp_path, *DATA), normalized)


def test_a_deterministic_site_of_the_data_is_not_stored(tmp_path):
    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([5]).to_event(1))
        numpyro.deterministic("norm", jnp.sum(w**2))
        mean = numpyro.deterministic("mean", x @ w)
        with numpyro.plate("N", x.shape[0]):
            numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    local = nllc.localize(model, center={"w": regression.OLS})
    assert local.read(memory_maps(tmp_path, *DATA)).deterministic == ("norm",)
    assert local.read(DATA).deterministic == ("norm", "mean")


def test_reads_are_kept_no_longer_than_their_source():
    source = _sources.Source.of(Counted(DATA[0]), "x")
    rows, coming = np.arange(4), np.arange(4, 8)
    (found,) = _sources.read_ahead([source.host], rows, coming)
    np.testing.assert_array_equal(found, DATA[0][:4])
    (found,) = _sources.read_ahead([source.host], coming, rows)
    np.testing.assert_array_equal(found, DATA[0][4:8])
    assert len(source.host.array.sizes) == 2
    data = counted(None, *DATA)
    estimate(data)
    held = [weakref.ref(x) for x in (source.host, *data)]
    del source, found, data
    _host_array.reader_of_files().submit(int).result()
    gc.collect()
    assert [x() for x in held] == [None] * 3


LOCAL = nllc.localize(regression.model, center={"w": regression.OLS})
IN_CELLS = {**SHORT, "thinning": None, "progress_bar": False, "localization": [1.0, 2.0]}


def test_workers_are_not_sent_what_lies_in_a_file(tmp_path):
    data = memory_maps(tmp_path, *DATA)
    with pytest.raises(
        ValueError, match=r"`executor` takes the whole of `model_args\[0\]`, a memm"
    ):
        nllc.sweep(KEY, LOCAL, data, executor=ThreadPoolExecutor(1), **IN_CELLS)


def test_cells_side_by_side_read_again_for_later_substeps_alone():
    y, rows = DATA[1], np.array([[0, 1, 2], [10, 11, 12]])
    source = _sources.Source.of(Counted(y), "y")

    def total(rows, substeps):
        def substep(k, total):
            return total + later_drawn(
                k, jnp.zeros(3), lambda k: _sources.fetched([source], rows + k)[0]
            )

        return jax.lax.fori_loop(0, substeps, substep, jnp.zeros(3))

    run, sizes = jax.jit(jax.vmap(total)), source.host.array.sizes
    np.testing.assert_array_equal(run(rows, np.array([1, 1])), np.zeros((2, 3)))
    assert sizes == []
    found = run(rows, np.array([1, 3]))
    np.testing.assert_allclose(found, [np.zeros(3), y[11:14] + y[12:15]], rtol=1e-6)
    assert len(sizes) == 2


def test_a_read_that_fails_ends_a_sweep_with_its_table(monkeypatch):
    def fails(*_, **__):
        raise DataError("the disk is gone")

    monkeypatch.setattr("numpyro_llc.sampling.Run._advance", fails)
    with pytest.raises(DataError, match="the disk is gone") as seen:
        nllc.sweep(KEY, LOCAL, DATA, **IN_CELLS)
    assert seen.value.table.sizes["localization"] == 2


def test_cells_side_by_side_count_what_is_read_ahead():
    schedule = check_schedule(4, 4, 2, 1, "vectorized", False)
    kernel = kernel_of("sgld", 20)
    here, there = (
        make_plan(LOCAL, x, None, kernel, schedule) for x in (DATA, counted(None, *DATA))
    )
    assert bytes_ahead(here.sampler, here.target) == 0
    assert _cells._bytes(there) - _cells._bytes(here) == 3 * BLOCK * 20 * ROW_BYTES


def test_a_read_that_fails_ends_refinements_with_the_rows_before():
    settings = {**SHORT, "progress_bar": False, "sites": {"one": None, "other": None}}
    gone, y = Counted(DATA[0], fails_after=750), Counted(DATA[1])  # of about 500 for each
    with pytest.raises(DataError, match="the disk is gone") as seen:
        nllc.refined_llc(KEY, LOCAL, (gone, y), **settings)
    assert np.isfinite(seen.value.table["llc"]).sum() == 1


def anonymous():
    """Bytes of memory that are no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says what is whose")
def test_memory_does_not_grow_with_the_file(monkeypatch, tmp_path):
    for size in SIZES:
        monkeypatch.setattr(*size)

    def highest(rows):
        x = np.lib.format.open_memmap(
            tmp_path / f"{rows}.npy", mode="w+", dtype=np.float32, shape=(rows, 200)
        )
        rng = np.random.default_rng(0)
        for first in range(0, rows, 10_000):
            x[first : first + 10_000] = rng.normal(size=(10_000, 200))
        seen, is_over = [], threading.Event()

        def watch():
            while not is_over.wait(0.01):
                seen.append(anonymous())

        def model(x):
            w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([200]).to_event(1))
            with numpyro.plate("N", x.shape[0]):
                numpyro.sample("x", dist.Normal(w, 1.0).to_event(1), obs=x)

        thread, before = threading.Thread(target=watch), anonymous()
        thread.start()
        estimate((x,), model, center={"w": np.zeros(200)}, batch_size=256)
        is_over.set()
        thread.join()
        return max(seen) - before, x.nbytes

    highest(20_000)  # what is made once
    small, _ = highest(100_000)
    large, size = highest(500_000)
    assert size == 4e8
    assert large - small < 0.15 * size, (small, large)


@pytest.mark.parametrize(
    ("shards", "most", "shape"), [(1, 4, (3, 4)), (2, 4, (3, 4)), (1, 99, (1, 10))]
)
def test_rows_are_cut_into_slices_of_each_shard(shards, most, shape):
    rows, weights = cut_rows(np, np.arange(10), shards, most)
    assert rows.shape == weights.shape == shape
    assert sorted(rows[weights == 1]) == list(range(10))
    assert set(weights.ravel()) <= {0, 1}
    parts = rows.reshape(len(rows), shards, -1) // (10 // shards)
    np.testing.assert_array_equal(parts, np.arange(shards)[:, None] + np.zeros_like(parts))


def test_a_sum_over_slices_counts_each_row_once():
    squares = jnp.arange(10.0) ** 2

    def terms(rows, weights):
        return weights @ squares[rows], jnp.sum(weights)

    total, count = sum_over_slices(10, 4, lambda rows, upcoming: rows, terms)
    assert (float(total), float(count)) == (285.0, 10.0)
