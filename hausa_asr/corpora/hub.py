"""Read a dataset of the Hugging Face hub, or the local folder of one (parquet, Arrow, audiofolder).

Called by `dataset.from_settings`. Audio is never decoded here and never copied out: an utterance names its
row in the Arrow file that `datasets` keeps in its cache (`sources.py`). Code from a dataset is never run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hausa_asr.audio import sources
from hausa_asr.corpora.folder import seconds
from hausa_asr.errors import UserError
from hausa_asr.storage.address import is_url
from hausa_asr.utterance import SPLITS, Utterance

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

_log = logging.getLogger(__name__)
_CALLED = {
    "train": ("train", "training"),
    "dev": ("dev", "validation", "valid", "val", "development"),
    "test": ("test", "testing"),
}
"""What datasets call our splits, by default."""

Splits = Mapping[Any, str | Sequence[str]]


def utterances(
    path: str,
    *,
    subset: str | None = None,
    revision: str | None = None,
    splits: Splits | None = None,
    audio_column: str = "audio",
    text_column: str = "text",
    speaker_column: str | None = None,
    duration_column: str | None = None,
    name: str = "hub",
) -> Iterator[Utterance]:
    """List the utterances of a dataset, split by split; all is checked before the first is yielded.

    Args:
        path: a dataset's id on the hub, or a local folder: as `save_to_disk` writes it, or with parquet files, or with
            audio files and a metadata.csv (audiofolder). A single parquet file too.
        subset: which configuration of a dataset that has several.
        revision: a branch, tag or commit on the hub.
        splits: our names to the dataset's, such as {"dev": "validation", "train": ["train", "other"]}; what is not
            named is left out. By default by their usual names. A dataset that has a split "train" and no other does
            not say what is for what, and `prepare` cuts it.
        audio_column: of audio, bytes or paths.
        text_column: the transcript.
        speaker_column: who speaks; by default "speaker", if there is such a column.
        duration_column: seconds; by default "duration_s", if there is such a column.
        name: the corpus's name in reports.

    Raises:
        UserError: it can't be loaded, or lacks a split or column.
    """
    dataset = _loaded(path, subset, revision)
    chosen = _chosen(dataset, splits, path)
    needed = {"audio_column": audio_column, "text_column": text_column}
    needed |= {"speaker_column": speaker_column or "", "duration_column": duration_column or ""}
    _check_columns([dataset[which] for _, which in chosen], needed, path)
    speaker_column = speaker_column or "speaker"
    duration_column = duration_column or "duration_s"

    def each() -> Iterator[Utterance]:
        for split, which in chosen:
            row = 0
            for file, table in _files(dataset[which], path):
                texts = _texts(table, text_column)
                speakers = _texts(table, speaker_column)
                durations = _texts(table, duration_column)
                for index, audio in enumerate(_audio(table, audio_column, file)):
                    yield Utterance(
                        id=f"{which}/{row}",
                        audio=audio,
                        text=texts[index],
                        split=split,
                        speaker=speakers[index].strip(),
                        duration_s=seconds(durations[index]),
                        corpus=name,
                    )
                    row += 1

    return each()


def is_saved(path: str) -> bool:
    """Whether a local folder is a dataset: saved by `save_to_disk`, or with parquet or Arrow files in it."""
    folder = Path(path)
    if not folder.is_dir():
        return False
    return _on_disk(folder) or any(next(folder.rglob(f"*.{kind}"), None) for kind in ("parquet", "arrow"))


def _on_disk(folder: Path) -> bool:
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _loaded(path: str, subset: str | None, revision: str | None) -> dict[str, Dataset]:
    """Load the dataset's splits by their names."""
    import datasets

    local = Path(path).expanduser()
    try:
        if local.is_dir() and _on_disk(local):
            saved: Any = datasets.load_from_disk(str(local), keep_in_memory=False)
            return {"train": saved} if isinstance(saved, datasets.Dataset) else dict(saved)
        if local.is_file():
            kind = local.suffix.lower().removeprefix(".")
            with _as_it_is():
                loaded: Any = datasets.load_dataset(kind, data_files=str(local), keep_in_memory=False)
        else:
            place = str(local) if local.is_dir() else path
            with _as_it_is():
                loaded = datasets.load_dataset(place, subset, revision=revision, keep_in_memory=False)
        return dict(loaded)
    except Exception as error:  # the hub, the network, a reader of each kind of file: all have errors of their own
        first: BaseException = error
        while first.__cause__ is not None:  # the last one only says that there was one
            first = first.__cause__
        reason = " ".join(str(first).split())[:300] or type(first).__name__
        raise UserError(
            f"The dataset can't be loaded: {reason}.",
            where=path,
            fix="Check the path or id, subset and revision; for a gated dataset, log in first: `hf auth login`.",
        ) from error


@contextmanager
def _as_it_is() -> Iterator[None]:
    """Have `datasets` keep audio files as they are.

    By itself it asks for torchcodec (and so for FFmpeg) even when nothing is decoded, as with an audiofolder.
    """
    from datasets import Audio

    def kept(self: Audio, value: Any) -> dict[str, Any]:
        if isinstance(value, bytes | bytearray):
            return {"bytes": bytes(value), "path": None}
        if not isinstance(value, dict):
            return {"bytes": None, "path": str(value)}
        path, content = value.get("path"), value.get("bytes")
        if path is None and content is None:
            raise ValueError("a clip is neither a file nor the bytes of one")
        return {"bytes": None if path and os.path.isfile(path) else content, "path": path}

    encode = Audio.encode_example
    Audio.encode_example = kept  # type: ignore[method-assign]
    try:
        yield
    finally:
        Audio.encode_example = encode  # type: ignore[method-assign]


class _Chosen(NamedTuple):
    """A split that is read: our name of it, None if the dataset does not divide its rows; and the dataset's name."""

    split: str | None
    which: str


def _chosen(dataset: Mapping[str, Dataset], splits: Splits | None, path: str) -> list[_Chosen]:
    """Choose the splits to read."""
    if splits is None:
        if list(dataset) == ["train"]:
            return [_Chosen(None, "train")]
        chosen = [_Chosen(split, which) for split in SPLITS for which in dataset if which.lower() in _CALLED[split]]
    else:
        wanted = [
            (split, which)
            for split in SPLITS
            for which in ([splits[split]] if isinstance(splits.get(split), str) else splits.get(split, ()))
        ]
        chosen = [_Chosen(split, str(which)) for split, which in wanted]
    missing = [which for _, which in chosen if which not in dataset]
    if missing or not chosen:
        what = f"no split '{missing[0]}'" if missing else "no split train, dev or test"
        raise UserError(
            f"The dataset has {what}; it has: {', '.join(dataset)}.",
            where=path,
            fix="Set splits to its names, such as {train: train, dev: validation}.",
        )
    if left := [which for which in dataset if which not in {name for _, name in chosen}]:
        _log.warning("%s: the splits %s are left out", path, ", ".join(left))
    return chosen


def _check_columns(splits: Sequence[Dataset], needed: Mapping[str, str], path: str) -> None:
    """Refuse a dataset without a needed column; `needed` maps settings to columns, "" where any will do."""
    columns = sorted({column for split in splits for column in split.column_names})
    for setting, column in needed.items():
        if column and column not in columns:
            raise UserError(
                f"The dataset has no column '{column}'; it has: {', '.join(columns) or 'none'}.",
                where=path,
                fix=f"Set {setting} to the right one.",
            )


def _files(dataset: Dataset, path: str) -> Iterator[tuple[str, pa.Table]]:
    """Map the Arrow files of a split."""
    files = [str(about["filename"]) for about in dataset.cache_files]
    tables = [sources.table(file) for file in files]
    if dataset._indices is not None or sum(map(len, tables)) != len(dataset):
        raise UserError(
            "The rows of the dataset are not those of its files.",
            where=path,
            fix="Save it with save_to_disk and set path to that folder.",
        )
    return zip(files, tables, strict=True)


def _audio(table: pa.Table, column: str, file: str) -> Iterator[str]:
    """Locate each row's audio: in the row itself if it holds the bytes, else in the file that it names."""
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = table.column(column)
    paths: list[Any] = [None] * len(table)
    if pa.types.is_struct(cells.type):
        names = {field.name for field in cells.type}
        if "path" in names:
            paths = pc.struct_field(cells, "path").to_pylist()
        if "bytes" in names:
            held = pc.is_valid(pc.struct_field(cells, "bytes")).to_pylist()
            paths = [None if has else path for has, path in zip(held, paths, strict=True)]
    elif pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
        paths = cells.to_pylist()
    for row, path in enumerate(paths):
        if path and (os.path.isabs(path) or is_url(path)):
            yield path
        else:
            yield sources.locator(file, column, row)


def _texts(table: pa.Table, column: str) -> list[str]:
    if column not in table.column_names:
        return [""] * len(table)
    return ["" if value is None else str(value) for value in table.column(column).to_pylist()]
