"""The feature cache: the output of frozen convolutions on a dataset, computed once and read by every trial.

Splits in, the same splits with features out. With the convolutions frozen, their output is the same in every epoch of
every trial. It is written once for each base checkpoint and prepared dataset, as unpadded bfloat16 in one file per
split. All trials of a node and later sweeps map it into memory: 50 frames of C features per second, 184 MB per hour of
speech for XLS-R (C = 512).

Valid without waveform augmentation only. Called by the fine-tune, once it has its model: a cache's name is a digest of
the weights.

    KEY/train.bf16, dev.bf16    (sum of T, C) frames, one utterance after another
    KEY/features.json           written last
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

from hausa_asr.errors import first_line
from hausa_asr.model.batch import collate, evaluation_batches
from hausa_asr.model.forward import autocast, encode_audio, frame_lengths
from hausa_asr.recipe import CACHE_VARIABLE
from hausa_asr.utterance import Example, Split

log = logging.getLogger("hausa_asr.trial")

FORMAT = 1
SPARE_BYTES = 2 * 2**30
"""Kept free on the disk, for checkpoints."""
DONE = "features.json"
_ABANDONED_S = 86_400.0
_UNUSED_S = 7 * 86_400.0
_BATCH_S = 120.0
_SAY_EVERY_S = 10.0
_BYTES = 2  # of a bfloat16


class CachedSplit:
    """A split of N examples that have features in place of samples.

    Attributes:
        inner: the split with the samples.
        n_samples: (N,) int64 lengths in samples.
    """

    def __init__(self, inner: Split, file: Path, frames: np.ndarray, channels: int) -> None:
        self.inner = inner
        self.n_samples = inner.n_samples
        self._file, self._frames, self._channels = file, frames, channels
        self._ends = np.cumsum(frames)
        self._features = np.memmap(file, dtype=np.uint16, mode="r", shape=(int(self._ends[-1]), channels))

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Example:
        """The example at `index`; its (T, C) features are a view of the mapped file."""
        describe: Callable[[int], Example] = getattr(self.inner, "without_samples", self.inner.__getitem__)
        end = int(self._ends[index])
        return describe(index)._replace(
            samples=np.zeros(0, dtype=np.float32), features=self._features[end - int(self._frames[index]) : end]
        )

    def __reduce__(self) -> tuple:
        """Pickle the file's name only: a memory map would be pickled with its content."""
        return CachedSplit, (self.inner, self._file, self._frames, self._channels)


def key_of(model: Wav2Vec2ForCTC, processor: Wav2Vec2Processor, fingerprint: str) -> str:
    """The cache's name: a digest of the convolutions' weights and settings, and of the data's fingerprint."""
    digest = hashlib.sha256(f"{FORMAT} {fingerprint} {processor.feature_extractor.do_normalize}".encode())
    config = model.config
    digest.update(repr([config.conv_stride, config.conv_kernel, config.feat_extract_activation]).encode())
    for name, weight in sorted(model.wav2vec2.feature_extractor.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return f"{fingerprint[:8]}-{digest.hexdigest()[:16]}"


def cached(
    splits: Mapping[str, Split],
    fingerprint: str,
    model: Wav2Vec2ForCTC,
    processor: Wav2Vec2Processor,
    folder: Path,
    device: torch.device,
    keep_free: float = 0.0,
) -> dict[str, Split]:
    """Give splits their features, computing them unless they are on disk already.

    One process computes while the others of the node wait. Without a cache (too little disk space, a folder that can't
    be written) the splits come back as they are and the log says why: a trial then is slower, and otherwise the same.

    Args:
        splits: the splits, by name.
        fingerprint: the data's; other data get another cache.
        model: the model whose convolutions are used, on `device`.
        processor: its processor.
        folder: the folder of all caches, unless `HAUSA_ASR_CACHE` names another.
        device: where to compute.
        keep_free: bytes to leave on the disk, at least `SPARE_BYTES`. Caches that nobody has used for a week go first.
    """
    folder = Path(os.environ.get(CACHE_VARIABLE) or folder)
    key = key_of(model, processor, fingerprint)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{key}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("waiting for another process to finish the feature cache")
                fcntl.flock(lock, fcntl.LOCK_EX)
            target = folder / key
            if not (target / DONE).is_file():
                _make(splits, fingerprint, model, processor, target, device, max(keep_free, SPARE_BYTES))
        with suppress(OSError):
            os.utime(target / DONE)  # its last use
        return {name: _open(split, target / f"{name}.bf16", model) for name, split in splits.items()}
    except (OSError, ValueError) as error:
        log.warning("no feature cache, so the convolutions are computed every time: %s", first_line(error))
        return dict(splits)


def _frames(split: Split, model: Wav2Vec2ForCTC) -> np.ndarray:
    return frame_lengths(model, torch.from_numpy(np.array(split.n_samples, dtype=np.int64))).numpy()


def _open(split: Split, file: Path, model: Wav2Vec2ForCTC) -> CachedSplit:
    frames, channels = _frames(split, model), int(model.config.conv_dim[-1])
    if file.stat().st_size != int(frames.sum()) * channels * _BYTES:
        raise ValueError(f"{file} does not have the size that the dataset needs; remove its folder")
    return CachedSplit(split, file, frames, channels)


def _make(
    splits: Mapping[str, Split],
    fingerprint: str,
    model: Wav2Vec2ForCTC,
    processor: Wav2Vec2Processor,
    target: Path,
    device: torch.device,
    keep_free: float,
) -> None:
    """Write the features of all splits to `target`, which is complete or absent."""
    _remove_leftovers(target)
    channels = int(model.config.conv_dim[-1])
    needed = sum(int(_frames(split, model).sum()) for split in splits.values()) * channels * _BYTES
    _make_room(target.parent, needed + keep_free)
    free = shutil.disk_usage(target.parent).free
    if needed + keep_free > free:
        raise OSError(
            f"{target.parent} has {free / 2**30:.1f} GiB free; {needed / 2**30:.1f} GiB are needed, and "
            f"{keep_free / 2**30:.1f} GiB for checkpoints"
        )
    log.info("computing features for the cache: %.2f GiB in %s", needed / 2**30, target)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        progress = _Progress(sum(int(np.sum(split.n_samples)) for split in splits.values()))
        for name, split in splits.items():
            _write(split, partial / f"{name}.bf16", model, processor, device, progress)
        about = {"format": FORMAT, "fingerprint": fingerprint, "channels": channels, "splits": sorted(splits)}
        (partial / DONE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        if (target / DONE).is_file():
            return  # another node was quicker: network file systems may ignore the lock
        partial.chmod(0o755)  # readable by other users
        shutil.rmtree(target, ignore_errors=True)  # it is incomplete
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _make_room(folder: Path, wanted: float) -> None:
    """Free disk space: remove caches that were not used for a week, the oldest first, until `wanted` bytes are free."""
    caches = sorted((done.stat().st_mtime, done.parent) for done in folder.glob(f"*/{DONE}"))
    for used, cache in caches:
        if shutil.disk_usage(folder).free >= wanted or time.time() - used < _UNUSED_S:
            return
        log.info("removing the feature cache %s, which nobody has used for a week", cache)
        shutil.rmtree(cache, ignore_errors=True)


def _remove_leftovers(target: Path) -> None:
    """Remove the unfinished caches of killed processes, which have their full size from the start."""
    for left in target.parent.glob(f".{target.name}.*"):
        with suppress(OSError):
            if time.time() - max(file.stat().st_mtime for file in (left, *left.iterdir())) > _ABANDONED_S:
                shutil.rmtree(left)


class _Progress:
    """Log now and then how much of the cache is made: for hundreds of hours of speech it takes a while.

    Args:
        total: samples in all.
    """

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._began_s = self._said_s = time.monotonic()

    def add(self, samples: int) -> None:
        """Count samples whose features are made; log the share that is done if it is time."""
        self._done += samples
        now_s = time.monotonic()
        if now_s - self._said_s >= _SAY_EVERY_S:
            self._said_s = now_s
            left_s = (now_s - self._began_s) * (self._total / self._done - 1)
            log.info("features for the cache: %.0f %%, about %.0f s left", 100 * self._done / self._total, left_s)


@torch.inference_mode()
def _write(
    split: Split,
    file: Path,
    model: Wav2Vec2ForCTC,
    processor: Wav2Vec2Processor,
    device: torch.device,
    progress: _Progress,
) -> None:
    frames, channels = _frames(split, model), int(model.config.conv_dim[-1])
    ends = np.cumsum(frames)
    with file.open("wb") as handle:
        # Allocated beforehand: a disk that fills up under a mapped file would kill the process.
        os.posix_fallocate(handle.fileno(), 0, int(ends[-1]) * channels * _BYTES)
    features = np.memmap(file, dtype=np.uint16, mode="r+", shape=(int(ends[-1]), channels))
    was_training = model.training
    model.eval()
    do_normalize = processor.feature_extractor.do_normalize
    for indices in evaluation_batches(np.asarray(split.n_samples), _BATCH_S):
        batch = collate([split[index] for index in indices], do_normalize, lambda n: frame_lengths(model, n)).to(device)
        assert batch.samples is not None and batch.n_samples is not None
        with autocast(device):
            encoded = encode_audio(model, batch.samples, batch.n_samples, frozen=True)
        bits = encoded.to(torch.bfloat16).cpu().view(torch.uint16).numpy()
        for index, row in zip(indices, bits, strict=True):
            features[ends[index] - frames[index] : ends[index]] = row[: frames[index]]
        progress.add(int(np.asarray(split.n_samples)[indices].sum()))
    model.train(was_training)
    features.flush()
