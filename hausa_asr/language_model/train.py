"""Train a language model: text files and a dataset's transcripts in, an ARPA file out. Called by `hausa-asr lm train`.

Text is spelled as transcripts are (`text.normalise`). What can't be, such as a line with ₦500, is left out, and so is
every sentence of dev and test: a model that has read them would make their scores worthless.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hausa_asr.dataset.prepared import Prepared
from hausa_asr.decoding.ngram import estimate, letters_of
from hausa_asr.decoding.perplexity import Perplexity, perplexity
from hausa_asr.decoding.weights import weights_file
from hausa_asr.errors import UserError
from hausa_asr.text import fold, normalise, unknown_characters

_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+")
_HELD_OUT = ("dev", "test")


@dataclass(frozen=True)
class Trained:
    """What became of the text.

    Attributes:
        file: the ARPA file.
        sentences, words: learnt from, the same sentence counted each time that it comes.
        unspelled: sentences left out since they have characters outside the alphabet.
        held_out: sentences left out since dev or test has them.
        vocabulary: different words (or letters) that the model knows.
        sizes: its n-grams by order.
        dev: how well it foretells dev; None without a dataset or flashlight-text.
    """

    file: Path
    sentences: int
    words: int
    unspelled: int
    held_out: int
    vocabulary: int
    sizes: list[int]
    dev: Perplexity | None


def train(
    texts: Sequence[Path], out: Path, prepared: Prepared | None = None, *,
    n: int = 4, of_letters: bool = False, min_count: int = 1,
) -> Trained:  # fmt: skip
    """Train an n-gram model and write it.

    Args:
        texts: text files in UTF-8, a line or more for each sentence.
        out: the ARPA file to write.
        prepared: a dataset whose train transcripts are learnt from too, and whose dev and test sentences are left out.
        n: the longest n-grams.
        of_letters: learn letters in place of words.
        min_count: words that are rarer are not learnt.

    Raises:
        UserError: a text can't be read, nothing is left to learn from, or the file can't be written.
    """
    if not out.name or out.is_dir():
        raise UserError("The language model is a file, and this is a folder.", where=out, fix="Add a name to --out.")
    held_out = _held_out(prepared)
    kept: list[list[str]] = []
    unspelled = refused = 0
    for whole in _lines(texts, prepared):
        sentences = [spelled for one in _SENTENCE_END.split(whole) if (spelled := normalise(one))]
        if fold(whole) in held_out:
            refused += len(sentences)
            continue
        for sentence in sentences:
            if unknown_characters(sentence):
                unspelled += 1
            elif fold(sentence) in held_out:
                refused += 1
            else:
                kept.append(sentence.split())
    if not kept:
        raise UserError(
            "There is no text to learn from.",
            where=", ".join(map(str, texts)) or (prepared.path if prepared else ""),
            fix=f"Give other text: {unspelled} sentences have characters outside the alphabet, {refused} are in dev or "
            "test.",
        )
    words = sum(map(len, kept))
    tokens: Callable[[list[str]], list[str]] = letters_of if of_letters else list
    try:
        model = estimate(map(tokens, kept), n, 1 if of_letters else min_count)
    except ValueError as error:
        where = f"{len(kept)} sentences, --min-count {min_count}"
        raise UserError(
            f"There is no language model of this text: {error}.",
            where=where,
            fix="Lower --min-count, or give more text.",
        ) from error
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        model.write(out)
        weights_file(out).unlink(missing_ok=True)  # they were tuned for another one
    except OSError as error:
        raise UserError(
            f"The language model can't be written: {error}.", where=out, fix="Give another --out."
        ) from error
    dev = perplexity(out, [tokens(text.split()) for text in _transcripts(prepared, "dev")])
    return Trained(out, len(kept), words, unspelled, refused, len(model.words) - 3, model.sizes, dev)


def _held_out(prepared: Prepared | None) -> set[str]:
    """What dev and test say, hooks folded: each transcript, and each sentence of those that have several."""
    found = set()
    for name in _HELD_OUT:
        if prepared is not None and name in prepared.splits:
            split = prepared.splits[name]
            for raw, spelled in split.transcripts(len(split)):
                found |= {fold(spelled), *(fold(one) for one in _SENTENCE_END.split(raw))}
    return found - {""}


def _lines(texts: Sequence[Path], prepared: Prepared | None) -> Iterator[str]:
    """The transcripts of train, and the lines of the texts."""
    yield from _transcripts(prepared, "train")
    for file in texts:
        try:
            with file.open(encoding="utf-8") as lines:
                yield from lines
        except OSError as error:
            raise UserError(f"The text can't be read: {error.strerror}.", where=file, fix="Give text files.") from error
        except UnicodeDecodeError as error:
            raise UserError(
                f"The text is not in UTF-8: {error.reason} at byte {error.start}.",
                where=file,
                fix="Save it as UTF-8; a binary file is no text.",
            ) from error


def _transcripts(prepared: Prepared | None, split: str) -> Iterable[str]:
    if prepared is None or split not in prepared.splits:
        return ()
    found = prepared.splits[split]
    return (found.without_samples(index).text for index in range(len(found)))
