"""Divide the room of the nodes into groups of workers, one for each trial, each on one node unless that has no room.

In: how many workers each node has room for, and how many a trial takes at least and at most. Out: the next group and
its node, or the sizes of all. The plan and the running sweep ask the same, so both come to the same groups.

The rule: a node's room is cut into groups of the most workers, and what is left of it is one more group if it is enough
for the fewest. What is left of the nodes after that is put together in the same way. So of a range with `min: 1` no
device stays idle, and of another one fewer than `min` devices do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from sweeps.wording import many

if TYPE_CHECKING:  # each slot's process imports this file, and none needs the settings
    from hausa_asr.settings.sweep import ResourceSettings


class Group(NamedTuple):
    """The workers of one trial: how many, and the node that they are all on; "" if they are on several."""

    workers: int
    node: str = ""


@dataclass(frozen=True)
class Offer:
    """What a slot may have for its next trial.

    Attributes:
        workers, node: the group of a slot that has none yet, as in `Group`.
        is_free: there is room for that now; else it waits until there is.
        adds: by node, how many workers a warm slot may have besides its own; empty while other slots can use the room.
    """

    workers: int
    node: str = ""
    is_free: bool = True
    adds: Mapping[str, int] = field(default_factory=dict)

    def larger_than(self, held: Group, most: int) -> Group | None:
        """A larger group for a warm slot, where its workers are or elsewhere; None if there is room for none."""
        if not self.adds:
            return None
        there = Group(min(most, held.workers + self.adds.get(held.node, 0)), held.node)
        best = Group(self.workers, self.node) if self.is_free and self.workers > there.workers else there
        return best if best.workers > held.workers else None


def next_group(rooms: Mapping[str, int], wanted: ResourceSettings) -> Group | None:
    """The largest group that a trial can have now; None if there is no room for its fewest workers.

    Of several nodes that it fits on, it is on the one that has the least room.

    Args:
        rooms: by node, how many workers it has room for.
        wanted: the resources of one trial.
    """
    most = wanted.most_workers
    node = max(rooms, key=lambda name: (min(rooms[name], most), -rooms[name]), default="")
    if node and rooms[node] >= wanted.least_workers:
        return Group(min(rooms[node], most), node)
    together = sum(rooms.values())
    return Group(min(together, most)) if together >= wanted.least_workers else None


def without(rooms: Mapping[str, int], group: Group) -> dict[str, int]:
    """What room there is beside a group; if that is on several nodes, it fills those with the most room."""
    left, taken = dict(rooms), group.workers
    for node in [group.node] if group.node else sorted(left, key=lambda name: -left[name]):
        left[node] -= (here := min(left[node], taken))
        taken -= here
    return left


def group_sizes(rooms: Mapping[str, int], wanted: ResourceSettings) -> list[int]:
    """The sizes of all groups that there is room for, the largest first."""
    sizes, left = [], dict(rooms)
    while group := next_group(left, wanted):
        sizes.append(group.workers)
        left = without(left, group)
    return sorted(sizes, reverse=True)


def range_in_words(wanted: ResourceSettings) -> str:
    """How many workers a trial takes: `1 worker`, `1 to 8 workers`."""
    if wanted.least_workers == wanted.most_workers:
        return many(wanted.most_workers, "worker")
    return f"{wanted.least_workers} to {wanted.most_workers} workers"


def sizes_in_words(sizes: Sequence[int]) -> str:
    """Groups by their sizes, such as `2 with 8 workers and 1 with 4 workers`."""
    counts = Counter(sizes)
    return " and ".join(f"{count} with {many(workers, 'worker')}" for workers, count in sorted(counts.items())[::-1])
