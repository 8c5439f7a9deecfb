"""Save and load a trial's checkpoints: folders that are complete or absent, and hold only the weights that changed.

A trial's folder holds one folder per kept checkpoint, such as `step-000120`: the newest to resume from, which has the
optimizer's state, and the best so far, to export. The state is twice as large as the weights, so it is written only
where a trial may have to go on (`Schedule`). Weights that no update has changed are only named, with their base
checkpoint and a digest, and `load` reads them from the base. Nothing else needs saving, since batches, masks and
dropout follow from the seed and the step. Called by the fine-tune, the export and the sweeps.

    weights.safetensors    the weights that differ from the base checkpoint
    config.json and the processor's files
    training.pt            the optimizer's state; in the newest checkpoint to resume from only
    base.json              the base checkpoint and the names of the weights taken from it
    progress.json          the report of this step; written last
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC, Wav2Vec2Processor

from hausa_asr.errors import UserError, first_line
from hausa_asr.model.base_check import base_path
from hausa_asr.model.wav2vec2 import is_new, quiet
from hausa_asr.recipe import CHECKPOINT, STEP_PREFIX, TRAINING, step_folder
from hausa_asr.training.optimizer import Optimizer

WEIGHTS = "weights.safetensors"
PROGRESS = "progress.json"
_TRAINING, _BASE = TRAINING, CHECKPOINT
_WRITING_SHARE = 0.02
"""Writing optimizer states may take this share of a trial's time."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk: its folder, its step (updates done) and its `progress.json`."""

    folder: Path
    step: int
    progress: dict[str, Any]

    @property
    def is_end(self) -> bool:
        """Whether the trial ended here; then there is no state, since nothing is left to train."""
        return bool(self.progress.get("last"))

    def training_state(self) -> dict[str, Any]:
        """The optimizer's state, on the CPU; only the newest checkpoint to resume from has one."""
        return torch.load(self.folder / _TRAINING, map_location="cpu", weights_only=True)


class Schedule:
    """When a checkpoint gets the optimizer's state: so often that a crash costs little, so rarely that writing does.

    Args:
        every_s: seconds after which it is due, at the latest; 0 for every checkpoint.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._at_s, self._took_s = -math.inf, 0.0

    def due(self) -> bool:
        """Whether so long has passed that writing takes little of a trial's time."""
        wait_s = min(self._every_s, self._took_s / _WRITING_SHARE)
        return time.monotonic() - self._at_s >= wait_s

    def written(self, took_s: float) -> None:
        """Note that a state was written, and how long it took."""
        self._at_s, self._took_s = time.monotonic(), took_s


class Saving:
    """Write a checkpoint in a thread, while the model is evaluated.

    The model and its optimizer must not change until `finish` or `abandon`.

    Args:
        trial: the trial's folder.
        step: updates done.
        model, processor, optimizer: what to save.
        base: the base checkpoint that the trial started from.
        state: write the optimizer's state too, so that training can resume from here.
        digests: those of frozen weights, by their names, as far as they are known; more are added.

    Attributes:
        took_s: seconds that the thread wrote.
    """

    def __init__(
        self,
        trial: Path,
        step: int,
        model: Wav2Vec2ForCTC,
        processor: Wav2Vec2Processor,
        optimizer: Optimizer,
        base: str,
        *,
        state: bool = True,
        digests: Digests | None = None,
    ) -> None:
        self._trial, self._step = trial, step
        self.state, self.took_s = state, 0.0
        self._digests = {} if digests is None else digests
        self._target = step_folder(trial, step)
        self._partial = trial / f".{self._target.name}.partial"
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(model, processor, optimizer, base), name="checkpoint")
        self._thread.start()

    def _run(self, model: Wav2Vec2ForCTC, processor: Wav2Vec2Processor, optimizer: Optimizer, base: str) -> None:
        device = next(model.parameters()).device
        try:
            # On a stream of its own: on the common one, the copies and the evaluation would wait for each other.
            with torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext():
                began_s = time.monotonic()
                self._write(model, processor, optimizer, base)
                self.took_s = time.monotonic() - began_s
        except BaseException as fault:  # raised again by `finish`
            self._fault = fault

    def _write(self, model: Wav2Vec2ForCTC, processor: Wav2Vec2Processor, optimizer: Optimizer, base: str) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        touched = optimizer.touched()
        weights = model.state_dict(keep_vars=True)
        frozen = {name for name, weight in weights.items() if not is_new(name) and id(weight) not in touched}
        write_model(self._partial, model, processor, base, frozen, self._digests)
        if self.state:
            torch.save(optimizer.state_dict(), self._partial / _TRAINING)
            for file in self._partial.iterdir():
                _fsync(file)  # here, since the evaluation goes on meanwhile

    def finish(self, progress: dict[str, Any], best_step: int) -> Path:
        """Complete the checkpoint, then remove those that nothing needs any more.

        What a resumed trial would need stays: the newest checkpoint to resume from, and the one that is the best in its
        report. So do those of later steps, which a trial that has resumed comes to again.

        Args:
            progress: the content of `progress.json`.
            best_step: the step of the best checkpoint so far, perhaps this one.

        Returns:
            The checkpoint's folder.
        """
        self._thread.join()
        if self._fault is not None:
            raise self._fault
        if not self.state:
            for file in self._partial.iterdir():
                _fsync(file)
        report = self._partial / PROGRESS
        report.write_text(json.dumps(progress, ensure_ascii=False, indent=1), encoding="utf-8")
        _fsync(report)
        _fsync(self._partial)
        shutil.rmtree(self._target, ignore_errors=True)  # a resumed trial may reach the same step again
        os.replace(self._partial, self._target)
        _fsync(self._trial)
        resumable = latest(self._trial, until=self._step)
        needed = {self._step, best_step}
        if resumable is not None:
            needed |= {resumable.step, int(resumable.progress["best"]["step"])}
        for old in all_checkpoints(self._trial):
            if old.step > self._step:
                continue
            if old.step not in needed:
                shutil.rmtree(old.folder, ignore_errors=True)
            elif resumable is not None and old.step != resumable.step:
                (old.folder / _TRAINING).unlink(missing_ok=True)
        return self._target

    def abandon(self) -> None:
        """Wait for the thread and remove what it wrote."""
        self._thread.join()
        shutil.rmtree(self._partial, ignore_errors=True)


Digests = dict[frozenset[str], str]
"""Digests of frozen weights by their names: they do not change, and those of a whole encoder take a second."""


def write_model(
    folder: Path,
    model: Wav2Vec2ForCTC,
    processor: Wav2Vec2Processor,
    base: str,
    frozen: Collection[str],
    digests: Digests | None = None,
) -> None:
    """Fill a folder with what `load` reads: the weights that differ from the base, and which ones do not.

    Args:
        folder: an empty folder.
        model, processor: what to write.
        base: the base checkpoint.
        frozen: the names of the weights that are the base's own.
        digests: those that are known; this one is added.
    """
    known, names = {} if digests is None else digests, frozenset(frozen)
    weights = {name: weight.detach() for name, weight in model.state_dict().items()}
    changed = {name: weight.cpu().contiguous() for name, weight in weights.items() if name not in frozen}
    save_file(changed, folder / WEIGHTS)
    if names not in known:
        known[names] = _digest({name: weights[name] for name in frozen})
    about = {"base": base, "digest": known[names], "frozen": sorted(frozen)}
    (folder / _BASE).write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")
    with quiet():
        model.config.save_pretrained(folder)
        processor.save_pretrained(folder)


def load(folder: str | Path, base: str | None = None) -> tuple[Wav2Vec2ForCTC, Wav2Vec2Processor]:
    """Load a checkpoint's model, in `eval` mode, and its processor.

    Args:
        folder: the checkpoint's folder.
        base: its base checkpoint, if it was moved since.

    Raises:
        UserError: the checkpoint is incomplete, or its base checkpoint is gone or has other weights.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / _BASE).read_text(encoding="utf-8"))
        changed = load_file(folder / WEIGHTS)
        config = Wav2Vec2Config.from_json_file(folder / "config.json")
        processor = Wav2Vec2Processor.from_pretrained(folder)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise UserError(
            f"The checkpoint is not complete ({first_line(error).rstrip('.')}).",
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
            f"The checkpoint holds only the weights that changed, and its base checkpoint {base} cannot be loaded.",
            where=folder,
            fix="Put the base checkpoint back where it was, or download it to the hub's cache.",
        ) from error
    loaded: Any = model.load_state_dict(changed, strict=False)
    state = model.state_dict()
    frozen = {name: state[name] for name in about["frozen"] if name in state}
    if set(loaded.missing_keys) != set(about["frozen"]) or _digest(frozen) != about["digest"]:
        raise UserError(
            f"The base checkpoint {base} is not the one that this checkpoint was trained from.",
            where=folder,
            fix="Use the base checkpoint of that time: the frozen weights are taken from it.",
        )
    return model.eval(), processor


def _digest(weights: dict[str, torch.Tensor]) -> str:
    """A digest of named weights; their order does not matter."""
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
    """The complete checkpoints of a trial, oldest first."""
    complete = []
    for folder in sorted(trial.glob(f"{STEP_PREFIX}*")) if trial.is_dir() else []:
        progress = folder / PROGRESS
        if progress.is_file():
            step = int(folder.name.removeprefix(STEP_PREFIX))
            complete.append(Checkpoint(folder, step, json.loads(progress.read_text(encoding="utf-8"))))
    return complete


def latest(trial: Path, until: int | None = None) -> Checkpoint | None:
    """The newest checkpoint that a trial can resume from, the one at its end among them; or None.

    Args:
        trial: the trial's folder.
        until: look only at steps up to here.
    """
    resumable = [
        one
        for one in all_checkpoints(trial)
        if ((one.folder / _TRAINING).is_file() or one.is_end) and (until is None or one.step <= until)
    ]
    return resumable[-1] if resumable else None


def best(trial: Path) -> Checkpoint | None:
    """The checkpoint with the best dev WER so far, which the newest one names; or None."""
    complete = all_checkpoints(trial)
    if not complete:
        return None
    step = complete[-1].progress["best"]["step"]
    return next((one for one in complete if one.step == step), None)
