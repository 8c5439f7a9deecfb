"""A folder of audio files and one table of transcripts (CSV, TSV or JSONL) in, utterances out.

Read by `prepare` through the command line. Nothing but the table is opened here: a row that leads nowhere is still
yielded, and `prepare` refuses it with its reason.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from hausa_asr.errors import UserError
from hausa_asr.manifest import Utterance

_log = logging.getLogger(__name__)
_TABLES = (".csv", ".tsv", ".jsonl")
_SPLIT_NAMES = {
    "": None,
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "val", "valid", "validation", "development"), "dev"),
    **dict.fromkeys(("test", "testing"), "test"),
}

Row = dict[str, str]


def utterances(
    path: str | Path,
    manifest: str | Path | None = None,
    audio_column: str = "path",
    text_column: str = "text",
    split_column: str = "split",
    speaker_column: str = "speaker",
    duration_column: str = "duration_s",
) -> Iterator[Utterance]:
    """The utterances of a folder, in the order of its table. The table is checked before the first is yielded.

    Args:
        path: the folder, or its table.
        manifest: the table, where the folder has none or several; relative to the folder or to where you are.
        audio_column: each clip's path, relative to the table; it is the utterance's id too.
        text_column: its transcript.
        split_column: train, dev (or validation, valid, val) or test; optional. Other names are kept as they are, and
            `prepare` refuses the row.
        speaker_column: who speaks; optional.
        duration_column: seconds; optional.

    Raises:
        UserError: there is no table, there are several, or it can't be read or lacks a needed column.
    """
    folder = Path(path).expanduser().absolute()
    table = _table(folder, manifest)
    if folder == table:
        folder = table.parent
    columns, rows = _rows(table, text_column)
    for column, setting in ((audio_column, "audio_column"), (text_column, "text_column")):
        if column not in columns:
            found = ", ".join(sorted(columns)) or "none"
            raise UserError(
                f"the table has no column '{column}'; it has: {found}",
                where=table,
                fix=f"set {setting} to the column that has the {'transcript' if column == text_column else 'path'}",
            )

    def each() -> Iterator[Utterance]:
        for row in rows:
            name = row.get(audio_column, "")
            split = row.get(split_column, "").strip()
            yield Utterance(
                id=name or row[_LINE],
                audio=_audio(name, table.parent, folder),
                text=row.get(text_column, ""),
                split=_SPLIT_NAMES.get(split.lower(), split),
                speaker=row.get(speaker_column, "").strip(),
                duration_s=_seconds(row.get(duration_column, "")),
                corpus=folder.name,
            )

    return each()


_LINE = "\0line"
"""Key under which a row carries its place in the table; no column can be called so."""


def _table(folder: Path, manifest: str | Path | None) -> Path:
    """The one table to read."""
    if manifest is not None:
        for candidate in (folder / Path(manifest).expanduser(), Path(manifest).expanduser().absolute()):
            if candidate.is_file():
                return _known(candidate)
        raise UserError("there is no such table", where=folder / manifest, fix="set manifest to a file that exists")
    if folder.is_file():
        return _known(folder)
    if not folder.is_dir():
        raise UserError("there is no such folder", where=folder, fix="set path to the folder with the audio files")
    found = sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in _TABLES and entry.is_file() and not entry.name.startswith(".")
    )
    if not found:
        raise UserError(
            "the folder has no table of transcripts",
            where=folder,
            fix="put a CSV, TSV or JSONL with the columns path and text in it, or set manifest",
        )
    if len(found) > 1:
        raise UserError(
            f"the folder has several tables: {', '.join(entry.name for entry in found)}",
            where=folder,
            fix="set manifest to the one to use",
        )
    return found[0]


def _known(table: Path) -> Path:
    if table.suffix.lower() not in _TABLES:
        raise UserError("a table is a .csv, .tsv or .jsonl file", where=table, fix="set manifest to such a file")
    return table


def _rows(table: Path, text_column: str) -> tuple[set[str], list[Row]]:
    """The table's columns and its rows, every value a string."""
    try:
        start = table.open("rb").read(2)
        text = table.read_text(encoding="utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeError as error:
        raise UserError(
            f"the table is not in UTF-8 ({error})", where=table, fix="save it as UTF-8, or hooked letters are lost"
        ) from None
    except OSError as error:
        raise UserError(f"the table can't be read: {error.strerror}", where=table) from None
    if table.suffix.lower() == ".jsonl":
        return _json_rows(text, table)
    try:
        return _separated_rows(text, table, text_column)
    except csv.Error as error:
        raise UserError(
            f"the table can't be read: {error}", where=table, fix="look for a quotation mark that is never closed"
        ) from None


def _json_rows(text: str, table: Path) -> tuple[set[str], list[Row]]:
    columns: set[str] = set()
    rows: list[Row] = []
    # Not splitlines(): a transcript may hold a line separator (U+2028) unescaped.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        row = {_LINE: f"{table.name} line {number}"}
        try:
            found = json.loads(line)
            if not isinstance(found, dict):
                raise ValueError("not an object")
            row |= {str(key): "" if value is None else str(value) for key, value in found.items()}
        except (ValueError, RecursionError) as error:
            _log.warning("%s line %d is not a JSON object: %s", table, number, error)
        columns |= row.keys()
        rows.append(row)
    return columns - {_LINE}, rows


def _separated_rows(text: str, table: Path, text_column: str) -> tuple[set[str], list[Row]]:
    """Rows of a CSV (comma, semicolon or tab) or of a TSV."""
    header = text.lstrip("\n").split("\n", 1)[0]
    quoted = True
    delimiter = max(",;\t", key=header.count)
    if table.suffix.lower() == ".tsv":
        # A transcript may begin with a quotation mark that means nothing; a quoted header shows that cells are quoted.
        delimiter, quoted = "\t", header.startswith('"')

    def read(lines: Iterable[str], strict: bool) -> Iterator[list[str]]:
        if quoted:
            return csv.reader(lines, delimiter=delimiter, strict=strict)
        return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=strict)

    try:
        numbered = list(enumerate(read(io.StringIO(text), strict=True), start=1))
    except csv.Error as error:
        # A mark that is never closed would swallow the rows after it: take each line for a row instead.
        _log.warning("%s has a stray quotation mark (%s); each of its lines is read as one row", table, error)
        numbered = [(n, next(read([line], strict=False), [])) for n, line in enumerate(io.StringIO(text), start=1)]
    filled = [(number, cells) for number, cells in numbered if any(cell.strip() for cell in cells)]
    if not filled:
        return set(), []
    names = [name.strip() for name in filled[0][1]]
    rows = []
    for number, cells in filled[1:]:
        row = dict(zip(names, cells, strict=False)) | {_LINE: f"{table.name} row {number}"}
        if len(cells) > len(names):
            # Only a last column can be mended: a comma in any other has shifted all that follows it.
            last = names[-1] == text_column
            row[text_column] = delimiter.join(cells[len(names) - 1 :]) if last else ""
            _log.warning("%s row %d has %d cells for %d columns", table, number, len(cells), len(names))
        rows.append(row)
    return set(names), rows


def _audio(name: str, beside: Path, folder: Path) -> str:
    """Absolute path of a clip: as written, else as other systems would have written the same name."""
    if not name.strip():
        return ""
    unquoted = name.strip().strip('"').replace('""', '"')
    spellings = [name, name.strip(), unquoted, unquoted.replace("\\", "/")]
    spellings += [unicodedata.normalize(form, unquoted) for form in ("NFC", "NFD")]
    for spelling in dict.fromkeys(spellings):
        for base in dict.fromkeys((beside, folder)):
            if (base / spelling).exists():
                return str(base / spelling)
    return str(beside / name)


def _seconds(duration: str) -> float | None:
    try:
        seconds = float(duration)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None
