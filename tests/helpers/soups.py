"""What makes an average clearly better on purpose: a split that says what a model writes, and models beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from hausa_asr.model.evaluate import evaluate
from hausa_asr.text import encode
from hausa_asr.training import checkpoint
from hausa_asr.utterance import Example
from helpers.speech import ToneSplit


class Heard:
    """Utterances whose transcripts are what a given model writes, so that it makes no error on them."""

    def __init__(self, count: int, model: Path, seed: int = 1) -> None:
        self._spoken = ToneSplit(count, seed)
        self.n_samples = self._spoken.n_samples
        self._texts = evaluate(*checkpoint.load(model), self._spoken).hypotheses

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> Example:
        text = self._texts[index]
        return self._spoken[index]._replace(text=text, labels=np.array(encode(text)))


def displaced(model: Path, out: Path, by: float, wer: float) -> Path:
    """A copy of a checkpoint whose head is moved along one random direction, and which reports a WER."""
    shutil.copytree(model, out)
    weights = load_file(out / checkpoint.WEIGHTS)
    torch.manual_seed(0)
    weights["lm_head.weight"] += by * torch.randn(weights["lm_head.weight"].shape)
    save_file(weights, out / checkpoint.WEIGHTS)
    report = json.loads((out / "progress.json").read_text())
    report["metrics"]["wer"] = wer
    (out / "progress.json").write_text(json.dumps(report))
    return out
