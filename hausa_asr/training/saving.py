"""Write a trial's checkpoints: in a thread beside the evaluation, complete or absent, and few of them.

In: a model, its optimizer and its report. Out: folders (`checkpoint_files`). `Schedule` says when a checkpoint to
resume from is due. A model that is the best so far waits in memory (`Best`) until then, since a better one mostly comes
first: written at every evaluation, a large model would keep the GPU waiting for the disk, and a sweep would write
terabytes. Called by the fine-tune.
"""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

from hausa_asr.recipe import TRAINING
from hausa_asr.training.checkpoint_files import (
    Digests,
    complete,
    digest_of,
    fsync,
    places,
    remove_needless,
    untouched,
    write_model,
)
from hausa_asr.training.optimizer import Optimizer

WEIGHTS_BESIDE_EMA = "weights_beside_ema"
"""In `training.pt`: the weights, where `weights.safetensors` has their moving average."""
_WRITING_SHARE = 0.002
"""Writing optimizer states may take this share of a trial's time."""


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
        self._target, self._partial = places(trial, step)
        device = next(model.parameters()).device
        self._writing = _Beside(device, self._timed, model, processor, optimizer, base)

    def _timed(self, model: Wav2Vec2ForCTC, processor: Wav2Vec2Processor, optimizer: Optimizer, base: str) -> None:
        began_s = time.monotonic()
        self._write(model, processor, optimizer, base)
        self.took_s = time.monotonic() - began_s

    def _write(self, model: Wav2Vec2ForCTC, processor: Wav2Vec2Processor, optimizer: Optimizer, base: str) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        write_model(self._partial, model, processor, base, untouched(model, optimizer), self._digests)
        if self.state:
            beside = {WEIGHTS_BESIDE_EMA: self._weights} if self._weights else {}
            torch.save({**optimizer.state_dict(), **beside}, self._partial / TRAINING)
        for file in self._partial.iterdir():
            fsync(file)  # here, since the evaluation goes on meanwhile

    def finish(self, progress: dict[str, Any], best_step: int) -> Path:
        """Complete the checkpoint, then remove those that nothing needs any more.

        Args:
            progress: the content of `progress.json`.
            best_step: the step of the best checkpoint so far, perhaps this one.

        Returns:
            The checkpoint's folder.
        """
        self._writing.finish()
        complete(self._partial, self._target, progress)
        remove_needless(self._trial, self._step, best_step)
        return self._target

    def abandon(self) -> None:
        """Wait for the thread and remove what it wrote."""
        self._writing.join()
        shutil.rmtree(self._partial, ignore_errors=True)


class Best:
    """Copy a model to the CPU in a thread, while it is evaluated: if it is the best so far it is written later.

    The model and its optimizer must not change until `done` or `abandon`.

    Args:
        trial: the trial's folder.
        step: updates done.
        model, processor: what to copy.
        optimizer: which weights it has changed.
        base: the base checkpoint that the trial started from.
        digests: as for `Saving`.

    Attributes:
        step: updates done.
    """

    def __init__(
        self,
        trial: Path,
        step: int,
        model: Wav2Vec2ForCTC,
        processor: Wav2Vec2Processor,
        optimizer: Optimizer,
        base: str,
        digests: Digests,
    ) -> None:
        self.step, self._trial = step, trial
        self._model, self._processor, self._base = model, processor, base
        self._progress: dict[str, Any] = {}
        self._frozen = untouched(model, optimizer)
        self._copy = _Beside(next(model.parameters()).device, self._take, digests)

    def _take(self, digests: Digests) -> None:
        weights = self._model.state_dict()
        # Now: some of what is frozen may learn before it is written.
        self._digests = {self._frozen: digest_of(weights, self._frozen, digests)}
        self._weights = {
            name: weight.detach().to("cpu", copy=True) for name, weight in weights.items() if name not in self._frozen
        }

    def done(self, progress: dict[str, Any]) -> Best:
        """Wait for the copy, and note the content of `progress.json`."""
        self._copy.finish()
        self._progress = progress
        return self

    def abandon(self) -> None:
        """Wait for the copy, which nobody wants."""
        self._copy.join()

    def write(self) -> None:
        """Write the checkpoint; those that nothing needs any more stay."""
        target, partial = places(self._trial, self.step)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_model(
            partial, self._model, self._processor, self._base, self._frozen, self._digests, weights=self._weights
        )
        for file in partial.iterdir():
            fsync(file)
        complete(partial, target, self._progress)


class _Beside:
    """Do something in a thread while the device evaluates.

    Args:
        device: that has the model.
        work: what to do.
        given: its arguments.
    """

    def __init__(self, device: torch.device, work: Callable[..., None], *given: Any) -> None:
        self._device = device
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work, given), name="checkpoint")
        self._thread.start()

    def _run(self, work: Callable[..., None], given: tuple[Any, ...]) -> None:
        cuda = self._device.type == "cuda"
        try:
            # On a stream of its own: on the common one, the copies and the evaluation would wait for each other.
            with torch.cuda.stream(torch.cuda.Stream(self._device)) if cuda else nullcontext():
                work(*given)
        except BaseException as fault:  # raised again by `finish`
            self._fault = fault

    def join(self) -> None:
        """Wait for its end, well or badly."""
        self._thread.join()

    def finish(self) -> None:
        """Wait for its end, and raise what it has raised."""
        self.join()
        if self._fault is not None:
            raise self._fault
