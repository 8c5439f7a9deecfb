"""Diagnose a model on a split: all counts, what stands out, and examples; beside another model if one is given.

In: what one or two models heard of the same split. Out: a `Diagnosis` as plain values, for the command line, a page and
scripts. Called by `hausa-asr diagnose`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hausa_asr.diagnosis.figure import Figure, Tally, figure
from hausa_asr.diagnosis.findings import findings
from hausa_asr.diagnosis.groups import group_tallies
from hausa_asr.diagnosis.heard import Frames, Heard
from hausa_asr.diagnosis.letters import confusions, hook_tallies
from hausa_asr.diagnosis.words import boundary_tallies, dropped, word_tallies
from hausa_asr.metrics import bootstrap_units, counts_by_utterance
from hausa_asr.text import fold

EXAMPLES = 6
"""Utterances that are shown, the worst ones, and as many from the middle."""


@dataclass(frozen=True)
class Example:
    """An utterance to look at: its place in the split, its id, what was said and heard, and its word errors."""

    place: int
    id: str
    reference: str
    hypothesis: str
    errors: int
    words: int


@dataclass(frozen=True)
class Diagnosis:
    """What a model gets wrong on a split.

    Attributes:
        utterances, unit, units: how many there are; what was resampled for the intervals, and how many of them.
        findings: what stands out, in sentences.
        sections: figures by section, such as `errors` and `hooks`.
        dropped: (word, times dropped, times said).
        confusions: (said, heard, times, times said), in letters; `-` is nothing.
        worst, middle: examples by their share of wrong words.
    """

    utterances: int
    unit: str
    units: int
    findings: list[str]
    sections: dict[str, list[Figure]]
    dropped: list[tuple[str, int, int]]
    confusions: list[tuple[str, str, int, int]]
    worst: list[Example]
    middle: list[Example]

    def to_json(self) -> dict[str, Any]:
        """As plain values; each figure with its rate."""
        sections = {
            name: [{**asdict(one), "rate": one.rate} for one in figures] for name, figures in self.sections.items()
        }
        return {**asdict(self), "sections": sections}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Diagnosis:
        """The diagnosis that `to_json` wrote."""
        values = {name: fields[name] for name in cls.__dataclass_fields__}
        values["sections"] = {
            name: [Figure(**{key: value for key, value in one.items() if key != "rate"}) for one in figures]
            for name, figures in fields["sections"].items()
        }
        for name in ("dropped", "confusions"):
            values[name] = [tuple(one) for one in fields[name]]
        for name in ("worst", "middle"):
            values[name] = [Example(**one) for one in fields[name]]
        return cls(**values)


def diagnose(heard: Heard) -> Diagnosis:
    """Make all counts of what a model heard.

    Args:
        heard: at least one utterance.
    """
    drawn = bootstrap_units(heard.speakers)
    units = drawn.numbers
    counted = counts_by_utterance(heard.references, heard.hypotheses)
    strict = Tally(counted.errors, counted.words, units)
    forgiving = Tally(*counts_by_utterance(*([fold(one) for one in side] for side in _sides(heard))), units)
    words, (gone, most) = word_tallies(heard, units), dropped(heard, units)
    boundaries, hooks = boundary_tallies(heard, units), hook_tallies(heard, units)
    groups = group_tallies(heard, strict)
    nothing = np.array([not one for one in heard.hypotheses], dtype=np.int64)
    silent = Tally(nothing, np.ones_like(nothing), units)
    folded = figure("with hooks and apostrophes folded", forgiving)
    sections = {
        "word errors": [figure("all", strict), *_figures(words), folded],
        "utterances": [figure("of which nothing is heard", silent)],
        "dropped words by length": _figures(gone),
        "word boundaries": _figures(boundaries),
        "hooks and apostrophes": _figures({name: one for name, one in hooks.items() if name != "plain"}),
        **({"frames": _frame_figures(heard.frames, units)} if heard.frames is not None else {}),
        **{f"WER by {kind}": _figures(tallies) for kind, tallies in groups.items() if tallies},
    }
    return Diagnosis(
        utterances=len(heard.ids),
        unit=drawn.kind,
        units=int(units.max()) + 1,
        findings=findings(words, gone, most, boundaries, hooks, groups, folded.rate, silent),
        sections=sections,
        dropped=most[:15],
        confusions=confusions(heard),
        worst=_examples(heard, strict)[:EXAMPLES],
        middle=_from_the_middle(_examples(heard, strict)),
    )


def _frame_figures(frames: Frames, units: np.ndarray) -> list[Figure]:
    return [
        figure("that are blank", Tally(frames.blank, frames.all, units)),
        figure("letters that hold a single one", Tally(frames.single, frames.letters, units)),
    ]


def _sides(heard: Heard) -> tuple[list[str], list[str]]:
    return list(heard.references), list(heard.hypotheses)


def _figures(tallies: dict[str, Tally]) -> list[Figure]:
    return [figure(name, tally) for name, tally in tallies.items()]


def _examples(heard: Heard, errors: Tally) -> list[Example]:
    """All utterances, those with the largest share of wrong words first."""
    shares = errors.counts / np.maximum(1, errors.of)
    return [
        Example(
            int(row), heard.ids[row], heard.references[row], heard.hypotheses[row], int(errors.counts[row]),
            int(errors.of[row]),
        )
        for row in np.lexsort((np.arange(len(shares)), -errors.counts, -shares))
    ]  # fmt: skip


def _from_the_middle(examples: list[Example]) -> list[Example]:
    others = examples[EXAMPLES:]
    start = max(0, len(examples) // 2 - EXAMPLES - EXAMPLES // 2)
    return others[start : start + EXAMPLES]
