"""The files of a checkpoint: written complete or not at all, and removed when nothing needs them any more.

In: a model and its report. Out: folders that `checkpoint` reads. Called by `saving`, and by `soup` for an average.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

from hausa_asr.model.wav2vec2 import is_new
from hausa_asr.quiet import quiet
from hausa_asr.recipe import CHECKPOINT, TRAINING, step_folder
from hausa_asr.training.checkpoint import PROGRESS, UNSCORED, WEIGHTS, all_checkpoints, digest, latest
from hausa_asr.training.optimizer import Optimizer

Digests = dict[frozenset[str], str]
"""Digests of frozen weights by their names: they do not change, and those of a whole encoder take a second."""


def untouched(model: Wav2Vec2ForCTC, optimizer: Optimizer) -> frozenset[str]:
    """The names of the weights that are the base checkpoint's own, since no update has changed them."""
    touched, weights = optimizer.touched(), model.state_dict(keep_vars=True)
    return frozenset(name for name, weight in weights.items() if not is_new(name) and id(weight) not in touched)


def remove_needless(trial: Path, step: int, best_step: int | None) -> None:
    """Remove the checkpoints of a trial that nothing needs any more.

    What a resumed trial would need stays: the newest checkpoint to resume from, and the one that is the best in its
    report. So do those of later steps, which a trial that has resumed comes to again.

    Args:
        trial: the trial's folder.
        step: the newest checkpoint's step.
        best_step: the step of the best checkpoint so far; None before the first score.
    """
    resumable = latest(trial, until=step)
    needed = {step, best_step}
    if resumable is not None:
        needed |= {resumable.step, resumable.progress["best"].get("step")}
    for old in all_checkpoints(trial):
        if old.step > step:
            continue
        if old.step not in needed:
            shutil.rmtree(old.folder, ignore_errors=True)
        elif resumable is not None and old.step != resumable.step:
            (old.folder / TRAINING).unlink(missing_ok=True)


def places(trial: Path, step: int) -> tuple[Path, Path]:
    """A checkpoint's folder, and the one in which it is written."""
    target = step_folder(trial, step)
    return target, trial / f".{target.name}.partial"


def complete(partial: Path, target: Path, progress: dict[str, Any], *, is_scored: bool = True) -> None:
    """Write the report into a checkpoint whose files are on the disk, and put it in its place."""
    _write_report(partial, PROGRESS if is_scored else UNSCORED, progress)
    shutil.rmtree(target, ignore_errors=True)  # a resumed trial may reach the same step again
    os.replace(partial, target)
    fsync(target.parent)


def add_scores(target: Path, progress: dict[str, Any]) -> None:
    """Write the report into a checkpoint that is in its place without scores."""
    _write_report(target, PROGRESS, progress)


def _write_report(folder: Path, name: str, progress: dict[str, Any]) -> None:
    partial = folder / f".{name}"
    partial.write_text(json.dumps(progress, ensure_ascii=False, indent=1), encoding="utf-8")
    fsync(partial)
    os.replace(partial, folder / name)
    fsync(folder)


def write_model(
    folder: Path,
    model: Wav2Vec2ForCTC,
    processor: Wav2Vec2Processor,
    base: str,
    frozen: Collection[str],
    digests: Digests | None = None,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Fill a folder with what `load` reads: the weights that differ from the base, and which ones do not.

    Args:
        folder: an empty folder.
        model, processor: what to write.
        base: the base checkpoint.
        frozen: the names of the weights that are the base's own.
        digests: those that are known; this one is added.
        weights: those that differ, on the CPU; by default the model's.
    """
    names, every = frozenset(frozen), model.state_dict()
    if weights is None:
        weights = {name: one.detach().cpu().contiguous() for name, one in every.items() if name not in names}
    save_file(weights, folder / WEIGHTS)
    about = {"base": base, "digest": digest_of(every, names, digests), "frozen": sorted(names)}
    (folder / CHECKPOINT).write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")
    with quiet():
        model.config.save_pretrained(folder)
        processor.save_pretrained(folder)


def digest_of(weights: dict[str, torch.Tensor], names: frozenset[str], digests: Digests | None) -> str:
    """The digest of some weights, computed where it is not known yet."""
    known = {} if digests is None else digests
    if names not in known:
        known[names] = digest({name: weights[name] for name in names})
    return known[names]


def fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
