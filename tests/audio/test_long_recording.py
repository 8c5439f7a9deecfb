"""A long recording on disk has the samples that it has in memory, and takes no more memory for being long."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from hausa_asr.audio import long_recording as module
from hausa_asr.audio.load import AudioRefused, load
from hausa_asr.audio.long_recording import LongRecording, open_recording


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHORT_S", 2.0)


def noise(seconds: float, rate: int, channels: int, level: float = 0.1) -> np.ndarray:
    return np.random.default_rng(0).normal(0, level, (round(seconds * rate), channels)).astype(np.float32)


def both(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """The samples of a file, in memory and from disk."""
    kept = open_recording(file, 1e6)
    assert isinstance(kept, LongRecording)
    return load(file).samples, kept[0 : len(kept)]


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 44_101, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_samples_are_those_of_load_also_across_blocks(tmp_path: Path, rate: int, channels: int) -> None:
    file = tmp_path / "a.wav"
    soundfile.write(file, noise(130.37, rate, channels), rate, subtype="FLOAT")  # three blocks
    in_memory, from_disk = both(file)
    assert len(in_memory) == len(from_disk)
    np.testing.assert_allclose(from_disk, in_memory, atol=1e-6)


def test_channels_are_mixed_as_load_mixes_them(tmp_path: Path) -> None:
    one = noise(3, 16_000, 1)
    quiet = one * np.float32(1e-3)
    for name, pair in {"dead": (one, 0 * one), "opposite": (one, -one), "quiet": (quiet, one)}.items():
        file = tmp_path / f"{name}.wav"
        soundfile.write(file, np.hstack(pair), 16_000, subtype="FLOAT")
        in_memory, from_disk = both(file)
        np.testing.assert_allclose(from_disk, in_memory, atol=1e-6, err_msg=name)
        assert from_disk.std() == pytest.approx(0.1, rel=0.05), name


def test_what_is_too_loud_is_scaled(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    soundfile.write(file, noise(3, 44_100, 1, level=3000.0), 44_100, subtype="FLOAT")
    in_memory, from_disk = both(file)
    assert np.abs(from_disk).max() <= 1 and from_disk.std() == pytest.approx(in_memory.std(), rel=0.1)


def test_a_file_that_ffmpeg_must_read_is_read_in_blocks_too(tmp_path: Path) -> None:
    file = tmp_path / "a.m4a"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        samples = noise(125, 16_000, 1)[:, 0]
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    in_memory, from_disk = both(file)
    assert np.array_equal(in_memory, from_disk) and len(in_memory) > 124 * 16_000


@pytest.mark.parametrize(
    ("reason", "value", "seconds"), [("too long", 0.1, 5.0), ("nan", np.nan, 5.0), ("silent", 0.3, 5.0)]
)
def test_what_load_refuses_is_refused(tmp_path: Path, reason: str, value: float, seconds: float) -> None:
    samples = noise(seconds, 16_000, 1)
    samples[-100:] = value
    if reason == "silent":
        samples[:] = value
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(AudioRefused) as refused:
        open_recording(tmp_path / "a.wav", 4.0 if reason == "too long" else 60.0)
    assert refused.value.reason == reason


def test_a_short_one_stays_in_memory(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1.5, 16_000, 1), 16_000)
    assert isinstance(open_recording(tmp_path / "a.wav", 1e6), np.ndarray)


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    peaks = []
    for minutes in (4, 16):
        file = tmp_path / f"{minutes}.flac"
        soundfile.write(file, noise(60 * minutes, 16_000, 2), 16_000)
        tracemalloc.start()
        kept = open_recording(file, 1e6)
        for start in range(0, len(kept), 20 * 16_000):
            assert len(kept[start : start + 320_000])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
