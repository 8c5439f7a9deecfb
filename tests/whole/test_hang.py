"""A sweep one of whose workers hangs: it is replaced, and its trial goes on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from helpers.whole_sweeps import ONE_SLOT, SETTINGS, check_whole, finish, gone, ledger_of, start

pytestmark = pytest.mark.timeout(600)


def workers_of(session: int) -> list[int]:
    """The processes of worker groups in a session."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            program = (entry / "cmdline").read_text().partition("\0")[0]
        except OSError:
            continue
        if int(stat[3]) == session and "RayTrainWorker" in program:
            found.append(int(entry.name))
    return found


def test_a_worker_that_hangs_is_replaced_and_its_trial_goes_on(
    tmp_path: Path, audio: Path, layer_norm_base: Path
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(SETTINGS.format(audio=audio, base=layer_norm_base, folder=tmp_path))
    more = "--set", "cluster.report_timeout_s=1", "--set", "finetune.length_s=480", "--set", "pruning.rule=none"
    process = start("--config", path, "--set", "name=hangs", *ONE_SLOT, *more)
    sweep = tmp_path / "runs/hangs"
    try:
        deadline = time.monotonic() + 120
        while sum(event["event"] == "reported" for event in ledger_of(sweep)) < 2:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        [worker] = workers_of(process.pid)
        os.kill(worker, signal.SIGSTOP)
        output = finish(process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    check_whole(tmp_path, "hangs", 3)
    assert "have not reported for" in (sweep / "sweep.log").read_text() + output
    assert len({event["slot"] for event in ledger_of(sweep) if event["event"] == "reported"}) > 1, "on new workers"
    assert gone(process.pid) == []
