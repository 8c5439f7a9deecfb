"""What workers report to their slot, and the slot to the scheduler.

Taken, Reported, Failed, Ended: a job's messages, in the order in which they may come. Between processes of Ray they
travel as they are; through a Tune result, which holds no objects of ours, as text.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from hausa_asr.recipe import Progress

MOST_LETTERS = 500
"""Of an error's line, which the ledger and MLflow keep."""
MESSAGE = "message"
"""A field of a Tune result: a message as text, "" from a slot that waits."""
WORKERS = "workers"
"""The other field of ours: how many workers the slot has, or has asked for."""


@dataclass(frozen=True)
class Taken:
    """The workers have taken the job.

    Attributes:
        node: the id of the node that they are on, in Ray's words; "" if they are on several.
        host: its address, for people.
    """

    node: str = ""
    host: str = ""


@dataclass(frozen=True)
class Reported:
    """The trial was evaluated; its workers wait for an answer, unless the trial ends here.

    Attributes:
        progress: the evaluation.
        slot, node, workers: the slot that trained it, the node of its workers as in `Taken`, and how many they are.
    """

    progress: Progress
    slot: str = ""
    node: str = ""
    workers: int = 0

    @property
    def is_end(self) -> bool:
        """Whether the trial ends here, whatever the answer."""
        return self.progress.last or self.progress.diverged


@dataclass(frozen=True)
class Failed:
    """The trial has raised an exception.

    Attributes:
        error: its first line.
        own: the trial's settings cause it wherever it runs, so it is not tried again.
        node, host: as in `Taken`.
    """

    error: str
    own: bool = False
    node: str = ""
    host: str = ""


@dataclass(frozen=True)
class Ended:
    """The fine-tune has returned: `finished`, `stopped`, `paused` or `diverged`."""

    end: str


Message = Taken | Reported | Failed | Ended


def to_text(message: Reported | Failed) -> str:
    """A message for a Tune result."""
    return json.dumps({"kind": type(message).__name__, **asdict(message)})


def from_text(text: str) -> Reported | Failed:
    """The message that `to_text` wrote."""
    fields = json.loads(text)
    if fields.pop("kind") == "Failed":
        return Failed(**fields)
    return Reported(**{**fields, "progress": Progress(**fields["progress"])})
