"""Ask the workers of a sweep to leave: an interrupt's word to those that train, which may be far from a report.

In: the driver's word. Out: whether it was given, as workers ask while they train; each then writes a checkpoint to
resume from, without another evaluation, and leaves. It is a key in the store of Ray's head, which a busy slot need not
pass on.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

_EVERY_S = 1.0
"""How often a worker asks the head."""


class Leaving:
    """The driver's side.

    Attributes:
        key: where workers look.
    """

    def __init__(self) -> None:
        self.key = f"hausa-asr-leave-{uuid.uuid4().hex}"

    def ask(self) -> None:
        """Ask all workers to leave."""
        _store()._internal_kv_put(self.key, b"1")

    def close(self) -> None:
        """Leave nothing in the head's store."""
        _store()._internal_kv_del(self.key)


def is_asked(key: str) -> Callable[[], bool]:
    """The workers' side: a question that costs the head a call once a second, however often it is put."""
    asked_s = 0.0

    def ask() -> bool:
        nonlocal asked_s
        if time.monotonic() - asked_s < _EVERY_S:
            return False
        asked_s = time.monotonic()
        return bool(_store()._internal_kv_exists(key))

    return ask


def _store() -> Any:
    from ray.experimental import internal_kv

    return internal_kv
