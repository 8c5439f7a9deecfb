"""What pruning costs: who is audited, the interval against printed values, and what counts as a win."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweeps.record.ledger import State
from sweeps.verdict.audit import audits, drawn, estimate

ROOT = Path(__file__).parents[2]


def test_the_share_is_kept_and_the_draw_depends_on_seed_and_trial_only() -> None:
    names = [f"t{number:03d}" for number in range(4000)]
    chosen = [name for name in names if drawn(7, name, 0.05)]
    assert 150 < len(chosen) < 250
    assert chosen == [name for name in reversed(names) if drawn(7, name, 0.05)][::-1]
    assert chosen != [name for name in names if drawn(8, name, 0.05)]
    assert not any(drawn(7, name, 0.0) for name in names)
    assert all(drawn(7, name, 1.0) for name in names)
    assert set(chosen) <= {name for name in names if drawn(7, name, 0.2)}  # a larger share keeps those it had


def test_another_process_draws_the_same() -> None:
    code = "from sweeps.verdict.audit import drawn; print([drawn(3, f't{n:03d}', 0.3) for n in range(50)])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert told.strip() == str([drawn(3, f"t{n:03d}", 0.3) for n in range(50)])


@pytest.mark.parametrize(
    ("won", "n", "low", "high"),
    [  # the exact binomial limits that statistical tables print
        (0, 10, 0.0, 0.3085),
        (1, 10, 0.0025, 0.4450),
        (5, 10, 0.1871, 0.8129),
        (10, 10, 0.6915, 1.0),
        (1, 7, 0.0036, 0.5787),
        (10, 100, 0.0490, 0.1762),
    ],
)
def test_the_interval_is_the_exact_one(won: int, n: int, low: float, high: float) -> None:
    found = estimate(won, n)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert found.share == won / n


def test_the_interval_of_many_is_that_of_the_normal_curve() -> None:
    found = estimate(1_000, 10_000)
    assert (found.low, found.high) == (pytest.approx(0.0942, abs=2e-4), pytest.approx(0.1060, abs=2e-4))


def test_no_win_ends_at_the_closed_form() -> None:
    for n in (1, 3, 20, 500):
        assert estimate(0, n).high == pytest.approx(1 - 0.025 ** (1 / n))


def test_what_is_told() -> None:
    assert estimate(0, 0).text == "no estimate: 0 audited"
    assert estimate(1, 7).text == "1 of 7 audited would have won: 14 % [0 %, 58 %]; 13 more for a useful estimate"
    assert estimate(0, 20).text == "0 of 20 audited would have won: 0 % [0 %, 17 %]"
    assert estimate(1, 200).text == "1 of 200 audited would have won: 0.5 % [0.0 %, 2.8 %]"
    assert math.isnan(estimate(0, 0).share)
    with pytest.raises(ValueError, match="3 of 2"):
        estimate(3, 2)


def trial(state: State, name: str, curve: list[float], *, lost_at: int | None = None, end: str = "finished") -> None:
    """A trial with a WER at each 100 s; one that lost after so many of them is audited from there."""
    clock = iter(range(1000))

    def tell(event: str, **fields: Any) -> None:
        state.apply({"event": event, "trial": name, "time": float(next(clock)), **fields})

    tell("proposed", settings={}, source="search")
    tell("started")
    for step, wer in enumerate(curve, start=1):
        best = min(curve[:step])
        told = {"wer": wer, "cer": wer, "loss": wer}
        tell("reported", step=step, seen_s=100.0 * step, metrics=told, best={**told, "wer": best, "step": step})
        if step == lost_at:
            scored = {**told, "turned": True}
            tell("ranked", rung=0, seen_s=100.0 * step, passed=False, scored=scored, audited=True)
            tell("started", audit=True)
    if end:
        tell("ended", state=end, reason="")


def test_an_audited_trial_wins_only_where_pruning_would_have_cost_the_sweep() -> None:
    state = State()
    trial(state, "t000", [0.9, 0.5])
    trial(state, "t001", [0.9, 0.4], lost_at=1)  # better than all that the sweep has without audits
    trial(state, "t002", [0.9, 0.45], lost_at=1)  # so is this, though not the best of all
    trial(state, "t003", [0.9, 0.6], lost_at=1)
    trial(state, "t004", [0.9, 0.5], lost_at=1)  # no better
    assert audits(state, lambda name: False) == (2, 4)


def test_one_that_its_rung_lets_go_on_later_is_no_loss_and_is_a_rival() -> None:
    state = State()
    trial(state, "t000", [0.9, 0.5])
    trial(state, "t001", [0.9, 0.3], lost_at=1)
    trial(state, "t002", [0.9, 0.4], lost_at=1)
    assert audits(state, lambda name: name == "t001") == (0, 2)


def test_what_a_stopped_trial_had_reached_is_not_lost() -> None:
    state = State()
    trial(state, "t000", [0.9, 0.5])
    trial(state, "t001", [0.2, 0.3], lost_at=1)  # its best checkpoint is from before it lost
    trial(state, "t002", [0.9, 0.3], lost_at=1)  # nor would this have won then
    assert audits(state, lambda name: False) == (0, 2)


def test_only_audits_that_finished_count() -> None:
    state = State()
    trial(state, "t000", [0.9, 0.5])
    trial(state, "t001", [0.9, 0.1], lost_at=1, end="")
    trial(state, "t002", [0.9, 0.1], lost_at=1, end="failed")
    assert audits(state, lambda name: False) == (0, 0)
    assert audits(State(), lambda name: False) == (0, 0)
