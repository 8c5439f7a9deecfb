"""What the benchmarks share: made-up speech of Common Voice-like lengths, base checkpoints from configs, rows, tables.

Weights and sounds do not change the speed of a step, so both are random; lengths do, so they are drawn as Common Voice
Hausa has them (a gamma distribution with a mean of 4.35 s, cut at 1 s and 15 s).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a plain checkout will do

from hausa_asr.text import LETTERS, encode  # noqa: E402
from hausa_asr.utterance import SAMPLE_RATE, Example  # noqa: E402

MEAN_S, SHORTEST_S, LONGEST_S = 4.35, 1.0, 15.0
LETTERS_PER_S = 12.0


def lengths(count: int, seed: int = 0) -> np.ndarray:
    """(count,) int64 lengths in samples, as Common Voice Hausa has them."""
    rng = np.random.default_rng(seed)
    return (rng.gamma(6.0, MEAN_S / 6.0, count).clip(SHORTEST_S, LONGEST_S) * SAMPLE_RATE).astype(np.int64)


class MadeUpSplit:
    """`count` utterances of noise with random transcripts, in memory; a `manifest.Split`."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.n_samples = lengths(count, seed)
        rng = np.random.default_rng((seed, 1))
        # One long noise that all clips are cut from: reading must not cost what a corpus' reading would not.
        self._noise = rng.standard_normal(int(self.n_samples.max()) + SAMPLE_RATE).astype(np.float32) * 0.1
        letters = np.array(list(LETTERS[:-1] + "    "))
        self._texts = []
        for n in self.n_samples:
            drawn = rng.choice(letters, max(2, int(n / SAMPLE_RATE * LETTERS_PER_S)))
            self._texts.append(" ".join("".join(drawn).split()) or "a")

    def __len__(self) -> int:
        return len(self.n_samples)

    def __getitem__(self, index: int) -> Example:
        text = self._texts[index]
        start = index % SAMPLE_RATE
        samples = self._noise[start : start + int(self.n_samples[index])]
        return Example(f"u{index}", samples, np.array(encode(text), dtype=np.int64), text, "")


_LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "do_stable_layer_norm": True,
}
_1B: dict[str, Any] = {**_LARGE, "hidden_size": 1280, "num_hidden_layers": 48, "intermediate_size": 5120}
_TINY: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "conv_dim": (32,) * 7,
}
SHAPES: dict[str, dict[str, Any]] = {
    "base": {},
    "xlsr-300m": _LARGE,
    "xlsr-1b": _1B,
    "mms-1b": {**_1B, "adapter_attn_dim": 16},
    "xlsr-6-layers": {**_LARGE, "num_hidden_layers": 6},
    "tiny": {**_LARGE, **_TINY},
    "tiny-base": _TINY,
}
"""Base checkpoints that are made from their configs, with random weights."""


def save_base(kind: str, folder: Path) -> str:
    """A base checkpoint: `demo` is the shipped one; the others, of `SHAPES`, are written to the folder."""
    if kind == "demo":
        return "demo"
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    Wav2Vec2Model(Wav2Vec2Config(**SHAPES[kind])).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return str(folder)


def in_own_process(script: str, task: dict[str, Any], threads: int | None = None) -> dict[str, Any]:
    """Run `script --task JSON` in a process of its own and return the JSON that it prints last.

    A row's memory, its compiled code and its caches are then its own.
    """
    environment = dict(os.environ)
    if threads:
        environment |= {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, script, "--task", json.dumps(task)], capture_output=True, text=True, env=environment
    )
    if done.returncode != 0:
        raise SystemExit(f"{task} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def peak_gib(device: torch.device) -> float:
    """The most memory that this process has had: on a GPU what its tensors took, else its resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def machine(device: torch.device) -> str:
    """What the figures were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under their headings, columns aligned: the first to the left, figures to the right."""
    widths = [max(len(row[i]) for row in (headings, *rows)) for i in range(len(headings))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )

    return "\n".join([line(headings), line(["-" * width for width in widths]), *map(line, rows)])


def write(path: Path | None, figures: dict[str, Any]) -> None:
    """Keep the figures as JSON where that is wanted."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
