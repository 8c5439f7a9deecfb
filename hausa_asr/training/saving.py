"""Write a trial's checkpoints: complete or absent, and few of them.

In: a model, its optimizer and its report. Out: folders (`checkpoint_files`). What has to be on disk before the trial
goes on, as at its end, is written from the model itself (`Saving`). A model that is the best so far is copied and waits
in memory (`Best`) until a checkpoint to resume from is written (`states`), since a better one mostly comes first:
written at every evaluation, a sweep would write terabytes. Called by the fine-tune.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
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

WEIGHTS_BESIDE_EMA, KEPT_FOR_MEAN = "weights_beside_ema", "kept_for_mean"
"""In `training.pt`: the weights, where `weights.safetensors` has their moving average; and earlier weights that may be
in the mean at the trial's end."""


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
        kept: earlier weights for the mean at the trial's end, on the CPU; they go with the state too.
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
        kept: Sequence[dict[str, Any]] = (),
        digests: Digests | None = None,
    ) -> None:
        self._trial, self._step = trial, step
        self.state, self.took_s, self._weights, self._kept = state, 0.0, weights, list(kept)
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
            state = {**optimizer.state_dict(), **beside, KEPT_FOR_MEAN: self._kept}
            torch.save(state, self._partial / TRAINING)
        for file in self._partial.iterdir():
            fsync(file)  # here, since the evaluation goes on meanwhile

    def finish(self, progress: dict[str, Any], best_step: int | None, *, is_scored: bool = True) -> Path:
        """Complete the checkpoint, then remove those that nothing needs any more.

        Args:
            progress: its report.
            best_step: the step of the best checkpoint so far, perhaps this one; None before the first score.
            is_scored: the report has the scores of dev.

        Returns:
            The checkpoint's folder.
        """
        self._writing.finish()
        complete(self._partial, self._target, progress, is_scored=is_scored)
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
        self._optimizer = optimizer
        self._progress: dict[str, Any] = {}
        self._frozen = untouched(model, optimizer)
        self._weights: dict[str, torch.Tensor] = {}
        self._state: dict[str, Any] = {}
        self._target, self._partial = places(trial, step)
        self._is_copied, self._is_written = threading.Event(), False
        self._thread = _Beside(next(model.parameters()).device, self._work, digests)

    def _work(self, digests: Digests) -> None:
        try:
            self._take(digests)
        finally:
            self._is_copied.set()

    def _take(self, digests: Digests) -> None:
        weights = self._model.state_dict()
        # Now: some of what is frozen may learn before it is written.
        self._digests = {self._frozen: digest_of(weights, self._frozen, digests)}
        self._weights = on_cpu({name: weight for name, weight in weights.items() if name not in self._frozen})

    def done(self, progress: dict[str, Any]) -> None:
        """Wait for the copy, and note the content of `progress.json`."""
        self._thread.finish()
        self._progress = progress

    def abandon(self) -> None:
        """Wait for the copy, which nobody wants."""
        self._thread.join()

    def write(self) -> None:
        """Write the checkpoint, unless it is; those that nothing needs any more stay."""
        if not self._is_written:
            self._fill()
            self._complete()

    def _fill(self) -> None:
        """Write its files, where no reader looks."""
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        write_model(
            self._partial, self._model, self._processor, self._base, self._frozen, self._digests, weights=self._weights
        )
        if self._state:
            torch.save(self._state, self._partial / TRAINING)
        for file in self._partial.iterdir():
            fsync(file)

    def _complete(self) -> None:
        complete(self._partial, self._target, self._progress)
        self._is_written = True
        self._weights, self._state = {}, {}  # gigabytes


def on_cpu(held: Any) -> Any:
    """Copies on the CPU of all tensors in dictionaries and lists."""
    if isinstance(held, torch.Tensor):
        return held.detach().to("cpu", copy=True)
    if isinstance(held, dict):
        return {name: on_cpu(one) for name, one in held.items()}
    return [on_cpu(one) for one in held] if isinstance(held, list) else held


class _Beside:
    """Do something in a thread, beside the evaluation and perhaps longer.

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

    @property
    def is_alive(self) -> bool:
        """Whether it goes on."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Wait for its end, well or badly."""
        self._thread.join()

    def check(self) -> None:
        """Raise what it has raised by now."""
        if self._fault is not None:
            raise self._fault

    def finish(self) -> None:
        """Wait for its end, and raise what it has raised."""
        self.join()
        self.check()
