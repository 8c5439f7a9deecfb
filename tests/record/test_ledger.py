"""The ledger survives a crash at any byte, and its state is the sum of its events."""

from __future__ import annotations

import resource
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hausa_asr.errors import UserError
from hausa_asr.recipe import CHECKPOINT, step_folder
from helpers.events import report
from sweeps.pruning.rule import Score
from sweeps.record.ledger import Ledger, LedgerFault
from sweeps.record.names import LEDGER_FILE

SCORED = {"loss": 2.0, "wer": 1.0, "cer": 0.5, "turned": False}


def a_sweep(folder: Path) -> Ledger:
    ledger = Ledger(folder)
    ledger.append("sweep", name="s", prepared="/p", fingerprint="f")
    ledger.append("opened", run_id="parent")
    ledger.append("proposed", trial="t000", settings={"lr_peak": 1e-3}, source="baseline")
    ledger.append("started", trial="t000")
    ledger.append("tracked", trial="t000", run_id="run0")
    ledger.append("reported", trial="t000", **report(10))
    ledger.append("ranked", trial="t000", rung=0, seen_s=100.0, passed=True, scored=SCORED)
    ledger.append("proposed", trial="t001", settings={"lr_peak": 2e-3}, source="search")
    ledger.append("started", trial="t001")
    ledger.append("reported", trial="t000", **report(100, wer=0.5, loss=0.9))
    ledger.append("ended", trial="t000", state="finished", reason="")
    return ledger


def test_reading_gives_back_what_was_written(tmp_path: Path) -> None:
    written = a_sweep(tmp_path).state
    read = Ledger(tmp_path).state
    assert read == written
    assert read.run_id == "parent"
    assert read.rungs == {0: {"t000": Score(**SCORED)}}
    assert list(read.ended) == ["t000"]
    assert read.trials["t000"].run_id == "run0"
    assert read.best() is read.trials["t000"] is read.baseline()
    assert read.trials["t001"].is_open


def test_cut_at_any_byte_it_reads_and_goes_on(tmp_path: Path) -> None:
    a_sweep(tmp_path)
    whole = (tmp_path / LEDGER_FILE).read_bytes()
    ends = [n for n, byte in enumerate(whole) if byte == ord("\n")]
    for cut in sorted({*range(0, len(whole), 13), *ends, *(n + 1 for n in ends)}):  # also just before a line's end
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / LEDGER_FILE).write_bytes(whole[:cut])
        ledger = Ledger(folder)
        before = len(ledger.state.trials)
        ledger.append("proposed", trial="new", settings={}, source="search")
        assert len(Ledger(folder).state.trials) == before + 1


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    a_sweep(tmp_path)
    lines = (tmp_path / LEDGER_FILE).read_text().split("\n")
    lines[3] = lines[3][:10]
    (tmp_path / LEDGER_FILE).write_text("\n".join(lines))
    with pytest.raises(UserError, match="line 4"):
        Ledger(tmp_path)


def test_a_report_told_twice_counts_once(tmp_path: Path) -> None:
    ledger = a_sweep(tmp_path)
    ledger.append("reported", trial="t001", **report(10))
    ledger.append("opened", run_id="parent")
    ledger.append("started", trial="t001")
    ledger.append("reported", trial="t001", **report(10))
    ledger.append("reported", trial="t001", **report(20))
    assert [r.step for r in ledger.state.trials["t001"].reports] == [10, 20]


def test_time_without_a_driver_is_nobodys(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for at, event, fields in (
        (0, "sweep", {"name": "s"}),
        (1, "opened", {}),
        (2, "proposed", {"trial": "t0", "settings": {}, "source": "search"}),
        (3, "started", {"trial": "t0"}),
        (13, "reported", {"trial": "t0", **report(10)}),
        (5000, "opened", {}),
        (5002, "started", {"trial": "t0"}),
        (5010, "ended", {"trial": "t0", "state": "pruned", "reason": "r"}),
    ):
        ledger.state.apply({"event": event, "time": float(at), **fields})
    assert ledger.state.trials["t0"].spent_s == 18
    assert ledger.state.wall_s == 22


def test_best_is_by_wer_then_cer_and_never_a_diverged_one(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for name, wer, loss in (("a", 0.5, 1.0), ("b", 0.4, 1.5), ("c", 0.1, float("nan")), ("d", 0.4, 1.2)):
        ledger.append("proposed", trial=name, settings={}, source="search")
        ledger.append("reported", trial=name, **report(10, wer, loss))
    assert ledger.state.best().id == "d"


def test_a_loser_that_is_promoted_goes_on_and_its_decisions_stay(tmp_path: Path) -> None:
    ledger = a_sweep(tmp_path)
    ledger.append("reported", trial="t001", **report(10))
    ledger.append("ranked", trial="t001", rung=0, seen_s=100.0, passed=False, scored=SCORED)
    ledger.append("paused", trial="t001", cause="rung", reason="it lost")
    waiting = Ledger(tmp_path).state.trials["t001"]
    assert (waiting.state, waiting.waits_at, waiting.can_go_on) == ("paused", 0, True)
    ledger.append("ranked", trial="t001", rung=0, seen_s=100.0, passed=True, promoted=True, scored=SCORED)
    ledger.append("started", trial="t001")
    ledger.append("reported", trial="t001", **report(100))
    ledger.append("ended", trial="t001", state="finished", reason="")
    again = Ledger(tmp_path).state.trials["t001"]
    assert (again.state, again.waits_at) == ("finished", None)
    assert [one["passed"] for one in again.decisions] == [False, True]


def test_what_was_pruned_at_the_end_is_open_again_once_a_slot_has_it(tmp_path: Path) -> None:
    ledger = a_sweep(tmp_path)
    ledger.append("reported", trial="t001", **report(10))
    ledger.append("ended", trial="t001", state="pruned", reason="it lost", cause="rung")
    assert "t001" in ledger.state.ended
    ledger.append("started", trial="t001")
    state = Ledger(tmp_path).state
    assert list(state.ended) == ["t000"]
    assert state.trials["t001"].is_open


def test_finalists_are_no_trials_of_the_search(tmp_path: Path) -> None:
    ledger = a_sweep(tmp_path)
    ledger.append("proposed", trial="t000-s1", settings={"seed": 1}, source="finalist", of="t000")
    ledger.append("reported", trial="t000-s1", **report(100, wer=0.01))
    state = Ledger(tmp_path).state
    assert [trial.id for trial in state.searched] == ["t000", "t001"]
    assert [trial.id for trial in state.finalists] == ["t000-s1"]
    assert state.best().id == "t000"


def test_a_ledger_of_another_version_is_refused_in_words(tmp_path: Path) -> None:
    a_sweep(tmp_path)
    for line in (
        '{"event": "ranked", "time": 1.0, "trial": "t000", "rung": 0}',
        '{"event": "danced", "time": 1.0, "trial": "t000"}',
    ):
        folder = tmp_path / str(len(line))
        folder.mkdir()
        (folder / LEDGER_FILE).write_text((tmp_path / LEDGER_FILE).read_text() + line + "\n")
        with pytest.raises(UserError, match="version"):
            Ledger(folder)


def test_a_loser_waits_also_where_a_crash_came_before_that_was_written(tmp_path: Path) -> None:
    ledger = a_sweep(tmp_path)
    ledger.append("reported", trial="t001", **report(10))
    ledger.append("ranked", trial="t001", rung=0, seen_s=100.0, passed=False, scored=SCORED)
    trial = Ledger(tmp_path).state.trials["t001"]
    assert (trial.state, trial.cause, trial.is_open, trial.can_go_on) == ("paused", "rung", False, True)


def test_a_ledger_with_the_audits_of_older_versions_opens(tmp_path: Path) -> None:
    ledger = a_sweep(tmp_path)
    ledger.append("ranked", trial="t001", rung=0, seen_s=100.0, passed=False, scored=SCORED, audited=True)
    ledger.append("paused", trial="t001", cause="rung", reason="it lost")
    ledger.append("started", trial="t001", audit=True)
    ledger.append("reported", trial="t001", **report(90))
    open_now = Ledger(tmp_path).state.trials["t001"]
    assert (open_now.state, open_now.last_step, open_now.waits_at) == ("running", 90, None), "it goes on as any other"
    ledger.append("ended", trial="t001", state="finished", reason="")
    assert Ledger(tmp_path).state.trials["t001"].state == "finished"


def test_of_a_trial_that_crashed_for_good_counts_what_is_on_disk(tmp_path: Path) -> None:
    """Its best model may have been in the memory of the workers."""
    ledger = a_sweep(tmp_path)
    trial = ledger.state.trials["t001"]
    ledger.append("reported", trial="t001", **report(10, wer=0.6))
    ledger.append("reported", trial="t001", **report(20, wer=0.3))
    there = step_folder(ledger.trial_folder("t001"), 10)
    there.mkdir(parents=True)
    (there / CHECKPOINT).write_text("{}")
    assert ledger.state.best() is trial
    ledger.append("ended", trial="t001", state="failed", reason="crashed", best=ledger.best_there(trial))
    assert ledger.best_checkpoint(trial) == there and trial.at_best.step == 10
    assert ledger.state.best() is ledger.state.baseline(), "0.5 is better than 0.6"
    shutil.rmtree(there)
    ledger.append("ended", trial="t001", state="failed", reason="crashed", best=ledger.best_there(trial))
    assert ledger.state.ranking() == [ledger.state.baseline()], "nothing of it could be exported"
    assert Ledger(tmp_path).state == ledger.state
    ledger.append("started", trial="t001")
    assert trial.best and trial.best["step"] == 20


def test_at_the_end_the_best_is_what_is_on_disk(tmp_path: Path) -> None:
    ledger = a_sweep(tmp_path)
    for name, step in (("t000", 100), ("t001", 10)):
        place = step_folder(ledger.trial_folder(name), step)
        place.mkdir(parents=True)
        (place / CHECKPOINT).touch()
    ledger.append("reported", trial="t001", **report(10, wer=0.45))
    ledger.append("reported", trial="t001", **report(20, wer=0.3))
    ledger.append("ended", trial="t001", state="pruned", reason="the budget is spent", cause="budget")
    ledger.settle()
    trial = ledger.state.trials["t001"]
    assert ledger.state.best() is trial and trial.best == {"step": 10, "wer": 0.45, "cer": 0.225, "loss": 2.0}
    assert (trial.state, trial.cause, trial.reason) == ("pruned", "budget", "the budget is spent")
    before = ledger.path.read_text()
    ledger.settle()
    assert ledger.path.read_text() == before


@contextmanager
def no_file_may_be_longer_than(size: int) -> Iterator[None]:
    """The kernel then writes part of a line and refuses the rest, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_no_event_and_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ledger = a_sweep(tmp_path)
    size = ledger.path.stat().st_size
    whole = ledger.path.read_bytes()
    monkeypatch.setattr("sweeps.record.ledger.PATIENCE_S", 0.1)
    with no_file_may_be_longer_than(size + 20):
        for _ in range(2):  # the second gives up at once: the driver is about to end
            with pytest.raises(LedgerFault, match="can't be written"):
                ledger.append("proposed", trial="t002", settings={}, source="search")
    assert ledger.path.read_bytes() == whole, "of the line that was cut short nothing is left"
    assert "t002" not in ledger.state.trials, "nothing acts on what is not on the disk"
    again = Ledger(tmp_path)
    again.append("proposed", trial="t003", settings={}, source="search")
    assert list(Ledger(tmp_path).state.trials) == ["t000", "t001", "t003"]
    assert "can't be written" in capfd.readouterr().err


def test_the_driver_waits_with_its_ledger_until_there_is_room(tmp_path: Path) -> None:
    ledger = a_sweep(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with no_file_may_be_longer_than(ledger.path.stat().st_size + 20):
        room = threading.Timer(0.3, resource.setrlimit, (resource.RLIMIT_FSIZE, limits))
        room.start()
        ledger.append("proposed", trial="t002", settings={}, source="search")
        room.join()
    assert list(Ledger(tmp_path).state.trials) == ["t000", "t001", "t002"]


def test_a_best_report_that_was_lost_with_a_machine_is_known_by_a_later_one(tmp_path: Path) -> None:
    ledger = a_sweep(tmp_path)
    later = {**report(60, wer=0.7), "best": {"step": 50, "wer": 0.3, "cer": 0.15, "loss": 1.0}}
    ledger.append("reported", trial="t001", **report(10, wer=0.9))
    ledger.append("reported", trial="t001", **later)
    at_best = ledger.state.trials["t001"].at_best
    assert (at_best.step, at_best.metrics["wer"], at_best.point.loss) == (50, 0.3, 1.0)
    assert at_best.seen_s == ledger.state.trials["t001"].seen_s
