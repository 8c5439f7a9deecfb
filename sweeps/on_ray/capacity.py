"""How many slots the cluster has room for now, and with how many workers: nodes come and go, and others use them too.

In: what a trial takes, and what Ray knows of its nodes. Out: a number of slots, asked for at each step of the search,
and an offer of a worker group for each order.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import ray

from hausa_asr.settings.sweep import ResourceSettings
from sweeps.on_ray.promises import Placed, Promises
from sweeps.planning.groups import Group, Offer, group_sizes, next_group, without
from sweeps.planning.slots import fits_on, has_labels, workers_on
from sweeps.wording import many

log = logging.getLogger("sweeps")

_LOOK_S = 5.0
_SHORT_S = 15.0
"""A group that has had no place for so long gets none while all stays as it is."""


@dataclass(frozen=True)
class Node:
    """A living node.

    Attributes:
        resources: all that it has.
        free: what nobody holds.
        labels: its labels in Ray.
    """

    resources: Mapping[str, float]
    free: Mapping[str, float]
    labels: Mapping[str, str]


class Capacity:
    """Count the slots that fit.

    Args:
        wanted: the resources of one trial.
        planned: how many slots the sweep began with, which counts while Ray does not answer.
        grows: the cluster may get more nodes, so as many slots as the settings ask for are opened.
        trials: of the sweep, which is never short of more slots than that.

    Attributes:
        there: how many slots have their workers or room for them.
        steady: the number of slots as of late, without what was there for a moment only.
        promises: what was offered and is not taken up yet.
        is_short: a worker group waits for a place, which a warm slot without a trial may hold.
        others_hold: how many workers more there would be room for, if nobody else used these nodes.
    """

    def __init__(self, wanted: ResourceSettings, planned: int, grows: bool = True, trials: float = math.inf) -> None:
        self._wanted, self._slots, self._looked_s = wanted, planned, -math.inf
        self.steady, self.there, self.promises = planned, planned, Promises()
        self._grows = grows
        self._rooms: dict[str, int] = {}
        self._nodes: dict[str, Node] = {}
        self._leaving: set[str] = set()
        self._pending_since: dict[str, float] = {}
        self.is_short, self.others_hold = False, 0
        self._enough = min(wanted.slots or math.inf, trials)
        self._held_since: float | None = None
        self._avoided: Collection[str] = ()

    def slots(self, avoided: Collection[str] | None = None) -> int:
        """How many slots the sweep can have: those that have their workers, and those that there is room for.

        At least one, so that its trial waits in Ray's queue, where an autoscaler sees it.

        Args:
            avoided: the ids of nodes that get no more trials; None for those of the last call.
        """
        self._avoided = self._avoided if avoided is None else avoided
        if time.monotonic() - self._looked_s > _LOOK_S:
            self._looked_s = time.monotonic()
            try:
                self._look(self._avoided)
            except Exception as error:  # asked again in a moment
                log.warning("Ray was asked for its nodes and did not answer: %s", error)
        return self._slots

    def avoidable(self, nodes: Collection[str]) -> list[str]:
        """Which of these nodes can be avoided: none, if no other one has what a worker takes."""
        return sorted({*nodes} & {*self._nodes}) if self.others(nodes) else []

    def others(self, avoided: Collection[str] = ()) -> set[str]:
        """The ids of the nodes that trials may be on when they avoid these; none if together they hold no trial."""
        self.slots()
        others = {
            name: one.resources
            for name, one in self._nodes.items()
            if name not in avoided and self._fits(one) and workers_on(one.resources, self._wanted)
        }
        return {*others} if fits_on([*others.values()], self._wanted) else set()

    def leaving(self) -> set[str]:
        """The ids of the nodes that are about to go, such as spot machines that were given notice."""
        self.slots()
        return self._leaving

    def offer(self, order: int, avoid: Collection[str], found_no_room: bool, is_last: bool) -> Offer:
        """What a slot may have for an order. The room is promised: no other slot is offered it.

        The workers' node is named, since Ray's PACK spreads a group over nodes whose devices come free one by one. A
        trial whose last wait found no room may have any nodes, and the fewest workers of a range. If there is no room
        now, the group waits for the largest that the nodes could hold if they were empty. Without any node it waits for
        the most workers, so that an autoscaler adds a node for them.

        Args:
            order: a number of its own.
            avoid: the ids of nodes that its trial is not to be on.
            found_no_room: its trial has waited in vain for workers.
            is_last: no other slot can be opened now, so a warm one may have what room is left.
        """
        wanted = self._wanted
        if wanted.most_workers == 1:
            return Offer(1)
        self.slots()
        promised = self.promises.by_node()
        rooms = {name: max(0, room - promised[name]) for name, room in self._rooms.items() if name not in avoid}
        adds = {name: room for name, room in rooms.items() if room} if is_last else {}
        group = next_group(rooms, wanted)
        left = without(rooms, group) if group else rooms
        self.promises.make(order, {name: n - left[name] for name, n in rooms.items() if n > left[name]}, adds)
        if group:
            return Offer(group.workers, "" if found_no_room else group.node, True, adds)
        whole = {
            name: workers_on(one.resources, wanted)
            for name, one in self._nodes.items()
            if self._fits(one) and name not in avoid
        }
        waits_for = next_group(whole, wanted)
        if waits_for and found_no_room:
            waits_for = Group(wanted.least_workers)
        return Offer(waits_for.workers if waits_for else wanted.most_workers, "", False, adds)

    def is_at_work(self, order: int) -> None:
        """An order's workers have reported: their devices are among those that are taken."""
        if self.promises.drop(order):
            self._looked_s = -math.inf  # what was seen may be older than their group

    def _fits(self, node: Node) -> bool:
        return has_labels(node.labels, self._wanted.labels)

    def _look(self, avoided: Collection[str]) -> None:
        self._nodes = nodes()
        self._leaving = _draining()
        gone = {*avoided, *self._leaving}
        fitting = {name: one for name, one in self._nodes.items() if name not in gone and self._fits(one)}
        own = own_groups()
        self._look_for_pending(own)
        every = _placed(own)
        self.promises.look(every)
        groups = [one for one in every if not one.ends]
        self._rooms = {name: self._room(one, name, every) for name, one in fitting.items()}
        total = sum(workers_on(one.resources, self._wanted) for one in fitting.values())
        taken = sum(sum(one.on.values()) for one in groups)
        self.there = len(groups) + len(group_sizes(_at_most(self._rooms, max(0, total - taken)), self._wanted))
        self._look_for_others(sum(self._held(one, name, every) for name, one in fitting.items()))
        asked = self._wanted.slots or self.there
        wanted = max(1, asked if self._grows else min(asked, self.there))
        if wanted == self._slots:
            self.steady = wanted
        self._slots = wanted

    def _look_for_pending(self, own: Iterable[Any]) -> None:
        now = time.monotonic()
        pending = [
            group.placement_group_id.hex() for group in own if group.state == group.PENDING and _is_workers(group)
        ]
        self._pending_since = {name: self._pending_since.get(name, now) for name in pending}
        self.is_short = any(now - since_s > _SHORT_S for since_s in self._pending_since.values())

    def _look_for_others(self, held: int) -> None:
        """Take in how many workers others hold the room of. What they hold for a moment only counts for nothing."""
        if not held or self.there >= self._enough:
            held, self._held_since = 0, None
        elif self._held_since is None:
            self._held_since = time.monotonic()
        lasts = self._held_since is not None and time.monotonic() - self._held_since > _SHORT_S
        before, self.others_hold = self.others_hold, held if lasts else 0
        if bool(self.others_hold) != bool(before):
            log.info("%s", self.remark() or "others hold no room that workers could have any more")

    def _held(self, node: Node, name: str, groups: Collection[Placed]) -> int:
        """How many more workers a node could hold, if only this sweep used it."""
        ours = sum(one.on.get(name, 0) for one in groups)
        takes = {"CPU": self._wanted.cpus_per_worker, "GPU": self._wanted.gpus_per_worker}
        left = {
            kind: min(all_, node.free.get(kind, 0.0) + ours * takes.get(kind, 0.0))
            for kind, all_ in node.resources.items()
        }
        return workers_on(node.resources, self._wanted) - workers_on(left, self._wanted)

    def remark(self) -> str:
        """What somebody who waits for the sweep should know of these nodes; "" if there is nothing."""
        return f"others hold the room of {many(self.others_hold, 'worker')}" if self.others_hold else ""

    def _room(self, node: Node, name: str, groups: Collection[Placed]) -> int:
        """How many workers a node has room for, beside our groups and others."""
        ours = {ends: sum(one.on.get(name, 0) for one in groups if one.ends is ends) for ends in (False, True)}
        # Of parts of a GPU that are free on several GPUs none is a whole one for a worker.
        most = workers_on(node.resources, self._wanted) - ours[False]
        return max(0, min(most, workers_on(node.free, self._wanted) + ours[True]))


def _at_most(rooms: Mapping[str, int], workers: int) -> dict[str, int]:
    """Room for no more workers than these, by node; the nodes with the most room keep it."""
    cut = {}
    for name in sorted(rooms, key=lambda name: -rooms[name]):
        cut[name] = min(rooms[name], workers)
        workers -= cut[name]
    return cut


def nodes() -> dict[str, Node]:
    """Every living node of the cluster, by id."""
    free = ray._private.state.available_resources_per_node()
    return {
        one["NodeID"]: Node(one["Resources"], free.get(one["NodeID"], {}), one.get("Labels", {}))
        for one in ray.nodes()
        if one["Alive"]
    }


def _draining() -> set[str]:
    """The ids of the nodes that are about to go."""
    return set(ray._private.state.state.get_draining_nodes())


def placement_groups() -> list[Any]:
    """Every placement group of the cluster, with who made it, which the public `placement_group_table` leaves out."""
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData as Group  # type: ignore[attr-defined]

    table = ray._private.state.state._connect_and_get_accessor().get_placement_group_table()
    return [Group.FromString(raw) for raw in table]


def own_groups() -> list[Any]:
    """The placement groups of this driver and of all that it started."""
    job = ray.get_runtime_context().get_job_id()
    return [group for group in placement_groups() if group.creator_job_id.hex() == job]


def _placed(groups: Iterable[Any]) -> list[Placed]:
    """Those of workers that have their place."""
    return [
        Placed(
            group.placement_group_id.hex(),
            Counter(bundle.node_id.hex() for bundle in group.bundles),
            group.creator_actor_dead,
        )
        for group in groups
        if group.state == group.CREATED and _is_workers(group)
    ]


def _is_workers(group: Any) -> bool:
    """Whether a placement group is that of workers. Slots themselves have groups too, without a CPU or GPU."""
    needs = [bundle.unit_resources for bundle in group.bundles]
    return any(need.get("CPU", 0) or need.get("GPU", 0) for need in needs)
