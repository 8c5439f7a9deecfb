"""Too little memory costs smaller batches, in training and in evaluation, and nothing of the result."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from hausa_asr.model import evaluate as evaluation
from hausa_asr.model.batch import Batch
from hausa_asr.recipe import Answer
from hausa_asr.training import one_update
from hausa_asr.training.finetune import Data
from helpers.fine_tunes import RECIPE, losses, run
from helpers.speech import ToneSplit

SMALL = dataclasses.replace(RECIPE, micro_batch_s=3)


@pytest.fixture(scope="module")
def data() -> Data:
    return Data(ToneSplit(24, 0), ToneSplit(7, 1))


def with_memory_for(fits: int, real: Callable[..., Any], place: int) -> Callable[..., Any]:
    """Make a function fail as on a device with little memory: a larger batch raises torch's out-of-memory error.

    Args:
        fits: utterances.
        real: a function.
        place: of the batch among its arguments.
    """

    def if_it_fits(*arguments: Any) -> Any:
        found, batch = real(*arguments), arguments[place]
        assert isinstance(batch, Batch)
        if len(batch.frames) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return found

    return if_it_fits


@pytest.fixture
def train_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the largest batch, in utterances, that fits into memory."""
    real = one_update._losses
    return lambda fits: monkeypatch.setattr(one_update, "_losses", with_memory_for(fits, real, 1))


def test_too_little_memory_costs_smaller_micro_batches_and_nothing_else(
    data: Data, layer_norm_base: Path, tmp_path: Path, train_with: Callable[[int], None]
) -> None:
    _, small = run(SMALL, data, layer_norm_base, tmp_path / "small")
    train_with(2)
    _, found = run(RECIPE, data, layer_norm_base, tmp_path / "found")
    for one, other in zip(losses(found), losses(small), strict=True):
        assert one == pytest.approx(other, rel=2e-3)
    assert found[-1].metrics["micro_batch_s"] < RECIPE.micro_batch_s


def test_where_not_even_one_utterance_fits_the_trial_fails(
    data: Data, layer_norm_base: Path, tmp_path: Path, train_with: Callable[[int], None]
) -> None:
    train_with(0)
    with pytest.raises(torch.OutOfMemoryError):
        run(RECIPE, data, layer_norm_base, tmp_path)


def test_too_little_memory_in_evaluation_costs_smaller_batches_and_nothing_else(
    data: Data, layer_norm_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    stop = {10: Answer.STOP}
    _, whole = run(RECIPE, data, layer_norm_base, tmp_path / "whole", stop)
    monkeypatch.setattr(evaluation, "_logits", with_memory_for(2, evaluation._logits, 1))
    end, parts = run(RECIPE, data, layer_norm_base, tmp_path / "parts", stop)
    assert end == "stopped" and [one.step for one in parts] == [5, 10]
    for one, other in zip(parts, whole, strict=True):
        for name in ("loss", "wer", "cer", "train_loss"):
            assert one.metrics[name] == pytest.approx(other.metrics[name], rel=1e-4)
        assert [sample[0] for sample in one.samples] == [sample[0] for sample in other.samples], "in the same order"
    said = [one.getMessage() for one in caplog.records if "too little memory" in one.getMessage()]
    assert said and len({*said}) == len(said), "it is found once, not at each evaluation"
    monkeypatch.setattr(evaluation, "_logits", with_memory_for(0, evaluation._logits, 1))
    with pytest.raises(torch.OutOfMemoryError):
        run(RECIPE, data, layer_norm_base, tmp_path / "none")


def _rank(rank: int, world: int, port: int, base: Path, folder: Path, short_of_memory: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(world)}
    dist.init_process_group("gloo")
    if rank == short_of_memory:
        one_update._losses = with_memory_for(1, one_update._losses, 1)
    sizes: list[float] = []
    real = one_update.agree_on_micro_batches

    def noted(the_run: Any) -> None:
        real(the_run)
        sizes.append(the_run.loader.micro_batch_s)

    from hausa_asr.training import finetune

    finetune.agree_on_micro_batches = noted
    split = Data(ToneSplit(24, 0), ToneSplit(7, 1))
    _, reports = run(RECIPE, split, base, folder, {10: Answer.STOP})
    shown = {"sizes": sizes, "losses": losses(reports), "reported": [one.metrics["micro_batch_s"] for one in reports]}
    (folder / f"rank{rank}.json").write_text(json.dumps(shown))
    dist.destroy_process_group()


@pytest.mark.slow
def test_where_one_of_two_ranks_runs_out_both_go_on_with_what_fits(
    data: Data, layer_norm_base: Path, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_rank, args=(2, port, layer_norm_base, tmp_path / "two", 1), nprocs=2)
    first, second = (json.loads((tmp_path / f"two/rank{rank}.json").read_text()) for rank in range(2))
    assert first["sizes"] == second["sizes"] and first["sizes"][-1] < RECIPE.micro_batch_s
    assert first["reported"] == first["sizes"], "the sweep learns of it, though the first rank has memory enough"
    _, alone = run(RECIPE, data, layer_norm_base, tmp_path / "one", {10: Answer.STOP})
    for one, other in zip(first["losses"], losses(alone), strict=True):
        assert one == pytest.approx(other, rel=2e-3)
