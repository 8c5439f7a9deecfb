"""The MLflow of compose.yaml without its containers: PostgreSQL, artifacts in S3, a login; a sweep and an export."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.mlflow_server import free_port
from helpers.s3_server import S3Server
from helpers.whole_sweeps import ROOT, SETTINGS, environment, finish, start

TEMPLATE = ROOT / "cluster/mlflow"
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
PASSWORDS = {
    "POSTGRES_PASSWORD": "planted-postgres", "MLFLOW_ADMIN_PASSWORD": "planted-admin", "MLFLOW_SECRET_KEY": "k" * 48,
    "S3_ACCESS_KEY_ID": "planted-key", "S3_SECRET_ACCESS_KEY": "planted-secret",
}  # fmt: skip
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.long,
    pytest.mark.skipif(not POSTGRES or os.geteuid() != 0, reason="needs root, and Debian's postgresql"),
]


class Database:
    """A PostgreSQL in a folder of its own, run by the user postgres, since it refuses root."""

    def __init__(self, folder: Path) -> None:
        self.port, self._folder = free_port(), folder
        folder.mkdir(mode=0o700)
        (folder / "password").write_text(PASSWORDS["POSTGRES_PASSWORD"])
        for path in (folder, folder / "password"):
            shutil.chown(path, "postgres", "postgres")
        self._run(
            "initdb", "-D", f"{folder}/data", "-U", "mlflow", "--pwfile", f"{folder}/password", "-A", "scram-sha-256"
        )
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {folder}"
        self._run("pg_ctl", "-w", "-D", f"{folder}/data", "-o", options, "-l", f"{folder}/log", "start")
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "mlflow", "mlflow")

    def ask(self, query: str) -> str:
        return self._run("psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "mlflow", "-At", "-c", query)

    def stop(self) -> None:
        self._run("pg_ctl", "-m", "immediate", "-D", f"{self._folder}/data", "stop")

    def _run(self, program: str, *arguments: str) -> str:
        own = {"PGPASSWORD": PASSWORDS["POSTGRES_PASSWORD"], "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            [str(POSTGRES[-1] / program), *arguments], user="postgres", group="postgres", env=own, cwd="/",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
        )  # fmt: skip
        assert not done.returncode, done.stdout
        return done.stdout.strip()


def filled_in(part: Any, own: dict[str, str]) -> Any:
    """A part of the template with its variables, as `docker compose` fills them in."""
    if isinstance(part, dict):
        return {key: filled_in(value, own) for key, value in part.items()}
    if not isinstance(part, str):
        return part
    variable = re.compile(r"\$\{(\w+)(?::([-?])((?:[^${}]|\$\{[^}]*\})*))?\}")

    def value(match: re.Match[str]) -> str:
        name, kind, default = match.groups()
        assert name in own or kind == "-", f"{name} is not in .env.example"
        return own[name] if name in own else str(filled_in(default, own))

    return variable.sub(value, part)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """An environment as the image has it, from the template's lock."""
    place = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    subprocess.run(
        [str(place / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps",
         "--require-hashes", "--only-binary", ":all:", "-r", str(TEMPLATE / "requirements.txt")], check=True,
    )  # fmt: skip
    return place


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    folder = Path("/var/tmp") / f"postgres-{os.getpid()}"  # pytest's own folders are closed to the user postgres
    try:
        one = Database(folder)
        yield one
        one.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[S3Server]:
    one = S3Server(tmp_path)
    yield one
    one.stop()


@pytest.fixture
def server(tmp_path: Path, installed: Path, database: Database, store: S3Server) -> Iterator[str]:
    """What the service `mlflow` of the template runs, on this machine's addresses. Gives its address."""
    port = free_port()
    own = {**PASSWORDS, "S3_ENDPOINT": store.url, "MLFLOW_PORT": str(port)}
    template = yaml.safe_load((TEMPLATE / "compose.yaml").read_text())
    service = filled_in(template["services"]["mlflow"], own)
    auth = tmp_path / "auth.ini"
    here = {"database:5432": f"127.0.0.1:{database.port}", "/run/auth.ini": str(auth), "0.0.0.0": "127.0.0.1"}

    def moved(text: str) -> str:
        for there, place in here.items():
            text = text.replace(there, place)
        return text

    auth.write_text(moved(filled_in(template["configs"]["auth"]["content"], own)))
    variables = {name: moved(value) for name, value in service["environment"].items()}
    variables |= {"PATH": f"{installed}/bin:/usr/bin:/bin", "HOME": str(tmp_path), "MLFLOW_DISABLE_TELEMETRY": "true"}
    bucket = shlex.split(" ".join(filled_in(part, own) for part in template["services"]["bucket"]["command"]))
    bucket[1] = str(TEMPLATE / "make_bucket.py")
    subprocess.run(bucket, check=True, env=variables)
    command = shlex.split(moved(service["command"]).replace("--port 5000", f"--port {port}"))
    log = tmp_path / "mlflow.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=variables, cwd=tmp_path, start_new_session=True)
    try:
        deadline = time.monotonic() + 240
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(address: str, password: str = "", user: str = "admin", send: dict[str, str] | None = None) -> int:
    """The status with which an address answers, also to what is sent to it; 0 if it doesn't."""
    request = urllib.request.Request(address, data=json.dumps(send).encode() if send else None)
    request.add_header("Content-Type", "application/json")
    if password:
        request.add_header("Authorization", f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_a_sweep_and_an_export(
    audio: Path, layer_norm_base: Path, tmp_path: Path, server: str, database: Database, store: S3Server
) -> None:
    settings = tmp_path / "tiny.yaml"
    settings.write_text(SETTINGS.format(audio=audio, base=layer_norm_base, folder=tmp_path))
    search = f"{server}/api/2.0/mlflow/experiments/search?max_results=10"
    assert (answers(search), answers(search, "wrong"), answers(search, "planted-admin")) == (401, 401, 200)
    for user in ("sweeps", "colleague"):
        account = {"username": user, "password": f"planted-{user}"}
        assert answers(f"{server}/api/2.0/mlflow/users/create", "planted-admin", send=account) == 200
    login = {"MLFLOW_TRACKING_USERNAME": "sweeps", "MLFLOW_TRACKING_PASSWORD": "planted-sweeps"}
    finish(start("--config", settings, "--set", f"mlflow.uri={server}", "--set", "name=there", **login))
    runs = database.ask("select count(*) from runs where status = 'FINISHED'")
    assert runs == "3", "one for each trial"
    assert store.requests("PUT", "/mlflow/"), "the artifacts lie in S3"
    assert answers(f"{server}/", "planted-admin") == 200, "the UI"
    run = {"run_id": database.ask("select run_uuid from runs limit 1"), "key": "whose", "value": "mine"}
    tag = f"{server}/api/2.0/mlflow/runs/set-tag"
    assert answers(tag, "planted-colleague", "colleague", run) == 403, "who didn't begin it may not change it"
    assert answers(tag, "planted-sweeps", "sweeps", run) == 200
    login = {"MLFLOW_TRACKING_USERNAME": "colleague", "MLFLOW_TRACKING_PASSWORD": "planted-colleague"}
    best = subprocess.run(
        [sys.executable, "-m", "hausa_asr.cli", "best-model", "--sweep", "there", "--uri", server, "--out",
         str(tmp_path / "best")], env=environment(**login), cwd=tmp_path, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert not best.returncode, best.stderr
    assert (tmp_path / "best/model.safetensors").is_file()
    known = [path for path in (tmp_path / "runs").rglob("*") if path.is_file() and b"planted-" in path.read_bytes()]
    assert not known, "a password lies in the sweep's folder"
