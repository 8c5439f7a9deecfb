"""Saving and resuming a trial: folders that are complete or absent, and hold only what has changed.

A trial's folder holds one folder per kept checkpoint, `step-000120`. Two are kept: the newest, to go on from, and the
best so far, to export. Weights that no update has touched are not saved again but named, with their base checkpoint and
a digest: `load` takes them from there. Nothing else needs saving: batches, masks and dropout are all functions of the
seed and the step.

    weights.safetensors    what differs from the base checkpoint
    config.json and the processor's files
    training.pt            the optimizer's state; only in the newest
    base.json              the base checkpoint and which of its weights are used as they are
    progress.json          the report of this step; written last
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC, Wav2Vec2Processor

from hausa_asr.errors import UserError
from hausa_asr.model.wav2vec2 import base_path, is_new, quiet
from hausa_asr.recipe import CHECKPOINT, STEP_PREFIX, TRAINING, step_folder
from hausa_asr.training.optimizer import Optimizer

WEIGHTS = "weights.safetensors"
_PROGRESS, _TRAINING, _BASE = "progress.json", TRAINING, CHECKPOINT


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk: its folder, its step (updates done) and its `progress.json`."""

    folder: Path
    step: int
    progress: dict[str, Any]

    def training_state(self) -> dict[str, Any]:
        """The optimizer's state, on the CPU; only the newest checkpoint has one."""
        return torch.load(self.folder / _TRAINING, map_location="cpu", weights_only=True)


class Saving:
    """A checkpoint that is being written, in a thread of its own while the model is evaluated.

    The model and its optimizer must not change until `finish`.

    Args:
        trial: the trial's folder.
        step: updates done.
        model, processor, optimizer: what to save.
        base: the base checkpoint that the trial started from.
    """

    def __init__(
        self,
        trial: Path,
        step: int,
        model: Wav2Vec2ForCTC,
        processor: Wav2Vec2Processor,
        optimizer: Optimizer,
        base: str,
    ) -> None:
        self._trial, self._step = trial, step
        self._target = step_folder(trial, step)
        self._partial = trial / f".{self._target.name}.partial"
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(model, processor, optimizer, base), name="checkpoint")
        self._thread.start()

    def _run(self, model: Wav2Vec2ForCTC, processor: Wav2Vec2Processor, optimizer: Optimizer, base: str) -> None:
        device = next(model.parameters()).device
        try:
            # A stream of its own, or the copies would wait for the evaluation, and it for them.
            with torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext():
                self._write(model, processor, optimizer, base)
        except BaseException as fault:  # raised where it is waited for
            self._fault = fault

    def _write(self, model: Wav2Vec2ForCTC, processor: Wav2Vec2Processor, optimizer: Optimizer, base: str) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        touched = optimizer.touched()
        changed: dict[str, torch.Tensor] = {}
        frozen: dict[str, torch.Tensor] = {}
        for name, weight in model.state_dict(keep_vars=True).items():
            kept = changed if is_new(name) or id(weight) in touched else frozen
            kept[name] = weight.detach()
        save_file({name: weight.cpu().contiguous() for name, weight in changed.items()}, self._partial / WEIGHTS)
        torch.save(optimizer.state_dict(), self._partial / _TRAINING)
        about = {"base": base, "digest": _digest(frozen), "frozen": sorted(frozen)}
        (self._partial / _BASE).write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")
        with quiet():
            model.config.save_pretrained(self._partial)
            processor.save_pretrained(self._partial)
        for file in self._partial.iterdir():
            _fsync(file)

    def finish(self, progress: dict[str, Any], best_step: int) -> Path:
        """Wait for the writing and make the checkpoint appear; then drop those that are neither newest nor best.

        Args:
            progress: what `progress.json` shall hold.
            best_step: the step of the best checkpoint so far, perhaps this one.

        Returns:
            The checkpoint's folder.
        """
        self._thread.join()
        if self._fault is not None:
            raise self._fault
        report = self._partial / _PROGRESS
        report.write_text(json.dumps(progress, ensure_ascii=False, indent=1), encoding="utf-8")
        _fsync(report)
        _fsync(self._partial)
        shutil.rmtree(self._target, ignore_errors=True)  # a resumed trial may come to the same step again
        os.replace(self._partial, self._target)
        _fsync(self._trial)
        for old in all_checkpoints(self._trial):
            if old.step == self._step:
                continue
            if old.step == best_step:
                (old.folder / _TRAINING).unlink(missing_ok=True)
            else:
                shutil.rmtree(old.folder, ignore_errors=True)
        return self._target

    def abandon(self) -> None:
        """Wait for the writing and leave no checkpoint."""
        self._thread.join()
        shutil.rmtree(self._partial, ignore_errors=True)


def load(folder: str | Path, base: str | None = None) -> tuple[Wav2Vec2ForCTC, Wav2Vec2Processor]:
    """The model of a checkpoint (`eval` mode) and its processor.

    Args:
        folder: the checkpoint's folder.
        base: where its base checkpoint is now; by default where it was.

    Raises:
        UserError: the checkpoint is damaged, or its base checkpoint is gone or another.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / _BASE).read_text(encoding="utf-8"))
        changed = load_file(folder / WEIGHTS)
        config = Wav2Vec2Config.from_json_file(folder / "config.json")
        processor = Wav2Vec2Processor.from_pretrained(folder)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise UserError(
            f"The checkpoint is not complete: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            where=folder,
            fix="Give a checkpoint's folder (step-000120) with all of its files.",
        ) from error
    base = base or str(about["base"])
    try:
        with quiet():
            model = Wav2Vec2ForCTC.from_pretrained(
                base_path(base), config=config, dtype=torch.float32, ignore_mismatched_sizes=True
            )
    except (OSError, ValueError) as error:
        raise UserError(
            f"The checkpoint holds only what has changed, and its base checkpoint {base} cannot be loaded.",
            where=folder,
            fix="Put the base checkpoint back to where it was, or make it known to the hub's cache.",
        ) from error
    loaded: Any = model.load_state_dict(changed, strict=False)
    state = model.state_dict()
    frozen = {name: state[name] for name in about["frozen"] if name in state}
    if set(loaded.missing_keys) != set(about["frozen"]) or _digest(frozen) != about["digest"]:
        raise UserError(
            f"The base checkpoint {base} is not the one that this checkpoint was trained from.",
            where=folder,
            fix="Use the base checkpoint of then: the weights that were frozen are taken from it.",
        )
    return model.eval(), processor


def _digest(weights: dict[str, torch.Tensor]) -> str:
    """A name for weights by their values; the order of their names does not matter."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


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
