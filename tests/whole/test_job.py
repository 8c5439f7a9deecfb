"""`ray job submit` as cluster/README.md shows it, against a real head node with token authentication."""

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
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.whole_sweeps import ROOT, SETTINGS, check_whole, environment, finish, start

README = ROOT / "cluster/README.md"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def head() -> Iterator[dict[str, str]]:
    """A head node on ports of its own; gives the environment in which its address and token are known."""
    temp = tempfile.mkdtemp(prefix="hausa-asr-head-", dir="/tmp")  # short: Ray keeps sockets in it
    dashboard = free_port()
    bin_folder = Path(sys.executable).parent
    env = environment(
        PATH=f"{bin_folder}:{os.environ['PATH']}",
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN="0123456789abcdef" * 4,
        RAY_USAGE_STATS_ENABLED="0",
        JOBS=f"http://127.0.0.1:{dashboard}",
    )
    command = ["ray", "start", "--head", "--block", "--num-cpus", "1", "--port", str(free_port()),
               "--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard), "--temp-dir", temp,
               "--node-ip-address", "127.0.0.1", "--object-store-memory", "200000000",
               "--dashboard-agent-listen-port", str(free_port()), "--dashboard-agent-grpc-port", str(free_port()),
               "--runtime-env-agent-port", str(free_port()), "--ray-client-server-port", str(free_port()),
               "--metrics-export-port", str(free_port())]  # fmt: skip
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
def test_a_submitted_sweep_succeeds_and_can_be_resumed_from_outside(
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

    # From outside the job, on a Ray of its own, it goes on.
    finish(start("--resume", "job", "--set", f"storage={tmp_path}/runs", "--set", "search.trials=3",
                 "--set", "cluster.local_cpus=1"))  # fmt: skip
    check_whole(tmp_path, "job", 3)
