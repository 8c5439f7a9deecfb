"""Ctrl-C and SIGTERM during a search: the first asks it to end, the next ends it there and then.

In: what is done at once, and how the search is asked. Out: whether it was asked. Ray Tune's own handler would swallow a
signal that comes after its run, and waits for its slots before anybody hears of the interrupt; `ray job stop` kills
after 3 s. Called by `tune_run`.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TUNES = signal.SIGUSR1
"""Ray Tune ends its run at this signal too, by a handler that it leaves behind."""


def end_at_sigterm() -> None:
    """Let SIGTERM, which is what `ray job stop` sends, raise `KeyboardInterrupt` as Ctrl-C does.

    Not by sending SIGINT on: all that a shell starts in the background ignores that, a Ray and its jobs too.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)


class Interrupts:
    """Heed interrupts for the length of a block, in the main thread; in others nothing is changed.

    Args:
        at_once: is called in a thread of its own at the first interrupt, for what must not wait.

    Attributes:
        asked: whether there was one.
        hasten: is called at the first too, in the signal's handler; may be replaced.
    """

    def __init__(self, at_once: Callable[[], None]) -> None:
        self.asked = False
        self.hasten: Callable[[], None] = lambda: None
        self._at_once, self._over = at_once, threading.Event()
        self._before: dict[signal.Signals, Any] = {}
        self._thread = threading.Thread(target=self._wait, name="interrupts", daemon=True)

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._thread.start()  # now, since a handler must not start threads
            self._before[_TUNES] = signal.getsignal(_TUNES)
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._heed)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._over.set()
        if self._thread.is_alive() and self.asked:
            self._thread.join()

    def end_tune(self) -> None:
        """Let Ray Tune's run end after the step at hand, if there was an interrupt and it has not heard of it."""
        handler = signal.getsignal(_TUNES)
        if self.asked and callable(handler):
            handler(_TUNES, None)

    def _heed(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._over.set()
        self.hasten()
        self.end_tune()

    def _wait(self) -> None:
        self._over.wait()
        if self.asked:
            self._at_once()
