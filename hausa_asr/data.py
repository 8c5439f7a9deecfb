"""The data of the settings as a prepared dataset: the corpus they name, prepared on first use and found again after.

Called by `hausa-asr prepare`, by `hausa-asr finetune` and by the start of a sweep, which thus share one copy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hausa_asr.config import DataSettings
from hausa_asr.manifest import Utterance

if TYPE_CHECKING:
    from hausa_asr.prepare import Prepared

CACHE = "_data"
"""Below the storage; no sweep can be called so."""

_COLUMNS = ("audio_column", "text_column", "split_column", "speaker_column", "duration_column")
_CORPUS_SETTINGS = {"demo": ("seed",), "folder": ("path", "manifest", *_COLUMNS)}


def prepared_dataset(
    data: DataSettings, cache: Path, *, out: Path | None = None, console: Console | None = None
) -> Prepared:
    """Open the dataset that the settings name, after preparing it where that has not been done.

    Args:
        data: which corpus, or which prepared dataset.
        cache: where corpora are prepared: in `<cache>/<corpus>-<hash of the settings>`.
        out: prepare it there instead.
        console: shows a progress bar, or one line where it is no terminal; None for silence.

    Raises:
        UserError: the corpus or the prepared dataset can't be used.
    """
    # It takes a second to import, which nobody waits for who only wants to read the help.
    from hausa_asr.prepare import PrepareSettings, load_prepared, prepare

    if data.prepared:
        return load_prepared(data.prepared)
    origin = _origin(data)
    utterances = list(_utterances(data, cache))
    out = out or cache / f"{data.corpus}-{_short_hash(data, origin)}"
    settings = PrepareSettings(min_s=data.min_s, max_s=data.max_s, seed=data.seed)
    with _bar(console, f"preparing {len(utterances)} utterances", len(utterances)) as progress:
        return prepare(utterances, out, settings, progress=progress, origin=origin)


def _utterances(data: DataSettings, cache: Path) -> Iterator[Utterance]:
    from hausa_asr.corpora import demo, folder

    if data.corpus == "demo":
        return demo.utterances(cache / "speech", data.seed)
    assert data.path is not None  # the settings are checked for it
    columns = {name: getattr(data, name) for name in _COLUMNS}
    return folder.utterances(Path(data.path), Path(data.manifest) if data.manifest else None, **columns)


def _origin(data: DataSettings) -> dict[str, Any]:
    """Where the utterances come from: the corpus and those settings that it heeds, paths absolute."""
    origin: dict[str, Any] = {"corpus": data.corpus}
    for name in _CORPUS_SETTINGS[data.corpus]:
        value = getattr(data, name)
        if value is not None:
            origin[name] = str(Path(value).expanduser().absolute()) if name == "path" else value
    return origin


def _short_hash(data: DataSettings, origin: Mapping[str, Any]) -> str:
    kept = {**origin, "min_s": data.min_s, "max_s": data.max_s, "seed": data.seed}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


@contextmanager
def _bar(console: Console | None, title: str, total: int) -> Iterator[Any]:
    """A progress bar as the callable that `prepare` tells."""
    if console is None:
        yield None
        return
    if not console.is_terminal:
        told: list[str] = []

        def tell_once(done: int, share: float) -> None:
            if not told:
                console.print(title, highlight=False)
                told.append(title)

        yield tell_once
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done, share: progress.update(task, completed=done)
