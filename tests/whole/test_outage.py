"""A tracking server that goes away in the middle of a sweep."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from helpers.mlflow_server import Server
from helpers.whole_sweeps import (
    ONE_SLOT,
    Runs,
    finish,
    ledger_of,
    start,
    wait_for,
)
from sweeps.record.ledger import Ledger

pytestmark = pytest.mark.timeout(600)  # longer than what its own waits add up to


@pytest.mark.parametrize("away_s", [15, pytest.param(60, marks=pytest.mark.long)])
def test_a_tracking_server_that_goes_and_comes_back_is_not_noticed(
    settings: Path, tmp_path: Path, away_s: float
) -> None:
    server = Server(tmp_path)
    try:
        server.wait()
        process = start("--config", settings, "--set", "name=away", "--set", f"mlflow.uri={server.uri}", *ONE_SLOT,
                        "--set", "finetune.length_s=4800", "--set", "finetune.eval_every_steps=20")  # fmt: skip
        sweep = tmp_path / "runs/away"
        wait_for(lambda: sum(event["event"] == "reported" for event in ledger_of(sweep)) >= 2, process)
        server.signal(signal.SIGKILL)
        server.process.wait()
        events = len(ledger_of(sweep))
        time.sleep(away_s)
        server.start()
        output = finish(process)
    finally:
        server.stop()
    assert "Traceback" not in output and "MLflow lacks" not in output
    assert len(ledger_of(sweep)) > events + 2, "the sweep went on meanwhile"
    assert "MLflow is away" in (sweep / "sweep.log").read_text()
    runs, state = Runs(tmp_path, "server.db"), Ledger(sweep).state
    assert runs.parents[0].info.status == "FINISHED"
    assert sorted(run.data.tags["trial"] for run in runs.children) == sorted(state.trials)
    for run in runs.children:
        trial = state.trials[run.data.tags["trial"]]
        assert run.info.status == {"finished": "FINISHED", "pruned": "KILLED"}[trial.state]
        for metric in ("wer", "loss", "lr", "best_wer", "seen_s"):
            assert runs.steps(run, metric) == [report.step for report in trial.reports], metric
