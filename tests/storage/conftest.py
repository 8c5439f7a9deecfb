"""An S3 server for all tests of the room, and a scratch folder for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.s3_server import BUCKET, S3Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    one = S3Server(tmp_path_factory.mktemp("s3"))
    yield one
    one.stop()


@pytest.fixture
def bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An empty address of its own for each test."""
    server.use(monkeypatch)
    monkeypatch.setenv("HAUSA_ASR_SCRATCH", str(tmp_path / "scratch"))
    return f"s3://{BUCKET}/{tmp_path.name}"
