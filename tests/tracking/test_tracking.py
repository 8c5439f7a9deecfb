"""The MLflow room against a real SQLite file and a real `mlflow server`, read back by a client of its own."""

from __future__ import annotations

import http.server
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient

from hausa_asr.errors import UserError
from hausa_asr.tracking import reader as tracking_reading
from hausa_asr.tracking import tracker as tracking
from hausa_asr.tracking.tracker import MetricsRow, Sample, Tracker
from helpers.mlflow_server import Server, free_port

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")  # MLflow's own
SETTINGS = {
    "peak_lr": 5e-5,
    "schedule": {"kind": "linear", "warmup_steps": np.int64(1000)},
    "layers": [1, 2],
    "lm": None,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    # An odd folder name, since the URI and the artifact location both go through quoting.
    return f"sqlite:///{tmp_path_factory.mktemp('da ta ɗ#1')}/mlflow.db"


@pytest.fixture(params=["database", "server"])
def uri(request: pytest.FixtureRequest) -> str:
    found = request.getfixturevalue(request.param)
    return found.uri if isinstance(found, Server) else found


@pytest.fixture
def tracker(uri: str, request: pytest.FixtureRequest) -> Tracker:
    return Tracker(uri, f"hausa {request.node.name}")


def started(tracker: Tracker, trial: str = "t1", sweep: str = "first") -> tuple[str, str]:
    parent = tracker.start_sweep(sweep, {"metric": "wer"}, {"version": "0.1.0"})
    return parent, tracker.start_trial(parent, sweep, trial, SETTINGS, {"slot": "0"})


def test_a_sweep_is_a_parent_run_with_child_runs(tracker: Tracker) -> None:
    parent, child = started(tracker)
    other = MlflowClient(tracker.uri)
    parent_run, run = other.get_run(parent), other.get_run(child)
    assert parent_run.info.run_name == "first"
    assert parent_run.data.params == {"metric": "wer"}
    assert parent_run.data.tags["version"] == "0.1.0"
    assert run.info.run_name == "t1"
    assert run.info.status == "RUNNING"
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.tags["slot"] == "0"
    assert run.data.params == {
        "peak_lr": "5e-05",
        "schedule.kind": "linear",
        "schedule.warmup_steps": "1000",
        "layers": "[1, 2]",
        "lm": "None",
    }


def test_metrics_come_back_with_their_steps_and_times(tracker: Tracker) -> None:
    _, child = started(tracker)
    rows = [
        MetricsRow(20 * k, 1_700_000_000_000 + k, {"loss": 5.0 / (k + 1), "wer": np.float64(1.0)}) for k in range(3)
    ]
    tracker.log(child, rows)
    tracker.log(child, rows)
    history = MlflowClient(tracker.uri).get_metric_history(child, "loss")
    assert [(point.step, point.timestamp, point.value) for point in history] == [
        (0, 1_700_000_000_000, 5.0),
        (20, 1_700_000_000_001, 2.5),
        (40, 1_700_000_000_002, 5.0 / 3),
    ]


def test_a_curve_comes_back_with_each_step_once_and_rising(tracker: Tracker) -> None:
    _, child = started(tracker)
    tracker.log(
        child, [MetricsRow(40, 4, {"loss": 2.0, "wer": 1.0}), MetricsRow(20, 2, {"loss": 3.0})], {"note": "both"}
    )
    tracker.log(child, [MetricsRow(40, 5, {"loss": 1.5})])
    assert tracker.history(child, ["loss", "wer", "cer"]) == {
        "loss": [(20, 3.0), (40, 1.5)],
        "wer": [(40, 1.0)],
        "cer": [],
    }
    [trial] = tracker.trials()
    assert (trial.status, trial.tags["note"], trial.metrics["loss"]) == ("RUNNING", "both", 1.5)


def test_a_sweep_whose_first_call_lost_its_answer_is_not_begun_twice(tracker: Tracker) -> None:
    first = tracker.start_sweep("twice", {"a": 1}, {}, key="twice 1")
    tracker.end_sweep(first, "stopped", {}, {})
    assert tracker.start_sweep("twice", {"a": 1}, {}, key="twice 1") == first
    assert tracker.start_sweep("twice", {"a": 1}, {}, key="twice 2") != first
    assert [run.status for run in tracker.sweeps()] == ["RUNNING", "RUNNING"]


def test_more_metrics_than_one_batch_holds(tracker: Tracker) -> None:
    _, child = started(tracker)
    tracker.log(child, [MetricsRow(step, step, {"loss": float(step), "lr": 0.1, "cer": 0.5}) for step in range(700)])
    assert len(MlflowClient(tracker.uri).get_metric_history(child, "cer")) == 700
    assert tracker.last_step(child) == 699


def test_values_that_are_not_finite_are_counted_instead(tracker: Tracker) -> None:
    _, child = started(tracker)
    tracker.log(
        child,
        [MetricsRow(10, 1, {"loss": 3.0}), MetricsRow(20, 2, {"loss": math.nan, "grad_norm": math.inf, "lr": 0.1})],
    )
    run = MlflowClient(tracker.uri).get_run(child)
    assert run.data.metrics == {"loss": 3.0, "lr": 0.1, "nonfinite": 2.0}
    assert run.data.tags["nonfinite"] == "loss=nan, grad_norm=inf at step 20"
    tracker.end_trial(child, "failed", "diverged", {"best_wer": math.nan, "best_loss": 3.0})
    [trial] = tracker.trials()
    assert (trial.state, trial.wer, trial.loss) == ("failed", None, 3.0)


@pytest.mark.parametrize(
    ("state", "status"),
    [("finished", "FINISHED"), ("pruned", "KILLED"), ("failed", "FAILED"), ("paused", "SCHEDULED")],
)
def test_the_end_of_a_trial(database: str, state: tracking.TrialState, status: str) -> None:
    tracker = Tracker(database, f"ends {state}")
    parent, child = started(tracker)
    for _ in range(2):
        tracker.end_trial(child, state, "rung 2: 9th of 9", {"best_wer": 0.5, "best_cer": 0.25})
    run = MlflowClient(tracker.uri).get_run(child)
    assert run.info.status == status
    assert bool(run.info.end_time) == (state != "paused")
    assert run.data.tags["reason"] == "rung 2: 9th of 9"
    [trial] = tracker.trials("first")
    assert (trial.run_id, trial.parent, trial.sweep, trial.trial) == (child, parent, "first", "t1")
    assert (trial.state, trial.wer, trial.cer, trial.loss) == (state, 0.5, 0.25, None)


def test_a_resumed_trial_goes_on_in_its_run(tracker: Tracker) -> None:
    parent, child = started(tracker)
    assert tracker.last_step(child) == -1
    tracker.log(child, [MetricsRow(120, 1, {"loss": 2.0, "lr": 0.1})])
    tracker.end_trial(child, "paused", "waits at rung 1", {})
    tracker.end_trial(child, "failed", "worker lost", {"best_wer": 0.9})
    tracker.reopen(child)
    run = MlflowClient(tracker.uri).get_run(child)
    assert (run.info.status, run.data.tags["state"], run.data.tags["reason"]) == ("RUNNING", "running", "")
    assert not run.info.end_time
    assert tracker.last_step(child) == 120
    assert tracker.last_step(child, "grad_norm") == -1
    tracker.log(child, [MetricsRow(240, 2, {"loss": 1.0})])
    tracker.end_trial(child, "finished", "", {"best_wer": 0.7})
    assert [(trial.run_id, trial.wer) for trial in tracker.trials(parent)] == [(child, 0.7)]


def test_a_trial_started_again_is_the_same_run(tracker: Tracker) -> None:
    parent, child = started(tracker)
    tracker.end_trial(child, "failed", "", {})
    again = tracker.start_trial(parent, "first", "t1", {**SETTINGS, "peak_lr": 1e-4, "new": 1}, {})
    assert again == child
    run = MlflowClient(tracker.uri).get_run(child)
    assert run.info.status == "RUNNING"
    assert (run.data.params["peak_lr"], run.data.params["new"]) == ("5e-05", "1")
    assert tracker.start_trial(parent, "first", "t2", {}, {}) != child


def test_long_and_odd_names_and_values_are_kept_within_limits(tracker: Tracker, tmp_path: Path) -> None:
    parent = tracker.start_sweep("s", {}, {"note": "n" * 20_000})
    settings = {"long": "x" * 20_000, "mask[0]=ɗ?": "y", "k" * 400: 1, "many": {f"p{k}": k for k in range(250)}}
    child = tracker.start_trial(parent, "s", "it's", settings, {"tag": "é" * 20_000})
    params = MlflowClient(tracker.uri).get_run(child).data.params
    assert len(params) == 253
    assert params["long"].startswith("xxx") and len(params["long"]) == 6000
    assert params["mask_0__ɗ_"] == "y"
    assert tracker.start_trial(parent, "s", "it's", settings, {}) == child
    found = tracker.download(child, "settings.yaml", tmp_path)
    assert found is not None and yaml.safe_load(found.read_text())["long"] == "x" * 20_000


def test_settings_are_kept_in_full_as_a_file(tracker: Tracker, tmp_path: Path) -> None:
    _, child = started(tracker)
    found = tracker.download(child, "settings.yaml", tmp_path)
    assert found == tmp_path / "settings.yaml"
    assert yaml.safe_load(found.read_text()) == {**SETTINGS, "schedule": {"kind": "linear", "warmup_steps": 1000}}


def test_samples_are_a_table_that_is_replaced(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    # load_table searches where the process's default points, whatever URI its client was given.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.uri)
    _, child = started(tracker)
    tracker.log_samples(child, [Sample("a", "ɗaya", "daya", 1.0), Sample("b", "biyu", "biyu", 0.0)])
    tracker.log_samples(child, [Sample("c", "", "uku", math.nan), Sample("d", "huɗu 'yan", "huɗu", 0.5)])
    table = MlflowClient(tracker.uri).load_table(tracker.experiment_id, "samples.json", run_ids=[child])
    assert list(table.columns) == ["id", "reference", "hypothesis", "wer"]
    assert table["id"].tolist() == ["c", "d"]
    assert table["reference"].tolist() == ["", "huɗu 'yan"]
    assert math.isnan(table["wer"][0]) and table["wer"][1] == 0.5


def test_a_folder_goes_there_and_back(tracker: Tracker, tmp_path: Path) -> None:
    _, child = started(tracker)
    folder = tmp_path / "step-000120"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "model.safetensors").write_bytes(bytes(range(256)) * 4000)
    tracker.log_folder(child, folder, "model/best")
    tracker.log_folder(child, folder, "model/best")
    back = tracker.download(child, "model/best", tmp_path / "back")
    assert back is not None
    assert sorted(str(path.relative_to(back)) for path in back.rglob("*.*")) == ["config.json", "sub/model.safetensors"]
    assert (back / "sub" / "model.safetensors").read_bytes() == bytes(range(256)) * 4000
    one = tracker.download(child, "model/best/config.json", tmp_path / "one")
    assert one is not None and one.read_text() == "{}"
    for absent in ("model/worst", "nothing/at/all", "model/best/config.json/x"):
        assert tracker.download(child, absent, tmp_path / "none") is None
    with pytest.raises(FileNotFoundError):
        tracker.log_folder(child, tmp_path / "missing", "model")


def test_sweeps_and_their_trials_are_found_again(tracker: Tracker) -> None:
    older, first = started(tracker, "a")
    time.sleep(0.01)
    newer, second = started(tracker, "b")
    third = tracker.start_trial(newer, "first", "c", {}, {})
    tracker.set_tags(newer, {"note": "again"})
    tracker.end_sweep(newer, "stopped", {"trials": "2"}, {"best_wer": 0.4, "spread": math.nan})
    reader = Tracker.open(tracker.uri, tracker.experiment)
    sweeps = reader.sweeps()
    assert [(run.run_id, run.name, run.status) for run in sweeps] == [
        (newer, "first", "KILLED"),
        (older, "first", "RUNNING"),
    ]
    assert sweeps[0].metrics == {"best_wer": 0.4}
    assert sweeps[0].tags.items() >= {"note": "again", "trials": "2", "state": "stopped"}.items()
    assert [trial.run_id for trial in reader.trials()] == [first, second, third]
    assert [trial.trial for trial in reader.trials("first")] == ["b", "c"]
    assert [trial.run_id for trial in reader.trials(older)] == [first]
    assert reader.trials(older)[0].params["peak_lr"] == "5e-05"
    with pytest.raises(UserError, match=r"no sweep 'second'(.|\n)*first"):
        reader.trials("second")


def test_a_search_reads_every_page(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_reading, "PAGE", 7)
    tracker = Tracker(database, "pages")
    parent = tracker.start_sweep("pages", {}, {})
    client = MlflowClient(tracker.uri)
    for number in range(21):
        tags = {"kind": "trial", "trial": str(number), "mlflow.parentRunId": parent}
        client.create_run(tracker.experiment_id, tags=tags)
    assert sorted(int(trial.trial) for trial in tracker.trials("pages")) == list(range(21))


def test_reading_creates_nothing(uri: str, tmp_path: Path) -> None:
    Tracker(uri, "here")
    with pytest.raises(UserError, match=r"no MLflow experiment 'not here'(.|\n)*here"):
        Tracker.open(uri, "not here")
    assert MlflowClient(uri).get_experiment_by_name("not here") is None
    with pytest.raises(UserError, match="no MLflow database"):
        Tracker.open(f"sqlite:///{tmp_path}/none.db", "x")
    assert list(tmp_path.iterdir()) == []


def test_a_deleted_experiment_says_how_to_restore_it(uri: str) -> None:
    gone = Tracker(uri, "gone")
    MlflowClient(uri).delete_experiment(gone.experiment_id)
    for make in (Tracker, Tracker.open):
        with pytest.raises(UserError, match=f"mlflow experiments restore --experiment-id {gone.experiment_id}"):
            make(uri, "gone")


def test_where_to_look(database: str, server: Server) -> None:
    embedded, served = Tracker(database, "look"), Tracker(server.uri, "look")
    assert embedded.ui_hint().startswith("mlflow ui --backend-store-uri 'sqlite:////")
    assert served.ui_hint() == f"{server.uri}/#/experiments/{served.experiment_id}"
    assert served.compare_url(["a", "b"]).endswith(
        "runs=%5B%22a%22%2C%20%22b%22%5D&experiments=%5B%22" + served.experiment_id + "%22%5D"
    )
    secret = server.uri.replace("//", "//ada:secret@")
    assert "secret" not in Tracker(secret, "look").ui_hint()


def test_artifacts_lie_beside_the_database(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path(database.removeprefix("sqlite:///")).parent
    for name, place in (("look/../up", "look_.._up"), ("..", "_"), ("Default", "0")):
        tracker = Tracker(database, name)
        run_id, _ = started(tracker)
        assert (folder / "mlartifacts" / place / run_id / "artifacts" / "settings.yaml").is_file()
    assert list(tmp_path.iterdir()) == []


TWO_AT_ONCE = """
import pathlib, sys, time
from hausa_asr.tracking.tracker import Tracker
me, folder, uris = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]
(folder / f"ready-{me}").touch()
while len(list(folder.glob("ready-*"))) < 2:
    time.sleep(0.005)
print(*(Tracker(uri, "race").experiment_id for uri in uris))
"""


def test_two_processes_make_the_same_experiment_at_once(tmp_path: Path, server: Server) -> None:
    data = tmp_path / "data"
    command = [sys.executable, "-c", TWO_AT_ONCE]
    uris = [f"sqlite:///{data}/mlflow.db", server.uri]
    both = [
        subprocess.Popen(
            [*command, me, str(tmp_path), *uris], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for me in "ab"
    ]
    answers = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    # Neither MLflow's migrations nor anything else may write into a sweep's output.
    assert answers[0] == answers[1] and answers[0][1] == "", answers
    assert [path.name for path in data.iterdir()] == ["mlflow.db"]


def test_a_kill_while_the_database_is_made_does_no_harm(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    code = f"from hausa_asr.tracking.tracker import Tracker; Tracker({uri!r}, 'x')"
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 100_000 for path in tmp_path.glob(".*.partial")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not (tmp_path / "mlflow.db").exists()
    assert Tracker(uri, "x").sweeps() == []


def refused_within(limit_s: float, make: Callable[[], Tracker]) -> str:
    before = dict(os.environ)
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        make()
    assert time.monotonic() - start < limit_s
    assert dict(os.environ) == before
    return str(caught.value)


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
    uri = f"http://ada:secret@127.0.0.1:{free_port()}"
    text = refused_within(10, lambda: Tracker(uri, "x"))
    assert "does not answer" in text and "secret" not in text


def test_a_server_that_falls_silent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker(server.uri, "silence")
    _, child = started(tracker)
    server.signal(signal.SIGSTOP)
    try:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        for limit_s in (6.0, 0.01):
            start = time.monotonic()
            with pytest.raises(Exception, match=r"timeout|did not answer"):
                tracker.log(child, [MetricsRow(1, 1, {"loss": 1.0})])
            assert time.monotonic() - start < limit_s
        monkeypatch.setattr(tracking, "PROBE_S", 1)
        assert "does not answer" in refused_within(6, lambda: Tracker(server.uri, "silence"))
    finally:
        server.signal(signal.SIGCONT)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    again = Tracker(server.uri, "silence")
    again.log(child, [MetricsRow(1, 1, {"loss": 1.0})])
    assert again.last_step(child) == 1


@pytest.mark.parametrize(
    ("status", "words"), [(401, "MLFLOW_TRACKING_TOKEN"), (200, "does not work as"), (404, "does not work as")]
)
def test_a_server_of_another_kind(status: int, words: str) -> None:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            assert words in refused_within(5, lambda: Tracker(f"http://127.0.0.1:{other.server_port}", "x"))
        finally:
            other.shutdown()
            thread.join()


def test_databases_that_cannot_be_used(tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_text("these are notes, not a database, and long enough to be read as one\n" * 50)
    text = refused_within(5, lambda: Tracker(f"sqlite:///{broken}", "x"))
    assert "not a database" in text and str(broken) in text
    assert "written" in refused_within(5, lambda: Tracker(f"sqlite:///{tmp_path}", "x"))
    assert "written" in refused_within(5, lambda: Tracker(f"sqlite:///{broken}/mlflow.db", "x"))
    assert "written" in refused_within(5, lambda: Tracker("sqlite:////proc/nowhere/mlflow.db", "x"))


def test_a_database_of_another_program(tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE alembic_version (version_num TEXT)")
        other.execute("INSERT INTO alembic_version VALUES ('cafe')")
    other.close()
    assert "mlflow db upgrade" in refused_within(20, lambda: Tracker(f"sqlite:///{tmp_path}/other.db", "x"))


@pytest.mark.parametrize(
    "uri", ["sqlite://", "sqlite:///:memory:", "mlruns", "file:///tmp/mlruns", "postgresql://u:secret@h/d"]
)
def test_uris_that_are_refused(uri: str) -> None:
    assert "secret" not in refused_within(1, lambda: Tracker(uri, "x"))
