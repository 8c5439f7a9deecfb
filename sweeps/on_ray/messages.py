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
Place = tuple[str, str]
"""Where a worker is: its node's id, in Ray's words, and that node's address, for people."""
MESSAGE = "message"
"""A field of a Tune result: a message as text, "" from a slot that waits, or whose trial left at an interrupt."""
WORKERS = "workers"
"""The other field of ours: how many workers the slot has, or has asked for."""


@dataclass(frozen=True)
class Taken:
    """The workers have taken the job."""


@dataclass(frozen=True)
class Reported:
    """The trial was evaluated; its workers wait for an answer, unless the trial ends here.

    Attributes:
        progress: the evaluation.
        slot, nodes, workers: the slot that trained it, the ids of its workers' nodes, and how many workers they are.
        wait_s: seconds that the slot waited for it.
        is_first: the slot's first of the trial, whose wait includes its set-up.
    """

    progress: Progress
    slot: str = ""
    nodes: tuple[str, ...] = ()
    workers: int = 0
    wait_s: float = 0.0
    is_first: bool = False

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
        node: the id of the node where it broke, in Ray's words; "" if the workers are on several and it may be any.
        host: the address of that node or of these, for people; "" if no worker has come to any.
    """

    error: str
    own: bool = False
    node: str = ""
    host: str = ""


@dataclass(frozen=True)
class Ended:
    """The fine-tune has returned: `finished`, `stopped`, `paused`, `diverged` or `left`."""

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
    return Reported(**{**fields, "progress": Progress(**fields["progress"]), "nodes": tuple(fields["nodes"])})
