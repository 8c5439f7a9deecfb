"""`hausa-asr watch`, as it is typed, on a ledger that grows meanwhile."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hausa_asr.storage.address import here
from helpers.plans import an_earlier_sweep
from helpers.whole_sweeps import ROOT, environment, hear_interrupts
from sweeps.driver.failures import Failures
from sweeps.driver.publisher import published
from sweeps.driver.sweep_folder import only_driver, saved
from sweeps.record.follow import Follower
from sweeps.record.ledger import Ledger
from sweeps.record.state import INTERRUPTED, PAUSED_ITSELF
from sweeps.watch_command import EXIT_LEFT, _has_ended

SCORES = {"wer": 0.25, "cer": 0.1, "loss": 0.8, "audio_s_per_s": 40.0}
RESULT = {
    "best": {"id": "t003", "wer": 0.25, "test_wer": 0.3},
    "baseline": {"id": "t000", "wer": 0.5, "test_wer": None},
    "verdict": None,
    "headline": "t003 has the lowest dev WER",
}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "hausa_asr.cli", "watch", *map(str, arguments)]


def watching(*arguments: object, **more: str) -> subprocess.Popen[bytes]:
    """A watch that prints all it has to say into one pipe."""
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=environment(PYTHONPATH=f"{os.environ.get('PYTHONPATH', '')}:{ROOT}", **more),
    )  # fmt: skip


def report(ledger: Ledger, trial: str, step: int, wer: float = 0.25) -> None:
    scores = {**SCORES, "wer": wer}
    ledger.append(
        "reported", trial=trial, step=step, updates=280, seen_s=14.0 * step, metrics=scores,
        best={"step": step, **{name: scores[name] for name in ("wer", "cer", "loss")}}, last=False, diverged=False,
    )  # fmt: skip


def three_trials(storage: Path, ago_s: float = 0.0) -> Path:
    """The folder of a sweep with three trials that a slot has."""
    ledger = an_earlier_sweep(storage, "night", 30.0, "search.trials=8", "finalists.k=0")
    events = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    events.insert(0, {"event": "sweep", "name": "night", "time": events[0]["time"]})
    for event in events:
        event["time"] -= ago_s
        if "metrics" in event:
            event["metrics"]["audio_s_per_s"] = 30.0
    ledger.path.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    return ledger.folder


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A sweep with three ended trials, and a fourth that a second driver has just begun."""
    ledger = Ledger(three_trials(tmp_path))
    for trial in ("t000", "t001", "t002"):
        ledger.append("ended", trial=trial, state="pruned", reason="it lost", cause="rung")
    ledger.append("opened", slots=2)
    ledger.append("proposed", trial="t003", settings={"lr_peak": 1e-3}, source="search")
    ledger.append("started", trial="t003")
    return ledger


class Lines:
    """What a process has printed so far."""

    def __init__(self, process: subprocess.Popen[bytes], source: int) -> None:
        self.process, self.source, self.text = process, source, ""

    def until(self, condition: Callable[[str], bool], within_s: float = 30) -> str:
        deadline = time.monotonic() + within_s
        while not condition(self.text):
            assert time.monotonic() < deadline, self.text
            if select.select([self.source], [], [], 0.2)[0]:
                try:
                    new = os.read(self.source, 65536)
                except OSError:  # a terminal whose process has ended
                    new = b""
                self.text += new.decode()
                assert new or condition(self.text) or self.process.poll() is None, self.text
        return self.text


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.iterdir()}


def test_it_follows_a_sweep_to_its_end_and_changes_nothing(ledger: Ledger) -> None:
    process = subprocess.Popen(
        command("night", "--storage", ledger.folder.parent), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        cwd=ledger.folder.parent, env=environment(PYTHONPATH=f"{os.environ.get('PYTHONPATH', '')}:{ROOT}"),
    )  # fmt: skip
    assert process.stdout is not None
    shown = Lines(process, process.stdout.fileno())
    try:
        text = shown.until(lambda text: "trials tried" in text)
        assert text.startswith("t003  running  lr_peak=0.001") and "\nt000" not in text, "not what was before"
        assert "2 worker groups starting" in text, "the reports of the driver before count as none"
        report(ledger, "t003", 70)
        shown.until(lambda text: "t003  running  step 70/280  loss 0.800  WER 0.250" in text)

        # A line that is being written is no event yet; with its rest it is one.
        line = json.dumps({"event": "ended", "trial": "t003", "time": time.time(), "state": "finished", "reason": ""})
        with ledger.path.open("a") as file:
            file.write(line[:30])
            file.flush()
            time.sleep(2.5)
            assert process.poll() is None and "finished" not in shown.text
            file.write(line[30:] + "\n")
        shown.until(lambda text: "t003  finished" in text)
        before = contents(ledger.folder)
        assert set(before) == {"ledger.jsonl", "sweep.yaml"}, "neither lock nor log"
        (ledger.folder / "result.json").write_text(json.dumps(RESULT))
        text = shown.until(lambda text: RESULT["headline"] in text)  # type: ignore[operator]
        assert "best      t003  dev WER 0.250, test WER 0.300" in text and "baseline  t000  dev WER 0.500\n" in text
        assert process.wait(timeout=20) == 0
        assert {**before, "result.json": contents(ledger.folder)["result.json"]} == contents(ledger.folder)
    finally:
        process.kill()


def test_on_a_terminal_it_is_a_table_that_ctrl_c_leaves(ledger: Ledger) -> None:
    ours, theirs = pty.openpty()
    report(ledger, "t003", 70)
    process = subprocess.Popen(
        command(ledger.folder), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env=environment(PYTHONPATH=f"{os.environ.get('PYTHONPATH', '')}:{ROOT}", TERM="xterm"),
        preexec_fn=hear_interrupts,
    )  # fmt: skip
    shown = Lines(process, ours)
    try:
        shown.until(lambda text: "sweep night" in text and "70/280" in text)
        report(ledger, "t003", 140, wer=0.125)
        shown.until(lambda text: "140/280" in text and "best 0.125 (t003)" in text and "left, " in text)
        process.send_signal(2)
        # Read to its end, or a full terminal would hold it up.
        assert "Traceback" not in shown.until(lambda _: process.poll() is not None)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        os.close(ours)
        os.close(theirs)


def test_a_driver_that_has_died_is_said_to_be_silent(tmp_path: Path) -> None:
    folder = three_trials(tmp_path, ago_s=7200)
    with only_driver(folder):
        process = watching(folder)
        assert process.stdout is not None
        shown = Lines(process, process.stdout.fileno())
        try:
            text = shown.until(lambda text: "may have ended" in text)
            assert (
                "nothing written since" in text and "ago: its driver may have ended; then go on with:  python" in text
            )
            time.sleep(2)
            assert process.poll() is None, "it holds the sweep, and may only wait"
        except BaseException:
            process.kill()
            raise
    assert process.wait(timeout=20) == EXIT_LEFT


@pytest.mark.parametrize("how", [PAUSED_ITSELF, INTERRUPTED])
def test_it_ends_with_the_driver_and_a_script_can_see_it(ledger: Ledger, how: str) -> None:
    with only_driver(ledger.folder):
        process = watching(ledger.folder)
        assert process.stdout is not None
        shown = Lines(process, process.stdout.fileno())
        shown.until(lambda text: "trials tried" in text)
        ledger.append_at_once("left", how=how, why="the disk is full." if how == PAUSED_ITSELF else "")
        shown.until(lambda text: "--resume" in text)
        time.sleep(1.5)
        assert process.poll() is None, "the driver is still at work on its end"
    assert process.wait(timeout=20) == EXIT_LEFT
    text = shown.until(lambda _: True) + process.stdout.read().decode()
    assert text.count("--resume") == 1, "once"
    again = subprocess.run(
        command(ledger.folder), capture_output=True, text=True, timeout=60, env=environment(PYTHONPATH=str(ROOT))
    )
    assert again.returncode == EXIT_LEFT and f"with:  python sweeps/run.py --resume {ledger.folder}" in again.stdout


def test_a_sweep_that_came_to_its_end_just_now_is_not_left(ledger: Ledger) -> None:
    storage, (_, config) = str(ledger.folder.parent), saved(str(ledger.folder.parent), "night")
    ledger.append_at_once("left", how=INTERRUPTED, why="")
    follower = Follower(ledger.folder)
    follower.poll()
    assert _has_ended(storage, "night", follower, config)
    (ledger.folder / "result.json").write_text(json.dumps(RESULT))  # after it was last looked for
    assert not _has_ended(storage, "night", follower, config)


def test_a_sweep_that_paused_itself_is_said_to_have_and_how_to_go_on(ledger: Ledger) -> None:
    _, config = saved(str(ledger.folder.parent), "night")
    failures = Failures(ledger, config.cluster)
    process = watching(ledger.folder, "--wait")
    assert process.stdout is not None
    shown = Lines(process, process.stdout.fileno())
    try:
        shown.until(lambda text: "trials tried" in text)
        while not (why := failures.too_many()):
            ledger.append("started", trial="t003")
            failures.crashed("t003", "OSError: No space left on device", "n1", "10.0.0.7")
        ledger.append_at_once("left", how=PAUSED_ITSELF, why=why)
        text = shown.until(lambda text: "paused itself" in text and "--resume" in text)
        [line] = [line for line in text.splitlines() if "paused itself" in line]
        assert "none reported; at last t003 on node 10.0.0.7: OSError: No space left on device. Mend that" in line
        assert line.endswith(f"with:  python sweeps/run.py --resume {ledger.folder}")
        assert Ledger(ledger.folder).state.left == ledger.state.left, "another driver reads the same"

        ledger.append("opened", slots=2)  # somebody goes on with it, and interrupts it
        ledger.append("started", trial="t003")
        report(ledger, "t003", 70)
        shown.until(lambda text: "t003  running  step 70/280" in text)
        ledger.append_at_once("left", how=INTERRUPTED, why="")
        text = shown.until(lambda text: "was interrupted at" in text)
        assert text.count("paused itself") == 1, "once"
    finally:
        process.kill()


def test_the_table_of_a_sweep_that_paused_itself_promises_nothing(ledger: Ledger) -> None:
    ledger.append_at_once("left", how=PAUSED_ITSELF, why="trials broke 10 times in a row and none reported")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(ledger.folder), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env=environment(PYTHONPATH=f"{os.environ.get('PYTHONPATH', '')}:{ROOT}", TERM="xterm", COLUMNS="400"),
    )  # fmt: skip
    shown = Lines(process, ours)
    try:
        text = shown.until(lambda text: "--resume" in text)
        assert "the sweep has paused itself at" in text and "worker groups starting" not in text
        shown.until(lambda _: process.poll() is not None)
        assert process.wait(timeout=20) == EXIT_LEFT
    finally:
        process.kill()
        os.close(ours)
        os.close(theirs)


@pytest.mark.slow
def test_a_sweep_in_a_bucket_is_watched_from_another_machine(bucket: str, tmp_path: Path) -> None:
    folder = here(f"{bucket}/night")
    three_trials(folder.parent)
    with published(folder, lambda: None, print) as publisher:
        assert publisher is not None
        ledger = Ledger(folder)
        publisher.files()
        ledger.published = publisher.ledger
        ledger.append("opened", slots=1)
        publisher.start()
        process = watching(f"{bucket}/night", HAUSA_ASR_SCRATCH=str(tmp_path / "elsewhere"))
        assert process.stdout is not None
        shown = Lines(process, process.stdout.fileno())
        try:
            shown.until(lambda text: "trials tried" in text)
            report(ledger, "t002", 140)
            shown.until(lambda text: "t002  running  step 140/280  loss 0.800  WER 0.250" in text, within_s=40)
            (folder / "result.json").write_text(json.dumps(RESULT))
            publisher.files()
            assert process.wait(timeout=40) == 0
            assert RESULT["headline"] in shown.text + process.stdout.read().decode()  # type: ignore[operator]
        finally:
            process.kill()
    assert not (tmp_path / "elsewhere/stores/s3" / bucket.removeprefix("s3://") / "night/.lock").exists()


def test_what_is_no_sweep_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        command("none", "--storage", tmp_path), capture_output=True, text=True, timeout=60,
        env=environment(PYTHONPATH=f"{os.environ.get('PYTHONPATH', '')}:{ROOT}"),
    )  # fmt: skip
    assert done.returncode == 2 and "There is no sweep named none." in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_that_was_replaced_is_read_from_its_beginning(ledger: Ledger) -> None:
    follower = Follower(ledger.folder)
    assert follower.poll() == ["t000", "t001", "t002", "t003"] and follower.state.slots == 2
    assert follower.poll() == []
    first = ledger.path.read_text().splitlines()[0]
    ledger.path.write_text(f"{first}\n")
    assert follower.poll() == [] and not follower.state.trials
