"""What pruning saves on a finished sweep: its complete curves, run again by the virtual clock.

In: the curves of the trials that ran to their end, in the order in which they began. Out: seconds of work with and
without our rule, and whether the winner comes through. Printed by `python -m sweeps.replay --sweep`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hausa_asr.settings.sweep import PruningSettings
from sweeps.replay.compare import Estimate, Resamples
from sweeps.replay.curves import Curve, draw
from sweeps.replay.rules import Options, Ours
from sweeps.replay.simulate import Simulation, simulate, timeline


@dataclass(frozen=True)
class Savings:
    """What our rule would have made of a sweep.

    Attributes:
        trials: how many were replayed.
        winner: the one with the lowest dev WER.
        wer: that WER.
        as_run_s: seconds of work of all of them at full length.
        with_rule_s: the same with the rule, in the order in which they were run.
        kept: whether the winner would have come to its end in that order.
        stopped: how many others would not have.
        with_rule_share: over random orders, work with the rule as a share of the work at full length.
        kept_share: in how many of those orders the winner comes to its end.
    """

    trials: int
    winner: str
    wer: float
    as_run_s: float
    with_rule_s: float
    kept: bool
    stopped: int
    with_rule_share: Estimate
    kept_share: Estimate


def savings(curves: Sequence[Curve], pruning: PruningSettings, workers: int, replays: int, seed: int) -> Savings:
    """Run a sweep's trials again with our rule, at the evaluations that they had.

    Args:
        curves: complete, in the order in which the trials began.
        pruning: rungs, reduction factor and what is ranked.
        workers: trials side by side.
        replays: how many random orders are tried besides.
        seed: of the orders.
    """
    winner = min(curves, key=lambda curve: min(point.wer for point in curve.points))
    timelines = {curve.name: timeline(curve, (), 0) for curve in curves}
    options = Options(max(curve.length_s for curve in curves), epoch_s=0.0, pruning=pruning)
    as_run_s = sum(one.at_s[-1] for one in timelines.values())

    def run(order: Sequence[Curve]) -> tuple[Simulation, bool]:
        done = simulate(Ours(options), [timelines[curve.name] for curve in order], workers)
        return done, order.index(winner) not in done.stopped

    first, kept = run(curves)
    shuffled = [run(draw([[curve] for curve in curves], seed, replay)) for replay in range(replays)]
    sample = Resamples(replays, seed)
    work_s = np.array([done.work_s for done, _ in shuffled])
    return Savings(
        trials=len(curves),
        winner=winner.name,
        wer=timelines[winner.name].wer,
        as_run_s=as_run_s,
        with_rule_s=first.work_s,
        kept=kept,
        stopped=len(first.stopped) - (not kept),
        with_rule_share=sample.mean((work_s / as_run_s).tolist()),
        kept_share=sample.mean([float(kept) for _, kept in shuffled]),
    )


def in_words(sweep: str, saved: Savings, left_out: dict[str, int], workers: int) -> str:
    """Answer the question: what would pruning have saved me?"""
    others = ", ".join(f"{count} {state}" for state, count in sorted(left_out.items()))
    share = saved.with_rule_share
    lines = [
        f"sweep {sweep}: {saved.trials} trials that ran to their end"
        + (f"; left out, since their curves are cut: {others}" if others else ""),
        f"as run        {saved.as_run_s / 3600:.2f} hours of work",
        f"with pruning  {saved.with_rule_s / 3600:.2f} hours in the order of the sweep, {workers} side by side, "
        f"with {saved.stopped} losers stopped",
        f"              {share.mean * saved.as_run_s / 3600:.2f} hours, {share.mean:.0%} ({share.low:.0%} to "
        f"{share.high:.0%}), on average over random orders",
        f"the winner    {saved.winner}, WER {saved.wer:.3f}, would have been {'kept' if saved.kept else 'STOPPED'}; "
        f"in random orders it is kept in {saved.kept_share.mean:.0%}",
    ]
    return "\n".join(lines)
