"""HTML pages that stand by themselves and load nothing from elsewhere: values in, a page out, by Jinja2 templates.

Called by the report of a sweep, by the diagnosis and by suspects. What is the same on all pages is in
`hausa_asr/templates/`: the page itself, its style, and the parts that others import. Templates escape what is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_SHARED = Path(__file__).parent / "templates"


def render(template: str, *folders: Path, **values: Any) -> str:
    """Fill a template.

    Args:
        template: its file's name.
        folders: where it and those that it imports are, besides `hausa_asr/templates/`.
        values: what it shows.
    """
    environment = Environment(
        loader=FileSystemLoader([*folders, _SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)


@dataclass(frozen=True)
class Table:
    """A table, for the macro `table` of `parts.html`.

    Attributes:
        columns: their names; # before one says that it holds figures, * that it holds running text. Empty: no header.
        lines: as many texts each as there are columns.
        caption: above it, or "".
        classes: a CSS class for each line, or "".
    """

    columns: Sequence[str]
    lines: Sequence[Sequence[str]]
    caption: str = ""
    classes: Sequence[str] = field(default_factory=tuple)

    @property
    def heads(self) -> list[tuple[str, str]]:
        """The name and the CSS class of each column."""
        return [(name.lstrip("#*"), {"#": "n", "*": "w"}.get(name[:1], "")) for name in self.columns]

    @property
    def rows(self) -> Iterable[tuple[str, list[tuple[str, str]]]]:
        """The CSS class of each line, and its cells with theirs."""
        kinds = [kind for _, kind in self.heads]
        for number, line in enumerate(self.lines):
            of = self.classes[number] if self.classes else ""
            yield of, list(zip(line, kinds or [""] * len(line), strict=True))
