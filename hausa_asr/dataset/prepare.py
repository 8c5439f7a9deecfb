"""Prepare a dataset: decode, spell, check and split the utterances of a corpus, and write them to disk.

In: utterances and what to keep. Out: a `Prepared`, with a report and the refused utterances. Called by `hausa-asr
prepare` and, on first use of a corpus, by a sweep. Each clip is decoded once: a preparation that was killed goes on
where it stopped, and other settings, transcripts or splits only choose anew among the decoded clips. A bad utterance is
refused, and the others are prepared.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hausa_asr.audio import sources
from hausa_asr.audio.container_faults import Fault
from hausa_asr.dataset import clip_store, decode_pool, refusals, select
from hausa_asr.dataset.clip_store import Clips
from hausa_asr.dataset.decode_progress import PrepareProgress, ProgressCallback, ProgressMeter
from hausa_asr.dataset.decoder import Task
from hausa_asr.dataset.prepared import FORMAT, Prepared, PreparedSplit, load_prepared
from hausa_asr.dataset.put_in_place import as_json, put_in_place
from hausa_asr.dataset.refusals import Refused
from hausa_asr.dataset.select import PrepareSettings
from hausa_asr.errors import UserError
from hausa_asr.utterance import SPLITS, Utterance

__all__ = ["PrepareProgress", "PrepareSettings", "Prepared", "PreparedSplit", "load_prepared", "prepare"]

_log = logging.getLogger(__name__)
VERSION = 1
"""Of how utterances are chosen, spelled, cut into splits and reported. Raise it with every change of `select`,
`overlap`, `numbers`, `report`, `splits` or `text` that makes another dataset of the same corpus: it is part of the
fingerprint, so what was prepared before is then prepared anew. tests/dataset/test_prepare_version.py sees a change."""
_DEFAULTS = PrepareSettings()
_MARK = ".preparing"
"""The lock of a folder, and the sign that what is in it was made here."""
_DECODED_S = 60.0
"""Clips up to this length are decoded even where `max_s` is lower, so that another `max_s` needs no decoding."""


def prepare(
    utterances: Iterable[Utterance],
    out: str | Path,
    settings: PrepareSettings = _DEFAULTS,
    *,
    progress: ProgressCallback | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Prepared:
    """Prepare a corpus, or open the dataset if the same was prepared before with the same settings.

    The dataset is there once `prepared.json` is. What was decoded before an interruption, or for other settings, is
    used again. A second preparation of the same folder waits for the first.

    Args:
        utterances: the corpus.
        out: the folder to make. A prepared dataset that is there and differs is replaced; anything else is left alone.
        settings: what to keep.
        progress: called ten times a second at most, and at the end of the decoding.
        origin: where the utterances come from, kept for the record.

    Raises:
        UserError: nothing is left in train or dev, or in a test split that the corpus has; train and test overlap; or
            `out` is in the way.
    """
    select.check(settings)
    out = Path(out).expanduser().absolute()
    listed = list(utterances)
    if not listed:
        raise UserError("The corpus has no utterances.", where=(origin or {}).get("path"), fix="Check its table.")
    keys = [_key(utterance) for utterance in listed]
    fingerprint = _fingerprint(listed, keys, settings)
    if done := _same(out, fingerprint):
        _log.info("%s is prepared already, from the same utterances with the same settings", out)
        return done
    _check_out(out)
    chosen, refused = select.screen(listed)
    # Splits that the transcripts alone leave empty are refused before anything is decoded.
    wanted = {"train", *(utterance.split for utterance in listed if utterance.split in SPLITS)}
    if empty := wanted - {listed[number].split or "train" for number in chosen}:
        raise refusals.nothing_left(sorted(map(str, empty)), refused, listed)
    try:
        (out / clip_store.FOLDER).mkdir(parents=True, exist_ok=True)
        with _locked(out):
            if done := _same(out, fingerprint):
                return done  # another preparation of the same was quicker
            try:
                decoded = _decode(listed, chosen, keys, out, settings, progress, refused)
                choice = select.choose(listed, chosen, decoded, refused, settings, out)
                return put_in_place(choice, decoded, out, fingerprint, settings, origin or {})
            finally:
                _remove_if_nothing_was_made(out)
    except OSError as error:  # reading is guarded clip by clip, so this is about writing
        fix = "Free some disk, or choose a folder that can be written to."
        raise UserError(f"The prepared dataset can't be written: {error}.", where=out, fix=fix) from error


# -- what is there already --------------------------------------------------------------------------------------------


def _key(utterance: Utterance) -> bytes:
    try:
        stamp = sources.stamp(utterance.audio)
    except (OSError, ValueError, TypeError, AttributeError):
        stamp = ()
    return clip_store.key(utterance.audio, stamp)


def _fingerprint(utterances: Sequence[Utterance], keys: Sequence[bytes], settings: PrepareSettings) -> str:
    """Name the input: the same utterances, files (by size and time), settings and `VERSION` give the same name."""
    digest = hashlib.sha256(as_json({"format": FORMAT, "version": VERSION, **asdict(settings)}).encode())
    for utterance, key in zip(utterances, keys, strict=True):
        fields = (utterance.id, utterance.text, utterance.split, utterance.speaker, utterance.duration_s)
        digest.update(json.dumps([*fields, utterance.corpus], default=str).encode() + key)
    return digest.hexdigest()[:16]


def _same(out: Path, fingerprint: str) -> Prepared | None:
    try:
        old = load_prepared(out)
        about = json.loads((out / "prepared.json").read_text(encoding="utf-8"))
        same = about.get("made_of", old.fingerprint) == fingerprint and not about.get("try_again", 0)
    except (UserError, KeyError, OSError, ValueError, AttributeError):
        return None
    return replace(old, reused=True) if same else None


def _check_out(out: Path) -> None:
    """Refuse to replace what was not made here."""
    if out.is_dir() and ((out / "prepared.json").is_file() or (out / _MARK).is_file() or not any(out.iterdir())):
        return
    if out.exists() or out.is_symlink():
        raise UserError(
            "There is something else than a prepared dataset.",
            where=out,
            fix="Choose a new folder for the prepared dataset.",
        )


def _remove_if_nothing_was_made(out: Path) -> None:
    with suppress(OSError):
        if {path.name for path in out.iterdir()} <= {_MARK, clip_store.FOLDER} and not any(
            (out / clip_store.FOLDER).iterdir()
        ):
            (out / clip_store.FOLDER).rmdir()
            (out / _MARK).unlink()
            out.rmdir()


# -- decoding ---------------------------------------------------------------------------------------------------------


def _decode(
    listed: Sequence[Utterance],
    chosen: dict[int, str],
    keys: Sequence[bytes],
    out: Path,
    settings: PrepareSettings,
    progress: ProgressCallback | None,
    refused: list[Refused],
) -> Clips:
    """Decode what is not decoded yet; clips that can't be fetched move from `chosen` to `refused`."""
    folder, limit_s = out / clip_store.FOLDER, max(_DECODED_S, settings.max_s)
    clips = Clips(folder, keys, settings.max_s)
    first: dict[bytes, int] = {}
    for number in chosen:
        if not clips.has(number):
            first.setdefault(keys[number], number)
    if not first:
        return clips
    tasks = [Task(number, key, listed[number].audio) for key, number in first.items()]
    meter = ProgressMeter(listed, chosen, clips, tasks, progress)
    failed: dict[bytes, Fault] = {}
    for clip in decode_pool.decode_all(tasks, folder, limit_s):
        if clip.refused:
            failed[keys[clip.number]] = clip.refused
        meter.add(clip.seconds)
    meter.report_now()
    for number in [number for number in chosen if keys[number] in failed]:
        refused.append(Refused(listed[number], *failed[keys[number]]))
        del chosen[number]
    return Clips(folder, keys, settings.max_s)


# -- one at a time ----------------------------------------------------------------------------------------------------


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Lock a folder for one preparation at a time; the kernel unlocks it when the process ends, however it does."""
    while True:
        with open(out / _MARK, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.warning("another preparation of %s is at work: waiting for it", out)
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:  # some network file systems know no locks
                _log.warning("%s can't be locked (%s): don't prepare it twice at a time", out, error)
            ours = False
            with suppress(FileNotFoundError):  # the one that had it may have removed an empty folder
                if os.path.samestat(os.fstat(file.fileno()), os.stat(out / _MARK)):
                    (out / clip_store.FOLDER).mkdir(exist_ok=True)
                    ours = True
            if ours:  # outside, where a file that the block misses is not taken for that
                yield
                return
        (out / clip_store.FOLDER).mkdir(parents=True, exist_ok=True)
