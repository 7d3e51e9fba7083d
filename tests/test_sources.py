"""Data that stay on disk: rows are read as they are needed, and the draws are those from memory."""

import gc
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
from numpyro_llc.models import _sources

KEY = jax.random.key(3)
SHORT = {
    "kernel": "sgld",
    "batch_size": 20,
    "num_warmup": 24,
    "num_samples": 60,
    "thinning": 4,
    "num_chains": 2,
}
QUIET = {"center": {"w": regression.OLS}, "progress_bar": False}
DATA = regression.X.astype(np.float32), regression.Y.astype(np.float32)
pytestmark = pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")


class Counted:
    """Rows like those of an HDF5 file: by a slice, or by numbers that increase."""

    def __init__(self, array, fails_after=10**9):
        self.array, self.most, self.reads, self.fails_after = array, 0, 0, fails_after
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, rows):
        self.reads += 1
        if self.reads > self.fails_after:
            raise OSError("the disk is gone")
        assert isinstance(rows, slice) or np.all(np.diff(rows) > 0)
        found = self.array[rows]
        self.most = max(self.most, len(found))
        return found


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
    return estimate(DATA)


def same(one, other):
    """Draws that rounding alone sets apart, and the same numbers of the centre."""
    np.testing.assert_allclose(llc(one), llc(other), rtol=2e-3, atol=2e-3)
    attrs, wanted = one["posterior"].attrs, other["posterior"].attrs
    for name in ("center_loss", "center_largest_eigenvalue", "num_data", "step_size"):
        np.testing.assert_allclose(attrs[name], wanted[name], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("store", [memory_maps, in_zarr, in_hdf5])
def test_draws_are_those_from_memory(store, from_memory, tmp_path):
    found = estimate(store(tmp_path, *DATA))
    same(found, from_memory)
    assert np.ptp(llc(found)) > 0.1
    assert "observed_data" not in found
    assert "constant_data" not in found


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["sgnht", "psgld"])
def test_draws_of_other_kernels_are_those_from_memory(kernel, tmp_path):
    same(estimate(memory_maps(tmp_path, *DATA), kernel=kernel), estimate(DATA, kernel=kernel))


def test_no_more_than_a_slice_is_read_at_once(monkeypatch):
    for room in ("models", "local"):
        monkeypatch.setattr(f"numpyro_llc.{room}._slices.SLICE_ROWS", 150)
    monkeypatch.setattr("numpyro_llc.kernels._ahead.BLOCK_BYTES", 20 * 6 * 4 * 5)
    monkeypatch.setattr("numpyro_llc.local._evaluation.HELD_BYTES", 0)
    short = tuple(array[:430] for array in DATA)  # a shape of its own: nothing is compiled yet
    data = tuple(map(Counted, short))
    same(estimate(data), estimate(short))
    assert all(x.most <= 150 for x in data)


def test_another_file_of_the_same_shape_compiles_nothing(tmp_path):
    first = estimate(memory_maps(tmp_path, *DATA))
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if event == EVENT else None
    )
    second = estimate(memory_maps(tmp_path, DATA[0], DATA[1] + 0.1))
    assert compiled == []
    assert np.abs(llc(second) - llc(first)).max() > 1e-3


@pytest.mark.slow
def test_a_sweep_of_data_partly_on_disk_is_that_from_memory(tmp_path):
    (x,) = memory_maps(tmp_path, DATA[0])
    local = nllc.localize(regression.model, center={"w": regression.OLS}, truth="center")
    settings = {**SHORT, "thinning": None, "progress_bar": False}
    one, other = (
        np.asarray(nllc.sweep(KEY, local, data, localization=[1.0, 10.0], **settings)["llc"])
        for data in (DATA, (x, DATA[1]))
    )
    np.testing.assert_allclose(one, other, rtol=2e-3)


def test_losses_of_each_datum_are_those_from_memory(fitted, tmp_path):
    local = nllc.localize(regression.model, center={"w": regression.OLS})
    memory = regression.X, regression.Y
    one, other = (
        nllc.pointwise.pointwise_losses(fitted, local, data).of([3, 499, 7])
        for data in (memory, memory_maps(tmp_path, *memory))
    )
    for here, there in zip(one, other, strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-4, atol=1e-4)


def test_a_read_that_fails_ends_the_run_and_keeps_its_draws():
    reads, y = Counted(DATA[0]), Counted(DATA[1])
    estimate((reads, y))
    gone = Counted(DATA[0], fails_after=reads.reads + 10_000)  # some chunks of draws later
    wanted = r"`model_args\[0\]` \(Counted\).*OSError: the disk is gone"
    with pytest.raises(DataError, match=wanted) as seen:
        estimate((gone, y), num_samples=80_000)
    assert 0 < llc(seen.value.idata).shape[1] < 20_000
    with pytest.raises(DataError, match=wanted):
        estimate((Counted(DATA[0], fails_after=1), y))


def test_a_folder_goes_on_and_knows_its_data(tmp_path):
    (tmp_path / "data").mkdir()
    settings = {"output": tmp_path / "run"}
    first, again = (estimate(memory_maps(tmp_path / "data", *DATA), **settings) for _ in range(2))
    np.testing.assert_array_equal(llc(first), llc(again))
    with pytest.raises(CheckpointError, match="data"):
        estimate(memory_maps(tmp_path / "data", DATA[0], DATA[1] + 1.0), **settings)


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
    host = weakref.ref(source.host)
    assert host().array.reads == 2
    del source, found
    _sources._reader().submit(int).result()
    gc.collect()
    assert host() is None


def anonymous():
    """Bytes of memory that are no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says what is whose")
def test_memory_does_not_grow_with_the_file(tmp_path):
    def highest(rows):
        x = np.lib.format.open_memmap(
            tmp_path / f"{rows}.npy", mode="w+", dtype=np.float32, shape=(rows, 50)
        )
        rng = np.random.default_rng(0)
        for first in range(0, rows, 10_000):
            x[first : first + 10_000] = rng.normal(size=(10_000, 50))
        seen, is_over = [], threading.Event()

        def watch():
            while not is_over.wait(0.01):
                seen.append(anonymous())

        def model(x):
            w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([50]).to_event(1))
            with numpyro.plate("N", x.shape[0]):
                numpyro.sample("x", dist.Normal(w, 1.0).to_event(1), obs=x)

        thread, before = threading.Thread(target=watch), anonymous()
        thread.start()
        estimate((x,), model, center={"w": np.zeros(50)}, batch_size=256)
        is_over.set()
        thread.join()
        return max(seen) - before, x.nbytes

    highest(20_000)  # what is made once
    small, _ = highest(100_000)
    large, size = highest(2_000_000)
    assert size == 4e8
    assert large - small < 0.15 * size, (small, large)


LOCAL = nllc.localize(regression.model, center={"w": regression.OLS})
IN_CELLS = {**SHORT, "thinning": None, "progress_bar": False, "localization": [1.0, 2.0]}


def test_workers_are_not_sent_what_lies_in_a_file(tmp_path):
    data = memory_maps(tmp_path, *DATA)
    with pytest.raises(
        ValueError, match=r"`executor` takes the whole of `model_args\[0\]`, a memm"
    ):
        nllc.sweep(KEY, LOCAL, data, executor=ThreadPoolExecutor(1), **IN_CELLS)


def test_a_read_that_fails_ends_a_sweep_with_its_table():
    gone = Counted(DATA[0], fails_after=60)
    with pytest.raises(DataError, match="the disk is gone") as seen:
        nllc.sweep(KEY, LOCAL, (gone, DATA[1]), **{**IN_CELLS, "num_samples": 80_000})
    assert seen.value.table.sizes["localization"] == 2


def test_a_read_that_fails_ends_refinements_with_the_rows_before():
    sites = {"all": None, "part": {"w": np.arange(5) < 4}}
    settings = {**SHORT, "progress_bar": False, "sites": sites}
    whole = Counted(DATA[0])
    nllc.refined_llc(KEY, LOCAL, (whole, DATA[1]), **settings)
    gone = Counted(DATA[0], fails_after=whole.reads - 10)
    with pytest.raises(DataError, match="the disk is gone") as seen:
        nllc.refined_llc(KEY, LOCAL, (gone, DATA[1]), **settings)
    assert np.isfinite(seen.value.table["llc"]).sum() == 1
