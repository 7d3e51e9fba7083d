"""Tasks of a table, here or by the workers of an executor."""

import hashlib
import itertools
import pickle
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import jax

from numpyro_llc.errors import ExecutorError, LLCWarning, warn
from numpyro_llc.models import Arguments, check_given_in_memory

try:  # it sends functions of notebooks and closures too; Dask and submitit install it
    from cloudpickle import dumps
except ImportError:
    from pickle import dumps

ATTEMPTS = 2
"""How often a task is tried before its row is marked."""
MOST_AT_ONCE, MOST_BYTES = 256, 2**32
"""Tasks that an executor has at once, and their bytes: their centres are all in memory."""
PAUSE = 0.05
"""Seconds between two looks at what has ended: jobs of submitit cannot be waited for."""
CONFIG = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
)
"""Settings of JAX on which numbers depend; workers take those of the caller."""


class Promise(Protocol):
    """What ``submit`` returns: a future, or a job of submitit."""

    def done(self) -> bool: ...  # noqa: D102
    def result(self) -> Any: ...  # noqa: D102
    def cancel(self) -> object: ...  # noqa: D102


class Executor(Protocol):
    """What has ``submit``: any ``concurrent.futures.Executor``, and submitit's."""

    def submit(self, function: Callable, /, *args: Any) -> Any: ...  # noqa: D102


class Failed(NamedTuple):
    """In the place of a result: why a task failed each time."""

    reason: str


class Answer(NamedTuple):
    """What a worker sends back: a result or why there is none, and its warnings."""

    result: Any
    failure: str
    heard: list[tuple[str, type[Warning]]]


def check_executor(
    executor: object,
    mesh: object = None,
    args: Arguments = (),
    kwargs: Mapping[str, object] | None = None,
) -> None:
    """Refuse what cannot be submitted to, a mesh, and arguments whose rows are read as needed."""
    if executor is None:
        return
    if isinstance(executor, type) or not callable(getattr(executor, "submit", None)):
        raise TypeError(
            "`executor` must be a concurrent.futures.Executor, such as "
            "ProcessPoolExecutor(4, mp_context=multiprocessing.get_context('spawn')) or Dask's "
            f"client.get_executor(); got {executor!r}."
        )
    if mesh is not None:
        raise ValueError(
            "`mesh` is of the devices of this process, and `executor` computes elsewhere. Leave "
            "one out: each worker uses its own devices, and chain_method='parallel' all of them."
        )
    check_given_in_memory(args, kwargs, "A worker of `executor` takes")


def outcomes(
    executor: Executor | None, work: Callable, tasks: Iterator[tuple[Any, Any]]
) -> Generator[tuple[Any, Any], None, None]:
    """Compute ``work(task)`` for each named task, and yield names and results as they come.

    Without an executor they are computed here, in order, and errors are raised. With one, a task
    that fails is tried again, and then yields :class:`Failed`; what is pending is cancelled when
    the generator is closed. An error of `tasks` is raised when those before it have ended.

    Raises
    ------
    ExecutorError
        If the executor takes no more tasks.
    TypeError
        If `work` or a task cannot be sent.
    """
    if executor is None:
        yield from ((name, work(task)) for name, task in tasks)
    else:
        yield from _Tasks(executor, work).outcomes(tasks)


class _Tasks:
    """Tasks of one call that are with an executor."""

    def __init__(self, executor: Executor, work: Callable) -> None:
        self.executor = executor
        content, config = _packed(work), {name: getattr(jax.config, name) for name in CONFIG}
        self.shared = hashlib.sha256(content).hexdigest(), content, config
        self.waiting: dict[Promise, tuple[Any, bytes, int]] = {}
        self.heard: dict[tuple[str, type[Warning]], None] = {}
        self.reasons: list[str] = []

    def outcomes(self, tasks: Iterator[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        is_over, error, count = False, None, 0
        try:
            while not is_over or self.waiting:
                if not is_over and self._has_room:
                    try:
                        name, task = next(tasks)
                    except StopIteration:
                        is_over = True
                    except Exception as raised:  # those under way are not lost with it
                        is_over, error = True, raised
                    else:
                        self._submit(name, _packed(task), 1)
                        count += 1
                elif not any(promise.done() for promise in self.waiting):
                    time.sleep(PAUSE)
                yield from self._ended()
        finally:
            for promise in self.waiting:
                promise.cancel()
        try:
            self._warn(count)
        finally:
            if error is not None:
                raise error

    @property
    def _has_room(self) -> bool:
        shared = len(self.shared[1])  # which goes with each of them
        size = sum(len(task) + shared for _, task, _ in self.waiting.values())
        return len(self.waiting) < MOST_AT_ONCE and size < MOST_BYTES

    def _submit(self, name: Any, task: bytes, attempt: int) -> None:
        try:
            promise = self.executor.submit(perform, *self.shared, task, attempt)
        except Exception as error:  # of whatever kind: executors have their own
            raise _broken(error) from error
        self.waiting[promise] = name, task, attempt

    def _ended(self) -> Iterator[tuple[Any, Any]]:
        """Results that have come; those of a pool that broke first, then that it did."""
        broken: BrokenExecutor | None = None
        again = []
        for promise in [one for one in self.waiting if one.done()]:
            name, task, attempt = self.waiting.pop(promise)
            try:
                answer = Answer(*promise.result())
            except BrokenExecutor as error:
                broken = error
                continue
            except Exception as error:  # of a worker that was killed, or that cannot begin
                answer = Answer(None, _text(error), [])
            self.heard |= dict.fromkeys(answer.heard)
            if answer.failure and attempt < ATTEMPTS:
                again.append((name, task, attempt + 1))
            elif answer.failure:
                self.reasons.append(answer.failure)
                yield name, Failed(f"It failed {ATTEMPTS} times on `executor`: {answer.failure}")
            else:
                yield name, answer.result
        if broken is not None:
            raise _broken(broken) from broken
        for one in again:
            self._submit(*one)

    def _warn(self, count: int) -> None:
        """Say here what workers were warned of, and that rows are marked."""
        for text, kind in self.heard:
            warn(text) if issubclass(kind, LLCWarning) else warnings.warn(text, kind, stacklevel=2)
        if self.reasons:
            warn(
                f"{len(self.reasons)} of {count} tasks failed {ATTEMPTS} times on `executor`, and "
                f"their rows are marked. The first: {self.reasons[0].rstrip('.')}. The same call "
                "again tries them."
            )


def _broken(error: Exception) -> ExecutorError:
    return ExecutorError(
        f"`executor` takes no more tasks ({_text(error).rstrip('.')}). Where a worker of a process "
        "pool is killed, for want of memory say, the pool ends with it. The rows so far are this "
        "error's `table`. Make a new executor, of fewer workers perhaps, and call again: with "
        "`output` it goes on from those rows."
    )


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _packed(thing: object) -> bytes:
    try:
        return dumps(thing)
    except Exception as error:  # of whatever kind: objects raise what they like
        raise TypeError(
            "What the workers of `executor` need, the model and its arguments, the kernel and the "
            f"centres, must be such that it can be pickled; got {_text(error).rstrip('.')}. Define "
            "models at the top of a module, without lambdas and open files, or install "
            "cloudpickle, which sends functions of every kind."
        ) from error


# In the worker.

_ALONE = threading.Lock()
"""A process computes one task at a time: JAX uses all its devices for one."""
_UNPACKED: dict[str, Callable] = {}
"""The last work by its mark: a model that comes again compiles nothing."""


def perform(
    mark: str, work: bytes, config: dict[str, object], task: bytes, attempt: int
) -> tuple[Any, str, list[tuple[str, type[Warning]]]]:
    """Do one task: the fields of an :class:`Answer`.

    What tasks share comes with each, and is unpacked once. `attempt` makes a second try another
    call, for Dask, which keeps the results of calls.
    """
    with _ALONE, _configured(config), warnings.catch_warnings(record=True) as heard:
        result, failure = None, ""
        try:
            if mark not in _UNPACKED:
                _UNPACKED.clear()
                _UNPACKED[mark] = pickle.loads(work)
            result = _UNPACKED[mark](pickle.loads(task))
        except Exception as error:  # as text, since not every exception can be pickled
            failure = _text(error)
        said = [(str(one.message), one.category) for one in itertools.islice(heard, 100)]
        return result, failure, said


@contextmanager
def _configured(settings: Mapping[str, object]) -> Iterator[None]:
    """Under the caller's settings of JAX."""
    before = {name: getattr(jax.config, name) for name in settings}
    changed = {name: value for name, value in settings.items() if value != before[name]}
    try:
        for name, value in changed.items():
            jax.config.update(name, value)
        yield
    finally:
        for name in changed:
            jax.config.update(name, before[name])
