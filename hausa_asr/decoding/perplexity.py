"""Measure how well a language model foretells sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hausa_asr.decoding.flashlight import flashlight, is_installed, quiet
from hausa_asr.decoding.ngram import UNKNOWN, read_words


class Perplexity(NamedTuple):
    """How well a model foretells some sentences; less is better.

    Attributes:
        value: 1 over the geometric mean of the chances of their words and ends, unknown words left out.
        words: how many words and ends were counted.
        unknown: how many more words the model does not know.
    """

    value: float
    words: int
    unknown: int


def perplexity(file: Path, sentences: Sequence[Sequence[str]]) -> Perplexity | None:
    """Compute a language model's perplexity on sentences; None without flashlight-text.

    Args:
        file: an ARPA file.
        sentences: the words of each, or its letters for a model of letters.
    """
    if not is_installed() or not sentences:
        return None
    library = flashlight()
    words = [*read_words(file), UNKNOWN]
    known = set(words)
    numbers = library.Dictionary(words)
    with quiet():
        model = library.KenLM(str(file), numbers)
    log10 = 0.0
    counted = unknown = 0
    for sentence in sentences:
        state = model.start(False)
        for word in sentence:
            state, chance = model.score(state, numbers.get_index(word if word in known else UNKNOWN))
            if word in known:
                log10, counted = log10 + chance, counted + 1
            else:
                unknown += 1
        log10, counted = log10 + model.finish(state)[1], counted + 1
    return Perplexity(10 ** (-log10 / counted), counted, unknown)
