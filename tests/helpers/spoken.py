"""Made-up logits of texts, as sure or unsure as a test wants them."""

from __future__ import annotations

import numpy as np

from hausa_asr.text import PAD, VOCAB, WORD

TEXT = ["ina da gida", "ɗa yana da mota", "ruwa yana kasa", "ina da mota", "'yar ɗaki ce", "gida yana da ruwa"]


def spoken(text: str, *, space: float = 0.9, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Logits of a text, two frames for each letter and a blank after it; `space` is how sure it is of each space."""
    rows = []
    for letter in text:
        row = np.full(len(VOCAB), 0.002)
        row[VOCAB[WORD if letter == " " else letter]] = space if letter == " " else 0.9
        row[VOCAB[PAD]] += 0.95 - row.max()
        blank = np.full(len(VOCAB), 0.002)
        blank[VOCAB[PAD]] = 0.95
        rows += [row, row, blank] if letter != " " else [row, blank]
    logits = np.log(np.array(rows) / np.sum(rows, axis=1, keepdims=True))
    return (logits + np.random.default_rng(seed).normal(0, noise, logits.shape)).astype(np.float32)
