"""Read Mozilla Common Voice, as downloaded or unpacked, with the splits that it is published with.

    cv-corpus-17.0-2024-03-15/ha/train.tsv, dev.tsv, test.tsv, other.tsv, clip_durations.tsv, ...
    cv-corpus-17.0-2024-03-15/ha/clips/common_voice_ha_26699744.mp3

Called by `dataset.from_settings`. Any version will do: only the columns `path` and `sentence` are needed.
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
    progress: archive.UnpackCallback | None = None,
) -> Iterator[Utterance]:
    """List the utterances of train, dev and test, in the order of their tables.

    The tables are read before the first utterance is yielded.

    Args:
        path: the .tar.gz as downloaded (or a URL of it), or its unpacked folder, or any folder above the tables.
        cache: where the archive is unpacked, once.
        locale: the language, if there are several.
        extra: "other" (not voted on yet) or "validated" (voted for, in no split): what to add to train. Such clips may
            be in dev and test too, which flatters the scores. So no clip, speaker or sentence of dev or test is added.
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
    """Find the one folder with this language's tables."""
    candidates: list[Path] = []
    for place, folders, files in os.walk(root):
        folders.sort()
        if "train.tsv" in files or "validated.tsv" in files:
            candidates.append(Path(place))
            folders.clear()
        elif "clips" in folders or len(Path(place).relative_to(root).parts) >= _DEPTH:
            folders.clear()
    named = [folder for folder in candidates if folder.name.lower() == locale.lower()]
    if len(named) == 1 or (not named and len(candidates) == 1):
        return (named or candidates)[0]
    if named:
        names = ", ".join(str(folder.relative_to(root)) for folder in named)
        raise UserError(f"There are several Common Voices: {names}.", where=shown, fix="Set path to one of them.")
    if candidates:
        names = ", ".join(sorted(folder.name for folder in candidates))
        raise UserError(
            f"The corpus has no language '{locale}'; it has: {names}.", where=shown, fix="Set locale to one of them."
        )
    raise UserError(
        "This is no Common Voice: there is no train.tsv in it.",
        where=shown,
        fix="Set path to the .tar.gz as downloaded, or to its unpacked folder.",
    )


def _table(file: Path, locale: str) -> list[Row]:
    """Read the rows of a table; none if there is no such table, as dev in versions 7 and 8."""
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
        languages = ", ".join(sorted(others))
        what = f"The table is of the language {languages}, not '{locale}'."
        raise UserError(what, where=file, fix=f"Set locale to {languages}.")
    return rows


def _clip(row: Row) -> str:
    """Name a row's clip in the folder `clips`."""
    name = PurePosixPath(row.get("path", "").strip()).name
    return name if not name or PurePosixPath(name).suffix else f"{name}.mp3"  # the first versions leave it out


def _durations(file: Path) -> dict[str, float]:
    """Read the seconds of each clip; {} in versions that do not state them."""
    durations = {}
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")[1:]
    except (OSError, UnicodeError):
        return {}
    for line in lines:
        clip, _, milliseconds = line.strip().partition("\t")
        if milliseconds.strip().isdecimal():
            durations[clip] = int(milliseconds) / 1000
    return durations


def _unknown_to_dev_and_test(which: str, tables: dict[str, list[Row]]) -> list[Row]:
    """Pick the rows of `which` that are in no other table, and whose speaker and sentence are not in dev or test."""
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
