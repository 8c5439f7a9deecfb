"""Where MLflow keeps its runs: experiments, a new database, and stores that are away or cannot be used."""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from hausa_asr.errors import UserError
from hausa_asr.tracking import tracker as tracking
from hausa_asr.tracking.tracker import MetricsRow, Tracker
from helpers.mlflow_server import Server, free_port
from helpers.tracked import started

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")  # MLflow's own


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
