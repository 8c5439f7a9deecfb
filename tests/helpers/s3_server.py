"""A real S3 server on this machine, of moto, that can be stopped and started again with what it holds."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from helpers.mlflow_server import free_port

BUCKET = "sweeps"


class S3Server:
    """A server in a process of its own. It holds all in memory, so it is paused rather than ended to be away."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "s3.log"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                request = urllib.request.Request(f"{self.url}/{BUCKET}", method="PUT")
                with urllib.request.urlopen(request, timeout=2):
                    return
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "planted-key",
            "AWS_SECRET_ACCESS_KEY": "planted-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process be its client."""
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)

    def requests(self, method: str, part: str = "") -> list[str]:
        """The paths that clients have asked for, of those that have `part` in them."""
        text = re.sub(r"\x1b\[\d+m", "", self.log.read_text())  # the server colours what is not 200
        lines = [line for line in text.splitlines() if f'"{method} ' in line]
        return [path for line in lines if part in (path := line.split(f'"{method} ')[1].split()[0])]

    def pause(self) -> None:
        os.killpg(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        self.go_on()
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(15)
