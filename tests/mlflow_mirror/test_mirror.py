"""The mirror against a real SQLite file and a real `mlflow server` that is killed, stopped and started again."""

from __future__ import annotations

import http.server
import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from hausa_asr.recipe import CHECKPOINT, step_folder
from hausa_asr.settings.sweep import SweepConfig
from hausa_asr.tracking.tracker import STATUS, Tracker
from helpers.mlflow_server import Server
from sweeps.mlflow_mirror.mirror import INTERRUPTED, Mirror
from sweeps.record.ledger import Ledger
from sweeps.record.names import LEDGER_FILE

SOON_S = 60.0
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")  # MLflow's own


class Sweep:
    """A sweep's events, as a driver writes them, and its mirror."""

    def __init__(self, folder: Path, uri: str, experiment: str) -> None:
        self.folder, self.tracker = folder, Tracker(uri, experiment)
        folder.mkdir(exist_ok=True)
        self.ledger = Ledger(folder)
        if not self.ledger.state.name:
            self.ledger.append("sweep", name=folder.name, prepared=str(folder), fingerprint="abc")
        self.ledger.append("opened")
        self.mirror = Mirror(self.tracker, self.ledger, SweepConfig(), {"fingerprint": "abc"})

    def tell(self, event: str, trial: str, **fields: Any) -> None:
        self.ledger.append(event, trial=trial, **fields)
        self.mirror.mark(trial)

    def begin(self, *trials: str) -> None:
        for trial in trials:
            self.tell("proposed", trial, settings={"lr_peak": 1e-3}, source="search")
            self.tell("started", trial)

    def report(self, trial: str, step: int, kept: bool = True) -> None:
        """An evaluation, better than the last; `kept`: its checkpoint is on disk."""
        checkpoint = step_folder(self.ledger.trial_folder(trial), step)
        if kept:
            checkpoint.mkdir(parents=True)
            heard = {"samples": [["u1", "ina kwana", f"ina kwana {step}"]]}
            (checkpoint / "progress.json").write_text(json.dumps(heard))
            (checkpoint / CHECKPOINT).touch()
        figures = {"wer": 1 / step, "cer": 0.5 / step, "loss": 2 / step}
        self.tell(
            "reported",
            trial,
            step=step,
            updates=100,
            seen_s=step * 10.0,
            metrics={**figures, "wer_folded": 0.9 / step, "cer_folded": 0.4 / step, "train_loss": 3.0},
            best={"step": step, **figures},
            last=False,
            diverged=False,
        )

    def run(self, trial: str) -> Any:
        return MlflowClient(self.tracker.uri).get_run(self.ledger.state.trials[trial].run_id)

    def check(self) -> None:
        """One run per trial with every metric of every report once, by rising steps, and the ledger's status."""
        client = MlflowClient(self.tracker.uri)
        state = self.ledger.state
        runs = self.tracker.trials(state.run_id)
        assert sorted(run.trial for run in runs) == sorted(state.trials)
        assert {run.trial: run.run_id for run in runs} == {t.id: t.run_id for t in state.trials.values()}
        for run in runs:
            trial = state.trials[run.trial]
            assert run.status == STATUS["running" if trial.is_open else trial.state], trial.id
            steps = [report.step for report in trial.reports]
            for metric in ("wer", "loss", "cer_folded", "train_loss", "seen_s", "best_wer", "best_cer_folded"):
                assert [point.step for point in client.get_metric_history(run.run_id, metric)] == steps, trial.id
            assert [1 / step for step in steps] == [p.value for p in client.get_metric_history(run.run_id, "best_wer")]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('database')}/mlflow.db"


@pytest.fixture
def sweep(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Sweep]:
    sweep = Sweep(tmp_path / "sweep", database, request.node.name)
    sweep.mirror.start()
    yield sweep
    sweep.mirror.close()


def test_a_trial_that_lost_its_best_checkpoint_has_the_figures_of_what_is_left(sweep: Sweep) -> None:
    """Its workers died with the best weights in their memory."""
    sweep.begin("t000", "t001")
    for trial in ("t000", "t001"):
        sweep.report(trial, 10)
        (step_folder(sweep.ledger.trial_folder(trial), 10) / CHECKPOINT).write_text("{}")
        sweep.report(trial, 20, kept=False)
    trial = sweep.ledger.state.trials["t000"]
    sweep.tell("ended", "t000", state="failed", reason="crashed", best=sweep.ledger.best_there(trial))
    sweep.tell("ended", "t001", state="finished", reason="")
    assert sweep.mirror.flush(SOON_S) == []
    lost, whole = sweep.run("t000").data.metrics, sweep.run("t001").data.metrics
    assert (lost["best_wer"], lost["best_step"], lost["best_cer_folded"]) == (1 / 10, 10, 0.4 / 10)
    assert (whole["best_wer"], whole["best_step"]) == (1 / 20, 20)
    chosen = next(run for run in sweep.tracker.trials(sweep.ledger.state.run_id) if run.trial == "t000")
    assert chosen.wer == 1 / 10, "as best-model reads it"


def test_a_server_that_is_killed_and_comes_back(server: Server, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "sweep", server.uri, "killed")
    later = Sweep(tmp_path / "later", server.uri, "killed")
    sweep.mirror.start()
    sweep.begin("t000", "t001", "t002")
    for trial in ("t000", "t001", "t002"):
        sweep.report(trial, 10)
    assert sweep.mirror.flush(SOON_S) == []
    sweep.check()

    server.signal(signal.SIGKILL)
    server.process.wait(15)
    later.mirror.start()  # its own run can't be made now
    later.begin("t000")
    later.report("t000", 10)
    names = set(os.environ)
    for step in range(20, 80, 10):
        for trial in ("t000", "t001", "t002"):
            sweep.report(trial, step)
        assert set(os.environ) == names  # a copy of the environment is never caught in mid-change
        time.sleep(0.5)
    sweep.tell("paused", "t001", reason="waits at rung 0", cause="rung")
    sweep.tell("ended", "t002", state="pruned", reason="9th of 9")
    sweep.begin("t003")
    began = time.monotonic()
    for _ in range(100):
        sweep.mirror.mark("t000")
    assert time.monotonic() - began < 1
    assert set(sweep.mirror.flush(0.5)) >= {"t000", "t001", "t002", "t003"}

    server.start()
    sweep.report("t000", 80)
    server.wait()
    sweep.report("t000", 90)
    sweep.tell("ended", "t000", state="finished", reason="")
    assert sweep.mirror.flush(SOON_S) == later.mirror.flush(SOON_S) == []
    sweep.check()
    later.check()
    assert {run.name: run.status for run in sweep.tracker.sweeps()} == {"sweep": "RUNNING", "later": "RUNNING"}
    sweep.mirror.close()
    later.mirror.close()


@contextmanager
def losing(server: Server, lost: list[str]) -> Iterator[str]:
    """The address of a proxy before the server; it loses the answer to one call of each kind in `lost`, once."""

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            headers = {"Content-Type": self.headers.get("Content-Type") or "application/json"}
            request = urllib.request.Request(server.uri + self.path, body, headers, method=self.command)
            try:
                answer = urllib.request.urlopen(request)
            except urllib.error.HTTPError as refusal:
                answer = refusal
            with answer:
                status, content = answer.status, answer.read()
            kind = self.path.rpartition("/")[2]
            if kind in lost:
                lost.remove(kind)
                return
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{proxy.server_port}"
        finally:
            proxy.shutdown()
            thread.join()


def test_a_call_whose_answer_is_lost_does_nothing_twice(server: Server, tmp_path: Path) -> None:
    lost: list[str] = []
    with losing(server, lost) as uri:
        sweep = Sweep(tmp_path / "lost", uri, "lost")
        lost += ["create"]  # of the sweep's own run
        sweep.mirror.start()
        assert sweep.mirror.flush(SOON_S) == [] == lost
        lost += ["create", "log-batch"]
        sweep.begin("t000")
        assert sweep.mirror.flush(SOON_S) == [] == lost
        lost += ["log-batch"]
        sweep.report("t000", 10)
        assert sweep.mirror.flush(SOON_S) == [] == lost
        sweep.check()
        assert len(sweep.tracker.sweeps()) == 1
        sweep.mirror.close()


def test_a_trial_goes_on_in_its_run_after_a_pause_and_after_pruning(sweep: Sweep) -> None:
    sweep.begin("t000")
    sweep.report("t000", 10)
    for step, event, fields, status in (
        (20, "paused", {"cause": "rung"}, "SCHEDULED"),
        (30, "ended", {"state": "pruned"}, "KILLED"),
        (40, "ended", {"state": "finished"}, "FINISHED"),
    ):
        sweep.tell(event, "t000", reason=f"at {step}", **fields)
        assert sweep.mirror.flush(SOON_S) == []
        run = sweep.run("t000")
        assert (run.info.status, run.data.tags["reason"]) == (status, f"at {step}")
        assert bool(run.info.end_time) == (event == "ended")
        assert run.data.metrics["spent_s"] == sweep.ledger.state.trials["t000"].spent_s
        sweep.tell("started", "t000")
        assert sweep.mirror.flush(SOON_S) == []
        run = sweep.run("t000")
        assert (run.info.status, run.data.tags["reason"], run.info.end_time or 0) == ("RUNNING", "", 0)
        sweep.report("t000", step)
    sweep.tell("ended", "t000", state="finished", reason="")
    assert sweep.mirror.flush(SOON_S) == []
    sweep.check()
    run = sweep.run("t000")
    assert run.info.end_time == int(sweep.ledger.state.trials["t000"].ended_s * 1000)
    assert run.data.tags["checkpoint_uri"] == step_folder(sweep.ledger.trial_folder("t000"), 40).as_uri()
    found = sweep.tracker.download(run.info.run_id, "samples.json", sweep.folder / "back")
    assert json.loads(found.read_text())["data"] == [["u1", "ina kwana", "ina kwana 40", 0.5]]


def test_finalists_say_what_they_are(sweep: Sweep) -> None:
    sweep.begin("t000")
    sweep.report("t000", 10)
    sweep.tell("proposed", "t000-s1", settings={"lr_peak": 1e-3, "seed": 7}, source="finalist", of="t000")
    sweep.tell("started", "t000-s1")
    assert sweep.mirror.flush(SOON_S) == []
    searched, finalist = sweep.run("t000").data, sweep.run("t000-s1").data
    assert (finalist.tags["source"], finalist.tags["finalist_of"], finalist.params["seed"]) == ("finalist", "t000", "7")
    assert searched.tags["fingerprint"] == finalist.tags["fingerprint"] == "abc"
    assert searched.tags["mlflow.runColor"] != finalist.tags["mlflow.runColor"]


def test_a_new_driver_goes_on_in_the_same_runs(sweep: Sweep, database: str, request: pytest.FixtureRequest) -> None:
    sweep.begin("t000", "t001", "t002")
    for trial in ("t000", "t001", "t002"):
        sweep.report(trial, 10)
    sweep.tell("ended", "t000", state="finished", reason="")
    assert sweep.mirror.flush(SOON_S) == []
    before = {trial.id: trial.run_id for trial in sweep.ledger.state.trials.values()}
    sweep.mirror.close()
    sweep.report("t001", 20)  # told by a driver that dies before MLflow hears of it
    sweep.tell("ended", "t002", state="failed", reason="diverged")
    # It had also died before it could note which runs it had made.
    lines = (sweep.folder / LEDGER_FILE).read_text().splitlines(keepends=True)
    kept = [x for x in lines if '"mirrored"' not in x and not ('"tracked"' in x and '"t001"' in x)]
    assert len(kept) == len(lines) - 2
    (sweep.folder / LEDGER_FILE).write_text("".join(kept))

    again = Sweep(sweep.folder, database, request.node.name)
    again.mirror.start()
    again.report("t001", 30)
    assert again.mirror.flush(SOON_S) == []
    assert {trial.id: trial.run_id for trial in again.ledger.state.trials.values()} == before
    assert len(again.tracker.sweeps()) == 1
    again.check()
    again.mirror.close()


def test_a_run_that_was_deleted_stops_no_other(sweep: Sweep) -> None:
    sweep.begin("t000", "t001")
    sweep.report("t000", 10)
    assert sweep.mirror.flush(SOON_S) == []
    client, run_id = MlflowClient(sweep.tracker.uri), sweep.ledger.state.trials["t000"].run_id
    client.delete_run(run_id)
    for step in (20, 30):
        sweep.report("t000", step)
        sweep.report("t001", step)
    sweep.tell("ended", "t001", state="finished", reason="")
    assert sweep.mirror.flush(SOON_S) == ["t000"]
    assert sweep.run("t001").info.status == "FINISHED"
    client.restore_run(run_id)
    assert sweep.mirror.flush(SOON_S) == []
    sweep.check()


def test_an_interrupted_sweep_waits_and_goes_on(sweep: Sweep, database: str, request: pytest.FixtureRequest) -> None:
    sweep.begin("t000", "t001", "t002")
    for trial in ("t000", "t001", "t002"):
        sweep.report(trial, 10)
    sweep.tell("paused", "t001", reason="waits at rung 0", cause="rung")
    sweep.tell("ended", "t002", state="finished", reason="")
    assert sweep.mirror.interrupted(SOON_S) == []
    sweep.mirror.close()
    shown = [(run.status, run.tags.get("reason", "")) for run in sweep.tracker.trials(sweep.ledger.state.run_id)]
    assert shown == [("SCHEDULED", INTERRUPTED), ("SCHEDULED", INTERRUPTED), ("FINISHED", "")]
    assert [(run.status, run.tags["state"]) for run in sweep.tracker.sweeps()] == [("KILLED", "stopped")]

    again = Sweep(sweep.folder, database, request.node.name)
    again.mirror.start()
    assert again.mirror.flush(SOON_S) == []
    again.check()
    assert again.run("t001").data.tags["reason"] == "waits at rung 0"
    assert [run.status for run in again.tracker.sweeps()] == ["RUNNING"]
    again.mirror.close()


def test_a_checkpoint_that_made_room_is_not_waited_for(sweep: Sweep) -> None:
    sweep.begin("t000")
    sweep.report("t000", 10, kept=False)
    sweep.tell("ended", "t000", state="pruned", reason="9th of 9")
    assert sweep.mirror.flush(SOON_S) == []
    sweep.check()
    assert "checkpoint_uri" not in sweep.run("t000").data.tags
    assert sweep.tracker.download(sweep.run("t000").info.run_id, "samples.json", sweep.folder / "back") is None


def test_the_sweeps_own_run_has_its_settings_and_the_report_on_its_data(sweep: Sweep) -> None:
    (sweep.folder / "report.json").write_text("{}")
    assert sweep.mirror.flush(SOON_S) == []
    run_id = sweep.ledger.state.run_id
    assert run_id is not None and Ledger(sweep.folder).state.run_id == run_id
    for artifact in ("settings/sweep.yaml", "settings.yaml", "data/report.json"):
        assert sweep.tracker.download(run_id, artifact, sweep.folder / "back") is not None, artifact
    [found] = sweep.tracker.sweeps()
    assert found.tags["folder"] == str(sweep.folder)
