"""Saving and resuming a trial: folders that are complete or absent.

A trial's folder holds one folder per kept checkpoint, `step-000120`. Each is a Hugging Face model folder with a
`progress.json` beside the weights; the newest also has `training.pt`, the state of the optimizer. Two are kept: the
newest, to go on from, and the best so far, to export. Nothing else needs saving: batches, masks and dropout are all
functions of the seed and the step.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

from hausa_asr.model import quiet
from hausa_asr.recipe import STEP_PREFIX, step_folder

_PROGRESS = "progress.json"
_TRAINING = "training.pt"


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk: its folder, its step (updates done) and its `progress.json`."""

    folder: Path
    step: int
    progress: dict[str, Any]

    def training_state(self) -> dict[str, Any]:
        """The optimizer's state, on the CPU; only the newest checkpoint has one."""
        return torch.load(self.folder / _TRAINING, map_location="cpu", weights_only=True)


def save(
    trial: Path,
    step: int,
    model: Wav2Vec2ForCTC,
    processor: Wav2Vec2Processor,
    optimizer: torch.optim.Optimizer,
    progress: dict[str, Any],
    best_step: int,
) -> Path:
    """Write the checkpoint of a step, then drop those that are neither the newest nor the best.

    Args:
        trial: the trial's folder.
        step: updates done.
        model, processor, optimizer: what to save.
        progress: what `progress.json` shall hold.
        best_step: the step of the best checkpoint so far, perhaps this one.

    Returns:
        The checkpoint's folder.
    """
    target = step_folder(trial, step)
    partial = trial / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with quiet():
        model.save_pretrained(partial)
    processor.save_pretrained(partial)
    torch.save(optimizer.state_dict(), partial / _TRAINING)
    (partial / _PROGRESS).write_text(json.dumps(progress, ensure_ascii=False, indent=1), encoding="utf-8")
    for file in partial.iterdir():
        _fsync(file)
    shutil.rmtree(target, ignore_errors=True)  # a resumed trial may come to the same step again
    os.replace(partial, target)
    _fsync(trial)
    for old in all_checkpoints(trial):
        if old.step == step:
            continue
        if old.step == best_step:
            (old.folder / _TRAINING).unlink(missing_ok=True)
        else:
            shutil.rmtree(old.folder, ignore_errors=True)
    return target


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def all_checkpoints(trial: Path) -> list[Checkpoint]:
    """The complete checkpoints of a trial, oldest first; empty when it has none."""
    found = []
    for folder in sorted(trial.glob(f"{STEP_PREFIX}*")) if trial.is_dir() else []:
        progress = folder / _PROGRESS
        if progress.is_file():
            step = int(folder.name.removeprefix(STEP_PREFIX))
            found.append(Checkpoint(folder, step, json.loads(progress.read_text(encoding="utf-8"))))
    return found


def latest(trial: Path) -> Checkpoint | None:
    """The newest checkpoint that training can go on from."""
    found = [one for one in all_checkpoints(trial) if (one.folder / _TRAINING).is_file()]
    return found[-1] if found else None


def best(trial: Path) -> Checkpoint | None:
    """The checkpoint with the best dev WER so far, as the newest one names it."""
    found = all_checkpoints(trial)
    if not found:
        return None
    step = found[-1].progress["best"]["step"]
    return next((one for one in found if one.step == step), None)
