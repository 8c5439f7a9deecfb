"""Decode with a language model: logits in, paths and texts out.

flashlight-text searches. It keeps the best `beam` beginnings of a text. Each has the chances of its labels, and for
each of its words that of the language model after the words before, times a weight. A score for each word makes up for
the model's liking of few words. With a model of words only its own words can be heard, but for one that a recording
cuts off; with a model of letters, any. Called by `transcribe`, and where language models are tuned and tested.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from hausa_asr.decoding.flashlight import flashlight, quiet
from hausa_asr.decoding.ngram import read_words
from hausa_asr.decoding.path import text_of
from hausa_asr.decoding.weights import Weights, stored_weights
from hausa_asr.errors import UserError
from hausa_asr.text import LETTERS, PAD, UNK, VOCAB, WORD

_NEVER = -1e4
"""The log chance of what a frame must not be."""
_LONGEST, _PAUSE = 1500, 10
"""Frames that are searched at once, half a minute; and those of a pause that parts words, a fifth of a second."""
_TOKENS_AT_ONCE, _THRESHOLD = 20, 50.0
"""Of a frame's labels, how many are tried; and how far, in nats, a beginning may be behind the best."""


Search = Callable[[Sequence[np.ndarray]], Iterable[np.ndarray]]


class BeamDecoder:
    """Decode with a language model of words or of letters.

    Args:
        file: the language model, an ARPA file.
        weights: how it is heard; by default what `tune` wrote beside it, else those of `Weights`.

    Attributes:
        weights: how it is heard.

    Raises:
        UserError: there is no such file, it is no language model of Hausa text, or flashlight-text is missing.
    """

    def __init__(self, file: Path, weights: Weights | None = None) -> None:
        text = flashlight()
        words = usable_words(file)
        of_letters = all(len(word) == 1 for word in words)
        letters = text.Dictionary(sorted(VOCAB, key=VOCAB.__getitem__))
        with quiet():
            try:
                self._words = letters if of_letters else text.Dictionary([*words, UNK])
                self._lm = text.KenLM(str(file), self._words)
            except (RuntimeError, ValueError) as error:  # KenLM's, and a word that is there twice
                raise _unusable(file, str(error)) from error
        self._trie = None if of_letters else self._trie_of(words)
        self.weigh(weights or stored_weights(file) or Weights())

    def weigh(self, weights: Weights) -> None:
        """Use other weights from now on; the model stays as it is loaded."""
        text = flashlight()
        self.weights = weights
        blank, space, unknown = VOCAB[PAD], VOCAB[WORD], self._words.get_index(UNK)
        common = {
            "beam_size": weights.beam,
            "beam_size_token": _TOKENS_AT_ONCE,
            "beam_threshold": _THRESHOLD,
            "lm_weight": weights.lm,
            "log_add": False,
            "criterion_type": text.CriterionType.CTC,
        }
        if self._trie is None:
            options = text.LexiconFreeDecoderOptions(sil_score=weights.word, **common)
            self._search = text.LexiconFreeDecoder(options, self._lm, space, blank, [])
        else:
            options = text.LexiconDecoderOptions(word_score=weights.word, unk_score=-math.inf, sil_score=0.0, **common)
            self._search = text.LexiconDecoder(options, self._trie, self._lm, space, blank, unknown, [], False)

    def __call__(self, logits: Sequence[np.ndarray]) -> list[str]:
        """The texts of N recordings, of the logits of each, (T, V)."""
        return [text_of(path) for path in self.paths(logits)]

    def paths(self, logits: Sequence[np.ndarray], search: Search | None = None) -> list[np.ndarray]:
        """The best path of each of N recordings, (T,).

        Args:
            logits: (T, V) of each, in any scale that a softmax makes chances of.
            search: finds the paths of parts of recordings; by default `path`, one after another.
        """
        cuts = [[0, *pause_ends(one), len(one)] for one in logits]
        parts = [one[start:end] for one, cut in zip(logits, cuts, strict=True) for start, end in pairwise(cut)]
        searched = iter(search(parts) if search is not None else map(self.path, parts))
        found = []
        for one, cut in zip(logits, cuts, strict=True):
            paths = [next(searched) for _ in pairwise(cut)]
            for path, end in zip(paths, cut[1:-1], strict=False):
                if path[-1] == VOCAB[PAD] and (self._trie is not None or _is_pause(one, end)):
                    path[-1] = VOCAB[WORD]  # words do not go on beyond a pause, with or without a space
            found.append(np.concatenate(paths))
        return found

    def path(self, logits: np.ndarray) -> np.ndarray:
        """The best path of a part of a recording, (T,); the C++ side reads `chances` where it lies."""
        if not len(logits):
            return np.zeros(0, dtype=np.int64)
        logits = logits.astype(np.float64)
        logits = logits - logits.max(axis=1, keepdims=True)
        chances = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
        chances[:, VOCAB[UNK]] = _NEVER
        if self._trie is not None:
            last = np.full((1, chances.shape[1]), _NEVER, dtype=np.float32)
            last[0, VOCAB[WORD]] = 0.0  # a space more, which ends the last word
            chances = np.concatenate([chances, last])
        best = self._search.decode(chances.ctypes.data, *chances.shape)[0]
        return np.array(best.tokens[1 : 1 + len(logits)], dtype=np.int64)  # between the search's own first and last

    def _trie_of(self, words: Sequence[str]) -> Any:
        """All words as paths of labels, each with its chance as a first word, which the search hopes for on the way."""
        text = flashlight()
        trie = text.Trie(len(VOCAB), VOCAB[WORD])
        start = self._lm.start(False)
        for word in words:
            number = self._words.get_index(word)
            _, chance = self._lm.score(start, number)
            trie.insert([*(VOCAB[letter] for letter in word), VOCAB[WORD]], number, chance)
        trie.smear(text.SmearingMode.MAX)
        return trie


def pause_ends(logits: np.ndarray) -> list[int]:
    """Choose where to part a long recording, in frames: in its longest pauses.

    The search would keep all of it otherwise.

    Args:
        logits: (T, V).
    """
    ends: list[int] = []
    last = 0
    while len(logits) - last > _LONGEST:
        window = logits[last + _LONGEST // 2 : last + _LONGEST]
        silent = np.concatenate([[0], window.argmax(axis=1) == VOCAB[PAD], [0]]).astype(np.int8)
        begins, stops = np.flatnonzero(np.diff(silent) == 1), np.flatnonzero(np.diff(silent) == -1)
        middle = 0
        if len(begins):
            longest = int((stops - begins).argmax())
            middle = int(begins[longest] + stops[longest]) // 2
        last += _LONGEST // 2 + middle
        ends.append(last)
    return ends


def _is_pause(logits: np.ndarray, end: int) -> bool:
    return bool((logits[end - _PAUSE // 2 : end + _PAUSE // 2].argmax(axis=1) == VOCAB[PAD]).all())


def usable_words(file: Path) -> list[str]:
    """The words of a language model that our letters can spell.

    Raises:
        UserError: there is no such file, or it is no language model of Hausa text.
    """
    if not os.path.isfile(file):
        raise UserError(
            "There is no such language model.", where=file, fix="Make one with `hausa-asr lm train TEXT --out FILE`."
        )
    try:
        words = [word for word in read_words(file) if set(word) <= _SPELLABLE]
        if not _is_whole(file):
            raise ValueError("it is cut short: the last line of an ARPA file is \\end\\")
    except UnicodeDecodeError as error:
        raise _unusable(file, "it is no text; give the ARPA file and not one of KenLM's binary files") from error
    except (ValueError, OSError) as error:
        raise _unusable(file, str(error)) from error
    if not words:
        raise _unusable(file, f"none of its words is in the letters {LETTERS}")
    return words


_SPELLABLE = {*LETTERS, WORD}


def _is_whole(file: Path) -> bool:
    with file.open("rb") as content:
        content.seek(-min(64, file.stat().st_size), os.SEEK_END)
        return content.read().rstrip().endswith(b"\\end\\")


def _unusable(file: Path, why: str) -> UserError:
    return UserError(
        f"The language model can't be used: {why.strip().splitlines()[-1][-300:].rstrip('.')}.",
        where=file,
        fix="Make one with `hausa-asr lm train TEXT --out FILE`, or give an ARPA file of another tool.",
    )
