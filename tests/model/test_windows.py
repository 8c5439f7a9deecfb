"""Long recordings in windows: every frame once, each with its neighbours, and the same text as in one piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hausa_asr.ctc import HOP, frames
from hausa_asr.model import windows as module
from hausa_asr.model.evaluate import transcribe_samples
from hausa_asr.model.wav2vec2 import new_model
from hausa_asr.model.windows import windows
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.utterance import SAMPLE_RATE


@pytest.mark.parametrize("seconds", [0.5, 30.0, 30.1, 40.0, 44.0, 61.37, 600.0, 3599.99])
def test_the_frames_that_count_are_all_frames_once(seconds: float) -> None:
    n_samples = round(seconds * SAMPLE_RATE)
    cut = windows(n_samples, frames(n_samples))
    assert sum(one.keep for one in cut) == frames(n_samples)
    at = 0
    for one in cut:
        assert one.start % HOP == 0 and one.start // HOP + one.skip == at, "side by side"
        made = frames(one.end - one.start)
        assert made >= one.skip + one.keep
        last = at + one.keep == frames(n_samples)
        if len(cut) > 1:
            assert one.end - one.start <= module.WHOLE_S * SAMPLE_RATE
            assert one.skip == 200 or not at, "four seconds are heard before"
            assert last or made - one.skip - one.keep >= min(200, frames(n_samples) - at - one.keep), "and after"
        at += one.keep


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
    in_one_piece = transcribe_samples(model, processor, recordings)
    assert in_windows == in_one_piece
    assert len(in_windows[0]) > 300, "it says something at every seam"


def test_a_long_pause_is_not_raised_to_the_level_of_speech() -> None:
    rng = np.random.default_rng(0)
    speech, pause = rng.normal(0, 0.2, 30 * SAMPLE_RATE), rng.normal(0, 1e-4, 60 * SAMPLE_RATE)
    recording = np.concatenate([speech, pause]).astype(np.float32)
    quiet = module.normalised(recording[-20 * SAMPLE_RATE :], module.spread_of(recording))
    assert quiet.std() < 0.02, "speech has 1"
    clip = recording[: 5 * SAMPLE_RATE]
    expected = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
    assert np.array_equal(module.normalised(clip), expected), "as in training"
    assert module.normalised(clip, module.spread_of(recording)).std() == pytest.approx(1.0, rel=1e-3)
