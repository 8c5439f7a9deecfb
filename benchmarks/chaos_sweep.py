"""One sweep of `chaos.py`, on a cluster of its own: its driver, its records, and somebody else's job beside it.

In: a folder, the prepared dataset, a cluster and the settings. Out: the ledger's events while the sweep goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench
import yaml
from ray_nodes import Node, Nodes

_HELD_S, _PATIENCE_S, _INTERRUPTED = 60.0, 900.0, 130
_HOLD = """
import sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False)

@ray.remote(num_cpus=1)
def hold(victims):
    time.sleep(victims)

ray.get(hold.remote(float(sys.argv[2])))
"""


class Run:
    """One sweep on a cluster of its own.

    Args:
        work: a folder for its files.
        prepared: the prepared dataset.
        nodes: the cluster, at first only its head.
        settings: of the sweep.
    """

    def __init__(self, work: Path, prepared: Path, nodes: Nodes, settings: dict[str, Any]) -> None:
        self.work, self.nodes, self.event_s = work, nodes, 0.0
        self.joined, self.joined_s = "", 0.0
        self._there: list[Node] = []
        self.base = work / "base"
        shutil.copytree(bench.ROOT / "hausa_asr/demo_base", self.base, ignore=shutil.ignore_patterns("*.py", "__*"))
        self.settings = work / "chaos.yaml"
        given = {
            **settings, "model": {"base": str(self.base)}, "data": {"prepared": str(prepared)},
            "storage": str(work / "runs"), "mlflow": {"uri": f"sqlite:///{work}/mlflow.db"}, "name": "chaos",
        }  # fmt: skip
        self.settings.write_text(yaml.safe_dump(given))
        self.folder = work / "runs/chaos"
        self.output = work / "output.txt"
        self.threads: list[threading.Thread] = []

    def start(self, *arguments: str) -> None:
        """Start a driver."""
        with self.output.open("ab") as output:
            self.driver = subprocess.Popen(
                [sys.executable, str(bench.ROOT / "sweeps/run.py"), *arguments,
                 "--set", f"cluster.address={self.nodes.address}"],
                stdout=output, stderr=output, env=self.nodes.environment, start_new_session=True,
            )  # fmt: skip

    def add(self, **given: Any) -> Node:
        """Start another node of one CPU."""
        self._there.append(self.nodes.add(**given))
        return self._there[-1]

    def victim(self) -> Node:
        """A node that something is to befall: the oldest that nothing has yet."""
        return self._there.pop(0)

    def start_anew(self) -> None:
        """Kill the driver and all nodes, and go on with the sweep on a new cluster."""
        os.killpg(self.driver.pid, signal.SIGKILL)
        self.driver.wait()
        self.nodes.kill_all()
        self._there.clear()
        self.nodes.start_head()
        self.add()
        self.add()
        self.start("--resume", str(self.folder))

    def stop_and_resume(self) -> None:
        """Interrupt the driver, and go on with the sweep on the same cluster."""
        os.kill(self.driver.pid, signal.SIGTERM)
        if (status := self.driver.wait(timeout=60)) != _INTERRUPTED:
            raise RuntimeError(f"the interrupted driver ended with {status}:\n{self.output.read_text()[-3000:]}")
        self.start("--resume", str(self.folder))

    def events(self) -> list[dict[str, Any]]:
        """What the ledger has so far."""
        path = self.folder / "ledger.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.is_file() else []
        return [json.loads(line) for line in lines]

    def reports(self) -> list[dict[str, Any]]:
        return [event for event in self.events() if event["event"] == "reported"]

    def until(self, reports: int) -> None:
        """Wait until the ledger has this number of reports."""
        deadline = time.monotonic() + _PATIENCE_S
        while len(self.reports()) < reports:
            if self.driver.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the sweep ended, or waits for ever:\n{self.output.read_text()[-3000:]}")
            time.sleep(0.1)

    def later(self, seconds: float, do: Callable[[], object]) -> None:
        """Do something after a while, beside the sweep."""
        thread = threading.Timer(seconds, do)
        thread.start()
        self.threads.append(thread)

    def hold_cpu(self) -> None:
        """Let somebody else's job hold a CPU for a minute."""
        holding = subprocess.Popen(
            [sys.executable, "-c", _HOLD, self.nodes.address, str(_HELD_S)], env=self.nodes.environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self.later(0.0, holding.wait)

    def end(self) -> None:
        """Wait for the driver's end."""
        try:
            self.driver.wait(timeout=_PATIENCE_S)
        finally:
            if self.driver.poll() is None:
                os.killpg(self.driver.pid, signal.SIGKILL)
                self.driver.wait()
            for thread in self.threads:
                thread.join()
