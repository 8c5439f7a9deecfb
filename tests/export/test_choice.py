"""Which of MLflow's runs is the best: within one sweep, by rank, and among sweeps that can be compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hausa_asr.errors import UserError
from hausa_asr.export.choice import Choice, choose
from hausa_asr.tracking.reader import SweepRun, TrialRun


def trial(name: str, wer: float | None, sweep: str = "one", dataset: str = "aaaa1111", **more: Any) -> TrialRun:
    tags = {"fingerprint": dataset, "prepared": f"/data/{dataset[:4]}_prepared", **more.pop("tags", {})}
    cer = None if wer is None else wer / 2
    metrics = {} if wer is None else {"test_wer": wer + 0.1, "test_cer": wer}
    return TrialRun(f"run of {name}", sweep, sweep, name, "finished", "FINISHED", wer, cer, wer, metrics,
                    more.pop("params", {}), tags)  # fmt: skip


def sweep(name: str, winner: str = "", seeds: int = 0, **metrics: float) -> dict[str, SweepRun]:
    tags = {"winner": winner[:4], "winner_run": winner, "winner_seeds": str(seeds)} if winner else {}
    return {name: SweepRun(name, name, "FINISHED", tags, metrics)}


def best(trials: list[TrialRun], parents: dict[str, SweepRun], **options: Any) -> Choice:
    return choose(trials, parents, "a server", **{"one_sweep": True, **options})


def test_sweeps_on_different_datasets_are_not_compared() -> None:
    """The demo's WER is low, and says nothing of people."""
    trials = [trial("t001", 0.1, "demo", "dddd0000"), trial("t002", 0.5), trial("t003", 0.4, "two")]
    parents = sweep("demo") | sweep("one") | sweep("two")
    with pytest.raises(UserError, match="different datasets") as refused:
        best(trials, parents, one_sweep=False)
    assert "dddd_prepared (dddd0000; sweeps demo)" in str(refused.value)
    assert "aaaa_prepared (aaaa1111; sweeps one, two)" in str(refused.value)
    for named in ("aaaa_prepared", "aaaa1111", "aaa"):
        assert best(trials, parents, one_sweep=False, dataset=named).run.trial == "t003"
    with pytest.raises(UserError, match="bbbb is not there"):
        best(trials, parents, one_sweep=False, dataset="bbbb")
    assert best(trials[1:], parents, one_sweep=False).run.trial == "t003", "one dataset needs no name"


def test_the_kth_best_of_a_sweep_without_finalists() -> None:
    trials = [trial("t000", 0.5), trial("t001", 0.3), trial("t002", 0.4), trial("t003", None)]
    found = [best(trials, sweep("one"), rank=rank) for rank in (1, 2, 3)]
    assert [(one.run.trial, one.wer, one.seeds) for one in found] == [
        ("t001", 0.3, 0), ("t002", 0.4, 0), ("t000", 0.5, 0),
    ]  # fmt: skip
    with pytest.raises(UserError, match="no model of rank 4: it has 3"):
        best(trials, sweep("one"), rank=4)
    with pytest.raises(UserError, match="a place within one sweep"):
        best(trials, sweep("one"), one_sweep=False, rank=2)


def test_finalists_are_ranked_by_their_means_and_the_search_is_left_out() -> None:
    trials = [trial("t000", 0.5), trial("t001", 0.1), trial("t002", 0.2)]
    for setting, wers in (("t002", (0.20, 0.24)), ("t001", (0.22, 0.30)), ("t000", (0.50, 0.54))):
        trials += [
            trial(f"{setting}-s{seed}", wer, tags={"finalist_of": setting}) for seed, wer in enumerate(wers, start=1)
        ]
    trials.append(trial("t001-s1-d25", 0.05, tags={"finalist_of": "t001"}, params={"train_share": "0.25"}))
    parents = sweep("one", "t002-s1", 2, best_wer=0.22, best_cer=0.1, test_wer=0.3)
    first, second, third = (best(trials, parents, rank=rank) for rank in (1, 2, 3))
    assert (first.run.trial, first.wer, first.test_wer, first.seeds) == ("t002-s1", 0.22, 0.3, 2)
    assert (second.run.trial, second.wer, second.seeds) == ("t001-s1", pytest.approx(0.26), 2)
    assert second.test_wer == pytest.approx(0.36) and third.run.trial == "t000-s1"
    with pytest.raises(UserError, match="it has 3 to choose from"):
        best(trials, parents, rank=4)


def test_without_a_base_the_next_finalist_of_another_counts_or_else_the_search() -> None:
    large, small = {"base": "large"}, {"base": "small"}
    trials = [trial("t000", 0.5, tags=small), trial("t001", 0.4, tags=small), trial("t002", 0.2, tags=large)]
    trials += [trial("t002-s1", 0.22, tags={**large, "finalist_of": "t002"})]
    trials += [trial("t000-s1", 0.52, tags={**small, "finalist_of": "t000"})]
    parents = sweep("one", "t002-s1", 1, best_wer=0.22)
    assert best(trials, parents).run.trial == "t002-s1"
    second = best(trials, parents, without=["large"])
    assert (second.run.trial, second.wer, second.seeds) == ("t000-s1", 0.52, 1)
    assert best(trials[:-1], parents, without=["large"]).run.trial == "t001", "by its one seed"
    with pytest.raises(UserError, match="has a WER"):
        best(trials, parents, without=["large", "small"])


def test_between_sweeps_each_ones_best_of_the_other_bases_counts() -> None:
    large, small = {"base": "large"}, {"base": "small"}
    one = [trial("t002", 0.2, tags=large), trial("t002-s1", 0.22, tags={**large, "finalist_of": "t002"}),
           trial("t001-s1", 0.25, tags={**small, "finalist_of": "t001"})]  # fmt: skip
    two = [trial("t003", 0.35, "two", tags=small), trial("t003-s1", 0.35, "two", tags={**small, "finalist_of": "t003"})]
    parents = sweep("one", "t002-s1", 1, best_wer=0.22) | sweep("two", "t003-s1", 1, best_wer=0.35)
    chosen = best([*one, *two], parents, one_sweep=False, without=["large"])
    assert chosen.run.trial == "t001-s1", "though the other is a sweep's winner"
    three = [trial("t004", 0.3, "three", tags=small)]
    assert best([*two, *three], parents | sweep("three"), one_sweep=False, without=["large"]).run.trial == "t004"


def test_a_run_that_names_no_base_can_be_left_out_too() -> None:
    with pytest.raises(UserError, match="has a WER"):
        best([trial("t001", 0.2)], sweep("one"), without=[""])


def test_a_trial_that_failed_with_no_checkpoint_on_disk_is_no_choice() -> None:
    gone = replace(trial("t001", 0.1), state="failed")
    kept = replace(trial("t002", 0.2, tags={"checkpoint_uri": "file:///x"}), state="failed")
    assert best([gone, kept, trial("t003", 0.3)], sweep("one")).run.trial == "t002"
