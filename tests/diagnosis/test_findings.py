"""Faults that were planted in what a model heard are named, and none is named where none was planted."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from hausa_asr.diagnosis.diagnose import Diagnosis, diagnose
from hausa_asr.diagnosis.heard import Heard

WORDS = [
    "ya", "ta", "na", "da", "ba", "ga", "sun", "yara", "gida", "ƙasa", "ɗaya", "'yan", "ɓera", "kasuwa",
    "makaranta", "littafi", "ruwa", "mutane", "ƙarami", "ɗalibi", "shanu", "tsohon",
]  # fmt: skip
FAULTS = {
    "short": "Short words are dropped", "joined": "Words run together", "split": "Words fall apart",
    "hooks": "Hooks are lost", "made up": "Words are made up", "noise": "speech under 15 dB above the noise are worse",
    "length": "Clips of under 3 s are worse",
}  # fmt: skip


def spoken(seed: int, utterances: int = 150) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(3, 12))) for _ in range(utterances)]


def noisy(text: str, chance: random.Random, share: float = 0.03) -> str:
    """The usual errors: some letters are others, wherever they stand."""
    letters = [chance.choice("aeioubdkn") if one != " " and chance.random() < share else one for one in text]
    return " ".join("".join(letters).split())


def short_words(text: str, chance: random.Random) -> str:
    return " ".join(word for word in text.split() if len(word) > 2 or chance.random() > 0.4)


def joined(text: str, chance: random.Random) -> str:
    return "".join("" if one == " " and chance.random() < 0.2 else one for one in text)


def split(text: str, chance: random.Random) -> str:
    return " ".join(f"{w[:3]} {w[3:]}" if len(w) > 5 and chance.random() < 0.4 else w for w in text.split())


def hooks(text: str, chance: random.Random) -> str:
    plain = {"ɓ": "b", "ɗ": "d", "ƙ": "k", "'": ""}
    return "".join(plain[one] if one in plain and chance.random() < 0.5 else one for one in text)


def made_up(text: str, chance: random.Random) -> str:
    return " ".join(f"{word} yana" if chance.random() < 0.25 else word for word in text.split())


def heard(
    seed: int, fault: Callable[[str, random.Random], str] | None = None, where: str = "", speakers: int = 0
) -> Diagnosis:
    chance, references = random.Random(seed), spoken(seed)
    seconds = np.array([0.4 * len(one.split()) + 0.8 for one in references])
    snr = np.array([chance.choice([8.0, 22.0, 40.0]) for _ in references])
    bad = {"noise": snr < 15, "length": seconds < 3}.get(where, np.zeros(len(references), bool))
    hypotheses = [noisy(one, chance, 0.2 if worse else 0.03) for one, worse in zip(references, bad, strict=True)]
    if fault:
        hypotheses = [fault(one, chance) for one in hypotheses]
    ids = [f"u{n}" for n in range(len(references))]
    who = [f"s{n % speakers}" if speakers else "" for n in range(len(ids))]
    return diagnose(Heard(ids, references, hypotheses, who, seconds, snr))


def of(references: list[str], hypotheses: list[str]) -> Diagnosis:
    count = len(references)
    ids, unknown = [f"u{n}" for n in range(count)], [""] * count
    return diagnose(Heard(ids, references, hypotheses, unknown, np.full(count, 2.0), np.full(count, 20.0)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("speakers", [0, 10])
def test_a_model_without_a_fault_of_its_own_gets_no_finding(seed: int, speakers: int) -> None:
    assert heard(seed, speakers=speakers).findings == []


def test_each_speaker_has_an_interval_around_the_rate() -> None:
    lines = heard(0, speakers=10).sections["WER by speaker"]
    assert len(lines) == 10
    assert all(0 < one.low < one.rate < one.high for one in lines)


def test_one_letter_or_one_clip_makes_no_finding() -> None:
    plain = ["buki da doki"] * 99
    assert of([*plain, "ɗaya"], [*plain, "daya"]).findings == []
    assert of(["ya tafi kasuwa"], ["tafi kasuwa"]).findings == []


def test_short_words_that_run_together_are_not_dropped() -> None:
    found = of(["ya na zuwa kasuwa"] * 100, ["yana zuwa kasuwa"] * 100)
    assert not any("dropped" in one for one in found.findings) and "Words run together" in found.findings[0]
    found = of(["ya tafi makaranta yau"] * 60 + ["ya tafi makaranta"] * 60, ["tafi yau"] * 60 + ["tafi makaranta"] * 60)
    [said] = [one for one in found.findings if "Short words are dropped" in one]
    assert "Most often ya (120 of 120)." in said, "and no longer word"


def test_few_errors_that_are_nearly_all_spaces_are_named_with_their_remedy() -> None:
    said = ["ya tafi makaranta yau da safe"] * 200
    rarely = ["ya tafi makaranta yau dasafe" if at % 10 == 0 else one for at, one in enumerate(said)]
    [finding] = of(said, rarely).findings
    assert "100 % [100, 100] of the word errors are words joined or split" in finding and "hausa-asr lm" in finding


def test_a_model_that_hears_nothing_is_told_so() -> None:
    assert "Nothing is heard in 100 %" in of(["ya tafi kasuwa"] * 50, [""] * 50).findings[0]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "fault"),
    [("short", short_words), ("joined", joined), ("split", split), ("hooks", hooks), ("made up", made_up)],
)
def test_a_planted_fault_is_named_and_no_other(
    name: str, fault: Callable[[str, random.Random], str], seed: int
) -> None:
    [finding] = heard(seed, fault).findings
    assert FAULTS[name] in finding


@pytest.mark.parametrize("where", ["noise", "length"])
def test_where_it_is_worse_is_named(where: str) -> None:
    [finding] = heard(1, where=where).findings
    assert FAULTS[where] in finding


def test_counts_are_those_of_a_hand_made_case() -> None:
    references = ["ya je gida", "shanu biyu ne", "ɗan ƙasa"]
    hypotheses = ["je gida", "shanubiyu ne", "dan ƙasa ƙwai"]
    found = diagnose(Heard(["a", "b", "c"], references, hypotheses, [""] * 3, np.full(3, 2.0), np.full(3, 20.0)))
    figures = {(section, one.name): (one.count, one.of) for section, every in found.sections.items() for one in every}
    assert figures["word errors", "all"] == (5, 8)
    assert figures["word errors", "dropped"] == (2, 8)
    assert figures["word errors", "put in"] == (1, 8)
    assert figures["word errors", "with hooks and apostrophes folded"] == (4, 8)
    assert figures["dropped words by length", "words of 1 or 2 letters"] == (1, 3)
    assert figures["dropped words by length", "longer words"] == (0, 1)
    assert figures["dropped words by length", "words of 3 or 4 letters"] == (0, 4), "biyu was run together, and heard"
    assert figures["word boundaries", "joined"] == (1, 5), "the space beside a dropped word is no boundary error"
    assert figures["word boundaries", "split"] == (0, 5)
    assert figures["hooks and apostrophes", "hooked letters heard as such"] == (1, 2)
    assert figures["hooks and apostrophes", "hooks heard that were said"] == (1, 2)
    assert ("ɗ", "d", 1, 1) in found.confusions
    assert found.worst[0].id in ("b", "c") and found.worst[-1].id == "a"
