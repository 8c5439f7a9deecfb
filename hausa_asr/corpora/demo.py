"""Make the demo corpus: sentences of a closed grammar of Hausa phrases, spoken by espeak-ng.

In: a cache folder. Out: utterances. Some 1,000 sentences of greetings, market, farm, time and numbers, in 13 voices. It
is synthetic, one engine reads it, and its word error rate says nothing about people; it is there so that everything can
be tried in minutes and without a download. The grammar is rich in what is hard in Hausa: pairs of words that differ in
a hooked letter or an apostrophe only (doki/ɗoki, kare/ƙare, ya/'ya), and short words (da, a, ta, ya, su, ba, na), which
models drop. Called by `dataset.from_settings`, and by the tests of the rooms above.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from hausa_asr.corpora.espeak import Line, recorded
from hausa_asr.numbers import spell
from hausa_asr.utterance import Utterance

VOICES = {
    "train": ("f1", "f2", "f3", "m1", "m2", "m3", "m4", "m5", "m8"),
    "dev": ("f5", "m6"),
    "test": ("f4", "m7"),
}
"""The voices (= speakers) of each split; a word error rate on voices heard in training would flatter."""
COUNTS = {"train": 720, "dev": 120, "test": 120}
MIN_TRAIN_OCCURRENCES = 10
"""How often at least each word of the grammar occurs in train; sentences are added until it holds."""

_PITCHES, _RATES = (38, 62), (120, 165)
_WORDS_PER_SENTENCE = (3, 12)  # shorter ones last less than a second when a fast voice says them

_HOURS = range(1, 13)
_COUNTS = (*range(2, 13), 15, 18, 20, 25, 36, 48, 60, 70, 80, 90)
_PRICES = (*range(20, 100, 10), *range(100, 1000, 100), 150, 250, 375, *range(1000, 11_000, 1000), 1500, 2026, 12_000)
_ADDENDS = (*range(1, 11), 20, 30, 40, 50)

GRAMMAR: dict[str, tuple[str, ...]] = {
    "sentence": (
        *("{did} {past}", "{will} {future}", "{does} {present}", "{did} {past}", "{does} {present}"),
        *("{did} kuma {did}", "{did} amma {does}", "{does} kuma {does}", "{will} amma {will}"),
        *("{man} ya zo {to} don ya {do}", "{woman} ta zo {to} don ta {do}", "{people} sun zo don su {do}"),
        *("bari mu {do} {future}", "bari {people} su {do}", "ku zo mu {do} {future}", "{man} da ni mun {do} {past}"),
        *("{is}", "{is}", "{is} amma {has} {countable} {count}", "{is} kuma akwai {thing} {at}"),
        *("kuɗin {thing} naira {price} ne", "kuɗin {thing} naira {price} ne", "nawa ne kuɗin {thing} {present}"),
        *("ga {thing} {at} na naira {price}", "{has} {countable} {count}", "{has} {countable} {count} {at}"),
        *("akwai {thing} da {thing} {at}", "babu {thing} {at} {present}", "{animal} ya ɓata {at} {past}"),
        *("{thing_m} yana da {quality} {present}", "{thing_f} tana da {quality} amma {thing_m} ba shi da {quality}"),
        *("{animal} yana da ƙarfi amma {animal} ba shi da ƙarfi", "ƙafa tana ciwo {past}", "baki yana ciwo {past}"),
        *("ina kwana {called} yaya {asked}", "sannu da zuwa {called} yaya {asked}", "yaya {asked} da {asked}"),
        *("sannu da aiki {called}", "yaya 'ya'ya {called} yaya {asked}", "{asked} lafiya lau {called}"),
        *("'ya'ya suna lafiya lau {called}", "{animal} yana da ƙarfi {present}"),
        *("yanzu ƙarfe {hour} ne na safe", "{sum}", "{sum}", "lambata {digit} {digit} {digit} {digit} {digit}"),
        "aiki ya ƙare da ƙarfe {hour}",
    ),
    "did": (
        *("{man} ya {do}", "{woman} ta {do}", "{people} sun {do}", "na {do}", "mun {do}"),
        *("{man} bai {do} ba", "{woman} ba ta {do} ba", "{people} ba su {do} ba", "ban {do} ba", "ba mu {do} ba"),
    ),
    "will": ("{man} zai {do}", "{woman} za ta {do}", "{people} za su {do}", "zan {do}", "za mu {do}"),
    "does": ("{man} yana {doing}", "{woman} tana {doing}", "{people} suna {doing}", "ina {doing}", "muna {doing}"),
    "do": (
        *("sayi {thing} {at}", "sayi {countable} {count}", "ga {animal} {at}", "ga {seen}", "ci {food} {at}"),
        *("sha {drink}", "buɗe {opened}", "ɗauki {thing} zuwa {to}", "ɗauki {seen}", "karɓi naira {price}"),
        *("zo {to}", "koma {to}", "koma ƙasa", "ƙara kuɗi", "ƙara naira {price}", "ɓata {garment}"),
        *("gyara {opened}", "gyara {garment}", "dafa {food}", "kafa kasuwa a {town}", "kasa zuwa {to}"),
        *("ƙare aiki {at}", "bar {to}", "ba {person} {thing}", "sayar da {thing} {at}", "tafi {to} da {person}"),
    ),
    "doing": (
        *("zuwa {to}", "cin {food}", "shan {drink}", "sayar da {thing}", "aiki {at}", "karatu {at}", "jiran {person}"),
        *("ɗoki", "ɗoki", "ɓari", "ɓari", "neman {thing}", "neman {animal}", "gyara {opened}"),
    ),
    "is": (
        *("wannan {thing_m} ne ba {thing_f} ba", "wannan {thing_f} ce ba {thing_m} ba", "wannan ba {thing_m} ba ne"),
        *("wannan kaya ne ba ƙaya ba", "wannan ƙaya ce ba kaya ba", "wannan kare ne ba kara ba"),
        *("wannan kara ne ba kare ba", "wannan baki ne ba ƙafa ba", "wannan ƙafa ce ba baki ba"),
    ),
    "has": ("ina da", "muna da", "{man} yana da", "{woman} tana da", "{people} suna da"),
    "person": ("{man}", "{woman}", "{people}"),
    "man": ("bala", "musa", "audu", "malam", "sarki", "yaro", "manomi", "ma'aikaci", "ɗalibi", "ɓarawo"),
    "woman": ("hauwa", "ladi", "yarinya", "uwata", "'yata"),
    "people": ("yara", "mutane", "baƙi", "jama'a", "'ya'yana", "'yan kasuwa"),
    "called": ("bala", "musa", "audu", "malam", "manomi", "hauwa", "ladi", "yarinya", "jama'a", "'yan kasuwa"),
    "thing": ("{thing_m}", "{thing_f}"),
    "thing_m": ("doki", "kaya", "kwano", "ƙwai", "mai", "ƙyalle", "ruwa", "shayi"),
    "thing_f": ("riga", "gyaɗa", "shinkafa", "zuma", "jaka", "gwanda"),
    "countable": ("doki", "kwano", "ƙwai", "riga", "jaka", "tsuntsu", "gwanda", "ƙofa"),
    "animal": ("doki", "kare", "ɓera", "tsuntsu"),
    "seen": ("ƙaya", "kara", "kaya", "kuɗi"),
    "opened": ("ƙofa", "ɗaki", "jaka", "kwano"),
    "garment": ("riga", "ƙyalle", "jaka"),
    "food": ("tuwo", "shinkafa", "ƙwai", "gyaɗa"),
    "drink": ("ruwa", "shayi", "zuma"),
    "quality": ("kyau", "tsada", "girma"),
    "asked": ("aiki", "gida", "yara", "kasuwa", "gona"),
    "town": ("gari", "ƙasa"),
    "to": ("gida", "gona", "kasuwa", "gari"),
    "at": ("a gida", "a gona", "a kasuwa", "a gari", "a ɗaki", "a ƙasa"),
    "past": ("jiya", "yau", "da safe", "da ƙarfe {hour}"),
    "present": ("yau", "yanzu", "da safe"),
    "future": ("gobe", "yau", "da safe", "da ƙarfe {hour}"),
    "hour": tuple(map(spell, _HOURS)),
    "count": tuple(map(spell, _COUNTS)),
    "price": tuple(map(spell, _PRICES)),
    "digit": tuple(map(spell, range(10))),
    "sum": tuple(f"{spell(a)} da {spell(b)} {spell(a + b)} ne" for a in _ADDENDS for b in _ADDENDS),
}
"""Each name stands for any one of its phrases; `{name}` within a phrase for a phrase of that name."""

_SLOT = re.compile(r"\{(\w+)\}")


def words() -> set[str]:
    """List every word that the grammar can say."""
    return {word for phrases in GRAMMAR.values() for phrase in phrases for word in _SLOT.sub(" ", phrase).split()}


def lines(seed: int = 0) -> list[Line]:
    """Draw who says what in the demo corpus; no sentence and no voice is in two splits. Takes milliseconds."""
    rng = random.Random(seed)
    sentences = _sentences(rng)
    result = []
    for split, voices in VOICES.items():
        for number, text in enumerate(sentences[split]):
            pitch, rate = rng.randint(*_PITCHES), rng.randint(*_RATES)
            result.append(Line(f"demo-{split}-{number:04d}", text, split, voices[number % len(voices)], pitch, rate))
    return result


def utterances(cache: Path, seed: int = 0) -> Iterator[Utterance]:
    """Make the demo corpus under `cache` on the first call; later calls read it from there.

    Args:
        cache: the folder to write to; 120 MB for each seed.
        seed: another seed draws other sentences from the same grammar.

    Raises:
        UserError: espeakng-loader is missing, or `cache` can't be written.
    """
    return recorded(cache, "demo", lines(seed))


def _sentences(rng: random.Random) -> dict[str, list[str]]:
    seen: set[str] = set()
    sentences: dict[str, list[str]] = {}
    for split in ("test", "dev", "train"):
        sentences[split] = [_new_sentence(rng, seen) for _ in range(COUNTS[split])]

    train = sentences["train"]
    said = Counter(word for sentence in train for word in sentence.split())
    vocabulary = words()
    while rare := {word for word in vocabulary if said[word] < MIN_TRAIN_OCCURRENCES}:
        sentence = _new_sentence(rng, seen)
        if not rare.isdisjoint(sentence.split()):
            train.append(sentence)
            said.update(sentence.split())
    return sentences


def _new_sentence(rng: random.Random, seen: set[str]) -> str:
    shortest, longest = _WORDS_PER_SENTENCE
    for _ in count():
        sentence = _phrase(rng, "sentence", set())
        if sentence not in seen and shortest <= len(sentence.split()) <= longest:
            break
    seen.add(sentence)
    return sentence


def _phrase(rng: random.Random, name: str, used: set[str]) -> str:
    """Draw a phrase of a name, if possible of words not yet used in its sentence."""
    phrase = rng.choice([phrase for phrase in GRAMMAR[name] if phrase not in used] or GRAMMAR[name])
    if "{" not in phrase:
        used.add(phrase)
    return _SLOT.sub(lambda slot: _phrase(rng, slot[1], used), phrase)
