"""A sweep at work: what all that drives it shares.

In: the settings, the folder, the prepared dataset and the slots. Out: one frozen `Sweep`, which `run` opens and hands
to the search and to the sweep's end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from hausa_asr.ctc import frames, guess_loss
from hausa_asr.dataset.prepared import Prepared
from hausa_asr.errors import first_line
from hausa_asr.settings.sweep import SweepConfig
from hausa_asr.storage.address import portable
from hausa_asr.storage.retry import patience
from hausa_asr.text import VOCAB
from sweeps.driver.publisher import Publisher
from sweeps.driver.sweep_folder import save
from sweeps.planning.budget import devices
from sweeps.planning.slots import SlotPlan
from sweeps.prediction.predictor import Predictor
from sweeps.pruning.rule import Rule
from sweeps.pruning.rungs import rungs_s
from sweeps.record.ledger import Ledger
from sweeps.record.names import RESULT_FILE
from sweeps.record.state import FAULT, INTERRUPTED, State

_LEAVE_S = 2.0
"""How long a store that is away is waited for when the driver leaves."""


@dataclass(frozen=True)
class Sweep:
    """What a sweep is and holds.

    Attributes:
        config: its settings.
        ledger: its ledger, in whose folder all of it is.
        prepared: its prepared dataset.
        plan: its slots, and what a worker takes.
        rule: its pruning rule, with the rungs and cohorts that the ledger has.
        predictor: where its trials will end, by that rule's cohorts; the study adds settings and ends.
    """

    config: SweepConfig
    ledger: Ledger
    prepared: Prepared
    plan: SlotPlan
    rule: Rule
    predictor: Predictor

    @property
    def name(self) -> str:
        """Its name, which is its folder's."""
        return self.ledger.state.name

    @property
    def folder(self) -> Path:
        """Where settings, ledger, checkpoints and results are."""
        return self.ledger.folder

    def guess_loss(self) -> float:
        """The eval loss of guessing each frame of dev evenly: the mean over its utterances, in nats per label."""
        dev = self.prepared.splits["dev"]
        labels = (dev.without_samples(index).labels.tolist() for index in range(len(dev)))
        lengths = map(frames, dev.n_samples.tolist())
        return fmean(guess_loss(length, row, len(VOCAB)) for length, row in zip(lengths, labels, strict=True))

    def chance_missed(self) -> tuple[int, float] | None:
        """How many trials a rung has stopped, and the chance that one of them would have won the search; or None.

        To win means to end at full length with a lower dev WER than the best has.
        """
        state = self.ledger.state
        best, stopped = state.best(), [trial.id for trial in state.stopped]
        if best is None or not stopped:
            return None
        return len(stopped), self.predictor.chance_missed(best.id, stopped)

    def leave(self, how: str, why: str = "") -> None:
        """Write down that the driver leaves the sweep before its end, for those who watch it.

        Args:
            how: as in the ledger's state: `PAUSED_ITSELF`, `INTERRUPTED` or `FAULT`.
            why: in words.
        """
        if self.ledger.state.left is None and not (self.folder / RESULT_FILE).exists():
            self.ledger.append_at_once("left", how=how, why=why)
            with suppress(Exception), patience(_LEAVE_S):  # the driver's end may be too sudden for anything later
                self.ledger.published()

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """Write down that the driver leaves the sweep, and why, if an exception ends the block."""
        try:
            yield
        except KeyboardInterrupt:
            self.leave(INTERRUPTED)
            raise
        except Exception as fault:
            self.leave(FAULT, first_line(fault))
            raise

    @property
    def tags(self) -> dict[str, str]:
        """What each of its runs in MLflow says of base checkpoint and data."""
        prepared = self.prepared
        return {
            "base": ", ".join(self.config.bases),
            "prepared": portable(prepared.path),
            "fingerprint": prepared.fingerprint,
        }


def open_sweep(
    config: SweepConfig, folder: Path, prepared: Prepared, plan: SlotPlan, publisher: Publisher | None = None
) -> Sweep:
    """Begin a sweep in its folder, or go on with the one that is there.

    Args:
        config: its settings.
        folder: its folder on this node.
        prepared: its dataset.
        plan: its slots.
        publisher: puts what is new into the object store; None on a disk.
    """
    ledger, place = Ledger(folder), portable(prepared.path)
    save(config, folder)
    (folder / RESULT_FILE).unlink(missing_ok=True)  # of a finished sweep that is given more trials
    if publisher is not None:
        publisher.drop(RESULT_FILE)
        publisher.files()  # before the ledger's first part: a sweep that is killed here has what a resume needs
        ledger.published = publisher.ledger
    if not ledger.state.name:
        ledger.append(
            "sweep", name=folder.name, prepared=place, fingerprint=prepared.fingerprint,
            rungs=rungs_s(config),
        )  # fmt: skip
    ledger.append(
        "opened", slots=plan.slots, devices=devices(config.resources), price_per_hour=config.budget.price_per_hour,
        **({"workers": config.resources.most_workers} if config.resources.has_range else {}),
        **({"gpus": list(plan.gpus)} if config.resources.gpus_per_worker else {}),
        **({"prepared": place} if ledger.state.prepared != place else {}),
    )  # fmt: skip
    if publisher is not None:
        publisher.start()
    rule = rule_of(config, ledger.state)
    return Sweep(config, ledger, prepared, plan, rule, predictor_of(config, rule))


def rule_of(config: SweepConfig, state: State) -> Rule:
    """The pruning rule with the rungs and the cohorts that the ledger has."""
    rule = Rule(state.marks, config.pruning.reduction, config.pruning.rank_by)
    for rung, cohort in state.rungs.items():
        for trial, scored in cohort.items():
            rule.record(rung, trial, scored)
    return rule


def predictor_of(config: SweepConfig, rule: Rule) -> Predictor:
    """The predictor of a rule's trials, by which the rule ranks from now on if the settings say so."""
    predictor = Predictor(rule.shares(config.recipe().length_s))
    if config.pruning.rank_by == "predicted":
        rule.predict = predictor.means
    return predictor
