"""`hausa-asr submit` before it reaches a cluster: what is uploaded, passed on, quoted and refused."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hausa_asr.errors import UserError
from helpers.whole_sweeps import ROOT, environment
from sweeps.on_ray.jobs import _ended, _Log, address_of
from sweeps.submit_command import Request, request_of
from sweeps.upload import MOST_BYTES, pack

OURS = {
    "HAUSA_ASR_STORAGE": "/shared/runs",
    "MLFLOW_TRACKING_URI": "http://mlflow:5000",
    "HF_TOKEN": "planted",
    "AWS_SECRET_ACCESS_KEY": "planted",
    "MLFLOW_TRACKING_PASSWORD": "planted",
}


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "my sweep.yaml"
    path.write_text("model: {base: facebook/wav2vec2-xls-r-300m}\ndata: {prepared: /shared/prepared}\n")
    return path


def asked(settings: Path | None, *overrides: str, env: tuple[str, ...] = (), **more: Any) -> Request:
    ours = {**OURS, **more.pop("ours", {})}
    named = {name: more.get(name) for name in ("resume", "name")}
    return request_of(settings, overrides, env, **named, ours=ours, retry=more.get("retry", ()))


def test_the_upload_is_small_whole_and_always_the_same(settings: Path, tmp_path: Path) -> None:
    first, again, without = (tmp_path / f"{name}.zip" for name in ("first", "again", "without"))
    pack(first, settings, demo_base=True)
    pack(again, settings, demo_base=True)
    pack(without, settings, demo_base=False)
    assert first.read_bytes() == again.read_bytes(), "a cluster that has it need not get it again"
    assert without.stat().st_size < 1_000_000 < first.stat().st_size < MOST_BYTES
    names = set(zipfile.ZipFile(first).namelist())
    there = {
        path.relative_to(ROOT).as_posix()
        for package in ("hausa_asr", "sweeps")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert names == {*there, "my sweep.yaml"}
    # What runs there is what was uploaded, and it is all that is needed.
    folder = tmp_path / "there"
    zipfile.ZipFile(without).extractall(folder)
    code = "import hausa_asr, sweeps.run, sweeps.on_ray.workers as w; print(hausa_asr.__file__, w.__file__)"
    bare = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**bare, "PYTHONPATH": str(folder)}, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert all(path.startswith(str(folder)) for path in ran.stdout.split())


def test_only_what_is_no_secret_is_passed_on(settings: Path) -> None:
    request = asked(settings)
    assert set(request.environment) == {"HAUSA_ASR_STORAGE", "MLFLOW_TRACKING_URI", "RAY_JOB_STOP_WAIT_TIME_S"}
    assert "planted" not in repr(request) and not any("warning" in line for line in request.in_words())
    named = asked(settings, env=("HF_TOKEN", "NCCL_DEBUG=INFO", "AWS_REGION=eu-west-1"))
    assert named.environment["HF_TOKEN"] == "planted" and named.environment["NCCL_DEBUG"] == "INFO"
    [warning] = [line for line in named.in_words() if line.startswith("warning")]
    assert "HF_TOKEN" in warning and "NCCL" not in warning and "REGION" not in warning
    assert "planted" not in "\n".join(named.in_words()), "nor is it printed"


def test_nothing_typed_reaches_a_shell(settings: Path) -> None:
    override = "data.path=/shared/a; touch $(gone) 'x'"
    words = shlex.split(asked(settings, override).entrypoint)
    assert words[:4] == ["python", "sweeps/run.py", "--config", "my sweep.yaml"] and words[-1] == override


def test_job_and_sweep_have_names_that_say_what_they_are(settings: Path) -> None:
    fresh = asked(settings)
    assert fresh.sweep.startswith("my-sweep-20") and fresh.job == fresh.sweep
    assert f"--set name={fresh.sweep}" in fresh.entrypoint, "so that it can be said how to resume it"
    assert fresh.resume == f"/shared/runs/{fresh.sweep}"
    odd = settings.rename(settings.with_name("_ɗaya.yaml"))
    assert asked(odd).sweep.startswith("aya-20"), "a name that the settings take"
    settings = odd.rename(settings)
    named = asked(settings, "name=night")
    assert (named.sweep, named.resume) == ("night", "/shared/runs/night") and named.job.startswith("night-20")
    assert asked(settings, name="j-1").job == "j-1"
    again = asked(None, "search.trials=80", resume="/shared/runs/night")
    assert again.job.startswith("night-20") and again.needs_demo_base
    assert again.entrypoint == "python sweeps/run.py --resume /shared/runs/night --set search.trials=80"
    assert asked(None, resume="/r/night", retry=["t004"]).entrypoint.endswith(" --resume /r/night --retry t004")
    assert not fresh.needs_demo_base and asked(settings, "model.base=demo").needs_demo_base


SECRET = "http://me:planted@mlflow:5000"


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("storage: runs (set HAUSA_ASR_STORAGE", {"ours": {"HAUSA_ASR_STORAGE": "runs"}}),
        ("mlflow.uri: sqlite:///mlflow.db", {"ours": {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}}),
        ("data.path: clips", {"overrides": ("data={corpus: folder, path: clips}",)}),
        ("did you mean lr_peak", {"overrides": ("finetune.lr_peek=1",)}),
        ("holds a password", {"ours": {"MLFLOW_TRACKING_URI": SECRET}}),
        ("holds a password", {"overrides": (f"mlflow.uri={SECRET}",)}),
        ("FOO is not set here", {"env": ("FOO",)}),
        ("--env takes NAME=VALUE", {"env": ("my name=1",)}),
        ("no name for a job", {"name": "a/b"}),
        ("no log lines of the kind 'xml'", {"ours": {"HAUSA_ASR_LOG": "xml"}}),
        ("No settings were given", {"settings": None}),
        ("no trials to try again", {"retry": ["t004"]}),
        ("would change them", {"resume": "night"}),
        ("would change them", {"settings": None, "resume": "night", "overrides": ("data.path=/x",)}),
        ("but mlflow.experiment would", {"settings": None, "resume": "night", "overrides": ("mlflow.experiment=x",)}),
        ("but mlflow would", {"settings": None, "resume": "night", "overrides": ("mlflow={uri: http://x}",)}),
        ("would not find this sweep", {"settings": None, "resume": "runs/night"}),
        ("would not find this sweep", {"settings": None, "resume": "night", "ours": {"HAUSA_ASR_STORAGE": ""}}),
    ],
)
def test_what_could_not_run_is_refused_before_the_upload(
    message: str, arguments: dict[str, Any], settings: Path
) -> None:
    given = arguments.pop("settings", settings)
    with pytest.raises(UserError) as refused:
        asked(given, *arguments.pop("overrides", ()), **arguments)
    assert message in str(refused.value) and "planted" not in str(refused.value)


def test_a_password_goes_only_where_it_was_named(settings: Path) -> None:
    request = asked(settings, env=("MLFLOW_TRACKING_URI",), ours={"MLFLOW_TRACKING_URI": SECRET})
    assert request.environment["MLFLOW_TRACKING_URI"] == SECRET and "planted" not in "\n".join(request.in_words())
    assert any(line.startswith("warning") for line in request.in_words())
    settings.write_text(f"{settings.read_text()}mlflow: {{uri: '{SECRET}'}}\n")
    with pytest.raises(UserError, match="password"):  # the file would be uploaded
        asked(settings)


def test_a_resumed_sweep_is_found_by_its_storage() -> None:
    assert asked(None, resume="night").sweep == "night"
    assert asked(None, "storage=/other", resume="night", ours={"HAUSA_ASR_STORAGE": ""}).sweep == "night"
    assert asked(None, resume="s3://bucket/runs/night").sweep == "night"


@pytest.mark.parametrize("name", ["mlflow.uri=http://moved:5000", "data.prepared=s3://b/data", "budget.hours=9"])
def test_what_may_change_when_a_sweep_goes_on_is_passed_on(name: str) -> None:
    assert asked(None, name, resume="night").entrypoint == f"python sweeps/run.py --resume night --set {name}"


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    assert address_of("http://other:8265/") == "http://other:8265" and address_of("head:8265") == "http://head:8265"
    for wrong in (None, "ray://head:10001", "ftp://head"):
        with pytest.raises(UserError, match="not its address") as refused:
            address_of(wrong)
        assert "http://head:8265" in str(refused.value.fix)


@pytest.mark.parametrize(
    ("status", "code", "given"),
    [("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("FAILED", None, 1), ("FAILED", 0, 1), ("FAILED", -9, 137),
     ("STOPPED", None, 130), ("STOPPED", 0, 130)],
)  # fmt: skip
def test_exit_statuses_are_truthful(status: str, code: int | None, given: int) -> None:
    details = SimpleNamespace(status=SimpleNamespace(value=status), driver_exit_code=code, message="its node was lost")
    ended = _ended(details)
    assert (ended.code, ended.how) == (given, status.lower())
    assert bool(ended.message) == (status == "FAILED" and code is None), "the log has what a driver said itself"


def test_a_log_whose_connection_breaks_is_printed_once() -> None:
    async def connection(*pieces: str, breaks: bool = False) -> AsyncIterator[str]:
        for piece in pieces:
            yield piece
        if breaks:
            raise RuntimeError("closed")

    printed: list[str] = []
    log = _Log(printed.append)
    with pytest.raises(RuntimeError):
        asyncio.run(log.pass_on(connection("one\n", "tw", breaks=True)))
    asyncio.run(log.pass_on(connection("one\ntwo\n", "three\n")))
    assert "".join(printed) == "one\ntwo\nthree\n"


def test_a_machine_where_nothing_listens_is_said_at_once(settings: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hausa_asr.cli", "submit", "--config", str(settings), "--address", "127.0.0.1:9"],
        env=environment(**{**OURS, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{ROOT}"}), cwd=settings.parent,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2 and "No Ray cluster answers there: Connection refused." in done.stderr
    assert "Traceback" not in done.stderr and "upload " not in done.stderr
