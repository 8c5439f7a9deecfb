"""Decode audio files in blocks of a minute: with libsndfile, or with FFmpeg where that fails.

In: a path, or the bytes of a file. Out: blocks of samples, as the file has them. Called by `load`, which wants a clip
whole, and by `long_recording`, which keeps one on disk.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from hausa_asr.audio import container_faults

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

Source = str | Path | bytes
Gathered = TypeVar("Gathered")

_LOWEST_RATE, _HIGHEST_RATE = 4_000, 384_000
_MOST_A_SECOND = 1_600_000
"""Numbers, over all channels: no speech has more, and a minute of them would take 400 MB."""
_HEADER_BYTES, _WALKED_BYTES = 1 << 20, 1 << 24
"""Of a larger file only the header is checked, not every frame."""
# FFmpeg also opens playlists, subtitles and pictures, some of which make it read other files. Only sound is wanted.
_CONTAINERS = "mov,matroska,webm,aac,mp3,ogg,flac,wav,w64,aiff,caf,amr,asf,avi,mpegts,mpeg,flv,au,ac3,eac3,ape,tta,wv"
_BLOCK_S = 60.0
"""Seconds of a block: a clip is one."""


class AudioRefused(Exception):
    """A clip that nothing can be learned from.

    Attributes:
        reason: short and always the same for the same fault: "missing", "a folder", "unreadable" (no audio in it),
            "empty", "zero data size" (its header says so), "cut off" (shorter than its header says), "one sample",
            "too short", "too long", "silent", "nan" (or infinite), "sample rate" (of no speech), "sample rate changes"
            or "joined files" (several recordings of which only the first would be heard).
        detail: what exactly is wrong; may be "".
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class _LostError(Exception):
    """A file whose header was read and whose sound could not be."""


class Sound(NamedTuple):
    """Decoded samples (C, S) of C channels, and their rate in Hz."""

    channels: np.ndarray
    rate: int


def decode(source: Source, max_s: float | None, gather: Callable[[Iterator[Sound]], Gathered]) -> Gathered:
    """Let `gather` take the blocks of a file: libsndfile's, or anew FFmpeg's where that fails.

    Args:
        source: a path, or the bytes of a file.
        max_s: stop a second after this many; None for all.
        gather: takes one block or more, all of one rate and with the same channels.

    Raises:
        AudioRefused: it can't be read.
    """
    _check_file(source)
    if fault := container_faults.fault(*_beginning(source)):
        raise AudioRefused(*fault)
    try:
        return gather(_through_soundfile(source, max_s))
    except AudioRefused:
        raise
    except Exception as first:  # libsndfile does not know the format, or lost its way in it
        try:
            return gather(_through_pyav(source, max_s))
        except AudioRefused:
            raise
        except Exception as second:
            if isinstance(first, _LostError):
                raise AudioRefused("cut off", f"or damaged: {_line(first)}") from second
            detail = f"{_line(first)}; {_line(second)}"
            if not isinstance(source, bytes):
                detail = detail.replace(f"'{source}'", "it")  # whoever reads it knows the file's name
            raise AudioRefused("unreadable", detail) from second


def _check_file(source: Source) -> None:
    """Refuse what is no file: a decoder would wait on a pipe, and its error on a folder is unclear."""
    if isinstance(source, bytes):
        if not source:
            raise AudioRefused("empty", "0 bytes")
        return
    try:
        status = Path(source).stat()
    except FileNotFoundError:
        detail = "a link to nothing" if Path(source).is_symlink() else "no such file"
        raise AudioRefused("missing", detail) from None
    except (OSError, ValueError) as error:
        raise AudioRefused("unreadable", _line(error)) from None
    if not stat.S_ISREG(status.st_mode):
        if stat.S_ISDIR(status.st_mode):
            raise AudioRefused("a folder", "with the name of an audio file")
        raise AudioRefused("unreadable", "not a file")
    if status.st_size == 0:
        raise AudioRefused("empty", "0 bytes")


def _beginning(source: Source) -> tuple[bytes, int]:
    """Read enough of a file to check its structure, and the size of all of it in bytes."""
    if isinstance(source, bytes):
        return source, len(source)
    try:
        with open(source, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            return file.read(size if size <= _WALKED_BYTES else _HEADER_BYTES), size
    except OSError as error:
        raise AudioRefused("unreadable", _line(error)) from None


# soundfile and PyAV are imported when first used: `AudioRefused` is needed where they are not installed.


def _through_soundfile(source: Source, max_s: float | None) -> Iterator[Sound]:
    """Decode with libsndfile: wav, flac, mp3, ogg, opus, aiff, au, caf."""
    import soundfile

    with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as file:
        rate = _checked_rate(file.samplerate, file.channels)
        wanted = file.frames if max_s is None else min(file.frames, _limit(max_s, rate))
        done = 0
        while True:
            try:
                samples = file.read(min(int(_BLOCK_S * rate), wanted - done), dtype="float32", always_2d=True)
            except soundfile.SoundFileError as error:
                raise _LostError(str(error)) from error
            done += len(samples)
            if not done or len(samples):
                yield Sound(samples.T, rate)
            if not len(samples) or done >= wanted:
                break
        _check_whole(done, wanted)


def _through_pyav(source: Source, max_s: float | None) -> Iterator[Sound]:
    """Decode with FFmpeg: m4a, webm, mp4, wma, amr and the rest."""
    import av

    file = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    with av.open(file, mode="r", options={"format_whitelist": _CONTAINERS}) as container:
        if not container.streams.audio:
            raise AudioRefused("unreadable", "no sound in it")
        stream = container.streams.audio[0]
        rate = _checked_rate(stream.rate, stream.channels)
        resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
        limit = float("inf") if max_s is None else _limit(max_s, rate)
        block: list[np.ndarray] = []
        done = held = 0
        for frame in _to_the_end(container.decode(stream)):
            if frame is not None and frame.sample_rate != rate:
                raise AudioRefused("sample rate changes", f"from {rate} Hz to {frame.sample_rate} Hz")
            if done + held > limit:
                break
            for part in resampler.resample(frame):
                block.append(part.to_ndarray())
                held += part.samples
            if held >= _BLOCK_S * rate:
                yield Sound(np.concatenate(block, axis=1), rate)
                done, held, block = done + held, 0, []
        if block or not done:
            yield Sound(np.concatenate(block, axis=1) if block else np.zeros((1, 0), np.float32), rate)
        if container.duration is not None and done + held <= limit:
            _check_whole(done + held, int(container.duration / 1e6 * rate))


def _to_the_end(decoded: Iterator[AudioFrame]) -> Iterator[AudioFrame | None]:
    """The frames, then None, at which a resampler gives what it still holds."""
    yield from decoded
    yield None


def _limit(max_s: float, rate: int) -> int:
    """How many samples are read: a second more than wanted, so that the length shows."""
    return int(max_s * rate) + rate


def _checked_rate(rate: int, channels: int) -> int:
    if rate * channels > _MOST_A_SECOND:
        raise AudioRefused("sample rate", f"{rate} Hz in {channels} channels, which is no speech")
    if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        raise AudioRefused("sample rate", f"{rate} Hz, which no speech is recorded at")
    return rate


def _check_whole(decoded: int, stated: int) -> None:
    """Refuse a file that was cut off on its way here: its transcript is longer than its sound."""
    if 0 < decoded < 0.95 * stated:
        raise AudioRefused("cut off", f"{decoded} of {stated} samples")


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]
