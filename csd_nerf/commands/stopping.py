"""Ctrl-C and SIGTERM: as a wish, after which the work ends at the next step, or as an order that leaves no debris."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_signals(on_first: Callable[[], None] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Give a function that turns true when the process is asked to end; asked a second time, it ends at once.

    `on_first` is called when it is asked for the first time. In other threads than the main one signals cannot be
    caught: there it stays false.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        on_first()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM raises `KeyboardInterrupt`, as Ctrl-C does: by itself it would end the process amid half-written files.

    In other threads than the main one signals cannot be caught: there nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
