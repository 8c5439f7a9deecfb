"""Room that was given out for worker groups and is not taken up yet, so that it is not given out twice.

A slot needs seconds from its order to its workers' place in Ray. In: what each order was offered, and the groups that
have their place. Out: the room that is spoken for. Part of `capacity`; the driver's one thread calls it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

LAPSE_S = 120.0
"""A group that has not come after this time will not come."""


@dataclass(frozen=True)
class Placed:
    """A worker group of this sweep that has its place.

    Attributes:
        id: Ray's.
        on: its workers by node.
        ends: the group's creator is dead, so Ray is about to take the group away.
    """

    id: str
    on: Mapping[str, int]
    ends: bool = False


@dataclass(frozen=True)
class _Promise:
    """What one order was offered: room by node. `adds` is for what a warm slot may add to the workers that it has."""

    rooms: Mapping[str, int]
    adds: Mapping[str, int]
    made_s: float


class Promises:
    """Keep what is promised until its group is there, or until it is plain that none comes."""

    def __init__(self) -> None:
        self._open: dict[int, _Promise] = {}
        self._seen: set[str] = set()
        self._slots: set[str] = set()

    def make(self, order: int, rooms: Mapping[str, int], adds: Mapping[str, int]) -> None:
        """Promise an order room for a new group, and what a warm slot may add."""
        self._open[order] = _Promise(rooms, adds, time.monotonic())

    def taken_by(self, order: int, slot: str) -> None:
        """A slot has taken an order. A warm one keeps the group that it has, if it may add nothing to that."""
        is_warm = slot in self._slots
        self._slots.add(slot)
        if is_warm and order in self._open and not self._open[order].adds:
            del self._open[order]

    def drop(self, order: int) -> bool:
        """Drop an order's promise: its workers are at work, or the order is over. Says whether there was one."""
        return self._open.pop(order, None) is not None

    def look(self, placed: Collection[Placed]) -> None:
        """Drop the promises whose groups are there by now, and those whose groups do not come."""
        new = [one for one in placed if one.id not in self._seen]
        self._seen = {one.id for one in placed}
        for group in new:
            if (order := self._kept_by(group)) is not None:
                del self._open[order]
        late_s = time.monotonic() - LAPSE_S
        self._open = {order: one for order, one in self._open.items() if one.made_s > late_s}

    def _kept_by(self, group: Placed) -> int | None:
        """The oldest order whose promise a new group keeps."""
        size = sum(group.on.values())
        for order, one in self._open.items():
            if one.rooms == group.on or (one.adds.keys() & group.on.keys()):
                return order
            if len(one.rooms) > 1 and sum(one.rooms.values()) == size:
                return order
        return None

    def by_node(self) -> Counter[str]:
        """How many workers are promised room, by node."""
        promised: Counter[str] = Counter()
        for one in self._open.values():
            for node in one.rooms.keys() | one.adds.keys():
                promised[node] += max(one.rooms.get(node, 0), one.adds.get(node, 0))
        return promised
