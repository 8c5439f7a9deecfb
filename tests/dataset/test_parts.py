"""Parts of splits: of dev long enough, the same every time, and from all speakers alike; of train nested by share."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from hausa_asr.dataset.parts import dev_part, train_part
from hausa_asr.utterance import SAMPLE_RATE, Example


class Spoken:
    """Examples without samples, of given speakers and lengths."""

    def __init__(self, speakers: list[str], seconds: list[float]) -> None:
        self.speakers = speakers
        self.n_samples = np.array([round(one * SAMPLE_RATE) for one in seconds])

    def __len__(self) -> int:
        return len(self.speakers)

    def __getitem__(self, index: int) -> Example:
        return Example(str(index), np.zeros(0, np.float32), np.zeros(0, np.int64), "", self.speakers[index])


def chosen(split: Spoken, seconds: float) -> list[int]:
    part = dev_part(split, seconds)
    return [int(part[index].id) for index in range(len(part))]


def test_one_speaker_with_half_of_the_speech_has_no_more_than_the_others() -> None:
    speakers = ["a"] * 500 + [f"s{n % 50}" for n in range(500)]
    split = Spoken(speakers, [2.0 + n % 5 for n in range(1000)])
    picked = chosen(split, 600)
    assert picked == sorted(picked) == chosen(split, 600)
    part = dev_part(split, 600)
    assert part.n_samples.tolist() == split.n_samples[picked].tolist()
    assert 600 <= part.n_samples.sum() / SAMPLE_RATE < 607
    counts = Counter(speakers[index] for index in picked)
    assert len(counts) == 51 and max(counts.values()) - min(counts.values()) <= 1
    assert len({index // 100 for index in picked if speakers[index] == "a"}) > 1, "at random, and not its first"


def test_speech_without_speakers_is_drawn_evenly() -> None:
    picked = chosen(Spoken([""] * 1000, [4.0] * 1000), 400)
    assert len(picked) == 100
    assert 300 < np.mean(picked) < 700


@pytest.mark.parametrize("seconds", [0, 100, 95, 1000])
def test_a_dev_that_is_hardly_longer_is_taken_whole(seconds: float) -> None:
    split = Spoken(["a"] * 25, [4.0] * 25)
    assert dev_part(split, seconds) is split


def test_less_train_is_part_of_more_and_each_seed_draws_its_own() -> None:
    split = Spoken([""] * 400, [2.0 + n % 5 for n in range(400)])
    total_s = split.n_samples.sum() / SAMPLE_RATE

    def ids(share: float, seed: int) -> list[int]:
        part = train_part(split, share, seed)
        assert part.n_samples.sum() / SAMPLE_RATE == pytest.approx(share * total_s, abs=7)
        return [int(part[index].id) for index in range(len(part))]

    quarter, half = ids(0.25, 1), ids(0.5, 1)
    assert set(quarter) < set(half) and half == sorted(half)
    assert quarter == ids(0.25, 1) != ids(0.25, 2)
    assert train_part(split, 1.0, 1) is split
    assert len(train_part(split, 1e-9, 1)) == 1
