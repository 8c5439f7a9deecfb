"""Report in figures what a preparation kept and what it refused: `report.json`.

Made by `select`; read by people, the command line, the model card and `report_picture`, which draws it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hausa_asr.dataset import refusals
from hausa_asr.dataset.refusals import Refused
from hausa_asr.text import LETTERS
from hausa_asr.utterance import SAMPLE_RATE, SPLITS, Utterance

HOOKED = "ɓɗƙ"
_MANY_REFUSED = 0.1
_ENOUGH_LETTERS = 1_000
"""Careful Hausa has 16 to 19 hooked letters in this many: without any, they were lost on the way."""
_PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
_SHOWN_SPEAKERS = 200
_SPEAKER_MINUTES = (0, 1, 2, 5, 10, 20, 60, 120, 300, 600)


@dataclass(frozen=True, slots=True)
class Kept:
    """An utterance that is in the dataset: where, its normalised text, its length in samples, what its file was."""

    utterance: Utterance
    split: str
    text: str
    n_samples: int
    source_rate: int
    warnings: Sequence[str]

    @property
    def hours(self) -> float:
        """Its length."""
        return self.n_samples / SAMPLE_RATE / 3600


def summary(
    listed: Sequence[Utterance],
    kept: Sequence[Kept],
    refused: Sequence[Refused],
    overlap: Mapping[str, Any],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Make the content of `report.json`; clips that were not decoded and have no stated length count as 0 hours.

    Args:
        listed: all utterances of the corpus.
        kept: those in the dataset.
        refused: the others.
        overlap: of the splits, as `overlap.summary` has it.
        warnings: the first ones; what is noticed here follows.
    """
    refused_hours = sum(each.hours for each in refused)
    kept_hours = sum(each.hours for each in kept)
    letters = Counter[str]()
    rates = Counter(each.source_rate for each in kept)
    odd = Counter(warning for each in kept for warning in each.warnings)
    for each in kept:
        letters.update(each.text)
    splits = {split: [each for each in kept if each.split == split] for split in SPLITS}
    return {
        "utterances": {"in": len(listed), "kept": len(kept), "refused": len(refused)},
        "hours": {
            "in": round(kept_hours + refused_hours, 6),
            "kept": round(kept_hours, 6),
            "refused": round(refused_hours, 6),
        },
        "splits": {split: _of_split(inside) for split, inside in splits.items() if inside},
        "corpora": _by_corpus(kept, kept_hours),
        "speakers": len({(each.utterance.corpus, each.utterance.speaker) for each in kept if each.utterance.speaker}),
        "refused": refusals.by_reason(refused),
        "characters_refused": refusals.characters(refused),
        "alphabet": LETTERS,
        "letters": {letter: letters[letter] for letter in LETTERS},
        "source_rates_hz": {str(rate): count for rate, count in sorted(rates.items())},
        "clip_warnings": dict(odd.most_common()),
        "overlap": dict(overlap),
        "warnings": [*warnings, *_observed(listed, kept, refused, rates, odd, letters)],
    }


def _of_split(kept: Sequence[Kept]) -> dict[str, Any]:
    durations = np.array([each.n_samples for each in kept]) / SAMPLE_RATE
    hours: dict[str, float] = defaultdict(float)
    for each in kept:
        hours[each.utterance.speaker] += each.hours
    unnamed = hours.pop("", 0.0)
    ordered = sorted(hours.items(), key=lambda item: -item[1])
    edges = np.arange(0, np.ceil(durations.max()) + 1)
    minutes = [edge for edge in _SPEAKER_MINUTES if not ordered or edge <= 60 * ordered[0][1]]
    counts = np.histogram([60 * each for _, each in ordered], [*minutes, np.inf])[0]
    return {
        "utterances": len(kept),
        "hours": round(sum(each.hours for each in kept), 6),
        "words": sum(len(each.text.split()) for each in kept),
        "speakers": len(hours),
        "durations_s": {
            "mean": round(float(durations.mean()), 3),
            "percentiles": {
                str(share): round(float(value), 3)
                for share, value in zip(_PERCENTILES, np.percentile(durations, _PERCENTILES), strict=True)
            },
            "histogram": np.histogram(durations, edges)[0].tolist(),  # of whole seconds, from 0
        },
        "speaker_hours": {
            "largest": round(ordered[0][1], 6) if ordered else 0.0,
            "median": round(float(np.median(list(hours.values()))), 6) if ordered else 0.0,
            "unnamed": round(unnamed, 6),
            "histogram": {f"from {minute} min": int(count) for minute, count in zip(minutes, counts, strict=True)}
            if ordered
            else {},
            "by_speaker": {name: round(each, 6) for name, each in ordered[:_SHOWN_SPEAKERS]},
        },
    }


def _by_corpus(kept: Sequence[Kept], hours: float) -> dict[str, dict[str, Any]]:
    corpora: dict[str, dict[str, Any]] = {}
    for each in kept:
        entry = corpora.setdefault(each.utterance.corpus, {"utterances": 0, "hours": 0.0})
        entry["utterances"] += 1
        entry["hours"] += each.hours
    for entry in corpora.values():
        entry["share"] = round(entry["hours"] / hours, 4) if hours else 0.0
        entry["hours"] = round(entry["hours"], 6)
    return corpora


def _observed(
    listed: Sequence[Utterance],
    kept: Sequence[Kept],
    refused: Sequence[Refused],
    rates: Mapping[int, int],
    odd: Mapping[str, int],
    letters: Mapping[str, int],
) -> Iterator[str]:
    """Warn of what a careful listener would notice."""
    if not any(each.split == "test" for each in kept):
        yield "the corpus has no test split: finalists can't be scored on unseen data"
    if len(refused) > _MANY_REFUSED * len(listed):
        yield f"{len(refused)} of {len(listed)} utterances were refused: refused.jsonl says why"
    for rate, count in sorted(rates.items()):
        if rate < SAMPLE_RATE:
            yield f"{count} clips were resampled from {rate / 1000:g} kHz: they have no sound above {rate / 2000:g} kHz"
    for warning, count in odd.items():
        yield f"{count} clips: {warning}"
    longer = sum(
        each.utterance.duration_s is not None and each.n_samples / SAMPLE_RATE > 1.1 * each.utterance.duration_s + 0.1
        for each in kept
    )
    if longer:
        yield f"{longer} clips are longer than the corpus states: are they the right ones?"
    if sum(letters[letter] for letter in LETTERS) > _ENOUGH_LETTERS and not any(letters[each] for each in HOOKED):
        yield "no transcript has a hooked letter (ɓ ɗ ƙ): were they lost, or is this not Hausa?"
