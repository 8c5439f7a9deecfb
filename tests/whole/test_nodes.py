"""A sweep on several nodes, one of which lacks a file while another is lost: nothing is lost and no trial burned."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.whole_sweeps import ROOT, RUN, SETTINGS, check_whole, finish, ledger_of

sys.path.append(str(ROOT / "benchmarks"))  # last: it has a `sweeps` too
import ray_nodes

pytestmark = [pytest.mark.timeout(600), pytest.mark.long]


@pytest.mark.skipif(not ray_nodes.may_mount(), reason="only root can give a node a disk of its own")
def test_a_bad_node_is_avoided_and_a_lost_one_replaced(tmp_path: Path, audio: Path, layer_norm_base: Path) -> None:
    path = tmp_path / "nodes.yaml"
    path.write_text(SETTINGS.format(audio=audio, base=layer_norm_base, folder=tmp_path))
    sweep = tmp_path / "runs/nodes"
    with ray_nodes.cluster() as nodes:
        good = nodes.add()
        nodes.add(covered=[(layer_norm_base, "4k")])
        process = subprocess.Popen(
            [*RUN, "--config", str(path), "--set", "name=nodes", "--set", "pruning.rule=none", "--set",
             "search.trials=5", "--set", "finetune.length_s=720", "--set", f"cluster.address={nodes.address}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**nodes.environment, "COLUMNS": "200"},
        )  # fmt: skip
        try:
            _wait(process, sweep, "paused", 1)
            _wait(process, sweep, "reported", 2)
            good.kill()
            nodes.add()
            output = finish(process)
        finally:
            if process.poll() is None:
                process.kill()
    check_whole(tmp_path, "nodes", 5)
    events = ledger_of(sweep)
    crashes = [event for event in events if event["event"] == "paused" and event["cause"] == "crash"]
    assert any("cannot be loaded" in event["reason"] for event in crashes), "the node without it was tried"
    assert [event["state"] for event in events if event["event"] == "ended"] == ["finished"] * 5, output
    [first] = next(event["nodes"] for event in events if event["event"] == "reported")
    on = {node for event in events if event["event"] == "reported" for node in event["nodes"]}
    assert on > {first}, "a lost one is replaced"


def test_a_node_that_gives_notice_is_left_for_another_with_the_labels(settings: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "runs/notice"
    with ray_nodes.cluster() as nodes:
        nodes.add()  # without the label
        fitting = [nodes.add(labels="kind=fitting") for _ in range(2)]
        process = subprocess.Popen(
            [*RUN, "--config", str(settings), "--set", "name=notice", "--set", "pruning.rule=none", "--set",
             "search.trials=4", "--set", "finetune.length_s=2400", "--set", f"cluster.address={nodes.address}",
             "--set", "resources={labels: {kind: fitting}, slots: 1}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**nodes.environment, "COLUMNS": "200"},
        )  # fmt: skip
        try:
            _wait(process, sweep, "reported", 2)
            [first] = next(event["nodes"] for event in ledger_of(sweep) if event["event"] == "reported")
            nodes.drain(next(node for node in fitting if node.name == first), 600)
            output = finish(process, within_s=480)
        finally:
            if process.poll() is None:
                process.kill()
    check_whole(tmp_path, "notice", 4)
    events = ledger_of(sweep)
    assert [event["state"] for event in events if event["event"] == "ended"] == ["finished"] * 4, output
    [left] = [event for event in events if event["event"] == "paused"]
    assert (left["cause"], left["reason"]) == ("notice", "its node is about to go"), "no crash, and no trial burned"
    after = [event for event in events if event["event"] == "reported" and event["time"] > left["time"]]
    steps = [event["step"] for event in events if event["event"] == "reported" and event["trial"] == left["trial"]]
    assert any(event["trial"] == left["trial"] for event in after) and steps == sorted({*steps}), "it goes on there"
    assert {node for event in after for node in event["nodes"]} == {node.name for node in fitting} - {first}


def _wait(process: subprocess.Popen[str], sweep: Path, event: str, count: int) -> None:
    deadline = time.monotonic() + 240
    while sum(one["event"] == event for one in ledger_of(sweep)) < count:
        assert process.poll() is None and time.monotonic() < deadline, event
        time.sleep(0.1)
