"""A real Slurm on this machine: a controller and nodes with network, /tmp and processes of their own.

Needs root and Debian's `slurm-wlm` and `munge`. In: a folder that all nodes see, outside /tmp. Out: a place to submit
jobs to. Nothing of it outlives the block.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from helpers.mlflow_server import free_port
from helpers.whole_sweeps import ROOT

sys.path.append(str(ROOT / "benchmarks"))  # last: it has a `sweeps` too
from node_network import Network, may_network

_SETTINGS = """
ClusterName=test
SlurmctldHost=controller({address})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmdParameters=config_overrides
SlurmdTimeout=20
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
"""
_NODE = """
hostname {name}
mount -t tmpfs none /mnt && mkdir /mnt/new /mnt/work
mount -t overlay overlay -o lowerdir=/tmp,upperdir=/mnt/new,workdir=/mnt/work /tmp
read -r _  # until its cable is laid
slurmd -D -N {name} &
while :; do wait; sleep 0.2; done  # as the first process it reaps what others leave
"""


def may_slurm() -> bool:
    """Whether this process may start one here."""
    return all(map(shutil.which, ("slurmctld", "slurmd", "munged"))) and may_network()


class Slurm:
    """A controller, and nodes n1, n2 and so on of one CPU each.

    Attributes:
        folder: that all nodes see.
        address: of this machine on the nodes' network.
    """

    def __init__(self, folder: Path, nodes: int) -> None:
        self.folder, self._count = folder, nodes
        self._network = Network()
        self.address = self._network.address
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        (self.folder / "state").mkdir()
        names = [f"n{k}" for k in range(1, self._count + 1)]
        lines = [
            f"NodeName={name} NodeHostname={name} NodeAddr={self._network.address_of(k)} CPUs=1 RealMemory=8000"
            for k, name in enumerate(names, 1)
        ]
        settings = _SETTINGS.format(
            folder=self.folder, address=self.address, controller_port=free_port(), node_port=free_port()
        )
        partition = "PartitionName=all Nodes=ALL Default=YES MaxTime=1:00:00 State=UP"
        (self.folder / "slurm.conf").write_text("\n".join([settings, *lines, partition, ""]))
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        options = ("key-file", "socket", "pid-file", "log-file", "seed-file")
        files = [f"--{option}={self.folder}/munge.{option.removesuffix('-file')}" for option in options]
        self._run("munge", "munged", "--foreground", "--force", *files)
        self._run("controller", "unshare", "-u", "sh", "-c", "hostname controller; exec slurmctld -D")
        for name in names:
            self.start_node(name)

    def start_node(self, name: str) -> None:
        """Start a node, the first time or after it was killed."""
        node = self._run(
            name, "unshare", "-u", "-n", "-m", "-p", "-f", "--kill-child", "--mount-proc",
            "sh", "-ec", _NODE.format(name=name), stdin=subprocess.PIPE,
        )  # fmt: skip
        assert node.stdin
        inside = int(_children(node.pid)[0])
        self._network.attach(inside, int(name[1:]))
        node.stdin.write(b"\n")
        node.stdin.close()

    def kill_node(self, name: str) -> None:
        """End a node and all that runs on it, as a machine that loses its power."""
        node = self._processes.pop(name)
        node.kill()
        node.wait()

    def environment(self, **more: str) -> dict[str, str]:
        """What Slurm's commands need."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "HAUSA_ASR_", "SLURM_"))}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**kept, "PATH": path, "SLURM_CONF": f"{self.folder}/slurm.conf", "OMP_NUM_THREADS": "1", **more}

    def ask(self, *command: str, **more: str) -> str:
        """Run one of Slurm's commands in the folder, and give what it prints."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment(**more), capture_output=True, text=True, timeout=60
        )
        assert not done.returncode, (command, done.stderr)
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """What Slurm says of a job, by its own names, such as JobState."""
        fields = self.ask("scontrol", "--oneliner", "show", "job", number).split()
        return dict(field.split("=", 1) for field in fields if "=" in field)

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-3000:] for path in self.folder.glob("*.log"))

    def close(self) -> None:
        for process in self._processes.values():
            process.send_signal(signal.SIGKILL)
            process.wait()
        self._network.close()

    def _run(self, name: str, *command: str, stdin: int | None = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.out").open("ab") as out:
            self._processes[name] = subprocess.Popen(
                command, stdin=stdin, stdout=out, stderr=out, env=self.environment(), start_new_session=True
            )
        return self._processes[name]


def _children(pid: int) -> list[str]:
    deadline = time.monotonic() + 10
    while not (found := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def slurm(folder: Path, nodes: int = 2) -> Iterator[Slurm]:
    """A Slurm for the length of the block, in an empty folder that isn't in /tmp; arguments as in `Slurm`."""
    one = Slurm(folder, nodes)
    try:
        one.start()
        deadline = time.monotonic() + 60
        while (states := one.ask("sinfo", "--noheader", "-N", "-o", "%T").split()) != ["idle"] * nodes:
            assert time.monotonic() < deadline, (states, one.logs())
            time.sleep(0.5)
        yield one
    finally:
        one.close()
