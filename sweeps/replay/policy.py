"""What a simulated search asks of a rule, and what rules are made from.

In: one evaluation of a trial after another. Out: whether it goes on, and what a free worker does next. `simulate` calls
rules on a virtual clock. A rule is deterministic, and it sees only the evaluations made so far, never the rest of a
curve. The stock rules of other tools are in `stock`, ours in `ours`, and `rules` has them by name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from hausa_asr.settings.sweep import PruningSettings
from sweeps.pruning.rule import Point
from sweeps.pruning.rungs import rungs

Decision = Literal["go", "pause", "stop"]


class Settings(Protocol):
    """What a rule may know of a setting before it is tried."""

    @property
    def place(self) -> Sequence[float]:
        """Its settings as numbers; empty if they are not known."""
        ...


class PruningRule(Protocol):
    """A rule in a simulated search. Trials are known by their place in the order of proposal, from 0."""

    @property
    def marks(self) -> Sequence[float]:
        """Seconds of audio at which it needs an evaluation, rising; the first is where it can stop a trial soonest."""
        ...

    def decide(self, trial: int, points: Sequence[Point], ready_s: float) -> Decision:
        """Decide on a trial after a new evaluation, the last of `points`. At a trial's end the decision is ignored."""
        ...

    def resume(self, waiting: Sequence[int], running: Collection[int], fresh: int) -> int | None:
        """Choose what a free worker does.

        Args:
            waiting: the paused trials, in the order of their pauses.
            running: the trials of the other workers.
            fresh: how many settings have not been tried.

        Returns:
            The paused trial that goes on; None for a fresh setting, or to wait if no fresh one is left.
        """
        ...

    def pick(self, fresh: Sequence[int], running: Collection[int], settings: Sequence[Settings]) -> int:
        """Choose the fresh setting that is tried next, of those in the order of proposal."""
        ...


@dataclass(frozen=True)
class Options:
    """The options that a rule is made from.

    Attributes:
        length_s: seconds of audio of a trial.
        epoch_s: seconds of audio in the train split.
        pruning: rungs, reduction factor and what is ranked.
        first_picks: settings that are tried before the sampler chooses.
        baseline: whether the first setting is the baseline, which in our sweeps comes to its end last.
    """

    length_s: float
    epoch_s: float
    pruning: PruningSettings
    first_picks: int = 5
    baseline: bool = False

    def marks(self, first_rung: float | None = None, reduction: int | None = None) -> list[float]:
        """The rungs in seconds of audio; `first_rung` and `reduction` replace the settings' own."""
        return rungs(self.length_s, first_rung or self.pruning.first_rung, reduction or self.pruning.reduction)
