"""What can go wrong in a run; a bad argument is a plain ``ValueError`` or ``TypeError``."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from typing import Any

_PACKAGE = os.path.dirname(__file__) + os.sep


class LLCWarning(UserWarning):
    """A doubtful statistic: the message holds the number, its threshold and the remedy.

    Where warnings are errors, what was computed is not lost.

    Attributes
    ----------
    idata : inference data or None
        The result it is about.
    result
        The table, ladder or ``Center`` of a function that returns no inference data, as far as it
        was computed.
    """

    def __init__(self, message: str, idata: Any = None) -> None:
        super().__init__(message)
        self.idata, self.result = idata, None


def warn(message: str, idata: Any = None) -> None:
    """Raise an :class:`LLCWarning` at the line outside of this package that led here."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(LLCWarning(message, idata), stacklevel=level)


@contextmanager
def going_with(result: Callable[[], Any]) -> Iterator[None]:
    """Where a warning is an error, what was computed goes with it, as its attribute `result`."""
    try:
        yield
    except Warning as error:
        give(error, result())
        raise


def give(warning: Warning, result: Any) -> None:
    """Put what was computed on a warning that is an error."""
    warning.__dict__["result"] = result
    if result is not None:
        warning.add_note("What was computed is the attribute `result` of this warning.")


class NonFiniteLossError(RuntimeError):
    """The loss, or its gradient at the centre, is NaN or infinite, or the loss along a chain.

    Attributes
    ----------
    idata : inference data or None
        The draws made before the failure (None if there were none).
    """

    def __init__(self, message: str, idata: Any = None) -> None:
        super().__init__(message)
        self.idata = idata


class ResultError(RuntimeError):
    """The draws are made, but something failed when they were put together as a result.

    Attributes
    ----------
    idata : inference data
        The draws: ``llc``, the statistics, and the unconstrained parameters as far as they were
        kept, without the checks.
    """

    def __init__(self, message: str, idata: Any = None) -> None:
        super().__init__(message)
        self.idata = idata


class DataError(RuntimeError):
    """Rows of an argument that is read as it is needed could not be read; says of which, and why.

    Attributes
    ----------
    idata : inference data or None
        The draws made before the failure (None if there were none).
    table : xarray.Dataset or None
        The rows before it, of `sweep` and `refined_llc`.
    """

    def __init__(self, message: str, idata: Any = None) -> None:
        super().__init__(message)
        self.idata, self.table = idata, None


class NonFiniteCenterError(ValueError):
    """A centre holds NaN or infinite values."""


class TrajectoryError(ValueError):
    """A checkpoint of a trajectory failed: which, and how, the message says.

    Attributes
    ----------
    trajectory : xarray.Dataset
        The rows of the checkpoints before it.
    """

    def __init__(self, message: str, trajectory: Any) -> None:
        super().__init__(message)
        self.trajectory = trajectory


class CheckpointError(ValueError):
    """A folder cannot be used: it is another's, in use, damaged, or cannot be written to.

    Attributes
    ----------
    idata : inference data or None
        The draws so far, of a run that could not write them.
    table : xarray.Dataset, pandas.DataFrame or None
        The rows so far, of a function that makes a table and could not write it.
    """

    def __init__(self, message: str, *, idata: Any = None, table: Any = None) -> None:
        super().__init__(message)
        self.idata = idata
        self.table = table


class ExecutorError(BrokenExecutor):
    """An executor takes no more tasks: its pool broke, or it is shut down.

    Attributes
    ----------
    table : xarray.Dataset, pandas.DataFrame or None
        The rows so far.
    """

    def __init__(self, message: str, *, table: Any = None) -> None:
        super().__init__(message)
        self.table = table
