"""What fits is admitted, what does not is refused with what would."""

from __future__ import annotations

from typing import Any

import pytest

from hausa_asr.config import ResourceSettings
from hausa_asr.errors import UserError
from sweeps.plan import HEAD, admit

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
    # No more slots than that can ever hold the head's marker, and a little of it is left for Ray Train's helpers.
    assert plan.slot_resources["CPU"] == 0
    assert slots * plan.slot_resources[HEAD] <= 0.9 < (slots + 1) * plan.slot_resources[HEAD] + 0.01


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
def test_what_cannot_run_is_refused_with_what_would(resources: ResourceSettings, nodes: Any, fix: str) -> None:
    with pytest.raises(UserError) as refused:
        admit(resources, nodes, trials=4)
    assert fix in str(refused.value.fix)
