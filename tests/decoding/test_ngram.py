"""n-gram models against their definition, word for word, and as KenLM reads them from the file."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from hausa_asr.decoding.flashlight import flashlight, quiet
from hausa_asr.decoding.ngram import BEGIN, END, UNKNOWN, Ngrams, estimate, letters_of, read_words
from hausa_asr.decoding.perplexity import perplexity

COMMON = "ina da gida mota kasa ruwa ne ce ta ya su mun yi zuwa kuma amma sai"
WORDS = [*COMMON.split(), *(f"w{n}" for n in range(60))]
Chance = Callable[[str, tuple[str, ...]], float]


def sentences(count: int) -> list[list[str]]:
    """Sentences in which each word depends on the one before."""
    chance, made = random.Random(0), []
    often = [1 / (place + 1) for place in range(len(WORDS))]
    for _ in range(count):
        words, last = [], 0
        for _ in range(chance.randint(1, 9)):
            last = (last * 3 + chance.choices(range(len(WORDS)), often)[0]) % len(WORDS)
            words.append(WORDS[last])
        made.append(words)
    return made


def by_definition(text: list[list[str]], n: int) -> Chance:
    """Interpolated modified Kneser-Ney as Chen and Goodman write it down, with Python's dictionaries."""
    vocabulary = {word for words in text for word in words} | {UNKNOWN, END}
    counts: list[Counter[tuple[str, ...]]] = [Counter() for _ in range(n + 1)]
    for words in text:
        whole = [BEGIN, *words, END]
        for k in range(1, n + 1):
            counts[k].update(tuple(whole[at : at + k]) for at in range(len(whole) - k + 1))
    for k in range(1, n):  # of the highest order upwards nothing has been replaced yet
        before = defaultdict(set)
        for gram in counts[k + 1]:
            before[gram[1:]].add(gram[0])
        counts[k] = Counter({gram: counts[k][gram] if gram[0] == BEGIN else len(before[gram]) for gram in counts[k]})
    del counts[1][(BEGIN,)]
    discounts = [[0.0]]
    for k in range(1, n + 1):
        of = Counter(counts[k].values())
        if not all(of[count] for count in (1, 2, 3, 4)):
            discounts.append([0, 0.5, 1.0, 1.5])
            continue
        y = of[1] / (of[1] + 2 * of[2])
        discounts.append([0, *(count - (count + 1) * y * of[count + 1] / of[count] for count in (1, 2, 3))])

    def chance(word: str, context: tuple[str, ...] | None) -> float:
        if context is None:
            return 1 / len(vocabulary)
        lower = chance(word, context[1:] if context else None)
        k = len(context) + 1
        after = {gram[-1]: count for gram, count in counts[k].items() if gram[:-1] == context}
        if not after:
            return lower
        total, taken = sum(after.values()), [discounts[k][min(count, 3)] for count in after.values()]
        own = after.get(word, 0)
        return (own - discounts[k][min(own, 3)]) / total + sum(taken) / total * lower

    return chance


def as_kenlm_reads(model: Ngrams, file: Path) -> Callable[[list[str]], list[float]]:
    """The log10 chance of each word of a sentence and of its end, as KenLM computes it from the file."""
    model.write(file)
    library = flashlight()
    numbers = library.Dictionary([*WORDS, UNKNOWN])
    with quiet():
        kenlm = library.KenLM(str(file), numbers)

    def scores(words: list[str]) -> list[float]:
        state, found = kenlm.start(False), []
        for word in words:
            state, one = kenlm.score(state, numbers.get_index(word if word in WORDS else UNKNOWN))
            found.append(one)
        return [*found, kenlm.finish(state)[1]]

    return scores


@pytest.mark.parametrize("n", [2, 3, 4])
def test_every_chance_is_that_of_the_definition_in_the_file_as_kenlm_reads_it(n: int, tmp_path: Path) -> None:
    text = sentences(300)
    chance = by_definition(text, n)
    scores = as_kenlm_reads(estimate(text, n), tmp_path / "lm.arpa")
    for words in [*text[:25], ["ina", "unheard", "da", "gida"], ["su"] * 7]:
        whole = [BEGIN, *(word if word in WORDS else UNKNOWN for word in words), END]
        for at, score in enumerate(scores(words), start=1):
            expected = chance(whole[at], tuple(whole[max(0, at - n + 1) : at]))
            assert score == pytest.approx(math.log10(expected), abs=2e-6), (words, at)


def test_the_chances_after_any_beginning_add_up_to_one(tmp_path: Path) -> None:
    text = sentences(300)
    model = estimate(text, 3)
    scores = as_kenlm_reads(model, tmp_path / "lm.arpa")
    next_words = [*model.words[3:], "unheard"]
    for beginning in (["ina"], ["su", "da"], ["unheard"]):
        chances = [10 ** scores([*beginning, word])[len(beginning)] for word in next_words]
        chances.append(10 ** scores(beginning)[-1])
        assert sum(chances) == pytest.approx(1.0, abs=1e-5), beginning


def test_the_perplexity_is_that_of_the_definition_and_unknown_words_are_counted_apart(tmp_path: Path) -> None:
    text, held_out = sentences(400)[:300], sentences(400)[300:]
    estimate(text, 3).write(tmp_path / "lm.arpa")
    found = perplexity(tmp_path / "lm.arpa", [*held_out, ["unheard", "ina"]])
    chance, known = by_definition(text, 3), {word for words in text for word in words}
    logs = []
    for words in [*held_out, ["unheard", "ina"]]:
        whole = [BEGIN, *(word if word in known else UNKNOWN for word in words), END]
        logs += [
            math.log(chance(whole[at], tuple(whole[max(0, at - 2) : at])))
            for at in range(1, len(whole))
            if whole[at] != UNKNOWN
        ]
    assert found is not None and found.unknown >= 1 and found.words == len(logs)
    assert found.value == pytest.approx(math.exp(-sum(logs) / len(logs)), rel=1e-4)


def test_rare_words_become_unknown_and_so_are_likelier_than_none(tmp_path: Path) -> None:
    text = [*sentences(100), ["ina", "hapax"]]
    assert "hapax" in estimate(text, 2).words
    pruned = estimate(text, 2, min_count=2)
    assert "hapax" not in pruned.words and len(set(pruned.words)) == len(pruned.words)
    pruned.write(tmp_path / "lm.arpa")
    assert set(read_words(tmp_path / "lm.arpa")) == set(pruned.words[3:])


@pytest.mark.parametrize("text", [[["ina"]], [["ina", "ina"]], [["a", "b"], ["a"]]])
def test_a_text_of_few_words_gives_a_model_all_the_same(text: list[list[str]], tmp_path: Path) -> None:
    scores = as_kenlm_reads(estimate(text, 4), tmp_path / "lm.arpa")
    assert all(math.isfinite(score) and score <= 0 for score in scores(["ina", "da"]))


def test_what_gives_no_model_is_refused() -> None:
    for text in ([], [[]]):
        with pytest.raises(ValueError, match="no words"):
            estimate(text)
    with pytest.raises(ValueError, match="word before"):
        estimate([["ina"]], n=1)


def test_letters_are_tokens_and_spaces_too(tmp_path: Path) -> None:
    assert letters_of(["'ya", "ɗa"]) == ["'", "y", "a", "|", "ɗ", "a"]
    estimate([letters_of(["ina", "da"])] * 3, 3).write(tmp_path / "lm.arpa")
    assert set(read_words(tmp_path / "lm.arpa")) == {"i", "n", "a", "|", "d"}


@pytest.mark.parametrize("content", ["", "ina da gida\n", "\\data\\\nngram 1=3\n", "\\data\\\n\\1-grams:\n-1 ina\n"])
def test_what_is_no_arpa_file_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "lm.arpa").write_text(content)
    with pytest.raises(ValueError, match="ARPA file"):
        list(read_words(tmp_path / "lm.arpa"))
