"""An utterance on a page: what was written and heard, aligned, with its sound. Called by `page` and `suspects_page`."""

from __future__ import annotations

import base64
import io
import wave
from html import escape

import jiwer
import numpy as np

from hausa_asr.utterance import SAMPLE_RATE

MARKS = """<style>
.said { color: #555; } del { color: #a33; } ins { color: #05a; text-decoration: underline; }
.sub { border-bottom: 2px dotted #b60; } .sub .said { font-size: 85%; } .utterance { margin: .8em 0; }
audio { height: 28px; vertical-align: middle; }
</style>"""
"""Goes before the first of them."""


def utterance(about: str, samples: np.ndarray, reference: str, hypothesis: str, word: str = "said") -> str:
    """One utterance.

    Args:
        about: a line on it.
        samples: (S,) of it, in [-1, 1].
        reference, hypothesis: what its transcript says, and what was heard.
        word: for the first: `said` if it is sure, `written` if it is not.
    """
    return (
        f'<div class="utterance"><div class="note">{escape(about)} {_audio(samples)}</div>'
        f"<div>{aligned(reference, hypothesis)}</div>"
        f'<div class="said">{word}: {escape(reference)}<br>heard: {escape(hypothesis or "(nothing)")}</div></div>'
    )


def aligned(reference: str, hypothesis: str) -> str:
    """Two texts as one line of HTML: dropped words struck out, words put in underlined, others with what was said."""
    one, other = reference.split(), hypothesis.split()
    parts = []
    for chunk in jiwer.process_words(reference, hypothesis).alignments[0]:
        said = escape(" ".join(one[chunk.ref_start_idx : chunk.ref_end_idx]))
        here = escape(" ".join(other[chunk.hyp_start_idx : chunk.hyp_end_idx]))
        parts.append({
            "equal": said,
            "delete": f"<del>{said}</del>",
            "insert": f"<ins>{here}</ins>",
            "substitute": f'<span class="sub">{here} <span class="said">({said})</span></span>',
        }[chunk.type])  # fmt: skip
    return " ".join(parts)


def _audio(samples: np.ndarray) -> str:
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    sound = base64.b64encode(held.getvalue()).decode()
    return f'<audio controls preload="none" src="data:audio/wav;base64,{sound}"></audio>'
