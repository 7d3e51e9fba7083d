"""One process at a time in a folder: a lock that ends with the process that holds it."""

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from numpyro_llc.errors import CheckpointError

try:
    import fcntl
except ImportError:  # Windows, which has no files of that kind of lock
    fcntl = None  # type: ignore[assignment]

NAME = "lock"
WAIT, PAUSE = 60.0, 0.01
"""Seconds that a change of a shared folder waits for those of others, and between two looks."""
TRIES = 10
"""A lock file may be removed by who held it while we open it; then it is opened anew."""
_HELD: set[int] = set()
"""The open files of the locks of this process."""


class Lock:
    """A lock on a folder, held from the making of the object until :meth:`release`.

    It is the operating system's lock on the file ``lock``, which ends with the process, however
    that ends. The file names the holder. Where the file system has no locks, a holder on this
    machine is found by its process number, and one on another machine is not found.

    A folder in which no file can be made has no lock: nothing can be written to it either.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.number: int | None = None
        for _ in range(TRIES):
            number = _opened(self.path)
            if number is None:
                return
            if not _is_ours(number):
                holder = _holder(number)
                os.close(number)
                raise CheckpointError(
                    f"`output` {str(folder)!r} is in use by {_name_of(holder)}, which writes to "
                    "it. Wait until that ends, or end it, or choose another folder."
                )
            if _is_at(number, self.path):
                break
            os.close(number)
        else:
            raise CheckpointError(f"`output` {str(folder)!r} is in use by others. Try again.")
        self.number = number
        _HELD.add(number)
        with suppress(OSError):  # a full disk: the holder then has no name
            os.ftruncate(number, 0)
            os.lseek(number, 0, os.SEEK_SET)
            mine = {"host": socket.gethostname(), "pid": os.getpid()}
            os.write(number, json.dumps(mine).encode())

    def release(self) -> None:
        """Let others in."""
        number, self.number = self.number, None
        if number not in _HELD:
            return  # there was none, or it is our parent's
        _HELD.remove(number)
        with suppress(OSError):
            self.path.unlink()  # before it is let go, so that nobody's new lock is removed
        os.close(number)


@contextmanager
def locked_for_a_moment(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder that is shared, for a change of its files."""
    began = time.monotonic()
    while True:
        try:
            lock = Lock(folder)
            break
        except CheckpointError:
            if time.monotonic() - began > WAIT:
                raise
            time.sleep(PAUSE)
    try:
        yield
    finally:
        lock.release()


def _opened(path: Path) -> int | None:
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):  # the file may be another user's
        with suppress(OSError):
            return os.open(path, flags, 0o666)
    return None


def _is_ours(number: int) -> bool:
    """Take the lock of an open file, if nobody else has it."""
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, "no locks")
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:  # there are no locks here, as on some network file systems
        return not _lives(_holder(number), number)


def _lives(holder: dict[str, object], number: int) -> bool:
    """Whether the holder that a lock file names is seen to run on this machine."""
    pid = holder.get("pid")
    if holder.get("host") != socket.gethostname() or not isinstance(pid, int) or pid <= 0:
        return False
    if pid == os.getpid():
        return any(os.path.sameopenfile(number, held) for held in _HELD)
    if os.name == "nt":
        return False  # there, signal 0 is a Ctrl-C
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _holder(number: int) -> dict[str, object]:
    try:
        os.lseek(number, 0, os.SEEK_SET)
        found = json.loads(os.read(number, 4096))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _name_of(holder: dict[str, object]) -> str:
    if "pid" not in holder:
        return "another process"
    return f"process {holder['pid']} on {holder.get('host')}"


def _is_at(number: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(number), path.stat())
    except OSError:
        return False


def _let_go_in_child() -> None:
    """A forked process shares the open files, and with them the lock of its parent."""
    for number in _HELD:
        with suppress(OSError):
            os.close(number)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)
