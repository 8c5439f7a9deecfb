"""The sweep's one durable truth: an append-only file of events.

Every event is one JSON object on one line, fsynced before anything acts on it. All else is rebuilt from it: the
Optuna study, the rungs, the decisions, the MLflow run ids and what was spent. A torn last line, from a crash in
mid-write, is ignored. Where a line can't be written, on a full disk say, what is there of it is cut off again, and the
driver waits with it until it can be.

Events, in the order of a trial's life:

    sweep      name, prepared dataset, rungs
    opened     a driver began or took over; how many slots it has, what a slot takes and costs, where the data is now,
               the cluster's kinds of GPU if trials have one; of a range of workers also the most, for which that is
    slots      how many the cluster has room for now, when that has changed
    mirrored   the sweep's MLflow run
    waits      a slot has nothing to do, and its workers hold their CPUs and GPUs
    waited     it waited for some seconds
    left       the driver ends before the sweep does: `how` is paused itself, interrupted or fault, `why` in words
    proposed   trial, settings, source; for a finalist the trial that it is a run `of`
    started    a slot took it; `recall` if by the second look or as the baseline
    tracked    its MLflow run
    reported   one evaluation; `workers` that made it, if trials may have different numbers
    repeated   a trial that goes on from an older checkpoint has come again where it had been
    ranked     one decision at a rung, with all that it was made of
    paused     it left its slot and can go on: `cause` is rung, budget, crash (with reason and node), no room or notice
    retried    a failed one is to be tried again, as somebody asked
    ended      finished, pruned or failed; with its `best` on disk, where a better one may have been lost
    dropped    its optimizer state made room on the disk, so it cannot go on
    decided    the finalists' verdict, with the test scores
    souped     an average of runs was tried: its members, its gain over the winner's model, whether it is exported

Fields of older versions that mean nothing any more (`audit`, `audited`) are read over.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from hausa_asr.errors import UserError, first_line
from hausa_asr.recipe import step_folder
from sweeps.record.checkpoints import Checkpoints
from sweeps.record.names import LEDGER_FILE, TRIALS_FOLDER
from sweeps.record.state import State
from sweeps.record.trial import TrialRecord

log = logging.getLogger("sweeps")

PATIENCE_S = 600.0
"""How long an event that can't be written is tried again before the driver gives up."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0
_PUBLISHED_FIRST = ("opened", "proposed", "dropped", "decided")
"""A trial whose settings are lost would be another of the same name; one that was dropped would be gone on with."""


class LedgerFault(UserError):
    """The ledger can't be written: nothing may act on what is not in it, so the driver has to end."""


class Ledger:
    """Write the events of one sweep, and keep what they add up to.

    Args:
        folder: the sweep's folder.

    Attributes:
        state: what the events so far add up to.
        events: how many were written since it was opened.
        lock: held while an event is written and taken in; whoever reads the state in another thread holds it too.
        checkpoints: those of its trials.
        published: puts what is new where the driver of another machine finds it; called before anything acts on an
            event of which that driver must know.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / LEDGER_FILE
        self.state = State()
        self.lock = threading.RLock()
        self.checkpoints = Checkpoints(folder / TRIALS_FOLDER)
        self.published: Callable[[], None] = lambda: None
        self.events = 0
        self._given_up: OSError | None = None
        self._torn_at: int | None = None
        self._drop_torn_line()
        _add_up(self.state, self.path)

    def append(self, event: str, **fields: Any) -> None:
        """Write one event durably, then take it into the state.

        While the disk is full or away this waits, up to `PATIENCE_S`, and so does all that the driver would do next.

        Raises:
            LedgerFault: it can't be written, and waiting has not helped. The file ends with a whole line all the same.
        """
        with self.lock:
            record = {"event": event, "time": time.time(), **fields}
            self._write((json.dumps(record, ensure_ascii=False) + "\n").encode())
            self.state.apply(record)
            self.events += 1
        if event in _PUBLISHED_FIRST:
            try:
                self.published()
            except OSError as fault:  # the storage is away, and has been waited for
                self._given_up = fault
                self.check()

    def append_at_once(self, event: str, **fields: Any) -> None:
        """Write an event on which nothing depends; leave it out if it can't be written now, as on a full disk."""
        record = {"event": event, "time": time.time(), **fields}
        if not self.lock.acquire(timeout=_FIRST_PAUSE_S):  # another thread waits with an event of its own
            return
        try:
            if self._given_up is None:
                self._write_once((json.dumps(record, ensure_ascii=False) + "\n").encode())
                self.state.apply(record)
                self.events += 1
        except OSError as fault:
            log.warning("the ledger lacks the event %r: %s", event, first_line(fault))
        finally:
            self.lock.release()

    def _write(self, line: bytes) -> None:
        began_s, pause_s, said = time.monotonic(), _FIRST_PAUSE_S, False
        while True:
            try:
                if self._given_up is None:
                    self._write_once(line)
                    if said:
                        _say(f"The sweep's ledger can be written again: {self.path}.")
                    return
            except OSError as fault:
                if time.monotonic() - began_s > PATIENCE_S:
                    self._given_up = fault
                elif not said:
                    said = True
                    _say(
                        f"The sweep's ledger can't be written ({first_line(fault)}), so the sweep waits with it, "
                        f"up to {PATIENCE_S:.0f} s: {self.path}. Make room, or mend the disk."
                    )
            self.check()  # this call gave up or, since the driver is about to end, an earlier one
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def check(self) -> None:
        """Raise `LedgerFault` again, where an event could not be written: Ray Tune passes on only its text."""
        if self._given_up is not None:
            raise LedgerFault(
                f"The sweep's ledger can't be written: {first_line(self._given_up)}.",
                where=self.path,
                fix="Make room, or mend the disk; then go on with --resume.",
            ) from self._given_up

    def _write_once(self, line: bytes) -> None:
        """Write a line whole; after a fault nothing of it is left, to which the next would be glued."""
        with self.path.open("ab", buffering=0) as file:
            if self._torn_at is not None:
                os.ftruncate(file.fileno(), self._torn_at)
                self._torn_at = None
            before = os.fstat(file.fileno()).st_size
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except BaseException:
                self._torn_at = before
                with suppress(OSError):  # else before the next line
                    os.ftruncate(file.fileno(), before)
                    self._torn_at = None
                raise

    def trial_folder(self, trial_id: str) -> Path:
        """Where a trial's checkpoints and log are."""
        return self.folder / TRIALS_FOLDER / trial_id

    def best_checkpoint(self, trial: TrialRecord) -> Path | None:
        """A trial's best checkpoint, where the sweep's folder is now; None before its first report."""
        return step_folder(self.trial_folder(trial.id), int(trial.best["step"])) if trial.best else None

    def best_there(self, trial: TrialRecord) -> dict[str, float]:
        """`step`, `wer`, `cer` and `loss` of the best checkpoint of a trial that is on disk; empty if none is."""
        steps = set(self.checkpoints.steps(trial.id))
        there = [one for one in trial.reports if one.step in steps]
        scores = [{"step": one.step, **{name: one.metrics[name] for name in ("wer", "cer", "loss")}} for one in there]
        return min(scores, key=lambda one: (one["wer"], one["cer"], one["loss"]), default={})

    def settle(self) -> None:
        """Let the best trial and the baseline be what is on disk of them, once no slot has one any more.

        A better checkpoint may have been in the memory of workers that were killed.
        """
        while lost := [
            one for one in (self.state.best(), self.state.baseline()) if one and self._has_lost_its_best(one)
        ]:
            trial = lost[0]
            fields = {name: getattr(trial, name) for name in ("state", "reason", "detail", "cause")}
            self.append("ended", trial=trial.id, **fields, best=self.best_there(trial))

    def _has_lost_its_best(self, trial: TrialRecord) -> bool:
        return trial.best is not None and not self.has_best(trial)

    def has_best(self, trial: TrialRecord) -> bool:
        """Whether a trial's best checkpoint is there, and can be scored and exported."""
        return trial.best is not None and self.checkpoints.has(trial.id, int(trial.best["step"]))

    def _drop_torn_line(self) -> None:
        """A line without its end would swallow the next event."""
        if not self.path.is_file():
            return
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):
            with self.path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)


def _say(line: str) -> None:
    """Say what the user must see at once: the log may be on the same full disk."""
    with suppress(OSError):  # stderr may be a file on that disk
        print(line, file=sys.stderr, flush=True)
    log.warning("%s", line)


def read_state(folder: Path) -> State:
    """Read what a sweep's ledger adds up to; another driver may be writing it."""
    state = State()
    _add_up(state, folder / LEDGER_FILE)
    return state


def _add_up(state: State, path: Path) -> None:
    """Take in all events of a file.

    Raises:
        UserError: an event is of a kind or a form that this version does not know.
    """
    for event in read_events(path):
        try:
            state.apply(event)
        except (KeyError, TypeError) as fault:
            raise UserError(
                f"The sweep's ledger is of another version: {event.get('event')!r} is unknown or lacks {fault}.",
                where=path,
                fix="Go on with the version that wrote it, or start a sweep under another name.",
            ) from fault


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Read the events of a ledger file, oldest first; none if there is no file.

    Raises:
        UserError: a line other than the last is not readable, so the file has been tampered with or damaged.
    """
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines):  # torn: a crash in mid-write, and nothing has acted on it
                return
            raise UserError(
                "The sweep's ledger has a line that is not an event.",
                where=f"{path}, line {number}",
                fix="Restore the file from a backup, or start a sweep under another name.",
            ) from None
        yield event
