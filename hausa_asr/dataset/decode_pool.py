"""Clips in, files of decoded clips out: a few processes that do nothing else, and the pool that feeds them.

Called by `prepare`. Processes and not threads: what a clip costs beside its decoder's C code holds Python's lock for a
third of the time, and a file that crashes a decoder ends a process that can be started again. They import neither torch
nor what the caller has loaded, take 70 MB each, and end by themselves when the caller is killed.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from hausa_asr.audio import fingerprint, sources
from hausa_asr.audio import load as audio
from hausa_asr.dataset import clip_store as clips
from hausa_asr.dataset.clip_store import FULL_SCALE, Decoded
from hausa_asr.errors import UserError

NARROW = "no sound above 4 kHz"
"""The warning of a clip that was recorded at 8 kHz, whatever rate its file has."""
PASSING = ("can't be fetched", "failed", "crashes the decoder")
"""Reasons of refusals that may be gone the next time: a preparation with any of them tries those clips again."""
_ROWS, _BYTES, _SECONDS = 128, 32 << 20, 2.0
"""A file is written when it has so many clips, bytes of samples, or seconds: what a kill costs, and the memory."""
_HANDED_OUT = 64
"""Clips given to a process at a time."""
_TRIES = 3
"""A process that ends this often without having decoded anything is not started again."""


class Task(NamedTuple):
    """A clip to decode: its number in the caller's list, its key and `Utterance.audio`."""

    number: int
    key: bytes
    audio: str


class Told(NamedTuple):
    """A clip that is done.

    Attributes:
        number: of its task.
        seconds: of audio, 0 where it was refused.
        refused: the reason and detail of a fault that may be gone the next time, so that nothing is kept of it.
    """

    number: int
    seconds: float
    refused: tuple[str, str] | None = None


def decode(task: Task, limit_s: float) -> Decoded | Told:
    """Decode one clip; whatever goes wrong is a refusal of that one."""
    try:
        found = sources.fetch(task.audio)
    except FileNotFoundError as error:
        return Told(task.number, 0.0, ("missing", str(error)))
    except Exception as error:
        return Told(task.number, 0.0, ("can't be fetched", _line(error)))
    try:
        clip = audio.load(found, max_s=limit_s)
        energy = fingerprint.power(clip.samples)
        warnings = (*clip.warnings, NARROW) if fingerprint.is_narrow(energy) else clip.warnings
        scaled = np.multiply(clip.samples, np.float32(FULL_SCALE))  # in [-32,768, 32,768]
        samples = np.minimum(np.rint(scaled, out=scaled), FULL_SCALE - 1, out=scaled).astype(np.int16)
        digest = hashlib.blake2b(samples, digest_size=16).digest()
        return Decoded(
            task.key,
            source_rate=clip.source_rate,
            warnings=warnings,
            digest=digest,
            fingerprint=fingerprint.of(energy),
            samples=samples,
        )
    except audio.AudioRefused as refused:
        if refused.reason == "missing":  # it may come, and then has another stamp
            return Told(task.number, 0.0, (refused.reason, refused.detail))
        limit = limit_s if refused.reason == "too long" else 0.0
        return Decoded(task.key, refused.reason, refused.detail, limit)
    except Exception as error:
        return Told(task.number, 0.0, ("failed", _line(error)))


class _NoPandas(MetaPathFinder):
    """Keeps pyarrow from importing pandas at its first array: a third of a second and 40 MB, for nothing here."""

    def find_spec(self, fullname: str, *rest: object) -> None:
        if fullname == "pandas":
            raise ImportError("not needed")


def serve() -> None:
    """What a process does: decode what comes in, write files, tell of each clip, until there is nothing more."""
    asked, told = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller has it too, and sends the other one
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    sys.meta_path.insert(0, _NoPandas())
    os.dup2(2, 1)  # a library that prints must not garble what is told
    folder, limit_s = pickle.load(asked)
    waiting: list[Decoded] = []
    size, began = 0, time.monotonic()

    def write() -> None:
        nonlocal size, began
        if waiting:
            clips.write(folder, waiting)
        waiting.clear()
        size, began = 0, time.monotonic()

    def tell(what: object) -> None:
        pickle.dump(what, told)
        told.flush()

    try:
        while True:
            try:
                tasks = pickle.load(asked)
            except EOFError:
                write()
                return
            for task in tasks:
                found = decode(task, limit_s)
                if isinstance(found, Decoded):
                    waiting.append(found)
                    size += found.samples.nbytes
                    tell(Told(task.number, len(found.samples) / 16_000))
                else:
                    tell(found)
                if len(waiting) >= _ROWS or size >= _BYTES or time.monotonic() - began > _SECONDS:
                    write()
                    tell("written")
            if not tasks:
                write()
                tell("done")
                return
    except SystemExit:  # the caller stops, or was killed: its next run need not decode these again
        write()
    except BrokenPipeError:
        write()
        os._exit(0)
    except OSError as error:
        tell(error)


def decode_all(tasks: Sequence[Task], folder: Path, limit_s: float) -> Iterator[Told]:
    """Decode clips into files of a folder, telling of each; all are on disk when the iterator ends.

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
        yield from pool.told()
    finally:
        pool.stop()


class _Pool:
    """Threads that each feed one process and read from it."""

    def __init__(self, tasks: Sequence[Task], folder: Path, limit_s: float) -> None:
        self._tasks = deque(tasks)
        self._opening = (folder, limit_s)
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._told_before: set[int] = set()
        self._stopping = False
        count = max(1, min(len(os.sched_getaffinity(0)), 32, len(tasks) // _HANDED_OUT))
        self._threads = [threading.Thread(target=self._drive, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def told(self) -> Iterator[Told]:
        running = len(self._threads)
        while running:
            found = self._queue.get()
            if isinstance(found, Told):
                yield found
            elif isinstance(found, BaseException):
                raise found
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
                left, progressed, error = self._run(again)
                if left is None:
                    break
                failures = 0 if progressed else failures + 1
                if failures >= _TRIES:
                    raise UserError(
                        "the processes that decode audio end at once", where=error, fix="read its last line"
                    )
                # The first that was not told of is what the process died of; the others were only not yet on disk.
                again = left
        except BaseException as error:
            self._queue.put(error)
        finally:
            self._queue.put(None)

    def _run(self, again: list[Task]) -> tuple[list[Task] | None, bool, str]:
        """Run one process to its end: the tasks it left, or None when all is done; whether it got anywhere."""
        unwritten: deque[Task] = deque()
        asked: deque[Task] = deque()
        progressed = False
        with tempfile.TemporaryFile() as errors:
            process = self._start(errors)
            if process is None:
                return None, True, ""
            try:
                assert process.stdin and process.stdout
                pickle.dump(self._opening, process.stdin)
                while not self._stopping:
                    tasks, again = (again, []) if again else (self._take(), again)
                    asked.extend(tasks)
                    pickle.dump(tasks, process.stdin)
                    process.stdin.flush()
                    while asked or not tasks:
                        found = pickle.load(process.stdout)
                        if isinstance(found, OSError):
                            raise found
                        if found == "done":
                            return None, True, ""
                        if found == "written":
                            unwritten.clear()
                            continue
                        task = asked.popleft()
                        progressed = True  # a process that ends before its first clip has not even started
                        if found.refused is None:
                            unwritten.append(task)
                        if task.number not in self._told_before:
                            self._queue.put(found)
                return None, True, ""
            except (EOFError, BrokenPipeError, pickle.UnpicklingError):
                if self._stopping:
                    return None, True, ""
                process.wait()
                errors.seek(0)
                last = errors.read()[-500:].decode(errors="replace").strip()
                if process.returncode > 0 and progressed:
                    raise RuntimeError(f"a process that decodes audio failed:\n{last}") from None
                if asked and process.returncode < 0:
                    culprit = asked.popleft()
                    detail = f"the decoder ended with code {process.returncode}"
                    self._queue.put(Told(culprit.number, 0.0, ("crashes the decoder", detail)))
                self._told_before.update(task.number for task in unwritten)
                return [*unwritten, *asked], progressed, last
            finally:
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
        code = f"import sys; sys.path.insert(0, {root!r}); from hausa_asr.dataset.decode_pool import serve; serve()"
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


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
