"""Decode audio of any kind to mono float32 at 16 kHz, or refuse it with a reason.

In: a path, or the bytes of a file. Out: a `Clip`. One decoder for training, evaluation and serving: decoders disagree
on the length and the level of the same file. Called by `prepare` for every clip, and by whatever transcribes a file.
"""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hausa_asr.audio import container_faults
from hausa_asr.audio.resample import to_16_khz
from hausa_asr.ctc import frames
from hausa_asr.utterance import SAMPLE_RATE

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

Source = str | Path | bytes

VERSION = 2
"""Of what `load` makes of a file; raised with every change that gives other samples or another refusal, since that is
what makes prepared datasets decode their clips again."""
ONE_CHANNEL = "one silent channel"
"""The warning of a clip with a channel that carries nothing: only the others are used."""

_QUIETEST = 1e-4
"""-80 dB of full scale: three steps of 16 bits, the dither of a microphone that was off."""
_LOWEST_RATE, _HIGHEST_RATE = 4_000, 384_000
_MOST_A_SECOND = 1_600_000
"""Numbers, over all channels: no speech has more, and a minute of them would take 400 MB."""
_HEADER_BYTES, _WALKED_BYTES = 1 << 20, 1 << 24
"""Of a larger file only the header is checked, not every frame."""
# FFmpeg also opens playlists, subtitles and pictures, some of which make it read other files. Only sound is wanted.
_CONTAINERS = "mov,matroska,webm,aac,mp3,ogg,flac,wav,w64,aiff,caf,amr,asf,avi,mpegts,mpeg,flv,au,ac3,eac3,ape,tta,wv"


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


class _Sound(NamedTuple):
    """Decoded samples (C, S) of C channels, and their rate in Hz."""

    channels: np.ndarray
    rate: int


@dataclass(frozen=True)
class Clip:
    """A decoded clip.

    Attributes:
        samples: (S,) float32 mono at 16 kHz, in [-1, 1].
        source_rate: samples per second before resampling.
        warnings: what is odd about it: `ONE_CHANNEL`, or nothing.
    """

    samples: np.ndarray
    source_rate: int
    warnings: tuple[str, ...] = ()


def read(source: Source) -> np.ndarray:
    """Read the samples of an audio file: (S,) float32 mono at 16 kHz, in [-1, 1].

    Args:
        source: a path, or the bytes of a file.

    Raises:
        AudioRefused: it can't be read, or has nothing to hear.
    """
    return load(source).samples


def load(source: Source, max_s: float | None = None) -> Clip:
    """Decode an audio file: like `read`, and with the rate of the source.

    Args:
        source: a path, or the bytes of a file.
        max_s: refuse what is longer, in seconds, without decoding all of it; None for no limit.

    Raises:
        AudioRefused: it can't be read, has nothing to hear, or is too long.
    """
    _check_file(source)
    if fault := container_faults.fault(*_beginning(source)):
        raise AudioRefused(*fault)
    channels, rate = _decoded(source, max_s)
    if channels.size == 0:
        raise AudioRefused("empty", "no samples")
    peak = _peak(channels)
    if not np.isfinite(peak):  # the largest of numbers among which one is none is none
        raise AudioRefused("nan", "samples that are not numbers, or infinite")
    if channels.shape[1] == 1:
        raise AudioRefused("one sample", f"at {rate} Hz")
    mono, warnings = _mono(channels if peak <= 1 else _within_one(channels))
    samples = to_16_khz(np.ascontiguousarray(mono, dtype=np.float32), rate)
    if rate != SAMPLE_RATE:
        samples = _within_one(samples)
    if max_s is not None and len(samples) > max_s * SAMPLE_RATE:
        raise AudioRefused("too long", f"more than {max_s:g} s")
    if frames(len(samples)) == 0:
        raise AudioRefused("too short", f"{len(samples)} samples at 16 kHz")
    if float(samples.max()) - float(samples.min()) < 2 * _QUIETEST:
        raise AudioRefused("silent", f"peak {np.abs(samples).max():.6f}")
    return Clip(samples, rate, warnings)


def _decoded(source: Source, max_s: float | None) -> _Sound:
    """Decode with libsndfile, or with FFmpeg where that fails."""
    try:
        return _through_soundfile(source, max_s)
    except AudioRefused:
        raise
    except Exception as first:  # libsndfile does not know the format, or lost its way in it
        try:
            return _through_pyav(source, max_s)
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


def _through_soundfile(source: Source, max_s: float | None) -> _Sound:
    """Decode with libsndfile: wav, flac, mp3, ogg, opus, aiff, au, caf."""
    import soundfile

    with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as file:
        rate = _checked_rate(file.samplerate, file.channels)
        limit = -1 if max_s is None else int(max_s * rate) + rate  # a second more, so that the length shows
        try:
            samples = file.read(limit, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise _LostError(str(error)) from error
        _check_whole(len(samples), file.frames if limit < 0 else min(file.frames, limit))
    return _Sound(samples.T, rate)


def _through_pyav(source: Source, max_s: float | None) -> _Sound:
    """Decode with FFmpeg: m4a, webm, mp4, wma, amr and the rest."""
    import av

    file = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    with av.open(file, mode="r", options={"format_whitelist": _CONTAINERS}) as container:
        if not container.streams.audio:
            raise AudioRefused("unreadable", "no sound in it")
        stream = container.streams.audio[0]
        rate = _checked_rate(stream.rate, stream.channels)
        resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
        limit = float("inf") if max_s is None else max_s * rate + rate
        blocks: list[np.ndarray] = []
        n_samples = 0

        def keep(decoded: list[AudioFrame]) -> None:
            nonlocal n_samples
            for frame in decoded:
                blocks.append(frame.to_ndarray())
                n_samples += frame.samples

        for frame in container.decode(stream):
            if frame.sample_rate != rate:
                raise AudioRefused("sample rate changes", f"from {rate} Hz to {frame.sample_rate} Hz")
            keep(resampler.resample(frame))
            if n_samples > limit:
                break
        else:
            keep(resampler.resample(None))
        if container.duration is not None and n_samples <= limit:
            _check_whole(n_samples, int(container.duration / 1e6 * rate))
    return _Sound(np.concatenate(blocks, axis=1) if blocks else np.zeros((1, 0), np.float32), rate)


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


def _peak(samples: np.ndarray) -> float:
    """Find the largest absolute value, without a copy of all samples."""
    return float(np.maximum(samples.max(), -samples.min()))


def _within_one(samples: np.ndarray) -> np.ndarray:
    """Scale samples into [-1, 1]: lossy codecs overshoot a little, and some float files hold 16-bit numbers."""
    peak = _peak(samples)
    return samples if peak <= 1 else samples / np.float32(peak)


def _mono(channels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Mix (C, S) to (S,), the mean of the channels that carry the sound; also give the warnings.

    A dead channel would halve the level, and two of opposite polarity would cancel out: neither is averaged in.
    """
    if len(channels) == 1:
        return channels[0], ()
    # Sums in float64 without a copy in float64, which for an hour of stereo would take gigabytes.
    power = np.einsum("cs,cs->c", channels, channels, dtype=np.float64) / channels.shape[1]
    alive = power > 1e-3 * power.max()
    mixed = channels[alive].mean(axis=0, dtype=np.float32) if alive.any() else channels[0]
    loudest = int(power.argmax())
    if np.einsum("s,s->", mixed, mixed, dtype=np.float64) / len(mixed) < 0.1 * power[loudest]:
        mixed = channels[loudest]
    return mixed, () if alive.all() else (ONE_CHANNEL,)


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]
