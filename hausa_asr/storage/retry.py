"""Wait for a store that is away: the same call again, with growing pauses and an end.

A store that is restarted, or a network that is cut for a minute, then costs only waiting. What no waiting mends (no
such bucket, no right to it, no such object) comes through at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from hausa_asr.errors import UserError, first_line

log = logging.getLogger("sweeps")

PATIENCE_S = 600.0
"""How long a store that does not answer is asked again."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0
_LASTING = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError, UserError)
_LASTING_CODES = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchBucket", "NotImplemented", "412", "409")
_LASTING_NAMES = ("NoCredentialsError", "PartialCredentialsError", "ParamValidationError", "ProfileNotFound")

Given = TypeVar("Given")


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Wait for a store only so long, in this thread and for the block."""
    before, _own.seconds = getattr(_own, "seconds", None), seconds
    try:
        yield
    finally:
        _own.seconds = before


_own = threading.local()


class StorageAway(UserError, OSError):
    """The store does not answer, or refuses us, and waiting has not helped."""

    def __reduce__(self):
        return _again, (self.what, self.where, self.fix)


def _again(what: str, where: str | None, fix: str | None) -> StorageAway:
    return StorageAway(what, where=where, fix=fix)


def patiently(call: Callable[[], Given], place: str) -> Given:
    """Call, and call again while the store is away.

    Args:
        call: may be called several times.
        place: what it is about, for messages.

    Raises:
        FileNotFoundError, FileExistsError: as the store says.
        StorageAway: no answer within `PATIENCE_S`, or one that no waiting changes.
    """
    try:
        return _patiently(call, place)
    finally:
        _troubles.pop(threading.get_ident(), None)


def trouble() -> str:
    """Why a store that is being asked again does not answer, by its newest fault; "" if none is asked again."""
    return next(reversed([*_troubles.values()]), "")


_troubles: dict[int, str] = {}
"""The last fault of each thread that asks again."""


def _patiently(call: Callable[[], Given], place: str) -> Given:
    began_s, pause_s, said = time.monotonic(), _FIRST_PAUSE_S, False
    patience_s = getattr(_own, "seconds", None) or PATIENCE_S
    while True:
        try:
            given = call()
        except (FileNotFoundError, FileExistsError, UserError):
            raise
        except Exception as error:  # each driver has errors of its own for a network that fails
            if is_conflict(error):
                raise
            lasts = (
                isinstance(error, _LASTING) or type(error).__name__ in _LASTING_NAMES or code(error) in _LASTING_CODES
            )
            if lasts or time.monotonic() - began_s > patience_s:
                raise _away(error, place, None if lasts else patience_s) from error
            _troubles[threading.get_ident()] = first_line(error)
            if not said:
                said = True
                log.warning("the storage is away, asked again for %.0f s: %s: %s", patience_s, place, first_line(error))
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        else:
            if said:
                log.warning("the storage answers again, after %.0f s: %s", time.monotonic() - began_s, place)
            return given


def code(error: BaseException) -> str:
    """What a store calls an error, such as `NoSuchBucket`; "" where it has no code."""
    link: BaseException | None = error
    while link is not None:
        answer = getattr(link, "response", None)
        if isinstance(answer, dict):
            return str(answer.get("Error", {}).get("Code", ""))
        link = link.__cause__
    return str(getattr(error, "code", "") or "")


def is_conflict(error: BaseException) -> bool:
    """Whether a conditional write was refused, since somebody else has written."""
    return isinstance(error, FileExistsError) or code(error) in (
        "PreconditionFailed", "ConditionalRequestConflict", "412", "409",
    )  # fmt: skip


def _away(error: Exception, place: str, waited_s: float | None) -> StorageAway:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200].rstrip(".")
    if waited_s is None:
        return StorageAway(
            f"The storage refuses us: {reason}.",
            where=place,
            fix="Check the address and your keys (AWS_PROFILE, AWS_ENDPOINT_URL and the like).",
        )
    return StorageAway(
        f"The storage has not answered for {waited_s:.0f} s: {reason}.",
        where=place,
        fix="Check the network and the store; what is written stays, and a sweep goes on with --resume.",
    )
