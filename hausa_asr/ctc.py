"""How many frames a clip has, and how many its transcript needs: what CTC can align.

Counted where clips are refused, where they are augmented and where they are decoded. Integers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

WINDOW, HOP = 400, 320
"""Samples at 16 kHz that one frame hears (25 ms), and from one frame to the next (20 ms)."""


def frames(n_samples: int) -> int:
    """Frames (T) that a wav2vec 2.0 encoder makes of n samples at 16 kHz; 0 where there are too few for one.

    The published encoders' seven convolutions amount to one of kernel 400 and stride 320 (arXiv:2006.11477, 4.2).
    """
    return max(0, (n_samples - WINDOW) // HOP + 1)


def frames_needed(labels: Sequence[int]) -> int:
    """The fewest frames that CTC can align L labels to: one each, and a blank between two that are equal."""
    return len(labels) + sum(int(a == b) for a, b in pairwise(labels))
