"""Ctrl-C at moments that leave nothing half done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_after() -> Iterator[list[FrameType | None]]:
    """Let what is inside end before Ctrl-C is heard; a second one interrupts it.

    The list that is given has an item as soon as it was pressed. Who clears it has heard it.
    """
    heard: list[FrameType | None] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield heard
        return

    def note(number: int, frame: FrameType | None) -> None:
        if heard:
            before(number, frame)
        heard.append(frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, before)
    if heard:
        before(signal.SIGINT, heard[0])
