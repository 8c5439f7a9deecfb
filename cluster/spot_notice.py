"""Drain this Ray node when AWS takes its spot machine back, so that trials are saved and go on elsewhere.

    python cluster/spot_notice.py HEAD:6379

In: Ray's address; the machine's metadata service, asked every five seconds. Out: the worker node of this machine is
drained, with the time that AWS leaves it, and this process ends; what fails is printed and tried again. Called on each
worker by `cloud/aws.yaml`. On Kubernetes nothing is needed: Ray drains its node when its pod is ended.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime

EVERY_S = 5.0
_METADATA = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/")
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def taken_in_s() -> float | None:
    """Seconds until AWS takes the machine back, by version 2 of its metadata service; None if it has not said so."""
    ask = urllib.request.Request(
        f"{_METADATA}/latest/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    )
    with _open(ask, timeout=EVERY_S) as answer:
        token = answer.read().decode()
    ask = urllib.request.Request(
        f"{_METADATA}/latest/meta-data/spot/instance-action", headers={"X-aws-ec2-metadata-token": token}
    )
    try:
        with _open(ask, timeout=EVERY_S) as answer:
            when = datetime.fromisoformat(json.load(answer)["time"])
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    return max((when - datetime.now(UTC)).total_seconds(), 0.0)


def drain(address: str, seconds: float) -> None:
    """Report to Ray that this machine goes away after some seconds.

    Raises:
        RuntimeError: Ray has no such node, or refuses.
    """
    # Late, since most machines never come here and the watch should weigh nothing.
    from ray._private.services import get_node_ip_address
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION  # type: ignore[attr-defined]
    from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]

    cluster, here = GcsClient(address=address), get_node_ip_address(address)
    names = [
        name.hex()
        for name, node in cluster.get_all_node_info().items()
        if node.state == GcsNodeInfo.ALIVE and node.node_manager_address == here and not node.is_head_node
    ]
    if not names:
        raise RuntimeError(f"the cluster at {address} has no worker node at {here}")
    for name in names:
        until_ms = int((time.time() + seconds) * 1000)
        taken, why = cluster.drain_node(name, DRAIN_NODE_REASON_PREEMPTION, "AWS takes the machine back", until_ms)
        if not taken:
            raise RuntimeError(why)


def main() -> None:
    if len(sys.argv) != 2:
        print("usage: python cluster/spot_notice.py HEAD:6379", file=sys.stderr)
        sys.exit(2)
    while True:
        try:
            seconds = taken_in_s()
            if seconds is not None:
                drain(sys.argv[1], seconds)
                print(f"AWS takes this machine back in {seconds:.0f} s; its Ray node is drained", flush=True)
                return
        except Exception as error:  # Ray's and the network's: whatever it is, the next try may do
            print(f"{type(error).__name__}: {error}", flush=True)
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main()
