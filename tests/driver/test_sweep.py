"""What a sweep knows of its data, and what it writes down when its driver leaves it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hausa_asr.dataset.prepare import prepare
from hausa_asr.errors import UserError
from hausa_asr.model.evaluate import evaluate
from hausa_asr.model.wav2vec2 import new_model
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.settings.load import load
from hausa_asr.storage import objects
from hausa_asr.storage.address import here, join
from hausa_asr.storage.lease import Lease
from helpers.noise import corpus
from sweeps.driver.publisher import Publisher, published
from sweeps.driver.sweep import Sweep, open_sweep
from sweeps.driver.sweep_folder import refuse_taken, saved
from sweeps.planning.slots import admit
from sweeps.record.ledger import read_state
from sweeps.record.ledger_parts import read_parts
from sweeps.record.state import FAULT, INTERRUPTED, PAUSED_ITSELF


def a_sweep(tmp_path: Path, storage: str = "", publisher: Publisher | None = None) -> Sweep:
    prepared = prepare(corpus(tmp_path / "audio", {"train": 6, "dev": 6}), tmp_path / "prepared")
    config = load(None, [f"storage={storage or tmp_path}"])
    folder = here(join(config.storage, "sweep"))
    folder.mkdir(parents=True, exist_ok=True)
    return open_sweep(config, folder, prepared, admit(config.resources, [{"CPU": 2}], 2), publisher)


@pytest.mark.parametrize(
    ("fault", "how", "why"),
    [(KeyboardInterrupt(), INTERRUPTED, ""), (UserError("The disk is full."), FAULT, "The disk is full.")],
)
def test_how_a_driver_leaves_is_in_the_ledger(tmp_path: Path, fault: BaseException, how: str, why: str) -> None:
    sweep = a_sweep(tmp_path)
    with pytest.raises(type(fault)), sweep.leaving():
        raise fault
    left = read_state(sweep.folder).left
    assert left is not None and (left.how, left.why) == (how, why)
    sweep.leave(PAUSED_ITSELF, "it comes too late")
    assert read_state(sweep.folder).left == left
    sweep.ledger.append("opened", slots=1)
    assert sweep.ledger.state.left is None


def made(place: str) -> Path:
    here(place).mkdir(parents=True)
    return here(place)


class Killed(BaseException):
    """The process ends."""


@pytest.mark.parametrize("killed_at", ["files", "ledger"])
def test_a_sweep_in_a_bucket_that_was_killed_while_it_opened_can_be_begun_or_resumed(
    killed_at: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Publisher) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as first, pytest.raises(Killed):
        lease = Lease(f"{bucket}/sweep/lease.json", "the sweep", lambda: None)
        first.setattr(Publisher, killed_at, killed)
        a_sweep(tmp_path, bucket, Publisher(here(f"{bucket}/sweep"), f"{bucket}/sweep", lease))
    lease.close()
    monkeypatch.setenv("HAUSA_ASR_SCRATCH", str(tmp_path / "another machine"))
    config = load(None, [f"storage={bucket}"])
    if killed_at == "files":
        refuse_taken(config, "sweep")
        return
    with pytest.raises(UserError, match="There is a sweep named sweep already"):
        refuse_taken(config, "sweep")
    state, config = saved(bucket, "sweep")
    assert not state.name and config.storage == bucket
    with published(here(f"{bucket}/sweep"), lambda: None, print) as publisher:
        assert a_sweep(tmp_path, bucket, publisher).name == "sweep"
    assert [event["event"] for event in map(json.loads, read_parts(f"{bucket}/sweep").splitlines())] == [
        "sweep", "opened",
    ]  # fmt: skip


def test_a_result_of_before_is_gone_for_those_who_watch_elsewhere(bucket: str, tmp_path: Path) -> None:
    with published(made(f"{bucket}/sweep"), lambda: None, print) as publisher:
        sweep = a_sweep(tmp_path, bucket, publisher)
        (sweep.folder / "result.json").write_text("{}")
    assert "result.json" in objects.listing(f"{bucket}/sweep")
    with published(sweep.folder, lambda: None, print) as publisher:
        a_sweep(tmp_path, bucket, publisher)
        assert "result.json" not in objects.listing(f"{bucket}/sweep")
        assert read_parts(f"{bucket}/sweep").count(b"\n") == 3


def test_a_driver_that_leaves_says_so_in_the_bucket_at_once(bucket: str, tmp_path: Path) -> None:
    with published(made(f"{bucket}/sweep"), lambda: None, print) as publisher:
        a_sweep(tmp_path, bucket, publisher).leave(FAULT, "the local Ray has ended")
        assert b"the local Ray has ended" in read_parts(f"{bucket}/sweep")


def test_a_sweep_that_has_its_result_is_over_and_nobody_has_left_it(tmp_path: Path) -> None:
    sweep = a_sweep(tmp_path)
    with pytest.raises(KeyboardInterrupt), sweep.leaving():
        (sweep.folder / "result.json").write_text("{}")
        raise KeyboardInterrupt
    assert sweep.ledger.state.left is None


def test_guessing_costs_what_a_model_that_guesses_is_scored(tmp_path: Path) -> None:
    sweep = a_sweep(tmp_path)
    model, processor = new_model("demo", FinetuneConfig())
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias.zero_()
    assert sweep.guess_loss() == pytest.approx(evaluate(model, processor, sweep.prepared.splits["dev"]).loss, rel=1e-5)
