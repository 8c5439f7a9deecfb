"""The pruning rule: which trials pass a rung, are promoted, get a second look, or have diverged."""

from __future__ import annotations

import math

import pytest

from sweeps.pruning.divergence import divergence
from sweeps.pruning.rule import Point, Rule, Score, score, turned
from sweeps.pruning.rungs import rungs


def scored(loss: float, wer: float = 1.0, cer: float = 1.0, past: bool = False) -> Score:
    return Score(loss, wer, cer, past)


def rule_with(*losses: float, reduction: int = 2, rank_by: str = "loss") -> Rule:
    """One rung at 100 s with trials a, b, c, ... of these losses."""
    rule = Rule([100.0], reduction, rank_by)  # type: ignore[arg-type]
    for name, loss in zip("abcdefghij", losses, strict=False):
        rule.record(0, name, scored(loss))
    return rule


def test_rungs_rise_by_the_reduction_and_stay_below_the_length() -> None:
    assert rungs(9000, 0.25, 2) == [2250, 4500]
    assert rungs(9000, 0.1, 3) == pytest.approx([900, 2700, 8100])
    assert rungs(9000, 0.5, 2) == [4500]


def test_the_best_share_passes_rounded_up() -> None:
    rule = rule_with(5.0, 4.0, 3.0, 2.0, 1.0, reduction=2)
    assert [rule.rank(0, name).passed for name in "abcde"] == [False, False, True, True, True]
    fourth = rule.rank(0, "b")
    assert (fourth.place, fourth.cohort, fourth.passing, fourth.value, fourth.cutoff) == (4, 5, 3, 4.0, 3.0)


def test_who_is_alone_at_a_rung_goes_on() -> None:
    rule = rule_with(1.0, reduction=3)
    first = rule.rank(0, "a")
    assert (first.passed, first.cutoff) == (True, 1.0), "with nobody to compare with, nothing speaks against it"
    rule.record(0, "b", scored(2.0))
    rule.record(0, "c", scored(3.0))
    assert rule.promotable({"b": 0, "c": 0}) is None
    rule.record(0, "d", scored(4.0))
    assert rule.promotable({"b": 0, "c": 0, "d": 0}) == "b"


def test_blend_is_right_on_the_plateau_and_when_the_loss_rises_by_overfitting() -> None:
    plateau = Rule([100.0], 2, "blend")
    for name, loss in (("slow", 3.0), ("fast", 2.0)):
        plateau.record(0, name, scored(loss))
    assert [plateau.rank(0, name).place for name in ("slow", "fast")] == [2, 1]
    late = Rule([100.0], 2, "blend")
    for name, loss, wer in (("overfits", 1.4, 0.2), ("learns less", 1.2, 0.4), ("worst", 1.3, 0.5)):
        late.record(0, name, scored(loss, wer, wer / 3, past=True))
    assert late.rank(0, "overfits").place == 1


def test_predicted_ranks_by_what_is_expected_and_without_a_prediction_by_blend() -> None:
    rule = Rule([100.0], 2, "predicted")
    for name, loss in (("a", 1.0), ("b", 2.0)):
        rule.record(0, name, scored(loss))
    assert (rule.rank(0, "a").metric, rule.rank(0, "a").place) == ("blend", 1)
    rule.predict = lambda trials: {"a": 0.5, "b": -0.5}
    ranking = rule.rank(0, "b")
    assert (ranking.metric, ranking.place, ranking.value, ranking.passed) == ("predicted", 1, -0.5, True)
    assert rule.second_look({"a": 0, "b": 0}) == "b"


def test_of_equals_no_more_pass_than_there_is_room_for() -> None:
    rule = rule_with(1.0, 1.0, 1.0, 1.0, reduction=2)
    waiting = {"a": 0, "b": 0, "c": 0, "d": 0}
    passed = []
    while (name := rule.promotable(waiting)) is not None:
        passed.append(name)
        del waiting[name]
    assert passed == ["a", "b"]


def test_a_paused_trial_is_promoted_when_its_cohort_has_grown_and_the_highest_rung_goes_first() -> None:
    rule = Rule([100.0, 200.0], 2, "loss")
    for name, loss in (("a", 1.0), ("b", 3.0)):
        rule.record(0, name, scored(loss))
    for name, loss in (("a", 0.9), ("x", 0.5)):
        rule.record(1, name, scored(loss))
    assert rule.promotable({"b": 0, "a": 1}) is None
    for name, loss in (("c", 4.0), ("d", 5.0)):
        rule.record(0, name, scored(loss))
    assert rule.promotable({"b": 0, "a": 1}) == "b"
    rule.record(1, "b", scored(2.0))
    assert rule.promotable({"c": 0, "a": 1}) == "a"


def test_the_second_look_takes_the_best_of_all_who_wait() -> None:
    rule = Rule([100.0, 200.0], 2, "loss")
    for name, loss in zip("abcd", (1.0, 2.0, 3.0, 4.0), strict=True):
        rule.record(0, name, scored(loss))
    for name, loss in (("a", 0.5), ("b", 0.9)):
        rule.record(1, name, scored(loss))
    # b is the last of two at the second rung, which half of all came to; c is the third of four at the first.
    assert rule.second_look({"b": 1, "c": 0, "d": 0}) == "b"
    assert rule.second_look({"c": 0, "d": 0}) == "c"
    assert rule.second_look({}) is None


def test_loss_is_ranked_on_the_plateau_and_wer_after_it() -> None:
    rule = Rule([100.0], 2, "auto")
    # On the plateau: WER is 1 for both, or above it for the one that has begun to hear something.
    rule.record(0, "hears", scored(2.0, wer=1.3, cer=0.7))
    rule.record(0, "silent", scored(3.0, wer=1.0, cer=1.0))
    assert rule.metric(0) == "loss"
    assert rule.rank(0, "hears").passed
    # Most have turned: the lower WER counts, though its loss is higher.
    for name, loss, wer in (("u", 1.0, 0.5), ("v", 1.2, 0.3), ("w", 0.9, 0.6)):
        rule.record(0, name, scored(loss, wer, wer / 3, past=True))
    assert rule.metric(0) == "wer"
    ranking = rule.rank(0, "v")
    assert (ranking.metric, ranking.place, ranking.value) == ("wer", 1, 0.3)
    assert rule.rank(0, "w").place == 3


def test_wer_counts_up_to_one_and_cer_breaks_ties() -> None:
    assert scored(1.0, wer=1.4, cer=0.6).key("wer") < scored(1.0, wer=1.0, cer=0.9).key("wer")
    assert scored(1.0, wer=0.5, cer=0.2).key("wer") < scored(1.0, wer=0.5, cer=0.3).key("wer")


def test_a_trial_that_is_not_ready_passes_a_rung_unranked_and_is_ranked_at_the_next() -> None:
    rule = Rule([100.0, 300.0], 3, "loss")
    assert rule.due("a", 120.0, ready_s=150.0) == []
    assert rule.due("a", 300.0, ready_s=150.0) == [1]
    assert rule.due("b", 99.0, ready_s=0.0) == []
    assert rule.due("b", 310.0, ready_s=0.0) == [0, 1]
    rule.record(1, "a", scored(1.0))
    assert rule.due("a", 300.0, ready_s=150.0) == []


def test_the_turning_point_takes_two_evaluations() -> None:
    def curve(*wers: float) -> list[Point]:
        return [Point(float(n), 2.0, wer, 0.5) for n, wer in enumerate(wers)]

    assert not turned(curve(0.9))
    assert turned(curve(1.0, 0.96, 0.9))
    assert not turned(curve(0.9, 0.98))
    assert score(curve(1.0, 0.9, 0.8)) == Score(2.0, 0.8, 0.5, True)
    with pytest.raises(ValueError):
        score([])


def plateau(*losses: float, cer: float = 1.0, wer: float = 1.0) -> list[Point]:
    return [Point(100.0 * (n + 1), loss, wer, cer) for n, loss in enumerate(losses)]


LEARNING = [[Point(100.0, 2.5, 0.9, 0.4), Point(200.0, 1.0, 0.5, 0.2), Point(300.0, 0.8, 0.4, 0.1)]] * 6


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_has_diverged_whoever_is_there(loss: float) -> None:
    assert divergence(plateau(loss), 0.0, [])


def test_worse_than_guessing_and_a_blow_up_have_diverged() -> None:
    assert "guessing" in divergence(plateau(60.0), 0.0, [], 20.0)
    assert not divergence(plateau(60.0), 100.0, [], 20.0), "still warming up, or frozen"
    assert not divergence(plateau(28.0), 0.0, [], 31.6), "slow speech has more frames for each label"
    assert "rose" in divergence(plateau(1.0, 0.9, 4.0, cer=0.6, wer=0.9), 0.0, [])
    assert not divergence(plateau(12.0), 0.0, []), "an untrained model's loss"
    assert not divergence(plateau(1.0, 1.3, cer=0.6, wer=0.9), 0.0, []), "noise"
    assert not divergence(plateau(0.02, 0.07, cer=0.01, wer=0.03), 0.0, []), "a small loss may triple"


def test_blank_collapse_is_one_only_where_others_of_the_age_have_left_the_plateau() -> None:
    stuck = plateau(3.0, 2.99)
    assert "nothing is heard" in divergence(stuck, 0.0, LEARNING)
    assert not divergence(stuck, 0.0, LEARNING[:3]), "too few to compare with"
    assert not divergence(stuck, 250.0, LEARNING), "still warming up"
    assert not divergence(plateau(3.0, 2.7), 0.0, LEARNING), "slow, but it falls"
    assert not divergence(plateau(16.2, 13.1, 10.4), 0.0, LEARNING), "so does this one, far above the others"
    assert not divergence(stuck, 0.0, [plateau(3.0, 3.0, 2.9)] * 6), "so are all others"
    assert not divergence(stuck, 0.0, [one[:1] for one in LEARNING]), "no other has come so far"
