"""What pruning costs: which losers are drawn to run on, and how many of those would have won.

Each trial that loses at a rung for the first time is drawn with a small probability and runs on to its end, while
search and rungs see it as stopped. The scheduler draws; the report counts. Counts of several sweeps may be added.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

from sweeps.record.ledger import State, TrialRecord

ENOUGH = 20
"""With fewer audits the interval is too wide to be of use: of 20 without a win it ends at 17 %."""
_TAIL = 0.025


def drawn(seed: int, trial: str, share: float) -> bool:
    """Whether a trial that loses is audited: the same answer in every process and whatever else has happened.

    Args:
        seed: the search's.
        trial: its id.
        share: the probability, 0 to 1.
    """
    digest = hashlib.blake2b(f"audit {seed} {trial}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < share


@dataclass(frozen=True)
class Estimate:
    """How often pruning stops a trial that would have won.

    Attributes:
        won: audited trials that would have won.
        audited: all audited trials that came to their end.
        share: the one over the other, NaN for none.
        low, high: its 95 % interval (Clopper and Pearson, 1934).
    """

    won: int
    audited: int
    share: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """For the end of a sweep."""
        if not self.audited:
            return "no estimate: 0 audited"
        digits = 0 if self.audited < 100 else 1
        share, low, high = (f"{100 * value:.{digits}f} %" for value in (self.share, self.low, self.high))
        told = f"{self.won} of {self.audited} audited would have won: {share} [{low}, {high}]"
        return told if self.audited >= ENOUGH else f"{told}; {ENOUGH - self.audited} more for a useful estimate"


def estimate(won: int, audited: int) -> Estimate:
    """The estimate of `won` in `audited`. Raises `ValueError` where there are more of the one than of the other."""
    if not 0 <= won <= audited:
        raise ValueError(f"{won} of {audited} cannot have won")
    if not audited:
        return Estimate(0, 0, math.nan, 0.0, 1.0)
    low = 0.0 if won == 0 else _root(lambda p: 1 - _at_most(won - 1, audited, p) - _TAIL)
    high = 1.0 if won == audited else _root(lambda p: _TAIL - _at_most(won, audited, p))
    return Estimate(won, audited, won / audited, low, high)


def audits(state: State, promoted_in_the_end: Callable[[str], bool]) -> tuple[int, int]:
    """How many audited trials of a sweep would have won, and how many there are.

    One would have won if it ended with a lower dev WER than the sweep has without its audits, and if its rung would not
    have let it go on in the end. Only those that finished count: where some diverge later, pruning costs less than this
    says.

    Args:
        state: the sweep.
        promoted_in_the_end: whether a trial's rung, as it is at the end, lets it pass.
    """
    done = [trial for trial in state.searched if trial.audited and trial.state == "finished"]
    stopped = {trial.id for trial in state.searched if trial.audited and not promoted_in_the_end(trial.id)}
    others = [_wer_at_loss(trial) if trial.id in stopped else _wer(trial) for trial in state.searched]
    best = min(others, default=math.inf)
    return sum(trial.id in stopped and _wer(trial) < best for trial in done), len(done)


def _wer(trial: TrialRecord) -> float:
    """Of its best checkpoint, which is what a sweep selects by; infinite before the first report."""
    return trial.best["wer"] if trial.best else math.inf


def _wer_at_loss(trial: TrialRecord) -> float:
    """The same as it was when the trial lost, which is all that the sweep would know of it without the audit."""
    lost_s = math.inf if trial.lost_s is None else trial.lost_s
    return min((report["best"]["wer"] for report in trial.reports if report["seen_s"] <= lost_s), default=math.inf)


def _at_most(k: int, n: int, p: float) -> float:
    """P(X <= k) of a binomial with 0 < p < 1."""
    log_p, log_q = math.log(p), math.log1p(-p)
    n_ways = (math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(k + 1))
    return math.fsum(math.exp(ways + i * log_p + (n - i) * log_q) for i, ways in enumerate(n_ways))


def _root(rising: Callable[[float], float]) -> float:
    """Where a rising function of a probability is 0, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2
