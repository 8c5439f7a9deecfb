"""A sweep whose node is lost: its trial goes on with fewer workers on a smaller node, and the next one with more."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.whole_sweeps import ROOT, RUN, check_whole, finish, ledger_of

sys.path.append(str(ROOT / "benchmarks"))  # last: it has a `sweeps` too
import ray_nodes

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]

_OTHERS = """
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
placement_group([{"CPU": 1}] * 2, strategy="STRICT_PACK").wait(60)
print(json.dumps(nodes), flush=True)
sys.stdin.read()
"""
"""Somebody else's work: how Ray packs groups of 1, 2 and 3 workers on nodes, then two CPUs held until stdin ends."""


def test_a_trial_goes_on_with_fewer_workers_and_the_next_has_more(settings: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "runs/fewer"
    with ray_nodes.cluster() as nodes:
        nodes.add(cpus=2)
        nodes.add(cpus=1)
        others = subprocess.Popen(
            [sys.executable, "-c", _OTHERS, nodes.address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=nodes.environment,
        )  # fmt: skip
        assert others.stdin and others.stdout
        assert json.loads(others.stdout.readline()) == [1, 1, 2], "PACK: on one node unless it does not fit"
        lost = nodes.add(cpus=2)
        process = subprocess.Popen(
            [*RUN, "--config", str(settings), "--set", "name=fewer", "--set", f"cluster.address={nodes.address}",
             "--set", "resources={workers_per_trial: {min: 1, max: 2}, slots: 1}", "--set", "search.trials=2",
             "--set", "finetune.length_s=1200", "--set", "pruning.rule=none", "--set", "finalists={k: 1, seeds: 2}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**nodes.environment, "COLUMNS": "200"},
        )  # fmt: skip
        try:
            _wait_for_workers(process, sweep, [2])
            lost.kill()
            _wait_for_workers(process, sweep, [2, 1])  # after t001, which shows that all is well again
            others.stdin.close()
            output = finish(process)
        finally:
            others.kill()
            if process.poll() is None:
                process.kill()
    check_whole(tmp_path, "fewer", 2)
    assert "2 trials, 1 side by side: 1 with 2 workers (resources.workers_per_trial is 1 to 2 workers)" in output
    events = ledger_of(sweep)
    assert [event["state"] for event in events if event["event"] == "ended"] == ["finished"] * 6, output
    last = [event["trial"] for event in events if event["event"] == "ended"][-1]
    assert (_numbers(sweep, "t000"), _numbers(sweep, "t001")) == ([2, 1], [1])
    assert _numbers(sweep, last) == [2], "since two CPUs came free on one node"
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
