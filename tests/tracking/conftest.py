"""A SQLite database, and a tracker on it or on an MLflow server."""

from __future__ import annotations

import pytest

from hausa_asr.tracking.tracker import Tracker
from helpers.mlflow_server import Server


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    # An odd folder name, since the URI and the artifact location both go through quoting.
    return f"sqlite:///{tmp_path_factory.mktemp('da ta ɗ#1')}/mlflow.db"


@pytest.fixture(params=["database", "server"])
def uri(request: pytest.FixtureRequest) -> str:
    store = request.getfixturevalue(request.param)
    return store.uri if isinstance(store, Server) else store


@pytest.fixture
def tracker(uri: str, request: pytest.FixtureRequest) -> Tracker:
    return Tracker(uri, f"hausa {request.node.name}")
