"""Speed and noise: drawn for the utterance and the epoch, off by default, and never more than CTC can align."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hausa_asr.recipe import Answer
from hausa_asr.training.augment import SNR_RANGE_DB, Augmentation
from hausa_asr.training.finetune import Data
from hausa_asr.utterance import Example
from helpers.fine_tunes import RECIPE, losses, run
from helpers.speech import ToneSplit


def tone(seconds: float = 2.0, labels: int = 5) -> Example:
    time = np.arange(int(16_000 * seconds)) / 16_000
    return Example("u", (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32), np.arange(labels) + 3, "", "")


def pitch_hz(samples: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * 16_000 / len(samples))


def test_off_by_default_and_then_nothing_is_copied() -> None:
    example = tone()
    assert not Augmentation(0, 0, 10, seed=0).on
    assert Augmentation(0, 0, 10, seed=0)(example, epoch=3) is example


def test_speed_changes_length_and_pitch_together() -> None:
    augment = Augmentation(speed_perturb=0.1, noise_prob=0, noise_snr_db=10, seed=0)
    seen = {}
    for epoch in range(30):
        samples = augment(tone(), epoch).samples
        seen[round(32_000 / len(samples), 1)] = pitch_hz(samples)
        assert samples.dtype == np.float32
    assert sorted(seen) == [0.9, 1.0, 1.1]
    for factor, pitch in seen.items():
        assert pitch == pytest.approx(440 * factor, rel=0.01)


def test_noise_is_as_loud_as_it_was_asked_to_be() -> None:
    example = tone()
    snrs = []
    for epoch in range(40):
        noisy = Augmentation(0, noise_prob=1.0, noise_snr_db=5, seed=0)(example, epoch).samples
        noise = noisy - example.samples
        snrs.append(10 * np.log10(np.square(example.samples).sum() / np.square(noise).sum()))
    assert 4.9 < min(snrs) < 8
    assert 5 + SNR_RANGE_DB - 3 < max(snrs) < 5 + SNR_RANGE_DB + 0.1


def test_noise_comes_as_often_as_asked() -> None:
    augment = Augmentation(0, noise_prob=0.25, noise_snr_db=5, seed=0)
    changed = sum(not np.array_equal(augment(tone(0.5), epoch).samples, tone(0.5).samples) for epoch in range(400))
    assert 70 < changed < 130


def test_the_draw_follows_from_seed_epoch_and_utterance() -> None:
    augment = Augmentation(0.1, 0.5, 5, seed=1)
    assert np.array_equal(augment(tone(), 4).samples, augment(tone(), 4).samples)
    assert any(not np.array_equal(augment(tone(), 4).samples, augment(tone(), e).samples) for e in range(5, 9))


def test_never_faster_than_its_transcript_can_be_aligned() -> None:
    crowded = tone(1.0, labels=49)  # 49 labels in 49 frames
    augment = Augmentation(speed_perturb=0.1, noise_prob=0, noise_snr_db=10, seed=0)
    lengths = {len(augment(crowded, epoch).samples) for epoch in range(30)}
    assert min(lengths) >= 16_000
    assert max(lengths) > 16_000


def test_an_augmented_trial_learns_and_resumes_exactly(layer_norm_base: Path, tmp_path: Path) -> None:
    data = Data(ToneSplit(24, 0), ToneSplit(8, 1))
    recipe = dataclasses.replace(RECIPE, speed_perturb=0.1, noise_prob=0.5)
    _, whole = run(recipe, data, layer_norm_base, tmp_path / "whole")
    run(recipe, data, layer_norm_base, tmp_path / "parts", {10: Answer.PAUSE})
    _, rest = run(recipe, data, layer_norm_base, tmp_path / "parts")
    assert losses(rest)[-1] == losses(whole)[-1]
    assert losses(whole)[-1][2] < losses(whole)[0][2]
