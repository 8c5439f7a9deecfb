"""Start whole sweeps as a user does, each in a process group of its own, and check them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

ROOT = Path(__file__).parents[2]
ONE_SLOT = ("--set", "cluster.local_cpus=1")  # starts in half the time
RUN = [sys.executable, str(ROOT / "sweeps/run.py")]
SETTINGS = """
data: {{corpus: folder, path: {audio}, allow_overlap: [sentence]}}
model: {{base: {base}}}
storage: {folder}/runs
mlflow: {{uri: "sqlite:///{folder}/mlflow.db"}}
finetune:
  length_s: 240
  batch_s: 12
  eval_every_steps: 5
  mask_time_length: 3
  mask_feature_length: 4
  activation_dropout: 0.0
baseline: {{lr_peak: 3.0e-3, schedule: linear}}
space:
  lr_peak: {{low: 1.0e-3, high: 1.0e-2, log: true}}
  mask_time_prob: {{low: 0.0, high: 0.2}}
search: {{trials: 3, random_trials: 2}}
finalists: {{k: 0}}
cluster: {{local_cpus: 2}}
"""


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "HAUSA_ASR_"))}
    return {**kept, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **more}


def hear_interrupts() -> None:
    """In a child: as from a terminal. In the background of a script SIGINT is ignored, and by children too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments: object, **more: str) -> subprocess.Popen[str]:
    """A sweep in a process group of its own, with more in its environment."""
    command = [*RUN, *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(**more),
        start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], code: int = 0, within_s: float = 240) -> str:
    try:
        output, _ = process.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == code, output
    return output


def exposed(session: int) -> list[str]:
    """What listens on other than loopback addresses, in a session or in Rays that were started in it."""
    listening = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            # The kernel writes words of four bytes, each backwards: 127.0.0.1, as IPv4 or in IPv6, and ::1.
            if fields[3] == "0A" and not fields[1].partition(":")[0].endswith(("0100007F", "00000001000000")):
                listening[f"socket:[{fields[9]}]"] = fields[1]
    found = []
    for pid, command in of_session(session):
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                if (address := listening.get(os.readlink(link))) is not None:
                    found.append(f"{address} {command}")
    return found


def processes_of(session: int) -> list[str]:
    """The commands that still run in a session, and in Rays that were started in it."""
    return [command for _, command in of_session(session)]


def of_session(session: int) -> list[tuple[int, str]]:
    """The processes that run in a session, and in Rays that were started in it: id and command."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if stat[0] != "Z" and (int(stat[3]) == session or f"hausa-asr-ray-{session}-" in command):
            found.append((int(entry.name), command))
    return found


def gone(session: int, within_s: float = 20) -> list[str]:
    """The commands of a sweep that are left after a moment to end."""
    deadline = time.monotonic() + within_s
    while (left := processes_of(session)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return left


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str], timeout_s: float = 240) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def ledger_of(folder: Path) -> list[dict[str, Any]]:
    path = folder / "ledger.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


class Runs:
    """A sweep's runs in MLflow, read by MLflow's own client."""

    def __init__(self, folder: Path, database: str = "mlflow.db") -> None:
        self.client = MlflowClient(f"sqlite:///{folder}/{database}")
        experiment = self.client.get_experiment_by_name("hausa-asr")
        runs = self.client.search_runs([experiment.experiment_id])
        self.parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        self.children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]

    def steps(self, run: Any, metric: str = "seen_s") -> list[int]:
        return [point.step for point in self.client.get_metric_history(run.info.run_id, metric)]


def check_whole(folder: Path, name: str, trials: int) -> dict[str, Any]:
    """Check a finished sweep: nothing lost, nothing doubled; ledger, result and MLflow agree."""
    sweep = folder / "runs" / name
    result: dict[str, Any] = json.loads((sweep / "result.json").read_text())
    assert result["sweep"] == name
    assert [t["id"] for t in result["trials"]] == [f"t{n:03d}" for n in range(trials)]
    every = [*result["trials"], *result["finalists"]]
    events = ledger_of(sweep)
    assert Counter(e["trial"] for e in events if e["event"] == "proposed") == Counter(t["id"] for t in every)
    for trial in every:  # one that had ended as pruned may have gone on, with more trials or a larger budget
        turns = [e["event"] for e in events if e.get("trial") == trial["id"] and e["event"] in ("started", "ended")]
        assert turns[-1] == "ended"
        assert "ended ended" not in " ".join(turns)
    runs = Runs(folder)
    assert len(runs.parents) == 1
    assert runs.parents[0].info.status == "FINISHED"
    [dataset] = runs.parents[0].inputs.dataset_inputs
    assert set(json.loads(dataset.dataset.profile)) >= {"train", "dev"}
    assert dataset.dataset.digest == events[0]["fingerprint"][:36]
    assert "torch 2.11" in runs.parents[0].data.tags["versions"]
    assert {c.info.run_id for c in runs.children} == {t["mlflow_run_id"] for t in every}
    assert len(runs.children) == len(every)
    states = {"finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
    by_id = {run.info.run_id: run for run in runs.children}
    for trial in every:
        run = by_id[trial["mlflow_run_id"]]
        assert run.info.status == states[trial["state"]]
        steps = runs.steps(run)
        assert steps == sorted(set(steps)), "steps rise strictly: nothing was logged twice"
        assert trial["steps"] == max(steps)
    baseline = next(t for t in result["trials"] if t["id"] == result["baseline"]["id"])
    assert (baseline["source"], baseline["state"]) == ("baseline", "finished")
    best, verdict = result["best"], result["verdict"]
    if verdict is None:
        assert best["wer"] == min(t["wer"] for t in result["trials"] if t["wer"] is not None)
        assert (best["run"], best["seeds"]) == (best["id"], 0)
    else:  # by the mean over fresh seeds, which a lucky trial of the search does not count among
        assert best["id"] == verdict["winner"]
        assert next(t for t in result["finalists"] if t["id"] == best["run"])["of"] == best["id"]
        assert best["wer"] == pytest.approx(min(one["wer"] for one in verdict["standings"]))
    assert 0 <= best["test_wer"] <= 2
    assert (Path(result["export"]) / "model.safetensors").is_file()
    return result


def _lowest(result: dict[str, Any]) -> str:
    """The trial with the lowest dev WER, CER and loss on the search's seed, the baseline left out."""
    scored = [trial for trial in result["trials"] if trial["loss"] is not None and trial["source"] != "baseline"]
    return str(min(scored, key=lambda trial: (trial["wer"], trial["cer"], trial["loss"]))["id"])


def workers_of(session: int) -> Iterator[int]:
    """The Ray Train workers of a sweep."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(stat[3]) == session and "RayTrainWorker" in (entry / "cmdline").read_text():
                    yield int(entry.name)
            except OSError:
                continue
