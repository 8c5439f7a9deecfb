"""A diagnosis as text for a terminal, and as a page of HTML that stands by itself, with the examples to listen to.

In: one or two diagnoses of the same split, and the split for its audio. Out: text. Called by `hausa-asr diagnose`.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from hausa_asr.diagnosis.diagnose import Diagnosis, Example
from hausa_asr.diagnosis.examples import MARKS, utterance
from hausa_asr.diagnosis.figure import Figure
from hausa_asr.html import page, table
from hausa_asr.utterance import Split


def as_text(found: Diagnosis, other: Diagnosis | None = None) -> str:
    """A diagnosis for a terminal.

    Args:
        found: of the model.
        other: of the model that it is compared with.
    """
    lines = [f"{one}\n" for one in found.findings or [_no_finding(found)]]
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
    return page(title, _parts(found, split, title, other))


def _parts(found: Diagnosis, split: Split, title: str, other: Diagnosis | None) -> Iterator[str]:
    yield MARKS
    yield f"<h1>{escape(title)}</h1>"
    for one in found.findings or [_no_finding(found)]:
        yield f'<p class="lead">{escape(one)}</p>'
    yield f'<p class="note">{escape(_about(found))}</p>'
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
        yield f"<h2>{escape(section[:1].upper() + section[1:])}</h2>" + table(columns, rows, "")
    if found.dropped:
        rows = [[word, f"{n:,} of {of:,}", f"{100 * n / of:.0f} %"] for word, n, of in found.dropped]
        yield "<h2>Words that are dropped most often</h2>" + table(("word", "#dropped", "#share"), rows, "")
    if found.confusions:
        rows = [[said, here, f"{count:,}", f"{of:,}" if of else ""] for said, here, count, of in found.confusions]
        caption = "sh, ts and 'y are one letter each; - is nothing: a letter that is dropped, or put in."
        yield "<h2>Letters</h2>" + table(("said", "heard", "#times", "#said in all"), rows, caption)
    for name, examples in (("The worst utterances", found.worst), ("From the middle", found.middle)):
        yield f"<h2>{name}</h2>"
        yield from (_example(one, split) for one in examples)


def _example(one: Example, split: Split) -> str:
    about = f"{one.id}: {one.errors} errors in {one.words} words"
    return utterance(about, split[one.place].samples, one.reference, one.hypothesis)


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
