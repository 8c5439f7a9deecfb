"""The ledger in a bucket: nothing acts on what no other machine could read, and who was cut off counts not."""

from __future__ import annotations

from pathlib import Path

import pytest

from hausa_asr.storage import objects, retry
from hausa_asr.storage.address import here
from sweeps.driver import publisher as publishing
from sweeps.driver.publisher import Publisher, published
from sweeps.record.folders import bring, is_there, sweeps_in
from sweeps.record.ledger import Ledger, LedgerFault, read_state
from sweeps.record.ledger_parts import part, read_parts, refresh


class Held:
    """A lease as its holder sees it."""

    is_lost = False

    def __init__(self, number: int) -> None:
        self.number = number

    def check(self) -> None:
        pass


def driver(bucket: str, number: int) -> tuple[Ledger, Publisher]:
    """A driver whose scratch folder is that of the environment."""
    folder = here(f"{bucket}/one")
    folder.mkdir(parents=True, exist_ok=True)
    refresh(folder / "ledger.jsonl", f"{bucket}/one")
    ledger = Ledger(folder)
    publisher = Publisher(folder, f"{bucket}/one", Held(number))  # type: ignore[arg-type]
    ledger.published = publisher.ledger
    return ledger, publisher


def test_what_a_driver_writes_that_was_cut_off_is_passed_over(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, cut_off = driver(bucket, 1)
    old.append("sweep", name="one")
    old.append("proposed", trial="t000", settings={"lr_peak": 1e-3}, source="baseline")
    old.append("started", trial="t000")  # it may wait for the next part
    assert read_parts(f"{bucket}/one").count(b"\n") == 2
    cut_off.ledger()
    monkeypatch.setenv("HAUSA_ASR_SCRATCH", str(tmp_path / "elsewhere"))
    new, _ = driver(bucket, 2)
    assert new.state == old.state
    new.append("opened", slots=1)
    old.append("proposed", trial="t001", settings={"lr_peak": 2.0}, source="search")
    new.append("proposed", trial="t001", settings={"lr_peak": 3.0}, source="search")
    old.append("proposed", trial="t002", settings={}, source="search")
    assert read_parts(f"{bucket}/one") == new.path.read_bytes()
    assert {name.split("-")[0] for name in objects.listing(f"{bucket}/one/ledger")} == {"000001", "000002"}
    monkeypatch.setenv("HAUSA_ASR_SCRATCH", str(tmp_path / "third"))
    objects.write(f"{bucket}/one/sweep.yaml", b"storage: elsewhere\n")
    state = read_state(bring(bucket, "one"))
    assert [trial.settings for trial in state.trials.values()] == [{"lr_peak": 1e-3}, {"lr_peak": 3.0}]
    assert is_there(bucket, "one") and not is_there(bucket, "two") and sweeps_in(bucket) == ["one"]


def test_a_copy_that_is_ahead_stays_and_one_that_went_astray_is_replaced(bucket: str, tmp_path: Path) -> None:
    file = tmp_path / "ledger.jsonl"
    objects.write(part(bucket, 1, 1), b"one\n")
    objects.write(part(bucket, 1, 2), b"two\n")
    objects.write(part(bucket, 1, 4), b"four\n")  # the one before it never came
    for mine, then in ((b"", b"one\ntwo\n"), (b"one\ntwo\nthree\n", b"one\ntwo\nthree\n"), (b"no\n", b"one\ntwo\n")):
        file.write_bytes(mine)
        refresh(file, bucket)
        assert file.read_bytes() == then


def test_nothing_acts_on_an_event_that_the_storage_has_not_got(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, _ = driver(bucket, 1)
    ledger.append("sweep", name="one")
    ledger.append("proposed", trial="t000", settings={}, source="baseline")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    monkeypatch.setattr(retry, "PATIENCE_S", 0.2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setitem(publishing.objects.filesystem.__globals__["_OPTIONS"], "s3", {"config_kwargs": {}})
    with pytest.raises(LedgerFault, match="can't be written"):
        ledger.append("proposed", trial="t001", settings={}, source="search")


def test_a_sweep_on_a_disk_has_no_publisher(tmp_path: Path) -> None:
    with published(tmp_path, lambda: None, lambda line: None) as publisher:
        assert publisher is None
    assert list(tmp_path.iterdir()) == []
