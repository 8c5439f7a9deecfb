"""What slots are offered on made-up nodes: no device to two of them, and the room of nodes that came or went."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import pytest
from ray.core.generated.gcs_pb2 import PlacementGroupTableData

from hausa_asr.settings.sweep import ResourceSettings
from sweeps.on_ray import capacity as rooms
from sweeps.on_ray import promises
from sweeps.on_ray.capacity import Capacity, Node
from sweeps.on_ray.promises import Placed
from sweeps.planning.groups import Offer


class Cluster:
    """Nodes with CPUs, some of which groups of ours or others hold."""

    def __init__(self, **cpus: int) -> None:
        self.cpus, self.others, self.groups, self.leaving = dict(cpus), Counter[str](), list[Placed](), set[str]()
        self.labels: dict[str, dict[str, str]] = {}

    def nodes(self) -> dict[str, Node]:
        held = Counter(self.others)
        for group in self.groups:
            held.update(group.on)
        return {
            name: Node({"CPU": float(all_)}, {"CPU": float(all_ - held[name])}, self.labels.get(name, {}))
            for name, all_ in self.cpus.items()
        }

    def place(self, **on: int) -> Placed:
        self.groups.append(Placed(f"group-{len(self.groups)}", on))
        return self.groups[-1]


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Capacity]:
    """Makes a capacity that looks at a cluster at each call."""

    def make(cluster: Cluster, least: int, most: int, **more: object) -> Capacity:
        monkeypatch.setattr(rooms, "nodes", cluster.nodes)
        monkeypatch.setattr(rooms, "own_groups", list)
        monkeypatch.setattr(rooms, "_placed", lambda _: list(cluster.groups))
        monkeypatch.setattr(rooms, "_draining", lambda: cluster.leaving)
        monkeypatch.setattr(rooms, "_LOOK_S", -1.0)
        workers = {"min": least, "max": most} if least < most else most
        return Capacity(ResourceSettings.model_validate({"workers_per_trial": workers, **more}), 1)

    return make


def test_a_group_that_waits_long_for_its_place_is_seen_and_is_no_longer_once_it_has_one(
    look: Callable[..., Capacity], monkeypatch: pytest.MonkeyPatch
) -> None:
    capacity = look(Cluster(a=1), 1, 1)
    group = PlacementGroupTableData(placement_group_id=b"a", state=PlacementGroupTableData.PENDING)
    group.bundles.add().unit_resources["CPU"] = 1.0
    of_slot = PlacementGroupTableData(placement_group_id=b"b", state=PlacementGroupTableData.PENDING)
    of_slot.bundles.add().unit_resources["node:__internal_head__"] = 0.1
    monkeypatch.setattr(rooms, "own_groups", lambda: [of_slot, group])
    monkeypatch.setattr(rooms, "_SHORT_S", 0.05)
    capacity.slots()
    assert not capacity.is_short, "it may have its place in a moment"
    time.sleep(0.1)
    capacity.slots()
    assert capacity.is_short
    group.state = PlacementGroupTableData.CREATED
    capacity.slots()
    assert not capacity.is_short, "a slot's own group is not what others wait for"


def test_what_others_hold_for_long_is_said(look: Callable[..., Capacity], monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(a=4)
    capacity = look(cluster, 1, 1)
    cluster.place(a=1)
    cluster.others["a"] = 2
    assert capacity.slots(()) == 2 and capacity.remark() == "", "perhaps for a moment only"
    monkeypatch.setattr(rooms, "_SHORT_S", -1.0)
    capacity.slots()
    assert capacity.remark() == "others hold the room of 2 workers"
    cluster.others.clear()
    assert capacity.slots() == 4 and capacity.remark() == ""
    cluster.leaving, cluster.cpus["b"] = {"a"}, 4
    cluster.others["b"] = 3
    capacity.slots()
    assert capacity.remark() == "others hold the room of 3 workers", "also beside our groups on a node that goes"
    cluster.leaving = set()
    del cluster.cpus["b"]
    asked = look(cluster, 1, 1, slots=2)
    cluster.others["a"] = 2
    assert asked.slots(()) == 2 and asked.remark() == "", "as many slots as were asked for"


@pytest.mark.parametrize(("others", "said"), [(0.0, ""), (1.0, "others hold the room of 2 workers")])
def test_the_free_part_of_our_own_gpu_is_not_held_by_others(
    look: Callable[..., Capacity], monkeypatch: pytest.MonkeyPatch, others: float, said: str
) -> None:
    cluster = Cluster(a=8)
    capacity = look(cluster, 1, 1, gpus_per_worker=0.5)
    monkeypatch.setattr(rooms, "_SHORT_S", -1.0)
    cluster.place(a=1)
    node = Node({"CPU": 8.0, "GPU": 4.0}, {"CPU": 7.0, "GPU": 3.5 - others}, {})
    monkeypatch.setattr(rooms, "nodes", lambda: {"a": node})
    capacity.slots(())
    assert capacity.remark() == said


def test_two_slots_that_start_together_do_not_count_on_the_same_devices(look: Callable[..., Capacity]) -> None:
    cluster = Cluster(a=8, b=4)
    capacity = look(cluster, 1, 8)
    assert capacity.slots(()) == 2
    first = capacity.offer(0, (), False, is_last=False)
    second = capacity.offer(1, (), False, is_last=True)
    assert (first, second) == (Offer(8, "a"), Offer(4, "b", adds={"b": 4}))
    assert capacity.slots() == 2, "what is promised is still room of this sweep"
    cluster.place(a=8)
    cluster.place(b=4)
    assert capacity.slots() == 2 and not capacity.promises.by_node()


def test_what_is_promised_lapses_when_its_group_is_there_or_never_comes(
    look: Callable[..., Capacity], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(a=8)
    capacity = look(cluster, 1, 4)
    capacity.offer(0, (), False, is_last=False)
    assert capacity.offer(1, (), False, is_last=False) == Offer(4, "a")
    assert capacity.promises.by_node() == {"a": 8}
    cluster.place(a=4)
    capacity.slots()
    assert capacity.promises.by_node() == {"a": 4}, "the first group is there"
    monkeypatch.setattr(promises, "LAPSE_S", -1.0)
    capacity.slots()
    assert not capacity.promises.by_node()


def test_a_warm_slot_that_takes_an_order_gives_the_room_back(look: Callable[..., Capacity]) -> None:
    cluster = Cluster(a=8)
    capacity = look(cluster, 1, 4)
    capacity.offer(0, (), False, is_last=False)
    capacity.promises.taken_by(0, "slot one")
    assert capacity.promises.by_node() == {"a": 4}, "a new slot needs it"
    cluster.place(a=4)
    capacity.slots()
    capacity.offer(1, (), False, is_last=False)
    capacity.promises.taken_by(1, "slot one")
    assert not capacity.promises.by_node()
    capacity.offer(2, (), False, is_last=False)
    capacity.is_at_work(2)
    assert not capacity.promises.by_node()


def test_a_warm_slot_may_add_workers_only_where_no_other_slot_can_use_them(look: Callable[..., Capacity]) -> None:
    cluster = Cluster(a=8)
    cluster.others["a"] = 4
    capacity = look(cluster, 1, 8, slots=1)
    assert capacity.offer(0, (), False, is_last=True).workers == 4
    cluster.place(a=4)
    cluster.others.clear()
    capacity.slots()
    assert capacity.offer(1, (), False, is_last=False).adds == {}
    capacity.is_at_work(1)
    assert capacity.offer(2, (), False, is_last=True).adds == {"a": 4}
    assert capacity.offer(3, (), False, is_last=True).adds == {}, "it is promised"


def test_a_lost_node_leaves_the_trial_fewer_workers(look: Callable[..., Capacity]) -> None:
    cluster = Cluster(a=8, b=3)
    cluster.place(a=8)
    cluster.place(b=1)
    capacity = look(cluster, 2, 8)
    assert capacity.slots(()) == 3
    del cluster.cpus["a"]
    del cluster.groups[0]
    assert capacity.slots() == 2
    assert capacity.offer(0, (), False, is_last=True) == Offer(2, "b", adds={"b": 2})


def test_a_group_whose_creator_is_dead_is_room(look: Callable[..., Capacity]) -> None:
    cluster = Cluster(a=8)
    cluster.groups.append(Placed("g", {"a": 8}, ends=True))
    capacity = look(cluster, 1, 8)
    assert capacity.slots(()) == 1
    assert capacity.offer(0, (), False, is_last=False) == Offer(8, "a")


def test_without_room_a_group_waits_for_what_the_nodes_could_hold_and_then_takes_the_fewest(
    look: Callable[..., Capacity],
) -> None:
    cluster = Cluster(a=4, b=2)
    cluster.others.update(a=4, b=2)
    capacity = look(cluster, 1, 8)
    assert capacity.slots(()) == 1, "one waits in Ray's queue"
    assert capacity.offer(0, (), False, is_last=True) == Offer(4, is_free=False)
    assert capacity.offer(1, ("a",), False, is_last=True) == Offer(2, is_free=False)
    assert capacity.offer(2, (), True, is_last=True) == Offer(1, is_free=False)
    cluster.cpus.clear()
    assert capacity.offer(3, (), False, is_last=True) == Offer(8, is_free=False), "for an autoscaler"


def test_nodes_that_are_avoided_or_about_to_go_are_offered_to_nobody(look: Callable[..., Capacity]) -> None:
    cluster = Cluster(a=8, b=4)
    cluster.leaving.add("a")
    capacity = look(cluster, 1, 8)
    assert capacity.slots(()) == 1
    assert capacity.offer(0, (), False, is_last=False) == Offer(4, "b")
    cluster.leaving.clear()
    assert capacity.offer(1, ("a", "b"), False, is_last=False).is_free is False


def test_nodes_without_the_labels_that_workers_want_are_no_room(look: Callable[..., Capacity]) -> None:
    kind, cluster = "ray.io/accelerator-type", Cluster(a=8, b=4, c=4)
    cluster.labels = {"a": {kind: "A100"}, "b": {kind: "H100"}}
    capacity = look(cluster, 1, 4, labels={kind: "H100"})
    assert capacity.slots(()) == 1 and capacity.others() == {"b"}
    assert capacity.offer(0, (), False, is_last=False) == Offer(4, "b")
    assert capacity.offer(1, (), False, is_last=False).is_free is False
    assert capacity.avoidable(("b",)) == [], "there is no other with the label"


def test_a_fixed_number_is_offered_as_it_is_and_counted_as_before(look: Callable[..., Capacity]) -> None:
    cluster = Cluster(a=5, b=5)
    capacity = look(cluster, 2, 2)
    assert capacity.slots(()) == 5
    assert capacity.offer(0, (), False, is_last=False) == Offer(2, "a")
    assert capacity.offer(1, (), False, is_last=False) == Offer(2, "a")
    assert capacity.offer(2, (), False, is_last=False) == Offer(2, "b")
    assert capacity.offer(3, (), True, is_last=False) == Offer(2), "it has waited for that in vain"
    assert capacity.offer(4, (), False, is_last=False) == Offer(2), "what is left of both"
    cluster.place(a=1, b=1)
    cluster.place(a=2)
    assert capacity.slots() == 5
    cluster.others["a"] = 1
    assert capacity.slots() == 4, "five CPUs are left beside two groups"
    assert capacity.others() == {"a", "b"}
    assert capacity.others(("a",)) == {"b"}
    assert look(Cluster(a=5), 1, 1).offer(0, (), False, is_last=True) == Offer(1), "one is on one node anyway"


def test_parts_of_a_gpu_on_several_gpus_are_no_whole_one(
    look: Callable[..., Capacity], monkeypatch: pytest.MonkeyPatch
) -> None:
    capacity = look(Cluster(), 1, 1, gpus_per_worker=0.4)
    held = [Placed(name, {"a": 1}) for name in "ghij"]
    monkeypatch.setattr(rooms, "own_groups", list)
    monkeypatch.setattr(rooms, "_placed", lambda _: held)
    gpus = {"a": Node({"CPU": 16.0, "GPU": 2.0}, {"CPU": 12.0, "GPU": 0.4}, {})}
    monkeypatch.setattr(rooms, "nodes", lambda: gpus)
    assert capacity.slots(()) == 4
