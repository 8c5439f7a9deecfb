"""Utterances in, a prepared dataset on disk out: decoded to 16 kHz, normalised, split, bad ones refused and reported.

Called by `hausa-asr prepare` and, on first use of a corpus, by a sweep. It happens once: trials only ever read what is
written here (`prepared.py`). One bad utterance costs itself and nothing else.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hausa_asr import __version__, audio, manifest, numbers, prepared, splits, text
from hausa_asr.errors import UserError
from hausa_asr.manifest import SAMPLE_RATE, SPLITS, Utterance
from hausa_asr.prepared import FORMAT, FULL_SCALE, Prepared, PreparedSplit, Row, Writer, load_prepared
from hausa_asr.refusals import Refused, Report

__all__ = ["PrepareSettings", "Prepared", "PreparedSplit", "load_prepared", "prepare"]

_log = logging.getLogger(__name__)
_BATCH = 32
"""Utterances decoded at a time and written as one record batch: bounds the memory, 30 MB at 30 s each."""

T = TypeVar("T")
Progress = Callable[[int, float], None]


@dataclass(frozen=True)
class PrepareSettings:
    """What is kept, and how a corpus without splits is cut.

    Attributes:
        min_s: shorter clips are refused, in seconds; the encoder and its masks need 0.2.
        max_s: longer clips are refused: one of them would set the memory of a whole batch.
        seed: of the cut into splits.
    """

    min_s: float = 0.3
    max_s: float = 30.0
    seed: int = 0


def prepare(
    utterances: Iterable[Utterance],
    out: str | Path,
    settings: PrepareSettings = PrepareSettings(),
    *,
    progress: Progress | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Prepared:
    """Prepare a corpus, or open what is there if the same utterances were prepared with the same settings before.

    The folder appears when it is complete; until then everything is written beside it.

    Args:
        utterances: the corpus.
        out: the folder to make. A prepared dataset that is there and differs is replaced; anything else is left alone.
        settings: what to keep.
        progress: told the utterances done and their share of all, 0 to 1, after each batch.
        origin: where the utterances come from, kept for the record.

    Raises:
        UserError: nothing is left in train or dev, or in a test split that the corpus has; or `out` is in the way.
    """
    out = Path(out).expanduser().absolute()
    listed = list(utterances)
    if not listed:
        raise UserError("the corpus has no utterances", where=(origin or {}).get("path"), fix="check its table")
    fingerprint = _fingerprint(listed, settings)
    if done := _same(out, fingerprint):
        _log.info("%s is prepared already, from the same utterances with the same settings", out)
        return done
    _check_out(out)

    _remove_leftovers(out)
    partial = out.with_name(f"{out.name}.partial-{os.getpid()}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        report = Report(listed)
        counts = _write_all(listed, partial, settings, report, progress)
        _save(partial / "report.json", _json({"origin": dict(origin or {}), **report.summary()}))
        _save(partial / "refused.jsonl", report.refused_lines())
        about = {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "version": __version__,
            "settings": asdict(settings),
            "origin": dict(origin or {}),
            "splits": {
                split: {"utterances": count, "bytes": (partial / f"{split}.arrow").stat().st_size}
                for split, count in counts.items()
            },
        }
        _save(partial / "prepared.json", _json(about))
        return _put_in_place(partial, out, fingerprint)
    except OSError as error:  # reading is guarded clip by clip, so this is about writing
        fix = "free some disk, or choose a folder that can be written to"
        raise UserError(f"the prepared dataset can't be written: {error}", where=out, fix=fix) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fingerprint(utterances: Sequence[Utterance], settings: PrepareSettings) -> str:
    """A name for what comes out: the same utterances, files (by size and time), settings and code give the same."""
    digest = hashlib.sha256(_json(asdict(settings)).encode())
    for module in (audio, manifest, numbers, prepared, splits, text):
        digest.update(Path(str(module.__file__)).read_bytes())
    digest.update(Path(__file__).read_bytes())
    for utterance in utterances:
        try:
            found = Path(utterance.audio).stat()
            file: tuple[int, ...] = (found.st_size, found.st_mtime_ns)
        except (OSError, ValueError, TypeError):
            file = ()
        digest.update(json.dumps([asdict(utterance), file], default=str).encode())
    return digest.hexdigest()[:16]


def _same(out: Path, fingerprint: str) -> Prepared | None:
    try:
        found = load_prepared(out)
    except (UserError, KeyError, OSError):
        return None
    return replace(found, reused=True) if found.fingerprint == fingerprint else None


def _check_out(out: Path) -> None:
    """Refuse to replace what was not made here."""
    if out.is_dir() and ((out / "prepared.json").is_file() or not any(out.iterdir())):
        return
    if out.exists() or out.is_symlink():
        raise UserError("there is something else", where=out, fix="choose a new folder for the prepared dataset")


def _remove_leftovers(out: Path) -> None:
    """Remove what a preparation that was killed left beside `out`: nothing in it was written for an hour."""
    name = glob.escape(out.name)
    for left in (*out.parent.glob(f"{name}.partial-*"), *out.parent.glob(f"{name}.old-*")):
        with suppress(OSError):
            if max(file.stat().st_mtime for file in (left, *left.iterdir())) < time.time() - 3600:
                shutil.rmtree(left)


def _put_in_place(partial: Path, out: Path, fingerprint: str) -> Prepared:
    old = out.with_name(f"{out.name}.old-{os.getpid()}")
    if out.exists():
        out.rename(old)  # whoever has the old files mapped keeps them
    try:
        partial.rename(out)
    except OSError:
        if done := _same(out, fingerprint):  # another preparation of the same was quicker
            return done
        if old.exists() and not out.exists():
            old.rename(out)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
    return load_prepared(out)


def _write_all(
    listed: Sequence[Utterance], folder: Path, settings: PrepareSettings, report: Report, progress: Progress | None
) -> dict[str, int]:
    """Write every split; the number of utterances in each."""
    chosen: list[tuple[Utterance, str]] = []
    seen: set[tuple[str, str]] = set()
    for utterance in listed:
        spelled = _guarded(_screened, utterance, seen)
        if isinstance(spelled, Refused):
            report.refuse(spelled)
        else:
            chosen.append((utterance, spelled))
    given = set(SPLITS) & {str(utterance.split) for utterance in listed}
    while True:
        places, cut, warnings = splits.assign(
            [utterance for utterance, _ in chosen],
            [text.fold(spelled) for _, spelled in chosen],
            given=given,
            seed=settings.seed,
        )
        report.start(warnings)
        kept: list[tuple[Utterance, str]] = []
        with Writer(folder) as files, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(chosen), _BATCH):
                batch = chosen[start : start + _BATCH]
                results = pool.map(lambda each: _guarded(_decoded, *each, settings), batch)
                ready: dict[str, list[Row]] = {}
                for place, result in zip(places[start : start + _BATCH], results, strict=True):
                    if isinstance(result, Refused):
                        report.refuse(result)
                        continue
                    ready.setdefault(place, []).append(result)
                    kept.append((result.utterance, result.text))
                    report.keep(place, result.utterance, result.text, len(result.samples), result.source_rate)
                for split, rows in ready.items():
                    files.write(split, rows)
                if progress is not None:
                    done = len(listed) - len(chosen) + start + len(batch)
                    progress(done, done / len(listed))
        empty = ({"train", "dev"} | cut | given) - files.counts.keys()
        if not empty:
            return {split: files.counts[split] for split in SPLITS if split in files.counts}
        if not cut or empty - cut - {"train"} or len(kept) == len(chosen):
            raise report.nothing_left(sorted(empty))
        # All that our own cut had put into a split was refused: cut what is left of the corpus anew.
        chosen = kept


def _screened(utterance: Utterance, seen: set[tuple[str, str]]) -> str | Refused:
    """The normalised transcript, or why the utterance can't be used; its audio is not opened."""
    name = (utterance.corpus, utterance.id)
    if name in seen:
        return Refused(utterance, "duplicate id")
    seen.add(name)
    if utterance.split is not None and utterance.split not in SPLITS:
        return Refused(utterance, "unknown split", f"{utterance.split!r} is none of {', '.join(SPLITS)}")
    spelled = text.normalise(utterance.text or "")
    if not spelled:
        return Refused(utterance, "no transcript", repr(utterance.text))
    if unknown := text.unknown_characters(spelled):
        return Refused(utterance, "unknown characters", f"{' '.join(unknown)} in {spelled!r}", unknown=unknown)
    if not utterance.audio:
        return Refused(utterance, "missing", "the corpus names no audio file")
    return spelled


def _decoded(utterance: Utterance, spelled: str, settings: PrepareSettings) -> Row | Refused:
    """The utterance with its samples, or why it can't be used."""
    try:
        clip = audio.load(utterance.audio, max_s=settings.max_s)
    except audio.AudioRefused as refused:
        return Refused(utterance, refused.reason, refused.detail)
    duration_s = len(clip.samples) / SAMPLE_RATE
    if duration_s < settings.min_s:
        return Refused(utterance, "too short", f"{duration_s:.2f} s", duration_s)
    labels = text.encode(spelled)
    # CTC needs a blank between two equal letters, hence a frame for each of those too.
    needed = len(labels) + sum(a == b for a, b in pairwise(labels))
    if audio.frames(len(clip.samples)) < needed:
        detail = f"{len(labels)} letters need {needed} frames, {duration_s:.2f} s has {audio.frames(len(clip.samples))}"
        return Refused(utterance, "transcript too long for its audio", detail, duration_s)
    samples = np.rint(clip.samples * FULL_SCALE).clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    return Row(utterance, spelled, samples, clip.source_rate)


def _guarded(step: Callable[..., T], utterance: Utterance, *rest: object) -> T | Refused:
    """Take a step for one utterance; whatever it raises is a refusal of that one."""
    try:
        return step(utterance, *rest)
    except Exception as error:
        return Refused(utterance, "failed", f"{type(error).__name__}: {error}")


def _json(found: Mapping[str, Any]) -> str:
    return json.dumps(found, indent=2, ensure_ascii=False, default=str) + "\n"


def _save(file: Path, content: str) -> None:
    # A file's name may carry bytes that are no characters.
    file.write_text(content, encoding="utf-8", errors="backslashreplace")
