"""A console that cannot end a sweep: where it can't be written, what is said is lost and nothing else.

A driver outlives what it writes to: a terminal that is closed, a pipe whose reader is gone, a file on a full disk. All
that is said is in the sweep's log too. Called by `run`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import IO, Any, cast

from rich.console import Console


def console_of(stream: IO[str]) -> Console:
    """A console on a stream whose faults are passed over."""
    return Console(file=cast(IO[str], _Patient(stream)))


class _Patient:
    """A text stream that never raises an `OSError`; all else is the stream's own."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as fault:
            self._forgo(fault)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as fault:
            self._forgo(fault)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _forgo(self, fault: OSError) -> None:
        """Where nobody will ever read, write nowhere, or what is left would fail once more at the process's end."""
        if isinstance(fault, BrokenPipeError):
            with suppress(OSError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
