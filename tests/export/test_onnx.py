"""ONNX of real checkpoints: the same logits as PyTorch in any batch, a card that says so, and clear refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from hausa_asr.errors import UserError
from hausa_asr.export import onnx as onnx_export
from hausa_asr.export.folder import INT8, ONNX, POSSIBLE
from hausa_asr.export.model_card import Card, ErrorRates
from hausa_asr.export.onnx import add_onnx, check_onnx
from hausa_asr.export.write import export_checkpoint
from hausa_asr.model.wav2vec2 import load_model
from helpers.fine_tunes import save_checkpoint
from helpers.speech import ToneSplit

CARD = Card("s", "t001", "demo", {}, {}, ErrorRates(0.5, 0.25))


@pytest.mark.parametrize("norm", ["layer_norm_base", "group_norm_base"])
def test_onnx_hears_what_pytorch_hears(norm: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    checkpoint = save_checkpoint(tmp_path / "trial", request.getfixturevalue(norm))
    folder = export_checkpoint(checkpoint, tmp_path / "model", CARD)
    found = add_onnx(folder, True, ToneSplit(6, 0))
    assert [one.name for one in found.forms] == ["PyTorch", "ONNX", "ONNX, 8 bits"]
    assert found.of_dev and found.clips == 6 and found.difference < 0.01
    assert found.forms[0].wer == found.forms[1].wer and found.forms[2].mb < found.forms[1].mb
    assert {file.name for file in folder.iterdir()} <= POSSIBLE, "it can be overwritten"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "## ONNX" in card and "| ONNX, 8 bits |" in card and "6 utterances of dev" in card
    model, _ = load_model(str(folder))
    model.eval()
    session = onnxruntime.InferenceSession(str(folder / ONNX), providers=["CPUExecutionProvider"])
    values, mask = np.random.default_rng(0).normal(0, 1, (3, 9_000)).astype(np.float32), np.ones((3, 9_000), np.int64)
    if norm == "layer_norm_base":  # group norm takes no padding into account
        mask[1, 5_000:] = 0
    with torch.inference_mode():
        wanted = model(torch.from_numpy(values), attention_mask=torch.from_numpy(mask)).logits.numpy()
    (logits,) = session.run(["logits"], {"input_values": values, "attention_mask": mask})
    np.testing.assert_allclose(logits, wanted, atol=1e-3)
    small = onnxruntime.InferenceSession(str(folder / INT8), providers=["CPUExecutionProvider"])
    assert small.run(["logits"], {"input_values": values, "attention_mask": mask})[0].shape == wanted.shape


def test_without_a_dataset_noise_is_measured(tmp_path: Path, layer_norm_base: Path) -> None:
    folder = export_checkpoint(save_checkpoint(tmp_path / "trial", layer_norm_base), tmp_path / "model", CARD)
    found = add_onnx(folder, False, None)
    assert not found.of_dev and [one.wer for one in found.forms] == [None, None]
    assert not (folder / INT8).exists() and "clips of noise" in (folder / "README.md").read_text()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_onnx()
    monkeypatch.setattr(onnx_export, "_PACKAGES", ("onnx", "no_such_runtime"))
    with pytest.raises(UserError, match=r"needs no_such_runtime, which is not installed") as refused:
        check_onnx()
    assert "hausa-asr-sweeps[onnx]" in str(refused.value)
