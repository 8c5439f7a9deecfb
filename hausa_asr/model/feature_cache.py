"""The feature cache: the output of frozen convolutions on a dataset, computed once and read by every trial.

Splits in, the same splits with features out. With the convolutions frozen, their output is the same in every epoch of
every trial. It is written once for each base checkpoint and split of a prepared dataset, as unpadded bfloat16. All
trials of a node and later sweeps map it into memory: 50 frames of C features per second, 184 MB per hour of speech for
XLS-R (C = 512). Each split has its own: with another part of dev, train's stays.

Valid without waveform augmentation only. Called by the fine-tune, once it has its model: a cache's name has a digest of
the weights.

    KEY/train.bf16       (sum of T, C) frames, one utterance after another
    KEY/features.json    what it is of (`feature_files.Kept`), written last
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
from hausa_asr.model.batch import Batch, FittingBatches, collate
from hausa_asr.model.device import is_out_of_memory
from hausa_asr.model.feature_files import DONE, Kept, features_folder, free_at, kept_free
from hausa_asr.model.forward import autocast, encode_audio, frame_lengths
from hausa_asr.utterance import SAMPLE_RATE, Example, Split

log = logging.getLogger("hausa_asr.trial")

FORMAT = 2
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


def _digest(model: Wav2Vec2ForCTC, processor: Wav2Vec2Processor) -> str:
    """A digest of what makes features of samples: the convolutions' weights and settings."""
    digest = hashlib.sha256(f"{FORMAT} {processor.feature_extractor.do_normalize}".encode())
    config = model.config
    digest.update(repr([config.conv_stride, config.conv_kernel, config.feat_extract_activation]).encode())
    for name, weight in sorted(model.wav2vec2.feature_extractor.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def cached(
    splits: Mapping[str, Split],
    fingerprint: str,
    model: Wav2Vec2ForCTC,
    processor: Wav2Vec2Processor,
    folder: Path,
    device: torch.device,
    keep_free: float = 0.0,
    *,
    base: str = "",
    checkpoints: Path | None = None,
) -> dict[str, Split]:
    """Give splits their features, computing them unless they are on disk already.

    One process computes while the others of the node wait. Without a cache (too little disk space, a folder that can't
    be written) a split comes back as it is and the log says why: a trial then is slower, and otherwise the same.

    Args:
        splits: the splits, by name; the number of its examples names a part of a split.
        fingerprint: the data's; other data get another cache.
        model: the model whose convolutions are used, on `device`.
        processor: its processor.
        folder: the folder of all caches, unless `HAUSA_ASR_CACHE` names another.
        device: where to compute.
        keep_free: bytes to leave on the disk for checkpoints, if they are written to the same one; at least
            `SPARE_BYTES` stay free. Caches that nobody has used for a week go first.
        base: the name of the model's base checkpoint, for those who plan.
        checkpoints: where checkpoints are written; by default on the disk of `folder`.
    """
    place = features_folder(folder)
    keep_free = kept_free(place, checkpoints or folder, keep_free)
    digest, given = _digest(model, processor), {}
    for name, split in splits.items():
        whose = hashlib.sha256(f"{fingerprint} {name} {len(split)} {digest}".encode()).hexdigest()
        target = place / f"{fingerprint[:8]}-{name}-{whose[:16]}"
        kept = Kept(base, fingerprint, name, float(np.sum(split.n_samples)) / SAMPLE_RATE)
        given[name] = _with_features(split, kept, model, processor, target, device, keep_free)
    return given


def _with_features(
    split: Split,
    kept: Kept,
    model: Wav2Vec2ForCTC,
    processor: Wav2Vec2Processor,
    target: Path,
    device: torch.device,
    keep_free: float,
) -> Split:
    """Give a split its features; where there can be none, the split as it is."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_name(f"{target.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("waiting for another process to finish the feature cache")
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not (target / DONE).is_file():
                _make(split, kept, model, processor, target, device, keep_free)
        with suppress(OSError):
            os.utime(target / DONE)  # its last use
        return _open(split, target / f"{kept.split}.bf16", model)
    except (OSError, ValueError) as error:
        log.warning("no features of %s are cached, so they are computed every time: %s", kept.split, first_line(error))
        return split


def _frames(split: Split, model: Wav2Vec2ForCTC) -> np.ndarray:
    return frame_lengths(model, torch.from_numpy(np.array(split.n_samples, dtype=np.int64))).numpy()


def _open(split: Split, file: Path, model: Wav2Vec2ForCTC) -> CachedSplit:
    frames, channels = _frames(split, model), int(model.config.conv_dim[-1])
    if file.stat().st_size != int(frames.sum()) * channels * _BYTES:
        raise ValueError(f"{file} does not have the size that the dataset needs; remove its folder")
    return CachedSplit(split, file, frames, channels)


def _make(
    split: Split,
    kept: Kept,
    model: Wav2Vec2ForCTC,
    processor: Wav2Vec2Processor,
    target: Path,
    device: torch.device,
    keep_free: float,
) -> None:
    """Write the features of a split to `target`, which is complete or absent."""
    _remove_leftovers(target)
    channels = int(model.config.conv_dim[-1])
    needed = int(_frames(split, model).sum()) * channels * _BYTES
    _make_room(target.parent, needed + keep_free)
    free = free_at(target.parent)
    if needed + keep_free > free:
        raise OSError(
            f"{target.parent} has {free / 2**30:.1f} GiB free; {needed / 2**30:.1f} GiB are needed, and "
            f"{keep_free / 2**30:.1f} GiB are left for checkpoints and others"
        )
    log.info("computing features of %s for the cache: %.2f GiB in %s", kept.split, needed / 2**30, target)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        progress = _Progress(int(np.sum(split.n_samples)))
        _write(split, partial / f"{kept.split}.bf16", model, processor, device, progress)
        about = {"format": FORMAT, "channels": channels, **kept._asdict()}
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
        if free_at(folder) >= wanted or time.time() - used < _UNUSED_S:
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
    do_normalize, n_samples = processor.feature_extractor.do_normalize, np.asarray(split.n_samples)
    batches = FittingBatches(n_samples, np.arange(len(split)), _BATCH_S, "features are computed")
    for chosen in batches:
        batch = collate([split[int(index)] for index in chosen], do_normalize, lambda n: frame_lengths(model, n))
        bits = _bits(model, batch, device)
        if bits is None:
            batches.halve()
            continue
        for index, row in zip(chosen, bits, strict=True):
            features[ends[index] - frames[index] : ends[index]] = row[: frames[index]]
        progress.add(int(n_samples[chosen].sum()))
    model.train(was_training)
    features.flush()


def _bits(model: Wav2Vec2ForCTC, batch: Batch, device: torch.device) -> np.ndarray | None:
    """The features of a batch, (B, T, C), as bits of bfloat16; None if memory is too little and a smaller may fit."""
    try:
        there = batch.to(device)
        assert there.samples is not None and there.n_samples is not None
        with autocast(device):
            encoded = encode_audio(model, there.samples, there.n_samples, frozen=True)
        return encoded.to(torch.bfloat16).cpu().view(torch.uint16).numpy()
    except RuntimeError as error:
        if not is_out_of_memory(error) or len(batch.frames) == 1:  # a trial needs more: another process is on the card
            raise
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return None
