"""What a preparation kept and what it refused: counted while it runs, and told as `report.json` and `refused.jsonl`.

Filled by `prepare`, which alone calls it; the report is read by people and by the command line.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hausa_asr.errors import UserError
from hausa_asr.manifest import SAMPLE_RATE, SPLITS, Utterance
from hausa_asr.text import LETTERS

_HOOKED = "ɓɗƙ"
_MANY_REFUSED = 0.1
_ENOUGH_LETTERS = 1_000
"""Careful Hausa has 16 to 19 hooked letters in so many: without any, they were lost on the way."""


@dataclass(frozen=True)
class Refused:
    """An utterance that is left out.

    Attributes:
        utterance: the utterance.
        reason: short, and always the same for the same fault.
        detail: what exactly was found.
        duration_s: its length, where it was decoded.
        unknown: characters outside the alphabet and how often each occurs.
    """

    utterance: Utterance
    reason: str
    detail: str = ""
    duration_s: float | None = None
    unknown: Mapping[str, int] = field(default_factory=dict)

    @property
    def hours(self) -> float:
        """Decoded, else as the corpus states it, else 0."""
        return (self.duration_s or self.utterance.duration_s or 0.0) / 3600


@dataclass
class _Kept:
    """Sums over one split."""

    utterances: int = 0
    n_samples: int = 0
    words: int = 0
    speakers: set[str] = field(default_factory=set)
    sentences: set[str] = field(default_factory=set)

    @property
    def hours(self) -> float:
        return self.n_samples / SAMPLE_RATE / 3600


class Report:
    """The account of one preparation.

    Args:
        listed: all utterances of the corpus.
    """

    def __init__(self, listed: Sequence[Utterance]) -> None:
        self._listed = listed
        self._refused: list[Refused] = []
        self.start([])

    def start(self, warnings: Sequence[str]) -> None:
        """Count what is kept from nothing again, after a new cut into splits; refusals stand."""
        self._warnings = list(warnings)
        self._kept: dict[str, _Kept] = defaultdict(_Kept)
        self._rates: Counter[int] = Counter()
        self._letters: Counter[str] = Counter()
        self._misstated = 0

    def keep(self, split: str, utterance: Utterance, text: str, n_samples: int, source_rate: int) -> None:
        """Count an utterance that is written to a split."""
        kept = self._kept[split]
        kept.utterances += 1
        kept.n_samples += n_samples
        kept.words += len(text.split())
        kept.sentences.add(text)
        if utterance.speaker:
            kept.speakers.add(utterance.speaker)
        self._rates[source_rate] += 1
        self._letters.update(text)
        stated_s = utterance.duration_s
        if stated_s is not None and abs(n_samples / SAMPLE_RATE - stated_s) > 0.1 * stated_s + 0.1:
            self._misstated += 1

    def refuse(self, refused: Refused) -> None:
        """Count an utterance that is left out."""
        self._refused.append(refused)

    def refused_lines(self) -> str:
        """The refused utterances as JSONL: id, audio, reason, detail."""
        return "".join(
            json.dumps(
                {
                    "id": refused.utterance.id,
                    "audio": refused.utterance.audio,
                    "reason": refused.reason,
                    "detail": refused.detail,
                },
                ensure_ascii=False,
                default=str,
            )
            + "\n"
            for refused in self._refused
        )

    def summary(self) -> dict[str, Any]:
        """What `report.json` says; hours that nobody stated of clips that could not be decoded count as 0."""
        refused_hours = sum(refused.hours for refused in self._refused)
        kept_hours = sum(kept.hours for kept in self._kept.values())
        reasons: dict[str, dict[str, Any]] = {}
        characters: dict[str, dict[str, Any]] = {}
        for refused in self._refused:
            reason = reasons.setdefault(
                refused.reason,
                {"utterances": 0, "hours": 0.0, "example": {"id": refused.utterance.id, "detail": refused.detail}},
            )
            reason["utterances"] += 1
            reason["hours"] += refused.hours
            for character, count in refused.unknown.items():
                entry = characters.setdefault(character, {"count": 0, "example": refused.utterance.text})
                entry["count"] += count
        for reason in reasons.values():
            reason["hours"] = round(reason["hours"], 6)
        return {
            "utterances": {
                "in": len(self._listed),
                "kept": sum(kept.utterances for kept in self._kept.values()),
                "refused": len(self._refused),
            },
            "hours": {
                "in": round(kept_hours + refused_hours, 6),
                "kept": round(kept_hours, 6),
                "refused": round(refused_hours, 6),
            },
            "splits": {
                split: {
                    "utterances": self._kept[split].utterances,
                    "hours": round(self._kept[split].hours, 6),
                    "words": self._kept[split].words,
                    "speakers": len(self._kept[split].speakers),
                }
                for split in SPLITS
                if split in self._kept
            },
            "speakers": len(set().union(*(kept.speakers for kept in self._kept.values()))),
            "refused": dict(sorted(reasons.items(), key=lambda item: -item[1]["utterances"])),
            "characters_refused": dict(sorted(characters.items(), key=lambda item: -item[1]["count"])),
            "alphabet": LETTERS,
            "letters": {letter: self._letters[letter] for letter in LETTERS},
            "source_rates_hz": {str(rate): count for rate, count in sorted(self._rates.items())},
            "warnings": [*self._warnings, *self._observed()],
        }

    def nothing_left(self, empty: Sequence[str]) -> UserError:
        """The error of a preparation that leaves these splits without an utterance."""
        named = " and ".join(empty)
        reasons = Counter(refused.reason for refused in self._refused)
        if not reasons:
            return UserError(
                f"the corpus leaves nothing for {named}",
                where=self._listed[0].corpus or None,
                fix="add utterances: a cut needs several sentences or speakers, and dev is never cut from test",
            )
        told = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
        first = next((refused for refused in self._refused if refused.utterance.split in empty), self._refused[0])
        return UserError(
            f"nothing is left in {named}: of {len(self._listed)} utterances {len(self._refused)} were refused: {told}",
            where=f"{first.utterance.audio or first.utterance.id}: {first.reason}, {first.detail}".removesuffix(", "),
            fix="mend these utterances, or give the split others",
        )

    def _observed(self) -> Iterator[str]:
        """What a careful listener would remark on."""
        if "test" not in self._kept:
            yield "the corpus has no test split: finalists can't be scored on unseen data"
        if len(self._refused) > _MANY_REFUSED * len(self._listed):
            yield f"{len(self._refused)} of {len(self._listed)} utterances were refused: refused.jsonl says why"
        for rate, count in sorted(self._rates.items()):
            if rate < SAMPLE_RATE:
                yield (
                    f"{count} clips were resampled from {rate / 1000:g} kHz: "
                    f"they have no sound above {rate / 2000:g} kHz"
                )
        if self._misstated:
            yield f"{self._misstated} clips are not as long as the corpus states: they may have been cut off"
        for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
            if one not in self._kept or other not in self._kept:
                continue
            for what in ("speakers", "sentences"):
                shared = getattr(self._kept[one], what) & getattr(self._kept[other], what)
                if shared:
                    yield f"{len(shared)} {what} of {other} are in {one} too: {other} flatters the model"
        letters = sum(self._letters[letter] for letter in LETTERS)
        if letters > _ENOUGH_LETTERS and not any(self._letters[letter] for letter in _HOOKED):
            yield "no transcript has a hooked letter (ɓ ɗ ƙ): were they lost, or is this not Hausa?"
