"""Training waits for the copy of a state and for no disk, and what is reported and resumed from is always complete.

Long, since each test comes to one moment of the same fine-tune and its disk.
"""

from __future__ import annotations

import errno
import itertools
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hausa_asr.model.evaluate import evaluate
from hausa_asr.recipe import TRAINING, Answer, FinetuneConfig, Progress
from hausa_asr.storage.retry import StorageAway
from hausa_asr.training import checkpoint, saving, states
from hausa_asr.training.finetune import Data, finetune
from helpers.fine_tunes import RECIPE, losses, run, wait_for
from helpers.speech import ToneSplit

DATA = Data(ToneSplit(24, 0), ToneSplit(8, 1))
EVERY = replace(RECIPE, length_s=480, lr_peak=1e-2, hidden_dropout=0.1)
"""Each evaluation is better than the one before; five updates lie between two."""


class Disk:
    """The real disk, whose `fsync` can be held up or fail for a step's optimizer state."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held: dict[int, threading.Event] = {}
        self.full: set[int] = set()
        self.waiting: list[int] = []
        self.real = saving.fsync
        monkeypatch.setattr(saving, "fsync", self.fsync)
        monkeypatch.setattr(states, "_WRITING_SHARE", 1e-9)  # so that only rungs have states

    def fsync(self, path: Path) -> None:
        step = int(path.parent.name.removeprefix(".step-").removesuffix(".partial"))
        if path.name == TRAINING and step in self.full:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        if path.name == TRAINING and step in self.held:
            self.waiting.append(step)
            assert self.held[step].wait(40)
        self.real(path)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture(scope="module")
def steps(layer_norm_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The seconds of audio by which each step was trained on, to put rungs there."""
    _, reports = run(EVERY, DATA, layer_norm_base, tmp_path_factory.mktemp("steps"))
    return {one.step: one.seen_s for one in reports}


def check(progress: Progress) -> None:
    """What a report names can be resumed from."""
    if progress.checkpoint:
        there = Path(progress.checkpoint)
        kept = json.loads((there / "progress.json").read_text())
        assert kept["step"] <= progress.step
        checkpoint.load(there)
        if not kept["last"]:
            torch.load(there / TRAINING, weights_only=True)
        assert (there.parent / f"step-{kept['best']['step']:06d}" / "progress.json").is_file(), "and its best"


def trained(
    base: Path,
    folder: Path,
    rungs: list[float],
    act: Callable[[Progress], Answer | None],
    recipe: FinetuneConfig = EVERY,
    **more: Any,
) -> tuple[str, list[Progress]]:
    """Fine-tune with an action at each report; how it ended, and its reports."""
    reports: list[Progress] = []

    def report(progress: Progress) -> Answer:
        reports.append(progress)
        check(progress)
        return act(progress) or Answer.CONTINUE

    result = finetune(recipe, DATA, report, base=str(base), folder=folder, evaluate_at_s=rungs, **more)
    check(result.progress)
    return result.end, [*reports, result.progress]


def resumable(folder: Path) -> int:
    newest = checkpoint.latest(folder)
    return newest.step if newest else 0


def test_training_goes_on_while_a_state_is_held_up_and_the_report_names_the_one_before(
    disk: Disk, layer_norm_base: Path, tmp_path: Path, steps: dict[int, float]
) -> None:
    disk.held[10] = threading.Event()
    seen: list[tuple[int, str]] = []

    def act(progress: Progress) -> None:
        seen.append((progress.step, Path(progress.checkpoint).name))
        if progress.step == 5:
            wait_for(lambda: resumable(tmp_path) == 5)
        if progress.step == 20:
            assert resumable(tmp_path) == 5 and disk.waiting == [10], "one at a time: the rung at 15 has none"
            disk.held[10].set()
            wait_for(lambda: resumable(tmp_path) == 10)

    rungs = [steps[5], steps[10], steps[15]]
    end, reports = trained(layer_norm_base, tmp_path, rungs, act)
    assert end == "finished"
    assert seen[1:5] == [(10, "step-000005"), (15, "step-000005"), (20, "step-000005"), (25, "step-000010")]
    assert reports[-1].checkpoint == reports[-2].checkpoint == str(tmp_path / f"step-{reports[-1].step:06d}")
    _, plain = run(EVERY, DATA, layer_norm_base, tmp_path / "plain")
    assert losses(reports[:-1]) == losses(plain), "and nothing of what is learned changes"


@pytest.mark.parametrize("stop", [10, 15])
def test_where_a_trial_is_paused_all_is_written_before_it_leaves(
    disk: Disk, layer_norm_base: Path, tmp_path: Path, steps: dict[int, float], stop: int
) -> None:
    """At the rung whose state is held up, and after it."""
    disk.held[10] = threading.Event()

    def act(progress: Progress) -> Answer | None:
        if progress.step == stop:
            threading.Timer(1.0, disk.held[10].set).start()
            return Answer.PAUSE
        return None

    averaged, began_s = replace(EVERY, ema_fraction=0.2), time.monotonic()
    end, reports = trained(layer_norm_base, tmp_path, [steps[10]], act, averaged)
    assert end == "paused" and time.monotonic() - began_s > 1
    assert resumable(tmp_path) == stop and reports[-1].checkpoint == str(tmp_path / f"step-{stop:06d}")
    assert not list(tmp_path.glob(".step-*"))
    disk.held.clear()
    _, on = run(averaged, DATA, layer_norm_base, tmp_path)
    _, plain = run(averaged, DATA, layer_norm_base, tmp_path / "plain")
    assert losses(on) == [one for one in losses(plain) if one[0] >= stop]


def test_the_best_model_of_before_is_complete_before_the_state_that_needs_it(
    disk: Disk, layer_norm_base: Path, tmp_path: Path, steps: dict[int, float]
) -> None:
    worse = replace(EVERY, lr_peak=0.3, warmup_fraction=0.9, hidden_dropout=0.0)
    disk.held[25] = threading.Event()

    def act(progress: Progress) -> Answer | None:
        if progress.step != 30:
            return None
        assert not checkpoint.all_checkpoints(tmp_path)
        disk.held[25].set()
        wait_for(lambda: resumable(tmp_path) == 25)
        best = checkpoint.best(tmp_path)
        assert best is not None and best.step < 25, "its best is behind it"
        loss = evaluate(*checkpoint.load(best.folder), DATA.dev).loss
        assert loss == pytest.approx(best.progress["best"]["loss"], rel=1e-6), "the weights of then, not of now"
        return Answer.STOP

    trained(layer_norm_base, tmp_path, [steps[25]], act, worse)


def test_before_its_machine_goes_the_state_is_complete_when_it_is_reported(
    disk: Disk, layer_norm_base: Path, tmp_path: Path, steps: dict[int, float]
) -> None:
    disk.held[10] = threading.Event()
    in_store: list[int] = []

    def hurry() -> bool:
        if disk.waiting:
            disk.held[10].set()
        return bool(disk.waiting)

    def act(progress: Progress) -> Answer | None:
        if progress.step == 15:
            assert progress.checkpoint.endswith("step-000015") and in_store[-1] == 15
            return Answer.PAUSE
        return None

    end, _ = trained(
        layer_norm_base, tmp_path, [steps[10]], act, hurry=hurry, put=lambda: in_store.append(resumable(tmp_path))
    )
    assert (end, in_store) == ("paused", [10, 15, 15]), "at once, and again with its scores"


def _train_until_held(base: str, folder: str, rungs: list[float]) -> None:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch)
        disk.held[15] = threading.Event()

        def act(progress: Progress) -> None:
            if progress.step == 5:
                wait_for(lambda: resumable(Path(folder)) == 5)
            if progress.step == 25:
                wait_for(lambda: disk.waiting == [15])
                os.kill(os.getpid(), signal.SIGKILL)

        trained(Path(base), Path(folder), rungs, act)


@pytest.mark.slow
def test_killed_while_a_state_is_written_it_resumes_from_the_one_before_on_the_same_curve(
    layer_norm_base: Path, tmp_path: Path, steps: dict[int, float]
) -> None:
    folder = tmp_path / "killed"
    child = multiprocessing.get_context("spawn").Process(
        target=_train_until_held, args=(str(layer_norm_base), str(folder), [steps[5], steps[15]])
    )
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    assert (folder / ".step-000015.partial" / TRAINING).is_file(), "in the middle of it"
    assert resumable(folder) == 5
    _, on = run(EVERY, DATA, layer_norm_base, folder)
    _, plain = run(EVERY, DATA, layer_norm_base, tmp_path / "plain")
    assert on[0].step == 5 and losses(on) == losses(plain)


def test_a_disk_that_is_full_ends_the_trial_with_its_reason_and_the_checkpoints_before(
    disk: Disk, layer_norm_base: Path, tmp_path: Path, steps: dict[int, float]
) -> None:
    disk.full.add(10)
    reports: list[Progress] = []

    def act(progress: Progress) -> None:
        reports.append(progress)
        if progress.step == 5:
            wait_for(lambda: resumable(tmp_path) == 5)

    with pytest.raises(OSError, match="No space left") as full:
        trained(layer_norm_base, tmp_path, [steps[5], steps[10]], act)
    assert full.value.errno == errno.ENOSPC
    assert reports[-1].step <= 10, "at the next evaluation at the latest"
    assert resumable(tmp_path) == 5


def test_a_store_that_is_away_trains_on_until_it_has_not_answered_for_long_and_then_says_so(
    disk: Disk, layer_norm_base: Path, tmp_path: Path, steps: dict[int, float]
) -> None:
    gives_up = threading.Event()
    reports: list[Progress] = []

    def put() -> None:
        assert gives_up.wait(40)
        raise StorageAway("The storage has not answered for 600 s.")

    def act(progress: Progress) -> None:
        reports.append(progress)
        if progress.step == 25:
            gives_up.set()
            wait_for(lambda: not any(one.name == "checkpoint" for one in threading.enumerate()))

    with pytest.raises(StorageAway):
        trained(layer_norm_base, tmp_path, [steps[10]], act, put=put)
    assert [one.step for one in reports] == [5, 10, 15, 20, 25], "before the next report"
    assert not any(one.checkpoint for one in reports), "what is not in the store is not named"
    best = checkpoint.best(tmp_path)
    assert best is not None and best.step == reports[-1].best["step"] > 10, "what was in memory is on the disk"


def test_asked_for_at_every_evaluation_none_is_left_out(
    disk: Disk, layer_norm_base: Path, tmp_path: Path, steps: dict[int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(path: Path) -> None:
        time.sleep(0.05)
        disk.real(path)

    monkeypatch.setattr(saving, "fsync", slow)
    reports: list[Progress] = []

    def report(progress: Progress) -> Answer:
        reports.append(progress)
        return Answer.CONTINUE

    finetune(replace(EVERY, checkpoint_every_s=0), DATA, report, base=str(layer_norm_base), folder=tmp_path)
    for before, one in itertools.pairwise(reports):
        assert one.checkpoint in {str(tmp_path / f"step-{step:06d}") for step in (before.step, one.step)}


def test_what_diverges_gets_no_state(disk: Disk, layer_norm_base: Path, tmp_path: Path) -> None:
    class Broken(ToneSplit):
        def __getitem__(self, index: int):
            example = super().__getitem__(index)
            return example._replace(samples=example.samples * float("nan"))

    reports: list[Progress] = []

    def report(progress: Progress) -> Answer:
        reports.append(progress)
        return Answer.CONTINUE

    recipe = replace(EVERY, eval_every_steps=100, checkpoint_every_s=0)
    result = finetune(recipe, Data(Broken(24, 0), DATA.dev), report, base=str(layer_norm_base), folder=tmp_path)
    assert result.end == "diverged" and reports[-1].step == 10
    assert [one.step for one in checkpoint.all_checkpoints(tmp_path)] == [10]
    assert not list(tmp_path.glob(f"*/{TRAINING}"))
