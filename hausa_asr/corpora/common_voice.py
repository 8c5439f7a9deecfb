"""Mozilla Common Voice in, as it is downloaded or unpacked, utterances out with the splits that it is published with.

    cv-corpus-17.0-2024-03-15/ha/train.tsv, dev.tsv, test.tsv, other.tsv, clip_durations.tsv, ...
    cv-corpus-17.0-2024-03-15/ha/clips/common_voice_ha_26699744.mp3

Read by `prepare` through the command line. Any version will do: only the columns `path` and `sentence` are needed.
Versions 7 and 8 have no dev; `prepare` then cuts one from train, by speaker.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from hausa_asr.corpora import archive
from hausa_asr.errors import UserError
from hausa_asr.text import fold
from hausa_asr.utterance import SPLITS, Utterance

_log = logging.getLogger(__name__)
_DEPTH = 4
"""Folders to look into below the one that is named; the tables are at most two below."""

Row = dict[str, str]


def utterances(
    path: str,
    cache: Path,
    *,
    locale: str = "ha",
    extra: Sequence[str] = (),
    name: str = "common_voice",
    progress: archive.UnpackProgress | None = None,
) -> Iterator[Utterance]:
    """The utterances of train, dev and test, in the order of their tables, which are read before the first is yielded.

    Args:
        path: the .tar.gz as downloaded (or a URL of it), or its unpacked folder, or any folder above the tables.
        cache: where the archive is unpacked, once.
        locale: the language, if there are several.
        extra: "other" (not voted on yet) or "validated" (voted for, in no split): what to add to train. Such clips may
            well be of what dev and test hold, which is how scores come about that nobody can repeat. So nothing is
            added that dev or test has: no clip, no speaker of theirs, no sentence.
        name: the corpus's name in reports.
        progress: called now and then while an archive is unpacked.

    Raises:
        UserError: there is no Common Voice of this language, or a table lacks a needed column.
    """
    if archive.is_archive(path):
        root = archive.unpacked(path, cache, progress)
    else:
        root = Path(path).expanduser().absolute()
        if not root.is_dir():
            fix = "Set path to the .tar.gz as downloaded, or to its unpacked folder."
            raise UserError("There is no such folder.", where=path, fix=fix)
    folder = _folder(root, locale, shown=path)
    tables = {split: _table(folder / f"{split}.tsv", locale) for split in (*SPLITS, *extra)}
    durations = _durations(folder / "clip_durations.tsv")
    for which in extra:
        tables[which] = _unknown_to_dev_and_test(which, tables)

    def each() -> Iterator[Utterance]:
        for split, rows in tables.items():
            for row in rows:
                clip = _clip(row)
                yield Utterance(
                    id=clip or f"{split}.tsv row {row[_ROW]}",
                    audio=str(folder / "clips" / clip) if clip else "",
                    text=row.get("sentence", ""),
                    split=split if split in SPLITS else "train",
                    speaker=row.get("client_id", "").strip(),
                    duration_s=durations.get(clip),
                    corpus=name,
                )

    return each()


_ROW = "\0row"
"""Key under which a row carries its place in the table; no column can be called so."""


def _folder(root: Path, locale: str, shown: str) -> Path:
    """The one folder with this language's tables."""
    found: list[Path] = []
    for place, folders, files in os.walk(root):
        folders.sort()
        if "train.tsv" in files or "validated.tsv" in files:
            found.append(Path(place))
            folders.clear()
        elif "clips" in folders or len(Path(place).relative_to(root).parts) >= _DEPTH:
            folders.clear()
    named = [folder for folder in found if folder.name.lower() == locale.lower()]
    if len(named) == 1 or (not named and len(found) == 1):
        return (named or found)[0]
    if named:
        names = ", ".join(str(folder.relative_to(root)) for folder in named)
        raise UserError(f"There are several Common Voices: {names}.", where=shown, fix="Set path to one of them.")
    if found:
        names = ", ".join(sorted(folder.name for folder in found))
        raise UserError(
            f"It has no language '{locale}'; it has: {names}.", where=shown, fix="Set locale to one of them."
        )
    raise UserError(
        "This is no Common Voice: there is no train.tsv in it.",
        where=shown,
        fix="Set path to the .tar.gz as downloaded, or to its unpacked folder.",
    )


def _table(file: Path, locale: str) -> list[Row]:
    """The rows of a table; none if there is no such table, as dev in versions 7 and 8."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeError) as error:
        raise UserError(f"The table can't be read: {error}.", where=file, fix="Unpack the archive again.") from None
    # Not splitlines() and not the csv module: a sentence may hold a line separator, or begin with a quotation mark
    # that means nothing.
    lines = [line.rstrip("\r") for line in text.split("\n")]
    names = [name.strip() for name in lines[0].split("\t")]
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if line.strip():
            cells = line.split("\t")
            if len(cells) != len(names):
                _log.warning("%s row %d has %d cells for %d columns", file, number, len(cells), len(names))
            rows.append(dict(zip(names, cells, strict=False)) | {_ROW: str(number)})
    for column in ("path", "sentence"):
        if rows and column not in names:
            raise UserError(
                f"The table has no column '{column}'; it has: {', '.join(sorted(names))}.",
                where=file,
                fix="Is this Common Voice? For other tables there is the corpus 'folder'.",
            )
    others = {row["locale"] for row in rows if row.get("locale")} - {locale}
    if rows and len(others) and not any(row.get("locale") == locale for row in rows):
        found = ", ".join(sorted(others))
        raise UserError(f"It is of the language {found}, not '{locale}'.", where=file, fix=f"Set locale to {found}.")
    return rows


def _clip(row: Row) -> str:
    """The name of a row's clip in the folder `clips`."""
    name = PurePosixPath(row.get("path", "").strip()).name
    return name if not name or PurePosixPath(name).suffix else f"{name}.mp3"  # the first versions leave it out


def _durations(file: Path) -> dict[str, float]:
    """Seconds by clip; {} in versions that do not state them."""
    found = {}
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")[1:]
    except (OSError, UnicodeError):
        return {}
    for line in lines:
        clip, _, milliseconds = line.strip().partition("\t")
        if milliseconds.strip().isdecimal():
            found[clip] = int(milliseconds) / 1000
    return found


def _unknown_to_dev_and_test(which: str, tables: dict[str, list[Row]]) -> list[Row]:
    """The rows of `which` that no other table has, without those whose speaker or sentence dev or test knows."""
    held_out = [*tables["dev"], *tables["test"]]
    speakers = {row.get("client_id", "").strip() for row in held_out} - {""}
    sentences = {fold(row.get("sentence", "")) for row in held_out}
    taken = {_clip(row) for name, rows in tables.items() if name != which for row in rows}
    kept = []
    known = 0
    for row in tables[which]:
        if _clip(row) in taken:
            continue
        if row.get("client_id", "").strip() in speakers or fold(row.get("sentence", "")) in sentences:
            known += 1
            continue
        kept.append(row)
    _log.info("%d clips of %s.tsv are added to train; %d are known to dev or test", len(kept), which, known)
    return kept
