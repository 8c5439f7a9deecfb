"""Show what pruning would have saved a finished sweep: its complete curves on the virtual clock.

In: a finished sweep in MLflow. Out: seconds of work with and without our rule, and whether the rule would have stopped
the winner. Called by `python -m sweeps.replay --sweep`. Of a sweep that pruned, only the trials that ran to their end
are replayed: so the figures are of those, and say nothing of a pruned trial that would have won.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hausa_asr.settings.sweep import PruningSettings
from sweeps.replay.compare import Setup
from sweeps.replay.curves import BASELINE, Curve, draw, of_sweep
from sweeps.replay.intervals import Column, Estimate, share
from sweeps.replay.rules import Options, Ours
from sweeps.replay.simulate import Simulation, simulate, timeline

if TYPE_CHECKING:
    from hausa_asr.tracking.tracker import Tracker


@dataclass(frozen=True)
class Savings:
    """The work of the replayed trials with and without our rule.

    Attributes:
        trials: how many were replayed.
        winner: the trial with the lowest dev WER.
        wer: that WER.
        as_run_s: seconds of work of all trials at full length.
        with_rule_s: seconds of work with the rule, in the sweep's own order.
        kept: whether the winner runs to its end in that order.
        stopped: how many other trials are stopped in that order.
        with_rule_share: over random orders, work with the rule as a share of the work at full length.
        kept_share: share of the random orders in which the winner runs to its end.
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


def show_savings(tracker: Tracker, sweep: str, pruning: PruningSettings, workers: int, setup: Setup) -> dict[str, Any]:
    """Replay a finished sweep, print what pruning would save it, and return the figures for JSON.

    Args:
        tracker: an open experiment.
        sweep: the run id or the name of the sweep.
        pruning, workers, setup: as for `savings`.

    Raises:
        UserError: as `of_sweep`.
    """
    curves, left_out = of_sweep(tracker, sweep)
    saved = savings(curves, pruning, workers, setup)
    print(in_words(sweep, saved, left_out, workers))
    return {**asdict(saved), "left_out": left_out, "workers": workers, "replays": setup.replays}


def savings(curves: Sequence[Curve], pruning: PruningSettings, workers: int, setup: Setup) -> Savings:
    """Run a sweep's trials again with our rule, at their own evaluations.

    Args:
        curves: complete, in the order in which the trials began.
        pruning: rungs, reduction factor and what is ranked.
        workers: trials side by side.
        setup: how many random orders are simulated besides the sweep's own, and their seed.
    """
    winner = min(curves, key=lambda curve: min(point.wer for point in curve.points))
    timelines = {curve.name: timeline(curve, (), 0) for curve in curves}
    baseline = curves[0].source == BASELINE
    options = Options(max(curve.length_s for curve in curves), epoch_s=0.0, pruning=pruning, baseline=baseline)
    as_run_s = sum(one.at_s[-1] for one in timelines.values())

    def run(order: Sequence[Curve]) -> tuple[Simulation, bool]:
        done = simulate(Ours(options), [timelines[curve.name] for curve in order], workers)
        return done, order.index(winner) not in done.stopped

    first, kept = run(curves)
    shuffled = [run(draw([[curve] for curve in curves], setup.seed, replay)) for replay in range(setup.replays)]
    work_s = np.array([done.work_s for done, _ in shuffled])
    return Savings(
        trials=len(curves),
        winner=winner.name,
        wer=timelines[winner.name].wer,
        as_run_s=as_run_s,
        with_rule_s=first.work_s,
        kept=kept,
        stopped=len(first.stopped) - (not kept),
        with_rule_share=share(Column(work_s / as_run_s)),
        kept_share=share(Column(np.array([float(kept) for _, kept in shuffled]))),
    )


def in_words(sweep: str, saved: Savings, left_out: dict[str, int], workers: int) -> str:
    """Say in a few lines what pruning would save, whether the winner is kept, and what the replay cannot know."""
    others = ", ".join(f"{count} {state}" for state, count in sorted(left_out.items()))
    share = saved.with_rule_share
    # With trials left out, the work of the others is not that of the sweep as it ran.
    whole = "without pruning" if left_out else "as run"
    fate = "kept" if saved.kept else "STOPPED"
    lines = [
        f"sweep {sweep}: {saved.trials} trials that ran to their end"
        + (f"; left out, since their curves are cut: {others}" if others else ""),
        f"{whole:<17}{saved.as_run_s / 3600:.2f} hours of work",
        f"{'with pruning':<17}{saved.with_rule_s / 3600:.2f} hours in the order of the sweep, {workers} side by side, "
        f"with {saved.stopped} losers stopped",
        f"{'':<17}{share.mean * saved.as_run_s / 3600:.2f} hours, {share.mean:.0%} ({share.low:.0%} to "
        f"{share.high:.0%}), on average over random orders",
        f"{'the winner':<17}{saved.winner}, WER {saved.wer:.3f}, would have been {fate}; "
        f"in random orders it is kept in {saved.kept_share.mean:.0%}",
    ]
    if left_out.get("pruned"):
        lines.append(
            f"{'not known':<17}a pruned trial might have won; only a sweep without pruning (--set pruning.rule=none) "
            "shows that"
        )
    return "\n".join(lines)
