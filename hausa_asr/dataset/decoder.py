"""Decode clips in a process of its own: tasks in, files of decoded clips and a report for each clip out.

Started by `decode_pool`, which feeds it. It imports neither torch nor what its parent has loaded, takes 70 MB, and ends
by itself when its parent is killed.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from hausa_asr.audio import fingerprint, sources
from hausa_asr.audio.container_faults import Fault
from hausa_asr.audio.load import AudioRefused, load
from hausa_asr.dataset import clip_store
from hausa_asr.dataset.clip_store import FULL_SCALE, Decoded
from hausa_asr.utterance import SAMPLE_RATE

NARROW = "no sound above 4 kHz"
"""The warning of a clip that was recorded at 8 kHz, whatever rate its file has."""
_ROWS, _BYTES, _SECONDS = 128, 32 << 20, 2.0
"""A file is written at this many clips, bytes of samples, or seconds: what a kill costs, and the memory."""


class Task(NamedTuple):
    """A clip to decode: its number in the caller's list, its key and `Utterance.audio`."""

    number: int
    key: bytes
    audio: str


class ClipResult(NamedTuple):
    """What became of one clip, as its process reports it; the samples are in a file.

    Attributes:
        number: of its task.
        seconds: of audio, 0 where it was refused.
        refused: a fault that may be gone the next time, so that nothing is kept of the clip.
    """

    number: int
    seconds: float
    refused: Fault | None = None


def decode(task: Task, limit_s: float) -> Decoded | ClipResult:
    """Decode one clip; any error refuses this clip alone. A `ClipResult` if it is to be tried again the next time."""
    try:
        source = sources.fetch(task.audio)
    except FileNotFoundError as error:
        return ClipResult(task.number, 0.0, Fault("missing", str(error)))
    except Exception as error:
        return ClipResult(task.number, 0.0, Fault("can't be fetched", _line(error)))
    try:
        clip = load(source, max_s=limit_s)
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
    except AudioRefused as refused:
        if refused.reason == "missing":  # it may come, and then has another stamp
            return ClipResult(task.number, 0.0, Fault(refused.reason, refused.detail))
        limit = limit_s if refused.reason == "too long" else 0.0
        return Decoded(task.key, refused.reason, refused.detail, limit)
    except Exception as error:
        return ClipResult(task.number, 0.0, Fault("failed", _line(error)))


class Written:
    """A message: everything that was reported so far is on disk."""


class Done:
    """A message: nothing is left to decode, and everything is on disk."""


class _NoPandas(MetaPathFinder):
    """Keep pyarrow from importing pandas at its first array: a third of a second and 40 MB, for nothing here."""

    def find_spec(self, fullname: str, *rest: object) -> None:
        if fullname == "pandas":
            raise ImportError("not needed")


class _Unwritten:
    """Decoded clips that are not on disk yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._clips: list[Decoded] = []
        self._bytes, self._began = 0, time.monotonic()

    def add(self, clip: Decoded) -> None:
        self._clips.append(clip)
        self._bytes += clip.samples.nbytes

    def is_due(self) -> bool:
        """Whether there is enough for a file."""
        waited_s = time.monotonic() - self._began
        return len(self._clips) >= _ROWS or self._bytes >= _BYTES or waited_s > _SECONDS

    def write(self) -> None:
        """Write the clips as one file.

        Raises:
            OSError: it can't be written.
        """
        if self._clips:
            clip_store.write(self._folder, self._clips)
        self._clips.clear()
        self._bytes, self._began = 0, time.monotonic()


def serve() -> None:
    """Decode the tasks that come in, write files and report each clip, until nothing is left; run by a child."""
    tasks_in, reports_out = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller has it too, and sends the other one
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    sys.meta_path.insert(0, _NoPandas())
    os.dup2(2, 1)  # a library that prints must not garble the reports
    folder, limit_s = pickle.load(tasks_in)
    unwritten = _Unwritten(folder)

    def report(message: ClipResult | Written | Done | OSError) -> None:
        pickle.dump(message, reports_out)
        reports_out.flush()

    try:
        _decode_all(tasks_in, limit_s, unwritten, report)
    except SystemExit:  # the caller stops, or was killed: its next run need not decode these again
        unwritten.write()
    except BrokenPipeError:
        unwritten.write()
        os._exit(0)
    except OSError as error:
        report(error)


def _decode_all(
    tasks_in: IO[bytes],
    limit_s: float,
    unwritten: _Unwritten,
    report: Callable[[ClipResult | Written | Done | OSError], None],
) -> None:
    """Decode lists of tasks until an empty one comes, or no more; everything is on disk at the end."""
    while True:
        try:
            tasks = pickle.load(tasks_in)
        except EOFError:
            unwritten.write()
            return
        for task in tasks:
            result = decode(task, limit_s)
            if isinstance(result, Decoded):
                unwritten.add(result)
                report(ClipResult(task.number, len(result.samples) / SAMPLE_RATE))
            else:
                report(result)
            if unwritten.is_due():
                unwritten.write()
                report(Written())
        if not tasks:
            unwritten.write()
            report(Done())
            return


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
