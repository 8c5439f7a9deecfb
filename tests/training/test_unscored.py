"""A machine that goes while dev is scored costs a trial nothing: its state is on the disk before, and in the store."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from hausa_asr.recipe import TRAINING, Answer, FinetuneResult, Progress
from hausa_asr.training import checkpoint, evaluation, finetune
from helpers.fine_tunes import RECIPE, losses, wait_for
from helpers.speech import ToneSplit

DATA = finetune.Data(ToneSplit(24, 0), ToneSplit(8, 1))
EVERY_TEN = replace(RECIPE, eval_every_steps=10, length_s=240, lr_peak=1e-2, hidden_dropout=0.1, ema_fraction=0.2)
_GOES, _LEAVES, _ON = "goes while dev is scored", "leaves", "goes on"


def _rank(rank: int, world: int, port: int, base: str, folder: str, notice: int, then: str) -> None:
    """Fine-tune as one rank; with a notice the machine goes in the evaluation that it brings about."""
    torch.set_num_threads(1)
    if world > 1:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= address | {"RANK": str(rank), "WORLD_SIZE": str(world)}
        dist.init_process_group("gloo")
    trial, reports, there, asked = Path(folder) / "trial", [], [], 0
    real = evaluation.evaluate

    def hurry() -> bool:
        nonlocal asked
        asked += 5
        return asked == notice

    def leave() -> bool:
        assert rank == 0, "the others go by its answer"
        return hurry()

    def evaluate(*given: object, **more: object) -> object:
        if then == _GOES and asked == notice:
            wait_for(lambda: checkpoint.latest(trial) is not None)
            if rank == 0:
                (Path(folder) / "put.json").write_text(json.dumps(there))
                os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **more)  # type: ignore[arg-type]

    def report(progress: Progress) -> Answer:
        reports.append(progress)
        return Answer.CONTINUE

    def put() -> None:
        there.append(checkpoint.latest(trial).step)  # type: ignore[union-attr]

    if then == _GOES:  # in a process of its own
        evaluation.evaluate = evaluate  # type: ignore[assignment]
    finetune.finetune(
        EVERY_TEN, DATA, report, base=base, folder=trial, put=put,
        hurry=hurry if notice and then != _LEAVES else None, leave=leave if then == _LEAVES else None,
    )  # fmt: skip
    if rank == 0:
        shown = [(*losses([one])[0], one.best["step"], one.metrics["masked_fraction"]) for one in reports]
        (Path(folder) / "reports.json").write_text(json.dumps(shown))
    if world > 1:
        dist.destroy_process_group()


def _train(world: int, base: Path, folder: Path, notice: int = 0, then: str = _ON) -> list[list[float]]:
    """Its reports by step."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = (world, port, str(base), str(folder), notice, then)
    if then == _GOES:
        with pytest.raises(mp.ProcessExitedException):
            mp.spawn(_rank, args=given, nprocs=world)
        return []
    if world == 1:
        _rank(0, *given)
    else:
        mp.spawn(_rank, args=given, nprocs=world)
    return json.loads((folder / "reports.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("world", "notice"), [(1, 5), pytest.param(2, 15, marks=pytest.mark.long)])
def test_a_machine_that_goes_while_dev_is_scored_costs_a_trial_no_update(
    world: int, notice: int, layer_norm_base: Path, tmp_path: Path
) -> None:
    _train(world, layer_norm_base, tmp_path / "spot", notice, _GOES)
    newest = checkpoint.latest(tmp_path / "spot/trial")
    assert newest is not None and (newest.step, newest.is_scored) == (notice, False)
    assert (newest.folder / TRAINING).is_file()
    assert json.loads((tmp_path / "spot/put.json").read_text())[-1] == notice, "it is in the store too"
    on = _train(world, layer_norm_base, tmp_path / "spot")
    whole = _train(world, layer_norm_base, tmp_path / "whole")
    assert on[0][0] == notice, "it is scored where the trial goes on"
    assert on[0][1] > 0, "with the train loss of before the machine went"
    later = [one for one in whole if one[0] > notice]
    assert [one[:1] + one[2:4] for one in on[1:]] == [one[:1] + one[2:4] for one in later]
    # The first window of those was begun elsewhere.
    assert [one[1] for one in on[2:]] == [one[1] for one in later[1:]]
    scored = checkpoint.latest(tmp_path / "spot/trial")
    assert scored is not None and scored.is_scored


def test_a_trial_that_leaves_goes_on_as_if_it_had_not(layer_norm_base: Path, tmp_path: Path) -> None:
    def go(folder: Path, leave: Callable[[], bool]) -> tuple[FinetuneResult, list[Progress]]:
        reports: list[Progress] = []
        result = finetune.finetune(
            EVERY_TEN, DATA, lambda one: reports.append(one) or Answer.CONTINUE,  # type: ignore[func-returns-value]
            base=str(layer_norm_base), folder=folder, leave=leave,
        )  # fmt: skip
        return result, reports

    answers = iter([False, False, True])
    left, first = go(tmp_path / "left", lambda: next(answers))
    newest = checkpoint.latest(tmp_path / "left")
    assert (left.end, left.progress.step, [one.step for one in first]) == ("left", 15, [10])
    assert newest is not None and (newest.step, newest.is_scored) == (15, False)
    _, on = go(tmp_path / "left", lambda: False)
    _, whole = go(tmp_path / "whole", lambda: False)
    assert on[0].step == 15 and [one[::2] for one in losses(on)[1:]] == [one[::2] for one in losses(whole)[1:]]


@pytest.mark.slow
@pytest.mark.long
def test_two_ranks_leave_together(layer_norm_base: Path, tmp_path: Path) -> None:
    left = _train(2, layer_norm_base, tmp_path / "left", 15, _LEAVES)
    newest = checkpoint.latest(tmp_path / "left/trial")
    assert [one[0] for one in left] == [10] and newest is not None and (newest.step, newest.is_scored) == (15, False)
    on, whole = _train(2, layer_norm_base, tmp_path / "left"), _train(2, layer_norm_base, tmp_path / "whole")
    assert [one[:1] + one[2:4] for one in on[1:]] == [one[:1] + one[2:4] for one in whole[1:]]
