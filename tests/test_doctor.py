"""`hausa-asr doctor` finds what is wrong, says what to do about it, and dies of nothing that it looks at."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import pytest

from hausa_asr import doctor_command
from hausa_asr.cli import main
from helpers.speech import prepared_speech


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "HAUSA_ASR_STORAGE"):
        monkeypatch.delenv(name, raising=False)


def findings(capsys: pytest.CaptureFixture[str], *changes: str) -> tuple[int, dict[str, list[str]]]:
    """The exit code, and what was found by kind."""
    arguments = ["doctor", "--json", "--set", "resources.gpus_per_worker=0"]
    for change in changes:
        arguments += ["--set", change]
    code = 0
    try:
        main(arguments)
    except SystemExit as ended:
        code = int(ended.code or 0)
    kinds: dict[str, list[str]] = {"ok": [], "note": [], "fault": []}
    for one in json.loads(capsys.readouterr().out)["findings"]:
        assert one["kind"] == "ok" or one["fix"], f"it says what to do: {one}"
        kinds[one["kind"]].append(one["what"])
    return code, kinds


def test_a_machine_on_which_the_suite_runs_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared = prepared_speech(tmp_path)
    capsys.readouterr()
    before = set(tmp_path.rglob("*"))
    code, kinds = findings(capsys, f"data.prepared={prepared}")
    assert (code, kinds["fault"]) == (0, [])
    said = "\n".join(kinds["ok"] + kinds["note"])
    for what in (
        "all packages",
        "torch",
        "libsndfile",
        "MB/s",
        "MLflow: sqlite",
        "base checkpoint demo",
        "train 8",
        "Ray",
    ):
        assert what in said, what
    assert set(tmp_path.rglob("*")) == before, "it leaves nothing behind"


def test_each_fault_is_named_and_the_others_are_looked_at_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    code, kinds = findings(
        capsys, f"storage={tmp_path}/file/runs", f"mlflow.uri=http://127.0.0.1:{closed()}", "model.base=./none/here",
        f"cluster.address=127.0.0.1:{closed()}", "data.prepared=/none/here",
    )  # fmt: skip
    assert code == 2 and len(kinds["fault"]) == 5
    for number, what in enumerate(("storage", "MLflow", "checkpoint", "dataset", "Ray")):
        assert what in kinds["fault"][number], kinds["fault"]
    assert any("libsndfile" in one for one in kinds["ok"])


def closed() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def answering(status: int, date: str) -> Iterator[str]:
    """A server whose clock says `date`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(status)
            self.send_header("Date", date or self.date_time_string())
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "date", "fault"),
    [(200, "", ""), (401, "", "answers 401"), (200, "Wed, 21 Oct 2015 07:28:00 GMT", "clock is")],
)
def test_a_server_that_refuses_or_has_another_time(
    status: int, date: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(status, date) as address:
        code, kinds = findings(capsys, f"mlflow.uri=http://{address}", f"cluster.address={address}")
    assert [fault in one for one in kinds["fault"]] == ([True] if fault else []) and code == (2 if fault else 0)
    assert f"Ray: {address} answers" in kinds["ok"]


def test_a_package_of_another_version_or_a_missing_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ["numpy<1", "no-such-package>=2", "torch", 'gradio>=6; extra == "serve"']
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    monkeypatch.setattr(doctor_command, "CHECKS", (doctor_command.packages,))
    code, kinds = findings(capsys)
    (fault,) = kinds["fault"]
    assert code == 2 and "numpy " in fault and "(<1 is wanted), no-such-package missing (>=2" in fault
    assert "torch" not in fault and "gradio" not in fault


def test_it_does_not_die_of_what_it_looks_at(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(settings: object) -> Iterator[doctor_command.Finding]:
        raise RuntimeError("a driver from the moon")
        yield

    monkeypatch.setattr(doctor_command, "CHECKS", (broken, doctor_command.audio))
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    out = capsys.readouterr().out
    assert ended.value.code == 2 and "broken: a driver from the moon" in out and "ok     audio" in out
