"""A prepared dataset on disk, written once and read by every trial: memory-mapped, and never decoded again.

Written by `prepare`; read by the fine-tune, the evaluation and the sweeps, in as many processes as there are workers,
which share one copy of it through the page cache.

    train.arrow, dev.arrow, test.arrow    one row an utterance, samples as 16-bit integers
    report.json                           what was kept and what was not
    refused.jsonl                         each refused utterance and why
    prepared.json                         settings, origin and fingerprint; written last
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, List, Value
from datasets.arrow_writer import ArrowWriter

from hausa_asr.errors import UserError
from hausa_asr.manifest import SAMPLE_RATE, SPLITS, Example, Utterance
from hausa_asr.text import encode

FORMAT = 1
"""Of the folder; raised when an older reader could not read a newer one."""
FEATURES = Features(
    {
        "id": Value("string"),
        "samples": List(Value("int16")),
        "n_samples": Value("int64"),
        "text": Value("string"),
        "text_raw": Value("string"),
        "speaker": Value("string"),
        "duration_s": Value("float64"),
        "corpus": Value("string"),
    }
)
FULL_SCALE = 32_768
"""Samples are stored as integers of this scale, which keeps 16-bit recordings at 16 kHz as they were, bit for bit."""


class _Chunk(NamedTuple):
    """One record batch: views into the mapped file."""

    samples: np.ndarray  # (sum of S,) int16
    offsets: np.ndarray  # (rows + 1,) into samples
    ids: pa.Array
    texts: pa.Array
    speakers: pa.Array


class PreparedSplit:
    """N examples of one split, a `manifest.Split`; pickled as its path, so that every process maps the file itself.

    Attributes:
        path: the Arrow file.
        n_samples: (N,) int64 lengths in samples at 16 kHz.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        # `datasets` maps the file and checks that it is one of its own; indexing a Dataset would copy to Python lists.
        table = Dataset.from_file(str(self.path)).data.table
        self.n_samples: np.ndarray = table["n_samples"].to_numpy().astype(np.int64, copy=False)
        self._chunks: list[_Chunk] = []
        self._starts: list[int] = []
        start = 0
        for batch in table.to_batches():
            lists = batch.column("samples")
            self._chunks.append(
                _Chunk(
                    samples=lists.values.to_numpy(zero_copy_only=True),
                    offsets=lists.offsets.to_numpy(zero_copy_only=True),
                    ids=batch.column("id"),
                    texts=batch.column("text"),
                    speakers=batch.column("speaker"),
                )
            )
            self._starts.append(start)
            start += len(batch)

    def __len__(self) -> int:
        return len(self.n_samples)

    def __getitem__(self, index: int) -> Example:
        """The example at `index`; its samples are a float32 copy of the mapped integers."""
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"no example {index} among {len(self)}")
        which = bisect_right(self._starts, index) - 1
        chunk, row = self._chunks[which], int(index) - self._starts[which]
        samples = chunk.samples[chunk.offsets[row] : chunk.offsets[row + 1]]
        text = chunk.texts[row].as_py()
        return Example(
            id=chunk.ids[row].as_py(),
            samples=np.multiply(samples, np.float32(1 / FULL_SCALE), dtype=np.float32),
            labels=np.array(encode(text), dtype=np.int64),
            text=text,
            speaker=chunk.speakers[row].as_py(),
        )

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
        report: what `report.json` says.
        fingerprint: of the utterances, their files, the settings and the code that prepared them.
        reused: `prepare` found it done already.
    """

    path: Path
    splits: dict[str, PreparedSplit]
    report: dict[str, Any]
    fingerprint: str
    reused: bool = False


@dataclass(frozen=True)
class Row:
    """An utterance that can be trained on, to be written.

    Attributes:
        utterance: as the corpus has it.
        text: its normalised transcript.
        samples: (S,) int16 at 16 kHz.
        source_rate: samples per second before resampling.
    """

    utterance: Utterance
    text: str
    samples: np.ndarray
    source_rate: int


class Writer:
    """The Arrow files of a preparation, each opened when its first row comes.

    Attributes:
        counts: the utterances written to each split.
    """

    def __init__(self, folder: Path) -> None:
        self.counts: dict[str, int] = {}
        self._folder = folder
        self._writers: dict[str, ArrowWriter] = {}
        self._open = ExitStack()

    def __enter__(self) -> Writer:
        for left in self._folder.glob("*.arrow"):  # of an earlier cut
            left.unlink()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self._open:
            if kind is None:
                for writer in self._writers.values():
                    writer.finalize()

    def write(self, split: str, rows: Sequence[Row]) -> None:
        """Add rows to a split as one record batch, copying no sample but into the file."""
        if split not in self._writers:
            # A stream, since `datasets` takes a path with :: or * in it for more than a path.
            stream = self._open.enter_context(pa.OSFile(str(self._folder / f"{split}.arrow"), "wb"))
            self._writers[split] = ArrowWriter(stream=stream, features=FEATURES)
        lengths = [len(row.samples) for row in rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        columns = {
            "id": pa.array([_storable(row.utterance.id) for row in rows], pa.string()),
            "samples": pa.ListArray.from_arrays(
                pa.array(offsets), pa.array(np.concatenate([row.samples for row in rows]))
            ),
            "n_samples": pa.array(lengths, pa.int64()),
            "text": pa.array([row.text for row in rows], pa.string()),
            "text_raw": pa.array([_storable(row.utterance.text) for row in rows], pa.string()),
            "speaker": pa.array([_storable(row.utterance.speaker) for row in rows], pa.string()),
            "duration_s": pa.array([length / SAMPLE_RATE for length in lengths], pa.float64()),
            "corpus": pa.array([_storable(row.utterance.corpus) for row in rows], pa.string()),
        }
        self._writers[split].write_table(pa.table(columns).cast(FEATURES.arrow_schema))
        self.counts[split] = self.counts.get(split, 0) + len(rows)


def _storable(found: object) -> str:
    """Text that Arrow can hold: file names may carry bytes that are no characters."""
    return str(found or "").encode("utf-8", "backslashreplace").decode()


def load_prepared(path: str | Path) -> Prepared:
    """Open a prepared dataset.

    Raises:
        UserError: the folder is not one, or part of it is missing.
    """
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        raise UserError("there is no such prepared dataset", where=folder, fix="make it with `hausa-asr prepare`")
    about = _read_json(folder / "prepared.json")
    if about.get("format") != FORMAT:
        raise UserError(
            f"the prepared dataset is of format {about.get('format')}; this version reads {FORMAT}",
            where=folder,
            fix="prepare it again",
        )
    splits = {}
    for name in SPLITS:
        if name not in about["splits"]:
            continue
        file = folder / f"{name}.arrow"
        # The size is compared first: mapping a file that a copy cut short would end in a crash at some later example.
        if not file.is_file() or file.stat().st_size != about["splits"][name]["bytes"]:
            raise UserError("the file is missing or cut short", where=file, fix="copy it again, or prepare it again")
        splits[name] = PreparedSplit(file)
    return Prepared(folder, splits, _read_json(folder / "report.json"), about["fingerprint"])


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise UserError(
            f"this is not a prepared dataset, or not all of it: {file.name} is missing or damaged",
            where=file.parent,
            fix="make it with `hausa-asr prepare`, or copy all of its files",
        )
    return found
