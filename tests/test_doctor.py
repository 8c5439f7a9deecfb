"""`hausa-asr doctor` finds what is wrong, says what to do about it, and dies of nothing that it looks at."""

from __future__ import annotations

import base64
import http.server
import importlib.util
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hausa_asr import doctor_command
from hausa_asr.cli import main
from hausa_asr.settings.load import load
from hausa_asr.storage import objects
from hausa_asr.storage.folders import put
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
    code, kinds = findings(capsys, f"data.prepared={prepared}", "resources.workers_per_trial=2")
    assert (code, kinds["fault"]) == (0, [])
    said = "\n".join(kinds["ok"] + kinds["note"])
    for what in (
        "all packages",
        "torch",
        "2 workers sum 64 MiB by gloo in",
        "libsndfile",
        "MB/s",
        "MLflow: sqlite",
        "base checkpoint demo",
        "train 8",
        "Ray",
    ):
        assert what in said, what
    assert set(tmp_path.rglob("*")) == before, "it leaves nothing behind"


def test_packages_that_are_compiled_anew_in_each_process_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start of a worker takes three times as long there, and nothing else would say why."""

    def notes() -> list[str]:
        return [note for note in findings(capsys)[1]["note"] if "compiled" in note]

    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert not notes(), "they can still be kept"
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert len(notes()) == 1
    import transformers

    kept = importlib.util.cache_from_source(str(Path(transformers.__file__).with_name("modeling_utils.py")))
    Path(kept).parent.mkdir(parents=True)
    Path(kept).touch()
    assert not notes(), "they were compiled before"


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


def test_each_gpu_is_looked_at_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """One without code in torch is a fault, one without bfloat16 a note, whichever is the current one."""
    cards = [("Tesla V100", (7, 0)), ("T4", (7, 5)), ("A100", (8, 0))]
    about = [SimpleNamespace(name=name, total_memory=2**34, major=major, minor=0) for name, (major, _) in cards]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(cards))
    monkeypatch.setattr("torch.cuda.current_device", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_arch_list", lambda: ["sm_75", "sm_80"])
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: cards[torch.device(device).index][1])
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: cards[torch.device(device).index][0])
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: about[torch.device("cuda", device).index])
    first, second, third = doctor_command.gpus(load(None, []))
    assert first.kind == "fault" and "Tesla V100" in first.what and "7.0" in first.what and "torch" in first.fix
    assert second.kind == "note" and "T4, 16 GiB, no bfloat16" in second.what
    assert third.kind == "ok" and "A100, 16 GiB, bfloat16" in third.what


def test_workers_that_cannot_reach_each_other_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(None, ["resources.workers_per_trial=4", "resources.gpus_per_worker=1"])
    [found] = doctor_command.workers_together(settings)
    assert found.kind == "note" and "not tried" in found.what
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)  # which can't be used
    [found] = doctor_command.workers_together(settings)
    assert found.kind == "fault" and "2 workers can't sum their gradients by nccl" in found.what


def closed() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


LOGIN = "Basic " + base64.b64encode(b"ada:secret").decode()


@contextmanager
def answering(date: str = "", open_paths: tuple[str, ...] = ("/",)) -> Iterator[str]:
    """A server whose clock says `date`, and which asks for ada's login but where a path begins with an open one.

    MLflow's own with `--app-name basic-auth` leaves /health open, a proxy mostly nothing.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.path.startswith(open_paths) or self.headers.get("Authorization") == LOGIN
            body = b'{"experiments": []}' if allowed else b"You are not authenticated."
            self.send_response_only(200 if allowed else 401)
            self.send_header("Date", date or self.date_time_string())
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("date", "fault"), [("", ""), ("Wed, 21 Oct 2015 07:28:00 GMT", "MLflow's clock is")])
def test_a_server_of_another_time(
    date: str, fault: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_command, "_RAY_S", 0.1)
    with answering(date) as address:
        code, kinds = findings(capsys, f"mlflow.uri=http://{address}", f"cluster.address={address}")
    assert [fault in one for one in kinds["fault"]] == ([True] if fault else []) and code == (2 if fault else 0)
    assert f"Ray: {address} answers" in kinds["ok"]
    assert any("does not say which version" in one for one in kinds["note"])


@pytest.mark.parametrize("open_paths", [("/health",), ("/nothing",)])
def test_mlflow_is_asked_as_us(
    open_paths: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_command, "CHECKS", (doctor_command.mlflow,))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    with answering(open_paths=open_paths) as address:
        for password, right in (("wrong", False), ("secret", True)):
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
            began_s = time.monotonic()
            code, kinds = findings(capsys, f"mlflow.uri=http://{address}")
            assert (code, kinds["fault"] == []) == ((0, True) if right else (2, False)), kinds
            assert right or "MLflow server refuses us" in kinds["fault"][0]
            assert time.monotonic() - began_s < 20


def test_what_a_bucket_holds_is_looked_at_and_not_fetched(
    bucket: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor_command, "CHECKS", (doctor_command.storage, doctor_command.dataset))
    prepared = prepared_speech(tmp_path)
    put(prepared, f"{bucket}/data")
    capsys.readouterr()
    code, kinds = findings(capsys, f"storage={bucket}/runs", f"data.prepared={bucket}/data")
    assert (code, kinds["fault"]) == (0, []) and any("whole, " in one and "not fetched" in one for one in kinds["ok"])
    assert not (tmp_path / "scratch").exists()
    file = max((prepared / "splits").rglob("train.arrow"))
    objects.write(f"{bucket}/data/{file.relative_to(prepared)}", b"cut")
    assert (
        "missing or cut short"
        in findings(capsys, f"storage={bucket}/runs", f"data.prepared={bucket}/data")[1]["fault"][0]
    )
    assert (
        "no such prepared dataset"
        in findings(capsys, f"storage={bucket}/runs", f"data.prepared={bucket}/no")[1]["fault"][0]
    )
    monkeypatch.setattr(doctor_command, "CHECKS", (doctor_command.storage,))
    now_s = time.time
    monkeypatch.setattr(doctor_command, "time", SimpleNamespace(time=lambda: now_s() - 90, monotonic=time.monotonic))
    assert any(
        f"storage {bucket}" in one and "s off" in one for one in findings(capsys, f"storage={bucket}")[1]["fault"]
    )


@pytest.mark.slow
def test_a_cluster_says_what_it_runs_to_those_who_have_its_token(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_command, "CHECKS", (doctor_command.cluster,))
    token = "a" * 64
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    ray = subprocess.Popen(
        [sys.executable, "-c", RAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert ray.stdin is not None and ray.stdout is not None
    try:
        address = ray.stdout.readline().strip()
        code, kinds = findings(capsys, f"cluster.address={address}")
        assert (code, kinds["note"]) == (0, []) and f"Ray {metadata.version('ray')}, Python 3." in kinds["ok"][1]
        monkeypatch.setattr(metadata, "version", lambda name: "1.0")
        code, kinds = findings(capsys, f"cluster.address={address}")
        assert code == 2 and "this machine Ray 1.0" in kinds["fault"][0]
        monkeypatch.setenv("RAY_AUTH_TOKEN", "b" * 64)
        code, kinds = findings(capsys, f"cluster.address={address}")
        assert code == 2 and "refuses us" in kinds["fault"][0]
    finally:
        ray.communicate("\n", timeout=30)


RAY = """
import ray
ray.init(address="local", num_cpus=1, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False,
         object_store_memory=80 * 1024**2)
print(ray.get_runtime_context().gcs_address, flush=True)
input()
ray.shutdown()
"""


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
