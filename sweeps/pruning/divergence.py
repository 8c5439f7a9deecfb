"""Detect that a trial has diverged, by its own curve and by those of its peers.

In: evaluations, the newest last. Out: why it has diverged, in words. Called at every report by the scheduler and the
replay.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from sweeps.pruning.rule import TURNED_WER, Point, turned

FAR_WORSE = 1.5
"""An eval loss this many times that of guessing is of no model that learns."""
BLOW_UP = 3.0
"""An eval loss this many times a trial's own best, or its peers' median, is no noise."""
PEERS = 4
"""With fewer trials of the same age, nothing is compared."""
PEERS_AT_MOST = 20
"""The latest are compared, at most this many."""


def divergence(
    points: Sequence[Point], ready_s: float, peers: Iterable[Sequence[Point]], guess: float = math.inf
) -> str:
    """Say why a trial has diverged; "" if it has not.

    Args:
        points: its evaluations so far.
        ready_s: after this many seconds of audio it can be compared with others.
        peers: the evaluations of the other trials; those trained on less audio do not count.
        guess: the eval loss of guessing, `guess_loss` of the dev split; by default it is not known.
    """
    last = points[-1]
    if not math.isfinite(last.loss):
        return f"eval loss is {last.loss}"
    if last.loss > FAR_WORSE * guess and last.seen_s > ready_s:
        return f"eval loss {last.loss:.1f} is far worse than guessing, which has {guess:.1f}"
    best = min(point.loss for point in points)
    if last.loss > BLOW_UP * best and last.loss > 2.0:
        return f"eval loss rose from {best:.3f} to {last.loss:.3f}"
    if last.cer < 0.95 or last.wer < TURNED_WER:
        return ""
    # Blank collapse: nothing is heard and the loss no longer falls, while others of that age have left the plateau.
    aged = [[p for p in peer if p.seen_s <= last.seen_s] for peer in peers if peer and peer[-1].seen_s >= last.seen_s]
    aged = [peer for peer in aged if peer]
    if len(aged) < PEERS or last.seen_s <= ready_s or len(points) < 2:
        return ""
    if last.loss < 0.98 * points[-2].loss:
        return ""  # slow, as with a small peak learning rate, but still learning
    left = sum(turned(peer) for peer in aged)
    if left >= 0.75 * len(aged):
        return f"nothing is heard (CER {last.cer:.2f}); {left} of {len(aged)} others of its age have left the plateau"
    losses = sorted(peer[-1].loss for peer in aged)
    if last.loss > BLOW_UP * max(losses[len(losses) // 2], 1.0):
        return f"eval loss {last.loss:.2f} where others of its age have {losses[len(losses) // 2]:.2f}"
    return ""
