"""A Ray cluster of several nodes on this machine, whose nodes can be lost, cut off, starved and spoilt.

Each node is a `ray start` in a session of its own; for root in a network namespace too, else on free ports of
127.0.0.1. In: what each node has. Out: the cluster's address. Used by `chaos.py` and by the tests. Nothing of it
outlives the block.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import forked_worker
from node_network import Network, may_network

_RAY = str(Path(sys.executable).parent / "ray")
_TOKEN = "0123456789abcdef" * 4
_START_S = 90.0
_OBJECT_STORE_BYTES = 100_000_000


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def may_mount() -> bool:
    """Whether this process may mount a file system that only a node sees."""
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode == 0
    )


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, all different."""
    with contextlib.ExitStack() as held:
        every = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in every:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in every]


@dataclass
class Node:
    """One node: its `ray start`, and the session that all its processes are in.

    Attributes:
        process: the `ray start`.
        name: Ray's id of it.
        metrics: the port at which it exports figures for Prometheus.
        cable: to the network; "" if it shares 127.0.0.1.
    """

    process: subprocess.Popen[bytes]
    metrics: int
    name: str = ""
    cable: str = ""

    def kill(self) -> None:
        """Kill it and all that runs on it, as a machine that loses its power."""
        self.signal(signal.SIGKILL)
        self.process.wait()

    def signal(self, number: int) -> None:
        """Send a signal to all its processes: SIGSTOP cuts it off, SIGCONT brings it back."""
        for pid in _session(self.process.pid):
            with contextlib.suppress(OSError):
                os.kill(pid, number)


class Nodes:
    """A cluster. Its head has no CPU, so that nothing is trained there.

    Args:
        folder: a short path for Ray's files, since it keeps sockets there.
        network: for the nodes; None if they share 127.0.0.1.
        patience: how many times as long as usual a node may not answer before it counts as lost.
        scales_to: how many nodes of one CPU Ray's autoscaler may bring; none where it is 0.
        forks: modules of which workers are to be forks, see `forked_worker.py`; by default none is one.

    Attributes:
        head: the node without CPUs.
        address: of the head, for `cluster.address`.
        environment: what a driver needs to join it.
    """

    def __init__(
        self, folder: Path, network: Network | None, patience: int, scales_to: int, forks: Sequence[str]
    ) -> None:
        self._folder, self._patience, self._scales_to, self._temp = folder, patience, scales_to, 0
        self._ray = forked_worker.command() if forks else [_RAY]
        self._forks = {forked_worker.MODULES: ",".join(forks)} if forks else {}
        self._all: list[Node] = []
        self.network = network
        self.start_head()

    def start_head(self) -> None:
        """Start a head, the first one or after `kill_all`."""
        port = free_port()
        self.address = f"{self.network.address if self.network else '127.0.0.1'}:{port}"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "HAUSA_ASR_"))}
        self.environment = {
            **kept, **self._forks, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN, "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1", "RAY_health_check_period_ms": str(1000 * self._patience),
            "RAY_health_check_timeout_ms": str(3000 * self._patience), "RAY_health_check_failure_threshold": "3",
            "RAY_worker_register_timeout_seconds": str(60 * self._patience),
            "RAY_worker_maximum_startup_concurrency": "16",  # else one at a time on a head without CPUs
        }  # fmt: skip
        scaling = self._scaling() if self._scales_to else ()
        self.head = self._start("--head", "--port", str(port), "--num-cpus", "0", "--include-dashboard", "false",
                                *scaling, RAY_FAKE_CLUSTER="1", AUTOSCALER_UPDATE_INTERVAL_S="1")  # fmt: skip

    def _scaling(self) -> tuple[str, str]:
        """What starts an autoscaler whose nodes are processes of this machine, by Ray's own stand-in for a cloud."""
        head, worker = "ray.head.default", "worker"
        file = self._folder / "scaling.json"
        file.write_text(json.dumps({
            "cluster_name": "nodes", "max_workers": self._scales_to, "idle_timeout_minutes": 0.2,
            "provider": {"type": "fake_multinode", "gcs_address": self.address, "launch_multiple": True},
            "available_node_types": {
                head: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
                worker: {
                    "resources": {"CPU": 1, "object_store_memory": _OBJECT_STORE_BYTES}, "node_config": {},
                    "min_workers": 0, "max_workers": self._scales_to,
                },
            },
            "head_node_type": head, "upscaling_speed": 1.0, "auth": {}, "file_mounts": {}, "cluster_synced_files": [],
            "initialization_commands": [], "setup_commands": [], "head_setup_commands": [],
            "worker_setup_commands": [], "head_start_ray_commands": [], "worker_start_ray_commands": [],
        }))  # fmt: skip
        return "--autoscaling-config", str(file)

    def add(
        self, cpus: int = 1, covered: Sequence[tuple[Path, str]] = (), labels: str = "", **environment: str
    ) -> Node:
        """Add a node.

        Args:
            cpus: that it has.
            covered: folders over which this node alone sees an empty disk, each with its size, such as `64k`.
            labels: that it has in Ray, such as `kind=small`.
            environment: variables that its processes have besides.
        """
        more = ("--labels", labels) if labels else ()
        return self._start("--address", self.address, "--num-cpus", str(cpus), *more, covered=covered, **environment)

    def kill_all(self) -> None:
        """Kill the head and all nodes."""
        while self._all:
            self._all.pop().kill()

    def cut_off(self, node: Node) -> None:
        """Let a node hear and say nothing: its processes go on, or on 127.0.0.1 they stand still."""
        self.network.pull(node.cable) if self.network else node.signal(signal.SIGSTOP)

    def connect(self, node: Node) -> None:
        """End that."""
        self.network.plug_in(node.cable) if self.network else node.signal(signal.SIGCONT)

    def drain(self, node: Node, seconds: int) -> None:
        """Give a node notice, as spot machines get it."""
        subprocess.run(
            [_RAY, "drain-node", "--address", self.address, "--node-id", node.name, "--reason",
             "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "notice", "--deadline-remaining-seconds",
             str(seconds)],
            check=True, env=self.environment, capture_output=True,
        )  # fmt: skip

    def _start(self, *arguments: str, covered: Sequence[tuple[Path, str]] = (), **environment: str) -> Node:
        # A folder for each, or nodes would take each other's sockets. Workers find the head's by its address.
        self._temp += 1
        shared = self.network is None or "--head" in arguments
        names = ("--dashboard-agent-listen-port", "--dashboard-agent-grpc-port", "--runtime-env-agent-port",
                 "--metrics-export-port", "--node-manager-port", "--object-manager-port")  # fmt: skip
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        command = [
            *self._ray, "start", "--block", *arguments, "--num-gpus", "0", "--include-log-monitor", "false",
            "--object-store-memory", str(_OBJECT_STORE_BYTES),
            *(part for name, port in ports.items() for part in (name, str(port))),
        ]  # fmt: skip
        if "--head" in arguments:
            command += ["--temp-dir", str(self._folder / f"h{self._temp}")]
        mounts = " && ".join(f"mount -t tmpfs -o size={size} none '{path}'" for path, size in covered)
        kinds = [*(["-m"] if covered else []), *([] if shared else ["-n"])]
        if kinds:  # it waits for its cable and hears its address
            script = f'read -r address && {mounts or ":"} && exec "$@" --node-ip-address "$address"'
            command = ["unshare", *kinds, "sh", "-c", script, "sh", *command]
        else:
            command += ["--node-ip-address", self.address.partition(":")[0]]
        before = self._alive()
        log = (self._folder / f"node{self._temp}.log").open("wb")
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log,
                                   env={**self.environment, **environment}, start_new_session=True)  # fmt: skip
        address, cable = "", ""
        if self.network and not shared:
            time.sleep(0.5)  # until it has its namespace
            address, cable = self.network.attach(process.pid)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(f"{address}\n".encode())
            process.stdin.close()
        node = Node(process, ports["--metrics-export-port"], cable=cable)
        self._all.append(node)
        deadline = time.monotonic() + _START_S
        while not (new := self._alive() - before):
            if node.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"a node did not start: {Path(log.name).read_text()[-2000:]}")
            time.sleep(0.5)
        node.name = new.pop()
        return node

    def _alive(self) -> set[str]:
        """The ids of the nodes that the head believes alive; none if there is no head."""
        host, _, port = self.address.partition(":")
        try:
            socket.create_connection((host, int(port)), timeout=1.0).close()
        except OSError:  # Ray's own client would wait for long
            return set()
        code = (
            "import sys; from ray._raylet import GcsClient\n"
            "nodes = GcsClient(address=sys.argv[1]).get_all_node_info().items()\n"
            "print(*(name.hex() for name, node in nodes if node.state == 0))"
        )
        asked = subprocess.run(
            [sys.executable, "-c", code, self.address], capture_output=True, text=True, env=self.environment
        )
        return set(asked.stdout.split()) if asked.returncode == 0 else set()


@contextlib.contextmanager
def cluster(patience: int = 1, scales_to: int = 0, forks: Sequence[str] = ()) -> Iterator[Nodes]:
    """A cluster for the length of the block, at first only its head; the arguments as for `Nodes`."""
    folder = Path(tempfile.mkdtemp(prefix="hausa-asr-nodes-", dir="/tmp"))
    nodes, network = None, Network() if may_network() else None
    try:
        nodes = Nodes(folder, network, patience, scales_to, forks)
        yield nodes
    finally:
        if nodes is not None:
            nodes.kill_all()
        for pid in _holding(str(folder)):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if network is not None:
            network.close()
        shutil.rmtree(folder, ignore_errors=True)


def _session(leader: int) -> list[int]:
    """The processes of a session."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[3]) == leader:
                found.append(int(entry.name))
    return found


def _holding(text: str) -> list[int]:
    """The processes whose command line has a text: what has left its session."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            if text in (entry / "cmdline").read_text() and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found
