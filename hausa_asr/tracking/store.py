"""Where MLflow keeps its runs, how long a server may take to answer, and what a fault means.

In: a tracking URI, or a fault that MLflow raised. Out: a `Place`, an experiment's id, and whether a store is away.
Called by `tracker` and by the sweep's mirror. Nothing here imports mlflow.
"""

from __future__ import annotations

import os
import re
import shlex
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import requests

from hausa_asr.errors import UserError, first_line
from hausa_asr.userinfo import without_userinfo

PROBE_S, CALL_S, READ_S, FOLDER_S = 4, 10, 60, 120
"""Seconds that one HTTP request may take; each is tried twice. MLFLOW_HTTP_REQUEST_* of the user's win, but for the
probe."""
_RETRIES, _TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"
_AWAY = ("TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
"""MLflow's error codes of a locked or unreachable database, and of a server that is overrun."""

environment_lock = threading.RLock()
"""Held while environment variables come and go: whoever copies the environment in another thread holds it too."""
_ours: set[str] = set()
"""Variables that `settle_http_limits` has set, and not the user."""


@contextmanager
def environment(settings: Mapping[str, str], override: bool = False) -> Iterator[None]:
    """Set environment variables for the length of a block; what the user has set wins unless `override`."""
    with environment_lock:
        before = {name: os.environ.get(name) for name in settings}
        os.environ.update({name: value for name, value in settings.items() if override or before[name] is None})
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def http_limits(timeout_s: int, retries: int = 1) -> dict[str, str]:
    """MLflow's limits for one request. Its own are minutes of retries inside one call."""
    return {_RETRIES: str(retries), _TIMEOUT: str(timeout_s), "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}


def settle_http_limits() -> None:
    """Give MLflow's limits a value for the rest of the process, where the user has given none.

    A variable that came and went with each call, in a thread, would trip whoever is just copying the environment:
    Python raises KeyError or RuntimeError there. From here on only values change.
    """
    with environment_lock:
        for name, value in http_limits(CALL_S).items():
            if name not in os.environ:
                os.environ[name] = value
                _ours.add(name)


@contextmanager
def limited_http(timeout_s: int, retries: int = 1) -> Iterator[None]:
    """Other limits than the settled ones for the length of a block; what the user has set wins."""
    settled = http_limits(CALL_S)
    wanted = http_limits(timeout_s, retries)
    with environment({name: wanted[name] for name in _ours if os.environ.get(name) == settled[name]}, override=True):
        yield


def is_silence(fault: BaseException) -> bool:
    """Whether no answer came at all (MLflow wraps that in its own exception), as against an answer that says no."""
    link: BaseException | None = fault
    while link is not None:
        if isinstance(link, requests.RequestException):
            return link.response is None
        link = link.__cause__ or link.__context__
    return False


def is_outage(fault: BaseException) -> bool:
    """Whether the store as a whole seems away, so that the same call may succeed later."""
    away = getattr(fault, "error_code", "") in _AWAY
    return away or isinstance(fault, ConnectionError) or is_silence(fault)


def unusable(fault: Exception, uri: str, database: Path | None) -> UserError:
    """Word a fault on the first use of a tracking URI for the user.

    Args:
        database: its file; None for a server.
    """
    shown = without_userinfo(uri).rstrip("/")
    detail = first_line(fault).replace(uri, shown).rstrip(".")
    if database is not None:
        fix = f"Move the file away, or, if an older MLflow wrote it: mlflow db upgrade {shlex.quote(uri)}"
        return UserError(f"MLflow can't use its database: {detail}.", where=uri, fix=fix)
    if is_silence(fault):
        what = f"The MLflow server does not answer: {detail}."
        fix = "Start it, or give another tracking URI; without one a SQLite file is used."
    elif getattr(fault, "error_code", "") in ("PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED", "UNAUTHENTICATED"):
        what = f"The MLflow server refuses us: {detail}."
        fix = (
            "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN; "
            "if it names the Host header, start the server with --allowed-hosts."
        )
    else:
        what = f"This does not work as an MLflow tracking server: {detail}."
        fix = "Check the address; it is that of the server itself, without #/experiments."
    return UserError(what, where=shown, fix=fix)


class Place(NamedTuple):
    """Where a tracking URI leads: the URI to use, the same without a password, and its file if it is a database."""

    uri: str
    shown: str
    database: Path | None


def place(uri: str) -> Place:
    """Find out where a tracking URI leads.

    Raises:
        UserError: sweeps can't be recorded there.
    """
    scheme = uri.split(":", 1)[0].split("+", 1)[0].lower()
    if scheme == "sqlite":
        database = _database_path(uri)
        return Place(f"sqlite:///{database}", f"sqlite:///{database}", database)
    if scheme in ("postgresql", "postgres", "mysql", "mssql"):
        raise UserError(
            "Sweeps do not write to a database server directly: its artifacts would have no common place.",
            where=without_userinfo(uri),
            fix="Run `mlflow server --backend-store-uri ...` on it and give the server's http address.",
        )
    if scheme == "databricks" or ("://" in uri and scheme != "file"):
        return Place(uri, without_userinfo(uri).rstrip("/"), None)
    raise UserError(
        "MLflow no longer keeps runs in a plain folder.",
        where=uri,
        fix=f"Use a SQLite database: sqlite:///{Path(uri.removeprefix('file://')).resolve()}/mlflow.db.",
    )


def find_experiment(client: Any, name: str, shown_uri: str, database: Path | None, create: bool) -> str:
    """MLflow's id of an experiment, made if it is missing and `create` says so.

    Raises:
        UserError: it was deleted, or it is missing and `create` is False.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None and create:
        try:
            return _create_experiment(client, name, database)
        except Exception as fault:
            if getattr(fault, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
                raise
        experiment = client.get_experiment_by_name(name)  # another process was first
    if experiment is None:
        names = [one.name for one in client.search_experiments()]
        raise UserError(
            f"There is no MLflow experiment {name!r}.",
            where=shown_uri,
            fix="Name one of: " + (", ".join(names) or "(there are none yet)"),
        )
    if experiment.lifecycle_stage != "active":
        raise UserError(
            f"The MLflow experiment {name!r} was deleted; its name is taken until it is purged.",
            where=shown_uri,
            fix=f"Choose another name, or restore it: MLFLOW_TRACKING_URI={shlex.quote(shown_uri)} "
            f"mlflow experiments restore --experiment-id {experiment.experiment_id}.",
        )
    return experiment.experiment_id


def _create_experiment(client: Any, name: str, database: Path | None) -> str:
    location = None
    if database is not None:
        # MLflow's default is relative to the working directory, which in a Ray job is a copy that is cleaned away.
        folder = re.sub(r"[^\w.-]", "_", name).lstrip(".") or "_"
        location = (artifacts_beside(database) / folder).as_uri()
    # Without the tag the UI guesses, and may open the experiment on its page for language-model traces.
    tags = {"mlflow.experimentKind": "custom_model_development"}
    return client.create_experiment(name, artifact_location=location, tags=tags)


def _database_path(uri: str) -> Path:
    name = uri.partition(":///")[2].partition("?")[0]
    if not name or name.startswith(":memory:") or name.startswith("file:"):
        raise UserError(
            "The tracking database needs a file.", where=uri, fix="Write sqlite:/// and an absolute path to it."
        )
    return Path(name).resolve()


def artifacts_beside(database: Path) -> Path:
    """The folder for the artifacts of a database's runs."""
    return database.parent / "mlartifacts"
