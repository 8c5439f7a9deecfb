"""What a settings' space allows: the order in which settings are drawn, which ranges hold, and a random draw.

Plain values in and out, without Optuna. Called by `space`, and by the planning before a sweep.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from random import Random
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


def draw(space: Space, chance: Random) -> dict[str, Any]:
    """A full set of searched settings at random, each as likely as its range says. Inactive ones are left out."""
    settings: dict[str, Any] = {}
    for name in ordered(space):
        number = active(space, name, settings)
        if number is None:
            continue
        one = space[name][number]
        if one.choices is not None:
            settings[name] = chance.choice(one.choices)
            continue
        assert one.low is not None and one.high is not None
        if one.log:
            settings[name] = math.exp(chance.uniform(math.log(one.low), math.log(one.high)))
        else:
            settings[name] = chance.uniform(one.low, one.high)
    return settings
