"""Checkpoints stay within their bound: real files, and never the best model, the baseline or what a slot has."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from hausa_asr.recipe import CHECKPOINT, TRAINING, step_folder
from helpers.events import report
from helpers.slots import Slots
from sweeps.driver import checkpoint_space
from sweeps.driver.checkpoint_space import CheckpointSpace
from sweeps.planning.disk import folder_at_rest
from sweeps.record.checkpoints import size
from sweeps.record.crashes import CRASH
from sweeps.record.trial import TrialRecord

WEIGHTS, STATE = 100_000, 200_000


def write(slots: Slots, trial: TrialRecord, steps: list[int]) -> None:
    """Checkpoints as a fine-tune leaves them: the newest can be gone on from."""
    folder = slots.ledger.trial_folder(trial.id)
    for step in steps:
        one = step_folder(folder, step)
        one.mkdir(parents=True, exist_ok=True)
        (one / "weights.safetensors").write_bytes(b"0" * WEIGHTS)
        (one / CHECKPOINT).touch()
        if step == max(steps):
            (one / TRAINING).write_bytes(b"0" * STATE)


@pytest.fixture(autouse=True)
def looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever a trial leaves."""
    monkeypatch.setattr(checkpoint_space, "_LOOKING_SHARE", math.inf)


@pytest.fixture
def slots(tmp_path: Path) -> Slots:
    """A baseline that runs, three losers that wait, and one more that runs; the losers' losses rise."""
    slots = Slots(tmp_path, "search.trials=6", "pruning.reduction=5", "finalists.k=1", "finalists.seeds=1")
    trials = [slots.take() for _ in range(5)]
    for trial in trials:
        write(slots, trial, [30])
    slots.ledger.append("reported", trial="t000", **report(30, 0.9, 1.0))
    for n, loss in ((1, 2.0), (2, 3.0), (3, 4.0)):
        slots.pause(trials[n], loss)
        write(slots, trials[n], [30])
    return slots


def space(slots: Slots, gigabytes: float | None) -> CheckpointSpace:
    slots.config = slots.config.model_copy(update={"max_checkpoint_gb": gigabytes})
    one = CheckpointSpace(slots.ledger, slots.rule, slots.config, slots.agenda.held)
    one.begin()
    return one


def kept(slots: Slots) -> dict[str, tuple[bool, bool]]:
    """By trial whether its weights and its optimizer's state are there."""
    return {
        name: (
            any(slots.ledger.trial_folder(name).glob("*/weights.safetensors")),
            any(slots.ledger.trial_folder(name).glob(f"*/{TRAINING}")),
        )
        for name in slots.ledger.state.trials
    }


def test_with_room_all_that_wait_can_go_on(slots: Slots) -> None:
    space(slots, 1.0).tidy(slots.ledger.state.trials["t003"])
    assert all(one == (True, True) for one in kept(slots).values())
    space(slots, None).tidy(slots.ledger.state.trials["t003"])
    assert all(one == (True, True) for one in kept(slots).values())


def test_what_a_worker_writes_after_its_trial_was_ended_goes_too(slots: Slots) -> None:
    one, trials = space(slots, 1.0), slots.ledger.state.trials
    slots.ledger.append("ended", trial="t004", state="failed", reason="diverged")
    one.tidy(trials["t004"])
    write(slots, trials["t004"], [40])  # its worker heard of it only now
    assert kept(slots)["t004"][1]
    one.tidy(trials["t003"])
    assert not kept(slots)["t004"][1]
    assert kept(slots)["t003"] == (True, True)


def test_the_worst_losers_optimizer_states_go_first(slots: Slots) -> None:
    total = size(slots.folder / "trials")
    assert total == 5 * (WEIGHTS + STATE)
    space(slots, (total - STATE) / 1e9).tidy(slots.ledger.state.trials["t003"])
    assert kept(slots)["t003"] == (True, False)
    assert not slots.ledger.state.trials["t003"].can_go_on
    assert [name for name, one in kept(slots).items() if one == (True, True)] == ["t000", "t001", "t002", "t004"]


@pytest.mark.parametrize(("folders", "stay"), [(4, True), (2.5, False)])
def test_a_disk_has_room_for_all_that_the_slots_may_still_write(
    slots: Slots, folders: float, stay: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_rest = folder_at_rest(slots.config)
    assert at_rest is not None and at_rest > 10 * (WEIGHTS + STATE)
    disk = SimpleNamespace(total=10 * at_rest, free=folders * at_rest)  # two trials are at work
    monkeypatch.setattr(shutil, "disk_usage", lambda place: disk)
    space(slots, None).tidy(slots.ledger.state.trials["t003"])
    after = kept(slots)
    assert after["t000"] == after["t004"] == (True, True), "they run"
    assert all(after[name][1] is stay for name in ("t002", "t003"))


def test_looking_through_slow_folders_takes_a_small_share_of_the_time(
    slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_space, "_LOOKING_SHARE", 0.05)
    one, trials, looked = space(slots, 1.0), slots.ledger.state.trials, []
    real = slots.ledger.checkpoints.size

    def slow(name: str) -> int:
        looked.append(name)
        time.sleep(0.01)
        return real(name)

    monkeypatch.setattr(slots.ledger.checkpoints, "size", slow)
    for _ in range(20):
        one.tidy(trials["t001"])
    # Each time the one that has left, and once, or twice on a slow machine, those at work too.
    assert 20 < len(looked) <= 20 + 2 * 3


def test_what_workers_write_after_their_trial_was_paused_counts_too(slots: Slots) -> None:
    trials = slots.ledger.state.trials
    bound = space(slots, size(slots.folder / "trials") / 1e9)
    for name in ("t001", "t002"):
        bound.tidy(trials[name])
    write(slots, trials["t001"], [30, 60])  # its worker is through only now, when another trial has left too
    bound.tidy(trials["t003"])
    assert size(slots.folder / "trials") <= 5 * (WEIGHTS + STATE)


def test_a_loser_that_was_handed_out_keeps_its_state_while_its_slot_starts(slots: Slots) -> None:
    slots.agenda.held.add("t003")
    space(slots, (5 * WEIGHTS + 4 * STATE) / 1e9).tidy(slots.ledger.state.trials["t001"])
    assert {name for name, (_, state) in kept(slots).items() if not state} == {"t002"}


def test_then_whole_losers_but_never_the_best_the_baseline_or_what_runs(slots: Slots) -> None:
    for trial, wer in (("t001", 0.2), ("t002", 0.5), ("t003", 0.6)):
        slots.ledger.state.trials[trial].reports[-1].best["wer"] = wer
    space(slots, 1e-9).tidy(slots.ledger.state.trials["t001"])
    there = kept(slots)
    assert there["t002"] == there["t003"] == (False, False)
    assert there["t001"][0], "the best model so far"
    assert there["t000"] == there["t004"] == (True, True), "slots have them"


def test_an_ended_trial_keeps_its_best_model_only_and_half_written_ones_go(slots: Slots) -> None:
    trial = slots.ledger.state.trials["t004"]
    write(slots, trial, [30, 100])
    (slots.ledger.trial_folder("t004") / ".step-000110.partial").mkdir()
    told = {**report(100, 0.6, 0.5), "best": {"step": 30, "wer": 0.5, "cer": 0.2, "loss": 0.5}}
    slots.ledger.append("reported", trial="t004", **told)
    slots.ledger.append("ended", trial="t004", state="finished", reason="")
    space(slots, None).tidy(trial)
    left = [path.name for path in slots.ledger.trial_folder("t004").iterdir()]
    assert left == ["step-000030"]
    assert kept(slots)["t004"] == (True, False)


def test_what_workers_still_write_of_a_trial_that_was_just_paused_stays(slots: Slots) -> None:
    trial = slots.ledger.state.trials["t004"]
    bound = space(slots, None)
    half = slots.ledger.trial_folder("t004") / ".step-000110.partial"
    half.mkdir(parents=True)
    slots.ledger.append("paused", trial="t004", cause="rung", reason="number 5 of 5")
    bound.tidy(trial)
    assert half.is_dir()
    slots.ledger.append("paused", trial="t004", cause=CRASH, reason="its node is gone")
    bound.tidy(trial)
    assert not half.exists()


def test_a_best_that_is_still_in_its_workers_memory_costs_no_checkpoint_that_is_there(slots: Slots) -> None:
    trial = slots.ledger.state.trials["t004"]
    told = {**report(100, 0.6, 0.5), "best": {"step": 80, "wer": 0.5, "cer": 0.2, "loss": 0.5}}
    slots.ledger.append("reported", trial="t004", **report(30, 0.7))
    slots.ledger.append("reported", trial="t004", **told)
    slots.ledger.append("ended", trial="t004", state="failed", reason="diverged")
    space(slots, None).tidy(trial)
    assert kept(slots)["t004"] == (True, False)


def test_what_killed_trials_left_half_written_is_gone_before_anything_runs(slots: Slots) -> None:
    orphan = slots.ledger.trial_folder("t001") / ".step-000040.partial"
    orphan.mkdir()
    (orphan / TRAINING).write_bytes(b"0")
    space(slots, None)
    assert not orphan.exists()
