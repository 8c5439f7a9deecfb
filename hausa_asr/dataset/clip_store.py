"""Keep decoded clips on disk: files of some hundred each, named by what is in them, written once.

`prepared` records which utterances are used, and in which split, so that other settings, transcripts or
splits need no clip decoded again. A clip is known by its place, its stamp (size and time) and the decoder's version.
Written by `decoder`; read by `prepare` and, for the samples, by `prepared`.

    audio/<hash>.arrow    one row a clip: samples as 16-bit integers, or why it was refused, and what is known of it
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from hausa_asr.audio import fingerprint, load
from hausa_asr.audio.container_faults import Fault

FULL_SCALE = 32_768
"""Samples are stored as integers of this scale, which keeps 16-bit recordings at 16 kHz as they were, bit for bit."""
FOLDER = "audio"
SCHEMA = pa.schema(
    {
        "key": pa.binary(16),
        "reason": pa.string(),  # of the refusal; "" if there are samples
        "detail": pa.string(),
        "limit_s": pa.float64(),  # what "too long" was measured by
        "source_rate": pa.int32(),
        "warnings": pa.list_(pa.string()),
        "digest": pa.binary(16),  # of the samples
        "print": pa.list_(pa.uint32()),
        "n_samples": pa.int64(),
        "samples": pa.list_(pa.int16()),
    }
)


@dataclass(frozen=True)
class Decoded:
    """What a decoder made of a clip: its samples, (S,) int16 at 16 kHz, or the reason why there are none."""

    key: bytes
    reason: str = ""
    detail: str = ""
    limit_s: float = 0.0
    source_rate: int = 0
    warnings: tuple[str, ...] = ()
    digest: bytes = bytes(16)
    fingerprint: np.ndarray = field(default_factory=lambda: fingerprint.NOTHING)
    samples: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int16))


def key(place: str, stamp: Sequence[object]) -> bytes:
    """Name a clip by 16 bytes of its place, its stamp and the version of the decoder."""
    name = json.dumps([place, list(stamp), load.VERSION, fingerprint.VERSION], default=str)
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def write(folder: Path, clips: Sequence[Decoded]) -> None:
    """Write clips as one file of the folder, whole or not at all."""
    name = hashlib.blake2b(b"".join(clip.key for clip in clips), digest_size=12).hexdigest()
    columns = {
        "key": pa.array([clip.key for clip in clips], pa.binary(16)),
        "reason": pa.array([storable(clip.reason) for clip in clips], pa.string()),
        "detail": pa.array([storable(clip.detail) for clip in clips], pa.string()),
        "limit_s": pa.array([clip.limit_s for clip in clips], pa.float64()),
        "source_rate": pa.array([clip.source_rate for clip in clips], pa.int32()),
        "warnings": pa.array([list(clip.warnings) for clip in clips], pa.list_(pa.string())),
        "digest": pa.array([clip.digest for clip in clips], pa.binary(16)),
        "print": _lists([clip.fingerprint for clip in clips]),
        "n_samples": pa.array([len(clip.samples) for clip in clips], pa.int64()),
        "samples": _lists([clip.samples for clip in clips]),
    }
    # Not `written_whole`: Arrow opens the file itself, and two processes may write the same one at once.
    temporary = folder / f"{name}.tmp-{os.getpid()}"
    try:
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
            writer.write_batch(pa.record_batch(list(columns.values()), schema=SCHEMA))
        temporary.rename(folder / f"{name}.arrow")
    finally:
        temporary.unlink(missing_ok=True)


def _lists(rows: Sequence[np.ndarray]) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(rows)))


def storable(text: object) -> str:
    """Make text that Arrow can hold: file names may carry bytes that are no characters."""
    return str(text or "").encode("utf-8", "backslashreplace").decode()


def mapped(file: Path) -> pa.RecordBatch:
    """Map the rows of an Arrow file: in the page cache and not in memory; they outlive the file's removal.

    Raises:
        OSError, pa.ArrowInvalid: there is no such file, or it is damaged.
    """
    with pa.memory_map(str(file)) as opened:  # closed at once: hundreds of open files would be too many for a process
        reader = pa.ipc.open_file(opened)
        if reader.num_record_batches != 1:
            raise pa.ArrowInvalid(f"{file} has {reader.num_record_batches} batches, not 1")
        return reader.get_batch(0)


class Clips:
    """Look up decoded clips, by their number in a list of keys.

    Args:
        folder: of the files.
        keys: N clips; two utterances may share one.
        limit_s: clips that were refused as too long by a lower limit count as not decoded.

    Attributes:
        names: of the files in use.
        shard, row: (N,) int32, the number of the file and the row in it; -1 where the clip is not decoded.
        n_samples: (N,) int64, 0 where it was refused.
        source_rate: (N,) int32, in Hz.
    """

    def __init__(self, folder: Path, keys: Sequence[bytes], limit_s: float) -> None:
        self.names: list[str] = []
        self._batches: list[pa.RecordBatch] = []
        wanted = set(keys)
        places: dict[bytes, tuple[int, int]] = {}
        for file in sorted(folder.glob("*.arrow")):
            try:
                batch = mapped(file)
            except (OSError, pa.ArrowInvalid):  # power was cut before it was on disk
                with suppress(OSError):
                    file.unlink()
                continue
            limits = batch.column("limit_s").to_numpy()
            used = False
            for row, stored in enumerate(batch.column("key").to_pylist()):
                if stored in wanted and stored not in places and not 0 < limits[row] < limit_s:
                    places[stored] = (len(self.names), row)
                    used = True
            if used:
                self.names.append(file.name)
                self._batches.append(batch)
        where = np.array([places.get(wanted_key, (-1, -1)) for wanted_key in keys], np.int32).reshape(-1, 2)
        self.shard, self.row = where[:, 0].copy(), where[:, 1].copy()
        self.n_samples = self._gather("n_samples", np.int64)
        self.source_rate = self._gather("source_rate", np.int32)

    def _gather(self, column: str, kind: type) -> np.ndarray:
        values: np.ndarray = np.zeros(len(self.shard), kind)
        for number, batch in enumerate(self._batches):
            mine = np.flatnonzero(self.shard == number) if len(self._batches) < 8 else self._members(number)
            values[mine] = batch.column(column).to_numpy()[self.row[mine]]
        return values

    def _members(self, number: int) -> np.ndarray:
        """List the clips in a file, without a pass over all clips for each file."""
        if not hasattr(self, "_order"):
            self._order = np.argsort(self.shard, kind="stable")
            self._edges = np.searchsorted(self.shard[self._order], np.arange(len(self._batches) + 1))
        return self._order[self._edges[number] : self._edges[number + 1]]

    def has(self, number: int) -> bool:
        """Whether the clip is decoded, or refused for good."""
        return bool(self.shard[number] >= 0)

    def refusal(self, number: int) -> Fault | None:
        """Why a clip was refused, or None if there are samples."""
        if self.n_samples[number]:
            return None
        return Fault(self._cell(number, "reason"), self._cell(number, "detail"))

    def warnings(self, number: int) -> list[str]:
        """The warnings of a clip that can be used."""
        return self._cell(number, "warnings")

    def digest(self, number: int) -> bytes:
        """16 bytes of the samples: clips that sound alike to the last bit share them."""
        return self._cell(number, "digest")

    def fingerprint(self, number: int) -> np.ndarray:
        """(F,) uint32, of `fingerprint.of`."""
        batch, row = self._batches[self.shard[number]], int(self.row[number])
        lists = batch.column("print")
        offsets = lists.offsets
        return lists.values.to_numpy()[offsets[row].as_py() : offsets[row + 1].as_py()]

    def _cell(self, number: int, column: str):  # type: ignore[no-untyped-def]
        return self._batches[self.shard[number]].column(column)[int(self.row[number])].as_py()


def remove_unused(folder: Path, used: Collection[str]) -> None:
    """Remove the files that hold no clip of the corpus any more, and what a killed decoder left."""
    for file in (*folder.glob("*.arrow"), *folder.glob("*.tmp-*")):
        if file.name not in used:
            with suppress(OSError):  # whoever has it mapped keeps it
                file.unlink()
