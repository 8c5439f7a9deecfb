"""Keep base checkpoints in memory for the next trials, while there is room.

In: a key, and how to load what belongs to it. Out: that, from memory if it is still there. A process that compares
base checkpoints keeps them all on a large machine, and on a small one the one at hand. Called by `wav2vec2`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path
from typing import Generic, Protocol, TypeVar

_PART, _TIMES = 0.25, 8
"""Other checkpoints stay while at least this part of the memory is free, and this many times the size of the largest.
On a CPU a trial needs about that: weights, gradients, both moments, and copies of them that wait for the disk."""
_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
_LIMITS = (
    ("memory.max", "memory.current", "memory.stat", ""),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_"),
)
"""A container's limit, its use, and of what that consists, in version 2 and 1."""


class Sized(Protocol):
    """What can be kept."""

    @property
    def n_bytes(self) -> int:
        """The memory that it takes."""
        ...


T = TypeVar("T", bound=Sized)


class Kept(Generic[T]):
    """A cache whose older entries go where memory is short.

    Args:
        free: which part of the memory is free, 0 to 1, and how many bytes.
    """

    def __init__(self, free: Callable[[], tuple[float, float]] | None = None) -> None:
        self._free, self._entries = free or free_memory, dict[Hashable, T]()

    def __call__(self, key: Hashable, load: Callable[[], T]) -> T:
        """What belongs to a key, loaded if it is not there."""
        found = self._entries.pop(key, None)
        self._make_room(found)
        if found is None:
            found = load()
            self._make_room(found)  # that one may be larger than those before
        self._entries[key] = found  # the last one asked for is the last to go
        return found

    def _make_room(self, found: T | None) -> None:
        while self._entries:
            part, n_bytes = self._free()
            largest = max(one.n_bytes for one in (*self._entries.values(), found) if one is not None)
            if part >= _PART and n_bytes >= _TIMES * largest:
                return
            del self._entries[next(iter(self._entries))]
            give_memory_back()

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()


def free_memory(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> tuple[float, float]:
    """Which part of the memory is free, of the machine or of this container, and how many bytes.

    What only keeps files at hand counts as free. 1.0 and infinitely many where nothing says so.

    Args:
        meminfo: the file with the machine's memory.
        cgroup: the folder with the container's.
    """
    found = [(1.0, float("inf"))]
    with suppress(OSError, ValueError, KeyError, ZeroDivisionError):
        has = {name: 1024 * value for name, value in _table(meminfo).items()}
        found.append((has["MemAvailable:"] / has["MemTotal:"], has["MemAvailable:"]))
    for limit, use, stat, prefix in _LIMITS:
        with suppress(OSError, ValueError, ZeroDivisionError):  # no limit is the word `max`
            most, used = float((cgroup / limit).read_text()), float((cgroup / use).read_text())
            with suppress(OSError):
                parts = _table(cgroup / stat)
                used -= sum(parts.get(f"{prefix}{name}_file", 0.0) for name in ("inactive", "active"))
            left = max(0.0, most - used)
            found.append((left / most, left))
    return min(found)


def _table(path: Path) -> dict[str, float]:
    """A file's lines of a name and a number."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {line[0]: float(line[1]) for line in lines if len(line) > 1}


def give_memory_back() -> None:
    """Return to the system what has been freed.

    Threads copy and write gigabytes of states, and glibc keeps what they free in parts of its heap that others do not
    use: with XLS-R on a CPU a worker grew by 1 to 4 GB with each trial.
    """
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
