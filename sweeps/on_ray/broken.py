"""What has broken a slot: its reason and its node, as an exception and in the words that Ray Tune hands on.

In: the error that has ended a Ray Train run, and where its workers were. Out: a `SlotBroken`. Raised by `slot`, and
read from Tune's text by the scheduler.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

import ray

from hausa_asr.errors import TooLittleMemory, first_line
from sweeps.on_ray.messages import MOST_LETTERS, Place


class SlotBroken(RuntimeError):
    """The worker group has ended, or hangs: the slot goes, and the trial goes on in another one.

    Args:
        reason: what broke, in words.
        node, host: where, as in `messages.Failed`.
        own: the trial's settings cause it wherever it runs.
    """

    def __init__(self, reason: str, node: str = "", host: str = "", own: bool = False) -> None:
        super().__init__(reason, node, host, own)
        self.reason, self.node, self.host, self.own = reason, node, host, own

    def __str__(self) -> str:
        """One line that `broken_by` reads: of an exception in an actor Tune hands on no more than its text."""
        return json.dumps(vars(self))


def broken_by(text: str) -> SlotBroken:
    """What broke a slot, from the text of the error that Tune has."""
    found = re.findall(rf"\b({SlotBroken.__name__}|{NoRoom.__name__}): (\{{.*\}})", text)
    if not found:
        line = next((line for line in reversed(text.splitlines()) if line.strip()), "no reason given")
        return SlotBroken(f"its slot broke: {line.strip()[:MOST_LETTERS]}")
    kind, fields = found[-1]
    return (NoRoom if kind == NoRoom.__name__ else SlotBroken)(**json.loads(fields))


class NoRoom(SlotBroken):
    """No worker has come: nothing has broken, and the slot would only stand in the way of the others."""


def of_group(error: BaseException | None, places: Mapping[int, Place], trained: bool) -> SlotBroken:
    """What has ended a worker group.

    Where several workers failed, a process that died is the cause, and what the others say of their connection is not.

    Args:
        error: what Ray Train has raised.
        places: where each worker is, by rank.
        trained: it had taken the trial; else it was the one before that may have caused it.
    """
    failures = getattr(error, "worker_failures", None) or {}
    dead = [rank for rank, one in failures.items() if isinstance(_unwrapped(one), ray.exceptions.RayActorError)]
    first = next(iter(dead or failures), None)
    cause = _unwrapped(error if first is None else failures[first])
    if cause is None:
        return SlotBroken("the worker group has ended: no reason given", *place_of(places.values()))
    if first is None:  # it broke while Ray Train set the group up; the text has the address of the machine
        there = [place for place in places.values() if re.search(rf"\bip={re.escape(place[1])}\b", str(error))]
    else:
        there = [places[first]] if first in places else []
    name, line = type(cause).__name__, first_line(cause)
    own = trained and isinstance(cause, TooLittleMemory)
    why = line if line == name else f"{name}: {line}"
    return SlotBroken(f"the worker group has ended: {why}", *place_of(there or places.values()), own)


def place_of(places: Iterable[Place]) -> Place:
    """One place for all of these: the node's, or no node and the addresses of all."""
    different = {*places}
    if len(different) == 1:
        return different.pop()
    return "", ", ".join(sorted({host for _, host in different}))


def _unwrapped(error: BaseException | None) -> BaseException | None:
    """An exception without those that Ray has wrapped around it."""
    for name in ("controller_failure", "health_check_failure", "cause"):
        error = getattr(error, name, None) or error
    return error
