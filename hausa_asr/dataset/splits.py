"""Assign utterances to train, dev and test where the corpus does not.

In: utterances and their folded transcripts. Out: an `Assignment`. Called by `select`. What a corpus calls test is never
touched: dev is cut from train alone. Of several corpora that are joined, each is cut by itself; where one of them has a
dev or test of its own, the others are not cut for it, so that scores stay those of that corpus.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple

from hausa_asr.utterance import Utterance

CUT_SHARE = 0.1
"""Of the utterances, for each of dev and test."""
ENOUGH_SPEAKERS = 5
"""From this many on, whole speakers are set aside; with fewer, one person would be all of dev."""
MOST_SHARED = 0.1
"""Share of train whose sentences may be in dev or test after a cut by speaker: these are left out of train then. Where
the speakers read the same sentences it would be most of train, so such a corpus is cut by sentence."""


def named(utterances: Iterable[Utterance]) -> dict[str, set[str]]:
    """List the splits that each corpus names."""
    splits: dict[str, set[str]] = defaultdict(set)
    for utterance in utterances:
        splits[utterance.corpus] |= {utterance.split} if utterance.split else set()
    return dict(splits)


class Assignment(NamedTuple):
    """A split for each of N utterances, the splits that were cut here, and warnings for the report."""

    splits: list[str]
    cut: set[str]
    warnings: list[str]


class _Cut(NamedTuple):
    """Splits by the utterance's number, and how they were made, in words."""

    places: dict[int, str]
    how: str


def assign(
    utterances: Sequence[Utterance], texts: Sequence[str], *, given: Mapping[str, Set[str]], seed: int
) -> Assignment:
    """Assign each utterance to a split.

    A corpus without splits is cut 80/10/10, and one without dev has a tenth of train cut off. Whole speakers go to one
    side where five or more are known and few sentences are read by several of them, and else all readings of a
    sentence do. Depends on nothing but names, texts and the seed.

    Args:
        utterances: N utterances whose split is one of `SPLITS` or None.
        texts: their transcripts, folded, so that two spellings of a sentence are one.
        given: the splits that each corpus names, even if none of their utterances is left.
        seed: another seed cuts elsewhere.
    """
    splits = [utterance.split or "train" for utterance in utterances]
    warnings: list[str] = []
    everywhere = set().union(*given.values())
    cut = {"dev", "test"} if not everywhere else {"dev"} - everywhere
    if "train" not in splits:
        cut = set()
    sources = sorted({utterance.corpus for utterance in utterances})
    for corpus in sources:
        mine = [number for number, utterance in enumerate(utterances) if utterance.corpus == corpus]
        prefix = f"{corpus or 'corpus without a name'}: " if len(sources) > 1 else ""
        without = sum(utterances[number].split is None for number in mine)
        if without and everywhere:
            what = "name no split, unlike others: they are in train"
            if not given.get(corpus):
                what = "are all in train, since another corpus has dev and test of its own"
            warnings.append(f"{prefix}{without} utterances {what}")
        among = [number for number in mine if splits[number] == "train"]
        # A dev that is missing is cut where test comes from: it has to resemble it.
        if cut and among and (not everywhere or "test" in given.get(corpus, set()) or "test" not in everywhere):
            places, how = _cut(utterances, texts, among, cut, seed)
            for number, place in places.items():
                splits[number] = place
            missing = " and no ".join(sorted(cut))
            warnings.append(f"{prefix}the corpus has no {missing} split: cut from train, {how}")
    return Assignment(splits, cut, warnings)


def _cut(utterances: Sequence[Utterance], texts: Sequence[str], among: Sequence[int], cut: set[str], seed: int) -> _Cut:
    """Cut `among` into splits."""
    named = {utterances[number].speaker for number in among} - {""}
    how = "by sentence"
    if len(named) >= ENOUGH_SPEAKERS:
        groups = _grouped({number: utterances[number].speaker for number in among})
        sides = _by_size(groups, cut, seed)
        places = {number: sides[group] for group, members in groups.items() for number in members}
        held_out = {texts[number] for number, place in places.items() if place != "train"}
        train = [number for number, place in places.items() if place == "train"]
        if sum(texts[number] in held_out for number in train) <= MOST_SHARED * len(train):
            return _Cut(places, "by speaker")
        how = "by sentence, as its speakers read the same ones: dev and test have no new speakers"
    groups = _grouped({number: texts[number] for number in among})
    sides = _by_hash(groups, cut, seed)
    return _Cut({number: sides[group] for group, members in groups.items() for number in members}, how)


def _grouped(keys: Mapping[int, str]) -> dict[str, list[int]]:
    groups = defaultdict(list)
    for index, key in keys.items():
        groups[key].append(index)
    return dict(groups)


def _by_hash(groups: Mapping[str, Sequence[int]], cut: set[str], seed: int) -> dict[str, str]:
    """Order groups by their hashes, the first tenth for dev: as a corpus grows, little changes sides."""
    ordered = sorted(groups, key=lambda group: _position(group, seed))
    tenth = CUT_SHARE * sum(map(len, groups.values()))
    edges = {split: tenth * rank for rank, split in enumerate(sorted(cut), start=1)}
    places: dict[str, str] = {}
    before = 0
    for group in ordered:
        middle = before + len(groups[group]) / 2
        places[group] = next((split for split, edge in edges.items() if middle < edge), "train")
        before += len(groups[group])
    for split in edges:  # a handful of sentences may all lie beyond the edge
        if split not in places.values():
            spare = [group for group in ordered if places[group] == "train"]
            if len(spare) > 1:
                places[spare[0]] = split
    return places


def _by_size(groups: Mapping[str, Sequence[int]], cut: set[str], seed: int) -> dict[str, str]:
    """Put each group, the largest first, in the split that lacks most: one talkative speaker is not all of dev."""
    total = sum(map(len, groups.values()))
    lacking = {"train": total * (1 - CUT_SHARE * len(cut)), **dict.fromkeys(sorted(cut), total * CUT_SHARE)}
    places = {}
    ordered = sorted(groups, key=lambda group: (-len(groups[group]), _position(group, seed)))
    for group in ordered:
        # Those without a name may be anyone, of dev too: train is where that does no harm.
        split = "train" if group == "" else max(lacking, key=lambda name: lacking[name])
        places[group] = split
        lacking[split] -= len(groups[group])
    for split in sorted(cut - set(places.values())):
        named = Counter(place for group, place in places.items() if group)
        spare = [group for group in ordered if group and places[group] == max(named, key=lambda name: named[name])]
        places[spare[-1]] = split
    return places


def _position(key: str, seed: int) -> float:
    """Hash a key to a number in [0, 1), the same on every machine."""
    digest = hashlib.sha256(f"{seed}\n{key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
