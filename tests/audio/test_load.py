"""Audio: every format a corpus comes in is heard alike, and what can't be heard is refused by name."""

import io
import os
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from hausa_asr.audio import fingerprint
from hausa_asr.audio.load import ONE_CHANNEL, AudioRefused, load, read
from hausa_asr.audio.resample import to_16_khz
from hausa_asr.ctc import frames


def tone(duration_s: float, rate: int, hertz: float = 440.0, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(duration_s * rate)) / rate)).astype(np.float32)


def pitch(samples: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() / len(samples) * 16_000)


def write_av(path: Path, codec: str, samples: np.ndarray, rate: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def reason(source: Path | bytes, max_s: float | None = None) -> str:
    with pytest.raises(AudioRefused) as refused:
        load(source, max_s)
    return refused.value.reason


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 44_101, 48_000])
def test_any_rate_keeps_pitch_and_length(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1.5, rate), rate)
    clip = load(tmp_path / "a.wav")
    assert clip.source_rate == rate
    assert clip.samples.dtype == np.float32 and clip.samples.ndim == 1
    assert len(clip.samples) == pytest.approx(24_000, abs=10)
    assert pitch(clip.samples) == pytest.approx(440, abs=1)
    assert np.abs(clip.samples).max() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg", "opus", "m4a", "webm"])
def test_any_format_from_a_file_and_from_its_bytes(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"wata 'rana' \"mai\" ƙyau.{kind}"
    if kind in ("m4a", "webm"):
        write_av(path, {"m4a": "aac", "webm": "libopus"}[kind], tone(1, 48_000), 48_000)
    elif kind == "opus":
        soundfile.write(path, tone(1, 48_000), 48_000, format="OGG", subtype="OPUS")
    else:
        soundfile.write(path, tone(1, 48_000), 48_000)
    samples = read(path)
    assert len(samples) == pytest.approx(16_000, abs=1_200)  # lossy codecs pad
    assert pitch(samples) == pytest.approx(440, abs=2)
    np.testing.assert_array_equal(read(path.read_bytes()), samples)
    np.testing.assert_array_equal(read(str(path)), samples)


def test_sixteen_bits_at_16_khz_come_through_bit_for_bit(tmp_path: Path) -> None:
    integers = np.random.default_rng(0).integers(-32_768, 32_768, 8_000, dtype=np.int16)
    soundfile.write(tmp_path / "a.flac", integers, 16_000)
    np.testing.assert_array_equal(read(tmp_path / "a.flac") * 32_768, integers)


def test_a_dead_or_inverted_channel_does_not_silence_the_other(tmp_path: Path) -> None:
    sound = tone(0.5, 16_000)
    silence = np.zeros_like(sound)
    for name, channels in {
        "left": (sound, silence),
        "right": (silence, sound),
        "hiss": (sound, 1e-3 * sound[::-1]),
        "inverted": (sound, -sound),
        "both": (sound, sound),
    }.items():
        soundfile.write(tmp_path / f"{name}.wav", np.stack(channels, axis=1), 16_000, subtype="FLOAT")
        clip = load(tmp_path / f"{name}.wav")
        np.testing.assert_allclose(clip.samples, sound, atol=1e-6, err_msg=name)
        assert clip.warnings == ((ONE_CHANNEL,) if name in ("left", "right", "hiss") else ()), name


def test_samples_out_of_range_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(0.5, 16_000) * 32_768, 16_000, subtype="FLOAT")
    samples = read(tmp_path / "a.wav")
    assert np.abs(samples).max() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(samples / samples.max(), tone(0.5, 16_000) / 0.3, atol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(tmp_path: Path, bad: float) -> None:
    sound = tone(0.5, 16_000)
    sound[100] = bad
    soundfile.write(tmp_path / "a.wav", sound, 16_000, subtype="FLOAT")
    assert reason(tmp_path / "a.wav") == "nan"


def test_clips_with_nothing_to_hear_are_refused(tmp_path: Path) -> None:
    for name, samples in {
        "zeros": np.zeros(16_000),
        "offset": np.full(16_000, 0.5),
        "faint": tone(1, 16_000) * 1e-5,
    }.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 16_000, subtype="FLOAT")
        assert reason(tmp_path / f"{name}.wav") == "silent", name
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16_000)
    assert reason(tmp_path / "none.wav") == "empty"
    soundfile.write(tmp_path / "one.wav", np.ones(1), 48_000)
    assert reason(tmp_path / "one.wav") == "one sample"
    for n_samples in (2, 399):
        soundfile.write(tmp_path / "short.wav", tone(1, 16_000)[:n_samples], 16_000)
        assert reason(tmp_path / "short.wav") == "too short", n_samples
    soundfile.write(tmp_path / "least.wav", tone(1, 16_000)[:400], 16_000)
    assert len(read(tmp_path / "least.wav")) == 400


def test_what_is_no_audio_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "zero.wav").touch()
    (tmp_path / "text.wav").write_text("ina kwana " * 100)
    (tmp_path / "text.raw").write_text("ina kwana " * 100)
    (tmp_path / "noise.mp3").write_bytes(np.random.default_rng(0).bytes(5_000))
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "gone.wav")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{tmp_path}/zero.wav\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m3u8").write_text(playlist)
    assert {path.name: reason(path) for path in tmp_path.iterdir()} == {
        "zero.wav": "empty",
        "text.wav": "unreadable",
        "text.raw": "unreadable",
        "noise.mp3": "unreadable",
        "folder.wav": "a folder",
        "dangling.wav": "missing",
        "loop.wav": "unreadable",
        "pipe.wav": "unreadable",
        "list.m3u8": "unreadable",
    }
    assert reason(b"") == "empty"
    assert reason(b"ina kwana") == "unreadable"
    assert reason(Path("a\0b.wav")) == "unreadable"
    assert reason(tmp_path / "nowhere" / "a.wav") == "missing"


def test_a_file_cut_off_on_its_way_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    for name in ("a.flac", "a.mp3"):
        soundfile.write(tmp_path / name, noise, 16_000)
        whole = (tmp_path / name).read_bytes()
        assert reason(whole[: len(whole) // 2]) == "cut off", name


def test_long_files_are_refused_without_reading_all_of_them(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(3, 16_000), 16_000)
    write_av(tmp_path / "a.m4a", "aac", tone(3, 16_000), 16_000)
    for name in ("a.wav", "a.m4a"):
        assert reason(tmp_path / name, max_s=1) == reason(tmp_path / name, max_s=2.9) == "too long"
        assert len(load(tmp_path / name, max_s=3.2).samples) >= 48_000


def test_frames_are_those_of_the_seven_convolutions() -> None:
    def convolved(length: int) -> int:
        for kernel, stride in ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)):
            if length < kernel:
                return 0
            length = (length - kernel) // stride + 1
        return length

    for n_samples in (*range(1_500), 16_000, 48_123, 480_000):
        assert frames(n_samples) == convolved(n_samples), n_samples
    assert (frames(400), frames(719), frames(720), frames(16_000)) == (1, 1, 2, 49)


def written(samples: np.ndarray, rate: int, **more: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **more)
    return file.getvalue()


def noise(duration_s: float, rate: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, round(duration_s * rate)).astype(np.float32)


def test_a_header_that_says_nothing_follows_is_no_empty_file() -> None:
    whole = bytearray(written(tone(1, 16_000), 16_000, format="WAV"))
    at = whole.index(b"data") + 4
    assert int.from_bytes(whole[at : at + 4], "little") == 32_000
    whole[at : at + 4] = bytes(4)
    assert reason(bytes(whole)) == "zero data size"
    whole[at : at + 4] = b"\xff" * 4  # as ffmpeg writes into a pipe
    assert len(read(bytes(whole))) == 16_000
    assert reason(written(np.zeros(0), 16_000, format="WAV")) == "empty"


@pytest.mark.parametrize("kind", ["wav", "ogg", "opus"])
@pytest.mark.parametrize("as_path", [True, False])
def test_files_without_their_end_are_refused_in_every_container(tmp_path: Path, kind: str, as_path: bool) -> None:
    how = {"wav": {"format": "WAV"}, "ogg": {"format": "OGG"}, "opus": {"format": "OGG", "subtype": "OPUS"}}[kind]
    whole = written(noise(4, 48_000), 48_000, **how)
    (tmp_path / f"a.{kind}").write_bytes(whole[: int(0.6 * len(whole))])
    assert reason(tmp_path / f"a.{kind}" if as_path else (tmp_path / f"a.{kind}").read_bytes()) == "cut off"
    assert len(read(whole)) == pytest.approx(64_000, abs=1_200)


@pytest.mark.parametrize("kind", ["WAV", "MP3", "OGG"])
def test_recordings_of_two_rates_in_one_file_are_refused(kind: str) -> None:
    one, other = (written(noise(1, rate), rate, format=kind) for rate in (16_000, 32_000))
    assert len(read(one)) == pytest.approx(16_000, abs=1_200)
    assert reason(one + other) == reason(other + one) == "sample rate changes"
    if kind != "MP3":  # frames of one rate are simply a longer mp3
        assert reason(one + one) == "joined files"


def test_a_rate_that_changes_in_other_containers_is_refused(tmp_path: Path) -> None:
    for rate in (16_000, 32_000):
        write_av(tmp_path / f"{rate}.aac", "aac", noise(1, rate), rate)
    joined = (tmp_path / "16000.aac").read_bytes() + (tmp_path / "32000.aac").read_bytes()
    assert reason(joined) == "sample rate changes"


def test_mp3_tags_and_junk_between_frames_are_passed_over() -> None:
    plain = written(noise(1, 16_000), 16_000, format="MP3")
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 2, 0]) + b"\xff\xf3\x90\xc4" * 64  # 256 bytes that look like frames
    assert len(tag) == 10 + 256
    for odd in (tag + plain, plain + b"TAG" + bytes(125), tag + plain + tag + plain):
        assert len(read(odd)) >= 15_000


def test_more_numbers_than_any_speech_has_are_refused_before_they_are_read() -> None:
    header = b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 60, 96_000, 0, 120, 16)
    assert reason(header + b"data" + struct.pack("<I", 12_000) + bytes(12_000)) == "sample rate"


def test_speech_without_anything_above_4_khz_is_known_whatever_its_rate() -> None:
    wide = noise(2, 48_000)
    narrow = to_16_khz(wide, 96_000)  # half the samples at 16 kHz: what a recording at 8 kHz keeps
    for samples, rate, expected in (
        (wide, 48_000, False),
        (narrow[:8_000], 8_000, True),
        (np.repeat(narrow, 1), 8_000, True),
    ):
        for kind in ("WAV", "MP3"):
            clip = load(written(samples, rate, format=kind))
            assert fingerprint.is_narrow(fingerprint.power(clip.samples)) == expected, (rate, kind)
            again = load(written(clip.samples, 16_000, format=kind))  # a file that claims 16 kHz
            assert fingerprint.is_narrow(fingerprint.power(again.samples)) == expected, (rate, kind)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000])
def test_resampling_is_that_of_torchaudio(rate: int) -> None:
    import torch
    from torchaudio.functional import resample

    for count in (1, 2, 399, 20_011):
        samples = noise(count / rate, rate)
        expected = resample(torch.from_numpy(samples), rate, 16_000).numpy()
        np.testing.assert_allclose(to_16_khz(samples, rate), expected, atol=1e-5)
