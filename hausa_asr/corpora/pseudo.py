"""Make speech in words that do not exist, to pretrain the demo base checkpoint on.

In: a cache folder. Out: utterances. Called by `demo_base.pretrain`, which makes the checkpoint. Every sound of Hausa,
in syllables that Hausa allows, in random words and in voices that the demo corpus does not have: a model that has
learned these knows the sounds, and neither a word nor a speaker of the demo corpus.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Set
from pathlib import Path

from hausa_asr.corpora import demo
from hausa_asr.corpora.espeak import Line, recorded
from hausa_asr.utterance import Utterance

VOICES = (
    *("Alex", "Alicia", "Andrea", "Annie", "Denis", "Diogo", "Lee", "Michael", "Nguyen", "belinda"),
    *("david", "ed", "gustave", "linda", "miguel", "pablo", "rob", "steph", "travis", "zac"),
)
DEV_FRACTION = 0.05

_PITCHES, _RATES = (35, 65), (110, 160)
_SYLLABLES_PER_UTTERANCE = (6, 14)  # 1 to 5 seconds at these rates
_WORDS_PER_UTTERANCE = (2, 6)

_ONSETS = (*"bcdfghjklmnrstwyzɓɗƙ", "sh", "ts", "kw", "ky", "gw", "gy", "ƙw", "ƙy", "fy")
_MEDIAL_ONSETS = (*_ONSETS, "'", "'", "'y")
_INITIAL_ONSETS = (*_ONSETS, "'y", "")
_NUCLEI = (*"aaaaaaiiiiuuueeoo", "ai", "au")
_CODAS = ("n", "n", "r", "l", "m", "s")
_DOUBLED = frozenset("bdfgklmnrstwyzɗƙ")  # as onsets; c, j and ' are written single
_SYLLABLES_PER_WORD = (1, 2, 2, 2, 3, 3, 4)


def lines(seed: int = 0, count: int = 2400) -> list[Line]:
    """Draw who says what: `count` utterances of 2 to 6 pseudo-words.

    None of these is a word of the demo grammar, and no utterance comes twice. Every twentieth is dev, in the same
    voices as train.
    """
    rng = random.Random(seed)
    real_words = demo.words()
    seen: set[str] = set()
    result = []
    for number in range(count):
        text = _utterance(rng, real_words)
        while text in seen:
            text = _utterance(rng, real_words)
        seen.add(text)
        split = "dev" if number % round(1 / DEV_FRACTION) == 0 else "train"
        voice, pitch, rate = rng.choice(VOICES), rng.randint(*_PITCHES), rng.randint(*_RATES)
        result.append(Line(f"pseudo-{split}-{number:05d}", text, split, voice, pitch, rate))
    return result


def utterances(cache: Path, seed: int = 0, count: int = 2400) -> Iterator[Utterance]:
    """Make the pretraining corpus under `cache` on the first call; later calls read it from there.

    Args:
        cache: the folder to write to; 120 kB for each utterance.
        seed: another seed draws other words.
        count: how many utterances, dev (5 %) included.

    Raises:
        UserError: espeakng-loader is missing, or `cache` can't be written.
    """
    return recorded(cache, "pseudo", lines(seed, count))


def _utterance(rng: random.Random, real_words: Set[str]) -> str:
    fewest, most = _SYLLABLES_PER_UTTERANCE
    while True:
        syllables = [rng.choice(_SYLLABLES_PER_WORD) for _ in range(rng.randint(*_WORDS_PER_UTTERANCE))]
        if fewest <= sum(syllables) <= most:
            return " ".join(_word(rng, length, real_words) for length in syllables)


def _word(rng: random.Random, syllables: int, real_words: Set[str]) -> str:
    while True:
        nucleus = rng.choice(_NUCLEI)
        word = rng.choice(_INITIAL_ONSETS) + nucleus
        for _ in range(syllables - 1):
            word += _between(rng, closed=len(nucleus) == 1)
            nucleus = rng.choice(_NUCLEI)
            word += nucleus
        if len(nucleus) == 1 and rng.random() < 0.15:
            word += rng.choice(_CODAS)
        if word not in real_words:
            return word


def _between(rng: random.Random, closed: bool) -> str:
    """Draw the consonants between two vowels: one onset, or a doubled one, or a coda and an onset.

    The last two only after a syllable that may be closed; one with a diphthong may not.
    """
    onset = rng.choice(_MEDIAL_ONSETS)
    kind = rng.random()
    if closed and kind < 0.12 and onset in _DOUBLED:
        return onset + onset
    if closed and kind < 0.35 and onset[0] not in "'h":  # s before h would be read as sh
        return rng.choice(_CODAS) + onset
    return onset
