"""An utterance to look at and listen to: what was written and heard, aligned, with its sound.

Called by `page` and `suspects_page`; the macro `utterance` of `utterances.html` writes it.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import NamedTuple

import jiwer
import numpy as np

from hausa_asr.audio.mp3 import as_mp3

TEMPLATES = Path(__file__).parent / "templates"


class Chunk(NamedTuple):
    """A run of words with one kind of edit (`equal`, `delete`, `insert` or `substitute`): as said, and as heard."""

    kind: str
    said: str
    heard: str


class Utterance(NamedTuple):
    """One utterance on a page.

    Attributes:
        about: a line on it.
        reference, hypothesis: what its transcript says, and what was heard.
        chunks: the two aligned.
        sound: MP3 in base64; "" if it can't be had.
        word: for the transcript: `said` if it is sure, `written` if it is not.
    """

    about: str
    reference: str
    hypothesis: str
    chunks: list[Chunk]
    sound: str
    word: str = "said"


def utterance(about: str, samples: np.ndarray | None, reference: str, hypothesis: str, word: str = "said") -> Utterance:
    """Make an utterance ready for a page.

    Args:
        about: a line on it.
        samples: (S,) of it, in [-1, 1]; None if they can't be had.
        reference, hypothesis: what its transcript says, and what was heard.
        word: as in `Utterance`.
    """
    sound = "" if samples is None else base64.b64encode(as_mp3(samples)).decode()
    return Utterance(about, reference, hypothesis, aligned(reference, hypothesis), sound, word)


def aligned(reference: str, hypothesis: str) -> list[Chunk]:
    """Align two texts by words."""
    one, other = reference.split(), hypothesis.split()
    return [
        Chunk(
            chunk.type,
            " ".join(one[chunk.ref_start_idx : chunk.ref_end_idx]),
            " ".join(other[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in jiwer.process_words(reference, hypothesis).alignments[0]
    ]
