"""Count a clip's frames, and the frames that CTC needs for its transcript.

Called where clips are refused, augmented and decoded, and where a trial is compared with guessing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

PLATEAU_WER = 0.97
"""A model has left the plateau of CTC when its WER is below this at two evaluations in a row."""

WINDOW, HOP = 400, 320
"""Samples at 16 kHz: the width of one frame (25 ms), and the step from one frame to the next (20 ms)."""


def frames(n_samples: int) -> int:
    """Frames (T) that a wav2vec 2.0 encoder makes of n samples at 16 kHz; 0 below 400 samples.

    The published encoders' seven convolutions amount to one of kernel 400 and stride 320 (arXiv:2006.11477, 4.2).
    """
    return max(0, (n_samples - WINDOW) // HOP + 1)


def frames_needed(labels: Sequence[int]) -> int:
    """The fewest frames that CTC can align L labels to: one for each, and a blank between two equal neighbours."""
    return len(labels) + sum(int(a == b) for a, b in pairwise(labels))


def guess_loss(frames: int, labels: Sequence[int], symbols: int) -> float:
    """The CTC loss of guessing each frame evenly, in nats per label.

    `frames` of speech have `(T + L - R) over 2 L` alignments to L labels, R of which equal the one before; each has the
    probability `symbols ** -T`. Slow speech costs more, since it has more frames to guess.

    Args:
        frames: T.
        labels: L of them, at least one, that fit into the frames.
        symbols: how many the model tells apart, the blank among them.
    """
    free, taken = frames + 2 * len(labels) - frames_needed(labels), 2 * len(labels)
    alignments = math.lgamma(free + 1) - math.lgamma(taken + 1) - math.lgamma(free - taken + 1)
    return (frames * math.log(symbols) - alignments) / len(labels)
