"""Planted shapes of learning curves, and what is said of them."""

from __future__ import annotations

import math

from hausa_asr.diagnosis.curve import Evaluated, read_curve, turning_point


def curve(wers: list[float], losses: list[float] | None = None, **more: list[float]) -> list[Evaluated]:
    """Evaluations at every 100 steps."""
    losses = losses or [10.0 * wer for wer in wers]
    return [
        Evaluated(100 * number, wer, loss, **{name: values[number - 1] for name, values in more.items()})
        for number, (wer, loss) in enumerate(zip(wers, losses, strict=True), start=1)
    ]


def said(shape: list[Evaluated], updates: int | None = None, warmup: float = 250.0) -> str:
    return " ".join(read_curve(shape, updates or shape[-1].step, warmup))


def test_the_published_run_turns_before_its_warm_up_ends() -> None:
    """WER 1.0 to 1.2 until step 880, then down to 0.6; warm-up to step 1,000; gradient norm 60, then 10 to 15."""
    wers = [1.0, 1.1, 1.2, 1.1, 1.05, 1.0, 1.0, 1.0, 0.95, 0.9, 0.8, 0.7, 0.65, 0.62, 0.6]
    losses = [25.0, 12.0, 8.0, 5.0, 4.0, 3.5, 3.2, 3.0, 2.6, 2.2, 1.9, 1.7, 1.6, 1.55, 1.5]
    norms = [60.0, 50.0, 40.0, 30.0, 25.0, 20.0, 18.0, 15.0, 14.0, 12.0, 11.0, 13.0, 12.0, 12.0, 12.0]
    text = said(curve(wers, losses, grad_norm=norms), warmup=1_000.0)
    assert "Plateau until step 800, turning point by step 900 (60 % of its length)" in text
    assert "peak at step 1,000, so the turning point comes before it" in text
    assert "The gradient norm settles: 60 at first, 12 in the last half" in text
    assert "still falling at the end" in text and "overfit" not in text


def test_a_model_that_learns_nothing_stays_on_the_plateau() -> None:
    text = said(curve([1.0, 1.0, 1.02, 1.0, 1.0], [20.0, 8.0, 5.0, 4.0, 3.5]))
    assert (
        text == "It had not left the plateau by step 500: WER is 1.00 there, while its eval loss went from 20 to 3.5."
    )
    assert turning_point(curve([1.0, 0.9, 1.0, 0.9])) is None, "one evaluation is chance"
    assert "left the plateau only at its last evaluation, step 300, with WER 0.60" in said(curve([1.0, 1.0, 0.6]))


def test_nothing_is_said_of_the_peak_where_it_lies_between_two_evaluations() -> None:
    wers = [1.0, 1.0, 0.6, 0.5, 0.5]
    assert "peak at step 200, so the turning point comes after it" in said(curve(wers), warmup=200.0)
    assert "peak at step 300, so the turning point comes before it" in said(curve(wers), warmup=300.0)
    assert "peak" not in said(curve(wers), warmup=250.0)


def test_the_loss_may_overfit_while_words_do_not() -> None:
    losses = [2.0, 1.0, 0.5, 0.6, 0.7, 0.8]
    falling = said(curve([0.9, 0.6, 0.4, 0.35, 0.33, 0.32], losses))
    assert "lowest at step 300 and 60 % higher at step 600, while WER falls on from 0.400 to 0.320" in falling
    assert "and WER rises from 0.400 to 0.480: it overfits" in said(curve([0.9, 0.6, 0.4, 0.42, 0.45, 0.48], losses))
    assert "WER stays about the same" in said(curve([0.9, 0.6, 0.4, 0.4, 0.4, 0.4], losses))
    assert "shorter fine-tune would have been enough" in said(curve([0.9, 0.6, 0.4, 0.42, 0.45, 0.48], losses))


def test_the_gap_of_train_and_eval_and_gradients_that_do_not_settle() -> None:
    shape = curve(
        [0.9, 0.5, *[0.4] * 6], [2.0, 1.0, *[0.8] * 6], train_loss=[2.0, 1.0, *[0.2] * 6], grad_norm=[9.0, 1.0] * 4
    )
    text = said(shape)
    assert "4.0 times the train loss" in text and "does not settle: from 1 to 9 in the last half" in text


def test_nothing_is_said_of_what_is_fine_or_unknown() -> None:
    assert read_curve(curve([0.9, 0.5]), 200, 50.0) == []
    text = said(curve([0.95, 0.5, 0.3, 0.3, 0.3, 0.3]))
    assert text.startswith("It had left the plateau by its first evaluation, at step 100") and text.count(".") < 4
    cut = said(curve([0.95, 0.5, 0.4, 0.3, 0.2]), updates=1_000)
    assert "still falling" not in cut, "it was stopped before its end"
    assert read_curve(curve([math.nan] * 5), 500, 50.0) == []
