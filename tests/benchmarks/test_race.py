"""The race of whole sweeps: its figures from made-up records, its reading of events, and how it ends a contestant."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(code: str) -> Any:
    """The JSON that some code prints last, in a process of its own, where `sweeps` is the package and not the file."""
    lines = f"import sys, json\nsys.path.insert(0, {str(BENCHMARKS)!r})\nfrom pathlib import Path\n{code}"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def record(contestant: str, seed: int, test_wer: float, *evaluations: tuple[float, float]) -> dict[str, Any]:
    return {
        "contestant": contestant, "seed": seed, "begun": 9, "finished": 4, "first_report_s": evaluations[0][0],
        "dev_wer": min(wer for _, wer in evaluations if wer == wer), "test_wer": test_wer,
        "evaluations": [[at, wer, "t000"] for at, wer in evaluations],
    }  # fmt: skip


def test_figures_are_paired_by_seed_and_count_one_that_never_reached_it_with_the_whole_clock(tmp_path: Path) -> None:
    records = [
        record("stock", 0, 0.20, (40, 1.0), (80, 0.12), (90, 0.15)),
        record("stock", 1, 0.22, (40, 1.0), (50, 0.14)),
        record("ours", 0, 0.18, (10, 0.5), (20, 0.12), (60, 0.11)),
        record("ours", 1, 0.23, (10, 0.5), (95, 0.15)),
        record("ours", 2, 0.10, (10, 0.01)),  # no stock run to compare it with
    ]
    found = run(
        f"import race_figures\nrecords = json.loads({json.dumps(records)!r})\n"
        "found = race_figures.figures(records, 100.0)\nassert '1 of 2' in race_figures.text(found, 100.0)\n"
        f"race_figures.draw(records, 100.0, Path({str(tmp_path / 'race.png')!r}), 'a race')\n"
        "print(json.dumps({**race_figures.flat(found), **found}))\n"
    )
    assert found["ours"]["beside_stock"]["reached_s"] == [20, None]
    assert found["time_vs_clock"] == pytest.approx((0.2 * 1.0) ** 0.5)
    assert found["time_vs_its_own"] == pytest.approx((20 / 80 * 100 / 50) ** 0.5)
    assert found["test_difference"] == pytest.approx((-0.02 + 0.01) / 2)
    assert found["test_difference_low"] == pytest.approx(-0.02)
    assert found["ours"]["over_time"]["median"][-1] == 0.11
    assert found["stock"]["over_time"]["median"][0] == 1.0, "before the first report"
    assert (tmp_path / "race.png").stat().st_size > 5_000


def test_a_diverged_evaluation_is_no_lowest_wer() -> None:
    one = record("ours", 0, 0.2, (10, 0.5), (20, float("nan")), (30, 0.4))
    code = f"import race_figures\nimport numpy as np\none = json.loads({json.dumps(one)!r})\n"
    lowest = run(code + "print(json.dumps(race_figures.lowest_wer(one, np.array([5.0, 15, 25, 35])).tolist()))\n")
    assert lowest == [1.0, 0.5, 0.5, 0.4]


def test_a_run_counts_within_the_clock_only_and_hands_over_a_checkpoint_that_is_there(tmp_path: Path) -> None:
    def event(at: float, step: int, wer: float, **more: Any) -> dict[str, Any]:
        figures = {"wer": wer, "cer": wer, "loss": 1.0}
        return {"event": "reported", "time": 100 + at, "trial": "t000", "step": step, "metrics": figures, **more}

    events = [
        {"event": "started", "time": 101, "trial": "t000"},
        event(5, 10, 0.5, last=False),
        {"event": "started", "time": 107, "trial": "t000"},
        event(8, 10, 0.5, last=False),  # sent once more when it goes on
        event(9, 20, 0.3, last=False),
        event(14, 40, 0.2, last=True),
        {"event": "started", "time": 116, "trial": "t001"},
    ]
    (tmp_path / "race").mkdir()
    (tmp_path / "race/ledger.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events))
    kept = tmp_path / "race/trials/t000/step-000010"  # step 20 was replaced by step 40, after the clock
    kept.mkdir(parents=True)
    (kept / "base.json").write_text("{}")
    begun, finished, at, best = run(
        f"import race_run\nbegun, evaluations = race_run.read('ours', Path({str(tmp_path)!r}), 100.0, 10.0)\n"
        "print(json.dumps([begun, sum(one.last for one in evaluations), [one.at_s for one in evaluations], "
        "str(race_run.best_of(evaluations).checkpoint)]))\n"
    )
    assert (begun, finished, at, best) == (1, 0, [5, 9], str(kept))


def test_a_contestant_that_ignores_sigterm_is_cleared_away_with_all_that_it_started(tmp_path: Path) -> None:
    child = "import time; time.sleep(600)"
    stubborn = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"one = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"other = subprocess.Popen([sys.executable, '-c', {child!r}], process_group=0)\n"  # as Ray's may be
        "print(one.pid, other.pid, flush=True)\ntime.sleep(600)\n"
    )
    run(
        f"import race_run\nrace_run._GENTLE_S = race_run._GONE_S = 0.5\n"
        f"race_run._run([sys.executable, '-c', {stubborn!r}], Path({str(tmp_path)!r}), 2.0)\nprint(1)\n"
    )
    pids = (tmp_path / "output.txt").read_text().split()
    assert len(pids) == 2
    for pid in pids:
        stat = Path(f"/proc/{pid}/stat")
        assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_contestant_that_fails_ends_the_race_with_what_it_printed(tmp_path: Path) -> None:
    words = run(
        "import race_run\ntry:\n"
        f"    race_run._run([sys.executable, '-c', 'raise ValueError(42)'], Path({str(tmp_path)!r}), 30.0)\n"
        "except SystemExit as failed:\n    print(json.dumps(str(failed)))\n"
    )
    assert "ValueError: 42" in words


def test_every_seed_begins_with_another_contestant() -> None:
    code = f"import race_run, runpy\nmain = runpy.run_path({str(BENCHMARKS / 'sweeps.py')!r})\n"
    wanted = run(code + "print(json.dumps(main['wanted_runs'](['a', 'b', 'c'], 3)))\n")
    assert [name for name, _ in wanted] == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert [seed for _, seed in wanted] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
