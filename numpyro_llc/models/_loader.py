"""Batches of a stream as they come: read ahead in one thread, in the order of the loader."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_llc.errors import DataError
from numpyro_llc.models._host_array import HostArray, reader_of_files
from numpyro_llc.models._sources import Source
from numpyro_llc.models._stream import Stream
from numpyro_llc.models._types import PyTree

SHORT_PASS = 10_000
"""Batches of a pass in which noise cancels in directions that chains forget in about as many steps.
Those forget within some 50 that hold the noise, so that at most 1 % of it is corrected twice."""
PATIENCE = 5.0
"""Seconds that the end of a run waits for the batch that is being read."""
_END = object()
_readers: WeakKeyDictionary[object, ThreadPoolExecutor] = WeakKeyDictionary()
_left: WeakKeyDictionary[object, deque[list[np.ndarray]]] = WeakKeyDictionary()


@dataclass
class Loader:
    """Batches of a stream one after the other, in a pass of their own.

    Attributes
    ----------
    stream : Stream
    count : int
        Batches so far.
    """

    stream: Stream
    count: int = 0
    _iterator: Iterator[PyTree] = field(init=False)
    _waiting: deque[list[np.ndarray]] = field(init=False)
    _partial: list[list[np.ndarray]] = field(init=False, default_factory=list)
    _columns: list[np.ndarray] = field(init=False, default_factory=list)
    _is_halted: bool = field(init=False, default=False)
    _failure: Exception | None = field(init=False, default=None)
    _before_pass: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._like = jax.tree.leaves(self.stream.evaluation)
        # By the thread of the loader: an earlier run may still read ahead from it.
        self.reader = _reader_of(self.stream.batches)
        self._waiting = _left_of(self.stream.batches)
        try:
            first = self.reader.submit(self._opened).result()
        except DataError:
            raise
        except Exception as error:
            raise self.failed(error) from error
        self._waiting.appendleft(first)
        self.batch_size = first[0].shape[0] if first and first[0].ndim else 0
        if problem := self._problem(first):
            raise ValueError(problem)
        if isinstance(self.stream.batches, Sized):
            with suppress(TypeError):  # of a PyTorch DataLoader over an iterable data set
                self._check_pass(len(self.stream.batches))

    def sources(self) -> tuple[Source, ...]:
        """What compiled code draws batches from: a source for each array of a batch."""
        columns = [Column(self, place, like) for place, like in enumerate(self._like)]
        return tuple(Source(jnp.asarray(x.number, jnp.int32), x.form, x) for x in columns)

    def taken(self, count: int, place: int) -> np.ndarray:
        """Array `place` of the next `count` batches, joined; the first array is asked for first."""
        if place == 0:
            self._columns, self._partial = [], []
            while len(self._partial) < count:
                if self._is_halted:
                    raise DataError("`batches` are not read further: the run is over.")
                self._partial.append(self._next())
            self._columns = [np.concatenate(parts) for parts in zip(*self._partial, strict=True)]
            self._partial = []
        return self._columns[place]

    def failed(self, error: Exception) -> DataError:
        """The error for one that the loader raised."""
        return DataError(
            f"`batches` failed after {self.count} batches: {type(error).__name__}: {error}"
        )

    def end(self, ahead: Future) -> None:
        """End a read ahead, within a batch; what it read comes next.

        Waits for that batch, but not for a loader that stands still.
        """
        if ahead.cancel():
            return
        self._is_halted = True
        with suppress(TimeoutError):
            self.reader.submit(self._put_back, ahead).result(PATIENCE)

    def _put_back(self, ahead: Future) -> None:
        """After the read ahead, for one thread reads; whole, or what there is of it."""
        batches = self._partial
        if ahead.exception() is None:
            # [..., step, row, ...] of each array, as they were asked for
            rows = [
                np.reshape(x, (-1, self.batch_size, *like.shape[1:]))
                for x, like in zip(ahead.result(), self._like, strict=True)
            ]
            batches = list(map(list, zip(*rows, strict=True)))
        self._waiting.extendleft(reversed(batches))
        self._partial, self._columns, self._is_halted = [], [], False

    def _begun(self) -> Iterator[PyTree]:
        batches: PyTree = self.stream.batches
        return iter(batches if hasattr(batches, "__iter__") else batches())

    def _opened(self) -> list[np.ndarray]:
        """The first batch of a new pass, or of what an earlier run left of a generator."""
        self._iterator = self._begun()
        return self._waiting.popleft() if self._waiting else self._read()

    def _next(self) -> list[np.ndarray]:
        if self._waiting:
            return self._waiting.popleft()
        try:
            if self._failure is not None:  # of a read ahead that nothing asked for
                raise self._failure
            found = self._read()
            if problem := self._problem(found):
                raise DataError(problem)
        except Exception as error:
            self._failure = error
            raise
        return found

    def _read(self) -> list[np.ndarray]:
        batch = next(self._iterator, _END)
        if batch is _END and self.count:
            if not isinstance(self.stream.batches, Iterator):  # which has no other pass
                self._check_pass(self.count - self._before_pass)
            self._iterator, self._before_pass = self._begun(), self.count
            batch = next(self._iterator, _END)
        if batch is _END:
            raise DataError(
                f"`batches` ended after {self.count} batches of this run, and cannot be iterated "
                "again. Give an iterable that can, such as a data loader, or a callable that "
                "returns a fresh iterator; a generator function, say, and not the generator."
                if self.count
                else "`batches` holds no batch, or none any more."
            )
        self.count += 1
        if isinstance(batch, Mapping):
            raise DataError(
                f"Batch {self.count} of `batches` is a {type(batch).__name__} with the keys "
                f"{list(batch)}, whose order is not that of the arguments. Give tuples of arrays, "
                "in the order of `evaluation`."
            )
        return [np.asarray(leaf) for leaf in jax.tree.leaves(batch)]

    def _check_pass(self, length: int) -> None:
        """Refuse short passes of batches that give each row once, as of a loader that shuffles.

        The noise of their gradients cancels within a pass. What is corrected for is that of
        independent batches, so that λ̂ would be too small.
        """
        missing = self.stream.num_data - length * self.batch_size
        if length < SHORT_PASS and 0 <= missing < self.batch_size:
            raise DataError(
                f"A pass of `batches` is {length} batches of {self.batch_size} rows, as many as "
                f"the data have, {self.stream.num_data}: each row once, as of a loader that "
                "shuffles. Batches must be independent draws, or a "
                f"pass of at least {SHORT_PASS}: within a pass the noise of gradients cancels, and "
                "λ̂ would be too small. Draw rows with replacement, without end; in PyTorch by "
                "sampler=RandomSampler(data, replacement=True, num_samples=10**9) in the place of "
                "shuffle=True. Or pass the data as arrays, with `batch_size`."
            )

    def _problem(self, batch: list[np.ndarray]) -> str | None:
        """Why a batch does not fit; None if it does."""
        what = f"Batch {self.count} of `batches`"
        wanted = [(self.batch_size, *like.shape[1:]) for like in self._like]
        got = [array.shape for array in batch]
        if self.batch_size == 0 or [x[1:] for x in got] != [x[1:] for x in wanted]:
            shapes = ", ".join(str(("rows", *x[1:])).replace("'", "") for x in wanted)
            return (
                f"{what} holds arrays of shapes {got}; it must hold one for each array of "
                f"`evaluation`, in this order: {shapes}."
            )
        if got != wanted:
            rows = ", ".join(sorted({str(x[0]) for x in got}))
            return (
                f"{what} has {rows} rows, and the first had {self.batch_size}. All arrays must "
                "have as many: leave a smaller last one out (drop_last=True in PyTorch)."
            )
        for array, like in zip(batch, self._like, strict=True):
            if not np.can_cast(array.dtype, like.dtype, "same_kind"):
                return (
                    f"{what} holds an array of {array.dtype}, where `evaluation` has {like.dtype}. "
                    "Give both one type."
                )
        return None


def _reader_of(batches: object) -> ThreadPoolExecutor:
    """The thread that reads a loader, so that one that stands still holds up no other."""
    try:
        if batches not in _readers:
            _readers[batches] = ThreadPoolExecutor(1, thread_name_prefix="numpyro_llc-batches")
        return _readers[batches]
    except TypeError:  # of what is no key of a dictionary, as a list
        return reader_of_files()


def _left_of(batches: object) -> deque[list[np.ndarray]]:
    """What was read of a generator and not used: it does not come again, as in another pass."""
    try:
        return _left.setdefault(batches, deque()) if isinstance(batches, Iterator) else deque()
    except TypeError:
        return deque()


def let_go(sources: Sequence[Source]) -> None:
    """After a run: leave the loader of its stream alone, until another begins."""
    column = sources[0].host if sources else None
    if isinstance(column, Column):
        with column.lock:
            ahead, column.ahead = column.ahead, None
            column.reads.clear()
        if ahead is not None:
            column.loader.end(ahead)


class Column(HostArray):
    """An array of the batches of a loader; whatever rows are asked for, the next ones come."""

    def __init__(self, loader: Loader, place: int, like: PyTree) -> None:
        super().__init__(like, f"array {place} of `batches`")
        self.loader, self.place = loader, place

    @property
    def reader(self) -> ThreadPoolExecutor:
        """The thread of its loader."""
        return self.loader.reader

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        try:
            found = self.loader.taken(numbers.size // self.loader.batch_size, self.place)
            self._check_integers(found)
        except DataError:
            raise
        except Exception as error:
            raise self.loader.failed(error) from error
        found = found.astype(self.form.dtype, copy=False)
        return found.reshape(*numbers.shape, *self.form.shape[1:])
