"""Make corpora of noise, for tests in which nothing is heard: utterances whose files are short and quick to decode."""

from pathlib import Path

import numpy as np
import soundfile

from hausa_asr.utterance import Utterance

_SENTENCE = "ina kwana lafiya gida ruwa ƙasa ɗaki ɓera yara hanya kasuwa abinci aiki gari mota"
WORDS = _SENTENCE.split()


def sound(seed: int, duration_s: float = 1.5, rate: int = 16_000) -> np.ndarray:
    """Make (S,) int16 noise."""
    return np.random.default_rng(seed).integers(-9_000, 9_000, round(duration_s * rate), dtype=np.int16)


def corpus(folder: Path, counts: dict[str | None, int], speakers: int = 0) -> list[Utterance]:
    """Make utterances of noise, each with a sentence of its own.

    Args:
        folder: for the audio files.
        counts: how many utterances of each split.
        speakers: how many there are; 0 for utterances without a speaker.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Utterance] = []
    for split, count in counts.items():
        for number in range(count):
            name = f"{split or 'any'}-{number}"
            soundfile.write(folder / f"{name}.wav", sound(len(made)), 16_000)
            sentence = f"{WORDS[number % 15]} {WORDS[number // 15 % 15]} {split or 'da'}"
            speaker = f"s{number % speakers}" if speakers else ""
            made.append(Utterance(name, str(folder / f"{name}.wav"), sentence, split, speaker, 1.5, "test"))
    return made
