"""Audio of any kind in, mono float32 at 16 kHz out, or a refusal that says why.

One decoder for training, evaluation and serving: decoders disagree on the length and the level of the same file.
Called by `prepare` for every clip, and by whatever transcribes a file.
"""

from __future__ import annotations

import io
import math
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hausa_asr.manifest import SAMPLE_RATE

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

Source = str | Path | bytes

_WINDOW, _HOP = 400, 320
_QUIETEST = 1e-4
"""-80 dB of full scale: three steps of 16 bits, the dither of a microphone that was off."""
_LOWEST_RATE, _HIGHEST_RATE = 4_000, 384_000
# FFmpeg also opens playlists, subtitles and pictures, some of which make it read other files. Only sound is wanted.
_CONTAINERS = "mov,matroska,webm,aac,mp3,ogg,flac,wav,w64,aiff,caf,amr,asf,avi,mpegts,mpeg,flv,au,ac3,eac3,ape,tta,wv"


class AudioRefused(Exception):
    """A clip that nothing can be learned from.

    Attributes:
        reason: short and always the same for the same fault: "missing", "unreadable", "empty", "too short",
            "too long", "silent", "nan" or "sample rate".
        detail: what exactly was found; may be "".
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


@dataclass(frozen=True)
class Clip:
    """A decoded clip.

    Attributes:
        samples: (S,) float32 mono at 16 kHz, in [-1, 1].
        source_rate: samples per second before resampling.
    """

    samples: np.ndarray
    source_rate: int


def read(source: Source) -> np.ndarray:
    """The samples of an audio file, given by its path or as its bytes: (S,) float32 mono at 16 kHz, in [-1, 1].

    Raises:
        AudioRefused: it can't be read, or has nothing to hear.
    """
    return load(source).samples


def load(source: Source, max_s: float | None = None) -> Clip:
    """Like `read`, and with the rate of the source.

    Args:
        source: a path, or the bytes of a file.
        max_s: refuse what is longer, in seconds, without decoding all of it; None for no limit.

    Raises:
        AudioRefused: it can't be read, has nothing to hear, or is too long.
    """
    _check_file(source)
    try:
        channels, rate = _through_soundfile(source, max_s)
    except AudioRefused:
        raise
    except Exception as first:  # libsndfile does not know the format, or lost its way in it
        try:
            channels, rate = _through_pyav(source, max_s)
        except AudioRefused:
            raise
        except Exception as second:
            raise AudioRefused("unreadable", f"{_line(first)}; {_line(second)}") from second
    if channels.size == 0:
        raise AudioRefused("empty", "no samples")
    if not np.isfinite(channels).all():
        raise AudioRefused("nan", "samples that are not numbers, or infinite")
    samples = _resampled(_mono(_within_one(channels)), rate)
    if max_s is not None and len(samples) > max_s * SAMPLE_RATE:
        raise AudioRefused("too long", f"more than {max_s:g} s")
    if frames(len(samples)) == 0:
        raise AudioRefused("too short", f"{len(samples)} samples at 16 kHz")
    if np.ptp(samples) < 2 * _QUIETEST:
        raise AudioRefused("silent", f"peak {np.abs(samples).max():.6f}")
    return Clip(samples, rate)


def frames(n_samples: int) -> int:
    """Frames (T) that a wav2vec 2.0 encoder makes of n samples at 16 kHz: 25 ms each, one every 20 ms, at least 0.

    The published encoders' seven convolutions amount to one of kernel 400 and stride 320 (arXiv:2006.11477, 4.2).
    """
    return max(0, (n_samples - _WINDOW) // _HOP + 1)


def _check_file(source: Source) -> None:
    """Refuse what is no file before a decoder waits on it (a pipe) or words it badly (a folder)."""
    if isinstance(source, bytes):
        if not source:
            raise AudioRefused("empty", "0 bytes")
        return
    try:
        found = Path(source).stat()
    except FileNotFoundError:
        detail = "a link to nothing" if Path(source).is_symlink() else "no such file"
        raise AudioRefused("missing", detail) from None
    except (OSError, ValueError) as error:
        raise AudioRefused("unreadable", _line(error)) from None
    if not stat.S_ISREG(found.st_mode):
        raise AudioRefused("unreadable", "a folder" if stat.S_ISDIR(found.st_mode) else "not a file")
    if found.st_size == 0:
        raise AudioRefused("empty", "0 bytes")


# soundfile, PyAV and torch are imported when first used: `frames` and `AudioRefused` are needed where they are not
# installed, and torch alone takes seconds to load.


def _through_soundfile(source: Source, max_s: float | None) -> tuple[np.ndarray, int]:
    """Samples (C, S) and their rate, decoded by libsndfile: wav, flac, mp3, ogg, opus, aiff, au, caf."""
    import soundfile

    with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as file:
        rate = _checked_rate(file.samplerate)
        limit = -1 if max_s is None else int(max_s * rate) + rate  # a second more, so that the length tells
        samples = file.read(limit, dtype="float32", always_2d=True)
        _check_whole(len(samples), file.frames if limit < 0 else min(file.frames, limit))
    return samples.T, rate


def _through_pyav(source: Source, max_s: float | None) -> tuple[np.ndarray, int]:
    """Samples (C, S) and their rate, decoded by FFmpeg: m4a, webm, mp4, wma, amr and the rest."""
    import av

    file = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    with av.open(file, mode="r", options={"format_whitelist": _CONTAINERS}) as container:
        if not container.streams.audio:
            raise AudioRefused("unreadable", "no sound in it")
        stream = container.streams.audio[0]
        rate = _checked_rate(stream.rate)
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
            keep(resampler.resample(frame))
            if n_samples > limit:
                break
        else:
            keep(resampler.resample(None))
        if container.duration is not None and n_samples <= limit:
            _check_whole(n_samples, int(container.duration / 1e6 * rate))
    return np.concatenate(blocks, axis=1) if blocks else np.zeros((1, 0), np.float32), rate


def _checked_rate(rate: int) -> int:
    if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        raise AudioRefused("sample rate", f"{rate} Hz, which no speech is recorded at")
    return rate


def _check_whole(found: int, stated: int) -> None:
    """Refuse a file cut off on its way here: its transcript is of more than can be heard."""
    if 0 < found < 0.95 * stated:
        raise AudioRefused("unreadable", f"cut off: {found} of {stated} samples")


def _within_one(samples: np.ndarray) -> np.ndarray:
    """Samples scaled into [-1, 1]: lossy codecs overshoot a little, and some float files hold 16-bit numbers."""
    peak = float(np.abs(samples).max())
    return samples if peak <= 1 else samples / np.float32(peak)


def _mono(channels: np.ndarray) -> np.ndarray:
    """(C, S) to (S,): the mean of the channels that carry the sound.

    A dead channel would halve the level, and two of opposite polarity would cancel out: neither is averaged in.
    """
    if len(channels) == 1:
        return channels[0]
    power = np.square(channels, dtype=np.float64).mean(axis=1)
    alive = power > 1e-3 * power.max()
    mixed = channels[alive].mean(axis=0, dtype=np.float32) if alive.any() else channels[0]
    loudest = int(power.argmax())
    if np.square(mixed, dtype=np.float64).mean() < 0.1 * power[loudest]:
        return channels[loudest]
    return mixed


def _resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    """(S,) at `rate` to (S,) float32 at 16 kHz."""
    samples = np.ascontiguousarray(samples, dtype=np.float32)
    if rate == SAMPLE_RATE:
        return samples
    import torch
    from torchaudio.functional import resample

    # The filter bank grows with rate / gcd: 44,101 Hz would take gigabytes. The nearest 10 Hz is 0.1 % off at most.
    if math.gcd(rate, SAMPLE_RATE) < 10:
        rate = round(rate, -1)
    return _within_one(resample(torch.from_numpy(samples), rate, SAMPLE_RATE).numpy())


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
