"""When to stop a trial: the rule (`rule.py`, arithmetic on numbers) as Ray Tune asks for it.

Every report is written to the ledger, then judged: has it diverged, is it at its end, does it pass its rung, is the
budget spent. What is decided is in the ledger, with all that it was made of, before Tune acts on it. A loser is paused
and not killed: Tune sees its trial end, and when its rung promotes it the agenda hands it out again, to go on from its
checkpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from hausa_asr.recipe import FinetuneConfig
from hausa_asr.settings.load import SweepConfig
from sweeps.driver.agenda import Agenda
from sweeps.planning.budget import exhausted, search_exhausted
from sweeps.pruning.rule import PEERS_AT_MOST, Rule, divergence, rungs, score
from sweeps.record.ledger import Ledger, State, TrialRecord
from sweeps.sampling.study import DIVERGED
from sweeps.verdict.audit import drawn

NEWS = "news"
"""The one field of a Tune result that is ours, as JSON: Tune flattens dicts."""

_KEPT = ("step", "updates", "seen_s", "metrics", "best", "last", "diverged")
"""Of a report. Samples stay in the checkpoint, whose place follows from the step."""


def going_on(passing: int, cutoff: float | None) -> str:
    """Who passes a rung, in words."""
    return f"the best {passing} go on (up to {cutoff:.4f})" if cutoff is not None else "too few to let one go on yet"


def ready_s(recipe: FinetuneConfig) -> float:
    """The seconds of audio after which a trial can be compared: warmed up, and its transformer wholly free."""
    freeing = 2 if recipe.unfreeze == "top_down" else 1  # layer by layer takes as long again (schedules.trainable)
    return max(recipe.warmup_fraction, freeing * recipe.freeze_transformer_fraction) * recipe.length_s


def marks(config: SweepConfig) -> list[float]:
    """The rungs that a new sweep gets, in seconds of audio; the ledger keeps them."""
    pruning = config.pruning
    return rungs(config.recipe().length_s, pruning.first_rung, pruning.reduction) if pruning.rule == "asha" else []


def rule_of(config: SweepConfig, state: State) -> Rule:
    """The rule with the rungs and the cohorts that the ledger has."""
    rule = Rule(state.marks, config.pruning.reduction, config.pruning.rank_by)
    for rung, cohort in state.rungs.items():
        for trial, scored in cohort.items():
            rule.record(rung, trial, scored)
    return rule


class SweepScheduler(FIFOScheduler):
    """The rule's adapter to Ray Tune.

    Args:
        config: the sweep's settings.
        ledger: the sweep's ledger.
        rule: its rungs.
        agenda: what slots do next.
        trial_of: our trial id for a Tune trial's id; "" for one that only waits.
    """

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes snapshots of what it is given, but the ledger is what lasts."""
        return {}

    def __init__(
        self, config: SweepConfig, ledger: Ledger, rule: Rule, agenda: Agenda, trial_of: Callable[[str], str]
    ) -> None:
        super().__init__()
        self._config, self._ledger, self._rule, self._agenda = config, ledger, rule, agenda
        self._trial_of = trial_of
        self._began = False

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The first that waits to start. Tune's own way looks through all trials that ever were, at each step."""
        live = tune_controller.get_live_trials()
        if not self._began:
            self._began = True
            # Tune keeps an idle actor for each trial that is about to start, and ends the others, which are to be warm
            # for the trials after that. So its cache gets room for all slots.
            for trial in live:
                tune_controller._tune_controller._actor_cache.increase_max(trial.placement_group_factory)
        waiting = [trial for trial in live if trial.status == trial.PENDING]
        return min(waiting, key=lambda trial: self._trial_of(trial.trial_id), default=None)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """One report of a trial: written down, then judged."""
        name = self._trial_of(trial.trial_id)
        if not name:
            return TrialScheduler.STOP if self._agenda.has_work() else TrialScheduler.CONTINUE
        return TrialScheduler.CONTINUE if self.judge(name, json.loads(result[NEWS])) else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A slot broke under a trial. Tune tells this before each new try as well, so nothing is decided here."""

    def judge(self, name: str, news: dict[str, Any]) -> bool:
        """Take in what a slot has to say of a trial; whether the trial goes on.

        Args:
            name: our id of the trial.
            news: `kind` report with a `report`, or failed with an `error`; `slot` says who tells it.
        """
        trial = self._ledger.state.trials[name]
        if not trial.is_open:
            return False
        if news["kind"] == "failed":
            self._end(name, "failed", news["error"])
            return False
        report = news["report"]
        if report["step"] > trial.last_step:
            self._ledger.append(
                "reported", trial=name, slot=news.get("slot", ""), **{key: report[key] for key in _KEPT}
            )
        why = self._divergence(trial, report)
        if why:
            self._end(name, "failed", DIVERGED, detail=why)
            return False
        if report["last"]:
            self._end(name, "finished", "")
            return False
        return self._passes(trial, report) and self._can_be_paid(trial)

    def _divergence(self, trial: TrialRecord, report: dict[str, Any]) -> str:
        if report["diverged"]:
            return "its updates have had no finite gradients for long"
        others = reversed(self._ledger.state.trials.values())  # from the last on, since there may be thousands
        peers = (other for other in others if not other.of and other is not trial and other.reports)
        late = islice(peers, PEERS_AT_MOST)
        recipe = self._config.recipe(trial.settings)
        return divergence(trial.points, ready_s(recipe), (other.points for other in late))

    def _passes(self, trial: TrialRecord, report: dict[str, Any]) -> bool:
        """Rank a trial at the rungs that it has come to; whether it goes on."""
        if trial.of or trial.auditing or trial.recalled:
            return True
        recipe = self._config.recipe(trial.settings)
        for rung in self._rule.due(trial.id, report["seen_s"], ready_s(recipe)):
            scored = score(trial.points)
            self._rule.record(rung, trial.id, scored)
            ranking = self._rule.rank(rung, trial.id)
            # The baseline is what all others are measured by: it is ranked against, but runs to its end.
            passed = ranking.passed or trial.source == "baseline"
            search = self._config.search
            audited = not passed and (trial.audited or (
                trial.lost_s is None and drawn(search.seed, trial.id, self._config.pruning.audit_share)
            ))  # fmt: skip
            self._ledger.append(
                "ranked", trial=trial.id, rung=rung, rung_s=self._rule.marks[rung], seen_s=report["seen_s"],
                scored=asdict(scored), **{**asdict(ranking), "passed": passed}, audited=audited,
            )  # fmt: skip
            if not passed:
                figure = "eval loss" if ranking.metric == "loss" else "WER"
                self._pause(
                    trial.id,
                    "rung",
                    f"{figure} {ranking.value:.4f} at {report['seen_s']:.0f} s of audio is number {ranking.place} of "
                    f"{ranking.cohort}; {going_on(ranking.passing, ranking.cutoff)}",
                )
                return False
        return True

    def _can_be_paid(self, trial: TrialRecord) -> bool:
        """Whether the budget lets a trial go on; finalists may take what was kept for them."""
        why = (exhausted if trial.of else search_exhausted)(self._ledger.state, self._config, time.time())
        if why:
            self._pause(trial.id, "budget", why)
        return not why

    def _pause(self, name: str, cause: str, reason: str) -> None:
        self._ledger.append("paused", trial=name, cause=cause, reason=reason)

    def _end(self, name: str, state: str, reason: str, **more: Any) -> None:
        self._ledger.append("ended", trial=name, state=state, reason=reason, **more)
