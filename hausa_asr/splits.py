"""Which utterance is for training, for choosing (dev) and for the final score (test), where the corpus does not say.

Called by `prepare`. What a corpus calls test is never touched: dev is cut from train alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set

from hausa_asr.manifest import Utterance

CUT_SHARE = 0.1
"""Of the utterances, for each of dev and test."""
ENOUGH_SPEAKERS = 5
"""From this many on, whole speakers are set aside; with fewer, one person would be all of dev."""


def assign(
    utterances: Sequence[Utterance], texts: Sequence[str], *, given: Set[str], seed: int
) -> tuple[list[str], set[str], list[str]]:
    """A split for each utterance.

    A corpus without splits is cut 80/10/10, and one without dev has a tenth of train cut off. Whole speakers go to one
    side where five or more are known, and else all readings of a sentence do, so that nothing in dev or test was
    heard in training. Depends on nothing but names, texts and the seed.

    Args:
        utterances: N utterances whose split is one of `SPLITS` or None.
        texts: their transcripts, folded, so that two spellings of a sentence are one.
        given: the splits that the corpus names, even if none of their utterances is left.
        seed: another seed cuts elsewhere.

    Returns:
        N splits, the names of those that were cut here, and what the user should know about it.
    """
    splits = [utterance.split or "train" for utterance in utterances]
    warnings = []
    if not given:
        cut = {"dev", "test"}
    else:
        without = sum(utterance.split is None for utterance in utterances)
        if without:
            warnings.append(f"{without} utterances name no split, unlike others: they are in train")
        cut = {"dev"} if "dev" not in given and "train" in splits else set()
    if cut:
        among = [index for index, split in enumerate(splits) if split == "train"]
        speakers = {utterances[index].speaker for index in among} - {""}
        if len(speakers) >= ENOUGH_SPEAKERS:
            how = "by speaker"
            groups = _grouped({index: utterances[index].speaker for index in among})
            places = _by_size(groups, cut, seed)
        else:
            how = "by sentence"
            groups = _grouped({index: texts[index] for index in among})
            places = _by_hash(groups, cut, seed)
        for group, split in places.items():
            for index in groups[group]:
                splits[index] = split
        warnings.append(f"the corpus has no {' and no '.join(sorted(cut))} split: cut from train, {how}")
    return splits, cut, warnings


def _grouped(keys: Mapping[int, str]) -> dict[str, list[int]]:
    groups = defaultdict(list)
    for index, key in keys.items():
        groups[key].append(index)
    return dict(groups)


def _by_hash(groups: Mapping[str, Sequence[int]], cut: set[str], seed: int) -> dict[str, str]:
    """Groups in the order of their hashes, the first tenth to dev: as a corpus grows, little changes sides."""
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
    """The largest group first, each to the split that lacks most, so that one talkative speaker is not all of dev."""
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
    """A number in [0, 1) that is the same on every machine."""
    digest = hashlib.sha256(f"{seed}\n{key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
