"""What Tune's callbacks write into the ledger of slots that wait."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hausa_asr.settings.resources import ResourceSettings
from sweeps.on_ray.callbacks import SweepCallback
from sweeps.on_ray.capacity import Capacity
from sweeps.record.ledger import Ledger, read_state


def test_a_wait_is_in_the_ledger_from_its_beginning_and_ends_however_its_slot_does(tmp_path: Path) -> None:
    ledger, nothing = Ledger(tmp_path), SimpleNamespace()
    ledger.append("opened", slots=3, devices=1, price_per_hour=1.0)
    capacity = Capacity(ResourceSettings(), 3)
    callback = SweepCallback(ledger, *[nothing] * 3, lambda tune_id: "", {}, capacity, False, lambda: None)  # type: ignore[arg-type]
    one, other = (
        SimpleNamespace(
            trial_id=name, error_file=None, config={"slot": {"order": order}}, last_result={},
            temporary_state=SimpleNamespace(ray_actor=name),
        )
        for order, name in enumerate("ab")
    )  # fmt: skip
    each: dict[str, Any] = {"iteration": 1, "trials": []}
    callback.on_trial_start(trial=one, **each)
    callback.on_trial_start(trial=other, **each)
    for trial in (one, other, one):
        callback.on_trial_result(trial=trial, result={}, **each)
    assert set(read_state(tmp_path).waits) == {"a", "b"}
    callback.on_trial_complete(trial=one, **each)
    callback.on_trial_error(trial=other, **each)  # its slot broke
    state = read_state(tmp_path)
    assert not state.waits and state.spent_at[1, 1.0] == pytest.approx(state.wall_s, abs=0.1)
    callback.on_trial_complete(trial=other, **each)
    assert read_state(tmp_path).spent_at == state.spent_at, "counted once"
