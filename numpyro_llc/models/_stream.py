"""Batches of a data loader in the place of the data, and the rows that losses are recorded on."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass

import jax
import numpy as np
from numpyro import handlers

from numpyro_llc._checks import check_num_data
from numpyro_llc.models._plates import Batching
from numpyro_llc.models._types import Arrays, PyTree, Site


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
        Of tuples of arrays, rows along the first axis, all batches of one size, each of rows drawn
        independently, with replacement. At its end it is iterated anew, or called anew; a
        generator, which cannot be, must last for the whole run. It runs in a thread, up to 128
        batches ahead, until the run is over, and should give NumPy arrays or CPU tensors. A
        PyTorch ``DataLoader`` of `data` is independent with ``sampler=RandomSampler(data,
        replacement=True, num_samples=10**9)``. With ``shuffle=True`` it is not: over a pass its
        noise cancels, which a pass of 10 000 batches at the least hardly shows.
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
        If the loader fails, has no more batches, gives one of another size, or each row once in a
        short pass. In a run the draws so far are its ``idata``.

    Notes
    -----
    Nothing is known of rows that were not evaluated: the loss at the centre, its gradient and its
    curvature are those of `evaluation`. Control variates are off. They would need the gradient at
    the centre over all the data; with that of the m rows in its place λ̂ is too small by about
    ``nβ d / (2m)``. For the same reason draws scatter: ``llc`` has about ``1 + 2nβ/m`` times the
    variance that all rows give, so that m should not be far below nβ.

    The error for rows that were not evaluated is the attribute ``evaluation_error`` and a line of
    :func:`error_budget`. It is no part of the Monte Carlo error. It takes the rows for random ones
    of the n: of new rows it is too small by √((n - m)/(n + m)). Not measured are: the data error,
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
