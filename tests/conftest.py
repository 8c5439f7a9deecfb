"""What the tests share: one thread each, and tiny real wav2vec 2.0 checkpoints and data."""

from __future__ import annotations

import os

# Before torch is imported anywhere: two test processes on two cores must not fight for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# torch.compile would first try in ten child processes whether g++'s code for this CPU runs; here a test would fail.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
import torch

from helpers.mlflow_server import Server
from helpers.s3_server import BUCKET, S3Server
from helpers.speech import ToneSplit, save_base

torch.set_num_threads(1)

LONG = {"benchmarks", "diagnosis", "training", "test_types.py"}
"""Folders whose tests take minutes a file, and a file."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tiers, and let whole sweeps begin one after another: they wait much of their time, so others run beside.

    A file's tests stay in one process (`--dist loadfile`), so a sweep that several tests look at is run once. In
    `tests/whole/` each file is therefore about one sweep. The groups of xdist 3.8 do nothing with pytest 9.
    """
    for item in items:
        if item.path.parent.name == "whole":
            item.add_marker(pytest.mark.whole)
        elif needs_server(item):
            item.add_marker(pytest.mark.server)
    files = list(dict.fromkeys(item.path for item in items))
    whole = [file for file in files if file.parent.name == "whole"]
    # The longest files first: one that begins last runs on alone.
    others = sorted(
        (file for file in files if file.parent.name != "whole"), key=lambda file: LONG.isdisjoint(file.parts[-2:])
    )
    # The last of them begins when half of the others are through, so that none is left alone at the end.
    places = {file: number * len(others) / (2 * max(1, len(whole))) for number, file in enumerate(whole)}
    places |= {file: float(number) for number, file in enumerate(others)}
    items.sort(key=lambda item: places[item.path])


def needs_server(item: pytest.Item) -> bool:
    """Whether a test starts a real MLflow server, as a fixture or by its parameters."""
    given = getattr(item, "callspec", None)
    texts = [value for value in given.params.values() if isinstance(value, str)] if given is not None else []
    return "server" in getattr(item, "fixturenames", ()) or "server" in texts


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real `mlflow server`, one for all tests of a process: experiments have names of their own."""
    server = Server(tmp_path_factory.mktemp("server"))
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def layer_norm_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("layer-norm"), "layer")


@pytest.fixture(scope="session")
def group_norm_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("group-norm"), "group")


@pytest.fixture(scope="session")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus as a user has it: audio files and a table."""
    folder = tmp_path_factory.mktemp("audio")
    rows = ["path,text,split,speaker"]
    for split, count, seed in (("train", 24, 0), ("dev", 7, 1), ("test", 6, 2)):
        tones = ToneSplit(count, seed)
        for index in range(count):
            name = f"{split}-{index}.wav"
            soundfile.write(folder / name, tones[index].samples, 16_000)
            rows.append(f"{name},{tones[index].text},{split},{split}{index % 3}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    one = S3Server(tmp_path_factory.mktemp("s3"))
    yield one
    one.stop()


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """An empty address of its own for each test."""
    import s3fs

    s3_server.use(monkeypatch)
    s3_server.go_on()  # an earlier test may have ended while it stood still
    monkeypatch.setenv("HAUSA_ASR_SCRATCH", str(tmp_path / "scratch"))
    s3fs.S3FileSystem.clear_instance_cache()  # a thread of an earlier test may have made one without these keys
    yield f"s3://{BUCKET}/{tmp_path.name}"
    s3fs.S3FileSystem.clear_instance_cache()  # of a server that later tests do not have
