"""Count a clip's frames, and the frames that CTC needs for its transcript.

Integers in and out. Called where clips are refused, augmented and decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

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
