"""Sweeps whose processes are killed with `kill -9` at random moments: nothing is lost, doubled or left running."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from hausa_asr.settings.load import load
from hausa_asr.settings.sweep import SweepConfig
from helpers.whole_sweeps import ONE_SLOT, SETTINGS, Runs, check_whole, finish, gone, ledger_of, start
from sweeps.driver.agenda import Agenda
from sweeps.driver.sweep import predictor_of, rule_of
from sweeps.record.ledger import Ledger
from sweeps.record.state import State
from sweeps.record.trial import TrialRecord
from sweeps.sampling.space import parameters
from sweeps.sampling.study import Study

pytestmark = pytest.mark.timeout(900)
TRIALS = 4
LONGER = (
    "--set", "finetune.length_s=480", "--set", "finetune.checkpoint_every_s=0",
    "--set", "finalists={k: 1, seeds: 1}", "--set", f"search.trials={TRIALS}",
)  # fmt: skip
NAMES = {"slot": "ray::Slot", "worker": "RayTrainWorker"}
"""What Ray calls the processes of a slot and of its worker group."""
_WRITING_S = 15.0


class Ordeal:
    """A sweep that is killed and goes on.

    Attributes:
        kills: what was killed so far, with the lines that the ledger had by then, and when.
    """

    def __init__(self, settings: Path, name: str, seed: int) -> None:
        self.settings, self.name, self.folder = settings, name, settings.parent
        self.sweep = self.folder / "runs" / name
        self.draw = random.Random(seed)
        self.kills: list[tuple[str, list[str], float]] = []
        self.process = start("--config", settings, "--set", f"name={name}", *ONE_SLOT, *LONGER)

    @property
    def config(self) -> SweepConfig:
        return load(self.sweep / "sweep.yaml", environment={})

    def wait(self, until: Callable[[list[dict[str, Any]]], bool], timeout_s: float = 150) -> bool:
        """Wait for the ledger to be so; False when the sweep has ended before."""
        deadline = time.monotonic() + timeout_s
        while not until(ledger_of(self.sweep)):
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < deadline, (self.sweep / "sweep.log").read_text()[-3000:]
            time.sleep(0.02)
        return True

    def wait_at_random(self, events: int) -> bool:
        """Wait for 1 to so many events that are still to come, one of them by a driver, and a moment more."""
        drivers = 1 + sum(what in ("driver", "ray") for what, *_ in self.kills)
        some = len(ledger_of(self.sweep)) + self.draw.randint(1, events)
        there = self.wait(lambda now: len(now) >= some and sum(e["event"] == "opened" for e in now) == drivers)
        time.sleep(self.draw.uniform(0, 0.5))
        return there and self.process.poll() is None

    def kill(self, what: str) -> bool:
        """Kill the driver, the whole local Ray, a slot or one of its workers; False where the sweep has ended."""
        at = time.time()
        if what == "driver":
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.communicate()
        elif what == "ray":
            servers = [pid for pid, program in self._processes() if program.endswith(("/raylet", "/gcs_server"))]
            assert len(servers) == 2
            for pid in servers:
                os.kill(pid, signal.SIGKILL)
            began = time.monotonic()
            output = finish(self.process, code=1)
            assert time.monotonic() - began < 30, "it ends soon"
            assert f"The local Ray has ended; its logs in {self.sweep}" in output
            assert f"Go on with:  python sweeps/run.py --resume {self.sweep}" in output
            assert "Traceback" not in output
        else:
            while not (found := [pid for pid, program in self._processes() if NAMES[what] in program]):
                if self.process.poll() is not None:
                    return False
                time.sleep(0.05)
            os.kill(found[0], signal.SIGKILL)
        self.kills.append((what, self._lines(), at))
        if what in ("driver", "ray"):
            assert gone(self.process.pid) == [], "a local Ray ends with its driver"
            assert not list(Path("/tmp").glob(f"hausa-asr-ray-{self.process.pid}-*"))
            # What is found by whoever takes over: those that a slot had are the only ones that run.
            state = Ledger(self.sweep).state
            assert sum(trial.is_open for trial in state.searched) <= state.slots
            known = _study(self.config, state).trials
            assert [one.params for one in known] == [_told(self.config, trial) for trial in state.searched]
            running = [one.state is TrialState.RUNNING for one in known]
            may_run = [one.is_open or (one.waits_for_workers and not one.decisions) for one in state.searched]
            assert all(may for may, runs in zip(may_run, running, strict=True) if runs), (
                "who ended or was ranked has an expectation"
            )
            self.process = start("--resume", self.name, "--set", f"storage={self.folder}/runs")
        return True

    def end(self) -> None:
        """Let the sweep come to its end."""
        finish(self.process)

    def stop(self) -> None:
        """Leave nothing behind, however the test went."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _processes(self) -> Iterator[tuple[int, str]]:
        """The processes of the sweep's session, and of no other: each one's id and program."""
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                if stat[0] != "Z" and int(stat[3]) == self.process.pid:
                    yield int(entry.name), (entry / "cmdline").read_text().partition("\0")[0]
            except OSError:
                continue

    def _lines(self) -> list[str]:
        """What the ledger has in whole lines."""
        return self.sweep.joinpath("ledger.jsonl").read_text().splitlines(keepends=True)[: len(ledger_of(self.sweep))]

    def check(self) -> None:
        """Nothing is lost, doubled or left running, in ledger, Optuna's study or MLflow, and little was done twice."""
        check_whole(self.folder, self.name, TRIALS)
        after = Ledger(self.sweep).state
        lines = self._lines()
        for what, before, _ in self.kills:
            assert lines[: len(before)] == before, f"{what}: what was written stays as it was"
            _check_kept(_state(before), after)
        for trial in after.searched:
            assert sum(trial.settings == other.settings for other in after.searched) == 1, "nothing is tried twice"
        known = _study(self.config, after).trials
        assert len(known) == TRIALS
        assert {one.state for one in known} == {TrialState.COMPLETE}, "each has an expectation, and none has crashed"
        runs = Runs(self.folder)
        assert Counter(run.data.tags["trial"] for run in runs.children) == Counter(list(after.trials))
        for run in runs.children:
            assert runs.steps(run) == [report.step for report in after.trials[run.data.tags["trial"]].reports]
        self._check_little_twice(after)

    def _check_little_twice(self, after: State) -> None:
        """Each kill costs a trial one report at the most, and what it had done since its last.

        That is for those whose workers were at work on it then, or still wrote its state after it had left them.
        """
        opened_at = [
            [t.id for t in _state(before).trials.values() if _is_at_work(t, at)] for _, before, at in self.kills
        ]
        for trial in after.trials.values():
            log = self.sweep / "trials" / trial.id / "train.log"
            lines = [line.split(" ", 2)[2] for line in log.read_text().splitlines() if ": wer=" in line]
            steps = [int(line.split()[1]) for line in lines]
            every = [report.step for report in trial.reports]
            assert sorted(set(steps)) == every
            back = max((every.index(last) - every.index(step) for last, step in pairwise(steps)), default=0)
            assert back <= 1, f"{trial.id} went on from its newest state, or from the one before if that was not whole"
            # A report that is sent again is read from the checkpoint, timings and all: the very same line.
            again = len(set(lines)) - len(set(steps))
            assert again <= sum(trial.id in opened for opened in opened_at)


def _is_at_work(trial: TrialRecord, at: float) -> bool:
    """Whether a trial's workers were busy with it: training, or writing what it goes on from."""
    return trial.is_open or (trial.came is not None and at - trial.came[1] < _WRITING_S)


def _state(lines: list[str]) -> State:
    state = State()
    for line in lines:
        state.apply(json.loads(line))
    return state


def _study(config: SweepConfig, state: State) -> Study:
    study = Study(config, predictor=predictor_of(config, rule_of(config, state)))
    for trial in state.searched:
        study.update(trial)
    return study


def _told(config: SweepConfig, trial: TrialRecord) -> dict[str, Any]:
    """The settings of a trial that its space has, as Optuna is to know them."""
    return parameters(config.space, trial.settings, asdict(config.recipe()))[0]


def _check_kept(before: State, after: State) -> None:
    """What was known before is known after."""
    for name, trial in before.trials.items():
        again = after.trials[name]
        assert (again.settings, again.source, again.of) == (trial.settings, trial.source, trial.of)
        assert again.run_id == trial.run_id or trial.run_id is None
        assert again.reports[: len(trial.reports)] == trial.reports
        assert again.decisions[: len(trial.decisions)] == trial.decisions
    assert after.run_id == before.run_id or before.run_id is None
    assert after.marks == before.marks
    for rung, cohort in before.rungs.items():
        assert cohort.items() <= after.rungs[rung].items()


def settings_in(folder: Path, audio: Path, base: Path) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(SETTINGS.format(audio=audio, base=base, folder=folder))
    return path


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, audio: Path, layer_norm_base: Path) -> Iterator[Ordeal]:
    """A sweep that was killed three times: while a trial was paused, a little later, and among its finalists."""
    ordeal = Ordeal(settings_in(tmp_path_factory.mktemp("killed"), audio, layer_norm_base), "killed", seed=4)
    try:
        assert ordeal.wait(lambda events: any(event["event"] == "paused" for event in events))
        assert ordeal.wait_at_random(3)
        assert ordeal.kill("driver")
        assert ordeal.wait_at_random(6)
        assert ordeal.kill(ordeal.draw.choice(["slot", "worker"]))
        assert ordeal.wait(lambda events: any(event.get("of") for event in events))
        assert ordeal.wait_at_random(6)
        assert ordeal.kill("ray")
        ordeal.end()
        yield ordeal
    finally:
        ordeal.stop()


def test_killed_thrice_it_goes_on_with_nothing_lost_or_doubled(killed: Ordeal) -> None:
    killed.check()


def test_a_ledger_that_ends_anywhere_can_be_gone_on_from(killed: Ordeal, tmp_path: Path) -> None:
    """As a crash at any instant would leave it: cut after every event, with a torn line behind."""
    lines = killed._lines()
    for count in range(1, len(lines) + 1):
        torn = lines[count][: len(lines[count]) // 2] if count < len(lines) else ""
        (tmp_path / "ledger.jsonl").write_text("".join(lines[:count]) + torn)
        ledger = Ledger(tmp_path)
        before = _state(lines[:count])
        assert ledger.state == before
        agenda = Agenda(killed.config, ledger, rule_of(killed.config, before), Study(killed.config))
        given = []
        while (order := agenda.next()).trial is not None:
            given.append(order.trial.id)
            lost = bool(order.trial.decisions) and not order.trial.decisions[-1]["passed"]
            let_go_on = order.why or order.trial.recalled or not lost
            assert let_go_on, f"{order.trial.id} lost at its rung and goes on all the same, cut at {count}"
        assert max(Counter(given).values(), default=1) == 1
        assert {trial.id for trial in before.trials.values() if trial.is_open and not trial.waits_at} <= set(given)
        _check_kept(before, ledger.state)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(7))
def test_killed_again_and_again(seed: int, tmp_path: Path, audio: Path, layer_norm_base: Path) -> None:
    """28 kills are meant, of which a few find the sweep at its end: 21 or more are made."""
    ordeal = Ordeal(settings_in(tmp_path, audio, layer_norm_base), "killed", seed)
    kinds = ["driver", "slot", "worker", "ray"]
    ordeal.draw.shuffle(kinds)
    try:
        for what in kinds:
            if not ordeal.wait_at_random(16) or not ordeal.kill(what):
                break
        ordeal.end()
        ordeal.check()
        assert len(ordeal.kills) >= 3
    finally:
        ordeal.stop()
