"""What the console says of an object store that goes away and comes back, on a real S3 server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hausa_asr.storage import lease, objects
from hausa_asr.storage.address import here
from helpers.s3_server import S3Server
from sweeps.driver import storage_outage
from sweeps.driver.publisher import published
from sweeps.record.ledger import Ledger


def until(condition: Callable[[], object], within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_an_outage_is_said_once_and_its_end_once(
    bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 0.3)
    monkeypatch.setattr(storage_outage, "AWAY_S", 1.5)
    monkeypatch.setattr(storage_outage, "_LOOK_S", 0.2)
    folder, said = here(f"{bucket}/one"), list[str]()
    folder.mkdir(parents=True)
    with published(folder, lambda: None, said.append) as publisher:
        assert publisher is not None
        ledger = Ledger(folder)
        ledger.append("sweep", name="one")
        publisher.start()
        time.sleep(2.5)
        assert not said, "it answers"
        for number in (1, 2):
            s3_server.pause()
            try:
                until(lambda number=number: len(said) == 2 * number - 1)  # type: ignore[misc]
                ledger.append("slots", slots=number)  # it waits on this disk
                time.sleep(1)
            finally:
                s3_server.go_on()
            until(lambda number=number: len(said) == 2 * number)  # type: ignore[misc]
    assert [line.split(" since ")[0] for line in said] == ["storage does not answer", "storage answers again"] * 2
    assert f"{bucket}/one" in said[0] and "what is new waits on this disk" in said[0]
    names = [name for name in objects.listing(f"{bucket}/one") if "ledger" in name]
    lines = b"".join(objects.read(f"{bucket}/one/{name}") for name in names).splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["sweep", "slots", "slots"], "all is there in the end"


def test_a_sweep_on_a_disk_has_nothing_to_say(tmp_path: Path) -> None:
    said = list[str]()
    with published(tmp_path, lambda: None, said.append) as publisher:
        assert publisher is None and not said
