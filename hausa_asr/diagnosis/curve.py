"""Read a learning curve: what it shows of plateau, warm-up, gradients and overfitting, in sentences.

In: the evaluations of one fine-tune. Out: sentences by rules that can be read below, each with its figures. Called by a
sweep's report and by the model card. It knows nothing of other fine-tunes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hausa_asr.ctc import PLATEAU_WER

RISE, GAP, STILL_FALLING = 0.1, 1.5, 0.05
"""How far the eval loss must rise above its lowest, how far it must be above the train loss, and how much WER must fall
after three quarters of the length, each as a share, before it is said."""
LEAST_NORMS = 8
"""Evaluations from which it is said whether the gradient norm settles."""
SAME = 0.02
"""WERs so close to each other, as a share, are called the same."""
SETTLED = 1.5
"""Gradient norms of the last half within this factor of their median have settled."""


@dataclass(frozen=True)
class Evaluated:
    """One evaluation of a fine-tune.

    Attributes:
        step: optimizer updates done.
        wer, loss: on dev.
        train_loss, grad_norm: means since the evaluation before, with dropout and masks; NaN if unknown.
    """

    step: int
    wer: float
    loss: float
    train_loss: float = math.nan
    grad_norm: float = math.nan


def turning_point(curve: Sequence[Evaluated]) -> int | None:
    """The place of the first evaluation from which WER is below 0.97 twice running; None before that."""
    below = [one.wer < PLATEAU_WER for one in curve]
    return next((place for place in range(len(below) - 1) if below[place] and below[place + 1]), None)


def read_curve(curve: Sequence[Evaluated], updates: int, warmup_updates: float) -> list[str]:
    """Read a curve.

    Args:
        curve: all evaluations, by rising step.
        updates: of the whole fine-tune.
        warmup_updates: after how many of them the learning rate is at its peak.

    Returns:
        One sentence for each thing that can be said; none of a curve of fewer than three evaluations.
    """
    known = [one for one in curve if math.isfinite(one.loss) and math.isfinite(one.wer)]
    if len(known) < 3:
        return []
    return [
        *_plateau(known, updates, warmup_updates),
        *_gradients(known),
        *_overfitting(known),
        *_unfinished(known, updates),
    ]


def _plateau(curve: Sequence[Evaluated], updates: int, warmup_updates: float) -> Iterator[str]:
    turned = turning_point(curve)
    last = curve[-1]
    if turned is None:
        fell = f"its eval loss went from {curve[0].loss:.3g} to {last.loss:.3g}"
        if last.wer < PLATEAU_WER:
            ends = f"step {last.step:,}, with WER {last.wer:.2f}"
            yield f"It left the plateau only at its last evaluation, {ends}; {fell}."
        else:
            yield f"It had not left the plateau by step {last.step:,}: WER is {last.wer:.2f} there, while {fell}."
        return
    step = curve[turned].step
    share = f"{100 * step / max(updates, 1):.0f} % of its length"
    before = curve[turned - 1].step if turned else 0
    when = ""
    if warmup_updates <= before or warmup_updates >= step:
        order = "after" if warmup_updates <= before else "before"
        when = (
            f"; the learning rate is at its peak at step {warmup_updates:,.0f}, so the turning point comes {order} it"
        )
    if turned == 0:
        yield f"It had left the plateau by its first evaluation, at step {step:,} ({share}){when}."
    else:
        yield (
            f"Plateau until step {before:,}, turning point by step {step:,} ({share}): WER falls below {PLATEAU_WER:g} "
            f"there, at an eval loss of {curve[turned].loss:.3g}{when}."
        )


def _gradients(curve: Sequence[Evaluated]) -> Iterator[str]:
    norms = np.array([one.grad_norm for one in curve])
    if len(norms) < LEAST_NORMS or not np.isfinite(norms).all():
        return
    late = norms[len(norms) // 2 :]
    middle = float(np.median(late))
    if middle > 0 and late.max() <= SETTLED * middle and late.min() >= middle / SETTLED:
        yield f"The gradient norm settles: {norms[0]:.3g} at first, {middle:.3g} in the last half."
    else:
        yield (
            f"The gradient norm does not settle: from {late.min():.3g} to {late.max():.3g} in the last half, "
            f"{norms[0]:.3g} at first."
        )


def _overfitting(curve: Sequence[Evaluated]) -> Iterator[str]:
    last = curve[-1]
    lowest = min(curve, key=lambda one: one.loss)
    if last.loss > (1 + RISE) * lowest.loss and last.step > lowest.step:
        rose = 100 * (last.loss / max(lowest.loss, 1e-9) - 1)
        begins = f"The eval loss is lowest at step {lowest.step:,} and {rose:.0f} % higher at step {last.step:,}"
        between = f"from {lowest.wer:.3f} to {last.wer:.3f}"
        if last.wer < lowest.wer * (1 - SAME):
            yield f"{begins}, while WER falls on {between}: the loss overfits, the words do not."
        elif last.wer > lowest.wer * (1 + SAME):
            yield f"{begins}, and WER rises {between}: it overfits."
        else:
            yield f"{begins}, while WER stays about the same, {between}."
    if math.isfinite(last.train_loss) and last.train_loss > 0 and last.loss > GAP * last.train_loss:
        yield (
            f"At step {last.step:,} the eval loss is {last.loss / last.train_loss:.1f} times the train loss, though "
            "only training has dropout and masks: more data, or more of both, should help."
        )


def _unfinished(curve: Sequence[Evaluated], updates: int) -> Iterator[str]:
    last = curve[-1]
    before = [one for one in curve if one.step <= 0.75 * last.step]
    if last.step < 0.98 * updates or not before or turning_point(curve) is None:
        return
    fell = (before[-1].wer - last.wer) / max(before[-1].wer, 1e-9)
    best = min(curve, key=lambda one: one.wer)
    if fell > STILL_FALLING and best is last:
        yield (
            f"WER was still falling at the end, from {before[-1].wer:.3f} at step {before[-1].step:,} to "
            f"{last.wer:.3f}: a longer fine-tune may gain more."
        )
    elif best.step <= 0.75 * last.step:
        yield f"WER was lowest at step {best.step:,} of {last.step:,}, so a shorter fine-tune would have been enough."
