"""``output=``: whose a folder is, who writes to it, and what a damaged or full disk leaves."""

import contextlib
import errno
import json
import os
import re
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import regression
import xarray as xr
from metropolis import METROPOLIS

import numpyro_llc as nllc
from numpyro_llc.sampling import OutputFolder, _lock, _progress, write_arrays
from numpyro_llc.sampling._compiled import forget_compiled
from numpyro_llc.sampling._folder import RunFolder

SHORT = {"kernel": METROPOLIS, "num_warmup": 100, "num_samples": 2000, "progress_bar": False}
DATA = regression.X, regression.Y
LOCAL = nllc.localize(regression.model, center={"w": regression.OLS})
pytestmark = pytest.mark.filterwarnings("ignore::numpyro_llc.LLCWarning")


def run(output=None, **settings):
    return nllc.estimate_llc(jax.random.key(0), LOCAL, DATA, output=output, **{**SHORT, **settings})


def grid(output, **settings):
    chosen = {**SHORT, "localization": [1.0, 2.0], **settings}
    return nllc.sweep(jax.random.key(0), LOCAL, DATA, output=output, **chosen)


def trajectory(output, **settings):
    centers = [{"w": regression.OLS + shift} for shift in (0.0, 0.1)]
    return nllc.llc_trajectory(
        jax.random.key(0), regression.model, centers, DATA, output=output, **{**SHORT, **settings}
    )


def refined(output, **settings):
    sites = {"all": None, "again": ["w"]}
    return nllc.refined_llc(
        jax.random.key(0), LOCAL, DATA, sites=sites, output=output, **{**SHORT, **settings}
    )


def calibrated(output, **settings):
    lengths = {k: v for k, v in {**SHORT, **settings}.items() if k not in ("kernel", "x")}
    return nllc.calibrate(
        jax.random.key(0), "gaussian", kernels="nuts", num_data=100, output=output, **lengths
    )


DOORS = {
    "run": run,
    "sweep": grid,
    "trajectory": trajectory,
    "refinement": refined,
    "calibration": calibrated,
}


@pytest.mark.parametrize("shift", [0.05, 0.0])
def test_the_lowest_point_of_huge_chains_is_that_of_others(shift, tmp_path, monkeypatch):
    """It is held beside the compiled code, and in the folder; at the minimum there is none."""

    def point(output=None):
        center = {"w": regression.OLS + shift}
        local = nllc.localize(regression.model, center=center)
        settings = {**SHORT, "num_warmup": 20, "num_samples": 60, "store_sites": False}
        found = nllc.estimate_llc(jax.random.key(0), local, DATA, output=output, **settings)
        return llc(found), nllc.lowest_point(found)["w"] if shift else "lowest_point" in found

    wanted = point()
    monkeypatch.setattr(_progress, "HUGE", 0)
    forget_compiled()
    for _ in range(2):  # the second time from the folder
        for found, same in zip(point(tmp_path), wanted, strict=True):
            np.testing.assert_array_equal(found, same)
    forget_compiled()
    assert wanted[0].min() < 0 if shift else wanted[1] is False


def test_a_run_that_goes_on_says_so(tmp_path, capsys):
    for steps in (None, 2100):
        run(tmp_path / "run", progress_bar=True)
        said = re.findall(r"holds (\d+) steps of this run", capsys.readouterr().err)
        assert said == ([] if steps is None else [str(steps)])


def llc(idata):
    return idata["posterior"]["llc"].to_numpy()


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("output", "error"),
    [
        ("", ValueError),
        (" ", ValueError),
        ("a\0b", ValueError),
        (3, TypeError),
        (b"x", TypeError),
        (__file__, nllc.CheckpointError),
        (__file__ + "/a/b", nllc.CheckpointError),
    ],
    ids=["empty", "blank", "null", "number", "bytes", "file", "under a file"],
)
def test_what_is_no_folder_is_refused_before_anything_is_traced(door, output, error, monkeypatch):
    monkeypatch.setattr("numpyro_llc.models._elsewhere.read_model", None)
    monkeypatch.setattr("numpyro_llc.local.LocalizedModel.read", None)
    before = set(os.listdir())
    with pytest.raises(error, match="`output` must be"):
        DOORS[door](output)
    assert set(os.listdir()) == before


@pytest.mark.parametrize("door", DOORS)
def test_a_folder_of_other_results_is_refused_by_what_they_are(door, tmp_path):
    other = "sweep" if door == "run" else "run"
    OutputFolder(tmp_path, {}, what=other).close()
    before = files_of(tmp_path)
    with pytest.raises(nllc.CheckpointError, match=f"holds a {other}, not a {door}"):
        DOORS[door](tmp_path)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"what": "run", "format": 4}, "in format 4; this version"),
        ({"format": 3, "model": "x"}, "in format 3; this version"),
        ({"editor.fontSize": 12}, "settings.json that this version of numpyro_llc did not write"),
        ([1, 2], "settings.json that cannot be read"),
    ],
    ids=["older", "oldest", "an editor's", "a list"],
)
def test_a_folder_of_another_format_or_of_others_is_refused(settings, match, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(nllc.CheckpointError, match=match):
        run(tmp_path)


def test_a_folder_of_the_other_precision_is_refused_as_that(tmp_path):
    run(tmp_path / "a", num_samples=20)
    with jax.enable_x64(True), pytest.raises(nllc.CheckpointError, match="another `x64`: False"):
        run(tmp_path / "a", num_samples=20)


def test_files_of_others_in_a_new_folder_stay(tmp_path):
    (tmp_path / "notes.part").write_text("mine")
    (tmp_path / "job.log").write_text("mine")
    run(tmp_path, num_samples=20)
    assert (tmp_path / "notes.part").read_text() == (tmp_path / "job.log").read_text() == "mine"


# The lock.


@pytest.fixture(params=["locks", "none", "useless"])
def locks(request, monkeypatch):
    """A system with locks, one without, and a file system that refuses them."""
    if request.param == "none":
        monkeypatch.setattr(_lock, "fcntl", None)
    if request.param == "useless":

        def refuses(number, how):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(_lock.fcntl, "flock", refuses)
    return request.param


@pytest.mark.parametrize("door", ["run", "sweep", "trajectory", "refinement"])
def test_a_folder_in_use_names_the_process(door, tmp_path):
    with (
        OutputFolder(tmp_path, {}, what=door),
        pytest.raises(
            nllc.CheckpointError, match=f"in use by process {os.getpid()} on {socket.gethostname()}"
        ),
    ):
        DOORS[door](tmp_path)


def test_a_lock_is_let_go_and_leaves_nothing(locks, tmp_path):
    in_use = pytest.raises(nllc.CheckpointError, match=f"in use by process {os.getpid()}")
    with OutputFolder(tmp_path, {}, what="run"), in_use:
        OutputFolder(tmp_path, {}, what="run")
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]
    OutputFolder(tmp_path, {}, what="run").close()


def test_a_lock_ends_with_its_process(locks, tmp_path):
    """The file of a process that was killed is still there."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    holder = {"host": socket.gethostname(), "pid": gone.pid}
    (tmp_path / "lock").write_text(json.dumps(holder))
    OutputFolder(tmp_path, {}, what="run").close()
    (tmp_path / "lock").write_bytes(b"\xff half")
    OutputFolder(tmp_path, {}, what="run").close()


def test_without_locks_a_process_of_this_machine_is_seen(monkeypatch, tmp_path):
    monkeypatch.setattr(_lock, "fcntl", None)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        holder = {"host": socket.gethostname(), "pid": other.pid}
        (tmp_path / "lock").write_text(json.dumps(holder))
        with pytest.raises(nllc.CheckpointError, match=f"in use by process {other.pid}"):
            OutputFolder(tmp_path, {}, what="run")
        (tmp_path / "lock").write_text(json.dumps({**holder, "host": "elsewhere"}))
        OutputFolder(tmp_path, {}, what="run").close()
        other.communicate(b"\n")


OF = {"model": "a"}
ENTRY = {"excess_loss": np.zeros((2, 3))}
STATE = [np.zeros(2)]
FLOATS = np.dtype(float)
FORMS = [((2,), FLOATS)]


@pytest.fixture
def unlocked(monkeypatch):
    """As between two machines whose file system has no locks."""
    monkeypatch.setattr(_lock, "_is_ours", lambda number: True)
    monkeypatch.setattr(_lock, "_is_at", lambda number, path: True)


def test_without_any_lock_the_second_writer_is_stopped(unlocked, tmp_path):
    with RunFolder(tmp_path, OF) as one, RunFolder(tmp_path, OF) as other:
        one.add(ENTRY, 3)
        one.write(STATE, {})
        other.add(ENTRY, 3)
        with pytest.raises(nllc.CheckpointError, match="another process has written"):
            other.write(STATE, {})
        one.add(ENTRY, 3)
        one.write(STATE, {})
        assert sum(entry.steps for entry in other.load(FORMS)[2]) == 6


@pytest.mark.parametrize("place", [0, 1])
def test_draws_of_another_time_are_not_taken(place, tmp_path):
    with RunFolder(tmp_path, OF) as folder:
        for _ in range(2):
            folder.add(ENTRY, 3)
            folder.write(STATE, {})
        folder.add(ENTRY, 3)
        whole = (tmp_path / f"draws-{place}.npz").read_bytes()
        folder.num_files = place  # as another process would write that began elsewhere
        folder.steps = 100
        folder.write(STATE, {})
    with (
        RunFolder(tmp_path, OF) as folder,
        pytest.raises(nllc.CheckpointError, match="Two processes have written"),
    ):
        folder.load(FORMS)
    assert whole != (tmp_path / f"draws-{place}.npz").read_bytes()


def test_a_state_of_other_chains_is_not_taken(tmp_path):
    with RunFolder(tmp_path, OF) as folder:
        folder.write(STATE, {})
    for forms in ([((3,), FLOATS)], [*FORMS, ((1,), FLOATS)], []):
        with (
            RunFolder(tmp_path, OF) as folder,
            pytest.raises(
                nllc.CheckpointError, match="state.npz is damaged .it is of chains of another form"
            ),
        ):
            folder.load(forms)


# Full and read-only disks.


@contextlib.contextmanager
def disk_that_fails(number, after):
    """A disk that takes `after` more files."""
    left, sync = [after], os.fsync

    def fails(file):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(number, os.strerror(number))
        sync(file)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        yield


@pytest.fixture(scope="module")
def whole():
    return run(num_warmup=0)


@pytest.mark.parametrize(
    ("number", "after"), [(errno.ENOSPC, 1), (errno.EROFS, 2), (errno.ENOSPC, 5)]
)
def test_a_run_that_cannot_be_written_gives_its_draws(number, after, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "numpyro_llc.sampling._folder.RunFolder.is_due", property(lambda folder: True)
    )
    with (
        disk_that_fails(number, after),
        pytest.raises(nllc.CheckpointError, match=os.strerror(number)) as caught,
    ):
        run(tmp_path / "a", num_warmup=0)
    draws = llc(caught.value.idata)
    assert 0 < draws.shape[1] < 2000
    np.testing.assert_array_equal(draws, llc(whole)[:, : draws.shape[1]])
    assert caught.value.idata.attrs["ended_by"] == "output"
    assert not list((tmp_path / "a").glob("*.part"))
    again = run(tmp_path / "a", num_warmup=0)  # there is room
    np.testing.assert_array_equal(llc(again), llc(whole))


def test_a_disk_that_is_full_at_the_end_gives_all_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "numpyro_llc.sampling._folder.RunFolder.is_due", property(lambda folder: False)
    )
    with disk_that_fails(errno.ENOSPC, 1), pytest.raises(nllc.CheckpointError) as caught:
        run(tmp_path / "a")
    np.testing.assert_array_equal(llc(caught.value.idata), llc(run()))


@pytest.mark.parametrize("door", ["trajectory", "refinement"])
def test_a_table_that_cannot_be_written_is_given(door, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "numpyro_llc.sampling._folder.RunFolder.is_due", property(lambda folder: False)
    )
    after = 4  # settings.json, and what the first row takes
    whole = DOORS[door](None)
    with (
        disk_that_fails(errno.ENOSPC, after),
        pytest.raises(nllc.CheckpointError, match="No space left") as caught,
    ):
        DOORS[door](tmp_path)
    table = caught.value.table
    assert table["llc"].size >= 1
    np.testing.assert_array_equal(table["llc"][:1], whole["llc"][:1])


def test_a_sweep_that_cannot_be_written_gives_its_cells(tmp_path):
    with (
        disk_that_fails(errno.ENOSPC, 1),
        pytest.raises(nllc.CheckpointError, match="sweep.nc cannot be written") as caught,
    ):
        grid(tmp_path)
    assert np.isfinite(caught.value.table["llc"][0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["settings.json"]


FULL = """
import resource, sys, types
from pathlib import Path
import numpy as np, xarray as xr
path, package = map(Path, sys.argv[1:])
for name, folder in (("numpyro_llc", package), ("numpyro_llc.sampling", package / "sampling")):
    sys.modules[name] = types.ModuleType(name)  # which does not import the rest of the package
    sys.modules[name].__path__ = [str(folder)]
from numpyro_llc.errors import CheckpointError
from numpyro_llc.sampling._files import write_netcdf
table = xr.Dataset({"x": ("a", np.arange(1e5))})
write_netcdf(path, table)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_netcdf(path, table + 1)
except CheckpointError as error:
    print(error)
"""


@pytest.mark.skipif(os.name == "nt", reason="there are no such limits")
def test_a_table_that_is_too_large_for_the_disk_ends_no_process(tmp_path):
    """HDF5, on a disk that is full, does: with a segmentation fault when Python ends."""
    path = tmp_path / "sweep.nc"
    command = [sys.executable, "-c", FULL, str(path), os.path.dirname(nllc.__file__)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "sweep.nc cannot be written (File too large)" in done.stdout
    np.testing.assert_array_equal(xr.load_dataset(path, engine="h5netcdf")["x"], np.arange(1e5))
    assert [one.name for one in tmp_path.iterdir()] == ["sweep.nc"]


def test_a_folder_that_can_only_be_read_is_read(tmp_path, monkeypatch):
    whole = run(tmp_path / "a")
    opened = os.open

    def reads(path, flags, *args, **kwargs):
        if str(path).startswith(str(tmp_path)) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", reads)
    monkeypatch.setattr("numpyro_llc.sampling._run.advance", None)  # nothing is computed
    np.testing.assert_array_equal(llc(run(tmp_path / "a")), llc(whole))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The files of a sweep."""
    folder = tmp_path_factory.mktemp("swept")
    grid(folder, num_samples=20)
    return files_of(folder)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_a_sweep_cut_at_any_byte_is_named(share, swept, tmp_path):
    for name, content in swept.items():
        size = int(share * len(content)) if name == "sweep.nc" else None
        (tmp_path / name).write_bytes(content[:size])
    with pytest.raises(nllc.CheckpointError, match="sweep.nc is damaged"):
        grid(tmp_path, num_samples=20)


def test_parts_that_a_kill_left_are_removed(tmp_path):
    run(tmp_path / "a", num_samples=20)
    left = tmp_path / "a" / f"state.{'0' * 32}.part"
    left.write_bytes(b"half")
    run(tmp_path / "a", num_samples=20)
    assert not left.exists()


def test_two_writers_of_a_file_do_not_meet(tmp_path):
    from numpyro_llc.sampling import whole_file

    with whole_file(tmp_path / "a") as one, whole_file(tmp_path / "a") as other:
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "a").read_text() == "one"
    write_arrays(tmp_path / "b.npz", {"x": np.arange(3)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b.npz"]
