"""A sweep that goes on elsewhere: its storage was moved, its MLflow is away and comes back at another address."""

from __future__ import annotations

import base64
import signal
from pathlib import Path

import pytest

from helpers.mlflow_server import Server, free_port
from helpers.whole_sweeps import ONE_SLOT, Runs, finish, ledger_of, start, wait_for
from sweeps.record.ledger import Ledger

pytestmark = pytest.mark.long

SECRET = "planted-secret"


def with_secret(uri: str) -> str:
    return uri.replace("//", f"//ada:{SECRET}@")


def test_a_sweep_whose_storage_and_server_have_moved_goes_on_and_writes_no_password(
    settings: Path, tmp_path: Path
) -> None:
    server = Server(tmp_path)
    try:
        server.wait()
        finish(start("--config", settings, "--set", "name=one", "--set", f"mlflow.uri={with_secret(server.uri)}",
                     *ONE_SLOT, "--set", "search.trials=1"))  # fmt: skip
        server.signal(signal.SIGKILL)
        server.process.wait()
        moved = (tmp_path / "runs").rename(tmp_path / "moved")
        server.port = free_port()
        server.uri = f"http://127.0.0.1:{server.port}"
        process = start("--resume", moved / "one", "--set", f"mlflow.uri={with_secret(server.uri)}",
                        *ONE_SLOT, "--set", "search.trials=2")  # fmt: skip
        before = len(ledger_of(moved / "one"))
        wait_for(lambda: any(e["event"] == "reported" for e in ledger_of(moved / "one")[before:]), process)
        server.start()
        output = finish(process)
    finally:
        server.stop()
    assert "does not answer: what is new waits in the ledger" in output
    assert "Traceback" not in output and "MLflow lacks" not in output
    state, runs = Ledger(moved / "one").state, Runs(tmp_path, "server.db")
    assert Path(state.prepared).is_relative_to(moved)
    assert [run.info.status for run in runs.parents] == ["FINISHED"]
    assert sorted(run.data.tags["trial"] for run in runs.children) == ["t000", "t001"]
    forms = [form.encode() for form in (SECRET, base64.b64encode(f"ada:{SECRET}".encode()).decode())]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 50
    assert not [path for path in written if any(form in path.read_bytes() for form in forms)]
    assert SECRET not in output
