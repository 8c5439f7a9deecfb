"""Tiny real wav2vec 2.0 checkpoints with random weights, and made-up speech that they can learn."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import soundfile
import torch

from hausa_asr.text import encode
from hausa_asr.utterance import SAMPLE_RATE, Example


def save_base(folder: Path, norm: str) -> Path:
    """A saved wav2vec 2.0 with random weights: layer norm ("large", XLS-R) or group norm ("base")."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16, 16, 16, 16),
        conv_kernel=(10, 8, 4, 4),
        conv_stride=(5, 4, 4, 4),
        num_feat_extract_layers=4,
        conv_bias=norm == "layer",
        feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    torch.manual_seed(0)
    Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


class ToneSplit:
    """Made-up utterances: every letter is a tone, so even a tiny random model can learn to read them."""

    texts = ("ɗan ƙasa", "ina so", "doki da ɗoki", "ya zo")

    def __init__(self, count: int, seed: int) -> None:
        self._seed = seed
        self._texts = [self.texts[(i + seed) % len(self.texts)] for i in range(count)]
        self.n_samples = np.array([1600 * (len(text) + 2) for text in self._texts], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> Example:
        text = self._texts[index]
        labels = encode(text)
        rng = np.random.default_rng((self._seed, index))
        time = np.arange(1600) / 16_000
        parts = [
            np.sin(2 * np.pi * (150 + 90 * label) * time + rng.uniform(0, 6)) * np.hanning(1600) for label in labels
        ]
        silence = np.zeros(1600)
        samples = 0.3 * np.concatenate([silence, *parts, silence]) + 0.01 * rng.standard_normal(1600 * (len(text) + 2))
        return Example(f"u{self._seed}-{index}", samples.astype(np.float32), np.array(labels), text, f"s{index % 3}")


def save_speech(folder: Path, dev: int = 4) -> Path:
    """A folder of wav files with a table, as a user has it: 8 clips of train, 4 of dev and 4 of test."""
    rows: list[dict[str, str]] = []
    for split, count in (("train", 8), ("dev", dev), ("test", 4)):
        examples = ToneSplit(count, seed=len(rows))
        for index in range(count):
            example = examples[index]
            name = f"{split}-{index}.wav"
            soundfile.write(folder / name, example.samples, SAMPLE_RATE)
            rows.append({"path": name, "text": example.text, "split": split, "speaker": f"{split}{index % 2}"})
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return folder


def prepared_speech(folder: Path, dev: int = 4) -> Path:
    """The same, prepared."""
    from hausa_asr.cli import app

    (folder / "speech").mkdir()
    arguments = ["prepare", "--path", str(save_speech(folder / "speech", dev)), "--allow-overlap", "sentence"]
    app(args=[*arguments, "--out", str(folder / "dataset")], standalone_mode=False)
    return folder / "dataset"
