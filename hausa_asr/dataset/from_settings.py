"""Open the dataset that the settings name, and prepare it on first use.

In: the settings of the data. Out: a `Prepared`. Called by `hausa-asr prepare`, by `hausa-asr finetune` and by the start
of a sweep, which thus share one copy.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hausa_asr.dataset.progress_bars import preparing_bar, unpacking_bar
from hausa_asr.errors import UserError
from hausa_asr.settings.data import HEEDED, CorpusSettings, DataSettings, JoinedCorpus
from hausa_asr.storage import objects
from hausa_asr.storage.address import join, portable
from hausa_asr.utterance import SPLITS, Utterance

if TYPE_CHECKING:
    from hausa_asr.corpora.archive import UnpackCallback
    from hausa_asr.dataset.prepared import Prepared

_SAME_EVERYWHERE = re.compile(r"[0-9a-f]{32,}")
"""A speaker's name that is a hash, as in Common Voice: the same person in every corpus that has it."""


def prepared_dataset(
    data: DataSettings, cache: Path, *, out: Path | None = None, console: Console | None = None
) -> Prepared:
    """Open the dataset that the settings name, and prepare it first if that has not been done.

    Args:
        data: which corpus, or which prepared dataset.
        cache: where corpora are unpacked and prepared: in `<cache>/<corpus>-<hash of where the speech comes from>`,
            so that what only selects (lengths, overlap, the cut) finds the clips that are decoded already.
        out: prepare it there instead.
        console: shows a progress bar, or one line where it is no terminal; None for silence.

    Raises:
        UserError: a corpus or the prepared dataset can't be used.
    """
    # Imported here: it takes a second, which the help should not.
    from hausa_asr.dataset.prepare import PrepareSettings, load_prepared, prepare

    if data.prepared:
        return load_prepared(data.prepared)
    data = data.absolute()
    origin = _origin(data)
    with unpacking_bar(console) as unpacking:
        utterances = list(_utterances(data, cache, unpacking))
    out = out or _folder(origin, cache)
    settings = PrepareSettings(
        min_s=data.min_s,
        max_s=data.max_s,
        seed=data.seed,
        overlap=data.overlap,
        allow_overlap=tuple(data.allow_overlap),
    )
    with preparing_bar(console, f"preparing {len(utterances)} utterances", len(utterances)) as progress:
        return prepare(utterances, out, settings, progress=progress, origin=origin)


def seconds_and_fingerprint(data: DataSettings, cache: Path) -> tuple[dict[str, float], str]:
    """The seconds of speech in each split of the dataset that the settings name, and its fingerprint.

    Nothing of it is fetched. Both are empty before it is prepared.

    Args:
        data, cache: as for `prepared_dataset`.
    """
    place = data.prepared or portable(folder_of(data, cache))
    try:
        splits = json.loads(objects.read(join(place, "report.json")))["splits"]
        fingerprint = str(json.loads(objects.read(join(place, "prepared.json")))["fingerprint"])
        return {name: 3600.0 * float(one["hours"]) for name, one in splits.items()}, fingerprint
    except (OSError, ValueError, KeyError, TypeError):
        return {}, ""


def folder_of(data: DataSettings, cache: Path) -> Path:
    """Where `prepared_dataset` prepares the dataset that the settings name."""
    return _folder(_origin(data.absolute()), cache)


def _folder(origin: Mapping[str, Any], cache: Path) -> Path:
    return cache / f"{origin['corpus']}-{_short_hash(origin)}"


def _utterances(data: DataSettings, cache: Path, unpacking: UnpackCallback | None) -> Iterator[Utterance]:
    """List the utterances of all corpora, each with its corpus's name; ids are unique among them all."""
    for part in data.corpora:
        taken = 0
        for utterance in _utterances_of(part, data.seed, cache, unpacking):
            split = utterance.split
            if split is None and len(part.use) < len(SPLITS):
                if len(part.use) > 1:
                    raise UserError(
                        f"The corpus '{part.called}' names no splits, so they can't be chosen among.",
                        where=part.path,
                        fix="Use all three of them, or give one: all of the corpus goes there.",
                    )
                split = part.use[0]
            elif split in SPLITS and split not in part.use:
                continue
            if split in (None, "train") and _position(utterance.id) >= part.share:
                continue
            taken += 1
            if data.join:
                utterance = replace(utterance, id=f"{part.called}/{utterance.id}", speaker=_speaker(utterance, part))
            yield replace(utterance, split=split, corpus=part.called)
        if not taken and data.join:
            raise UserError(
                f"The corpus '{part.called}' has no utterances in {' and '.join(part.use)}.",
                where=part.path,
                fix="Raise its share, use other splits, or leave it out.",
            )


def _utterances_of(part: JoinedCorpus, seed: int, cache: Path, unpacking: UnpackCallback | None) -> Iterator[Utterance]:
    """List all utterances of one corpus."""
    from hausa_asr.corpora import common_voice, demo, fleurs, folder, hub

    if part.corpus == "demo":
        return demo.utterances(cache / "speech", seed)
    settings = {name: value for name in HEEDED[part.corpus] if (value := getattr(part, name)) is not None}
    if part.corpus == "folder":
        return folder.utterances(**settings)
    if part.corpus == "hub":
        return hub.utterances(**settings, name=part.called)
    read = common_voice.utterances if part.corpus == "common_voice" else fleurs.utterances
    return read(**settings, cache=cache / "archives", name=part.called, progress=unpacking)


def _position(id: str) -> float:
    """Hash an id to a number in [0, 1), the same on every machine: a larger share holds the smaller."""
    return int.from_bytes(hashlib.sha256(id.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64


def _speaker(utterance: Utterance, part: JoinedCorpus) -> str:
    """Name a speaker so that another corpus has the same name only for the same person."""
    if not utterance.speaker or _SAME_EVERYWHERE.fullmatch(utterance.speaker):
        return utterance.speaker
    return f"{part.called}/{utterance.speaker}"


def _origin(data: DataSettings) -> dict[str, Any]:
    """Record where the utterances come from: the corpora and the settings that each uses, paths absolute."""
    if not data.join:
        return _origin_of(data, data.seed)
    parts = [{**_origin_of(part, data.seed), "share": part.share, "use": part.use} for part in data.join]
    return {"corpus": "joined", "join": parts}


def _origin_of(part: CorpusSettings, seed: int) -> dict[str, Any]:
    settings = {name: getattr(part, name) for name in ("corpus", "name", *HEEDED[part.corpus])}
    if part.corpus == "demo":
        settings["seed"] = seed
    return {name: value for name, value in settings.items() if value is not None and value != []}


def _short_hash(origin: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()[:8]
