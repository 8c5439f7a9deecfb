"""A trial goes from node to node with its checkpoints, and the driver, on a third, keeps them within bounds."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from hausa_asr.recipe import CHECKPOINT, TRAINING, step_folder
from hausa_asr.storage.address import here
from helpers.events import report
from helpers.s3_server import S3Server
from sweeps.on_ray.trial_storage import TrialStorage
from sweeps.on_ray.tune_run import left_at
from sweeps.record.checkpoints import WRITING_S, Checkpoints
from sweeps.record.state import State
from sweeps.record.trial import TrialRecord


def write(trial: Path, step: int, state: bool = True) -> None:
    folder = step_folder(trial, step)
    folder.mkdir(parents=True)
    (folder / CHECKPOINT).write_text("{}")
    (folder / "weights.safetensors").write_bytes(bytes([step]) * 1000)
    (folder / "progress.json").write_text(f'{{"step": {step}}}')
    if state:
        (folder / TRAINING).write_bytes(b"s" * 2000)


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_checkpoints_follow_a_trial(kind: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = f"{bucket}/one/trials" if kind == "s3" else str(tmp_path / "one/trials")

    def on(node: str) -> None:
        monkeypatch.setenv("HAUSA_ASR_SCRATCH", str(tmp_path / node))

    on("first")
    worker = TrialStorage(f"{storage}/t000")
    worker.bring()
    write(worker.folder, 10)
    worker.put()
    write(worker.folder, 20)
    (step_folder(worker.folder, 10) / TRAINING).unlink()  # as the fine-tune does once it can resume from a newer one
    worker.put()
    on("driver")
    there = Checkpoints(here(storage))
    assert there.steps("t000") == [10, 20] and there.has("t000", 20) and not there.has("t000", 30)
    assert there.read("t000", 10, "progress.json") == b'{"step": 10}' and there.read("t000", 30, "x") is None
    assert 4000 < there.size("t000") < 5000

    on("second")
    other = TrialStorage(f"{storage}/t000")
    other.bring()
    assert (step_folder(other.folder, 20) / TRAINING).read_bytes() == b"s" * 2000
    write(other.folder, 30)
    other.put()
    (other.folder / "train.log").write_text("it learns\n")
    other.close()

    on("first")  # it comes back to where it was: what it left there is of another time
    again = TrialStorage(f"{storage}/t000")
    if kind == "s3":
        write(again.folder, 40)  # never put: this node was cut off
    again.bring()
    assert sorted(path.name for path in again.folder.glob("step-*")) == ["step-000010", "step-000020", "step-000030"]

    on("driver")
    there.keep_only("t000", 30)
    assert there.steps("t000") == [30] and 1000 < there.size("t000") < 1500, "weights only, and a log"
    on("second")
    third = TrialStorage(f"{storage}/t000")
    third.bring()
    assert sorted(path.name for path in third.folder.glob("step-*/*"))[-1] == "weights.safetensors"
    assert not list(third.folder.glob(f"*/{TRAINING}"))
    on("driver")
    there.drop("t000")
    assert there.steps("t000") == [] and there.size("t000") == 0


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_a_state_without_scores_follows_its_trial_too(
    kind: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = f"{bucket}/spot/trials" if kind == "s3" else str(tmp_path / "spot/trials")
    monkeypatch.setenv("HAUSA_ASR_SCRATCH", str(tmp_path / "spot machine"))
    gone = TrialStorage(f"{storage}/t000")
    write(gone.folder, 10)
    (step_folder(gone.folder, 10) / "progress.json").rename(step_folder(gone.folder, 10) / "unscored.json")
    gone.put()
    monkeypatch.setenv("HAUSA_ASR_SCRATCH", str(tmp_path / "elsewhere"))
    on = TrialStorage(f"{storage}/t000")
    began_s = time.monotonic()
    on.bring(10, 30.0)
    assert time.monotonic() - began_s < 10, "it is not waited for"
    assert (step_folder(on.folder, 10) / "unscored.json").is_file() and (
        step_folder(on.folder, 10) / TRAINING
    ).is_file()


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_a_trial_waits_for_the_state_that_the_workers_it_left_still_write(
    kind: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAUSA_ASR_SCRATCH", str(tmp_path / "node"))
    place = f"{bucket}/late/trials/t000" if kind == "s3" else str(tmp_path / "late/trials/t000")
    left = TrialStorage(place)
    write(left.folder, 10)
    left.put()

    def late() -> None:
        write(left.folder, 20, state=False)  # the best, first
        left.put()
        time.sleep(1)
        (step_folder(left.folder, 20) / TRAINING).write_bytes(b"s")
        left.put()

    thread = threading.Timer(0.5, late)
    thread.start()
    took = TrialStorage(place)
    took.bring(20, 30.0)
    assert (step_folder(took.folder, 20) / TRAINING).is_file()
    thread.join()
    began_s = time.monotonic()
    took.bring(30, 1.0)
    assert 1.0 <= time.monotonic() - began_s < 10, "then it goes on from what there is"


def test_only_workers_that_were_there_a_minute_ago_are_waited_for() -> None:
    trial = TrialRecord("t001", {}, "search", state="paused", cause="rung")
    trial.came = 30, time.time() - 10
    step, wait_s = left_at(trial)
    assert step == 30 and WRITING_S - 12 < wait_s <= WRITING_S - 10
    trial.state, trial.cause = "running", ""
    assert left_at(trial) == (0, 0.0), "they went with their driver"
    trial.state, trial.cause = "paused", "rung"
    trial.came = 30, time.time() - 3600
    assert left_at(trial)[1] == 0
    trial.came = None
    assert left_at(trial) == (0, 0.0), "they are gone"


def test_a_trial_that_comes_again_where_it_was_is_waited_for_there() -> None:
    state, now_s, found = State(), time.time(), list[tuple[int, float]]()
    events: list[dict[str, Any]] = [
        {"event": "proposed", "trial": "t001", "settings": {}, "source": "search", "time": now_s - 9000},
        {"event": "started", "trial": "t001", "time": now_s - 9000},
        {"event": "reported", "trial": "t001", **report(30, 0.9), "time": now_s - 8000},
        {"event": "reported", "trial": "t001", **report(40, 0.9), "time": now_s - 7000},
        {"event": "paused", "trial": "t001", "cause": "crash", "reason": "", "time": now_s - 6000},
        {"event": "started", "trial": "t001", "time": now_s - 100},
        {"event": "repeated", "trial": "t001", "step": 30, "time": now_s - 10},
        {"event": "paused", "trial": "t001", "cause": "notice", "reason": "", "time": now_s - 10},
        {"event": "started", "trial": "t001", "time": now_s - 6},
        {"event": "paused", "trial": "t001", "cause": "budget", "reason": "", "step": 30, "time": now_s - 5},
        {"event": "started", "trial": "t001", "time": now_s - 4},
        {"event": "paused", "trial": "t001", "cause": "no room", "reason": "", "time": now_s - 2},
    ]
    for event in events:
        state.apply(event)
        if event["event"] == "paused":
            found.append(left_at(state.trials["t001"]))
    assert found[0] == (0, 0.0), "the workers are gone"
    for step, wait_s in found[1:]:
        assert step == 30 and wait_s > WRITING_S - 60
    state.apply({"event": "opened", "slots": 1, "time": now_s})
    assert left_at(state.trials["t001"]) == (0, 0.0), "they went with their driver"


def test_the_best_model_is_in_the_store_before_the_state_that_needs_it(bucket: str, s3_server: S3Server) -> None:
    for number in range(4):  # folders come in any order
        worker = TrialStorage(f"{bucket}/order/trials/t{number:03d}")
        write(worker.folder, 20)
        write(worker.folder, 10 + number, state=False)
        worker.put()
    puts = [path for path in s3_server.requests("PUT", "/order/") if path.endswith("weights.safetensors")]
    assert [int(path.split("step-")[1][:6]) for path in puts] == [10, 20, 11, 20, 12, 20, 13, 20]
