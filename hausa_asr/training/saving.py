"""Write a trial's checkpoints: in a thread beside the evaluation, complete or absent, and few of them.

In: a model, its optimizer and its report. Out: folders as `checkpoint` has them, and the removal of those that nothing
needs any more. `Schedule` says when a checkpoint to resume from is due. A model that is the best so far waits in memory
(`Best`) until then, since a better one mostly comes first: at every evaluation a large model would keep the GPU waiting
for the disk, and a sweep would write terabytes. Called by the fine-tune.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
import time
from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

from hausa_asr.model.wav2vec2 import is_new, quiet
from hausa_asr.recipe import CHECKPOINT, TRAINING, step_folder
from hausa_asr.training.checkpoint import PROGRESS, WEIGHTS, all_checkpoints, digest, latest
from hausa_asr.training.optimizer import Optimizer

WEIGHTS_BESIDE_EMA = "weights_beside_ema"
"""In `training.pt`: the weights, where `weights.safetensors` has their moving average."""
_WRITING_SHARE = 0.002
"""Writing optimizer states may take this share of a trial's time."""

Digests = dict[frozenset[str], str]
"""Digests of frozen weights by their names: they do not change, and those of a whole encoder take a second."""


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
        weights: the weights by name, where the model has their average in their place; they go with the state.
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
        weights: dict[str, torch.Tensor] | None = None,
        digests: Digests | None = None,
    ) -> None:
        self._trial, self._step = trial, step
        self.state, self.took_s, self._weights = state, 0.0, weights
        self._digests = {} if digests is None else digests
        self._target, self._partial = _places(trial, step)
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
        write_model(self._partial, model, processor, base, untouched(model, optimizer), self._digests)
        if self.state:
            beside = {WEIGHTS_BESIDE_EMA: self._weights} if self._weights else {}
            torch.save({**optimizer.state_dict(), **beside}, self._partial / TRAINING)
        for file in self._partial.iterdir():
            _fsync(file)  # here, since the evaluation goes on meanwhile

    def finish(self, progress: dict[str, Any], best_step: int) -> Path:
        """Complete the checkpoint, then remove those that nothing needs any more.

        Args:
            progress: the content of `progress.json`.
            best_step: the step of the best checkpoint so far, perhaps this one.

        Returns:
            The checkpoint's folder.
        """
        self._thread.join()
        if self._fault is not None:
            raise self._fault
        _complete(self._partial, self._target, progress)
        remove_needless(self._trial, self._step, best_step)
        return self._target

    def abandon(self) -> None:
        """Wait for the thread and remove what it wrote."""
        self._thread.join()
        shutil.rmtree(self._partial, ignore_errors=True)


class Best:
    """A model that is the best so far, copied to the CPU, to be written later.

    Args:
        trial: the trial's folder.
        model, processor: what to write; they may change afterwards.
        optimizer: which weights it has changed.
        base: the base checkpoint that the trial started from.
        progress: the content of `progress.json`.
        digests: as for `Saving`.

    Attributes:
        step: updates done.
    """

    def __init__(
        self,
        trial: Path,
        model: Wav2Vec2ForCTC,
        processor: Wav2Vec2Processor,
        optimizer: Optimizer,
        base: str,
        progress: dict[str, Any],
        digests: Digests,
    ) -> None:
        self.step = int(progress["step"])
        self._trial, self._model, self._processor, self._base = trial, model, processor, base
        self._progress, self._frozen = progress, untouched(model, optimizer)
        weights = model.state_dict()
        # Now: some of what is frozen may learn before it is written.
        self._digests = {self._frozen: _digest_of(weights, self._frozen, digests)}
        self._weights = {
            name: weight.detach().to("cpu", copy=True) for name, weight in weights.items() if name not in self._frozen
        }

    def write(self) -> None:
        """Write the checkpoint; those that nothing needs any more stay."""
        target, partial = _places(self._trial, self.step)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_model(
            partial, self._model, self._processor, self._base, self._frozen, self._digests, weights=self._weights
        )
        for file in partial.iterdir():
            _fsync(file)
        _complete(partial, target, self._progress)


def untouched(model: Wav2Vec2ForCTC, optimizer: Optimizer) -> frozenset[str]:
    """The names of the weights that are the base checkpoint's own, since no update has changed them."""
    touched, weights = optimizer.touched(), model.state_dict(keep_vars=True)
    return frozenset(name for name, weight in weights.items() if not is_new(name) and id(weight) not in touched)


def remove_needless(trial: Path, step: int, best_step: int) -> None:
    """Remove the checkpoints of a trial that nothing needs any more.

    What a resumed trial would need stays: the newest checkpoint to resume from, and the one that is the best in its
    report. So do those of later steps, which a trial that has resumed comes to again.

    Args:
        trial: the trial's folder.
        step: the newest checkpoint's step.
        best_step: the step of the best checkpoint so far.
    """
    resumable = latest(trial, until=step)
    needed = {step, best_step}
    if resumable is not None:
        needed |= {resumable.step, int(resumable.progress["best"]["step"])}
    for old in all_checkpoints(trial):
        if old.step > step:
            continue
        if old.step not in needed:
            shutil.rmtree(old.folder, ignore_errors=True)
        elif resumable is not None and old.step != resumable.step:
            (old.folder / TRAINING).unlink(missing_ok=True)


def _places(trial: Path, step: int) -> tuple[Path, Path]:
    """A checkpoint's folder, and the one in which it is written."""
    target = step_folder(trial, step)
    return target, trial / f".{target.name}.partial"


def _complete(partial: Path, target: Path, progress: dict[str, Any]) -> None:
    """Write the report into a checkpoint whose files are on the disk, and put it in its place."""
    report = partial / PROGRESS
    report.write_text(json.dumps(progress, ensure_ascii=False, indent=1), encoding="utf-8")
    _fsync(report)
    _fsync(partial)
    shutil.rmtree(target, ignore_errors=True)  # a resumed trial may reach the same step again
    os.replace(partial, target)
    _fsync(target.parent)


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
    about = {"base": base, "digest": _digest_of(every, names, digests), "frozen": sorted(names)}
    (folder / CHECKPOINT).write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")
    with quiet():
        model.config.save_pretrained(folder)
        processor.save_pretrained(folder)


def _digest_of(weights: dict[str, torch.Tensor], names: frozenset[str], digests: Digests | None) -> str:
    """The digest of some weights, computed where it is not known yet."""
    known = {} if digests is None else digests
    if names not in known:
        known[names] = digest({name: weights[name] for name in names})
    return known[names]


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
