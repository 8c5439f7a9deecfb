"""Nodes that are about to go, on a real Ray: what the Kubernetes and AWS templates rely on reaches the cluster."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # last: it has a `sweeps` too
import ray_nodes

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
HELD_S = 60
BUSY = f"""
import sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False)
@ray.remote(num_cpus=1)
class Busy:
    def node(self): return ray.get_runtime_context().get_node_id()
busy = Busy.remote()
print(ray.get(busy.node.remote()), flush=True)
end = time.time() + {HELD_S}
while time.time() < end and not (going := ray._private.state.state.get_draining_nodes()):
    time.sleep(0.1)
for name, until_ms in going.items():
    print(name, until_ms / 1000 - time.time(), flush=True)
"""
"""Keeps a node busy, as a trial does; prints its name, then that of a draining one and the seconds that it has."""


def notice(nodes: ray_nodes.Nodes, give: Callable[[], None]) -> tuple[str, float]:
    """The node that the cluster believes to go after `give`, and in how many seconds."""
    busy = subprocess.Popen(
        [sys.executable, "-c", BUSY, nodes.address],
        env=nodes.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert busy.stdout is not None
        assert busy.stdout.readline().strip()
        give()
        name, _, left = busy.stdout.readline().partition(" ")
        assert left, "nobody was given notice"
        return name, float(left)
    finally:
        busy.kill()
        busy.wait()


def test_a_pod_that_is_ended_gives_notice_first() -> None:
    """Ray is the pod's first process, so it gets Kubernetes' SIGTERM, and drains its node before it ends."""
    workers = yaml.safe_load((ROOT / "cluster/kubernetes/raycluster.yaml").read_text())["spec"]["workerGroupSpecs"]
    pod = workers[0]["template"]["spec"]
    drain_s = float(next(one["value"] for one in pod["containers"][0]["env"] if one["name"] == DRAIN))
    assert 60 <= drain_s < pod["terminationGracePeriodSeconds"] <= 110, "of the two minutes that AWS gives"
    # KubeRay runs `ray start` as the last command of a shell, which becomes it.
    shell = subprocess.Popen(
        ["bash", "-c", "--", "ulimit -n 1024; sh -c 'echo $$'"], stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert int(shell.communicate()[0]) == shell.pid
    with ray_nodes.cluster() as nodes:
        nodes.environment[DRAIN] = str(drain_s)
        node = nodes.add()
        name, left_s = notice(nodes, node.process.terminate)
        assert name == node.name and drain_s - 30 < left_s <= drain_s
        assert node.process.poll() is None, "it must go on while its trials are saved"


class _Metadata(http.server.BaseHTTPRequestHandler):
    """AWS's metadata service, version 2: without a token nothing, and no notice until there is one."""

    said: datetime | None = None

    def do_PUT(self) -> None:
        ours = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self._answer(200 if ours else 400, "a-token")

    def do_GET(self) -> None:
        if self.headers["X-aws-ec2-metadata-token"] != "a-token":
            return self._answer(401, "")
        if self.path != "/latest/meta-data/spot/instance-action" or _Metadata.said is None:
            return self._answer(404, "")
        when = f"{_Metadata.said:%Y-%m-%dT%H:%M:%SZ}"
        return self._answer(200, json.dumps({"action": "terminate", "time": when}))

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def metadata() -> Iterator[int]:
    """The port of a metadata service on all addresses, since nodes may have a network of their own."""
    server = http.server.ThreadingHTTPServer(("", 0), _Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    _Metadata.said = None


def test_a_spot_machine_of_aws_gives_notice(metadata: int) -> None:
    with ray_nodes.cluster() as nodes:
        node = nodes.add()
        host = nodes.address.partition(":")[0]
        inside = ["nsenter", "-t", str(node.process.pid), "-n"] if nodes.network else []
        watch = subprocess.Popen(
            [*inside, sys.executable, str(ROOT / "cluster/spot_notice.py"), nodes.address],
            env=nodes.environment | {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{host}:{metadata}",
                                     "http_proxy": "http://127.0.0.1:9"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            time.sleep(2)
            assert watch.poll() is None, "there is no notice yet"

            def take_back() -> None:
                _Metadata.said = datetime.now(UTC) + timedelta(minutes=2)

            name, left_s = notice(nodes, take_back)
            assert name == node.name and 60 < left_s <= 120
            said, _ = watch.communicate(timeout=30)
        finally:
            watch.kill()
        assert watch.returncode == 0 and "its Ray node is drained" in said, said


def test_without_an_address_it_says_how_to_call_it() -> None:
    asked = subprocess.run(
        [sys.executable, str(ROOT / "cluster/spot_notice.py")], capture_output=True, text=True, env=dict(os.environ)
    )
    assert asked.returncode == 2 and "usage: " in asked.stderr
