"""Decode clips with all cores: a pool of processes, fed and watched over by a thread each.

In: tasks. Out: files of decoded clips, and a report for each clip. Called by `prepare`. Processes and not threads: what
a clip costs beside its decoder's C code holds Python's lock for a third of the time, and a file that crashes a decoder
ends a process that can be started again.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from hausa_asr.audio.container_faults import Fault
from hausa_asr.dataset.decoder import ClipResult, Done, Task, Written
from hausa_asr.errors import UserError

PASSING = ("can't be fetched", "failed", "crashes the decoder")
"""Reasons of refusals that may be gone the next time: a preparation with any of them tries those clips again."""
_HANDED_OUT = 64
"""Clips given to a process at a time."""
_TRIES = 3
"""A process that ends this often without having decoded anything is not started again."""


def decode_all(tasks: Sequence[Task], folder: Path, limit_s: float) -> Iterator[ClipResult]:
    """Decode clips into files of a folder, reporting each; all are on disk when the iterator ends.

    Args:
        tasks: the clips.
        folder: for the files.
        limit_s: clips longer than this are refused, in seconds.

    Raises:
        OSError: the files can't be written.
        UserError: the processes that decode can't be started.
    """
    if not tasks:
        return
    pool = _Pool(tasks, folder, limit_s)
    try:
        yield from pool.results()
    finally:
        pool.stop()


class _ProcessEnd(NamedTuple):
    """How a process ended: the tasks it left (None if all is done), whether it got anywhere, its last words."""

    left: list[Task] | None = None
    progressed: bool = True
    error: str = ""


@dataclass
class _Given:
    """The tasks that a process was given.

    Attributes:
        asked: those it has not reported yet, the next one first.
        unwritten: those it has reported and not yet written to disk.
        progressed: it has reported any; one that ends before its first clip has not even started.
    """

    asked: deque[Task] = field(default_factory=deque)
    unwritten: deque[Task] = field(default_factory=deque)
    progressed: bool = False


class _Pool:
    """Threads that each feed one process and read from it."""

    def __init__(self, tasks: Sequence[Task], folder: Path, limit_s: float) -> None:
        self._tasks = deque(tasks)
        self._opening = (folder, limit_s)
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._reported: set[int] = set()
        self._stopping = False
        count = max(1, min(len(os.sched_getaffinity(0)), 32, len(tasks) // _HANDED_OUT))
        self._threads = [threading.Thread(target=self._drive, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def results(self) -> Iterator[ClipResult]:
        running = len(self._threads)
        while running:
            report = self._queue.get()
            if isinstance(report, ClipResult):
                yield report
            elif isinstance(report, BaseException):
                raise report
            else:
                running -= 1

    def stop(self) -> None:
        with self._lock:
            self._stopping = True
            self._tasks.clear()
            for process in self._processes:
                process.terminate()
        for thread in self._threads:
            thread.join()

    def _take(self) -> list[Task]:
        with self._lock:
            # Few at the end, so that no process waits for the other's last hundred.
            share = max(1, min(_HANDED_OUT, len(self._tasks) // (2 * len(self._threads))))
            return [self._tasks.popleft() for _ in range(min(share, len(self._tasks)))]

    def _drive(self) -> None:
        again: list[Task] = []
        failures = 0
        try:
            while not self._stopping:
                end = self._run(again)
                if end.left is None:
                    break
                failures = 0 if end.progressed else failures + 1
                if failures >= _TRIES:
                    raise UserError(
                        "The processes that decode audio end at once.", where=end.error, fix="Read its last line."
                    )
                # The first that was not reported is what the process died of; the others were only not yet on disk.
                again = end.left
        except BaseException as error:
            self._queue.put(error)
        finally:
            self._queue.put(None)

    def _run(self, again: list[Task]) -> _ProcessEnd:
        """Run one process to its end, beginning with the tasks that an earlier one left."""
        given = _Given()
        with tempfile.TemporaryFile() as errors:
            process = self._start(errors)
            if process is None:
                return _ProcessEnd()
            try:
                self._feed(process, given, again)
                return _ProcessEnd()
            except (EOFError, BrokenPipeError, pickle.UnpicklingError):
                return _ProcessEnd() if self._stopping else self._crashed(process, given, errors)
            finally:
                self._end(process)

    def _feed(self, process: subprocess.Popen[bytes], given: _Given, again: list[Task]) -> None:
        """Give tasks to a process and pass its reports on, until nothing is left.

        Raises:
            EOFError, BrokenPipeError, pickle.UnpicklingError: the process has ended.
            OSError: the process can't write its files.
        """
        assert process.stdin and process.stdout
        pickle.dump(self._opening, process.stdin)
        while not self._stopping:
            tasks, again = again or self._take(), []
            given.asked.extend(tasks)
            pickle.dump(tasks, process.stdin)
            process.stdin.flush()
            while given.asked or not tasks:
                report = pickle.load(process.stdout)
                if isinstance(report, OSError):
                    raise report
                if isinstance(report, Done):
                    return
                if isinstance(report, Written):
                    given.unwritten.clear()
                    continue
                task = given.asked.popleft()
                given.progressed = True
                if report.refused is None:
                    given.unwritten.append(task)
                if task.number not in self._reported:
                    self._queue.put(report)

    def _crashed(self, process: subprocess.Popen[bytes], given: _Given, errors: IO[bytes]) -> _ProcessEnd:
        """Refuse the clip that ended a process, and collect the tasks that the process left.

        Raises:
            RuntimeError: the process ended by an exception of ours and not by a signal.
        """
        process.wait()
        errors.seek(0)
        last = errors.read()[-500:].decode(errors="replace").strip()
        if process.returncode > 0 and given.progressed:
            raise RuntimeError(f"a process that decodes audio failed:\n{last}") from None
        if given.asked and process.returncode < 0:
            culprit = given.asked.popleft()
            detail = f"the decoder ended with code {process.returncode}"
            self._queue.put(ClipResult(culprit.number, 0.0, Fault("crashes the decoder", detail)))
        self._reported.update(task.number for task in given.unwritten)
        return _ProcessEnd([*given.unwritten, *given.asked], given.progressed, last)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._processes.discard(process)
        with suppress(subprocess.TimeoutExpired):
            if self._stopping:  # it writes what it has
                process.wait(10)
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                _close(pipe)

    def _start(self, errors: IO[bytes]) -> subprocess.Popen[bytes] | None:
        root = str(Path(__file__).parent.parent.parent)
        code = f"import sys; sys.path.insert(0, {root!r}); from hausa_asr.dataset.decoder import serve; serve()"
        # One thread each: a product of matrices that starts threads of its own would fight with the other processes.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with self._lock:
            if self._stopping:
                return None
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
            )
            self._processes.add(process)
            return process


def _close(pipe: IO[bytes]) -> None:
    with suppress(OSError):  # of what was not yet sent to a process that is gone
        pipe.close()
