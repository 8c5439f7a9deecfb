"""How many slots the cluster has room for now: nodes come and go, and others use them too.

In: what a trial takes, and what Ray knows of its nodes. Out: a number of slots, asked for at each step of the search.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import ray

from hausa_asr.settings.sweep import ResourceSettings
from sweeps.on_ray.trainer import free
from sweeps.planning.slots import has_labels, slots_on

log = logging.getLogger("sweeps")

_LOOK_S = 5.0


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

    Attributes:
        steady: the number of slots as of late, without what was there for a moment only.
    """

    def __init__(self, wanted: ResourceSettings, planned: int) -> None:
        self._wanted, self._slots, self._looked_s = wanted, planned, 0.0
        self.steady = planned
        self._nodes: dict[str, Node] = {}
        self._leaving: set[str] = set()
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
        self.slots()
        others = [one.resources for name, one in self._nodes.items() if name not in nodes and self._fits(one)]
        return sorted({*nodes} & {*self._nodes}) if slots_on(others, self._wanted) else []

    def usable(self) -> set[str]:
        """The ids of the nodes that trials may be on now."""
        self.slots()
        return {
            name for name, one in self._nodes.items() if self._fits(one) and slots_on([one.resources], self._wanted)
        }

    def leaving(self) -> set[str]:
        """The ids of the nodes that are about to go, such as spot machines that were given notice."""
        self.slots()
        return self._leaving

    def _fits(self, node: Node) -> bool:
        return has_labels(node.labels, self._wanted.labels)

    def _look(self, avoided: Collection[str]) -> None:
        self._nodes = nodes()
        self._leaving = set(ray._private.state.state.get_draining_nodes())
        gone = {*avoided, *self._leaving}
        fitting = [one for name, one in self._nodes.items() if name not in gone and self._fits(one)]
        own = own_groups()
        free(own)
        groups = sum(_has_workers(group) for group in own)
        there = groups + slots_on([one.free for one in fitting], self._wanted)
        # Of parts of a GPU that are free on several GPUs none is a whole one for a worker.
        there = min(there, max(groups, slots_on([one.resources for one in fitting], self._wanted)))
        wanted = max(1, self._wanted.slots or there)
        if wanted == self._slots:
            self.steady = wanted
        self._slots = wanted


def nodes() -> dict[str, Node]:
    """Every living node of the cluster, by id."""
    free = ray._private.state.available_resources_per_node()
    return {
        one["NodeID"]: Node(one["Resources"], free.get(one["NodeID"], {}), one.get("Labels", {}))
        for one in ray.nodes()
        if one["Alive"]
    }


def placement_groups() -> list[Any]:
    """Every placement group of the cluster, with who made it, which the public `placement_group_table` leaves out."""
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData as Group  # type: ignore[attr-defined]

    table = ray._private.state.state._connect_and_get_accessor().get_placement_group_table()
    return [Group.FromString(raw) for raw in table]


def own_groups() -> list[Any]:
    """The placement groups of this driver and of all that it started."""
    job = ray.get_runtime_context().get_job_id()
    return [group for group in placement_groups() if group.creator_job_id.hex() == job]


def _has_workers(group: Any) -> bool:
    """Whether a placement group is that of workers, and has its place. Slots have groups too, without a CPU or GPU."""
    needs = [bundle.unit_resources for bundle in group.bundles]
    return group.state == group.CREATED and any(need.get("CPU", 0) or need.get("GPU", 0) for need in needs)
