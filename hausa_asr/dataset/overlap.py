"""Find clips, sentences, speakers and recordings that two splits share.

In: utterances in their splits. Out: `Overlap`s, the report on them, the error of a spoilt test. A model that has heard
its test in training scores well and is worth nothing. Called by `select` once every clip is decoded and has a split.
Not all pairs are compared: clips, sentences and speakers are looked up in tables, recordings in an index of their
fingerprints, so 100,000 clips take seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hausa_asr.audio import fingerprint
from hausa_asr.dataset.clip_store import Clips
from hausa_asr.errors import UserError
from hausa_asr.utterance import SAMPLE_RATE, Utterance

KINDS = ("clip", "sentence", "speaker", "audio")
"""The same clip (id, file or samples), the same sentence (hooks folded), the same speaker of the same corpus, or the
same recording in another coding, level or cut."""
PAIRS = (("train", "test"), ("train", "dev"), ("dev", "test"))
_EXAMPLES = 5
_UNMISTAKABLE = 20
"""Names of speakers as long as this are hashes, as in Common Voice, and mean the same person in every corpus."""
_WORDS = {"clip": "clips", "sentence": "sentences", "speaker": "speakers", "audio": "recordings"}


@dataclass(frozen=True, slots=True)
class Item:
    """An utterance in its split: its transcript folded, its length in samples, its clip's number among the decoded."""

    utterance: Utterance
    split: str
    folded: str
    n_samples: int
    clip: int

    @property
    def hours(self) -> float:
        """Its length."""
        return self.n_samples / SAMPLE_RATE / 3600


@dataclass
class Overlap:
    """What two splits have in common, of one kind.

    Attributes:
        pair: the splits, the one that is trained on first.
        kind: one of `KINDS`.
        met: for each item of the first split that is also in the second, by number, one item there that it meets.
        others: the items of the second split.
    """

    pair: tuple[str, str]
    kind: str
    met: dict[int, int] = field(default_factory=dict)
    others: set[int] = field(default_factory=set)

    def add(self, one: int, others: Iterable[int]) -> None:
        """Note that item `one` of the first split meets these of the second."""
        for other in others:
            self.met.setdefault(one, other)
            self.others.add(other)

    def without(self, dropped: Collection[int]) -> Overlap:
        """Leave out these items of the first split; which items of the second are still met is not followed exactly."""
        left = {one: other for one, other in self.met.items() if one not in dropped}
        return Overlap(self.pair, self.kind, left, self.others if len(left) == len(self.met) else {*left.values()})


def find(items: Sequence[Item], decoded: Clips) -> list[Overlap]:
    """Find all overlaps of the splits, of each kind."""

    def clip_keys(item: Item) -> Collection[Hashable]:
        utterance = item.utterance
        return (utterance.corpus, utterance.id), utterance.audio, decoded.digest(item.clip)

    keys: dict[str, Callable[[Item], Collection[Hashable]]] = {
        "clip": clip_keys,
        "sentence": lambda item: (item.folded,),
        "speaker": _speaker_keys,
    }
    members: dict[str, list[int]] = defaultdict(list)
    for number, item in enumerate(items):
        members[item.split].append(number)
    overlaps = [
        _by_key(items, members, pair, kind, keys_of)
        for pair in PAIRS
        for kind, keys_of in keys.items()
        if members[pair[0]] and members[pair[1]]
    ]
    clips = {overlap.pair: overlap.met for overlap in overlaps if overlap.kind == "clip"}
    overlaps += _by_sound(items, members, decoded, clips)
    order = [(pair, kind) for pair in PAIRS for kind in KINDS]
    return sorted((each for each in overlaps if each.met), key=lambda each: order.index((each.pair, each.kind)))


def _speaker_keys(item: Item) -> Collection[Hashable]:
    name = item.utterance.speaker
    if not name:
        return ()
    return (name if len(name) >= _UNMISTAKABLE else (item.utterance.corpus, name),)


def _by_key(
    items: Sequence[Item],
    members: dict[str, list[int]],
    pair: tuple[str, str],
    kind: str,
    keys_of: Callable[[Item], Collection[Hashable]],
) -> Overlap:
    there: dict[Hashable, list[int]] = defaultdict(list)
    for number in members[pair[1]]:
        for key in keys_of(items[number]):
            there[key].append(number)
    overlap = Overlap(pair, kind)
    met: set[Hashable] = set()
    for number in members[pair[0]]:
        for key in keys_of(items[number]):
            if key in there:
                # All that share the key are in the overlap, but one pair of many is enough to walk through.
                overlap.add(number, there[key] if key not in met else there[key][:1])
                met.add(key)
    return overlap


def _by_sound(
    items: Sequence[Item],
    members: dict[str, list[int]],
    decoded: Clips,
    clips: dict[tuple[str, str], dict[int, int]],
) -> list[Overlap]:
    """Find the same recordings, except those that are the same clip."""
    overlaps = {pair: Overlap(pair, "audio") for pair in PAIRS}
    for first, later in (("train", ("test", "dev")), ("dev", ("test",))):
        targets = [number for split in later for number in members[split]]
        if not targets or not members[first]:
            continue
        for one, other in fingerprint.matches(
            members[first], targets, lambda number: decoded.fingerprint(items[number].clip)
        ):
            pair = (first, items[other].split)
            if one not in clips.get(pair, {}):
                overlaps[pair].add(one, (other,))
    return list(overlaps.values())


def summary(items: Sequence[Item], overlaps: Sequence[Overlap], dropped: Collection[int]) -> dict[str, Any]:
    """Make the part of `report.json` on overlaps: utterances, hours and examples by pair of splits and kind.

    Args:
        items: as they were compared.
        overlaps: as `find` gives them.
        dropped: the items that were then left out of train, counted too.
    """
    by_pair: dict[str, Any] = {}
    for overlap in overlaps:
        one, other = overlap.pair
        by_pair.setdefault(f"{one}/{other}", {})[overlap.kind] = {
            "utterances": {one: len(overlap.met), other: len(overlap.others)},
            "hours": {
                one: round(sum(items[number].hours for number in overlap.met), 6),
                other: round(sum(items[number].hours for number in overlap.others), 6),
            },
            "left_out": sum(number in dropped for number in overlap.met),
            "examples": [
                {one: items[a].utterance.id, other: items[b].utterance.id, "shared": _shared(overlap.kind, items[a])}
                for a, b in list(overlap.met.items())[:_EXAMPLES]
            ],
        }
    return by_pair


def _shared(kind: str, item: Item) -> str:
    if kind == "speaker":
        return item.utterance.speaker
    return item.utterance.audio if kind in ("clip", "audio") else item.utterance.text


def warnings(overlaps: Sequence[Overlap]) -> list[str]:
    """Write a line for each overlap that is left, for the report and the model card."""
    return [
        f"{len(overlap.others)} utterances of {overlap.pair[1]} share {_WORDS[overlap.kind]} with "
        f"{len(overlap.met)} of {overlap.pair[0]}: {overlap.pair[1]} flatters the model"
        for overlap in overlaps
        if overlap.met
    ]


def serious(items: Sequence[Item], overlaps: Sequence[Overlap], allowed: Collection[str]) -> list[Overlap]:
    """Pick the overlaps of train and test that spoil a score and that the settings do not allow.

    A corpus with one speaker has no other for its test, so that speaker is reported and not refused.
    """
    speakers: dict[str, set[str]] = defaultdict(set)
    for item in items:
        speakers[item.utterance.corpus] |= {item.utterance.speaker} - {""}
    kept = []
    for overlap in overlaps:
        if overlap.pair != ("train", "test") or overlap.kind in allowed:
            continue
        if overlap.kind == "speaker":
            several = {
                one: other
                for one, other in overlap.met.items()
                if len(speakers[items[one].utterance.corpus] | speakers[items[other].utterance.corpus]) > 1
            }
            overlap = Overlap(overlap.pair, overlap.kind, several, overlap.others)
        if overlap.met:
            kept.append(overlap)
    return kept


def refusal(items: Sequence[Item], overlaps: Sequence[Overlap], where: object) -> UserError:
    """Make the error of a corpus whose test was heard in training."""
    lines = ["Train and test overlap, so a score on test would say nothing:"]
    for overlap in overlaps:
        one, other = next(iter(overlap.met.items()))
        lines.append(
            f"  {overlap.kind}: {len(overlap.met)} utterances of train share {_WORDS[overlap.kind]} with "
            f"{len(overlap.others)} of test, as {items[one].utterance.id} with {items[other].utterance.id}"
        )
    kinds = ", ".join(overlap.kind for overlap in overlaps)
    return UserError(
        "\n".join(lines),
        where=where,
        fix="Leave them out of train with --set data.overlap=drop, mend the splits, or, if it is meant, allow it by "
        f"name with --set data.allow_overlap=[{kinds}]. Nothing that is decoded is lost.",
    )
