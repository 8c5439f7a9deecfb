"""What the report's template shows: paragraphs, tables, charts and a diagnosis, in sections.

Made by `page` and `search`.
"""

from __future__ import annotations

from typing import NamedTuple

from hausa_asr.diagnosis.page import View
from hausa_asr.html import Table
from sweeps.report.charts import Chart


class Text(NamedTuple):
    """A paragraph; `kind` is its CSS class, or `code` for a command."""

    text: str
    kind: str = ""


Part = Text | Table | Chart | View


class Section(NamedTuple):
    """A title and what is below it."""

    title: str
    parts: list[Part]
