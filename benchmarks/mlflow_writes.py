"""What recording a sweep in MLflow costs, beside Ray's stock MLflow callback.

    python benchmarks/mlflow_writes.py [--server] [--json FILE]

Method. The same trials, with the same settings, report 25 metrics each time, to `MLflowLoggerCallback` of
`ray.air.integrations.mlflow` and to our `Mirror`, a trial here and a trial there in turn, each on a SQLite database of
its own, or (with `--server`) on one `mlflow server` started for both; the median of the trials counts. Time is
wall-clock time from a trial's start to its end, per report, so that what is written once per trial is in it.
`tracker_ratio` is the time that the mirror's thread was busy over the time of the stock callback; `loop_ratio` is the
time that the driver's loop was kept, which is all of it for the stock callback and `mark` alone for ours. Each report
but the last is waited for before the next comes, so that the mirror never has two to write at once, which it would
write in one call; `--behind N` lets it fall behind by N reports. Beside the 25 ours writes `best_*`, transcripts and
the settings as a file. The tag of the best checkpoint, which the mirror writes at most once a minute while a trial
runs, is written at the first report and at the end.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a plain checkout will do

import bench  # noqa: E402

from hausa_asr.recipe import step_folder  # noqa: E402
from hausa_asr.settings.sweep import SweepConfig  # noqa: E402
from hausa_asr.tracking.tracker import Tracker  # noqa: E402
from sweeps.mlflow_mirror.mirror import Mirror  # noqa: E402
from sweeps.record.ledger import Ledger  # noqa: E402

PATIENCE_S = 120.0
SETTINGS = {"lr_peak": 1e-3}
OURS = ("wer", "cer", "loss", "seen_s", "wer_folded", "cer_folded")


def metrics(step: int) -> dict[str, float]:
    """25 of them."""
    names = (*OURS, *(f"metric_{k}" for k in range(25 - len(OURS))))
    return {name: 1 / (step + k) for k, name in enumerate(names)}


class StubTrial:
    """As much of a Tune trial as the stock callback asks for."""

    def __init__(self, name: str) -> None:
        self.name, self.config = name, asdict(SweepConfig().recipe(SETTINGS))

    def __str__(self) -> str:
        return self.name


class Stock:
    """Ray's callback, on an experiment of its own."""

    def __init__(self, uri: str, experiment: str) -> None:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        self.callback = MLflowLoggerCallback(tracking_uri=uri, experiment_name=experiment)
        self.callback.setup()

    def trial(self, name: str, reports: int) -> float:
        """Seconds that a trial takes, all of them the driver's."""
        trial: Any = StubTrial(name)
        began = time.perf_counter()
        self.callback.log_trial_start(trial)
        for step in range(1, reports + 1):
            self.callback.log_trial_result(step, trial, {**metrics(step), "training_iteration": step})
        self.callback.log_trial_end(trial)
        return time.perf_counter() - began


class Ours:
    """The mirror of a sweep in `folder`, on an experiment of its own."""

    def __init__(self, uri: str, experiment: str, folder: Path) -> None:
        folder.mkdir()
        self.ledger = Ledger(folder)
        self.ledger.append("sweep", name=experiment, prepared=str(folder), fingerprint="")
        self.mirror = Mirror(Tracker(uri, experiment), self.ledger, SweepConfig(), {"base": "demo"})
        self.mirror.start()
        self.wait()  # the sweep's own run, which the stock callback has none of
        self.kept_s = 0.0

    def trial(self, name: str, reports: int, behind: int) -> tuple[float, float]:
        """Seconds that the thread is busy with a trial, and those in which the driver's loop is kept."""
        busy_s, self.kept_s = self.mirror.write_s, 0.0
        self._append("proposed", name, settings=SETTINGS, source="search")
        self._append("started", name)
        for step in range(1, reports + 1):
            values = metrics(step)
            checkpoint = step_folder(self.ledger.trial_folder(name), step)
            checkpoint.mkdir(parents=True)
            heard = [[f"u{k}", "ina kwana lafiya", "ina kwana"] for k in range(20)]
            (checkpoint / "progress.json").write_text(json.dumps({"samples": heard}))
            best = {"step": step, **{name: values[name] for name in ("wer", "cer", "loss")}}
            report = {"step": step, "updates": reports, "seen_s": 1.0 * step, "metrics": values, "best": best}
            self._append("reported", name, **report, last=step == reports, diverged=False)
            if step % (behind + 1) == 0 and step < reports:  # the last one and the end come together, in a sweep too
                self.wait()
        self._append("ended", name, state="finished", reason="")
        self.wait()
        return self.mirror.write_s - busy_s, self.kept_s

    def wait(self) -> None:
        """Until all is written."""
        lacking = self.mirror.flush(PATIENCE_S)
        if lacking:
            raise SystemExit(f"MLflow lacks figures of {lacking}")

    def _append(self, event: str, trial: str, **fields: Any) -> None:
        self.ledger.append(event, trial=trial, **fields)
        began = time.perf_counter()
        self.mirror.mark(trial)
        self.kept_s += time.perf_counter() - began


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of an `mlflow server` that lives as long as the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/store"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    break
            except OSError:
                if time.monotonic() > deadline or server.poll() is not None:
                    raise SystemExit((folder / "server.log").read_text()) from None
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def main() -> None:
    """Run both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="store_true", help="an mlflow server in place of SQLite files")
    parser.add_argument("--trials", type=int, default=15, help="of each (15)")
    parser.add_argument("--reports", type=int, default=10, help="per trial (10)")
    parser.add_argument("--behind", type=int, default=0, help="reports by which the mirror falls behind (0)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with served(folder) if given.server else nullcontext("") as server:
            stock_uri, our_uri = server, server
            if not server:
                stock_uri, our_uri = (f"sqlite:///{folder}/{kind}.db" for kind in ("stock", "ours"))
                Tracker(stock_uri, "stock")  # makes the database, which takes seconds
            stock, ours = Stock(stock_uri, "stock"), Ours(our_uri, "ours", folder / "sweep")
            for number in range(given.trials):
                trial = f"t{number:03d}"
                stock_s = stock.trial(trial, given.reports)
                busy_s, kept_s = ours.trial(trial, given.reports, given.behind)
                row = {"stock_s": stock_s, "thread_s": busy_s, "loop_s": kept_s}
                rows.append({key: seconds / given.reports for key, seconds in row.items()})
                shown = ", ".join(f"{key.removesuffix('_s')} {1000 * s:.2f}" for key, s in rows[-1].items())
                print(f"{trial}: {shown} ms per report", flush=True)
            ours.mirror.close()
    median = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    where = "an mlflow server" if given.server else "SQLite"
    print(f"\n{given.trials} trials of {given.reports} reports of 25 metrics on {where}, ms per report:\n")
    figures = [
        ["stock callback", f"{1000 * median['stock_s']:.2f}", f"{1000 * median['stock_s']:.2f}", ""],
        [
            "mirror",
            f"{1000 * median['thread_s']:.2f}",
            f"{1000 * median['loop_s']:.4f}",
            f"{median['thread_s'] / median['stock_s']:.3f}",
        ],
    ]
    print(bench.table(["", "written in", "driver kept", "ratio"], figures))
    bench.write(
        given.json,
        {
            "tracker_ratio": median["thread_s"] / median["stock_s"],
            "loop_ratio": median["loop_s"] / median["stock_s"],
            **{f"{key}_per_report": value for key, value in median.items()},
            "where": where,
            "trials": given.trials,
            "reports": given.reports,
            "behind": given.behind,
            "each": rows,
        },
    )


if __name__ == "__main__":
    main()
