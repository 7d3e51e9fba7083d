"""Several processes that run the same program on one mesh: what they tell one another."""

import pickle
from collections.abc import Callable, Sized
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from numpyro_llc.sampling._clock import Clock

T = TypeVar("T")

LEAST_MESSAGE, PIECE = 1024, 2**26
"""Bytes of the shortest message and of the longest; those between are powers of two, each compiled
once."""


class Processes:
    """The processes whose devices a mesh has; each makes the same calls in the same order.

    What a process decides by its clock, by a key that is pressed or by a file is decided by the
    first of them, or by any, and told to all: else they would wait for one another for ever.

    Parameters
    ----------
    mesh : jax.sharding.Mesh or None

    Attributes
    ----------
    are_several : bool
    is_first : bool
        Whether this process shows the progress bar and writes files.

    Raises
    ------
    ValueError
        If the mesh has devices of some processes and not of others.
    """

    def __init__(self, mesh: Mesh | None) -> None:
        own = {jax.process_index()}
        found = own if mesh is None else {one.process_index for one in mesh.devices.flat}
        if found not in (own, set(range(jax.process_count()))):
            raise ValueError(
                f"`mesh` has devices of the processes {sorted(found)}, and this is process "
                f"{jax.process_index()} of {jax.process_count()}. Use the devices of this process, "
                "jax.local_devices(), or of all of them, jax.devices()."
            )
        self.are_several = len(found) > 1
        self.is_first = not self.are_several or jax.process_index() == 0

    def of_first(self, function: Callable[[], T]) -> T:
        """What ``function()`` gives on the first process, or raises there, on all of them."""
        if not self.are_several:
            return function()
        content = b""
        if self.is_first:
            try:
                content = pickle.dumps((function(), None))
            except Exception as error:
                content = _packed(error)
        value, raised = pickle.loads(_sent(content))
        if raised is not None:
            raise raised
        return value

    def agreed(self, clock: Clock, is_due: bool, pressed: Sized) -> tuple[bool, bool]:
        """Whether the first process is due to write, and whether Ctrl-C was pressed in any.

        The clock is then that of the first.
        """
        if not self.are_several:
            return is_due, False  # a single process is interrupted where it is
        own = np.asarray([*clock.own, is_due, len(pressed)], np.float32)
        told = np.asarray(multihost_utils.process_allgather(own))
        clock.told = float(told[0, 0]), float(told[0, 1])
        return bool(told[0, 2]), bool(told[:, 3].any())


def _packed(error: Exception) -> bytes:
    """That there is no value, but an error: its text alone, where that is all that can be sent."""
    try:
        return pickle.dumps((None, error))
    except Exception:  # of whatever kind: objects raise what they like
        return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))


def _sent(content: bytes) -> bytes:
    """The bytes of the first process, on all of them, in pieces."""
    send = multihost_utils.broadcast_one_to_all
    count = int(send(np.asarray(-(-len(content) // PIECE), np.int32)))
    pieces = []
    for k in range(count):
        own = content[k * PIECE : (k + 1) * PIECE]
        length = int(send(np.asarray(len(own), np.int32)))
        padded = np.zeros(max(LEAST_MESSAGE, 1 << (length - 1).bit_length()), np.uint8)
        padded[: len(own)] = np.frombuffer(own, np.uint8)
        pieces.append(np.asarray(send(padded))[:length].tobytes())
    return b"".join(pieces)
