"""The lines of a sweep's log: text for people, or with HAUSA_ASR_LOG=json an object a line for log collectors.

In: log records. Out: text in the sweep's log. Called by `run`.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from hausa_asr.errors import UserError

VARIABLE = "HAUSA_ASR_LOG"
_TRIAL = re.compile(r"(t\d{3,}(?:-\w+)*)\b")
"""Our messages begin with the trial that they are about, where there is one."""


def log_to(path: Path) -> None:
    """Send what Ray, Tune and we log to the sweep's log, so that it does not run across the table of trials."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(formatter(path.parent.name))
    for name in ("sweeps", "ray", "ray.tune", "ray.train", "mlflow", "optuna", "urllib3"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name == "sweeps" else logging.WARNING)
    logging.getLogger("ray.tune.analysis").setLevel(logging.ERROR)  # it misses the records that we turned off


def formatter(sweep: str, environment: Mapping[str, str] = os.environ) -> logging.Formatter:
    """What writes a sweep's log records as lines.

    Args:
        sweep: its name.
        environment: where HAUSA_ASR_LOG is looked up: `text`, the default, or `json`.

    Raises:
        UserError: it is something else.
    """
    wanted = environment.get(VARIABLE) or "text"
    if wanted not in ("text", "json"):
        raise UserError(
            f"There are no log lines of the kind {wanted!r}.", where=VARIABLE, fix="Set it to json, or leave it unset."
        )
    return (
        _JsonLines(sweep) if wanted == "json" else logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    )


class _JsonLines(logging.Formatter):
    def __init__(self, sweep: str) -> None:
        super().__init__()
        self._sweep = sweep

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "sweep": self._sweep,
        }
        if record.name == "sweeps" and (trial := _TRIAL.match(message)):
            line["trial"] = trial[1]
        line["message"] = message
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
