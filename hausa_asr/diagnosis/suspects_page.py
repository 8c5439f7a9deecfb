"""Suspects as lines for a terminal, as a table for a spreadsheet, and as a page to listen to."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from hausa_asr.diagnosis.examples import TEMPLATES, utterance
from hausa_asr.diagnosis.suspects import Suspect
from hausa_asr.html import render
from hausa_asr.utterance import Split

COLUMNS = ("id", "speaker", "seconds", "nats", "why", "written", "heard")
_SHOWN, _HEARD_AT_MOST = 20, 200
"""In the terminal, and on the page, which holds the sound of each."""


def as_lines(found: Sequence[Suspect], count: int, limit: float) -> list[str]:
    """For a terminal.

    Args:
        found: the suspects.
        count: utterances that were heard.
        limit: nats for each letter from which one is suspicious.
    """
    lines = [f"{len(found):,} of {count:,} utterances are suspicious (from {limit:.2f} nats for each letter on)"]
    for one in found[:_SHOWN]:
        lines += [
            f"{one.nats:6.2f}  {one.id}: {one.why}",
            f"        written  {one.written}",
            f"        heard    {one.heard}",
        ]
    if len(found) > _SHOWN:
        lines.append(f"        and {len(found) - _SHOWN:,} more")
    return lines


def as_table(found: Sequence[Suspect]) -> str:
    """As tab-separated values, with a header."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([getattr(one, name) for name in COLUMNS] for one in found)
    return text.getvalue()


def as_page(found: Sequence[Suspect], split: Split, title: str, about: str) -> str:
    """As a page with the sound of the first 200.

    Args:
        found: the suspects of the split.
        split: its examples.
        title: of the page.
        about: a line on what it shows.
    """
    shown = [
        utterance(f"{one.nats:.2f}  {one.id}: {one.why}", split[one.place].samples, one.written, one.heard, "written")
        for one in found[:_HEARD_AT_MOST]
    ]
    more = len(found) - len(shown)
    return render("suspects.html", TEMPLATES, title=title, about=about, utterances=shown, more=more)
