"""The processes of `gpu_check.py`: started beforehand, given parts by name, ended at a limit; and the findings' file.

The standard library alone. The child's side is `gpu_check_parts.py`: a line of JSON in for each part, lines of findings
out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

CHILD = Path(__file__).with_name("gpu_check_parts.py")
_LETTERS = 3000


class Figures:
    """The findings so far, on disk at all times."""

    def __init__(self, path: Path | None) -> None:
        self.found: dict[str, dict[str, Any]] = {}
        self._path, self._lock, self._started = path, threading.Lock(), time.monotonic()

    def add(self, check: str, finding: dict[str, Any]) -> None:
        """Add to the findings of a check, and write all of them."""
        with self._lock:
            self.found.setdefault(check, {}).update(finding)
            shown = str(finding)
            shown = shown[-300:] if "fault" in finding else shown[:300]
            print(f"{time.monotonic() - self._started:6.1f} s  {check}: {shown}", flush=True)
            if self._path is not None:
                partial = self._path.with_suffix(".partial")
                partial.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
                os.replace(partial, self._path)


class Process:
    """A process that imports its packages at once, and then runs the parts that it is given, one after another.

    Attributes:
        lines: findings of its part so far.
        fault: why its part failed; None if it did not.
    """

    def __init__(self, figures: Figures, environment: dict[str, str]) -> None:
        self.lines = 0
        self.fault: str | None = None
        self._figures, self._name = figures, ""
        self._last: dict[str, Any] = {}
        self._used, self._over = False, threading.Event()
        self._over.set()
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in `close`)
        self._process = subprocess.Popen(
            [sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            text=True, env={**os.environ, **environment},
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def begin(self, name: str, part: str, task: dict[str, Any]) -> Process:
        """Begin a part; its findings go under `name`, or nowhere if that is empty."""
        self.lines, self.fault, self._name = 0, None, name
        self._used = True
        self._over.clear()
        self.send(json.dumps({"part": part, "task": task}))
        return self

    def send(self, line: str) -> None:
        """Write a line to the process."""
        with suppress(OSError, ValueError):  # where it has ended, `finish` says why
            print(line, file=self._process.stdin, flush=True)

    def wait_for(self, lines: int, until: float) -> dict[str, Any] | None:
        """Wait for this many findings and return the newest; None if time runs out or the part ends first."""
        while self.lines < lines and time.monotonic() < until and not self._over.is_set():
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        return self._last if self.lines >= lines else None

    def finish(self, until: float) -> str | None:
        """Wait for the end of its part, end the process at the limit, and return why it failed, if it did."""
        while not self._over.wait(0.05) and time.monotonic() < until and self._process.poll() is None:
            pass
        if self._process.poll() is not None:
            self._reader.join()  # it may have written its last findings just before
        if not self._over.is_set():
            fault = "stopped at its time limit"
            if self._process.poll() is not None:
                self._errors.seek(0)
                fault = f"ended with {self._process.returncode}\n{self._errors.read()[-_LETTERS:]}".strip()
            self._fail(fault)
            self.close()
        return self.fault

    @property
    def usable(self) -> bool:
        """Whether it can run another part."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it, and wait until its memory is free again."""
        if self._used and self._over.is_set():  # it waits for more, and ends by itself, as do its children
            with suppress(OSError, ValueError, subprocess.TimeoutExpired):
                if self._process.stdin:
                    self._process.stdin.close()
                self._process.wait(10)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._errors.close()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            try:
                finding = json.loads(line) if line.startswith('{"') else None
            except ValueError:
                continue  # somebody else's
            if finding == {"over": True}:
                self._over.set()
            elif finding and "fault" in finding:
                self._fail(finding["fault"])
            elif finding:
                self._last = finding
                self.lines += 1
                if self._name:
                    self._figures.add(self._name, finding)

    def _fail(self, fault: str) -> None:
        self.fault = fault[-_LETTERS:]
        if self._name:
            self._figures.add(self._name, {"fault": self.fault})


class Processes:
    """Processes that have imported their packages, so that no part waits for that.

    Args:
        figures: where their findings go.
        environment: their environment variables, beside this process's own.
        reused: let a process run part after part. Quicker, where it does not matter what a part leaves behind.
    """

    def __init__(self, figures: Figures, environment: dict[str, str], reused: bool) -> None:
        self.environment = environment
        self._figures, self._reused = figures, reused
        self._ready: list[Process] = []
        self._taken: list[Process] = []

    def warm(self) -> None:
        """Have one wait for work, if a process is used for one part only."""
        if not self._reused and not self._ready:
            self._ready.append(Process(self._figures, self.environment))

    def take(self, **environment: str) -> Process:
        """A process for a part; a new one, where it needs environment variables of its own."""
        if self._ready and not environment:
            self._taken.append(self._ready.pop(0))
        else:
            self._taken.append(Process(self._figures, {**self.environment, **environment}))
        return self._taken[-1]

    def back(self, process: Process) -> None:
        """End a process whose part is over, or keep it for another."""
        self._taken.remove(process)
        if self._reused and process.usable:
            self._ready.insert(0, process)
        else:
            process.close()

    def close(self) -> None:
        """End all of them."""
        for process in [*self._taken, *self._ready]:
            process.close()
        self._taken, self._ready = [], []
