"""Batches of a data loader in the place of the data, and the rows that losses are recorded on."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import KW_ONLY, dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from numpyro_llc._checks import check_num_data
from numpyro_llc.errors import DataError
from numpyro_llc.models._host_array import HostArray
from numpyro_llc.models._plates import Batching
from numpyro_llc.models._sources import Source, reader
from numpyro_llc.models._types import Arrays, PyTree, Site

_END = object()


@dataclass(frozen=True, eq=False)
class Stream:
    r"""Batches of a data loader, in the place of `model_args`.

    ``estimate_llc(key, model, Stream(loader, num_data=n, evaluation=(x, y)), center=center)``
    samples ``p(z) ∝ exp(-nβ L(z) - γ/2 |z - z*|²)``, L the mean loss over what the loader draws
    from. Each step takes the next batch, the same for all chains. λ̂ is
    ``nβ E[L'(z) - L'(z*)]``, L' the mean loss over the m rows of `evaluation`.

    Parameters
    ----------
    batches : iterable, or callable that returns one
        Of tuples of arrays, rows along the first axis, all batches of one size: a PyTorch
        ``DataLoader`` with ``shuffle=True, drop_last=True``, say. At its end it is iterated anew,
        or called anew; a generator, which cannot be, must last for the whole run. It runs in a
        thread, up to 128 batches ahead, until the run is over, and should give NumPy arrays or
        CPU tensors.
    num_data : int
        n, the rows of all the data: the likelihood counts n rows. Sets the default of β, unless
        the ``num_data`` of ``localize`` does.
    evaluation : tuple
        The arguments of the model, arrays of m rows along the first axis, in the order of the
        arrays of a batch. They must be random rows of the data, or new ones of the same kind.
        Arguments without rows go into `model_kwargs`.

    Raises
    ------
    ValueError, TypeError
        Here for bad numbers and arrays; where it is used, for a first batch that does not fit.
    DataError
        In a run, if the loader fails, has no more batches, or gives one of another size. The
        draws so far are its ``idata``.

    Notes
    -----
    Nothing is known of rows that were not evaluated: the loss at the centre, its gradient and its
    curvature are those of `evaluation`. Control variates are off. They would need the gradient at
    the centre over all the data; with that of the m rows in its place λ̂ is too small by about
    ``nβ d / (2m)``. For the same reason draws scatter: ``llc`` has about ``1 + 2nβ/m`` times the
    variance that all rows give, so that m should not be far below nβ.

    The error for rows that were not evaluated is the attribute ``evaluation_error`` and a line of
    :func:`error_budget`. It is no part of the Monte Carlo error. Not measured are: the data error,
    the shift of λ̂ from a slope at the centre, whether draws lie below the centre, and the variance
    of ``llc`` over its mean. Estimators of λ from the spread of ``llc`` do not hold.

    A run with ``output=`` that goes on takes the batches that the loader then gives, so that its
    draws are not those of a run in one piece.
    """

    batches: Iterable[PyTree] | Callable[[], Iterable[PyTree]]
    _: KW_ONLY
    num_data: int
    evaluation: Sequence[PyTree]

    def __post_init__(self) -> None:
        if not hasattr(self.batches, "__iter__") and not callable(self.batches):
            raise TypeError(
                "`batches` must be an iterable of batches, or a callable that returns one; got "
                f"{type(self.batches).__name__}."
            )
        if not isinstance(self.evaluation, tuple | list):
            raise TypeError(
                "`evaluation` must be a tuple of arrays, the arguments of the model; got "
                f"{type(self.evaluation).__name__}. Write evaluation=(x, y)."
            )
        held = jax.tree.map(_in_memory, tuple(self.evaluation))
        lengths = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(held)}
        if len(lengths) != 1 or not min(lengths) > 1:
            raise ValueError(
                "`evaluation` must hold arrays of one number of rows, at least 2, along their "
                f"first axes; got {sorted(lengths)}. Arguments without rows go into "
                "`model_kwargs`."
            )
        object.__setattr__(self, "num_data", check_num_data(self.num_data))
        if self.num_data < min(lengths):
            raise ValueError(
                f"`num_data` must be at least the {min(lengths)} rows of `evaluation`; got "
                f"{self.num_data}. It counts the rows of all the data."
            )
        object.__setattr__(self, "evaluation", held)

    @property
    def num_rows(self) -> int:
        """m, the rows of `evaluation`."""
        return int(jax.tree.leaves(self.evaluation)[0].shape[0])

    def counting_all(self, model: Callable) -> "Weighted":
        """The model in which each row of `evaluation` counts n/m times."""
        return Weighted(model, self.num_data / self.num_rows)


def _in_memory(leaf: PyTree) -> PyTree:
    return leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)


def batching_of(stream: Stream, arrays: Arrays, plate: str | None, num_rows: int) -> Batching:
    """Rows of the arrays of a stream, which are the first arguments of a model."""
    if num_rows != stream.num_rows:
        raise ValueError(
            f"`evaluation` has {stream.num_rows} rows, and the observed sites of the model have "
            f"{num_rows}. A stream needs a row of observations for each row of its arrays."
        )
    count = len(jax.tree.leaves(stream.evaluation))
    axes = (0,) * count + (None,) * (len(arrays) - count)
    return Batching(num_rows, plate, False, axes, stream_rows=stream.num_data)


Arguments = Sequence[object] | Stream
"""Arguments of a model, or a stream in their place."""


def without_stream(args: Arguments) -> Sequence[object]:
    """The arguments that are in memory: of a stream those to evaluate on."""
    return args.evaluation if isinstance(args, Stream) else args


class _OfObserved(handlers.scale):
    """Scales what is observed alone: a prior is no less a prior."""

    def process_message(self, msg: Site) -> None:
        if msg["type"] == "sample" and msg["is_observed"]:
            super().process_message(msg)


@dataclass(frozen=True)
class Weighted:
    """A model in which each observation counts `weight` times."""

    model: Callable
    weight: float

    @property
    def __wrapped__(self) -> Callable:
        return self.model

    def __call__(self, *args: object, **kwargs: object) -> object:
        with _OfObserved(scale=self.weight):
            return self.model(*args, **kwargs)


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
    _waiting: deque[list[np.ndarray]] = field(init=False, default_factory=deque)
    _joined: list[list[np.ndarray]] = field(init=False, default_factory=list)
    _columns: list[np.ndarray] = field(init=False, default_factory=list)
    _is_halted: bool = field(init=False, default=False)
    _failure: Exception | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._like = jax.tree.leaves(self.stream.evaluation)
        # Where all batches are read: an earlier run may still read ahead from the same loader.
        first = reader().submit(self._opened).result()
        self.batch_size = first[0].shape[0] if first and first[0].ndim else 0
        if problem := self._problem(first):
            raise ValueError(problem)
        self._waiting.append(first)

    def sources(self) -> tuple[Source, ...]:
        """What compiled code draws batches from: a source for each array of a batch."""
        columns = [Column(self, place, like) for place, like in enumerate(self._like)]
        return tuple(Source(jnp.asarray(x.number, jnp.int32), x.form, x) for x in columns)

    def taken(self, count: int, place: int) -> np.ndarray:
        """Array `place` of the next `count` batches, joined; the first array is asked for first."""
        if place == 0:
            self._columns, self._joined = [], []
            while len(self._joined) < count and not self._is_halted:
                self._joined.append(self._next())
            self._columns = [np.concatenate(parts) for parts in zip(*self._joined, strict=True)]
            split = [np.split(column, len(self._joined)) for column in self._columns]
            self._joined = list(map(list, zip(*split, strict=True)))  # views: not held twice
        return self._columns[place]

    def let_go(self, ahead: Future) -> None:
        """End a read ahead, within a batch; what it read comes next."""
        if not ahead.cancel():
            self._is_halted = True
            reader().submit(self._put_back).result()

    def _put_back(self) -> None:
        """After the read ahead, for one thread reads."""
        self._waiting.extendleft(reversed(self._joined))
        self._joined, self._columns, self._is_halted = [], [], False

    def _begun(self) -> Iterator[PyTree]:
        batches: PyTree = self.stream.batches
        return iter(batches if hasattr(batches, "__iter__") else batches())

    def _opened(self) -> list[np.ndarray]:
        """The first batch of a new pass."""
        self._iterator = self._begun()
        return self._read()

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
        if batch is _END:
            self._iterator = self._begun()
            batch = next(self._iterator, _END)
        if batch is _END:
            raise DataError(
                f"`batches` ended after {self.count} batches, and cannot be iterated again. Give "
                "an iterable that can, such as a data loader, or a callable that returns a fresh "
                "iterator; a generator function, say, and not the generator."
            )
        self.count += 1
        return [np.asarray(leaf) for leaf in jax.tree.leaves(batch)]

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
            return (
                f"{what} has {got[0][0]} rows, and the first had {self.batch_size}. All must have "
                "as many: leave a smaller last one out (drop_last=True of a PyTorch DataLoader)."
            )
        for array, like in zip(batch, self._like, strict=True):
            if not np.can_cast(array.dtype, like.dtype, "same_kind"):
                return (
                    f"{what} holds an array of {array.dtype}, where `evaluation` has {like.dtype}. "
                    "Give both one type."
                )
        return None


def let_go(sources: Sequence[Source]) -> None:
    """After a run: leave the loader of its stream alone, until another begins."""
    column = sources[0].host if sources else None
    if isinstance(column, Column):
        ahead, column.ahead = column.ahead, None
        column.reads.clear()
        if ahead is not None:
            column.loader.let_go(ahead)


class Column(HostArray):
    """An array of the batches of a loader; whatever rows are asked for, the next ones come."""

    def __init__(self, loader: Loader, place: int, like: PyTree) -> None:
        super().__init__(like, f"array {place} of `batches`")
        self.loader, self.place = loader, place

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        try:
            found = self.loader.taken(numbers.size // self.loader.batch_size, self.place)
            self._check_integers(found)
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"`batches` failed after {self.loader.count} batches: {type(error).__name__}: "
                f"{error}"
            ) from error
        found = found.astype(self.form.dtype, copy=False)
        return found.reshape(*numbers.shape, *self.form.shape[1:])
