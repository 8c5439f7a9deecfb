"""Errors in words: put in place of others, dropped, put in, joined and split.

In: what was heard, and what is resampled. Out: tallies by name, and the words that are dropped most often. Words are
aligned by jiwer. Boundaries are counted on letters, so a space that is missing between two words counts as one although
both words are wrong then, and a space that went with a dropped word does not.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from hausa_asr.diagnosis.figure import Tally
from hausa_asr.diagnosis.heard import Heard

LENGTHS = {"words of 1 or 2 letters": (1, 2), "words of 3 or 4 letters": (3, 4), "longer words": (5, 10**6)}
"""Classes of words by length; an apostrophe is a letter."""
_HEARD = 0.5
"""A word of which this share of letters is heard is not dropped."""
SHORT, LONG = "words of 1 or 2 letters", "longer words"


def word_tallies(heard: Heard, units: np.ndarray) -> dict[str, Tally]:
    """Count substitutions, deletions and insertions, all as shares of the transcripts' words."""
    found = {kind: np.zeros(len(heard.ids), dtype=np.int64) for kind in ("substitute", "delete", "insert")}
    for row, chunks in enumerate(heard.words):
        for chunk in chunks:
            if chunk.type in found:
                length = chunk.hyp_end_idx - chunk.hyp_start_idx
                found[chunk.type][row] += length or chunk.ref_end_idx - chunk.ref_start_idx
    words = _words(heard)
    names = {"substitute": "put in place of another", "delete": "dropped", "insert": "put in"}
    return {names[kind]: Tally(counts, words, units) for kind, counts in found.items()}


def dropped(heard: Heard, units: np.ndarray) -> tuple[dict[str, Tally], list[tuple[str, int, int]]]:
    """Count the dropped words by length, and list them all.

    A word whose letters were mostly heard, run together with its neighbour as in `yana` for `ya na`, is not dropped.

    Returns:
        Tallies by class of length; and (word, times dropped, times said), those dropped most often first.
    """
    rows = len(heard.ids)
    gone = {name: np.zeros(rows, dtype=np.int64) for name in LENGTHS}
    said = {name: np.zeros(rows, dtype=np.int64) for name in LENGTHS}
    times_said: Counter[str] = Counter()
    times_gone: Counter[str] = Counter()
    letters = _letters_heard(heard)
    for row, (reference, chunks) in enumerate(zip(heard.references, heard.words, strict=True)):
        words = reference.split()
        ends = np.cumsum([len(word) + 1 for word in words])
        times_said.update(words)
        for word in words:
            said[_class(word)][row] += 1
        for place in (n for one in chunks if one.type == "delete" for n in range(one.ref_start_idx, one.ref_end_idx)):
            word, end = words[place], int(ends[place]) - 1
            if letters[row][end - len(word) : end].mean() < _HEARD:
                gone[_class(word)][row] += 1
                times_gone[word] += 1
    most = [(word, count, times_said[word]) for word, count in times_gone.most_common()]
    return {name: Tally(gone[name], said[name], units) for name in LENGTHS}, most


def _letters_heard(heard: Heard) -> list[np.ndarray]:
    """For each transcript, (letters,) whether the letter is among those that were heard."""
    found = []
    for reference, chunks in zip(heard.references, heard.letters, strict=True):
        mask = np.zeros(len(reference), bool)
        for chunk in chunks:
            if chunk.type == "equal":
                mask[chunk.ref_start_idx : chunk.ref_end_idx] = True
        found.append(mask)
    return found


def boundary_tallies(heard: Heard, units: np.ndarray) -> dict[str, Tally]:
    """Count the spaces that are missing and those that are too many, as shares of the transcripts' spaces."""
    joined, split = (np.zeros(len(heard.ids), dtype=np.int64) for _ in range(2))
    for row, chunks in enumerate(heard.letters):
        reference, hypothesis = heard.references[row], heard.hypotheses[row]
        kept_there, kept_here = np.zeros(len(reference) + 2, bool), np.zeros(len(hypothesis) + 2, bool)
        for chunk in chunks:
            if chunk.type in ("equal", "substitute"):
                kept_there[chunk.ref_start_idx + 1 : chunk.ref_end_idx + 1] = True
                kept_here[chunk.hyp_start_idx + 1 : chunk.hyp_end_idx + 1] = True
        for chunk in chunks:
            if chunk.type == "delete":
                joined[row] += _bare_spaces(reference, kept_there, chunk.ref_start_idx, chunk.ref_end_idx)
            if chunk.type == "insert":
                split[row] += _bare_spaces(hypothesis, kept_here, chunk.hyp_start_idx, chunk.hyp_end_idx)
    spaces = np.array([reference.count(" ") for reference in heard.references], dtype=np.int64)
    return {"joined": Tally(joined, spaces, units), "split": Tally(split, spaces, units)}


def _bare_spaces(text: str, kept: np.ndarray, start: int, end: int) -> int:
    """Count the spaces of a stretch whose neighbours on both sides are aligned with something; `kept` begins at -1."""
    return sum(text[place] == " " and bool(kept[place] and kept[place + 2]) for place in range(start, end))


def _class(word: str) -> str:
    return next(name for name, (least, most) in LENGTHS.items() if least <= len(word) <= most)


def _words(heard: Heard) -> np.ndarray:
    return np.array([len(reference.split()) for reference in heard.references], dtype=np.int64)
