"""What a resume may change, and what it refuses since trials would no longer compare."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from hausa_asr.errors import UserError
from hausa_asr.storage.address import here
from hausa_asr.storage.fetched import at_hand
from hausa_asr.tracking.tracker import Tracker
from helpers.plans import an_earlier_sweep
from helpers.slots import Slots
from sweeps.driver.moved_mlflow import passed_over
from sweeps.driver.sweep_folder import by_name, only_driver, refuse_retry, save, settings_of, to_type
from sweeps.record.ledger import Ledger
from sweeps.record.trial import DIVERGED


def test_finalists_that_have_begun_keep_their_length(tmp_path: Path) -> None:
    storage, name = f"storage={tmp_path.parent}", tmp_path.name
    slots = Slots(tmp_path, "finalists={k: 1, seeds: 2}", storage)
    save(slots.config, tmp_path)
    for trial in [slots.take() for _ in range(4)]:
        slots.finish(trial, 0.5)
    config, _ = settings_of(None, [storage, "finalists.length_s=2000"], name)
    assert config.finalists.length_s == 2000, "none has begun yet"
    slots.finish(slots.take(), 0.4)
    with pytest.raises(UserError, match=r"begun with 1,000 s of audio each.* 2,000 would") as refused:
        settings_of(None, [storage, "finalists.length_s=2000"], name)
    assert "finalists.length_s=1000" in str(refused.value)
    assert "-s1" in str(refused.value)
    config, _ = settings_of(None, [storage, "finalists.length_s=1000", "finalists.seeds=3"], name)
    assert config.finalists.seeds == 3, "the same length in words, and more seeds"


def test_mlflow_at_another_address_is_taken_from_the_environment_if_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, other = (f"sqlite:///{tmp_path}/{name}/mlflow.db" for name in ("old", "new", "other"))
    for name in ("old", "other"):
        (tmp_path / name).mkdir()
    run_id = Tracker(old, "hausa-asr").start_sweep("one", {}, {})
    Tracker(other, "hausa-asr").start_sweep("one", {}, {})
    (tmp_path / "old").rename(tmp_path / "new")
    storage = tmp_path / "runs"
    an_earlier_sweep(storage, "one", 30.0, f"mlflow.uri={old}").append("mirrored", run_id=run_id)
    set_ = f"storage={storage}"
    for named, then in (
        (None, old),
        (new, new),
        (other, old),
        (f"sqlite:///{tmp_path}/none.db", old),
        ("junk://", old),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", named or "")
        config, _ = settings_of(None, [set_], "one")
        assert config.mlflow.uri == then
        assert bool(passed_over(config)) == (named not in (None, then))
    config, _ = settings_of(None, [set_, f"mlflow.uri={old}"], "one")
    assert config.mlflow.uri == old, "what is typed counts"
    an_earlier_sweep(storage, "two", 30.0, f"mlflow.uri={old}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
    assert settings_of(None, [set_], "two")[0].mlflow.uri == other, "it has no run yet"


def test_a_file_system_without_locks_is_not_another_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with only_driver(tmp_path), pytest.raises(UserError, match="Another driver is at work"):
        only_driver(tmp_path)

    def flock(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(UserError, match=r"no locks, .*: No locks available") as refused:
        only_driver(tmp_path)
    assert str(tmp_path) in str(refused.value) and "s3://bucket/runs" in str(refused.value)
    monkeypatch.setenv("HAUSA_ASR_SCRATCH", str(tmp_path))
    twin = here("s3://bucket/runs/one")
    twin.mkdir(parents=True)
    with pytest.raises(UserError, match="no locks") as refused:
        only_driver(twin)
    assert "HAUSA_ASR_SCRATCH" in str(refused.value)
    with pytest.raises(UserError, match="scratch folder has no locks"):
        at_hand("s3://bucket/data")


def test_a_sweep_can_be_named_by_its_folder_and_is_where_it_is_not_in_the_usual_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert by_name("one", ["a=1"]) == ("one", ["a=1"])
    for typed in (str(tmp_path / "shared/one"), "shared/one", "./shared/one/"):
        assert by_name(typed, ["a=1"]) == ("one", ["a=1", f"storage={tmp_path}/shared"])
    assert to_type(tmp_path / "runs/one") == "one"
    away = tmp_path / "my shared/one"
    assert to_type(away) == f"'{away}'"
    assert by_name(str(away), [])[1] == [f"storage={away.parent}"]
    assert by_name("s3://bucket/runs/one/", []) == ("one", ["storage=s3://bucket/runs"])
    assert to_type(here("s3://bucket/runs/one")) == "s3://bucket/runs/one"


def test_a_failed_trial_is_tried_again_where_somebody_asks_and_no_other(tmp_path: Path) -> None:
    slots = Slots(tmp_path, "search.trials=2")
    failed, well = slots.take(), slots.take()
    slots.ledger.append("ended", trial=failed.id, state="failed", reason=DIVERGED, detail="its loss is not finite")
    slots.agenda.back(failed)
    slots.finish(well, 0.5)
    for folder, names, said in (
        (tmp_path, [failed.id, well.id], rf"Trial {well.id} has not failed.*name one that has: {failed.id}"),
        (tmp_path, ["t004"], rf"Trial t004 has not failed.*name one that has: {failed.id}"),
        (None, [failed.id], rf"Trial {failed.id} has not failed.*--retry.*none has"),
    ):
        with pytest.raises(UserError, match=f"(?s){said}"):
            refuse_retry(folder, names)
    refuse_retry(tmp_path, [failed.id])
    slots.open()
    assert slots.agenda.is_done(), "one that diverged is not tried again by itself"
    slots.ledger.append("retried", trial=failed.id)
    slots.open()
    again = slots.take()
    assert (again.id, again.state, again.reason, again.detail) == (failed.id, "running", "", "")
    slots.finish(again, 0.4)
    assert slots.agenda.is_done() and Ledger(tmp_path).state.trials[failed.id].state == "finished"
