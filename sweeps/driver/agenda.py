"""What a free slot does next. No Ray in here: the searcher hands the agenda's orders to Ray Tune.

In: the ledger's state, the study, the rule and the budget. Out: one order at a time, written to the ledger before it is
given out. In this order: the baseline to its end, if the wall clock leaves just enough for it; trials that were
interrupted; paused ones that their rung now promotes; new ones, baseline and starting points first; when no new one is
left the baseline to its end, then the second look at the others that wait; those under which something broke, if no
other trial has reported since; and when no slot searches any more, the finalists.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from hausa_asr.settings.sweep import SweepConfig
from sweeps.driver.baseline_turn import BaselineTurn
from sweeps.driver.failures import Failures
from sweeps.driver.finalists_turn import FinalistsTurn
from sweeps.driver.named_recipes import named_in_settings
from sweeps.planning.budget import baseline_exhausted, exhausted, search_exhausted
from sweeps.pruning.rule import Rule
from sweeps.record.crashes import CRASH
from sweeps.record.ledger import Ledger
from sweeps.record.trial import TrialRecord
from sweeps.sampling.study import Study

RECALL = "recall"


@dataclass(frozen=True)
class Order:
    """What a slot does next: train a trial, wait, or end.

    `why` is `recall` when a paused trial goes on to its end, by the second look or as the baseline; else "".
    """

    do: Literal["train", "wait", "end"]
    trial: TrialRecord | None = None
    why: str = ""


WAIT, END = Order("wait"), Order("end")


class Agenda:
    """Give out orders and take trials back.

    Args:
        config: the sweep's settings.
        ledger: the sweep's ledger.
        rule: its rungs, as the ledger has them.
        study: what the sampler knows.

    Attributes:
        held: the trials that slots have or are about to have.
        failures: what follows when something breaks under a trial.
    """

    def __init__(self, config: SweepConfig, ledger: Ledger, rule: Rule, study: Study) -> None:
        self._config, self._ledger, self._rule, self._study = config, ledger, rule, study
        self.held: set[str] = set()
        self.failures = Failures(ledger, config.cluster)
        self._space_is_used_up = False
        self._search_ended = ""
        self._ended = False
        self._work: tuple[tuple[int, ...], bool] | None = None
        self._baseline = BaselineTurn(config, ledger, self.held, lambda: self.over)
        self._finalists = FinalistsTurn(config, ledger, self.held)
        self._search_sources: tuple[tuple[str, Callable[[], TrialRecord | None]], ...] = (
            (RECALL, self._baseline.if_due),
            ("", self._unfinished),
            ("", self._promote),
            ("", self._new),
            (RECALL, self._baseline.at_last),
            (RECALL, self._second_look),
            ("", self._broken),
        )
        for trial in ledger.state.searched:
            study.update(trial)

    def next(self) -> Order:
        """Give out the next order; what it begins is in the ledger by then."""
        if self.failures.too_many():
            return WAIT if self.held else END  # a trial that is still at work may show that all is well
        if self.failures.rests(bool(self.held)):
            return WAIT
        for why, source in self._search_sources:
            trial = source()
            if trial is not None:
                return self._train(trial, why)
        if self._searching():
            return WAIT  # its reports may promote a paused trial, and finalists are chosen when all is known
        if self._finalists.wait():
            self._search_ended = self.over  # for this driver; the next may have more trials or a larger budget
            return self._train(self._finalists.next())
        if self._more_may_follow():
            return WAIT
        self._ended = True
        return END

    def is_done(self) -> bool:
        """Whether no trial is left to start or resume, and no slot has one.

        A slot that was ended gets no more orders. So what comes to be possible after that, by a little that is left of
        the budget, is for a driver that resumes the sweep.
        """
        if self.held or self.failures.too_many() or self.is_to_go_on():
            return False
        return self._ended or not (self._search_goes_on() or self._finalists.wait())

    def is_to_go_on(self) -> bool:
        """Whether something broke under a trial when there were no more orders for the other slots: begin anew."""
        return self._ended and not self.held and self._broken() is not None and not self.failures.too_many()

    def begin_anew(self) -> None:
        """Give out orders again, after the last one was to end."""
        self._ended = False

    def has_work(self) -> bool:
        """Whether `next` would give out something else than to wait.

        It is asked before each of Tune's steps, and among many trials it takes long to say. So it is asked anew where
        the ledger has more, and once a second, since budgets are spent by the clock.
        """
        seen = self._ledger.events, len(self.held), int(time.monotonic())
        if self._work is None or self._work[0] != seen:
            self._work = seen, self._has_work()
        return self._work[1]

    def _has_work(self) -> bool:
        if self.failures.too_many():
            return not self.held
        if self.failures.rests(bool(self.held)):
            return False
        if self._search_goes_on():
            return True
        return not self._searching() and (self._finalists.wait() or not self._more_may_follow())

    @property
    def over(self) -> str:
        """Why no new trials are started, in words; "" while some are."""
        if self._search_ended:
            return self._search_ended
        if len(self._ledger.state.searched) >= self._config.search.trials:
            return f"{self._config.search.trials} trials were tried"
        if self._space_is_used_up:
            return "every setting of the space was tried"
        return self._spent_up()

    def back(self, trial: TrialRecord) -> None:
        """Take a trial back from its slot; the ledger has what became of it."""
        self.held.discard(trial.id)
        if not trial.of:
            self._study.update(trial)

    def finish(self) -> None:
        """End what is still paused, at the end of a sweep; with more trials or a larger budget it can go on."""
        over = self.over
        for trial in self._ledger.state.trials.values():
            if trial.state == "paused" or trial.is_open:
                reason, cause = (over, "budget") if trial.is_open else (trial.reason, trial.cause)
                self._ledger.append("ended", trial=trial.id, state="pruned", reason=reason, cause=cause)

    def _train(self, trial: TrialRecord, why: str = "") -> Order:
        self.held.add(trial.id)
        self._baseline.way_is_made = False
        return Order("train", trial, why)

    def makes_way(self) -> bool:
        """Whether a slot must leave its trial to the baseline, see `BaselineTurn.makes_way`."""
        return self._baseline.makes_way()

    # -- the search --------------------------------------------------------------------------------------------

    def _searching(self) -> bool:
        """Whether a slot has a trial of the search, on whose end the choice of the finalists depends.

        It does not on the baseline's, which is always one of them, once nothing stops it any more.
        """
        last_s = max(self._rule.marks, default=0.0)
        return any(
            not trial.of and not (trial.is_baseline and (trial.recalled or trial.seen_s > last_s))
            for trial in self._held_trials()
        )

    def _held_trials(self) -> Iterator[TrialRecord]:
        return (self._ledger.state.trials[name] for name in self.held)

    def _more_may_follow(self) -> bool:
        """Whether there may be more to do when a slot's trial ends: by the baseline's, others may stand better."""
        return self._finalists.growth_is_to_come() or any(trial.is_baseline for trial in self._held_trials())

    def _search_goes_on(self) -> bool:
        """Whether the search has a trial to start or to resume. Starts nothing."""
        resumable = self._baseline.if_due() or self._unfinished() or self._promotable()
        at_the_end = self._baseline.at_last() or self._second_look() or self._broken()
        return bool(resumable or at_the_end) or not self.over

    def _unfinished(self) -> TrialRecord | None:
        """The first trial that a slot had under another driver, else that broke, or that the budget had ended."""
        waiting = self._those_that(lambda one: self._was_interrupted(one) or self._is_to_be_tried_again(one))
        return min(waiting, key=lambda trial: not trial.is_open, default=None)

    def _broken(self) -> TrialRecord | None:
        """The trial under which something broke longest ago, though no other one has reported since."""
        crashes = self._ledger.state.crashes
        waiting = self._those_that(lambda trial: trial.waits_for_workers)
        return min(waiting, key=lambda one: last.time if (last := crashes.last_of(one.id)) else 0.0, default=None)

    def _those_that(self, wait: Callable[[TrialRecord], bool]) -> Iterator[TrialRecord]:
        """The trials that wait so, that no slot has and that the budget allows."""
        spent_up = bool(self._spent_up()) or self._baseline.way_is_made
        for trial in self._ledger.state.trials.values():
            if wait(trial) and trial.id not in self.held and self._is_paid(trial, spent_up):
                yield trial

    def _is_paid(self, trial: TrialRecord, spent_up: bool) -> bool:
        """Whether the budget allows a trial to go on: finalists and the baseline have parts of their own."""
        state, now = self._ledger.state, time.time()
        if trial.of:
            return not (trial.waits_for_workers and exhausted(state, self._config, now))
        if trial.is_baseline and trial.waits_for_workers:
            return not baseline_exhausted(state, self._config, now)
        return not spent_up

    def _was_interrupted(self, trial: TrialRecord) -> bool:
        return trial.is_open or (trial.cause == "budget" and trial.can_go_on and not trial.of)

    def _is_to_be_tried_again(self, trial: TrialRecord) -> bool:
        """Whether a trial broke, and another one has reported since, or another driver is at work now."""
        if trial.state == "failed":
            return trial.cause == CRASH and trial.id not in self._ledger.state.crashes.of_trial
        return trial.waits_for_workers and self.failures.may_try_again(trial.id)

    def _waiting_at(self) -> dict[str, int]:
        """The paused trials that can go on, and the rung at which each waits; the baseline not while that is young."""
        return {
            trial.id: trial.waits_at
            for trial in self._ledger.state.searched
            if trial.waits_at is not None and trial.can_go_on and trial.id not in self.held
            and not (trial.is_baseline and self._rule.is_young(trial.waits_at))
        }  # fmt: skip

    def _promotable(self) -> str | None:
        """The paused trial that its rung would let pass by now."""
        return None if self._spent_up() else self._rule.promotable(self._waiting_at())

    def _promote(self) -> TrialRecord | None:
        """Promote the paused trial that its rung lets pass by now, and write the decision down."""
        if (name := self._promotable()) is None:
            return None
        trial = self._ledger.state.trials[name]
        rung = trial.waits_at
        assert rung is not None
        self._ledger.append(
            "ranked", trial=name, rung=rung, rung_s=self._rule.marks[rung], seen_s=trial.seen_s, promoted=True,
            scored=asdict(self._rule.score_of(rung, name)), **asdict(self._rule.rank(rung, name)),
        )  # fmt: skip
        return trial

    def _new(self) -> TrialRecord | None:
        """Propose the next new trial; None if the search is over."""
        if self.over:
            return None
        state = self._ledger.state
        number = len(state.searched)
        given = named_in_settings(self._config, state.searched)
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

    def _second_look(self) -> TrialRecord | None:
        """The best paused trial, once no new setting is left and until enough trials have come to their end."""
        if not self.over or self._spent_up():
            return None
        trials = self._ledger.state.searched
        through = sum(trial.state == "finished" or trial.id in self.held for trial in trials)
        if through >= self._config.pruning.finish_share * len(trials):
            return None
        name = self._rule.second_look(self._waiting_at())
        return None if name is None else self._ledger.state.trials[name]

    def _spent_up(self) -> str:
        """Why the search may not go on, in words: the finalists' part of the budget is kept for them.

        Nor does it go on beside them: a better trial that came after they were chosen would make their runs useless.
        """
        return self._search_ended or search_exhausted(self._ledger.state, self._config, time.time())
