"""The speech of the recorded worlds, in memory, for a machine that has torch and little else.

`demo` is spoken again by espeak-ng and must come out as it was prepared; `noisy` and `few` are made of it, with other
speeds and with noise; any other name is read from a folder with one long recording and a list of clips a split. A split
is kept as one file of int16 samples that all processes map.
"""

from __future__ import annotations

import json
import wave
from pathlib import Path
from typing import Any

import numpy as np

from hausa_asr.audio.resample import to_16_khz
from hausa_asr.text import encode
from hausa_asr.utterance import SAMPLE_RATE, Example

NOISY_TRAIN_S = {"noisy": 900.0, "few": 300.0}
"""Seconds of audio in the train splits of the noisy worlds."""
_SPEEDS, _SNR_DB = (0.85, 1.2), (2.0, 18.0)


class MappedSplit:
    """N examples, an `utterance.Split`; pickled as its path.

    Args:
        path: of `NAME.i16`, the samples of all clips one after another; beside it is `NAME.json`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._rows = json.loads(self.path.with_suffix(".json").read_text(encoding="utf-8"))
        self.n_samples = np.array([row["n"] for row in self._rows], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self.n_samples)])
        self._samples = np.memmap(self.path, dtype=np.int16, mode="r")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:
        row, start = self._rows[index], self._starts[index]
        samples = self._samples[start : start + row["n"]].astype(np.float32) / 32_768
        return self.without_samples(index)._replace(samples=samples)

    def without_samples(self, index: int) -> Example:
        """The example without its clip; for readers of the feature cache."""
        row = self._rows[index]
        labels = np.array(encode(row["text"]), dtype=np.int64)
        return Example(row["id"], np.zeros(0, np.float32), labels, row["text"], row["speaker"])

    def __reduce__(self) -> tuple[type[MappedSplit], tuple[str]]:
        return MappedSplit, (str(self.path),)


def write(folder: Path, split: str, rows: list[dict[str, Any]], clips: list[np.ndarray]) -> None:
    """Write a split: `rows` with id, text and speaker; `clips` (S,) float32 each."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = np.concatenate([np.clip(clip * 32_768, -32_768, 32_767).round().astype(np.int16) for clip in clips])
    samples.tofile(folder / f"{split}.i16")
    listed = [{**row, "n": len(clip)} for row, clip in zip(rows, clips, strict=True)]
    (folder / f"{split}.json").write_text(json.dumps(listed, ensure_ascii=False), encoding="utf-8")


def demo(out: Path, kept: dict[str, list[str]]) -> None:
    """Speak the demo corpus again; `kept` has the ids of each split that its preparation kept."""
    from hausa_asr.corpora import demo as corpus

    said = {one.id: one for one in corpus.utterances(out / "said")}
    for split, ids in kept.items():
        rows = [{"id": id, "text": said[id].text, "speaker": said[id].speaker} for id in ids]
        write(out / "demo", split, rows, [_wav(said[id].audio) for id in ids])


def _wav(path: str) -> np.ndarray:
    with wave.open(path) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.float32) / 32_768
        changed = to_16_khz(samples, file.getframerate())
        return changed / max(1.0, float(np.abs(changed).max()))  # as `prepare` does


def noisy(out: Path, name: str) -> None:
    """Make a noisy world of the demo's: fewer clips, other speeds, noise. Needs `demo` first."""
    for number, split in enumerate(("train", "dev", "test")):
        rng = np.random.default_rng((17, number))
        clean = MappedSplit(out / "demo" / f"{split}.i16")
        rows, clips, total_s = [], [], 0.0
        for index in rng.permutation(len(clean)):
            example = clean[int(index)]
            clip = _spoilt(example.samples, rng)
            if len(clip) < 0.4 * SAMPLE_RATE:
                continue
            rows.append({"id": example.id, "text": example.text, "speaker": example.speaker})
            clips.append(clip)
            total_s += len(clip) / SAMPLE_RATE
            if split == "train" and total_s >= NOISY_TRAIN_S[name]:
                break
        write(out / name, split, rows, clips)


def _spoilt(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another speed, then noise whose power falls with the frequency, as that of a room does."""
    rate = int(round(SAMPLE_RATE * rng.uniform(*_SPEEDS), -2))
    changed = to_16_khz(np.ascontiguousarray(samples), rate)
    spectrum = np.fft.rfft(rng.standard_normal(len(changed)))
    spectrum /= np.maximum(1.0, np.arange(len(spectrum)) / len(spectrum) * 20) ** rng.uniform(0.0, 0.6)
    noise = np.fft.irfft(spectrum, len(changed))
    power = np.mean(changed**2) / max(np.mean(noise**2), 1e-12) / 10 ** (rng.uniform(*_SNR_DB) / 10)
    mixed = changed + noise * np.sqrt(power)
    return (mixed / max(1.0, float(np.abs(mixed).max()))).astype(np.float32)


def packed(out: Path, name: str, folder: Path) -> None:
    """Read a corpus that was packed as one long recording a split, with `SPLIT.json` saying where each clip is."""
    import soundfile

    for file in sorted(folder.glob("*.json")):
        rows = json.loads(file.read_text(encoding="utf-8"))
        samples, rate = soundfile.read(file.with_suffix(".ogg"), dtype="float32")
        if rate != SAMPLE_RATE:
            raise SystemExit(f"{file.with_suffix('.ogg')} is at {rate} Hz, not at {SAMPLE_RATE}")
        starts = np.concatenate([[0], np.cumsum([row["n"] for row in rows])])
        clips = [samples[start : start + row["n"]] for start, row in zip(starts, rows, strict=False)]
        write(out / name, file.stem, rows, clips)
