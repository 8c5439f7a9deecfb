"""A sweep one of whose nodes breaks before its workers take a trial: it is avoided, and no trial burned."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.whole_sweeps import ROOT, RUN, check_whole, finish, ledger_of

sys.path.append(str(ROOT / "benchmarks"))  # last: it has a `sweeps` too
import ray_nodes

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]


OWN_ADDRESSES = pytest.mark.skipif(not ray_nodes.may_network(), reason="only root can give a node its own address")


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=OWN_ADDRESSES)])
def test_a_node_that_cannot_import_torch_is_avoided(settings: Path, tmp_path: Path, workers: int) -> None:
    broken = tmp_path / "broken/torch"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text('raise ImportError("libcudart.so.13: cannot open shared object file")')
    with ray_nodes.cluster() as nodes:
        gloo = {"GLOO_SOCKET_IFNAME": "eth0"} if nodes.network else {}  # the machine's name means none of the nodes
        bad = nodes.add(PYTHONPATH=str(broken.parent), **gloo)
        for _ in range(workers):
            nodes.add(**gloo)  # several workers are on several nodes
        process = subprocess.Popen(
            [*RUN, "--config", str(settings), "--set", "name=broken", "--set", f"cluster.address={nodes.address}",
             "--set", f"resources.workers_per_trial={workers}", "--set", "pruning.rule=none", "--set",
             "search.trials=4", "--set", "cluster.crashes_per_node=2"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**nodes.environment, "COLUMNS": "200"},
        )  # fmt: skip
        try:
            output = finish(process, within_s=480)
        finally:
            if process.poll() is None:
                process.kill()
    check_whole(tmp_path, "broken", 4)
    events = ledger_of(tmp_path / "runs/broken")
    assert [event["state"] for event in events if event["event"] == "ended"] == ["finished"] * 4, output
    crashes = [event for event in events if event["event"] == "paused" and event["cause"] == "crash"]
    assert crashes and all("libcudart" in event["reason"] for event in crashes), "the bad node was tried"
    assert {event["node"] for event in crashes} == {bad.name}
    assert len(crashes) <= 2, "and then avoided"
