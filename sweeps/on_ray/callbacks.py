"""Ray Tune's callbacks: what happened to a trial goes to the ledger, to MLflow, to the disk and to the table of trials.

An exception in a callback would end the sweep, so what can fail is caught where it fails.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune

from sweeps.driver.board import Board
from sweeps.driver.checkpoint_space import CheckpointSpace
from sweeps.mlflow_mirror.mirror import Mirror
from sweeps.on_ray.broken import broken_by
from sweeps.on_ray.capacity import Capacity
from sweeps.on_ray.messages import WORKERS
from sweeps.on_ray.scheduler import error_text
from sweeps.record.ledger import Ledger

log = logging.getLogger("sweeps")


class SweepCallback(tune.Callback):
    """Pass Tune's events on as they come.

    Args:
        ledger: the sweep's ledger.
        mirror: MLflow.
        board: the table of trials.
        space: the disk.
        trial_of: our trial id for a Tune trial's id; "" for one that only waits.
        why: by Tune's id, `recall` for a paused trial that goes on to its end.
        capacity: what the orders were offered.
        has_range: trials may have different numbers of workers.
        look: is called before each of Tune's steps.
    """

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune would write it into snapshots of its own, and the ledger is what lasts."""
        return {}

    def __init__(
        self,
        ledger: Ledger,
        mirror: Mirror,
        board: Board,
        space: CheckpointSpace,
        trial_of: Callable[[str], str],
        why: Mapping[str, str],
        capacity: Capacity,
        has_range: bool,
        look: Callable[[], None],
    ) -> None:
        self._ledger, self._mirror, self._board, self._space = ledger, mirror, board, space
        self._trial_of, self._why, self._capacity, self._has_range = trial_of, why, capacity, has_range
        self._waiting_since: dict[str, float] = {}
        self._look = look

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        name = self._trial_of(trial.trial_id)
        self._capacity.promises.taken_by(_order(trial), str(trial.temporary_state.ray_actor))
        if name:
            why = self._why.get(trial.trial_id)
            self._ledger.append("started", trial=name, **({why: True} if why else {}))
            self._show(name)
        else:
            self._waiting_since[trial.trial_id] = time.monotonic()

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        name = self._trial_of(trial.trial_id)
        if name:  # a slot that waits has results too, also before its workers are there
            self._capacity.is_at_work(_order(trial))
        elif trial.trial_id not in self._ledger.state.waits:
            self._ledger.append("waits", slot=trial.trial_id, **self._workers(result))
        self._show(name)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._waited(trial)
        self._capacity.promises.drop(_order(trial))
        self._left(self._trial_of(trial.trial_id))

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._waited(trial)
        name = self._trial_of(trial.trial_id)
        self._capacity.promises.drop(_order(trial))
        log.error("%s: a slot broke: %s", name or "waiting", broken_by(error_text(trial)).reason)
        self._left(name)

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        self._look()

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        self._board.tick()

    def _waited(self, trial: Any) -> None:
        """A slot waits no more: its workers held their CPUs and GPUs meanwhile."""
        since_s = self._waiting_since.pop(trial.trial_id, None)
        if since_s is not None:
            took_s, workers = time.monotonic() - since_s, self._workers(trial.last_result or {})
            self._ledger.append("waited", slot=trial.trial_id, seconds=took_s, **workers)

    def _workers(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """What the ledger has of a slot's number of workers, where slots may differ in it."""
        return {WORKERS: result.get(WORKERS)} if self._has_range else {}

    def _left(self, name: str) -> None:
        """A trial has left its slot."""
        if not name:
            return
        try:
            self._space.tidy(self._ledger.state.trials[name])
        except OSError as error:  # of the storage; the next trial's tidying tries again
            log.warning("%s: its folder could not be tidied: %s", name, error)
        self._show(name)

    def _show(self, name: str) -> None:
        if name:
            self._mirror.mark(name)
            self._board.update(name)


def _order(trial: Any) -> int:
    """The number of a Tune trial's order."""
    return int(trial.config["slot"]["order"])
