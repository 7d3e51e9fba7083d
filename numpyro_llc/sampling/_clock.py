"""The time of a run, and how many steps fit into a part of it."""

import threading
import time

import jax
import numpy as np

CHUNK_SECONDS = 0.3
"""About how often the progress bar moves; chunk lengths change nothing else."""
SLOW_STEPS, SLOW_SECONDS = 16, 2.0
"""Where steps are slow, as many at once, if they fit into this time: a call costs about a step."""
MOST_GROWTH = 4
"""How many times as long as the last a chunk may be."""

_EVENTS = "/jax/core/compile/"
"""What JAX reports of tracing, lowering and compiling, each when it ends."""


class _Compiling(threading.local):
    """Seconds that JAX has traced, lowered and compiled in this thread."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.parts: list[tuple[float, float]] = []  # begin and length, for those within others

    def add(self, length: float) -> None:
        begin = time.perf_counter() - length
        while self.parts and self.parts[-1][0] >= begin:
            self.seconds -= self.parts.pop()[1]
        self.parts.append((begin, length))
        self.seconds += length


_compiling = _Compiling()


def _count(event: str, duration_secs: float, **kwargs: str | int) -> None:
    if event.startswith(_EVENTS):
        _compiling.add(duration_secs)


jax.monitoring.register_event_duration_secs_listener(_count)


class Clock:
    """Wall time since it was made, that of an earlier part of the run, and compilation.

    Attributes
    ----------
    earlier, earlier_compiling : float
        Seconds of the run before it was taken up again.
    told : tuple of float or None
        Seconds and compilation here, as the first of several processes has them; they stand still
        until they are told again, so that all processes decide alike.
    """

    def __init__(self) -> None:
        self.began, self.compiled = time.perf_counter(), _compiling.seconds
        self.earlier, self.earlier_compiling = 0.0, 0.0
        self.told: tuple[float, float] | None = None

    @property
    def own(self) -> tuple[float, float]:
        """Seconds and compilation of this process since the clock was made."""
        return time.perf_counter() - self.began, _compiling.seconds - self.compiled

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.earlier + (self.told or self.own)[0]

    @property
    def compiling(self) -> float:
        """Seconds in which JAX traced and compiled, in this thread."""
        return self.earlier_compiling + (self.told or self.own)[1]

    @property
    def working(self) -> float:
        """Seconds without compilation."""
        return self.seconds - self.compiling


class Pace:
    """How many steps to take at once, by how fast the last ones were."""

    def __init__(self) -> None:
        self.length, self.rate = 1, 0.0

    def took(self, steps: int, seconds: float) -> None:
        """Note that `steps` took `seconds`."""
        self.rate = steps / max(seconds, 1e-9)
        most = MOST_GROWTH * max(steps, self.length)
        wanted = max(CHUNK_SECONDS * self.rate, min(SLOW_STEPS, SLOW_SECONDS * self.rate))
        self.length = int(np.clip(wanted, 1, most))

    def steps(self, seconds_left: float) -> int:
        """Steps to take now: no more than fit into the time that is left, but one."""
        if not np.isfinite(seconds_left) or self.rate == 0:
            return self.length
        return int(np.clip(self.rate * seconds_left, 1, self.length))
