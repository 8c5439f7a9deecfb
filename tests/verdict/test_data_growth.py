"""What more data would give: the runs on parts of train come after the finalists, and the law is fitted to all."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from hausa_asr.settings.sweep import SweepConfig
from helpers.events import report
from sweeps.planning.finalists import finalist_runs, growth, missing
from sweeps.record.state import State
from sweeps.verdict.data_growth import data_growth

CONFIG = SweepConfig.model_validate({"finalists": {"k": 1, "seeds": 2, "data_growth": True}})
HOUR = 3600.0


def a_run(state: State, name: str, wer: float, of: str = "", settings: dict[str, Any] | None = None) -> None:
    source = "finalist" if of else "baseline" if name == "t000" else "search"
    events = [
        {"event": "proposed", "trial": name, "settings": settings or {}, "source": source, "of": of},
        {"event": "started", "trial": name},
        {"event": "reported", "trial": name, **report(100, wer=wer)},
        {"event": "ended", "trial": name, "state": "finished", "reason": ""},
    ]
    for event in events:
        state.apply({"time": 0.0, **event})


def searched() -> State:
    state = State()
    a_run(state, "t000", 0.5)
    a_run(state, "t001", 0.4)
    return state


def all_runs(state: State, wer_of: Any) -> None:
    while runs := missing(state, CONFIG):
        a_run(state, runs[0].id, wer_of(runs[0]), runs[0].of, runs[0].settings)


def test_the_better_finalist_is_trained_on_parts_of_train_once_all_have_ended() -> None:
    state = searched()
    assert [run.id for run in missing(state, CONFIG)] == ["t001-s1", "t000-s1", "t001-s2", "t000-s2"]
    assert finalist_runs(CONFIG) == 8
    for run in missing(state, CONFIG):
        assert growth(state, CONFIG) == []
        a_run(state, run.id, 0.3 if run.of == "t000" else 0.35, run.of, run.settings)
    runs = missing(state, CONFIG)
    assert [run.id for run in runs] == ["t000-s1-d25", "t000-s1-d50", "t000-s2-d25", "t000-s2-d50"]
    assert [(run.settings["seed"], run.settings["train_share"]) for run in runs] == [
        (1, 0.25), (1, 0.5), (2, 0.25), (2, 0.5),
    ]  # fmt: skip
    assert growth(state, SweepConfig.model_validate({"finalists": {"k": 1, "seeds": 2}})) == []
    assert data_growth(state, CONFIG, HOUR) is None


def test_an_exact_law_is_found_and_told() -> None:
    state = searched()
    all_runs(state, lambda run: (0.2 if run.of == "t001" else 0.4) * run.settings.get("train_share", 1.0) ** -0.5)
    found = data_growth(state, CONFIG, 2 * HOUR)
    assert found and found.setting == "t001" and found.slope == pytest.approx(0.5)
    assert found.twice == pytest.approx(0.2 / math.sqrt(2)) == pytest.approx(found.low) == pytest.approx(found.high)
    assert "twice the 2 hours of train, t001 is expected at a dev WER of 0.141" in found.sentence()
    assert "25 % 0.400, 50 % 0.283, 100 % 0.200, over 2 seeds" in found.sentence()
    assert found.to_json()["wers"]["0.25"] == pytest.approx([0.4, 0.4])


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    chance = random.Random(0)
    held = 0
    for _ in range(200):
        state = searched()

        def wer(run: Any) -> float:
            base = 0.2 if run.of == "t001" else 0.9
            return base * float(run.settings.get("train_share", 1.0)) ** -0.4 * math.exp(chance.gauss(0, 0.05))

        all_runs(state, wer)
        found = data_growth(state, CONFIG, HOUR)
        assert found
        held += found.low <= 0.2 * 2**-0.4 <= found.high
    assert 0.9 <= held / 200 <= 0.99
