"""The conditions of a space: in which order its settings are drawn, and which range of one holds.

Plain values in and out, without Optuna. Called by all that draws settings (`space`, `candidates`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hausa_asr.errors import UserError
from hausa_asr.settings.recipe import Dimension

Space = Mapping[str, Sequence[Dimension]]

_TESTS = {
    "is": lambda value, wanted: value == wanted,
    "in": lambda value, wanted: value in wanted,
    "above": lambda value, wanted: value > wanted,
    "at_least": lambda value, wanted: value >= wanted,
    "below": lambda value, wanted: value < wanted,
    "at_most": lambda value, wanted: value <= wanted,
}


def ordered(space: Space) -> list[str]:
    """The searched settings, every one after those that its conditions name.

    Raises:
        UserError: two settings depend on each other.
    """
    done: list[str] = []
    waiting = list(space)
    while waiting:
        ready = [n for n in waiting if all(p in done for one in space[n] for p in one.when)]
        if not ready:
            raise UserError(
                f"The conditions of {', '.join(waiting)} depend on each other.",
                where="space",
                fix="Let `when` name only settings that do not depend on this one.",
            )
        done += ready
        waiting = [n for n in waiting if n not in ready]
    return done


def active(space: Space, name: str, settings: Mapping[str, Any]) -> int | None:
    """Which range of a setting holds, given the settings before it: the first whose conditions do; None if none."""
    for number, one in enumerate(space[name]):
        if all(
            parent in settings and all(_TESTS[test](settings[parent], wanted) for test, wanted in tests.items())
            for parent, tests in one.when.items()
        ):
            return number
    return None
