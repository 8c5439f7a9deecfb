"""List, write and sum up the utterances that a preparation leaves out, each with its reason.

In: refused utterances. Out: the lines of `refused.jsonl`, counts for the report, the error when a split is left empty.
Called by `prepare`, `select` and `report`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hausa_asr.errors import UserError
from hausa_asr.utterance import Utterance


@dataclass(frozen=True, slots=True)
class Refused:
    """An utterance that is left out.

    Attributes:
        utterance: the utterance.
        reason: short, and always the same for the same fault.
        detail: what exactly is wrong.
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


def lines(refused: Sequence[Refused]) -> str:
    """Write refused utterances as JSONL: id, audio, reason, detail, text."""
    return "".join(
        json.dumps(
            {
                "id": each.utterance.id,
                "audio": each.utterance.audio,
                "reason": each.reason,
                "detail": each.detail,
                "text": each.utterance.text,
            },
            ensure_ascii=False,
            default=str,
        )
        + "\n"
        for each in refused
    )


def by_reason(refused: Sequence[Refused]) -> dict[str, dict[str, Any]]:
    """Count utterances and hours by reason, each with an example, the most frequent first."""
    reasons: dict[str, dict[str, Any]] = {}
    for each in refused:
        reason = reasons.setdefault(
            each.reason, {"utterances": 0, "hours": 0.0, "example": {"id": each.utterance.id, "detail": each.detail}}
        )
        reason["utterances"] += 1
        reason["hours"] = round(reason["hours"] + each.hours, 6)
    return dict(sorted(reasons.items(), key=lambda item: -item[1]["utterances"]))


def characters(refused: Sequence[Refused]) -> dict[str, dict[str, Any]]:
    """Count the characters outside the alphabet, each with a transcript that has it, the most frequent first."""
    counts: dict[str, dict[str, Any]] = {}
    for each in refused:
        for character, count in each.unknown.items():
            entry = counts.setdefault(character, {"count": 0, "utterances": 0, "example": each.utterance.text})
            entry["count"] += count
            entry["utterances"] += 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]["count"]))


def nothing_left(empty: Sequence[str], refused: Sequence[Refused], listed: Sequence[Utterance]) -> UserError:
    """Make the error of a preparation that leaves these splits empty."""
    splits = " and ".join(empty)
    reasons = Counter(each.reason for each in refused)
    if not reasons:
        return UserError(
            f"The corpus leaves nothing for {splits}.",
            where=listed[0].corpus or None,
            fix="Add utterances: a cut needs several sentences or speakers, and dev is never cut from test.",
        )
    counts = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
    first = next((each for each in refused if each.utterance.split in empty), refused[0])
    return UserError(
        f"Nothing is left in {splits}: of {len(listed)} utterances {len(refused)} were refused: {counts}.",
        where=f"{first.utterance.audio or first.utterance.id}: {first.reason}, {first.detail}".removesuffix(", "),
        fix="Mend these utterances, or give the split others.",
    )
