"""Long recordings in windows: cut in pauses, else with their neighbours, and the same text as in one piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hausa_asr.ctc import HOP, WINDOW, frames
from hausa_asr.decoding.path import words_of
from hausa_asr.model import windows as module
from hausa_asr.model.evaluate import recording_logits, transcribe_samples
from hausa_asr.model.wav2vec2 import new_model
from hausa_asr.model.windows import Window, survey, windows
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.text import VOCAB, WORD
from hausa_asr.utterance import SAMPLE_RATE

CONTEXT = 200


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise as loud as speech, without a pause."""
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * SAMPLE_RATE)).astype(np.float32)


def room(seconds: float, level: float = 2e-3) -> np.ndarray:
    return speech(seconds, 1) * np.float32(level / 0.1)


def cut_of(samples: np.ndarray) -> list[Window]:
    return windows(survey(samples).levels, len(samples), frames(len(samples)))


def counted(cut: list[Window], n_samples: int) -> np.ndarray:
    """How often each frame counts; every window must have made the frames that it says."""
    times = np.zeros(frames(n_samples), dtype=int)
    for one in cut:
        assert one.start % HOP == 0 and one.start // HOP + one.skip == one.first and one.end <= n_samples
        assert frames(one.end - one.start) >= one.skip + one.keep
        assert one.end - one.start <= module.WHOLE_S * SAMPLE_RATE
        times[one.first : one.first + one.keep] += 1
    return times


@pytest.mark.parametrize("seconds", [0.5, 30.0, 30.1, 40.0, 44.0, 61.37, 600.0, 1799.99])
def test_in_speech_without_a_pause_all_frames_count_once_and_have_been_heard_with_their_neighbours(
    seconds: float,
) -> None:
    samples = speech(seconds)
    cut = cut_of(samples)
    assert (counted(cut, len(samples)) == 1).all()
    for number, one in enumerate(cut):
        after = frames(one.end - one.start) - one.skip - one.keep
        left = frames(len(samples)) - one.first - one.keep
        assert one.skip == (CONTEXT if number else 0), "four seconds are heard before"
        assert after >= min(CONTEXT, left), "and after"


def test_speech_with_pauses_is_cut_in_them_and_nothing_is_heard_twice() -> None:
    rng = np.random.default_rng(0)
    parts, pauses, at = [], [], 0
    while at < 300 * SAMPLE_RATE:
        parts += [speech(rng.uniform(2, 6), at), room(0.5)]
        at += len(parts[-2]) + len(parts[-1])
        pauses.append((at - len(parts[-1]), at))
    samples = np.concatenate(parts)
    cut = cut_of(samples)
    assert (counted(cut, len(samples)) == 1).all()
    for one in cut[1:]:
        assert one.skip == 0 and any(start < one.start < end for start, end in pauses), "in a pause"
    assert all(5 <= one.keep / 50 < 12 for one in cut[:-1]), "not much longer than the least"
    assert cut[-1].keep >= 50
    assert sum(one.end - one.start for one in cut) <= len(samples) + len(cut) * WINDOW


def test_one_place_without_a_pause_does_not_cost_the_other_seams_their_surroundings() -> None:
    samples = np.concatenate([speech(9), room(0.5), speech(30, 1), room(0.5), speech(15, 2)])
    cut = cut_of(samples)
    assert (counted(cut, len(samples)) == 1).all()
    assert [one.skip for one in cut] == [0, 0, CONTEXT, 0] and cut[0].end < 10 * SAMPLE_RATE


def test_silence_is_not_heard_but_for_its_ends() -> None:
    samples = np.concatenate([room(20, 1e-4), speech(10), room(60, 1e-4), speech(12, 1), room(0.7, 1e-4), speech(3, 2)])
    cut = cut_of(samples)
    heard = counted(cut, len(samples))
    assert (heard[1005:1495] == 1).all() and (heard[4505:5090] == 1).all(), "all speech"
    assert heard.sum() < frames(len(samples)) - 50 * 79, "80 s of silence"
    assert heard[990:1000].all() and heard[1500:1510].all(), "and a fifth of a second on either side"
    assert not heard[1515:4485].any()
    assert heard[4500:].all(), "a pause of less than a second is heard"


def test_a_long_silence_with_little_speech_in_it_is_skipped() -> None:
    samples = np.concatenate(
        [np.zeros(300 * SAMPLE_RATE, np.float32), speech(8), np.zeros(300 * SAMPLE_RATE, np.float32)]
    )
    assert 400 <= counted(cut_of(samples), len(samples)).sum() < 450


def test_a_quiet_voice_is_no_silence() -> None:
    samples = np.concatenate([speech(20), speech(20, 1) * np.float32(0.03), speech(20, 2)])
    assert counted(cut_of(samples), len(samples)).all(), "30 dB below the other"


def local_model(folder: Path) -> tuple:
    """A model without a transformer: what it makes of a frame depends on the frames close by only."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=0, num_attention_heads=2, intermediate_size=64, conv_dim=(16,) * 7,
        conv_bias=True, feat_extract_norm="layer", do_stable_layer_norm=True, num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    model, processor = new_model(str(folder), FinetuneConfig())
    with torch.no_grad():
        model.lm_head.weight.normal_(std=3.0)
    return model.eval(), processor


def test_a_long_recording_has_the_text_that_it_has_in_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = local_model(tmp_path)
    rng = np.random.default_rng(0)
    tones = np.sin(np.cumsum(rng.uniform(0.01, 0.6, 70 * 50).repeat(HOP))).astype(np.float32)
    recordings = [tones, tones[: 20 * SAMPLE_RATE], tones[: 47 * SAMPLE_RATE + 123]]
    in_windows = transcribe_samples(model, processor, recordings)
    monkeypatch.setattr(module, "WHOLE_S", 1e9)
    monkeypatch.setattr("hausa_asr.model.evaluate.WHOLE_S", 1e9)
    in_one_piece = transcribe_samples(model, processor, recordings)
    assert in_windows == in_one_piece
    assert len(in_windows[0]) > 300, "it says something at every seam"


def test_after_a_skipped_silence_words_are_where_they_were_said(tmp_path: Path) -> None:
    model, processor = local_model(tmp_path)
    said = speech(5)
    recording = np.concatenate([room(40, 1e-6), said, room(5, 1e-6)])
    (logits,) = recording_logits(model, processor, [recording])
    assert len(logits) == frames(len(recording))
    words = words_of(logits.argmax(axis=1), logits)
    assert len(words) > 3 and all(39.5 < word.start_s < word.end_s < 45.5 for word in words)


def test_words_end_in_clear_pauses_of_long_recordings_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = local_model(tmp_path)
    with torch.no_grad():
        model.lm_head.bias[VOCAB[WORD]] -= 1e3  # it never writes a space
    recording = np.concatenate([speech(6), room(0.8)] * 6)[: -round(0.8 * SAMPLE_RATE)]
    (long,), (short,) = (
        transcribe_samples(model, processor, [one]) for one in (recording, recording[: 29 * SAMPLE_RATE])
    )
    assert len(long.split()) == 6 and len(short.split()) == 1
    quiet_breath = np.concatenate([speech(6), speech(0.8, 1) * np.float32(0.1)] * 6)[: -round(0.8 * SAMPLE_RATE)]
    assert len(transcribe_samples(model, processor, [quiet_breath])[0].split()) == 1, "20 dB lower"
    short_pause = np.concatenate([speech(6), room(0.3)] * 6)[: -round(0.3 * SAMPLE_RATE)]
    assert len(transcribe_samples(model, processor, [short_pause])[0].split()) == 1


def test_a_long_pause_is_not_raised_to_the_level_of_speech() -> None:
    recording = np.concatenate([speech(30), room(60, 1e-4)])
    whole = survey(recording).spread
    assert whole == pytest.approx(recording.std(), rel=1e-4)
    quiet = module.normalised(recording[-20 * SAMPLE_RATE :], whole)
    assert quiet.std() < 0.02, "speech has 1"
    clip = recording[: 5 * SAMPLE_RATE]
    expected = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
    assert np.array_equal(module.normalised(clip), expected), "as in training"
    assert module.normalised(clip, whole).std() == pytest.approx(1.0, rel=1e-3)
