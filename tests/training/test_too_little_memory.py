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

from hausa_asr.errors import TooLittleMemory
from hausa_asr.model import evaluate as evaluation
from hausa_asr.model import feature_cache
from hausa_asr.model.batch import Batch
from hausa_asr.model.device import has_no_room, is_out_of_memory
from hausa_asr.model.wav2vec2 import new_model
from hausa_asr.recipe import Answer, FinetuneConfig
from hausa_asr.training import one_update
from hausa_asr.training.finetune import Data
from helpers.fine_tunes import RECIPE, losses, run
from helpers.speech import ToneSplit

SMALL = dataclasses.replace(RECIPE, micro_batch_s=3)
ALLOCATOR = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.20 GiB.")
DRIVER = torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported asynchronously")
CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`")
"""The handle is made in the thread of the first backward pass, which finds no memory left for it."""
EVERY = pytest.mark.parametrize("lack", [ALLOCATOR, DRIVER, CUBLAS], ids=["allocator", "driver", "cublas"])


@pytest.fixture(scope="module")
def data() -> Data:
    return Data(ToneSplit(24, 0), ToneSplit(7, 1))


def with_memory_for(fits: int, real: Callable[..., Any], place: int, lack: Exception = ALLOCATOR) -> Callable[..., Any]:
    """Make a function fail as on a device with little memory: a larger batch raises one of torch's errors.

    Args:
        fits: utterances.
        real: a function.
        place: of the batch, or of its samples, among its arguments.
        lack: the error.
    """

    def if_it_fits(*arguments: Any, **more: Any) -> Any:
        found, batch = real(*arguments, **more), arguments[place]
        if len(batch.frames if isinstance(batch, Batch) else batch) > fits:
            raise type(lack)(*lack.args)
        return found

    return if_it_fits


@pytest.fixture
def train_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Exception], None]:
    """Sets the largest batch, in utterances, that fits into memory, and what a larger one raises."""
    real = one_update._losses
    return lambda fits, lack: monkeypatch.setattr(one_update, "_losses", with_memory_for(fits, real, 1, lack))


@EVERY
def test_too_little_memory_costs_smaller_micro_batches_and_nothing_else(
    lack: Exception, data: Data, layer_norm_base: Path, tmp_path: Path, train_with: Callable[[int, Exception], None]
) -> None:
    stop = {10: Answer.STOP}
    _, small = run(SMALL, data, layer_norm_base, tmp_path / "small", stop)
    train_with(2, lack)
    _, found = run(RECIPE, data, layer_norm_base, tmp_path / "found", stop)
    for one, other in zip(losses(found), losses(small), strict=True):
        assert one == pytest.approx(other, rel=2e-3)
    assert found[-1].metrics["micro_batch_s"] < RECIPE.micro_batch_s


@pytest.mark.parametrize(
    ("lack", "raised"), [(ALLOCATOR, TooLittleMemory), (DRIVER, type(DRIVER)), (CUBLAS, RuntimeError)]
)
def test_where_not_even_one_utterance_fits_the_trial_fails(
    lack: Exception, raised: type[Exception], data: Data, layer_norm_base: Path, tmp_path: Path,
    train_with: Callable[[int, Exception], None],
) -> None:  # fmt: skip
    """By its own fault where the allocator says so: a handle or a context takes the same whatever the recipe."""
    train_with(0, lack)
    with pytest.raises(RuntimeError) as fault:
        run(RECIPE, data, layer_norm_base, tmp_path)
    assert type(fault.value) is raised and str(lack).splitlines()[0] in str(fault.value)


@EVERY
def test_too_little_memory_in_evaluation_costs_smaller_batches_and_nothing_else(
    lack: Exception, data: Data, layer_norm_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    stop = {10: Answer.STOP}
    _, whole = run(RECIPE, data, layer_norm_base, tmp_path / "whole", stop)
    monkeypatch.setattr(evaluation, "_logits", with_memory_for(2, evaluation._logits, 1, lack))
    end, parts = run(RECIPE, data, layer_norm_base, tmp_path / "parts", stop)
    assert end == "stopped" and [one.step for one in parts] == [5, 10]
    for one, other in zip(parts, whole, strict=True):
        for name in ("loss", "wer", "cer", "train_loss"):
            assert one.metrics[name] == pytest.approx(other.metrics[name], rel=1e-4)
        assert [sample[0] for sample in one.samples] == [sample[0] for sample in other.samples], "in the same order"
    said = [one.getMessage() for one in caplog.records if "too little memory" in one.getMessage()]
    assert said and len({*said}) == len(said), "it is found once, not at each evaluation"
    monkeypatch.setattr(evaluation, "_logits", with_memory_for(0, evaluation._logits, 1))
    with pytest.raises(TooLittleMemory):
        run(RECIPE, data, layer_norm_base, tmp_path / "none")


def features(base: Path, folder: Path) -> torch.Tensor:
    """The features of a split, from a cache that is made for it."""
    model, processor = new_model(str(base), FinetuneConfig())
    feature_cache.cached({"train": ToneSplit(24, 0)}, "data", model, processor, folder, torch.device("cpu"))
    bits = bytearray(next(folder.glob("*/train.bf16")).read_bytes())
    return torch.frombuffer(bits, dtype=torch.bfloat16).float()


@EVERY
def test_too_little_memory_for_the_feature_cache_costs_smaller_batches_and_nothing_else(
    lack: Exception, layer_norm_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, real = features(layer_norm_base, tmp_path / "whole"), feature_cache.encode_audio
    monkeypatch.setattr(feature_cache, "encode_audio", with_memory_for(2, real, 1, lack))
    torch.testing.assert_close(features(layer_norm_base, tmp_path / "parts"), whole, rtol=0.01, atol=1e-3)
    monkeypatch.setattr(feature_cache, "encode_audio", with_memory_for(0, real, 1, lack))
    with pytest.raises(type(lack), match=str(lack)[:20]):  # perhaps of another process on the card: not its own fault
        features(layer_norm_base, tmp_path / "none")


@pytest.mark.parametrize(
    ("error", "memory", "room"),
    [
        (ALLOCATOR, True, True),
        (DRIVER, True, True),
        (CUBLAS, True, True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True, True),
        (RuntimeError("CUDA driver error: out of memory"), True, True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True, True),
        (torch.AcceleratorError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"), False, True),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), False, False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"), False, False),
        (OSError("out of memory"), False, False),
    ],
)  # fmt: skip
def test_lack_of_memory_is_known_in_all_its_forms(error: Exception, memory: bool, room: bool) -> None:
    assert (is_out_of_memory(error), has_no_room(error)) == (memory, room)


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

    from hausa_asr.training import evaluation

    evaluation.agree_on_micro_batches = noted
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
