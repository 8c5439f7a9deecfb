"""What a model heard, with what its frames hold and which corpus each utterance is of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hausa_asr.diagnosis.diagnose import diagnose
from hausa_asr.diagnosis.heard import corpus_of, heard, joined_corpora
from hausa_asr.model.evaluate import evaluate
from hausa_asr.model.wav2vec2 import new_model
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.text import PAD, VOCAB, WORD
from helpers.speech import ToneSplit


@pytest.fixture(scope="module")
def model(layer_norm_base: Path) -> tuple:
    network, processor = new_model(str(layer_norm_base), FinetuneConfig())
    return network.eval(), processor


def test_it_hears_what_the_evaluation_hears(model: tuple) -> None:
    split = ToneSplit(9, 0)
    report, found = evaluate(*model, split), heard(*model, split)
    assert (found.ids, found.references, found.hypotheses) == (report.ids, report.references, report.hypotheses)
    assert found.speakers == report.speakers and found.seconds.sum() == pytest.approx(split.n_samples.sum() / 16_000)
    assert found.corpora == () and len(set(found.snr_db)) > 1


def test_frames_are_counted(model: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    path = [VOCAB[one] for one in (PAD, "b", "b", PAD, "a", PAD, PAD, WORD, "a", "a", "k", PAD)]
    logits = torch.nn.functional.one_hot(torch.tensor(path), len(VOCAB)).numpy().astype(np.float32)
    monkeypatch.setattr("hausa_asr.model.evaluate.recording_logits", lambda *_, **options: [logits, logits[:1]])
    found = heard(*model, ToneSplit(2, 0))
    assert found.hypotheses == ["ba ak", ""]
    assert found.frames is not None
    assert [one.tolist() for one in found.frames] == [[5, 1], [12, 1], [2, 0], [4, 0]]
    figures = {one.name: one for one in diagnose(found).sections["frames"]}
    assert figures["that are blank"].rate == pytest.approx(6 / 13)
    assert figures["letters that hold a single one"].rate == pytest.approx(0.5)
    assert "frames" not in diagnose(replace(found, frames=None)).sections


def test_joined_corpora_have_figures_of_their_own(model: tuple) -> None:
    report = {"origin": {"join": [{"corpus": "fleurs"}, {"corpus": "folder", "name": "mine"}]}}
    joined = joined_corpora(report)
    assert joined == ["fleurs", "mine"] and joined_corpora({"origin": {"corpus": "demo"}}) == joined_corpora({}) == []
    assert [corpus_of(one, joined) for one in ("mine/a/b.wav", "fleurs/1", "other/1", "mine")] == [
        "mine", "fleurs", "", "mine",
    ]  # fmt: skip
    found = replace(heard(*model, ToneSplit(4, 0)), corpora=["mine", "fleurs", "mine", ""])
    assert {one.name for one in diagnose(found).sections["WER by corpus"]} == {"mine", "fleurs"}
    assert "WER by corpus" not in diagnose(replace(found, corpora=())).sections
