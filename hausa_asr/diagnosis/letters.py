"""Errors in letters: which is heard as which, and what becomes of hooks and apostrophes.

In: what was heard, and what is resampled. Out: tallies by name and a list of confusions. Letters that write one sound
together (sh, ts, 'y) count as one.
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
from rapidfuzz.distance import Levenshtein

from hausa_asr.diagnosis.figure import Tally
from hausa_asr.diagnosis.heard import Heard

_LETTER = re.compile("sh|ts|'y|.")
HOOKED = {"ɓ": "b", "ɗ": "d", "ƙ": "k", "'y": "y"}
"""Letters of their own, each with the plain one that careless text has in its place."""
NOTHING = "-"
"""In a confusion: a letter that is dropped has become this, and one that is put in was this."""


def letters_of(text: str) -> list[str]:
    """The letters of a normalised text; sh, ts and 'y are one each."""
    return _LETTER.findall(text)


def confusions(heard: Heard, most: int = 20) -> list[tuple[str, str, int, int]]:
    """List what letters are heard as: (said, heard, times, times said), the most frequent first, spaces left out."""
    found: Counter[tuple[str, str]] = Counter()
    said: Counter[str] = Counter()
    for reference, hypothesis in zip(heard.references, heard.hypotheses, strict=True):
        one, other = letters_of(reference), letters_of(hypothesis)
        said.update(one)
        for edit in Levenshtein.editops(one, other):
            there = NOTHING if edit.tag == "insert" else one[edit.src_pos]
            here = NOTHING if edit.tag == "delete" else other[edit.dest_pos]
            if " " not in (there, here):
                found[there, here] += 1
    return [(there, here, count, said[there]) for (there, here), count in found.most_common(most)]


def hook_tallies(heard: Heard, units: np.ndarray) -> dict[str, Tally]:
    """Count the hooked letters that are heard as themselves (recall), and those heard that were said (precision).

    `plain` has the recall of the plain letters beside them, b, d, k and y: what the model makes of like sounds.
    """
    rows = len(heard.ids)
    right, said, given, plain, plain_said = (np.zeros(rows, dtype=np.int64) for _ in range(5))
    for row, (reference, hypothesis) in enumerate(zip(heard.references, heard.hypotheses, strict=True)):
        one, other = letters_of(reference), letters_of(hypothesis)
        wrong = {edit.src_pos for edit in Levenshtein.editops(one, other) if edit.tag != "insert"}
        for place, letter in enumerate(one):
            hooked, is_plain = letter in HOOKED, letter in HOOKED.values()
            said[row] += hooked
            right[row] += hooked and place not in wrong
            plain_said[row] += is_plain
            plain[row] += is_plain and place not in wrong
        given[row] = sum(letter in HOOKED for letter in other)
    return {
        "hooked letters heard as such": Tally(right, said, units),
        "hooks heard that were said": Tally(right, given, units),
        "plain": Tally(plain, plain_said, units),
    }
