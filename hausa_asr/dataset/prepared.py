"""Read and write a prepared dataset: written once, memory-mapped by every trial, never decoded again.

Written by `prepare`; read by the fine-tune, the evaluation and the sweeps, in as many processes as there are workers,
which share one copy of it through the page cache.

    prepared.json                   settings, origin, fingerprint, and which of the folders below counts; written last
    splits/<fingerprint>/           train.arrow, dev.arrow, test.arrow: one row an utterance, and where its samples are
    audio/<hash>.arrow              the samples of some hundred clips each, see `clip_store`
    report.json, report.png         what was kept and what was not
    refused.jsonl                   each refused utterance and why
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hausa_asr.dataset import clip_store
from hausa_asr.dataset.clip_store import FULL_SCALE, Clips, storable
from hausa_asr.dataset.report import Kept
from hausa_asr.errors import UserError
from hausa_asr.storage import objects
from hausa_asr.storage.address import here, is_remote, join
from hausa_asr.storage.fetched import at_hand
from hausa_asr.text import encode
from hausa_asr.utterance import SAMPLE_RATE, SPLITS, Example

FORMAT = 2
"""Of the folder; raised when an older reader could not read a newer one."""
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "shard": pa.int32(),  # the file of its samples, in the list `shards` of the schema's metadata
        "row": pa.int32(),
        "n_samples": pa.int64(),
        "text": pa.string(),
        "text_raw": pa.string(),
        "speaker": pa.string(),
        "duration_s": pa.float64(),
        "corpus": pa.string(),
    }
)


class PreparedSplit:
    """N examples of one split, an `utterance.Split`; pickled as its path, so that every process maps the files itself.

    Attributes:
        path: the Arrow file of the split.
        n_samples: (N,) int64 lengths in samples at 16 kHz.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        table = clip_store.mapped(self.path)
        self.n_samples: np.ndarray = table.column("n_samples").to_numpy()
        self._shard: np.ndarray = table.column("shard").to_numpy()
        self._row: np.ndarray = table.column("row").to_numpy()
        self._ids, self._texts, self._speakers = (table.column(name) for name in ("id", "text", "speaker"))
        self._raw = table.column("text_raw")
        self._samples: list[np.ndarray] = []
        self._offsets: list[np.ndarray] = []
        # All are mapped at once, so that a preparation that replaces this dataset takes nothing from under a reader.
        for name in json.loads(table.schema.metadata[b"shards"]):
            lists = clip_store.mapped(self.path.parents[2] / clip_store.FOLDER / name).column("samples")
            self._samples.append(lists.values.to_numpy(zero_copy_only=True))
            self._offsets.append(lists.offsets.to_numpy(zero_copy_only=True))

    def __len__(self) -> int:
        return len(self.n_samples)

    def __getitem__(self, index: int) -> Example:
        """Read the example at `index`; its samples are a float32 copy of the mapped integers."""
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"no example {index} among {len(self)}")
        index = int(index)
        shard, row = self._shard[index], self._row[index]
        start, end = self._offsets[shard][row : row + 2]
        samples = np.multiply(self._samples[shard][start:end], np.float32(1 / FULL_SCALE), dtype=np.float32)
        return self.without_samples(index)._replace(samples=samples)

    def without_samples(self, index: int) -> Example:
        """Read the example at `index` without opening its clip; for readers of the feature cache."""
        text = self._texts[index].as_py()
        return Example(
            id=self._ids[index].as_py(),
            samples=np.zeros(0, dtype=np.float32),
            labels=np.array(encode(text), dtype=np.int64),
            text=text,
            speaker=self._speakers[index].as_py(),
        )

    def transcripts(self, count: int) -> list[tuple[str, str]]:
        """List the first `count` transcripts, each as the corpus has it and as it is spelled for training."""
        rows = range(min(count, len(self)))
        return [(self._raw[row].as_py(), self._texts[row].as_py()) for row in rows]

    def __iter__(self) -> Iterator[Example]:
        return map(self.__getitem__, range(len(self)))

    def __reduce__(self) -> tuple[type[PreparedSplit], tuple[str]]:
        return PreparedSplit, (str(self.path),)

    def __repr__(self) -> str:
        return f"PreparedSplit({str(self.path)!r}, {len(self)} examples)"


@dataclass(frozen=True)
class Prepared:
    """A prepared dataset.

    Attributes:
        path: its folder, absolute.
        splits: "train", "dev" and, where the corpus has one, "test".
        report: the content of `report.json`.
        fingerprint: its name: made of the utterances, their files, the settings and `prepare.VERSION`.
        reused: it was prepared before, so that `prepare` only opened it.
    """

    path: Path
    splits: dict[str, PreparedSplit]
    report: dict[str, Any]
    fingerprint: str
    reused: bool = False

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds of speech in each split."""
        return {name: float(split.n_samples.sum()) / SAMPLE_RATE for name, split in self.splits.items()}


def write_split(file: Path, kept: Sequence[Kept], numbers: Sequence[int], decoded: Clips) -> None:
    """Write the table of a split.

    Args:
        file: to write.
        kept: the utterances of the split.
        numbers: of each, in `decoded`.
        decoded: the clips.
    """
    used, shard = np.unique(decoded.shard[list(numbers)], return_inverse=True)
    n_samples = decoded.n_samples[list(numbers)]
    columns = {
        "id": [storable(each.utterance.id) for each in kept],
        "shard": shard.astype(np.int32),
        "row": decoded.row[list(numbers)],
        "n_samples": n_samples,
        "text": [each.text for each in kept],
        "text_raw": [storable(each.utterance.text) for each in kept],
        "speaker": [storable(each.utterance.speaker) for each in kept],
        "duration_s": n_samples / SAMPLE_RATE,
        "corpus": [storable(each.utterance.corpus) for each in kept],
    }
    schema = SCHEMA.with_metadata({"shards": json.dumps([decoded.names[number] for number in used])})
    arrays = [pa.array(column, schema.field(name).type) for name, column in columns.items()]
    with pa.OSFile(str(file), "wb") as opened, pa.ipc.new_file(opened, schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))


def load_prepared(path: str | Path) -> Prepared:
    """Open a prepared dataset; what is in a store is fetched, once for all processes of a node.

    Raises:
        UserError: the folder is not one, or part of it is missing.
    """
    folder = _fetched(str(path)) if is_remote(path) else here(path)
    if not folder.is_dir():
        raise UserError("There is no such prepared dataset.", where=folder, fix="Make it with `hausa-asr prepare`.")
    about = _read_json(folder / "prepared.json")
    _refuse_other_format(about, folder)
    # Sizes are compared first: mapping a file that a copy cut short would end in a crash at some later example.
    for name, size in about["files"].items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != size:
            raise _cut_short(file)
    tables = folder / "splits" / about["fingerprint"]
    try:
        splits = {name: PreparedSplit(tables / f"{name}.arrow") for name in SPLITS if name in about["splits"]}
    except (OSError, KeyError, ValueError) as error:  # pa.ArrowInvalid is a ValueError
        raise UserError(
            f"A file is damaged: {error}.", where=folder, fix="Copy it again, or prepare it again."
        ) from None
    return Prepared(folder, splits, _read_json(tables / "report.json"), about["fingerprint"])


def listed(address: str) -> dict[str, int]:
    """Look at a prepared dataset in a store without fetching it: the sizes of its files in bytes, by name.

    Raises:
        UserError: there is none, or a file is missing or cut short.
        StorageAway: the store does not answer.
    """
    try:
        about = json.loads(objects.read(join(address, "prepared.json")))
    except FileNotFoundError:
        raise _none_there(address) from None
    _refuse_other_format(about, address)
    there = objects.listing(address)
    for name, size in about["files"].items():
        if name not in there or there[name].size != size:
            raise _cut_short(join(address, name))
    return dict(about["files"])


def _refuse_other_format(about: dict[str, Any], where: object) -> None:
    if about.get("format") != FORMAT:
        older = isinstance(about.get("format"), int) and about["format"] < FORMAT
        raise UserError(
            f"The prepared dataset is of format {about.get('format')}, {'older' if older else 'other'} than "
            f"{FORMAT}, which this version reads.",
            where=where,
            fix="Prepare it again into the same folder, from the same corpus." if older else "Use the newer version.",
        )


def _cut_short(file: object) -> UserError:
    return UserError("The file is missing or cut short.", where=file, fix="Copy it again, or prepare it again.")


def _none_there(address: str) -> UserError:
    return UserError(
        "There is no such prepared dataset.", where=address, fix="Put the folder of `hausa-asr prepare` there."
    )


def _fetched(address: str) -> Path:
    try:
        return at_hand(address)
    except FileNotFoundError:
        raise _none_there(address) from None


def prepared_if_same(path: str | Path, fingerprint: str | None) -> Prepared | None:
    """Open a prepared dataset; None if it can't be had here, or is another by now.

    Args:
        path: its folder.
        fingerprint: what it was; None if that is not known.
    """
    try:
        prepared = load_prepared(path)
    except UserError:
        return None
    return prepared if fingerprint in (None, prepared.fingerprint) else None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise UserError(
            f"This is not a prepared dataset, or not all of it: {file.name} is missing or damaged.",
            where=file.parent,
            fix="Make it with `hausa-asr prepare`, or copy all of its files.",
        )
    return content


def split_of(prepared: Path, name: str) -> PreparedSplit:
    """Read one split of a prepared dataset.

    Args:
        prepared: its folder.
        name: of the split.

    Raises:
        UserError: there is no such dataset, or it has no utterances in such a split.
    """
    splits = load_prepared(prepared).splits
    if name not in splits or not len(splits[name]):
        has = ", ".join(other for other, one in splits.items() if len(one))
        raise UserError(f"The dataset has no split {name!r}.", where=prepared, fix=f"Choose one of these: {has}.")
    return splits[name]
