"""A sweep in a bucket on a cluster whose nodes share no disk: each fetches what it needs, once."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hausa_asr.storage import objects
from helpers.mlflow_server import free_port
from helpers.whole_sweeps import environment, finish, start
from sweeps.record.ledger_parts import read_parts

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]


def node(temp: Path, scratch: Path, *how: str, **token: str) -> subprocess.Popen[bytes]:
    """A node of a cluster, on this machine and with a scratch folder of its own."""
    ports = ("--dashboard-agent-listen-port", "--dashboard-agent-grpc-port", "--runtime-env-agent-port",
             "--metrics-export-port")  # fmt: skip
    command = [Path(sys.executable).parent / "ray", "start", "--block", "--num-cpus", "1", *how]
    command += ["--node-ip-address", "127.0.0.1", "--object-store-memory", "100000000"]
    command += [text for port in ports for text in (port, str(free_port()))]
    with (temp / f"{scratch.name}.log").open("w") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, env=environment(HAUSA_ASR_SCRATCH=str(scratch), **token),
            start_new_session=True,
        )  # fmt: skip


@pytest.fixture
def short() -> Iterator[Path]:
    """A short path: Ray keeps sockets in it."""
    with tempfile.TemporaryDirectory(prefix="hausa-asr-nodes-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def test_nodes_that_share_no_disk(settings: Path, tmp_path: Path, short: Path, bucket: str) -> None:
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    nodes = [tmp_path / "node-a", tmp_path / "node-b"]
    address = f"127.0.0.1:{free_port()}"
    head = ("--head", "--port", address.rpartition(":")[2], "--include-dashboard", "false", "--temp-dir", str(short),
            "--ray-client-server-port", str(free_port()))  # fmt: skip
    running = [node(tmp_path, nodes[0], *head, **token)]
    try:
        time.sleep(8)
        running.append(node(tmp_path, nodes[1], "--address", address, **token))
        time.sleep(8)
        arguments = [f"storage={bucket}", "name=apart", f"cluster.address={address}", "search.trials=4",
                     "finalists={k: 1, seeds: 2, soup: true}", "pruning={first_rung: 0.3, reduction: 2}"]  # fmt: skip
        given = [text for one in arguments for text in ("--set", one)]
        output = finish(start("--config", settings, *given, HAUSA_ASR_SCRATCH=str(tmp_path / "driver"), **token))
    finally:
        for one in running:
            os.killpg(one.pid, signal.SIGKILL)
            one.wait()
    print(output)
    assert "Traceback" not in output
    events = [json.loads(line) for line in read_parts(f"{bucket}/apart").splitlines()]
    assert len({event["slot"] for event in events if event["event"] == "reported"}) == 2, "both nodes have trained"
    assert not [event for event in events if event.get("state") == "failed"]
    assert sum(event["event"] == "souped" for event in events) == 1
    for place in nodes:
        log = [json.loads(line) for line in (place / ".fetched/log.jsonl").read_text().splitlines()]
        data = [one for one in log if "/_data/" in one["address"]]
        print(place.name, json.dumps(log, indent=1))
        assert len(data) == 1 and data[0]["bytes"] > 100_000, "the dataset, once"
        assert len({one["address"] for one in log}) == len(log), "and each checkpoint once"
    assert objects.entry(f"{bucket}/apart/export/model.safetensors") is not None
