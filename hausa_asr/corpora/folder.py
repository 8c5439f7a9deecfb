"""Read a folder of audio files with one table of transcripts (CSV, TSV or JSONL).

Called by `dataset.from_settings`. The folder is on a disk or in an object store (s3://, gs://, ...); so may be the
table, and each single clip. Only the table is opened here: a row without a clip is still yielded, and `prepare` refuses
it with its reason.
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
from typing import NamedTuple

from hausa_asr.audio import sources
from hausa_asr.errors import UserError
from hausa_asr.storage.address import filesystem, is_url
from hausa_asr.utterance import Utterance

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
    """List the utterances of a folder, in the order of its table, which is checked before the first is yielded.

    Args:
        path: the folder, or its table; local or a URL.
        manifest: the table, where the folder has none or several; relative to the folder or to where you are.
        audio_column: each clip's path, relative to the table, or its URL; it is the utterance's id too.
        text_column: its transcript.
        split_column: train, dev (or validation, valid, val) or test; optional. Other names are kept as they are, and
            `prepare` refuses the row.
        speaker_column: who speaks; optional.
        duration_column: seconds; optional.

    Raises:
        UserError: there is no table, there are several, or it can't be read or lacks a needed column.
    """
    folder = str(path).rstrip("/") if is_url(str(path)) else str(Path(path).expanduser().absolute())
    table = _table(folder, manifest)
    beside = _parent(table)
    if folder == table:
        folder = beside
    columns, rows = _rows(table, text_column)
    for column, setting in ((audio_column, "audio_column"), (text_column, "text_column")):
        if column not in columns:
            names = ", ".join(sorted(columns)) or "none"
            raise UserError(
                f"The table has no column '{column}'; it has: {names}.",
                where=table,
                fix=f"Set {setting} to the column that has the {'transcript' if column == text_column else 'path'}.",
            )
    for clip in {name.split("://")[0]: name for row in rows if is_url(name := row.get(audio_column, ""))}.values():
        filesystem(clip)  # a driver that is missing is one error, and not one for each clip

    def each() -> Iterator[Utterance]:
        for row in rows:
            name = row.get(audio_column, "")
            split = row.get(split_column, "").strip()
            yield Utterance(
                id=name or row[_LINE],
                audio=_audio(name, beside, folder),
                text=row.get(text_column, ""),
                split=_SPLIT_NAMES.get(split.lower(), split),
                speaker=row.get(speaker_column, "").strip(),
                duration_s=seconds(row.get(duration_column, "")),
                corpus=_name(folder),
            )

    return each()


_LINE = "\0line"
"""Key under which a row carries its place in the table; no column can be called so."""


def _table(folder: str, manifest: str | Path | None) -> str:
    """Find the one table to read."""
    if manifest is not None:
        wanted = str(manifest) if is_url(str(manifest)) else str(Path(manifest).expanduser())
        places = [sources.join(folder, wanted)]
        if not is_url(wanted):
            places.append(str(Path(wanted).absolute()))
        for candidate in places:
            if sources.kind(candidate) == "file":
                return _known(candidate)
        raise UserError("There is no such table.", where=places[0], fix="Set manifest to a file that exists.")
    kind = sources.kind(folder)
    if kind == "file":
        return _known(folder)
    if kind != "folder":
        raise UserError("There is no such folder.", where=folder, fix="Set path to the folder with the audio files.")
    tables = [file for file in sources.files_in(folder) if _is_table(file) and not file.startswith(".")]
    if not tables:
        raise UserError(
            "The folder has no table of transcripts.",
            where=folder,
            fix="Put a CSV, TSV or JSONL with the columns path and text in it, or set manifest.",
        )
    if len(tables) > 1:
        raise UserError(
            f"The folder has several tables: {', '.join(tables)}.",
            where=folder,
            fix="Set manifest to the one to use.",
        )
    return sources.join(folder, tables[0])


def _is_table(name: str) -> bool:
    return name.lower().endswith(_TABLES)


def _known(table: str) -> str:
    if not _is_table(table):
        raise UserError("A table is a .csv, .tsv or .jsonl file.", where=table, fix="Set manifest to such a file.")
    return table


def _parent(place: str) -> str:
    return place.rpartition("/")[0] if is_url(place) else str(Path(place).parent)


def _name(place: str) -> str:
    return place.rstrip("/").rpartition("/")[2]


class _Table(NamedTuple):
    """The columns of a table, and its rows with every value a string."""

    columns: set[str]
    rows: list[Row]


def _rows(table: str, text_column: str) -> _Table:
    """Read a table."""
    with sources.open_file(table) as file:
        content = file.read()
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeError as error:
        raise UserError(
            f"The table is not in UTF-8 ({error}).", where=table, fix="Save it as UTF-8, or hooked letters are lost."
        ) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if table.lower().endswith(".jsonl"):
        return _json_rows(text, table)
    try:
        return _separated_rows(text, table, text_column)
    except csv.Error as error:
        raise UserError(
            f"The table can't be read: {error}.", where=table, fix="Look for a quotation mark that is never closed."
        ) from None


def _json_rows(text: str, table: str) -> _Table:
    columns: set[str] = set()
    rows: list[Row] = []
    # Not splitlines(): a transcript may hold a line separator (U+2028) unescaped.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        row = {_LINE: f"{_name(table)} line {number}"}
        try:
            content = json.loads(line)
            if not isinstance(content, dict):
                raise ValueError("not an object")
            row |= {str(key): "" if value is None else str(value) for key, value in content.items()}
        except (ValueError, RecursionError) as error:
            _log.warning("%s line %d is not a JSON object: %s", table, number, error)
        columns |= row.keys()
        rows.append(row)
    return _Table(columns - {_LINE}, rows)


def _separated_rows(text: str, table: str, text_column: str) -> _Table:
    """Read the rows of a CSV (comma, semicolon or tab) or of a TSV."""
    header = text.lstrip("\n").split("\n", 1)[0]
    quoted = True
    delimiter = max(",;\t", key=header.count)
    if table.lower().endswith(".tsv"):
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
        return _Table(set(), [])
    names = [name.strip() for name in filled[0][1]]
    rows = []
    for number, cells in filled[1:]:
        row = dict(zip(names, cells, strict=False)) | {_LINE: f"{_name(table)} row {number}"}
        if len(cells) > len(names):
            # Only a last column can be mended: a comma in any other has shifted all that follows it.
            last = names[-1] == text_column
            row[text_column] = delimiter.join(cells[len(names) - 1 :]) if last else ""
            _log.warning("%s row %d has %d cells for %d columns", table, number, len(cells), len(names))
        rows.append(row)
    return _Table(set(names), rows)


def _audio(name: str, beside: str, folder: str) -> str:
    """Find a clip: by its name as written, else as other systems would have written it."""
    if not name.strip():
        return ""
    if is_url(name.strip()):
        return name.strip()
    unquoted = name.strip().strip('"').replace('""', '"')
    if is_url(beside):  # not looked for: that would take a request for each
        return sources.join(beside, unquoted.replace("\\", "/").removeprefix("./"))
    spellings = [name, name.strip(), unquoted, unquoted.replace("\\", "/")]
    spellings += [unicodedata.normalize(form, unquoted) for form in ("NFC", "NFD")]
    for spelling in dict.fromkeys(spellings):
        for base in dict.fromkeys((beside, folder)):
            if not is_url(base) and Path(base, spelling).exists():
                return str(Path(base, spelling))
    return str(Path(beside, name))


def seconds(duration: str) -> float | None:
    """Read a stated duration, a number of seconds above 0; None for anything else."""
    try:
        value = float(duration)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
