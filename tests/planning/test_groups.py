"""Room is divided into groups of workers: whole ones first, each on one node unless it does not fit, no device idle."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml

from hausa_asr.errors import UserError
from hausa_asr.settings.load import load
from hausa_asr.settings.sweep import ResourceSettings
from helpers.plans import planned
from sweeps.planning.groups import Group, Offer, group_sizes, next_group, sizes_in_words, without
from sweeps.planning.slots import admit


def between(least: int, most: int, **more: float) -> ResourceSettings:
    return ResourceSettings.model_validate({"workers_per_trial": {"min": least, "max": most}, **more})


@pytest.mark.parametrize(
    ("rooms", "least", "most", "sizes"),
    [
        ([1], 1, 8, [1]),  # a laptop
        ([8], 1, 8, [8]),
        ([8, 8, 4], 1, 8, [8, 8, 4]),
        ([20], 1, 8, [8, 8, 4]),
        ([6, 6], 1, 8, [6, 6]),  # on one node each, and not 8 and 4
        ([6, 6], 7, 8, [8]),  # it fits on none alone; the rest is too little
        ([5, 5], 2, 4, [4, 4, 2]),  # what is left of both
        ([9], 2, 4, [4, 4]),
        ([3, 3], 2, 2, [2, 2, 2]),  # a fixed number: as many as fit in all
        ([1, 0], 2, 4, []),
        ([], 1, 4, []),
    ],
)
def test_sizes(rooms: list[int], least: int, most: int, sizes: list[int]) -> None:
    assert group_sizes({str(n): room for n, room in enumerate(rooms)}, between(least, most)) == sizes


def test_no_room_is_given_out_twice_and_less_than_a_group_stays_idle() -> None:
    draw = random.Random(0)
    for _ in range(300):
        rooms = {str(n): draw.randrange(0, 12) for n in range(draw.randrange(1, 5))}
        least = draw.randrange(1, 5)
        wanted = between(least, draw.randrange(least, 9))
        left = dict(rooms)
        while group := next_group(left, wanted):
            assert wanted.least_workers <= group.workers <= wanted.most_workers
            if any(room >= wanted.least_workers for room in left.values()):
                assert group.node and left[group.node] >= group.workers
            left = without(left, group)
            assert min(left.values()) >= 0
        assert sum(rooms.values()) - sum(group_sizes(rooms, wanted)) == sum(left.values()) < wanted.least_workers
        fixed = ResourceSettings(workers_per_trial=least)
        assert len(group_sizes(rooms, fixed)) == sum(rooms.values()) // least


def test_a_group_goes_where_it_leaves_the_least_room() -> None:
    assert next_group({"a": 8, "b": 4, "c": 5}, between(1, 4)) == Group(4, "b")
    assert next_group({"a": 2, "b": 3}, between(1, 8)) == Group(3, "b")
    assert next_group({"a": 2, "b": 3}, between(4, 8)) == Group(5)
    assert without({"a": 2, "b": 3}, Group(4)) == {"a": 1, "b": 0}


def test_a_warm_slot_takes_a_larger_group_where_it_is_or_elsewhere() -> None:
    offer = Offer(5, "b", adds={"a": 2, "b": 5})
    assert offer.larger_than(Group(2, "a"), 8) == Group(5, "b")
    assert offer.larger_than(Group(4, "a"), 8) == Group(6, "a")
    assert offer.larger_than(Group(4, "c"), 8) == Group(5, "b")
    assert offer.larger_than(Group(6, "c"), 8) is None
    assert offer.larger_than(Group(8, "a"), 8) is None
    assert Offer(5, "b").larger_than(Group(2, "a"), 8) is None, "others can use the room"
    assert Offer(8, is_free=False, adds={"a": 1}).larger_than(Group(2, "a"), 8) == Group(3, "a")


def test_one_file_plans_for_a_laptop_for_eight_gpus_and_for_a_cluster_that_lost_a_node() -> None:
    wanted = between(1, 8, gpus_per_worker=1, cpus_per_worker=2)
    laptop, server = {"CPU": 8.0, "GPU": 1.0}, {"CPU": 32.0, "GPU": 8.0}
    assert admit(wanted, [laptop], 40).workers == (1,)
    assert admit(wanted, [server], 40).workers == (8,)
    assert admit(wanted, [server, server, {"CPU": 8.0, "GPU": 4.0}], 40).workers == (8, 8, 4)
    assert admit(wanted, [server, {"CPU": 8.0, "GPU": 4.0}], 40).workers == (8, 4)
    assert admit(wanted, [server, server], 1).workers == (8,), "no more slots than trials, the largest groups first"
    growing = wanted.model_copy(update={"slots": 3})
    assert admit(growing, [server, laptop], 40).workers == (8, 1)
    assert admit(growing, [server, laptop], 40, grows=True).workers == (8, 1, 8), "the third waits for a node"


def test_a_range_whose_fewest_fit_nowhere_is_refused() -> None:
    with pytest.raises(UserError) as refused:
        admit(between(4, 8, gpus_per_worker=1), [{"CPU": 8.0, "GPU": 2.0}], 4)
    assert "A trial takes 4 to 8 workers" in str(refused.value)
    assert "room for 2 such workers" in str(refused.value)
    assert "resources.workers_per_trial.min to 2 or less" in str(refused.value)


def test_the_plan_says_who_gets_how_many(tmp_path: Path) -> None:
    nodes = "cluster.nodes=[{CPU: 32, GPU: 8}, {CPU: 16, GPU: 4}]"
    changes = "resources.workers_per_trial={min: 1, max: 8}", "resources.audio_s_per_s=100"
    _, prediction, text = planned("xlsr_300m", tmp_path, nodes, *changes)
    assert "2 trials side by side, 1 with 8 workers and 1 with 4 workers, of 4 CPUs and 1 GPU each" in text
    assert "a trial takes 1 to 8 workers, as many as there is room for when its group starts" in text
    assert prediction.expected is not None
    assert prediction.expected.hours == pytest.approx(prediction.expected.audio_s / 100 / 3600 * 8)
    _, small, text = planned("xlsr_300m", tmp_path, "cluster.nodes=[{CPU: 8, GPU: 1}]", *changes)
    assert "1 trial at a time, with 1 worker of 4 CPUs" in text and "what follows is for 1 worker a trial" in text
    assert small.expected is not None and small.expected.hours == pytest.approx(prediction.expected.hours / 8)
    assert sizes_in_words([8, 8, 4]) == "2 with 8 workers and 1 with 4 workers"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("0", "resources.workers_per_trial: input should be greater than or equal to 1"),
        ("{min: 0, max: 3}", "resources.workers_per_trial.min: input should be greater"),
        ("{min: 3, max: 2}", "resources.workers_per_trial: min is 3, more than max, 2"),
        ("{mix: 1, max: 2}", "resources.workers_per_trial.mix: no such setting; did you mean min?"),
        ("{min: 1}", "resources.workers_per_trial.max: field required"),
    ],
)
def test_a_wrong_range_is_named_by_its_place_in_the_file(value: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        load(None, [f"resources.workers_per_trial={value}"], environment={})
    assert words in str(refused.value)
    assert "A setting is wrong" in str(refused.value)


def test_a_range_outlives_the_settings_file_of_a_sweep() -> None:
    config = load(None, ["resources.workers_per_trial={min: 2, max: 8}"], environment={})
    assert (config.resources.least_workers, config.resources.most_workers) == (2, 8)
    again = type(config).model_validate(yaml.safe_load(config.to_yaml()))
    assert again.resources == config.resources
    assert load(None, ["resources.workers_per_trial.max=4"], environment={}).resources == between(1, 4)
