"""What becomes of a trial after each report: the pruning rule, as Ray Tune asks for it.

Every report is written to the ledger, then judged: has the trial diverged, is it at its end, does it pass its rung, is
the budget spent. Each decision is in the ledger, with all that it was made of, before Tune acts on it. A loser is
paused and not killed: Tune sees its trial end, and when its rung promotes it the agenda hands it out again, to go on
from its checkpoint.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from hausa_asr.recipe import GPU_ENERGY, Progress
from hausa_asr.settings.sweep import SweepConfig
from sweeps.driver.agenda import Agenda
from sweeps.on_ray.broken import NoRoom, broken_by
from sweeps.on_ray.messages import MESSAGE, Failed, Reported, from_text
from sweeps.planning.budget import baseline_exhausted, exhausted, search_exhausted
from sweeps.pruning.divergence import PEERS_AT_MOST, divergence
from sweeps.pruning.rule import FIGURES, Rule, score, who_goes_on
from sweeps.pruning.rungs import ready_s
from sweeps.record.checkpoints import WRITING_S
from sweeps.record.crashes import NOTICE
from sweeps.record.ledger import Ledger
from sweeps.record.trial import DIVERGED, TrialRecord
from sweeps.wording import many

log = logging.getLogger("sweeps")

INTERRUPTED_S = 15.0
"""How long slots have to end after an interrupt, and their trials to write where they are. What they are still writing
then is lost, and only that. `hausa-asr submit` gives a stopped job 30 s in all."""
_KEPT = ("step", "updates", "seen_s", "metrics", "best", "last", "diverged")
"""What the ledger keeps of a report. Samples stay in the checkpoint, whose place follows from the step."""


class SweepScheduler(FIFOScheduler):
    """Judge reports by the pruning rule, for Ray Tune.

    Args:
        config: the sweep's settings.
        ledger: the sweep's ledger.
        rule: its rungs.
        agenda: what slots do next.
        trial_of: our trial id for a Tune trial's id; "" for one that only waits.
        guess: the eval loss of guessing.
        leaving: the ids of the nodes that are about to go.
        is_short: whether a slot waits for room that one without a trial may hold.
        learn: is given each report with its trial.
    """

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune would write it into snapshots of its own, and the ledger is what lasts."""
        return {}

    def __init__(
        self,
        config: SweepConfig,
        ledger: Ledger,
        rule: Rule,
        agenda: Agenda,
        trial_of: Callable[[str], str],
        guess: float = math.inf,
        leaving: Callable[[], Collection[str]] = tuple,
        is_short: Callable[[], bool] = bool,
        learn: Callable[[TrialRecord, Reported], None] = lambda trial, message: None,
    ) -> None:
        super().__init__()
        self._is_short, self._learn = is_short, learn
        self._config, self._ledger, self._rule, self._agenda = config, ledger, rule, agenda
        self._trial_of, self._guess, self._leaving = trial_of, guess, leaving
        self._warm, self._goodbye_s = 0, WRITING_S
        self._controller: Any = None
        self._came: dict[tuple[str, str], int] = {}
        self._at: dict[str, int] = {}

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The first trial that waits to start. Tune's own way looks through all trials that ever were, at each step."""
        live = tune_controller.get_live_trials()
        # Tune wraps the controller anew for each call, so what is set must be set inside.
        self._controller = tune_controller._tune_controller
        self._controller._actor_force_cleanup_timeout = self._goodbye_s
        # Tune keeps an idle actor for each trial that is about to start, and ends the others, which are to be warm for
        # the trials after that. So its cache gets room for all slots.
        for trial in list(live)[self._warm :]:  # all take the same, so any will do
            tune_controller._tune_controller._actor_cache.increase_max(trial.placement_group_factory)
        self._warm = max(self._warm, len(live))
        waiting = [trial for trial in live if trial.status == trial.PENDING]
        if not waiting and self._is_short():  # after a node was lost, say: warm slots without a trial make way
            _end_idle_slots(tune_controller._tune_controller)
        return min(waiting, key=lambda trial: self._trial_of(trial.trial_id), default=None)

    def hasten(self) -> None:
        """Give slots that end only seconds from now on, as Tune would by itself; they may be far from a report."""
        self._goodbye_s = INTERRUPTED_S
        if self._controller is not None:
            self._controller._actor_force_cleanup_timeout = self._goodbye_s

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Write a trial's report down and judge it. Called by Tune."""
        name = self._trial_of(trial.trial_id)
        if not name:
            waits_on = not self._agenda.has_work() and not self._is_short()
            return TrialScheduler.CONTINUE if waits_on else TrialScheduler.STOP
        if not result[MESSAGE]:
            return TrialScheduler.CONTINUE  # it left at an interrupt; this run is about to end
        goes_on = self.judge(name, from_text(result[MESSAGE]))
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A slot broke under a trial: write down what follows. Called by Tune, before the searcher takes it back."""
        name = self._trial_of(trial.trial_id)
        record = self._ledger.state.trials.get(name)
        judged = record is not None and not record.is_open and bool(trial.last_result)
        if record is None or judged or record.state == "finished":
            return
        fault = broken_by(error_text(trial))
        if isinstance(fault, NoRoom):
            if record.is_open:  # else it had not begun, and waits as before
                self._agenda.failures.found_no_room(name, fault.reason)
        else:
            self._failed(name, Failed(fault.reason, fault.own, fault.node, fault.host))

    def _failed(self, name: str, message: Failed) -> None:
        if message.own:
            self._end(name, "failed", message.error, best=self._ledger.best_there(self._ledger.state.trials[name]))
        else:
            self._agenda.failures.crashed(name, message.error, message.node, message.host)

    def judge(self, name: str, message: Reported | Failed) -> bool:
        """Write down what a slot reports of a trial, and say whether the trial goes on.

        Args:
            name: our id of the trial.
            message: a report, or why the trial failed.
        """
        trial = self._ledger.state.trials[name]
        if not trial.is_open:
            return False
        if isinstance(message, Failed):
            self._failed(name, message)
            return False
        self._learn(trial, message)
        progress = message.progress
        workers = {"workers": message.workers} if self._config.resources.has_range and message.workers else {}
        if progress.step > trial.last_step:
            kept: dict[str, Any] = {key: getattr(progress, key) for key in _KEPT}
            if self._config.resources.gpus_per_worker % 1:
                # The meter is a whole GPU's, and other trials use it too.
                kept["metrics"] = {key: value for key, value in progress.metrics.items() if key != GPU_ENERGY}
            self._ledger.append("reported", trial=name, slot=message.slot, nodes=message.nodes, **kept, **workers)
        elif progress.step > self._came.get((name, message.slot), progress.step):
            # Its first report after a crash is that of its checkpoint; what follows shows that it trains.
            came = {"slot": message.slot, "nodes": message.nodes, "step": progress.step}
            self._ledger.append("repeated", trial=name, **came, **workers)
        self._came[name, message.slot] = self._at[name] = progress.step
        why = self._divergence(trial, progress)
        if why:
            self._end(name, "failed", DIVERGED, detail=why)
            return False
        if progress.last:
            self._end(name, "finished", "")
            return False
        return (
            self._passes(trial, progress.seen_s) and self._can_be_paid(trial) and self._can_stay(trial, message.nodes)
        )

    def _divergence(self, trial: TrialRecord, progress: Progress) -> str:
        """How the trial has diverged, in words; "" if it has not."""
        if progress.diverged:
            return "its updates have had no finite gradients for long"
        others = reversed(self._ledger.state.trials.values())  # the newest first, since there may be thousands
        peers = (other for other in others if not other.of and other is not trial and other.reports)
        newest = (peer.points for peer in islice(peers, PEERS_AT_MOST))
        return divergence(trial.points, self._ready_s(trial), newest, self._guess)

    def _ready_s(self, trial: TrialRecord) -> float:
        """After how many seconds of audio a trial can be compared with others."""
        first_s = next(iter(self._rule.marks), 0.0)
        return ready_s(self._config.recipe(trial.settings), first_s, self._config.recipe())

    def _passes(self, trial: TrialRecord, seen_s: float) -> bool:
        """Rank a trial at the rungs that it has come to, and say whether it goes on."""
        if trial.of or trial.recalled:
            return True
        due = self._rule.due(trial.id, seen_s, self._ready_s(trial))
        return all(self._passes_rung(trial, rung, seen_s) for rung in due)

    def _passes_rung(self, trial: TrialRecord, rung: int, seen_s: float) -> bool:
        """Rank a trial at one rung and write the decision down; a loser is paused."""
        scored = score(trial.points)
        self._rule.record(rung, trial.id, scored)
        ranking = self._rule.rank(rung, trial.id)
        waits = trial.is_baseline and self._rule.is_young(rung) and not self._agenda.over
        passed = ranking.passed and not waits
        self._ledger.append(
            "ranked", trial=trial.id, rung=rung, rung_s=self._rule.marks[rung], seen_s=seen_s, scored=asdict(scored),
            **{**asdict(ranking), "passed": passed},
        )  # fmt: skip
        if not passed:
            why = (
                f"{FIGURES[ranking.metric]}, {ranking.value:.4f}, at {seen_s:.0f} s of audio is number "
                f"{ranking.place} of {ranking.cohort}; {who_goes_on(ranking.passing, ranking.cutoff)}"
            )
            if ranking.passed:
                why = "as the baseline it waits until more trials have come so far, or none is left to try"
            self._pause(trial.id, "rung", why)
        return passed

    def _can_be_paid(self, trial: TrialRecord) -> bool:
        """Whether the budget allows a trial to go on; baseline and finalists may take what was kept for them."""
        limit = exhausted if trial.of else baseline_exhausted if trial.is_baseline else search_exhausted
        why = limit(self._ledger.state, self._config, time.time())
        if not why and not trial.of and not trial.is_baseline and self._agenda.makes_way():
            why = "it left its slot to the baseline, which has to come to its end within the budget"
        if why:
            self._pause(trial.id, "budget", why)
        return not why

    def _can_stay(self, trial: TrialRecord, nodes: Collection[str]) -> bool:
        """Whether a trial's nodes stay; if not, the trial is paused and goes on elsewhere at once."""
        if {*self._leaving()}.isdisjoint(nodes):
            return True
        self._pause(trial.id, NOTICE, "its node is about to go")
        return False

    def _pause(self, name: str, cause: str, reason: str) -> None:
        self._ledger.append("paused", trial=name, cause=cause, reason=reason, step=self._at[name])

    def _end(self, name: str, state: str, reason: str, **more: Any) -> None:
        self._ledger.append("ended", trial=name, state=state, reason=reason, **more)


def _end_idle_slots(tune_controller: Any) -> None:
    idle = tune_controller._actor_cache.num_cached_objects
    if idle:
        log.info("%s without a trial ends, since a trial waits for its room", many(idle, "slot"))
        tune_controller._cleanup_cached_actors(force_all=True)


def error_text(trial: Any) -> str:
    """The text of a Tune trial's error. Not by `get_error`, which looks where Tune has put nothing yet."""
    try:
        return Path(trial.error_file).read_text(encoding="utf-8", errors="replace") if trial.error_file else ""
    except OSError:
        return ""
