"""A diagnosis as text for a terminal, and as a page of HTML that stands by itself, with the examples to listen to.

In: one or two diagnoses of the same split, and the split for its audio. Out: text, a page, or what another page needs
to show it. Called by `hausa-asr diagnose` and by the report of a sweep.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from hausa_asr.diagnosis.diagnose import Diagnosis, Example
from hausa_asr.diagnosis.examples import TEMPLATES, Utterance, utterance
from hausa_asr.diagnosis.figure import Figure
from hausa_asr.html import Table, render
from hausa_asr.utterance import Split

Sounds = Mapping[str, np.ndarray]
"""Samples of utterances by id, each (S,); those that can't be had are missing."""


class Section(NamedTuple):
    """A table of a page, and its title."""

    title: str
    table: Table


class Examples(NamedTuple):
    """Some utterances of a page, and their title."""

    title: str
    utterances: list[Utterance]


class View(NamedTuple):
    """A diagnosis as the templates show it: sentences, what they rest on, tables, examples."""

    findings: list[str]
    about: str
    sections: list[Section]
    examples: list[Examples]


def as_text(found: Diagnosis, other: Diagnosis | None = None) -> str:
    """A diagnosis for a terminal.

    Args:
        found: of the model.
        other: of the model that it is compared with.
    """
    lines = [f"{one}\n" for one in sentences(found)]
    for section, figures in found.sections.items():
        lines.append(section)
        beside = _by_name(other, section)
        for one in figures:
            base = beside.get(one.name)
            lines.append(f"  {one.name:<36} {_figure(one)}" + (f"   baseline {_rate(base)}" if base else ""))
    if found.dropped:
        lines.append("dropped most often: " + ", ".join(f"{word} {n} of {of}" for word, n, of in found.dropped[:10]))
    if found.confusions:
        pairs = [f"{said} > {here} {count}" for said, here, count, _ in found.confusions[:12]]
        lines.append("letters, said > heard: " + ", ".join(pairs))
    lines.append(_about(found))
    return "\n".join(lines)


def as_page(found: Diagnosis, split: Split, title: str, other: Diagnosis | None = None) -> str:
    """A diagnosis as a page.

    Args:
        found: of the model.
        split: its examples, for their audio.
        title: of the page.
        other: of the model that it is compared with.
    """
    return render("diagnosis.html", TEMPLATES, title=title, one=view(found, sounds_of(found, split), other))


def sounds_of(found: Diagnosis, split: Split) -> dict[str, np.ndarray]:
    """The samples of a diagnosis's examples, by id; those that can't be had, or are others by now, are left out.

    Args:
        found: of the split.
        split: its examples.
    """
    sounds = {}
    for one in (*found.worst, *found.middle):
        with suppress(OSError, IndexError):
            example = split[one.place]
            if example.id == one.id:
                sounds[one.id] = example.samples
    return sounds


def view(found: Diagnosis, sounds: Sounds, other: Diagnosis | None = None) -> View:
    """A diagnosis for a template.

    Args:
        found: of the model.
        sounds: of its examples.
        other: of the model that it is compared with.
    """
    examples = [("The worst utterances", found.worst), ("From the middle", found.middle)]
    return View(
        sentences(found),
        _about(found),
        [*_sections(found, other)],
        [Examples(title, [_utterance(one, sounds) for one in some]) for title, some in examples],
    )


def sentences(found: Diagnosis) -> list[str]:
    """What stands out, in sentences; at least one."""
    return found.findings or [_no_finding(found)]


def _sections(found: Diagnosis, other: Diagnosis | None) -> Iterator[Section]:
    for section, figures in found.sections.items():
        beside = _by_name(other, section)
        rows = [
            [
                one.name, f"{one.count:,} of {one.of:,}", f"{100 * one.rate:.1f} %",
                f"[{100 * one.low:.1f}, {100 * one.high:.1f}]", *([_rate(beside.get(one.name))] if other else []),
            ]
            for one in figures
        ]  # fmt: skip
        columns = ("", "#count", "#share", "#95 % interval", *(["#baseline"] if other else []))
        yield Section(section[:1].upper() + section[1:], Table(columns, rows))
    if found.dropped:
        rows = [[word, f"{n:,} of {of:,}", f"{100 * n / of:.0f} %"] for word, n, of in found.dropped]
        yield Section("Words that are dropped most often", Table(("word", "#dropped", "#share"), rows))
    if found.confusions:
        rows = [[said, here, f"{count:,}", f"{of:,}" if of else ""] for said, here, count, of in found.confusions]
        caption = "sh, ts and 'y are one letter each; - is nothing: a letter that is dropped, or put in."
        yield Section("Letters", Table(("said", "heard", "#times", "#said in all"), rows, caption))


def _utterance(one: Example, sounds: Sounds) -> Utterance:
    about = f"{one.id}: {one.errors} errors in {one.words} words"
    return utterance(about, sounds.get(one.id), one.reference, one.hypothesis)


def _no_finding(found: Diagnosis) -> str:
    wer = next(one for one in found.sections["word errors"] if one.name == "all")
    of = "1 utterance" if found.utterances == 1 else f"{found.utterances:,} utterances"
    return f"WER {_share(wer)}. No rule found a kind of error that stands out beyond chance in {of}."


def _share(one: Figure) -> str:
    return f"{100 * one.rate:.1f} % [{100 * one.low:.1f}, {100 * one.high:.1f}]"


def _by_name(other: Diagnosis | None, section: str) -> dict[str, Figure]:
    return {one.name: one for one in other.sections.get(section, [])} if other else {}


def _figure(one: Figure) -> str:
    rate = f"{100 * one.rate:5.1f} % [{100 * one.low:.1f}, {100 * one.high:.1f}]"
    return f"{rate:<24} {one.count:,} of {one.of:,}"


def _rate(one: Figure | None) -> str:
    return f"{100 * one.rate:.1f} %" if one else ""


def _about(found: Diagnosis) -> str:
    units = "" if found.unit == "utterance" else f" by {found.units:,} speakers"
    return f"{found.utterances:,} utterances{units}; intervals: 95 %, {found.unit}s resampled"
