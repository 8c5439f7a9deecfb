"""A Ray cluster of several nodes on this machine, whose nodes can be lost, cut off, starved and spoilt.

Each node is a `ray start` of its own, in a session of its own, on free ports of 127.0.0.1. In: what each node has. Out:
the cluster's address. Used by `chaos.py` and by the tests. Nothing of it outlives the block.
"""

from __future__ import annotations

import contextlib
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
    """One node: its `ray start`, and the session that all its processes are in."""

    process: subprocess.Popen[bytes]

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

    Attributes:
        address: of the head, for `cluster.address`.
        environment: what a driver needs to join it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._all, self._temp = folder, [], 0
        self.start_head()

    def start_head(self) -> None:
        """Start a head, the first one or after `kill_all`."""
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "HAUSA_ASR_"))}
        self.environment = {
            **kept, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN, "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1", "RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "3000",
            "RAY_health_check_failure_threshold": "3",
        }  # fmt: skip
        self._start("--head", "--port", str(port), "--num-cpus", "0", "--include-dashboard", "false")

    def add(self, cpus: int = 1, covered: Sequence[tuple[Path, str]] = ()) -> Node:
        """Add a node.

        Args:
            cpus: that it has.
            covered: folders over which this node alone sees an empty disk, each with its size, such as `64k`.
        """
        return self._start("--address", self.address, "--num-cpus", str(cpus), covered=covered)

    def kill_all(self) -> None:
        """Kill the head and all nodes."""
        while self._all:
            self._all.pop().kill()

    def _start(self, *arguments: str, covered: Sequence[tuple[Path, str]] = ()) -> Node:
        # A folder for each, or nodes would take each other's sockets. Workers find the head's by its address.
        self._temp += 1
        ports = ("--dashboard-agent-listen-port", "--dashboard-agent-grpc-port", "--runtime-env-agent-port",
                 "--metrics-export-port", "--node-manager-port", "--object-manager-port")  # fmt: skip
        command = [
            _RAY, "start", "--block", *arguments, "--num-gpus", "0", "--node-ip-address", "127.0.0.1",
            "--object-store-memory", str(_OBJECT_STORE_BYTES),
            *(part for name, port in zip(ports, free_ports(len(ports)), strict=True) for part in (name, str(port))),
        ]  # fmt: skip
        if "--head" in arguments:
            command += ["--temp-dir", str(self._folder / f"h{self._temp}")]
        if covered:
            mounts = " && ".join(f"mount -t tmpfs -o size={size} none '{path}'" for path, size in covered)
            command = ["unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh", *command]
        before = self._alive()
        log = (self._folder / f"node{self._temp}.log").open("wb")
        node = Node(subprocess.Popen(command, stdout=log, stderr=log, env=self.environment, start_new_session=True))
        self._all.append(node)
        deadline = time.monotonic() + _START_S
        while not self._alive() - before:
            if node.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"a node did not start: {Path(log.name).read_text()[-2000:]}")
            time.sleep(0.5)
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
def cluster() -> Iterator[Nodes]:
    """A cluster for the length of the block, at first only its head."""
    folder = Path(tempfile.mkdtemp(prefix="hausa-asr-nodes-", dir="/tmp"))
    nodes: Nodes | None = None
    try:
        nodes = Nodes(folder)
        yield nodes
    finally:
        if nodes is not None:
            nodes.kill_all()
        for pid in _holding(str(folder)):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
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
