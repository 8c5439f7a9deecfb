"""Whoever uses a model sets torch up for its device as training does, so that it computes by the same kernels."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hausa_asr.export import check
from hausa_asr.model.device import ready_device
from hausa_asr.model.recognizer import Recognizer
from hausa_asr.training import checkpoint, soup
from helpers.fine_tunes import save_checkpoint
from helpers.speech import ToneSplit, prepared_speech
from sweeps.on_ray.scoring import _score_models

ROOT = Path(__file__).parents[2]
SET = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
"""What is set for a CPU; the options for a GPU are set by the same function (`test_pitfalls`)."""
USERS: dict[str, Callable[[Path, Path, Path], object]] = {
    "transcribe": lambda saved, out, dataset: Recognizer(out, device="cpu", lm=False),
    "the export's check": lambda saved, out, dataset: check._score(out, dataset, 0.0),
    "the finalists' scores": lambda saved, out, dataset: _score_models(
        str(dataset), [str(saved)], ["dev"], 1, False, 0
    ),
    "averages": lambda saved, out, dataset: soup.greedy([saved], ToneSplit(2, 1), device=torch.device("cpu")),
}


@pytest.mark.parametrize("user", USERS)
def test_torch_is_set_up_for_the_device(
    user: str, layer_norm_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = save_checkpoint(tmp_path / "trial", layer_norm_base)
    for part in checkpoint.load(saved):
        part.save_pretrained(tmp_path / "out")
    dataset = prepared_speech(tmp_path)
    monkeypatch.setenv(SET, "")  # so that it is as before afterwards
    monkeypatch.delenv(SET)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    USERS[user](saved, tmp_path / "out", dataset)
    assert os.environ[SET] == "16"


def test_a_gpu_is_set_up_and_checked_before_a_model_comes_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled(), torch.get_float32_matmul_precision()
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, device.index))
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        assert ready_device("cuda") == torch.device("cuda:1")
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before[0])
        torch.set_float32_matmul_precision(before[1])


def test_nobody_else_chooses_a_device() -> None:
    """The doctor looks at all of them."""
    chooses = re.compile(r"cuda\.is_available\(|\.to\(torch\.device")
    files = [file for folder in ("hausa_asr", "sweeps") for file in (ROOT / folder).rglob("*.py")]
    found = {file.name for file in files if chooses.search(file.read_text(encoding="utf-8"))}
    assert found == {"device.py", "doctor_command.py"}
