"""The sbatch with stand-ins for Slurm and Ray: what it starts, when it is queued again, and what it returns."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
STAND_INS = {
    # Both run what they are given, here; Ray may say instead that it did well without having started anything.
    "srun": 'while [[ $1 == --* ]]; do shift; done\necho "$*" >>"$CALLS"\n"$@"',
    "ray": '[ "$1" = stop ] && exit\necho "$*" >"$CALLS.ray"\n[ -n "${NO_RAY:-}" ] && exit 0\n'
    'until [[ $1 == -- ]]; do shift; done\nshift\n"$@"\nexit 1',
    "scontrol": 'echo "scontrol $*" >>"$CALLS"',
    "hostname": "echo 10.0.0.1 192.168.0.1",
}
DRIVER = """
import json, os, pathlib, sys, time
folder = pathlib.Path(os.environ["HAUSA_ASR_STORAGE"])
arguments = sys.argv[1:]
name = arguments[arguments.index("--resume") + 1] if "--resume" in arguments else arguments[-1].partition("name=")[2]
(folder / name).mkdir(exist_ok=True)
(folder / name / "sweep.yaml").touch()
with open(os.environ["CALLS"] + ".driver", "a") as file:
    ray = {key: value for key, value in os.environ.items() if key.startswith("RAY_")}
    print(json.dumps({"arguments": arguments, "ray": ray}), file=file)
try:
    time.sleep(float(os.environ.get("WAIT", "0")))
except KeyboardInterrupt:
    sys.exit(130)
sys.exit(int(os.environ.get("EXIT", "0")))
"""


class Job:
    """A job in a copy of the repository's layout, whose driver writes down how it was called."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.id = folder, str(900_000_000 + os.getpid())
        for name, text in STAND_INS.items():
            (folder / "bin").mkdir(exist_ok=True)
            (folder / "bin" / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
            (folder / "bin" / name).chmod(0o755)
        shutil.copytree(ROOT / "cluster/slurm", folder / "cluster/slurm")
        shutil.copy(ROOT / "cluster/start_or_resume.py", folder / "cluster")
        for name in ("sweeps", "runs"):
            (folder / name).mkdir()
        (folder / "sweeps/run.py").write_text(DRIVER)

    def start(self, **more: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": f"{self.folder}/bin:{Path(sys.executable).parent}:/usr/bin:/bin", "CALLS": f"{self.folder}/calls",
            "HOME": str(self.folder), "SLURM_JOB_ID": self.id, "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "8",
            "HAUSA_ASR_STORAGE": f"{self.folder}/runs", "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
        }  # fmt: skip
        return subprocess.Popen(
            ["bash", "cluster/slurm/sweep.sbatch", "my_sweep.yaml"], cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**environment, **more}, start_new_session=True,
        )  # fmt: skip

    def run(self, **more: str) -> int:
        process = self.start(**more)
        self.said, _ = process.communicate(timeout=60)
        return process.returncode

    def interrupted(self, how: signal.Signals, **more: str) -> int:
        """Run a driver that takes long, and send the batch script a signal when it is at work."""
        process, before = self.start(WAIT="50", **more), len(self.drivers)
        deadline = time.monotonic() + 30
        while len(self.drivers) == before and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.2)
        process.send_signal(how)
        self.said, _ = process.communicate(timeout=40)
        return process.returncode

    @property
    def drivers(self) -> list[dict[str, Any]]:
        file = self.folder / "calls.driver"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def requeued(self) -> bool:
        return f"scontrol requeue {self.id}" in (self.folder / "calls").read_text()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    job = Job(tmp_path)
    yield job
    shutil.rmtree(f"/tmp/ray-{job.id}", ignore_errors=True)  # kept where Ray did not start, for its logs


def test_it_is_bash() -> None:
    for file in (ROOT / "cluster").rglob("*.s*"):
        if file.suffix in (".sh", ".sbatch"):
            subprocess.run(["bash", "-n", str(file)], check=True)


def test_it_starts_a_sweep_on_all_nodes_with_a_token_of_its_own(job: Job) -> None:
    assert job.run() == 0, job.said
    name, address = f"my_sweep-{job.id}", f"10.0.0.1:{20000 + int(job.id) % 10000}"
    assert job.drivers[0]["arguments"] == [
        "--config", "my_sweep.yaml", "--set", f"cluster.address={address}", "--set", f"name={name}"
    ]  # fmt: skip
    ray = job.drivers[0]["ray"]
    assert ray["RAY_AUTH_MODE"] == "token" and re.fullmatch("[0-9a-f]{64}", ray["RAY_AUTH_TOKEN"])
    assert job.id in ray["RAY_TMPDIR"] and len(ray["RAY_TMPDIR"]) < 30, "Ray's sockets have room for 107 letters"
    started = (job.folder / "calls.ray").read_text()
    assert started.startswith(f"symmetric-run --address {address} --min-nodes 2 --num-cpus 8 -- ")
    for forbidden in ("--head", "--port", "--block", "--node-ip-address", "--include-dashboard"):
        assert forbidden not in started, "ray symmetric-run or a worker's ray start refuses it"
    assert ray["RAY_AUTH_TOKEN"] not in started + (job.folder / "calls").read_text(), "others see commands"
    assert not job.requeued
    assert job.run() == 0 and job.drivers[1]["ray"]["RAY_AUTH_TOKEN"] != ray["RAY_AUTH_TOKEN"]


def test_out_of_time_it_goes_back_into_the_queue_and_resumes(job: Job) -> None:
    assert job.interrupted(signal.SIGUSR1) == 0, job.said
    assert job.requeued and "goes on" in job.said
    assert job.run(SLURM_RESTART_COUNT="1") == 0
    assert job.drivers[1]["arguments"][:2] == ["--resume", f"my_sweep-{job.id}"]
    assert "--config" not in job.drivers[1]["arguments"], "a resume with settings is refused"


def test_it_does_not_go_round_for_ever(job: Job) -> None:
    assert job.interrupted(signal.SIGUSR1, SLURM_RESTART_COUNT="3", MOST_REQUEUES="3") == 1
    assert not job.requeued and f"SWEEP=my_sweep-{job.id} sbatch" in job.said


def test_cancelled_it_ends_gently_and_stays_ended(job: Job) -> None:
    assert job.interrupted(signal.SIGTERM) == 130
    assert not job.requeued


@pytest.mark.parametrize(("more", "code"), [({"EXIT": "2"}, 2), ({"NO_RAY": "1"}, 1)], ids=["settings", "no Ray"])
def test_a_failure_is_returned_and_not_repeated(job: Job, more: dict[str, str], code: int) -> None:
    """Whatever `ray symmetric-run` returns, which is 1 after a success here and 0 where Ray did not start."""
    assert job.run(**more) == code, job.said
    assert not job.requeued


@pytest.mark.parametrize("name", ["HAUSA_ASR_STORAGE", "MLFLOW_TRACKING_URI"])
def test_what_must_be_set_is_named(job: Job, name: str) -> None:
    assert job.run(**{name: ""}) != 0
    assert name in job.said and not job.drivers


def test_the_time_that_is_left_is_enough(job: Job) -> None:
    """The signal goes to the script, before the end, and whole nodes are asked for."""
    text = (ROOT / "cluster/slurm/sweep.sbatch").read_text()
    given = dict(re.findall(r"^#SBATCH --([\w-]+)=?(\S*)$", text, re.M))
    assert int(re.fullmatch(r"B:USR1@(\d+)", given["signal"])[1]) >= 120  # type: ignore[index]
    assert {"requeue", "exclusive"} <= set(given) and given["ntasks-per-node"] == "1" and given["open-mode"] == "append"
