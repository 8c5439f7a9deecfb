"""Estimate an n-gram language model, and write it as ARPA.

In: sentences as lists of words, or of letters. Out: an `Ngrams`, and a file that KenLM and others read. No wheel trains
one, so this does, by interpolated modified Kneser-Ney smoothing as lmplz does it (Chen and Goodman, "An Empirical Study
of Smoothing Techniques for Language Modeling", 1998; Heafield et al., "Scalable Modified Kneser-Ney Language Model
Estimation", 2013). Every n-gram is a number: that of its first n-1 words and its last word. So all counting is NumPy's
sorting, and ten million words take a minute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hausa_asr.files import written_whole

UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"
_UNK, _BOS, _EOS = 0, 1, 2
SPECIAL = (UNKNOWN, BEGIN, END)
_FALLBACK = np.array([0.0, 0.5, 1.0, 1.5])
"""Discounts where counts of counts give none, as in a corpus of few words. They are those that lmplz suggests."""
_NEVER = -99.0
"""What ARPA files write for the logarithm of 0, the chance of `<s>`."""


@dataclass(frozen=True)
class Order:
    """The n-grams of one order, of which there are G.

    Attributes:
        prefix: (G,) the number of each one's first words in the order below.
        word: (G,) its last word.
        suffix: (G,) the number of its last words in the order below.
        log10: (G,) the logarithm of the chance of its last word after the others.
        backoff: (G,) the logarithm of the weight of the order below where words after it were never seen.
    """

    prefix: np.ndarray
    word: np.ndarray
    suffix: np.ndarray
    log10: np.ndarray
    backoff: np.ndarray


@dataclass(frozen=True)
class Ngrams:
    """A language model: its words, `SPECIAL` first, and its n-grams by order, from single words on."""

    words: list[str]
    orders: list[Order]

    @property
    def sizes(self) -> list[int]:
        """How many n-grams there are of each order."""
        return [len(order.word) for order in self.orders]

    def write(self, file: Path) -> None:
        """Write the ARPA file.

        Raises:
            OSError: it can't be written.
        """
        with written_whole(file) as out:
            out.write("\\data\\\n")
            out.writelines(f"ngram {n}={size}\n" for n, size in enumerate(self.sizes, start=1))
            names = self.words
            for n, order in enumerate(self.orders, start=1):
                last = n == len(self.orders)
                if n > 1:
                    names = [
                        f"{names[prefix]} {self.words[word]}"
                        for prefix, word in zip(order.prefix.tolist(), order.word.tolist(), strict=True)
                    ]
                out.write(f"\n\\{n}-grams:\n")
                rows = zip(order.log10.tolist(), names, order.backoff.tolist(), strict=True)
                out.writelines(f"{p:.7g}\t{name}\n" if last else f"{p:.7g}\t{name}\t{b:.7g}\n" for p, name, b in rows)
            out.write("\n\\end\\\n")


def estimate(sentences: Iterable[Sequence[str]], n: int = 4, min_count: int = 1) -> Ngrams:
    """Estimate an n-gram model.

    Args:
        sentences: the words of each; words of `SPECIAL` must not be among them.
        n: the longest n-grams, at least 2.
        min_count: words that are rarer count as `<unk>`.

    Raises:
        ValueError: there are no words, or n is under 2.
    """
    if n < 2:
        raise ValueError(f"n-grams of {n} word say nothing of the word before")
    tokens, since, words = _numbered(sentences, min_count)
    if len(words) == len(SPECIAL):
        raise ValueError("no words to learn from")
    counted = [_single_words(tokens, len(words))]
    ids = tokens
    for k in range(2, n + 1):
        counts, ids = _longer(ids, tokens, since, k, len(words))
        counted.append(counts)
    return Ngrams(words, _smoothed(counted))


def _numbered(sentences: Iterable[Sequence[str]], min_count: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """All tokens as numbers, each one's place in its sentence, and the words by number."""
    number: dict[str, int] = {name: at for at, name in enumerate(SPECIAL)}
    tokens: list[int] = []
    lengths = []
    for sentence in sentences:
        if not sentence:
            continue
        tokens.append(_BOS)
        tokens.extend(number.setdefault(word, len(number)) for word in sentence)
        tokens.append(_EOS)
        lengths.append(len(sentence) + 2)
    found = np.array(tokens, dtype=np.int64)
    since = np.concatenate([np.arange(length) for length in lengths]) if lengths else np.zeros(0, dtype=np.int64)
    words = list(number)
    if min_count > 1 and lengths:
        kept = np.bincount(found, minlength=len(words)) >= min_count
        kept[: len(SPECIAL)] = True
        renumbered = np.where(kept, np.cumsum(kept) - 1, _UNK)
        found, words = renumbered[found], [word for word, keep in zip(words, kept, strict=True) if keep]
    return found, since, words


@dataclass(frozen=True)
class _Counted:
    """The n-grams of one order as they were counted; `begins` are those that begin a sentence."""

    prefix: np.ndarray
    word: np.ndarray
    suffix: np.ndarray
    count: np.ndarray
    begins: np.ndarray


def _single_words(tokens: np.ndarray, n_words: int) -> _Counted:
    nothing, words = np.zeros(n_words, dtype=np.int64), np.arange(n_words)
    return _Counted(nothing, words, nothing, np.bincount(tokens, minlength=n_words), words == _BOS)


def _longer(
    shorter: np.ndarray, tokens: np.ndarray, since: np.ndarray, k: int, n_words: int
) -> tuple[_Counted, np.ndarray]:
    """Count the n-grams of order k.

    Args:
        shorter: for each token, the index of the order k-1 n-gram ending there; -1 if there is none.
        tokens, since: the tokens, and each one's place in its sentence.
        k: the order.
        n_words: how many words there are.

    Returns:
        The counts, and the number of the n-gram that ends at each token.
    """
    ends = np.flatnonzero(since >= k - 1)
    keys = shorter[ends - 1] * n_words + tokens[ends]
    unique, first, inverse, count = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    ids = np.full(len(tokens), -1, dtype=np.int64)
    ids[ends] = inverse
    begins = since[ends[first]] == k - 1
    return _Counted(unique // n_words, unique % n_words, shorter[ends[first]], count, begins), ids


def _smoothed(counted: Sequence[_Counted]) -> list[Order]:
    """Turn counts into chances and backoff weights, from single words up."""
    orders: list[Order] = []
    below = np.zeros(1)
    for k, here in enumerate(counted, start=1):
        count = _adjusted(here, counted[k] if k < len(counted) else None)
        if k == 1:
            count[_BOS] = 0  # nothing is ever followed by a beginning
        taken = _discounts(count)[np.minimum(count, 3)] * (count > 0)
        n_contexts = len(below) if k > 1 else 1
        total = np.bincount(here.prefix, weights=count, minlength=n_contexts)
        left = np.bincount(here.prefix, weights=taken, minlength=n_contexts)
        weight = np.divide(left, total, out=np.zeros(n_contexts), where=total > 0)
        lower = below[here.suffix] if k > 1 else np.full(len(count), 1.0 / (len(count) - 1))  # all but <s>
        chance = (count - taken) / total[here.prefix] + weight[here.prefix] * lower
        if k > 1:
            previous = orders[-1]
            with np.errstate(divide="ignore"):
                backoff = np.where(total > 0, np.log10(weight), 0.0)
            orders[-1] = Order(previous.prefix, previous.word, previous.suffix, previous.log10, backoff)
        log10 = np.log10(chance)
        if k == 1:
            log10[_BOS] = _NEVER
        orders.append(Order(here.prefix, here.word, here.suffix, log10, np.zeros(len(count))))
        below = chance
    return orders


def _adjusted(here: _Counted, longer: _Counted | None) -> np.ndarray:
    """How many different words come before each n-gram; the plain count where none can, and in the highest order."""
    if longer is None:
        return here.count.copy()
    before = np.bincount(longer.suffix, minlength=len(here.count))
    return np.where(here.begins, here.count, before)


def _discounts(count: np.ndarray) -> np.ndarray:
    """(4,) what is taken from n-grams that were counted 0, 1, 2 and more often; D in Chen and Goodman's equation 26."""
    n = np.bincount(np.minimum(count, 5), minlength=6).astype(float)
    if not n[1:5].all():
        return _FALLBACK
    y = n[1] / (n[1] + 2 * n[2])
    found = np.array([0.0, *(k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3))])
    usable = (found[1:] > 0).all() and (found <= np.arange(4)).all()
    return found if usable else _FALLBACK


def letters_of(words: Sequence[str]) -> list[str]:
    """Spell words as the tokens of a model of letters: every letter by itself, `|` between words.

    Example:
        >>> letters_of(["ina", "da"])
        ['i', 'n', 'a', '|', 'd', 'a']
    """
    return [letter for place, word in enumerate(words) for letter in ("|" * (place > 0) + word)]


def read_words(file: Path) -> Iterator[str]:
    """The single words of an ARPA file, `SPECIAL` left out.

    Raises:
        OSError, UnicodeDecodeError: it can't be read, or is no text.
        ValueError: it is no ARPA file.
    """
    with file.open(encoding="utf-8") as lines:
        line = next((line for line in lines if line.strip()), "")
        if line.strip() != "\\data\\":
            raise ValueError(f"an ARPA file begins with \\data\\, and this one with {line.strip()[:40]!r}")
        inside = False
        for line in lines:
            if line.startswith("\\"):
                if inside:
                    return
                inside = line.strip() == "\\1-grams:"
            elif inside and line.strip():
                fields = line.split()
                if len(fields) < 2:
                    raise ValueError(f"an ARPA file has a word in every line, and not so in {line.strip()[:40]!r}")
                word = fields[1]
                if word not in SPECIAL:
                    yield word
    raise ValueError("an ARPA file has a part \\1-grams:, and another part or \\end\\ after it")
