"""Read FLEURS, with the splits that it is published with.

    data/ha_ng/train.tsv, dev.tsv, test.tsv              no header: id, file, raw_transcription, transcription, ...
    data/ha_ng/audio/train.tar.gz, dev.tar.gz, test.tar.gz

as on the Hugging Face hub, or with `audio/train/*.wav` unpacked, or as a `datasets` dataset with the columns audio and
transcription. Called by `dataset.from_settings`. Speakers are not named: ids are of sentences, each read by several
people, and gender is no speaker.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from hausa_asr.audio import sources
from hausa_asr.corpora import archive, hub
from hausa_asr.errors import UserError
from hausa_asr.storage.address import is_url
from hausa_asr.utterance import SAMPLE_RATE, SPLITS, Utterance

_log = logging.getLogger(__name__)
_FILE, _TRANSCRIPTION, _N_SAMPLES = 1, 3, 5
"""The columns that are read, by their place."""


def utterances(
    path: str,
    cache: Path,
    *,
    locale: str = "ha_ng",
    name: str = "fleurs",
    progress: archive.UnpackCallback | None = None,
) -> Iterator[Utterance]:
    """List the utterances of train, dev and test, in the order of their tables.

    The tables are read before the first utterance is yielded.

    Args:
        path: a folder with the tables in it, in `<locale>` or in `data/<locale>`, or a URL of one such as
            hf://datasets/google/fleurs; an archive of one; or the folder of a `datasets` dataset.
        cache: where archives are unpacked, once.
        locale: the language, as FLEURS calls it.
        name: the corpus's name in reports.
        progress: called now and then while an archive is unpacked.

    Raises:
        UserError: there is no FLEURS of this language, or a part of it is missing.
    """
    if archive.is_archive(path):
        path = str(archive.unpacked(path, cache, progress))
    elif not is_url(path):
        path = str(Path(path).expanduser().absolute())
    folder = _folder(path, locale)
    if folder is None:
        if hub.is_saved(path):
            return hub.utterances(path, text_column="transcription", name=name)
        raise UserError(
            f"This is no FLEURS: there is no data/{locale}/train.tsv in it.",
            where=path,
            fix=f"Set path to the folder that has data/{locale} in it, or locale to another language.",
        )
    tables = {split: _rows(sources.join(folder, f"{split}.tsv")) for split in SPLITS}
    clips = {split: _clips(folder, split, cache, progress) for split, rows in tables.items() if rows}

    def each() -> Iterator[Utterance]:
        for split, rows in tables.items():
            for number, row in enumerate(rows, start=1):
                file = PurePosixPath(row[_FILE].strip()).name if len(row) > _FILE else ""
                samples = row[_N_SAMPLES].strip() if len(row) > _N_SAMPLES else ""
                yield Utterance(
                    id=f"{split}/{file or number}",
                    audio=clips[split].get(file, sources.join(clips[split][""], file)) if file else "",
                    text=row[_TRANSCRIPTION] if len(row) > _TRANSCRIPTION else "",
                    split=split,
                    duration_s=int(samples) / SAMPLE_RATE if samples.isdecimal() and int(samples) else None,
                    corpus=name,
                )

    return each()


def _folder(path: str, locale: str) -> str | None:
    """Find the folder with the tables."""
    for below in ("", locale, f"data/{locale}", f"fleurs/data/{locale}"):
        folder = sources.join(path, below) if below else path
        if sources.kind(sources.join(folder, "train.tsv")) == "file":
            return folder
    return None


def _rows(table: str) -> list[list[str]]:
    if not sources.kind(table):
        return []
    with sources.open_file(table) as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeError as error:
        raise UserError(f"The table is not in UTF-8 ({error}).", where=table, fix="Download it again.") from None
    rows = [line.rstrip("\r").split("\t") for line in text.split("\n") if line.strip()]
    if rows and max(map(len, rows)) <= _TRANSCRIPTION:
        raise UserError(
            "The table has too few columns for one of FLEURS.",
            where=table,
            fix="Download it again, or use the corpus 'folder' for a table of your own.",
        )
    return rows


def _clips(folder: str, split: str, cache: Path, progress: archive.UnpackCallback | None) -> dict[str, str]:
    """Map the clips of a split by name to their places; under "" is the folder where a missing one should be."""
    packed = sources.join(folder, f"audio/{split}.tar.gz")
    loose = sources.join(folder, f"audio/{split}")
    if sources.kind(loose) == "folder":
        return {"": loose, **{file: sources.join(loose, file) for file in sources.files_in(loose)}}
    if not sources.kind(packed):
        raise UserError(
            f"The clips of {split} are missing: neither {split}.tar.gz nor the folder {split} is in audio.",
            where=folder,
            fix="Download them too.",
        )
    place = archive.unpacked(packed, cache, progress)
    return {"": str(place / split), **{file.name: str(file) for file in place.rglob("*") if file.is_file()}}
