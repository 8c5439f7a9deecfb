"""The forecast of a sweep whose end is known: trials of one pace on a virtual clock, in a real ledger's state."""

from __future__ import annotations

import dataclasses
import heapq
import time
from pathlib import Path
from typing import Any

import pytest

from hausa_asr.settings.sweep import SweepConfig
from sweeps.planning.estimate import predict
from sweeps.planning.forecast import forecast
from sweeps.planning.slots import admit
from sweeps.record.state import State

SLOTS, PACE, LENGTH_S, EVERY_S = 2, 10.0, 1000.0, 100.0


def settings(**changes: Any) -> SweepConfig:
    return SweepConfig.model_validate(
        {
            "finetune": {"length_s": LENGTH_S, "batch_s": 1, "eval_every_steps": EVERY_S},
            "search": {"trials": 12},
            "pruning": {"rule": "none"},
            "finalists": {"k": 1, "seeds": 1},
            **changes,
        }
    )


def run(config: SweepConfig, lengths_s: list[float]) -> list[tuple[float, State]]:
    """Run a sweep with trials of these lengths; return (time, state then) at every report and at the end."""
    state = State()
    reports: list[tuple[float, State]] = []

    def record(at: float, event: str, **fields: Any) -> None:
        state.apply({"event": event, "time": at, **fields})

    record(0.0, "sweep", name="s", rungs=[])
    record(0.0, "opened")
    runs = [(f"t{n:03d}", "baseline" if n == 0 else "search", "", s) for n, s in enumerate(lengths_s)]
    finals = [(f"t00{n}-s1", "finalist", f"t00{n}", LENGTH_S) for n in range(2)]
    now = 0.0
    for batch in (runs, finals):
        free = [(now, slot) for slot in range(SLOTS)]
        events: list[tuple[float, int, str, float, float]] = []
        waiting = list(batch)
        while waiting or events:
            if waiting and free:
                at, slot = heapq.heappop(free)
                name, source, of, length_s = waiting.pop(0)
                record(at, "proposed", trial=name, settings={}, source=source, of=of)
                record(at, "started", trial=name)
                heapq.heappush(events, (at + EVERY_S / PACE, slot, name, EVERY_S, length_s))
                continue
            now, slot, name, seen_s, length_s = heapq.heappop(events)
            scores = {"wer": 0.5, "cer": 0.2, "loss": 1.0, "audio_s_per_s": PACE}
            record(
                now, "reported", trial=name, step=int(seen_s), updates=int(LENGTH_S), seen_s=seen_s, metrics=scores,
                best={"step": int(seen_s), **scores}, last=seen_s == LENGTH_S, diverged=False,
            )  # fmt: skip
            if seen_s < length_s:
                heapq.heappush(events, (now + EVERY_S / PACE, slot, name, seen_s + EVERY_S, length_s))
            else:
                record(now, "ended", trial=name, state="finished" if seen_s == LENGTH_S else "pruned", reason="")
                heapq.heappush(free, (now, slot))
            reports.append((now, copy(state)))
    record(now, "decided", winner="t000")
    return [*reports, (now, copy(state))]


def copy(state: State) -> State:
    trials = {name: dataclasses.replace(one, reports=list(one.reports)) for name, one in state.trials.items()}
    return dataclasses.replace(state, trials=trials, ended=dict(state.ended))


def test_where_nothing_is_pruned_it_is_right_from_the_first_report() -> None:
    config = settings()
    reports = run(config, [LENGTH_S] * 12)
    end = reports[-1][0]
    assert end == (6 + 1) * LENGTH_S / PACE
    for now, state in reports:
        left = forecast(state, config, SLOTS, now)
        assert left.left_s == pytest.approx(end - now, abs=1e-6)
        # Between reports it counts down.
        later = forecast(state, config, SLOTS, now + 3)
        assert later.left_s is not None and left.left_s is not None
        assert left.left_s - 4 <= later.left_s <= left.left_s
    assert reports[-1][1].verdict is not None
    first = forecast(reports[0][1], config, SLOTS, reports[0][0])
    assert first.hours == pytest.approx(14 * 100 / 3600, rel=0.02)


def test_what_pruning_leaves_is_learnt_as_trials_end() -> None:
    config = settings(search={"trials": 40}, pruning={"reduction": 3, "first_rung": 0.3})
    # Longer than the rule alone would make them, as where warm-up lets trials pass: every other one goes to its end.
    reports = run(config, [LENGTH_S if n % 2 == 0 else 300.0 for n in range(40)])
    end = reports[-1][0]
    late = [(now, state) for now, state in reports if 0.5 * end < now < 0.9 * end]
    assert late
    for now, state in late:
        left = forecast(state, config, SLOTS, now).left_s
        assert left == pytest.approx(end - now, rel=0.2)


def test_before_any_figure_it_is_what_was_predicted(tmp_path: Path) -> None:
    config = settings(model={"base": "demo"})
    state = State()
    state.apply({"event": "sweep", "time": 0.0, "name": "s"})
    plan = admit(config.resources, [{"CPU": 2}], 12)
    prediction = predict(config, plan, tmp_path)
    assert prediction.expected is not None
    assert forecast(state, config, SLOTS, 5.0, prediction).left_s == pytest.approx(prediction.expected.wall_s - 5)
    assert str(forecast(state, config, SLOTS, 5.0)) == "time left not known yet"


def test_the_scoring_at_the_end_is_in_it(tmp_path: Path) -> None:
    config = settings(model={"base": "demo"})
    plan = admit(config.resources, [{"CPU": 2}], 12)
    prediction = predict(config, plan, tmp_path)
    assert prediction.speed is not None
    now, state = run(config, [LENGTH_S] * 12)[10]

    def left_s(scoring_s: float, guess: float) -> float:
        assert prediction.speed is not None
        speed = dataclasses.replace(prediction.speed, scoring_s=scoring_s, audio_s_per_s=guess)
        found = forecast(state, config, SLOTS, now, dataclasses.replace(prediction, speed=speed)).left_s
        assert found is not None
        return found

    more_s = left_s(1000.0, 1.0) - left_s(0.0, 1.0)
    assert more_s > 0
    assert left_s(1000.0, 2.0) - left_s(0.0, 2.0) == pytest.approx(2 * more_s), "slower trials, slower scoring"


@pytest.mark.parametrize(
    "budget",
    [
        {"hours": 600 / 3600},  # 400 s of trials and 200 s of two finalists
        {"money": 1200 / 3600, "price_per_hour": 2},
        {"wall_s": 300},
    ],
)
def test_the_budget_ends_the_search_and_leaves_the_finalists_theirs(budget: dict[str, float]) -> None:
    config = settings(budget=budget)
    now, state = [one for one in run(config, [LENGTH_S] * 12) if one[0] == 50][-1]
    left = forecast(state, config, SLOTS, now)
    assert left.cut_s == pytest.approx(150)
    assert left.left_s == pytest.approx(150 + 100)
    assert "the budget ends the search in about 2:30" in str(left)
    assert "budget" not in str(forecast(state, settings(budget={"hours": 100}), SLOTS, now))


def test_it_is_cheap_at_a_thousand_trials() -> None:
    config = settings(search={"trials": 1100}, pruning={"reduction": 3, "first_rung": 0.3}, budget={"hours": 50})
    _, state = run(config, [LENGTH_S] * 12)[0]
    last = state.trials["t000"]
    for number in range(1000):
        name = f"more-{number}"
        state.trials[name] = dataclasses.replace(last, id=name, source="search", state="pruned", started=None)
    forecast(state, config, SLOTS, 10.0)  # what pruning leaves is drawn once
    began = time.process_time()
    for second in range(20):
        assert forecast(state, config, SLOTS, 10.0 + second).left_s
    assert (time.process_time() - began) / 20 < 0.02


def test_what_a_slot_takes_to_start_does_not_spoil_it() -> None:
    config = settings()
    state = State()
    for event in (
        {"event": "sweep", "time": 0.0, "name": "s", "rungs": []},
        {"event": "proposed", "time": 0.0, "trial": "t000", "settings": {}, "source": "baseline"},
        {"event": "started", "time": 0.0, "trial": "t000"},
    ):
        state.apply(event)
    scores = {"wer": 0.5, "cer": 0.2, "loss": 1.0, "audio_s_per_s": 2 * PACE, "eval_runtime_s": EVERY_S / PACE / 2}
    started = {"step": 100, "updates": 1000, "seen_s": EVERY_S, "metrics": scores, "best": {"step": 100, **scores}}
    state.apply({"event": "reported", "time": 300.0, "trial": "t000", **started})
    left = forecast(state, config, SLOTS, 300.0)
    assert left.left_s == pytest.approx((11 + 0.9) / 2 * 100 + 100)


def test_of_a_range_of_workers_the_hours_left_are_those_of_the_groups_at_work() -> None:
    wide = settings(resources={"workers_per_trial": {"min": 1, "max": 8}})
    lengths = [LENGTH_S] * 12
    for at, state in run(settings(), lengths)[5:8]:
        for trial in state.trials.values():
            trial.workers = 2 if trial.started is not None else None
        alike = forecast(state, settings(resources={"workers_per_trial": 2}), SLOTS, at)
        assert forecast(state, wide, SLOTS, at).hours == pytest.approx(alike.hours)
