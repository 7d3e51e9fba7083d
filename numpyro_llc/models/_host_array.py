"""An array on the host or on disk, and reads of its rows."""

import itertools
import mmap
import threading
import weakref
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import jax
import numpy as np

from numpyro_llc.errors import DataError
from numpyro_llc.models._types import PyTree

_READING = threading.Lock()
"""One read at a time: two arrays may be of one file, and not every file takes two readers."""
_numbers = itertools.count()
_hosts: "weakref.WeakValueDictionary[int, HostArray]" = weakref.WeakValueDictionary()


@dataclass(frozen=True)
class Form:
    """What compiled code knows of an array; equal to others of its shape and type.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
        What JAX holds it as.
    name : str
        The argument, as the user types it.
    kind : str
        Its type.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    name: str = field(compare=False)
    kind: str = field(compare=False)


class HostArray:
    """An array on the host or on disk.

    Attributes
    ----------
    array : array-like
        With rows along its first axis.
    form : Form
    number : int
        Its name in compiled code.
    reads : dict
        Reads of one shape each, by the numbers of their rows.
    ahead : Future, optional
        The read that nothing has asked for yet.
    """

    def __init__(self, array: PyTree, name: str) -> None:
        self.array: PyTree = np.asarray(array) if isinstance(array, np.ndarray) else array
        dtype = np.dtype(jax.dtypes.canonicalize_dtype(array.dtype.newbyteorder("=")))
        self.form = Form(tuple(array.shape), dtype, name, type(array).__name__)
        self.number = next(_numbers)
        self.reads: dict[tuple[int, ...], OrderedDict[bytes, Future]] = {}
        self.ahead: Future | None = None
        self.lock = threading.Lock()
        self.map, self.map_end = _mapping(array) if isinstance(array, np.memmap) else (None, 0)
        _hosts[self.number] = self

    @property
    def reader(self) -> ThreadPoolExecutor:
        """The thread that reads it, in the order in which it is asked."""
        return reader_of_files()

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """Some rows, ``[*numbers.shape, ...]``.

        Raises
        ------
        DataError
            If they cannot be read, or hold integers that JAX cannot.
        """
        form = self.form
        try:
            with _READING:
                self._check_file()
                found = self._read(numbers.reshape(-1))
            self._check_integers(found)
        except Exception as error:
            raise DataError(
                f"Rows of {form.name} ({form.kind}) could not be read: "
                f"{type(error).__name__}: {error}"
            ) from error
        return found.astype(form.dtype, copy=False).reshape(*numbers.shape, *form.shape[1:])

    def _check_file(self) -> None:
        """Refuse a file that is gone or was cut, where the read would not say so.

        What a memory map reads past the end of its file ends the process, and Zarr takes chunks
        that are not there for chunks of its fill value.
        """
        if self.map is not None and self.map.size() < self.map_end:
            raise OSError(
                f"its file has {self.map.size()} bytes, and the memory map needs {self.map_end}. "
                "Was it written anew? Load it again"
            )
        root = getattr(getattr(self.array, "store", None), "root", None)  # of Zarr, in a folder
        if isinstance(root, Path) and not (root / self.array.path).exists():
            raise FileNotFoundError(f"{root / self.array.path} is gone")

    def _read(self, numbers: np.ndarray) -> np.ndarray:
        if isinstance(self.array, np.ndarray):
            return np.take(self.array, numbers, axis=0)
        # Files are read in order, and some (HDF5) can be read in no other.
        sorted_rows, places = np.unique(numbers, return_inverse=True)
        first, last = int(sorted_rows[0]), int(sorted_rows[-1]) + 1
        if last - first == sorted_rows.size:
            return np.asarray(self.array[first:last])[places]
        by_rows: PyTree = getattr(self.array, "oindex", self.array)  # of Zarr, and as h5py's own
        return np.asarray(by_rows[sorted_rows])[places]

    def _check_integers(self, found: np.ndarray) -> None:
        dtype = self.form.dtype
        if found.dtype.kind not in "iu" or found.dtype == dtype or not found.size:
            return
        limits = np.iinfo(dtype)
        if found.min() < limits.min or found.max() > limits.max:
            raise OverflowError(
                f"it holds integers too large for {dtype}. Store them as floats, or enable "
                "64 bits (jax.config.update('jax_enable_x64', True))"
            )


@cache
def reader_of_files() -> ThreadPoolExecutor:
    """The one thread that reads ahead what has its place, for one read is made at a time."""
    return ThreadPoolExecutor(1, thread_name_prefix="numpyro_llc-rows")


def host_of(number: int) -> HostArray:
    """The array of a number."""
    return _hosts[number]


def _mapping(array: np.memmap) -> tuple[mmap.mmap | None, int]:
    """The map that an array is in, if it is no copy, and the bytes that its file must have."""
    base: PyTree = array
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap):
        return None, 0
    return base, array.offset - array.offset % mmap.ALLOCATIONGRANULARITY + len(base)
