"""Keep a long recording on disk, mono at 16 kHz, and read it piece by piece: memory does not grow with its length.

In: a path. Out: something with a length, whose slices are samples as `load` would give them. Called by `transcribe`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from hausa_asr.audio.decoders import AudioRefused, Sound, Source, decode
from hausa_asr.audio.load import QUIETEST, carriers, load
from hausa_asr.audio.resample import Resampler
from hausa_asr.utterance import SAMPLE_RATE

SHORT_S = 600.0
"""Recordings of up to this many seconds are kept in memory, where they take 38 MB at most."""


def open_recording(source: Source, max_s: float) -> np.ndarray | LongRecording:
    """Open a recording: a short one as its samples, (S,), a long one on disk.

    Args:
        source: a path, or the bytes of a file.
        max_s: refuse what is longer, in seconds.

    Raises:
        AudioRefused: it can't be read, has nothing to hear, is too long, or the disk has no room for it.
    """
    try:
        return load(source, max_s=min(max_s, SHORT_S)).samples
    except AudioRefused as refused:
        if refused.reason != "too long" or max_s <= SHORT_S:
            raise
    return LongRecording(source, max_s)


class LongRecording:
    """A recording in a file without a name, which is gone with it: 230 MB for an hour and channel.

    `recording[start:end]` are its samples, (S,) float32. What channels are mixed, and how loud, is known at the end
    only, so the file has all of them. Arguments and errors are those of `open_recording`.
    """

    def __init__(self, source: Source, max_s: float) -> None:
        self._max_s = max_s
        try:
            self._file = tempfile.TemporaryFile(prefix="hausa-asr-recording-")  # noqa: SIM115  # open while it lives
        except OSError as error:
            raise AudioRefused("no room", f"for a long recording: {error.strerror}") from error
        try:
            decode(source, max_s, self._keep)
        except BaseException:
            with suppress(OSError):
                self._file.close()
            raise

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> np.ndarray:
        start, end, step = part.indices(self._length)
        assert step == 1
        size = 4 * len(self._weights)
        read = os.pread(self._file.fileno(), max(0, end - start) * size, start * size)
        return np.frombuffer(read, np.float32).reshape(-1, len(self._weights)) @ self._weights

    def _keep(self, blocks: Iterator[Sound]) -> None:
        """Write the blocks at 16 kHz; then find out how they are mixed."""
        self._file.seek(0)
        self._file.truncate()
        self._length = 0
        self._products, self._peak, source_peak = np.zeros(()), 0.0, 0.0
        self._low, self._high = np.inf, -np.inf
        resamplers: list[Resampler] = []
        for channels, rate in blocks:
            resamplers = resamplers or [Resampler(rate) for _ in channels]
            source_peak = float(np.maximum(source_peak, np.abs(channels).max(initial=0.0)))  # NaN stays
            if not np.isfinite(source_peak):
                raise AudioRefused("nan", "samples that are not numbers, or infinite")
            self._write([resampler(channel) for resampler, channel in zip(resamplers, channels, strict=True)])
        nothing = np.zeros(0, np.float32)
        self._write([resampler(nothing, last=True) for resampler in resamplers])
        if self._length > self._max_s * SAMPLE_RATE:
            raise AudioRefused("too long", f"more than {self._max_s:g} s")
        if not self._length:
            raise AudioRefused("empty", "no samples")
        if self._high - self._low < 2 * QUIETEST:
            raise AudioRefused("silent", f"peak {self._peak:.6f}")
        # As `load` does it: nothing is louder than 1, before and after.
        self._weights = (carriers(self._products / self._length) / max(1.0, source_peak, self._peak)).astype(np.float32)

    def _write(self, channels: list[np.ndarray]) -> None:
        block = np.stack(channels)
        try:
            self._file.write(block.T.astype(np.float32).tobytes())
            self._file.flush()
        except OSError as error:
            raise AudioRefused(
                "no room", f"for a long recording in {tempfile.gettempdir()}: {error.strerror}"
            ) from error
        self._length += block.shape[1]
        self._products = self._products + np.einsum("cs,ds->cd", block, block, dtype=np.float64)
        self._peak = max(self._peak, float(np.abs(block).max(initial=0.0)))
        self._low = min(self._low, float(block.min(initial=np.inf)))
        self._high = max(self._high, float(block.max(initial=-np.inf)))
