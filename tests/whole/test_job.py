"""`ray job submit` as cluster/README.md shows it, and `hausa-asr submit`, against a real head node with a token."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.whole_sweeps import (
    ROOT,
    SETTINGS,
    check_whole,
    environment,
    hear_interrupts,
    ledger_of,
    wait_for,
)  # fmt: skip
from sweeps.driver.gauges import BEST_WER, EXPORTED, LEFT, METRICS, MONEY, SLOTS, TRIALS
from sweeps.record.ledger import read_state

README = ROOT / "cluster/README.md"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def head() -> Iterator[dict[str, str]]:
    """A head node on ports of its own; gives the environment in which its address and token are known."""
    temp = tempfile.mkdtemp(prefix="hausa-asr-head-", dir="/tmp")  # short: Ray keeps sockets in it
    dashboard, metrics = free_port(), free_port()
    bin_folder = Path(sys.executable).parent
    env = environment(
        PATH=f"{bin_folder}:{os.environ['PATH']}",
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN="0123456789abcdef" * 4,
        RAY_USAGE_STATS_ENABLED="0",
        JOBS=f"http://127.0.0.1:{dashboard}",
        METRICS=f"http://127.0.0.1:{metrics}",
        HEAD_FOLDER=temp,
        RAY_metrics_report_interval_ms="1000",
    )
    command = ["ray", "start", "--head", "--block", "--num-cpus", "1", "--port", str(free_port()),
               "--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard), "--temp-dir", temp,
               "--node-ip-address", "127.0.0.1", "--object-store-memory", "200000000",
               "--dashboard-agent-listen-port", str(free_port()), "--dashboard-agent-grpc-port", str(free_port()),
               "--runtime-env-agent-port", str(free_port()), "--ray-client-server-port", str(free_port()),
               "--metrics-export-port", str(metrics)]  # fmt: skip
    log = Path(temp) / "head.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(bin_folder / "ray"), *command[1:]], stdout=output, stderr=output, env=env, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 90
        while subprocess.run([str(bin_folder / "ray"), "job", "list", "--address", env["JOBS"]], env=env,
                             capture_output=True).returncode:  # fmt: skip
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(1)
        yield env
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        for entry in Path("/proc").iterdir():  # what left the group, by the folder that only this head has
            if entry.name.isdigit():
                try:
                    if temp in (entry / "cmdline").read_text():
                        os.kill(int(entry.name), signal.SIGKILL)
                except OSError:
                    continue
        shutil.rmtree(temp, ignore_errors=True)


def readme_command() -> str:
    """The submission as cluster/README.md prints it, on one line."""
    text = README.read_text(encoding="utf-8")
    block = re.search(r"^    (ray job submit .*?)\n\n", text, re.S | re.M)
    assert block, "cluster/README.md shows no `ray job submit`"
    return re.sub(r"\\\n\s*", " ", block[1])


@pytest.mark.timeout(700)
def test_a_submitted_sweep_succeeds_and_one_without_its_variables_is_refused(
    head: dict[str, str], audio: Path, layer_norm_base: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "tiny.yaml"
    # The job's storage and database come from its environment, as in the README.
    text = SETTINGS.format(audio=audio, base=layer_norm_base, folder=tmp_path)
    settings.write_text(re.sub(r"^(storage|mlflow):.*\n", "", text, flags=re.M).replace("cluster: {local_cpus: 2}", ""))
    command = shlex.split(re.sub(r"\n\s*", " ", readme_command()))
    command[command.index("--address") + 1] = head["JOBS"]
    command[command.index("--working-dir") + 1] = str(ROOT)
    runtime = json.loads(command[command.index("--runtime-env-json") + 1])
    runtime["env_vars"] |= {
        "HAUSA_ASR_STORAGE": f"{tmp_path}/runs",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
    }
    command[command.index("--runtime-env-json") + 1] = json.dumps(runtime)
    command[command.index("--config") + 1] = str(settings)
    command += ["--set", "name=job", "--set", "search.trials=2"]
    submitted = subprocess.run(
        [str(Path(sys.executable).with_name("ray")), *command[1:]],
        env=head,
        capture_output=True,
        text=True,
        timeout=300,
    )
    output = submitted.stdout + submitted.stderr
    assert submitted.returncode == 0, output
    assert "succeeded" in output.lower()
    check_whole(tmp_path, "job", 2)

    # Without the variables the job is refused, and says which.
    bare = dict(runtime, env_vars={})
    command[command.index("--runtime-env-json") + 1] = json.dumps(bare)
    refused = subprocess.run(
        [str(Path(sys.executable).with_name("ray")), *command[1:]],
        env=head,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert refused.returncode != 0
    assert "HAUSA_ASR_STORAGE" in refused.stdout + refused.stderr


def here(head: dict[str, str], folder: Path, **more: str) -> dict[str, str]:
    """The environment of somebody who submits: the cluster's token, a storage, and what is nobody's business."""
    env = {name: value for name, value in head.items() if name != "RAY_AUTH_MODE"}
    return {
        **env,
        "HAUSA_ASR_STORAGE": f"{folder}/runs",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "AWS_SECRET_ACCESS_KEY": "planted",
        "RAY_ADDRESS": "ray://127.0.0.1:1",  # what was given wins
        **more,
    }


def typed(head: dict[str, str], *arguments: str) -> list[str]:
    """`hausa-asr submit` as it is typed."""
    return [str(Path(sys.executable).with_name("hausa-asr")), "submit", "--address", head["JOBS"], *arguments]


def said(command: list[str], env: dict[str, str], folder: Path, code: int) -> str:
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def figures(head: dict[str, str], sweep: str) -> dict[str, float]:
    """What the node exports of a sweep, by name and second label."""
    with urllib.request.urlopen(f"{head['METRICS']}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        one = re.fullmatch(rf"{EXPORTED}(hausa_asr_sweep_\w+)\{{(.*)\}} (\S+)", line)
        if one and f'sweep="{sweep}"' in one[2]:
            second = re.search(r'(?:state|unit|limit|kind)="([^"]*)"', one[2])
            found[f"{one[1]} {second[1] if second else ''}".strip()] = float(one[3])
    return found


def asked(head: dict[str, str], how: str, what: str) -> str:
    """Ask the cluster's server of jobs."""
    headers = {"Authorization": f"Bearer {head['RAY_AUTH_TOKEN']}"}
    request = urllib.request.Request(f"{head['JOBS']}/api/jobs/{what}", method=how, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.read().decode())


class Wire:
    """A forwarded port that can be cut, as `kubectl port-forward` and networks are."""

    def __init__(self, address: str) -> None:
        self._port = int(address.rpartition(":")[2])
        self._server = socket.create_server(("127.0.0.1", 0))
        self._live: list[socket.socket] = []
        self.address = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._live += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Break what is connected; new connections are made."""
        for end in self._live:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._server.close()
        self.cut()


@pytest.fixture
def wire(head: dict[str, str]) -> Iterator[Wire]:
    wire = Wire(head["JOBS"])
    yield wire
    wire.close()


@pytest.fixture
def full_folder(audio: Path, layer_norm_base: Path, tmp_path: Path) -> Path:
    """Where somebody works: settings, beside 10 GB of something and a virtual environment."""
    folder = tmp_path / "work"
    (folder / ".venv/lib").mkdir(parents=True)
    for name, n_bytes in (("speech.tar", 10 * 1024**3), (".venv/lib/big.so", 1024**3)):
        with (folder / name).open("wb") as sparse:
            sparse.truncate(n_bytes)
    text = SETTINGS.format(audio=audio, base=layer_norm_base, folder=tmp_path)
    text = re.sub(r"^(storage|mlflow):.*\n", "", text, flags=re.M).replace("cluster: {local_cpus: 2}", "")
    (folder / "my tiny.yaml").write_text(text)
    return folder


@pytest.mark.timeout(700)
def test_submit_from_anywhere_stop_watch_and_resume(
    head: dict[str, str], wire: Wire, full_folder: Path, tmp_path: Path
) -> None:
    env, runs = here(head, tmp_path), tmp_path / "runs"
    short = ("--set", "search.trials=2", "--set", "finetune.length_s=600")
    first = subprocess.Popen(
        typed(head, "--config", "my tiny.yaml", *short, "--set", "name=night", "--name", "first"),
        env=env, cwd=full_folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: any(event["event"] == "reported" for event in ledger_of(runs / "night")), first, 240)
    watching = subprocess.Popen(
        [str(Path(sys.executable).with_name("hausa-asr")), "watch", "night", "--wait", "--storage", str(runs)],
        env=env, cwd=full_folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    listed = asked(head, "GET", "")
    assert '"first"' in listed and "planted" not in listed
    asked(head, "POST", "first/stop")  # what `ray job stop` does
    log, remarks = first.communicate(timeout=60)
    assert first.returncode == 130, log + remarks
    left = read_state(runs / "night").left
    assert left is not None and left.how == "interrupted", "it was no crash to those who watch"
    assert "sweep night: starting" in log and "Go on with:" in remarks and f"--resume {runs}/night" in remarks
    [n_bytes] = re.findall(r"^upload +([\d,]+) bytes", remarks, re.M)
    assert 100_000 < int(n_bytes.replace(",", "")) < 5_000_000
    assert f"passed on HAUSA_ASR_STORAGE={runs}" in remarks and "planted" not in remarks

    second = subprocess.Popen(
        typed({"JOBS": wire.address}, "--resume", "night", "--name", "second"),
        env=env, cwd=full_folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    seen: dict[str, float] = {}

    never = {LEFT.name, MONEY.name}  # there is neither a budget nor a price

    def all_seen() -> bool:
        seen.update(figures(head, "night"))
        return {one.name for one in METRICS} - {name.split()[0] for name in seen} == never

    wait_for(all_seen, second, 240)
    wire.cut()
    assert seen[f"{SLOTS.name} there"] == 1 and 0 < seen[BEST_WER.name] <= 1.5
    assert sum(seen[f"{TRIALS.name} {state}"] for state in ("running", "paused", "finished", "pruned")) >= 1
    output, _ = second.communicate(timeout=240)
    assert second.returncode == 0, output
    assert "job second succeeded" in output
    assert output.count("sweep night: starting") == output.count("sweep night finished") == 1, (
        "the log is passed on once"
    )
    result = check_whole(tmp_path, "night", 2)
    table, _ = watching.communicate(timeout=30)
    assert watching.returncode == 0, table
    assert f"best      {result['best']['id']}" in table and "t000  running" in table
    places = (runs, Path(head["HEAD_FOLDER"]))
    written = [path for place in places for path in place.rglob("*") if path.is_file()]
    written = [path for path in written if "working_dir_files" not in path.parts]  # an upload has this file, too
    assert len(written) > 50 and not [path for path in written if b"planted" in path.read_bytes()], (
        "of the key no trace"
    )


@pytest.mark.timeout(300)
def test_submit_says_how_a_job_failed_and_why_it_could_not_be_submitted(
    head: dict[str, str], full_folder: Path, tmp_path: Path
) -> None:
    env = here(head, tmp_path)
    command = typed(head, "--config", "my tiny.yaml")
    too_much = ("--set", "resources.cpus_per_worker=64", "--env", "HF_TOKEN=planted")
    output = said([*command, *too_much, "--name", "too-much; touch gone"], env, full_folder, 2)
    assert "This is no name for a job" in output
    output = said([*command, *too_much, "--name", "too-much"], env, full_folder, 2)
    assert "A trial takes 1 worker of 64 CPUs" in output and "failed with exit status 2" in output
    assert "warning   Ray's dashboard and job list show HF_TOKEN" in output and "planted" not in output
    assert not list((tmp_path / "runs").glob("my-tiny*")), "a refused sweep leaves nothing"
    assert "had, a job named too-much" in said([*command, "--name", "too-much"], env, full_folder, 2)
    output = said([*command, *too_much, "--name", "alone", "--no-wait"], env, full_folder, 0)
    assert output.startswith("alone\n") and "hausa-asr submit --resume" in output

    # An interrupt is for whoever follows, not for the job.
    process = subprocess.Popen(
        [*command, "--name", "left"], env=env, cwd=full_folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, preexec_fn=hear_interrupts,
    )  # fmt: skip
    assert process.stderr is not None
    remarks = ""
    while "job       left" not in remarks:
        remarks += process.stderr.readline()
        assert process.poll() is None, remarks
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == 130 and "The job goes on." in rest, rest
    assert f"RAY_AUTH_MODE=token ray job stop left --address {head['JOBS']}" in rest
    asked(head, "POST", "left/stop")

    wrong = here(head, tmp_path, RAY_AUTH_TOKEN="f" * 64)
    assert "refuses the token of this machine" in said(command, wrong, full_folder, 2)
    none = {**{k: v for k, v in env.items() if k != "RAY_AUTH_TOKEN"}, "HOME": str(tmp_path)}
    assert "this machine has none" in said(command, none, full_folder, 2)
    other = [head["METRICS"] if part == head["JOBS"] else part for part in command]
    assert "takes no Ray jobs" in said(other, env, full_folder, 2)
