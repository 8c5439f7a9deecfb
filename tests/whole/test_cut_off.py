"""A driver that hangs for longer than its lease lasts: another takes over, and it stops when it comes back."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from helpers.whole_sweeps import ONE_SLOT, finish, ledger_of, start, wait_for
from sweeps.record.ledger_parts import read_parts

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]


def test_a_driver_that_was_cut_off_stops_and_what_it_did_since_counts_not(
    settings: Path, tmp_path: Path, bucket: str
) -> None:
    scratch = [tmp_path / "first", tmp_path / "second"]
    first = start("--config", settings, *ONE_SLOT, "--set", "name=one", "--set", f"storage={bucket}",
                  "--set", "finetune.length_s=2400", HAUSA_ASR_SCRATCH=str(scratch[0]))  # fmt: skip
    twin = scratch[0] / "stores" / bucket.replace("://", "/") / "one"
    wait_for(lambda: any(event["event"] == "reported" for event in ledger_of(twin)), first)
    os.kill(first.pid, signal.SIGSTOP)  # its Ray goes on
    try:
        second = start("--resume", f"{bucket}/one", *ONE_SLOT, HAUSA_ASR_SCRATCH=str(scratch[1]))
        twin = scratch[1] / "stores" / bucket.replace("://", "/") / "one"
        wait_for(lambda: sum(event["event"] == "opened" for event in ledger_of(twin)) == 2, second, 180)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    stopped = finish(first, code=1)
    output = finish(second)
    print(stopped, output)
    assert "Another driver has taken over the sweep" in stopped and "Traceback" not in stopped
    assert "waiting up to 60 s to be sure" in output and "Traceback" not in output
    events = [json.loads(line) for line in read_parts(f"{bucket}/one").splitlines()]
    assert events == ledger_of(twin)
    assert [event["trial"] for event in events if event["event"] == "proposed"] == ["t000", "t001", "t002"]
    for trial in ("t000", "t001", "t002"):
        steps = [event["step"] for event in events if event["event"] == "reported" and event["trial"] == trial]
        assert steps and steps == sorted(steps)
