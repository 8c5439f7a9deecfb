"""Greedy CTC decoding: logits in, texts out. Called by `evaluate` for scores and for transcripts."""

from __future__ import annotations

import torch

from hausa_asr.text import PAD, UNK, VOCAB, WORD

_LETTER = {index: " " if token == WORD else token for token, index in VOCAB.items()}
_SILENT = (VOCAB[PAD], VOCAB[UNK])


def greedy(logits: torch.Tensor, frames: torch.Tensor) -> list[str]:
    """Decode the likeliest label of each frame: merge repeats, then drop blanks.

    Args:
        logits: (B, T, V).
        frames: (B,) frames of each utterance before padding.

    Returns:
        B texts, words separated by one space.
    """
    best = logits.argmax(dim=-1).cpu()
    texts = []
    for path, length in zip(best, frames.tolist(), strict=True):
        labels = torch.unique_consecutive(path[:length]).tolist()
        letters = "".join(_LETTER[label] for label in labels if label not in _SILENT)
        texts.append(" ".join(letters.split()))
    return texts
