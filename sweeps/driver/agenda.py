"""What a free slot does next. No Ray in here: the searcher tells Ray Tune what the agenda says.

In: the ledger's state, the study, the rule and the budget. Out: one order at a time, written to the ledger before it is
given out. The order of things: trials that were interrupted; paused ones that their rung now promotes; new ones,
baseline and starting points first; then, where slots are free, those drawn for the audit; at the end the finalists.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Literal

from hausa_asr.settings.load import SweepConfig
from sweeps.planning.budget import exhausted, search_exhausted
from sweeps.pruning.rule import Rule
from sweeps.record.ledger import FINALIST, Ledger, TrialRecord
from sweeps.sampling.study import Study
from sweeps.verdict.finalists import missing

STARTING_POINT = "starting point "
"""Before the name of a starting point, in the source of its trial."""


@dataclass(frozen=True)
class Order:
    """What a slot shall do: train a trial, wait, or end.

    `why` a paused trial goes on, where that is not its rung's doing: `recall` is the second look, `audit` that what
    pruning costs is to be known.
    """

    do: Literal["train", "wait", "end"]
    trial: TrialRecord | None = None
    why: Literal["", "recall", "audit"] = ""


WAIT, END = Order("wait"), Order("end")


class Agenda:
    """Gives out orders and takes trials back.

    Args:
        config: the sweep's settings.
        ledger: the sweep's ledger.
        rule: its rungs, as the ledger has them.
        study: what the sampler knows.

    Attributes:
        held: the trials that slots have or are about to have.
        over: why no new trials are begun, in words; "" while some are.
    """

    def __init__(self, config: SweepConfig, ledger: Ledger, rule: Rule, study: Study) -> None:
        self._config, self._ledger, self._rule, self._study = config, ledger, rule, study
        self.held: set[str] = set()
        self.over = ""
        self._space_is_used_up = False
        for trial in ledger.state.searched:
            study.update(trial)

    def next(self) -> Order:
        """The next order; what it begins is in the ledger by then."""
        trial, why = self._waiting()
        if trial is None and not self._search_is_over():
            trial = self._new()
        if trial is None:
            trial, why = self._recalled(), "recall"
        if trial is None:
            trial, why = self._to_audit(), "audit"
        if trial is None and self._searching():
            return WAIT  # its reports may promote a paused trial, and finalists are chosen when all is known
        if trial is None:
            trial, why = self._finalist(), ""
        if trial is None:
            return END
        self.held.add(trial.id)
        return Order("train", trial, why)

    def is_done(self) -> bool:
        """Whether nothing is left to be begun or to go on. Begins nothing."""
        going_on = self._unfinished() or self._promotable() or self._recalled() or self._to_audit()
        return not going_on and self._search_is_over() and not self._finalists_wait() and not self.held

    def has_work(self) -> bool:
        """Whether `next` would give out something else than to wait. Begins nothing."""
        if not self._searching() or self._to_audit() is not None or not self._search_is_over():
            return True
        return bool(self._unfinished() or self._promotable() or self._recalled())

    def back(self, trial: TrialRecord) -> None:
        """A slot has let go of a trial; the ledger says how it stands."""
        self.held.discard(trial.id)
        if not trial.of:
            self._study.update(trial)

    def finish(self) -> None:
        """End what is still paused, at the end of a sweep; with more trials or a larger budget it can go on."""
        for trial in self._ledger.state.trials.values():
            if trial.state == "paused" or trial.is_open:
                reason, cause = (self.over, "budget") if trial.is_open else (trial.reason, trial.cause)
                self._ledger.append("ended", trial=trial.id, state="pruned", reason=reason, cause=cause)

    # -- what could be done ------------------------------------------------------------------------------------

    def _searching(self) -> bool:
        """Whether a slot has a trial of the search."""
        return any(not self._ledger.state.trials[name].of for name in self.held)

    def _waiting(self) -> tuple[TrialRecord | None, Literal["", "recall", "audit"]]:
        """A trial that was begun before and goes on now; and why."""
        unfinished = self._unfinished()
        if unfinished is not None:
            return unfinished, "audit" if unfinished.auditing else ""
        name = self._promotable()
        if name is None:
            return None, ""
        trial = self._ledger.state.trials[name]
        rung = trial.waits_at
        assert rung is not None
        self._ledger.append(
            "ranked", trial=name, rung=rung, rung_s=self._rule.marks[rung], seen_s=trial.seen_s, promoted=True,
            scored=asdict(self._rule.score_of(rung, name)), **asdict(self._rule.rank(rung, name)),
        )  # fmt: skip
        return trial, ""

    def _unfinished(self) -> TrialRecord | None:
        """A trial that an interrupt, a crash of the driver or a budget that is now larger had ended."""
        spent_up = bool(self._spent_up())
        for trial in self._ledger.state.trials.values():
            waits = trial.is_open or (trial.cause == "budget" and trial.can_go_on and not trial.of)
            if waits and trial.id not in self.held and (trial.of or not spent_up):
                return trial
        return None

    def _waiting_at(self) -> dict[str, int]:
        """The paused trials that can go on, and the rung at which each waits."""
        return {
            trial.id: trial.waits_at
            for trial in self._ledger.state.searched
            if trial.waits_at is not None and trial.can_go_on and not trial.audited and trial.id not in self.held
        }

    def _promotable(self) -> str | None:
        """The paused trial that its rung would let pass by now."""
        return None if self._spent_up() else self._rule.promotable(self._waiting_at())

    def _recalled(self) -> TrialRecord | None:
        """The second look, when no new setting is left: the best paused trial, until enough have come to their end."""
        if not self._search_is_over() or self._spent_up():
            return None
        waiting = self._waiting_at()
        trials = self._ledger.state.searched
        through = sum(trial.state == "finished" or trial.id in self.held for trial in trials)
        if through >= self._config.pruning.finish_share * len(trials):
            return None
        name = self._rule.second_look(waiting)
        return None if name is None else self._ledger.state.trials[name]

    def _search_is_over(self) -> bool:
        """Whether no new trial is begun; `over` says why."""
        state = self._ledger.state
        if len(state.searched) >= self._config.search.trials:
            self.over = f"{self._config.search.trials} trials were tried"
        elif self._space_is_used_up:
            self.over = "every setting of the space was tried"
        else:
            self.over = self._spent_up()
        return bool(self.over)

    def _spent_up(self) -> str:
        """Why the search may not go on, in words: finalists have their part of the budget kept for them."""
        return search_exhausted(self._ledger.state, self._config, time.time())

    def _new(self) -> TrialRecord | None:
        state = self._ledger.state
        number = len(state.searched)
        given = self._given()
        if given is None:
            proposed = self._study.propose(number)
            if proposed is None:
                self._space_is_used_up = True
                return None
            given = "search", proposed
        source, settings = given
        name = f"t{number:03d}"
        self._ledger.append("proposed", trial=name, settings=settings, source=source)
        self._study.update(state.trials[name])
        return state.trials[name]

    def _given(self) -> tuple[str, dict] | None:
        """The next recipe that the settings name, as (source, settings), or None when all have been tried."""
        trials = self._ledger.state.searched
        tried = {trial.source for trial in trials}
        if "baseline" not in tried:
            return "baseline", dict(self._config.baseline)
        for name, settings in self._config.starting_points.items():
            source = f"{STARTING_POINT}{name}"
            if source not in tried and not any(trial.settings == settings for trial in trials):
                return source, dict(settings)
        return None

    def _to_audit(self) -> TrialRecord | None:
        """A trial that lost at a rung and was drawn to run on."""
        if self._spent_up():
            return None
        for trial in self._ledger.state.searched:
            if trial.audited and trial.can_go_on and trial.id not in self.held:
                return trial
        return None

    def _finalists_wait(self) -> bool:
        """Whether a run on a fresh seed is to be begun or to go on, and can be paid."""
        state = self._ledger.state
        due = self._paused_finalist() is not None or bool(missing(state, self._config))
        return due and not exhausted(state, self._config, time.time())

    def _paused_finalist(self) -> TrialRecord | None:
        """A run on a fresh seed that the budget had ended."""
        waiting = (trial for trial in self._ledger.state.finalists if trial.cause == "budget" and trial.can_go_on)
        return next((trial for trial in waiting if trial.id not in self.held), None)

    def _finalist(self) -> TrialRecord | None:
        """The next run on a fresh seed."""
        state = self._ledger.state
        if not self._finalists_wait():
            return None
        paused = self._paused_finalist()
        if paused is not None:
            return paused
        for name, of, settings in missing(state, self._config):
            self._ledger.append("proposed", trial=name, settings=settings, source=FINALIST, of=of)
            return state.trials[name]
        return None
