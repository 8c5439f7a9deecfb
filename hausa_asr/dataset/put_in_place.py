"""Put a dataset in place: write it beside the old one, name it in `prepared.json`, and only then remove the old one.

In: what was chosen, and the decoded clips. Out: a folder that holds the old dataset or the new one, at any moment.
Called by `prepare`.
"""

from __future__ import annotations

import filecmp
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hausa_asr import __version__
from hausa_asr.dataset import clip_store, decode_pool, refusals
from hausa_asr.dataset.clip_store import Clips
from hausa_asr.dataset.prepared import FORMAT, Prepared, load_prepared, write_split
from hausa_asr.dataset.select import Choice, PrepareSettings
from hausa_asr.errors import UserError
from hausa_asr.files import write_whole
from hausa_asr.utterance import SPLITS

_log = logging.getLogger(__name__)


def put_in_place(
    choice: Choice, decoded: Clips, out: Path, fingerprint: str, settings: PrepareSettings, origin: Mapping[str, Any]
) -> Prepared:
    """Write a dataset into its folder and open it.

    Args:
        choice: the utterances that are kept and refused, and the report.
        decoded: the clips.
        out: the folder of the dataset, locked by the caller.
        fingerprint: of what goes in.
        settings: what was kept.
        origin: where the utterances come from, kept for the record.

    Raises:
        OSError: the folder can't be written.
    """
    report = {"origin": dict(origin), **choice.report}
    tables = out / "splits" / fingerprint
    partial = tables.with_name(f"{fingerprint}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(tables, ignore_errors=True)  # of the same name and not what was there: it is damaged
    partial.mkdir(parents=True)
    counts = _write_splits(choice, decoded, partial)
    _save(partial / "report.json", as_json(report))
    made_of, fingerprint = fingerprint, _unchanged(out, partial) or fingerprint
    if (tables := out / "splits" / fingerprint).is_dir():
        shutil.rmtree(tables)  # it holds the same
    partial.rename(tables)
    _save(out / "report.json", as_json(report))
    _save(out / "refused.jsonl", refusals.lines(choice.refused))
    _draw(report, out / "report.png")
    shards = sorted({decoded.names[decoded.shard[number]] for number in choice.kept})
    files = [*(f"{clip_store.FOLDER}/{name}" for name in shards)]
    files += [f"splits/{fingerprint}/{name}" for name in (*(f"{split}.arrow" for split in counts), "report.json")]
    about = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "made_of": made_of,
        "version": __version__,
        "settings": asdict(settings),
        "origin": dict(origin),
        "splits": counts,
        "try_again": sum(each.reason in decode_pool.PASSING for each in choice.refused),
        "files": {name: (out / name).stat().st_size for name in files},
    }
    _save(out / "prepared.json", as_json(about))
    _remove_old(out, fingerprint, decoded)
    return load_prepared(out)


def _write_splits(choice: Choice, decoded: Clips, folder: Path) -> dict[str, int]:
    """Write the table of each split that is not empty; gives the number of utterances in each."""
    counts: dict[str, int] = {}
    for split in SPLITS:
        mine = [number for number, kept in choice.kept.items() if kept.split == split]
        if mine:
            write_split(folder / f"{split}.arrow", [choice.kept[number] for number in mine], mine, decoded)
            counts[split] = len(mine)
    return counts


def _remove_old(out: Path, fingerprint: str, decoded: Clips) -> None:
    """Remove all tables but those of this fingerprint, and the clips that are not in use any more."""
    for left in (out / "splits").iterdir():
        if left.name != fingerprint:
            shutil.rmtree(left, ignore_errors=True)  # a reader that has the old files mapped keeps them
    for split in SPLITS:
        (out / f"{split}.arrow").unlink(missing_ok=True)  # of format 1
    clip_store.remove_unused(out / clip_store.FOLDER, decoded.names)


def _unchanged(out: Path, tables: Path) -> str | None:
    """Give the fingerprint of the dataset that is there, if new tables hold exactly the same; None otherwise.

    Sweeps know their dataset by its fingerprint. So one that was prepared by an older version, whose fingerprints were
    made of its source code, keeps its name when nothing in it changes.
    """
    try:
        old = load_prepared(out)
    except (UserError, KeyError, OSError, ValueError, AttributeError):
        return None
    names = {path.name for path in tables.glob("*.arrow")}
    if names != {f"{split}.arrow" for split in old.splits}:
        return None
    same = all(filecmp.cmp(tables / f"{name}.arrow", split.path, shallow=False) for name, split in old.splits.items())
    return old.fingerprint if same else None


def _draw(report: Mapping[str, Any], file: Path) -> None:
    from hausa_asr.dataset import report_picture  # with matplotlib, which takes most of a second

    try:
        report_picture.draw(report, file)
    except Exception as error:  # a picture is no reason to lose a dataset
        _log.warning("%s could not be drawn: %s", file, error)


def as_json(content: Mapping[str, Any]) -> str:
    """Write JSON as the files of a dataset have it."""
    return json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"


def _save(file: Path, content: str) -> None:
    # A file's name may carry bytes that are no characters.
    write_whole(file, content, errors="backslashreplace")
