"""Write what training resumes from while training goes on: it waits for a copy, and not for a disk or a store.

In: a model, its optimizer and its report. Out: checkpoints to resume from (`State`), one at a time, when they are due
(`States`). Called by the fine-tune.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from hausa_asr.training.checkpoint_files import Digests, remove_needless
from hausa_asr.training.saving import KEPT_FOR_MEAN, WEIGHTS_BESIDE_EMA, Best, on_cpu

_WRITING_SHARE = 0.002
"""Writing optimizer states may take this share of a trial's time."""
_BYTES_PER_S = 1e9
"""A disk's speed, until one state was written."""
_OVERDUE = 3.0
"""A state that is written for this many times `checkpoint_every_s` is waited for."""


class State(Best):
    """Copy what training resumes from, while it is evaluated; the same thread then writes it, while training goes on.

    The files are written at once, and completed when the evaluation is `done`: the best model first, since whoever
    resumes from here needs it, then this checkpoint; then those are removed that nothing needs any more, and what is
    new is put into the store.

    Args:
        given: as for `Best`.
        weights: the weights by name, where the model has their average in their place.
        kept: earlier weights for the mean at the trial's end, on the CPU, which nobody changes.
        put: puts what is complete into the store, if there is one.

    Attributes:
        took_s: seconds that writing and putting took.
        is_complete: all is done.
    """

    def __init__(
        self,
        *given: Any,
        weights: dict[str, torch.Tensor] | None,
        kept: Sequence[dict[str, Any]],
        put: Callable[[], None],
    ) -> None:
        self.took_s, self.is_complete = 0.0, False
        self._beside_ema, self._kept, self._put = weights, list(kept), put
        self._best: Best | None = None
        self._is_decided = threading.Event()
        super().__init__(*given)

    @property
    def is_at_work(self) -> bool:
        """Whether its thread goes on."""
        return self._thread.is_alive

    def _work(self, digests: Digests) -> None:
        super()._work(digests)
        began_s = time.monotonic()
        self._fill()
        self.took_s = time.monotonic() - began_s
        self._is_decided.wait()
        if not self._progress:
            shutil.rmtree(self._partial, ignore_errors=True)
            return
        began_s = time.monotonic()
        if self._best is not None:
            self._best.write()
            self._best = None
        self._complete()
        remove_needless(self._trial, self.step, int(self._progress["best"]["step"]))
        self._put()
        self.took_s += time.monotonic() - began_s
        self.is_complete = True

    def _take(self, digests: Digests) -> None:
        super()._take(digests)
        beside = {WEIGHTS_BESIDE_EMA: self._beside_ema} if self._beside_ema else {}
        self._state = {**on_cpu({**self._optimizer.state_dict(), **beside}), KEPT_FOR_MEAN: self._kept}
        self._beside_ema, self._kept = None, []

    def done(self, progress: dict[str, Any], best: Best | None = None) -> None:
        """Wait for the copy, and let its thread complete the checkpoint.

        Args:
            progress: the content of `progress.json`.
            best: the best model so far, if that is another one.
        """
        self._is_copied.wait()
        self._thread.check()
        self._progress, self._best = progress, best
        self._is_decided.set()

    def abandon(self) -> None:
        """Wait for the thread, which removes what it wrote; the copy of the model stays."""
        self._is_decided.set()
        self._thread.join()
        self._state = {}

    def finish(self) -> None:
        """Wait until all is done, and raise what has gone wrong."""
        self._thread.finish()


class States:
    """When a checkpoint gets the optimizer's state: so often that a crash costs little, so rarely that writing does.

    While one is being written none is due: a slow disk or store means fewer of them, and training goes on. Only one
    that takes very long is waited for: a trial must not go on without a state for ever, and where a disk hangs, the
    sweep must see that nothing is reported.

    Args:
        every_s: seconds after which one is due, at the latest; 0 for every evaluation.
        size: bytes of a state, about.
        newest: the step that the trial resumes from, or 0.
    """

    def __init__(self, every_s: float, size: float, newest: int) -> None:
        self._every_s, self._took_s = every_s, size / _BYTES_PER_S
        self._at_s = time.monotonic()
        self._newest = newest
        self._writing: State | None = None

    @property
    def newest(self) -> int:
        """The step of the newest checkpoint that the trial can resume from, wherever it goes; 0 if there is none."""
        self._look()
        return self._newest

    def due(self, anyway: bool = False) -> bool:
        """Whether one is due: by the clock, or `anyway`, and none is being written. May wait for that.

        Raises:
            Exception: what went wrong with the one that was being written.
        """
        self.check()
        now_s = time.monotonic()
        if not anyway and now_s - self._at_s < min(self._every_s, self._took_s / _WRITING_SHARE):
            return False
        if self._writing is not None and now_s - self._at_s < _OVERDUE * self._every_s:
            return False
        self.finish()
        return True

    def begin(self, state: State) -> State:
        """Look after a state that is on its way."""
        self._writing, self._at_s = state, time.monotonic()
        return state

    def written(self, step: int, took_s: float) -> None:
        """Note a state that was written while training waited, and how long it took."""
        self._newest, self._took_s, self._at_s = step, took_s, time.monotonic()

    def check(self) -> None:
        """Raise what has gone wrong with the one that was being written."""
        if self._writing is not None and not self._writing.is_at_work:
            self.finish()

    def finish(self) -> None:
        """Wait for the one that is being written, and raise what has gone wrong."""
        if self._writing is None:
            return
        try:
            self._writing.finish()
            self._look()
        finally:
            self._writing = None

    def abandon(self) -> None:
        """Wait for the one that is being written, whether its evaluation has come to an end or not."""
        if self._writing is not None:
            self._writing.abandon()
            self._look()
            self._writing = None

    def _look(self) -> None:
        state = self._writing
        if state is not None and state.is_complete:
            self._newest, self._took_s, self._writing = state.step, state.took_s, None
