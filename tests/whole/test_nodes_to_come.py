"""A sweep on a cluster without workers: Ray's autoscaler brings as many as it asks for, and takes them away after."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.whole_sweeps import ROOT, RUN, check_whole, finish, ledger_of

sys.path.append(str(ROOT / "benchmarks"))  # last: it has a `sweeps` too
import ray_nodes

pytestmark = [pytest.mark.timeout(600), pytest.mark.long]


def test_a_sweep_begins_with_no_worker(settings: Path, tmp_path: Path) -> None:
    with ray_nodes.cluster(scales_to=2) as nodes:
        process = subprocess.Popen(
            [*RUN, "--config", str(settings), "--set", "name=none", "--set", "resources.slots=2", "--set",
             "search.trials=4", "--set", "pruning.rule=none", "--set", "finetune.length_s=720", "--set",
             f"cluster.address={nodes.address}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**nodes.environment, "COLUMNS": "200"},
        )  # fmt: skip
        try:
            finish(process)
        finally:
            if process.poll() is None:
                process.kill()
    check_whole(tmp_path, "none", 4)
    events = ledger_of(tmp_path / "runs/none")
    assert len({node for event in events if event["event"] == "reported" for node in event["nodes"]}) == 2
    assert not [event for event in events if event["event"] == "paused"], (
        "no trial was given to a worker that is not there"
    )
