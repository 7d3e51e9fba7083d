"""Files that are whole or refused by name: how they are written, and how they are read."""

import io
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5netcdf
import numpy as np
import xarray as xr

from numpyro_llc.errors import CheckpointError

Arrays = dict[str, np.ndarray]
"""Arrays by name."""
_PART = re.compile(r".*\.[0-9a-f]{32}\.part")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, whose file is then put in the place of `path`.

    A kill leaves the old file or the new, and so does a disk that is full. Two processes never
    write to the same path.

    Raises
    ------
    CheckpointError
        If it cannot be written.
    """
    part = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        why = error.strerror or str(error)
        raise CheckpointError(
            f"`output` {str(path.parent)!r}: {path.name} cannot be written ({why}). What the "
            "folder held before is intact. Free the disk or make it writable, and repeat the same "
            "call: it continues from there."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file; it is on the disk when this returns."""
    with whole_file(path) as part, part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write a file of arrays."""
    packed = io.BytesIO()
    np.savez(packed, **arrays)  # type: ignore[arg-type]
    write_bytes(path, packed.getvalue())


def write_netcdf(path: Path, table: xr.Dataset) -> None:
    """Write a dataset. It is made in memory: on a disk that is full HDF5 ends the process."""
    packed = io.BytesIO()
    with h5netcdf.File(packed, "w") as file:
        table.dump_to_store(xr.backends.H5NetCDFStore(file))
    write_bytes(path, packed.getvalue())


def read_arrays(path: Path) -> Arrays:
    """The arrays of a file, whose checksums are compared.

    Raises
    ------
    CheckpointError
        If it is missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except FileNotFoundError:
        raise CheckpointError(
            f"`output` {str(path.parent)!r} lacks {path.name}, which its other files refer "
            "to. Restore it, or choose another folder."
        ) from None
    except Exception as error:  # NumPy and zipfile raise much, by what is damaged
        raise damaged(path, error) from error


def damaged(path: Path, why: object) -> CheckpointError:
    """The error of a file that cannot be read."""
    return CheckpointError(
        f"`output` {str(path.parent)!r}: {path.name} is damaged ({str(why).rstrip('.')}). Restore "
        "it from a copy, or choose another folder."
    )


def remove_parts(folder: Path) -> None:
    """Remove what processes that were killed have left half written."""
    with suppress(OSError):
        for path in folder.glob("*.part"):
            if _PART.fullmatch(path.name):
                path.unlink(missing_ok=True)
