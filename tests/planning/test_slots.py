"""A plan has as many slots as fit; a trial that fits nowhere is refused with a change that would fit."""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest

from hausa_asr.errors import UserError
from hausa_asr.settings.sweep import ClusterSettings, ResourceSettings
from sweeps.planning.slots import HEAD, admit, local_nodes, stock_would_hang

LAPTOP = [{"CPU": 2.0}]
FARM = [{"CPU": 32.0, "GPU": 4.0}, {"CPU": 32.0, "GPU": 4.0}, {"CPU": 8.0}]


def wanted(workers: int = 1, gpus: float = 0, cpus: float = 1) -> ResourceSettings:
    return ResourceSettings(workers_per_trial=workers, gpus_per_worker=gpus, cpus_per_worker=cpus)


@pytest.mark.parametrize(
    ("resources", "nodes", "slots"),
    [
        (wanted(), LAPTOP, 2),
        (wanted(workers=2), LAPTOP, 1),
        (wanted(cpus=2), LAPTOP, 1),
        (wanted(gpus=1, cpus=4), FARM, 8),
        (wanted(workers=4, gpus=1, cpus=4), FARM, 2),
        (wanted(workers=3, gpus=1, cpus=4), FARM, 2),
        (wanted(gpus=0.5, cpus=2), FARM, 16),
        (wanted(gpus=0.4, cpus=1), FARM, 16),
        (wanted(gpus=1, cpus=16), FARM, 4),
    ],
)
def test_slots(resources: ResourceSettings, nodes: Any, slots: int) -> None:
    plan = admit(resources, nodes, trials=100)
    assert plan.slots == slots
    # The head's marker, which is 1, has room for them and Ray Train's helpers.
    assert plan.slot_resources["CPU"] == 0
    assert 0 < 2000 * plan.slot_resources[HEAD] < 1


def test_no_more_slots_than_trials() -> None:
    assert admit(wanted(gpus=1), FARM, trials=3).slots == 3


@pytest.mark.parametrize(
    ("resources", "nodes", "fix"),
    [
        (wanted(workers=3), LAPTOP, "workers_per_trial to 2"),
        (wanted(gpus=1), LAPTOP, "gpus_per_worker=0"),
        (wanted(cpus=64), FARM, "cpus_per_worker to 32"),
    ],
)
def test_a_trial_that_fits_nowhere_is_refused(resources: ResourceSettings, nodes: Any, fix: str) -> None:
    with pytest.raises(UserError) as refused:
        admit(resources, nodes, trials=4)
    assert fix in str(refused.value.fix)


@pytest.mark.parametrize(
    ("resources", "nodes", "trials", "hangs"),
    [
        (wanted(workers=2), LAPTOP, 8, True),
        (wanted(), LAPTOP, 10, True),
        (wanted(cpus=2), LAPTOP, 1, True),
        (wanted(), LAPTOP, 1, False),
        (wanted(gpus=1, cpus=4), FARM, 100, True),
        (wanted(gpus=1, cpus=4), FARM, 40, False),
    ],
)
def test_where_stock_tune_would_hang(resources: ResourceSettings, nodes: Any, trials: int, hangs: bool) -> None:
    assert stock_would_hang(resources, nodes, trials) is hangs


def test_a_hang_is_reported_only_if_no_placement_of_the_drivers_helps() -> None:
    hangs = 0
    for first, second, cpus, workers, trials in itertools.product((1, 2, 4), (0, 3), (1, 2), (1, 2, 3), (1, 2, 4, 9)):
        nodes = [{"CPU": float(n)} for n in (first, second) if n]
        drivers = min(trials, first + second)
        left = [(first - n, second - (drivers - n)) for n in range(drivers + 1)]
        saved = any(min(pair) >= 0 and sum(free // cpus for free in pair) >= workers for pair in left)
        if stock_would_hang(wanted(workers, cpus=cpus), nodes, trials):
            hangs += 1
            assert not saved, (first, second, cpus, workers, trials)
    assert hangs > 20


def test_ours_runs_where_stock_tune_would_hang() -> None:
    assert stock_would_hang(wanted(workers=2), LAPTOP, 8)
    assert admit(wanted(workers=2), LAPTOP, trials=8).slots == 1


def test_a_plan_without_ray_is_for_the_nodes_of_the_settings_else_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert local_nodes(ClusterSettings(nodes=FARM)) == FARM
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    three = local_nodes(ClusterSettings(local_cpus=3))[0]
    assert (three["CPU"], three["GPU"]) == (3.0, 0.0) and three["memory"] > 1e8
    here = local_nodes(ClusterSettings())[0]
    assert 1 <= here["CPU"] <= len(os.sched_getaffinity(0))
    with pytest.raises(UserError, match="no CPU"):
        local_nodes(ClusterSettings(nodes=[{"CPU": 2}, {"cpu": 2}]))


def test_local_cpus_are_counted_as_ray_counts_them() -> None:
    """A plan that is not the cluster that starts would be wrong about everything."""
    from ray._private.utils import get_num_cpus

    if len(os.sched_getaffinity(0)) == os.cpu_count():  # Ray does not heed an affinity
        assert local_nodes(ClusterSettings())[0]["CPU"] == get_num_cpus()
