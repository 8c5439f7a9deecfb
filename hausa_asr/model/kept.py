"""Keep what was loaded in memory for the next trial, while there is room.

In: a key, and how to load what belongs to it. Out: that, from memory if it is still there. A process that compares
base checkpoints keeps them all on a large machine, and on a small one the one at hand. Called by `wav2vec2`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

_LEAST_FREE = 0.25
"""The part of the memory that stays free for trials: below it only what is asked for is kept."""
_MEMINFO = Path("/proc/meminfo")
_CGROUPS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
"""Where a container's limit and use are, in version 2 and 1."""

T = TypeVar("T")


class Kept(Generic[T]):
    """A cache whose older entries go where memory is short.

    Args:
        free: which part of the memory is free, 0 to 1.
    """

    def __init__(self, free: Callable[[], float] | None = None) -> None:
        self._free, self._entries = free or free_memory, dict[Hashable, T]()

    def __call__(self, key: Hashable, load: Callable[[], T]) -> T:
        """What belongs to a key, loaded if it is not there."""
        found = self._entries.pop(key, None)
        while self._entries and self._free() < _LEAST_FREE:  # before the new one is loaded, which takes the most
            del self._entries[next(iter(self._entries))]
        self._entries[key] = load() if found is None else found  # the last one asked for is the last to go
        return self._entries[key]

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()


def free_memory(meminfo: Path = _MEMINFO, cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Which part of the memory is free, of the machine or of this container; 1.0 where nothing says so.

    Args:
        meminfo: the file with the machine's memory.
        cgroup: the folder with the container's.
    """
    parts = [1.0]
    with suppress(OSError, ValueError, KeyError, ZeroDivisionError):
        lines = (line.split() for line in meminfo.read_text().splitlines())
        has = {line[0]: float(line[1]) for line in lines if len(line) > 1}
        parts.append(has["MemAvailable:"] / has["MemTotal:"])
    for limit, use in _CGROUPS:
        with suppress(OSError, ValueError, ZeroDivisionError):  # no limit is the word `max`
            most = float((cgroup / limit).read_text())
            parts.append(max(0.0, 1 - float((cgroup / use).read_text()) / most))
    return min(parts)
