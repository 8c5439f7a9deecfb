"""The budget: hours, money and wall clock are counted once and across resumes, and end the search in time."""

from __future__ import annotations

from typing import Any

import pytest

from hausa_asr.settings.sweep import SweepConfig
from sweeps.planning.budget import Spent, exhausted, hours_at, reserve, spent
from sweeps.planning.finalists import finalist_runs
from sweeps.record.state import State


def settings(**changes: Any) -> SweepConfig:
    return SweepConfig.model_validate(
        {
            "finetune": {"length_s": 1000},
            "search": {"trials": 10},
            "finalists": {"k": 2, "seeds": 2},
            "resources": {"workers_per_trial": 2, "gpus_per_worker": 1, "cpus_per_worker": 4},
            **changes,
        }
    )


def record(state: State, at: float, event: str, /, **fields: Any) -> None:
    state.apply({"event": event, "time": at, **fields})


def report(state: State, at: float, trial: str, seen_s: float, start_s: float = 0.0, **more: Any) -> None:
    one = state.trials[trial]
    took_s = at - (one.started or 0) - start_s
    scores = {"wer": 0.5, "cer": 0.2, "loss": 1.0, "audio_s_per_s": (seen_s - one.seen_s) / took_s}
    record(
        state, at, "reported", trial=trial, step=int(seen_s), updates=1000, seen_s=seen_s, metrics=scores,
        best={"step": int(seen_s), **scores}, last=False, diverged=False, **more,
    )  # fmt: skip


def a_trial(state: State, name: str, begin: float, end: float, seen_s: float, **fields: Any) -> None:
    source = "baseline" if name == "t000" else "search"
    record(state, begin, "proposed", trial=name, settings={}, source=source, **fields)
    record(state, begin, "started", trial=name)
    report(state, end, name, seen_s)
    record(state, end, "ended", trial=name, state="finished" if seen_s == 1000 else "pruned", reason="")


def begun() -> State:
    state = State()
    record(state, 0, "sweep", name="s")
    record(state, 0, "opened")
    return state


def test_gpu_hours_are_of_every_gpu_of_a_trial_and_cpu_hours_where_there_is_none() -> None:
    state = begun()
    a_trial(state, "t000", 0, 1800, 1000)
    a_trial(state, "t001", 1800, 3600, 500)
    priced = {"price_per_hour": 3}
    assert spent(state, settings(budget=priced)) == Spent(hours=2.0, money=6.0, wall_s=3600, trials=2)
    on_cpus = {"workers_per_trial": 2, "cpus_per_worker": 4}
    assert spent(state, settings(resources=on_cpus)).hours == 8.0


def test_a_running_trial_counts_up_to_now_and_a_driver_that_is_gone_does_not() -> None:
    state = begun()
    record(state, 0, "proposed", trial="t000", settings={}, source="baseline")
    record(state, 0, "started", trial="t000")
    report(state, 1800, "t000", 300)
    assert spent(state, settings()).hours == 1.0
    assert spent(state, settings(), now=3600).hours == 2.0
    assert spent(state, settings(), now=3600).wall_s == 3600
    record(state, 90_000, "opened")  # a day later: the work lost at the crash and the night do not count
    assert spent(state, settings(), now=90_000) == Spent(1.0, 0.0, 1800, 1)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"hours": 1.9}, "budget of 1.90 GPU-hours is spent"),
        ({"money": 5, "price_per_hour": 3}, "budget of 5.00 in money is spent"),
        ({"wall_s": 3600}, "budget of 1:00:00 of wall clock is spent"),
        ({"hours": 2.1, "money": 7, "price_per_hour": 3, "wall_s": 4000}, ""),
        ({}, ""),
    ],
)
def test_whichever_limit_is_reached_first_ends_it(budget: dict[str, float], words: str) -> None:
    state = begun()
    a_trial(state, "t000", 0, 3600, 1000)
    why = exhausted(state, settings(budget=budget), now=3600)
    assert why == "" if not words else words in why


def test_finalists_have_their_part_kept_for_them() -> None:
    state = begun()
    a_trial(state, "t000", 0, 360, 1000)  # the baseline: 0.2 GPU-hours for a full length
    a_trial(state, "t001", 360, 370, 50)  # a pruned trial that was faster does not count
    config = settings(budget={"hours": 1.4})
    kept = reserve(state, config)
    assert finalist_runs(config) == 6
    one_s = 1.05 * 360
    assert kept.hours == pytest.approx(6 * 1.05 * 0.2)
    assert kept.wall_s == pytest.approx(6 * one_s)  # there was one trial at a time
    assert reserve(state, config, slots=4).wall_s == pytest.approx(2 * one_s)
    assert "1.26 GPU-hours are for baseline and finalists" in exhausted(state, config, 370, reserve_hours=kept.hours)
    assert not exhausted(state, config, 370)
    half = settings(finalists={"k": 2, "seeds": 2, "length_s": 500})
    assert reserve(state, half).hours == pytest.approx(3 * 1.05 * 0.2)


def test_what_finalists_are_to_take_is_kept_until_they_have_spent_it() -> None:
    state, config = begun(), settings(budget={"hours": 1.4})
    a_trial(state, "t000", 0, 360, 1000)
    a_trial(state, "t001", 360, 370, 50)
    whole = reserve(state, config).hours
    record(state, 370, "proposed", trial="t000-s1", settings={}, source="finalist", of="t000")
    record(state, 370, "started", trial="t000-s1")
    assert reserve(state, config).hours == pytest.approx(whole), "it has begun, and spent nothing yet"
    report(state, 550, "t000-s1", 500)
    assert reserve(state, config).hours == pytest.approx(whole - 180 * 2 / 3600)
    report(state, 700, "t000-s1", 1000)  # faster than expected: the search gets nothing of that
    record(state, 700, "ended", trial="t000-s1", state="finished", reason="")
    assert reserve(state, config).hours == pytest.approx(whole - 330 * 2 / 3600)
    assert reserve(state, config, slots=1).wall_s == pytest.approx(6 * 1.05 * 360 - 330)


def test_a_running_trial_has_its_next_interval_kept_and_a_slow_setting_its_own_pace() -> None:
    state, config = begun(), settings(budget={"hours": 1.4}, finalists={"k": 1, "seeds": 1})
    a_trial(state, "t000", 0, 360, 1000)
    a_trial(state, "t001", 360, 1080, 1000)  # twice as slow
    whole = reserve(state, config).hours
    assert whole == pytest.approx(1.05 * (360 + 720) * 2 / 3600)
    record(state, 1080, "proposed", trial="t002", settings={}, source="search")
    record(state, 1080, "started", trial="t002")
    assert reserve(state, config).hours == pytest.approx(whole + 540 * 2 / 3600)  # one evaluation each, so far


def test_nothing_is_kept_where_nothing_runs_again() -> None:
    state = begun()
    assert reserve(state, settings()).hours == 0  # nothing is known yet
    a_trial(state, "t000", 0, 360, 1000)
    assert reserve(state, settings(finalists={"k": 0, "seeds": 2})).hours == 0
    assert finalist_runs(settings(search={"trials": 1})) == 0
    assert finalist_runs(settings(search={"trials": 2})) == 4


def test_trials_one_after_another_exceed_the_budget_by_one_interval_at_most() -> None:
    state, config = begun(), settings(budget={"hours": 1.0}, finalists={"k": 0, "seeds": 1})
    now, interval_s = 0.0, 100.0
    for number in range(1000):
        if exhausted(state, config, now):
            break
        a_trial(state, f"t{number:03d}", now, now + interval_s, 100)
        now += interval_s
    assert 1.0 <= spent(state, config).hours <= 1.0 + 2 * interval_s / 3600


def test_what_a_slot_takes_to_start_is_not_kept_for_each_run() -> None:
    state, config = begun(), settings(budget={"hours": 1.4})
    record(state, 0, "proposed", trial="t000", settings={}, source="baseline")
    record(state, 0, "started", trial="t000")
    report(state, 136, "t000", 100, start_s=100)
    kept_s = reserve(state, config).hours * 3600 / 2
    assert kept_s == pytest.approx(6 * 1.05 * 360 + 36)  # and the interval that it is in


def test_what_was_spent_keeps_the_devices_and_the_price_of_its_time() -> None:
    """Eighty GPU-hours do not become ten because the sweep goes on with one GPU a trial instead of eight."""
    state = State()
    record(state, 0, "sweep", name="s")
    record(state, 0, "opened", devices=8, price_per_hour=2.0)
    a_trial(state, "t000", 0, 36_000, 1000)
    cheaper = settings(
        resources={"workers_per_trial": 1, "gpus_per_worker": 1, "cpus_per_worker": 4},
        budget={"hours": 90, "price_per_hour": 0.5},
    )
    record(state, 40_000, "opened", devices=1, price_per_hour=0.5)
    assert spent(state, cheaper) == Spent(hours=80.0, money=160.0, wall_s=36_000, trials=1)
    a_trial(state, "t001", 40_000, 43_600, 1000)
    record(state, 43_600, "proposed", trial="t002", settings={}, source="search")
    record(state, 43_600, "started", trial="t002")
    assert spent(state, cheaper, 43_600 + 7200).hours == 83.0, "what runs counts at what it takes now"
    assert spent(state, cheaper, 43_600 + 7200).money == 161.5
    assert exhausted(state, cheaper, 43_600 + 9 * 3600)
    assert hours_at(state.trials["t000"].spent_at, cheaper.resources) == 80.0


def waiting() -> State:
    """A sweep whose second slot has waited since 100 s."""
    state = State()
    record(state, 0, "opened", slots=2, devices=8, price_per_hour=2.0)
    record(state, 100, "waits", slot="b")
    return state


PRICED = {"resources": {"workers_per_trial": 8, "gpus_per_worker": 1}, "budget": {"price_per_hour": 2, "hours": 4}}


def test_a_slot_that_waits_for_others_costs_as_one_that_trains() -> None:
    state = waiting()
    record(state, 1900, "waited", slot="b", seconds=1800.0)
    taken = spent(state, settings(**PRICED), now=4000)
    assert (taken.hours, taken.money) == (4.0, 8.0) and not state.waits


def test_a_wait_that_goes_on_counts_up_to_now_and_ends_the_search_in_time() -> None:
    state, config = waiting(), settings(**PRICED)
    assert spent(state, config).hours == 0.0
    taken = spent(state, config, now=1000)
    assert (taken.hours, taken.money) == (2.0, 4.0)
    assert not exhausted(state, config, 1899)
    assert "budget of 4.00 GPU-hours is spent" in exhausted(state, config, 1900), "not only once the wait has ended"


@pytest.mark.parametrize("event", ["left", "opened"])
def test_a_wait_under_a_driver_that_is_gone_counts_up_to_its_last_event(event: str) -> None:
    state, config = waiting(), settings(**PRICED)
    record(state, 550, "sweep", name="s")
    if event == "left":
        record(state, 1000, "left", how="interrupted", why="")
    record(state, 90_000, "opened", slots=2, devices=1, price_per_hour=1.0)
    taken = spent(state, config, now=90_000)
    assert (taken.hours, taken.money) == ((2.0, 4.0) if event == "left" else (1.0, 2.0))


def test_a_wait_in_a_ledger_of_an_older_version_has_no_beginning_and_counts_all_the_same() -> None:
    state = State()
    record(state, 0, "opened", slots=2, devices=8, price_per_hour=2.0)
    record(state, 1900, "waited", seconds=1800.0)
    assert spent(state, settings(**PRICED), now=4000).hours == 4.0


def opened_with_a_range(workers: int = 8) -> State:
    state = State()
    record(state, 0, "sweep", name="s")
    record(state, 0, "opened", devices=2.0 * workers, price_per_hour=2.0, workers=workers)
    record(state, 0, "proposed", trial="t000", settings={}, source="baseline")
    record(state, 0, "started", trial="t000")
    return state


RANGE = {"workers_per_trial": {"min": 1, "max": 8}, "gpus_per_worker": 2, "cpus_per_worker": 4}


def test_a_trial_costs_what_its_group_has_and_until_a_report_says_so_the_most() -> None:
    state, config = opened_with_a_range(), settings(resources=RANGE, budget={"price_per_hour": 2.0})
    assert spent(state, config, now=1800).hours == 8.0, "sixteen GPUs for half an hour, as far as is known"
    report(state, 3600, "t000", 100, workers=3)
    assert spent(state, config) == Spent(hours=6.0, money=12.0, wall_s=3600, trials=1)
    assert spent(state, config, now=7200).hours == 12.0, "it has three workers until it leaves its slot"
    record(state, 7200, "paused", trial="t000", cause="crash", reason="its node is gone")
    record(state, 7200, "started", trial="t000")
    assert spent(state, config, now=9000).hours == 12.0 + 8.0, "on other workers: the most again"
    record(state, 9000, "repeated", trial="t000", step=50, workers=1)
    report(state, 10_800, "t000", 200, workers=1)
    assert spent(state, config).hours == 12.0 + 2.0
    assert hours_at(state.trials["t000"].spent_at, config.resources) == 14.0


def test_a_stint_without_a_report_and_a_wait_cost_the_most_unless_their_workers_are_known() -> None:
    state, config = opened_with_a_range(), settings(resources=RANGE)
    record(state, 3600, "paused", trial="t000", cause="crash", reason="it broke")
    assert spent(state, config).hours == 16.0
    record(state, 3600, "waited", seconds=3600.0, workers=2)
    record(state, 3600, "waited", seconds=3600.0)
    assert spent(state, config).hours == 16.0 + 4.0 + 16.0


def test_finalists_have_kept_for_them_what_such_groups_took() -> None:
    """Else a laptop with one GPU would keep eight times what they need, and the search would get nothing."""
    alike = settings(resources={**RANGE, "workers_per_trial": 2}, budget={"hours": 100})
    state = opened_with_a_range()
    report(state, 360, "t000", 1000, workers=2)
    record(state, 360, "ended", trial="t000", state="finished", reason="")
    kept = reserve(state, settings(resources=RANGE, budget={"hours": 100}))
    assert kept.hours == pytest.approx(reserve(state, alike).hours) and kept.hours > 0
