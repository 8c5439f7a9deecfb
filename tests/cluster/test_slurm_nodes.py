"""The sbatch on a real Slurm of two nodes: its time is up, a node is lost, it is cancelled; the sweep goes on."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.mlflow_server import Server
from helpers.slurm_nodes import Slurm, may_slurm, slurm
from helpers.whole_sweeps import ROOT, SETTINGS, ledger_of

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.long,
    pytest.mark.skipif(not may_slurm(), reason="needs root, and Debian's slurm-wlm and munge"),
]
TRIALS = 4
ENDED = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL")


class Cluster:
    """A Slurm with a copy of the repository, and an MLflow server that its nodes reach."""

    def __init__(self, nodes: Slurm, server: Server) -> None:
        self.nodes, self.server = nodes, server

    def submit(self, *options: str, **more: str) -> str:
        """Submit the sbatch as the README says, on nodes without GPUs. Gives the job's number."""
        places = {"HAUSA_ASR_STORAGE": f"{self.nodes.folder}/runs", "MLFLOW_TRACKING_URI": self.server.uri}
        said = self.nodes.ask(
            "sbatch", "--parsable", "--gres=none", "--cpus-per-task=1", *options, "cluster/slurm/sweep.sbatch",
            "my_sweep.yaml", **places, **more,
        )  # fmt: skip
        return said.strip()

    def sweep(self, number: str) -> Path:
        return self.nodes.folder / f"runs/my_sweep-{number}"

    def wait(self, number: str, condition: Callable[[dict[str, str]], object], timeout_s: float) -> dict[str, str]:
        """Wait until what Slurm says of a job is as it should be."""
        deadline = time.monotonic() + timeout_s
        while not condition(job := self.nodes.job(number)):
            assert time.monotonic() < deadline, (job, self.log(number), self.nodes.logs())
            time.sleep(1)
        return job

    def happened(self, number: str, what: str) -> int:
        """How many events of a kind the sweep's ledger has."""
        return sum(event["event"] == what for event in ledger_of(self.sweep(number)))

    def log(self, number: str) -> str:
        path = self.nodes.folder / f"hausa-asr-{number}.log"
        return path.read_text(errors="replace") if path.exists() else ""


@pytest.fixture
def cluster(audio: Path, layer_norm_base: Path) -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="slurm-"))  # /tmp is each node's own
    try:
        for part in ("sweeps", "hausa_asr", "cluster"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(audio, folder / "audio")
        shutil.copytree(layer_norm_base, folder / "base")
        settings = SETTINGS.format(audio=folder / "audio", base=folder / "base", folder=folder)
        kept = [line for line in settings.splitlines() if not line.startswith(("storage:", "mlflow:", "cluster:"))]
        kept += ["resources: {slots: 2}"]
        kept += ["pruning: {rule: none}"]
        text = "\n".join(kept).replace("trials: 3", f"trials: {TRIALS}").replace("length_s: 240", "length_s: 4000")
        (folder / "my_sweep.yaml").write_text(text)
        with slurm(folder) as nodes:
            server = Server(folder, nodes.address)
            try:
                server.wait()
                yield Cluster(nodes, server)
            finally:
                server.stop()
    finally:
        shutil.rmtree(folder)


def test_a_sweep_whose_time_is_up_goes_on_in_the_queue(cluster: Cluster) -> None:
    number = cluster.submit("--time=15", "--signal=B:USR1@150")
    cluster.wait(number, lambda _: cluster.happened(number, "reported"), 300)
    hours, minutes, seconds = map(int, cluster.nodes.job(number)["RunTime"].split(":"))
    limit = hours * 60 + minutes + (seconds > 0) + 1  # less than 150 s are left
    cluster.nodes.ask("scontrol", "update", f"JobId={number}", f"TimeLimit={limit}")
    cluster.wait(number, lambda job: job["Restarts"] != "0", 150)
    assert "Time is up" in cluster.log(number)
    cluster.nodes.ask("scontrol", "update", f"JobId={number}", "TimeLimit=15")
    _check_whole(cluster, number)


def test_a_sweep_that_lost_a_node_goes_on_when_there_are_two_again(cluster: Cluster) -> None:
    number = cluster.submit("--time=15")
    cluster.wait(number, lambda _: cluster.happened(number, "reported"), 300)
    cluster.nodes.kill_node("n2")
    cluster.wait(number, lambda job: job["JobState"] == "PENDING", 120)
    cluster.nodes.start_node("n2")
    _check_whole(cluster, number)


def test_a_cancelled_sweep_goes_on_in_another_job(cluster: Cluster) -> None:
    number = cluster.submit("--time=15")
    cluster.wait(number, lambda _: cluster.happened(number, "reported"), 300)
    cluster.nodes.ask("scancel", number)
    cluster.wait(number, lambda job: job["JobState"] == "CANCELLED", 120)
    again = cluster.submit("--time=15", SWEEP=cluster.sweep(number).name)
    cluster.wait(again, lambda job: job["JobState"] in ENDED, 600)
    assert _finished(cluster.sweep(number)) == TRIALS, cluster.log(again)


def _check_whole(cluster: Cluster, number: str) -> None:
    """The job ends well, each trial once, and nothing of Ray is left on its nodes."""
    job = cluster.wait(number, lambda job: job["JobState"] in ENDED, 600)
    assert (job["JobState"], job["ExitCode"]) == ("COMPLETED", "0:0"), cluster.log(number)
    assert _finished(cluster.sweep(number)) == TRIALS
    assert cluster.happened(number, "opened") == 2, "it was resumed once"


def _finished(sweep: Path) -> int:
    ended = [event for event in ledger_of(sweep) if event["event"] == "ended"]
    assert len({event["trial"] for event in ended}) == len(ended)
    return len(ended)
