"""Decode audio of any kind to mono float32 at 16 kHz, or refuse it with a reason.

In: a path, or the bytes of a file. Out: a `Clip`. One decoder for training, evaluation and serving: decoders disagree
on the length and the level of the same file. Called by `prepare` for every clip, and by whatever transcribes a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hausa_asr.audio.decoders import AudioRefused, Sound, Source, decode
from hausa_asr.audio.resample import to_16_khz
from hausa_asr.ctc import frames
from hausa_asr.utterance import SAMPLE_RATE

__all__ = ["AudioRefused", "Clip", "load", "read"]

VERSION = 2
"""Of what `load` makes of a file; raised with every change that gives other samples or another refusal, since that is
what makes prepared datasets decode their clips again."""
ONE_CHANNEL = "one silent channel"
"""The warning of a clip with a channel that carries nothing: only the others are used."""

QUIETEST = 1e-4
"""-80 dB of full scale: three steps of 16 bits, the dither of a microphone that was off."""


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
    channels, rate = decode(source, max_s, _together)
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
    if float(samples.max()) - float(samples.min()) < 2 * QUIETEST:
        raise AudioRefused("silent", f"peak {np.abs(samples).max():.6f}")
    return Clip(samples, rate, warnings)


def _together(blocks: Iterator[Sound]) -> Sound:
    """All blocks of a clip as one."""
    parts = list(blocks)
    channels = parts[0].channels if len(parts) == 1 else np.concatenate([part.channels for part in parts], axis=1)
    return Sound(channels, parts[0].rate)


def _peak(samples: np.ndarray) -> float:
    """Find the largest absolute value, without a copy of all samples."""
    return float(np.maximum(samples.max(), -samples.min()))


def _within_one(samples: np.ndarray) -> np.ndarray:
    """Scale samples into [-1, 1]: lossy codecs overshoot a little, and some float files hold 16-bit numbers."""
    peak = _peak(samples)
    return samples if peak <= 1 else samples / np.float32(peak)


def _mono(channels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Mix (C, S) to (S,), the mean of the channels that carry the sound; also give the warnings."""
    if len(channels) == 1:
        return channels[0], ()
    # Sums in float64 without a copy in float64, which for an hour of stereo would take gigabytes.
    products = np.einsum("cs,ds->cd", channels, channels, dtype=np.float64) / channels.shape[1]
    heard = channels[carriers(products) > 0]
    return heard.mean(axis=0, dtype=np.float32), () if _alive(products).all() else (ONE_CHANNEL,)


def carriers(products: np.ndarray) -> np.ndarray:
    """The share of each channel in the mix, (C,), from the mean products of their samples, (C, C).

    A dead channel would halve the level, and two of opposite polarity would cancel out: neither is averaged in.
    """
    power, alive = products.diagonal(), _alive(products)
    weights = alive / alive.sum() if alive.any() else np.eye(len(power))[0]
    loudest = power.argmax()
    return weights if weights @ products @ weights >= 0.1 * power[loudest] else np.eye(len(power))[loudest]


def _alive(products: np.ndarray) -> np.ndarray:
    return products.diagonal() > 1e-3 * products.diagonal().max()
