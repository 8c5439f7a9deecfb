"""HTML that stands by itself: texts, tables and PNG bytes in, one page out that loads nothing from elsewhere.

Called by the report of a sweep and by the diagnosis. Everything that is given is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1200px; margin: 2em auto;
       padding: 0 1em; }
h1 { font-size: 1.6em; margin-bottom: .2em; } h2 { font-size: 1.2em; margin: 2em 0 .4em; }
p { margin: .4em 0; } p.lead { font-size: 1.1em; font-weight: 600; } .note, caption, figcaption { color: #555; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .4em; }
th, td { text-align: left; padding: .25em .7em .25em 0; border-bottom: 1px solid #e2e2e2; vertical-align: top; }
thead th { border-bottom: 2px solid #999; vertical-align: bottom; }
td.n, th.n { text-align: right; } td.n, td:first-child { white-space: nowrap; }
td.w { min-width: 26em; font-size: 12px; color: #444; }
tr.lead td { background: #e8f1f8; font-weight: 600; } tr.lead td.w { font-weight: normal; }
tr.baseline td { background: #f3f3f3; }
figure { margin: 1em 0; } figure img { max-width: min(100%, 1000px); height: auto; }
@media print {
  @page { size: A4 landscape; margin: 12mm; }
  body { font-size: 11px; margin: 0; max-width: none; } .scroll { overflow: visible; }
  table, td.w { font-size: 8.5px; } td.w { min-width: 20em; }
  thead { display: table-header-group; } tr, figure { break-inside: avoid; } h2 { break-after: avoid; }
  figure img { max-height: 155mm; max-width: 200mm; }
  tr.lead td, tr.baseline td { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page; `parts` are HTML."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def table(
    columns: Sequence[str], lines: Iterable[Sequence[str]], caption: str, classes: Sequence[str] | None = None
) -> str:
    """A table.

    Args:
        columns: their names; # before one says that it holds figures, * that it holds running text. None: no head.
        lines: as many texts each as there are columns.
        caption: what is to be said above it, or "".
        classes: a CSS class for each line, or "".
    """
    kinds = [{"#": ' class="n"', "*": ' class="w"'}.get(name[:1], "") for name in columns]
    names = [escape(name.lstrip("#*")) for name in columns]
    head = "".join(f'<th scope="col"{kind}>{name}</th>' for kind, name in zip(kinds, names, strict=True))
    body = []
    for number, line in enumerate(lines):
        of = f' class="{classes[number]}"' if classes and classes[number] else ""
        cells = zip(kinds or [""] * len(line), line, strict=True)
        body.append(f"<tr{of}>" + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in cells) + "</tr>")
    about = f"<caption>{escape(caption)}</caption>" if caption else ""
    head = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f'<div class="scroll"><table>{about}{head}<tbody>\n' + "\n".join(body) + "\n</tbody></table></div>"


def picture(png: bytes, alt: str, caption: str) -> str:
    """A picture with what it shows in words, for those who do not see it, and with a caption, or ""."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{escape(alt)}" src="{source}">{below}</figure>'
