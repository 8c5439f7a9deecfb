"""A sweep that compares two base checkpoints, and whose workers hang twice: before their first report and later."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from helpers.whole_sweeps import (
    ONE_SLOT,
    SETTINGS,
    Runs,
    check_whole,
    exposed,
    finish,
    gone,
    ledger_of,
    start,
    wait_for,
    workers_of,
)

pytestmark = pytest.mark.timeout(600)


def test_a_worker_that_hangs_is_replaced_and_trials_start_from_the_base_that_was_chosen(
    tmp_path: Path, audio: Path, layer_norm_base: Path, group_norm_base: Path
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(SETTINGS.format(audio=audio, base=layer_norm_base, folder=tmp_path))
    bases = [str(layer_norm_base), str(group_norm_base)]
    more = ("--set", "cluster.report_timeout_s=1", "--set", "cluster.first_report_timeout_s=20",
            "--set", "pruning.rule=none",
            "--set", f"space.base={{choices: [{', '.join(bases)}]}}", "--set", "search.trials=5")  # fmt: skip
    process = start("--config", path, "--set", "name=hangs", *ONE_SLOT, *more)
    sweep = tmp_path / "runs/hangs"
    try:
        wait_for((sweep / "trials/t000/train.log").is_file, process)
        [worker] = workers_of(process.pid)
        os.kill(worker, signal.SIGSTOP)
        assert not exposed(process.pid), "whoever reaches Ray's ports could run code"
        deadline = time.monotonic() + 240
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
    result = check_whole(tmp_path, "hangs", 5)
    said = [event["reason"] for event in ledger_of(sweep) if event["event"] == "paused" and event["cause"] == "crash"]
    hung_s = [float(reason.rpartition("not reported for ")[2].removesuffix(" s")) for reason in said]
    assert len(hung_s) == 2 and 20 <= hung_s[0] < 30, output
    assert hung_s[1] < 20, "a wait that included set-up does not count among the others"
    assert len({event["slot"] for event in ledger_of(sweep) if event["event"] == "reported"}) > 1, "on new workers"
    assert gone(process.pid) == []
    chosen = {trial["id"]: trial["settings"].get("base", bases[0]) for trial in result["trials"]}
    assert set(chosen.values()) == set(bases), "the seed of the search draws both"
    for name, base in chosen.items():
        abouts = [json.loads(file.read_text()) for file in sweep.glob(f"trials/{name}/step-*/base.json")]
        assert abouts and all(about["base"] == base for about in abouts)
    params = {run.data.tags["trial"]: run.data.params["base"] for run in Runs(tmp_path).children}
    assert params == chosen
    assert f"`{Path(chosen[result['best']['id']]).name}`" in (sweep / "export/README.md").read_text()
