"""A sweep whose node is lost: its trial goes on with fewer workers on a smaller node, and the next one with more."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.whole_sweeps import ROOT, RUN, check_whole, finish, ledger_of

sys.path.insert(0, str(ROOT / "benchmarks"))
import ray_nodes

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]

_PACKED = """
import json, sys, time
import ray
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
nodes = []
for workers in (1, 2, 3):
    group = placement_group([{"CPU": 1}] * workers, strategy="PACK")
    nodes.append(len(set(placement_group_table(group)["bundles_to_node_id"].values())) if group.wait(60) else 0)
    remove_placement_group(group)
    time.sleep(2)  # until what was freed is known: before that PACK spreads the next group
print(json.dumps(nodes))
"""


def test_a_trial_goes_on_with_fewer_workers_and_the_next_has_more(settings: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "runs/fewer"
    with ray_nodes.cluster() as nodes:
        lost = nodes.add(cpus=2)
        nodes.add(cpus=1)
        packed = subprocess.run(
            [sys.executable, "-c", _PACKED, nodes.address], capture_output=True, text=True, env=nodes.environment,
            check=True,
        )  # fmt: skip
        assert json.loads(packed.stdout) == [1, 1, 2], "Ray's default: on one node unless it does not fit"
        process = subprocess.Popen(
            [*RUN, "--config", str(settings), "--set", "name=fewer", "--set", f"cluster.address={nodes.address}",
             "--set", "resources={workers_per_trial: {min: 1, max: 2}, slots: 1}", "--set", "search.trials=2",
             "--set", "finetune.length_s=600", "--set", "pruning.rule=none"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**nodes.environment, "COLUMNS": "200"},
        )  # fmt: skip
        try:
            _wait_for_workers(process, sweep, [2])
            lost.kill()
            _wait_for_workers(process, sweep, [2, 1])
            nodes.add(cpus=2)
            output = finish(process)
        finally:
            if process.poll() is None:
                process.kill()
    check_whole(tmp_path, "fewer", 2)
    assert "2 trials, 1 side by side: 1 with 2 workers (resources.workers_per_trial is 1 to 2 workers)" in output
    events = ledger_of(sweep)
    assert [event["state"] for event in events if event["event"] == "ended"] == ["finished"] * 2, output
    assert _numbers(sweep, "t000") == [2, 1] and _numbers(sweep, "t001") == [2], "as it is since another node came"
    steps = [event["step"] for event in events if event["event"] == "reported" and event["trial"] == "t000"]
    assert steps == sorted(set(steps))
    [opened] = [event for event in events if event["event"] == "opened"]
    assert (opened["devices"], opened["workers"]) == (2, 2)


def _numbers(sweep: Path, trial: str) -> list[int]:
    """The numbers of workers that a trial had, one after another."""
    had = [one["workers"] for one in ledger_of(sweep) if one.get("trial") == trial and one["event"] == "reported"]
    return [number for number, before in zip(had, [0, *had], strict=False) if number != before]


def _wait_for_workers(process: subprocess.Popen[str], sweep: Path, numbers: list[int]) -> None:
    deadline = time.monotonic() + 300
    while _numbers(sweep, "t000") != numbers:
        assert process.poll() is None and time.monotonic() < deadline, _numbers(sweep, "t000")
        time.sleep(0.1)
