"""Follow a ledger that another process writes: its state, kept up to date as the file grows.

In: a sweep's folder. Out: the same `State` that its driver has, a moment later. Writes nothing and takes no lock.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hausa_asr.errors import UserError
from sweeps.record.names import LEDGER_FILE
from sweeps.record.state import State


class Follower:
    """Read what is new in a ledger, each time it is asked.

    Args:
        folder: the sweep's folder.

    Attributes:
        state: what the events so far add up to.
        drivers: how many drivers have opened the sweep so far.
        opened: when the last of them did, in seconds since the epoch; 0 before the first.
        reports_before: how many reports there were at that time.
        longest_s: the longest time without an event since then.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / LEDGER_FILE
        self._restart()

    def _restart(self) -> None:
        self.state = State()
        self.drivers, self.opened, self.reports_before, self.longest_s = 0, 0.0, 0, 0.0
        self._read = self._lines = 0
        self._last = b""

    def poll(self) -> list[str]:
        """Take in what was written since the last call; a last line that is not whole yet waits for the next.

        Returns:
            The trials that something happened to, each once.

        Raises:
            UserError: a line is no event, or one of another version.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, self._read - len(self._last)))
                if file.read(len(self._last)) != self._last:  # another file under this name
                    self._restart()
                file.seek(self._read)
                new = file.read()
        except FileNotFoundError:
            return []
        new = new[: new.rfind(b"\n") + 1]
        self._read += len(new)
        touched: dict[str, None] = {}
        for line in new.splitlines(keepends=True):
            self._last = line
            self._lines += 1
            if not line.strip():
                continue
            event = self._apply(line)
            if "trial" in event:
                touched[event["trial"]] = None
        return list(touched)

    def _apply(self, line: bytes) -> dict[str, Any]:
        before = self.state.clock
        try:
            event: dict[str, Any] = json.loads(line)
            self.state.apply(event)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"The sweep's ledger has a line that this version can't read: {error!r}.",
                where=f"{self.path}, line {self._lines}",
                fix="Watch it with the version that runs the sweep.",
            ) from error
        if event["event"] == "opened":
            self.drivers, self.opened, self.longest_s = self.drivers + 1, event["time"], 0.0
            self.reports_before = sum(len(trial.reports) for trial in self.state.trials.values())
        elif before is not None:
            self.longest_s = max(self.longest_s, event["time"] - before)
        return event
