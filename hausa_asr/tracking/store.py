"""Where MLflow keeps its runs: the file of a SQLite database, and how long a server may take to answer.

In: a tracking URI, or a fault that MLflow raised. Out: a database that can be used, and whether a store is away.
Called by `tracker` and by the sweep's mirror. Nothing here imports mlflow.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

import requests

from hausa_asr.errors import UserError, first_line

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
    shown = without_password(uri).rstrip("/")
    detail = first_line(fault).replace(uri, shown)
    if database is not None:
        fix = f"Move the file away, or, if an older MLflow wrote it: mlflow db upgrade {shlex.quote(uri)}"
        return UserError(f"MLflow can't use its database: {detail}.", where=uri, fix=fix)
    if is_silence(fault):
        what = f"The MLflow server does not answer: {detail}"
        fix = "Start it, or give another tracking URI; without one a SQLite file is used."
    elif getattr(fault, "error_code", "") in ("PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED", "UNAUTHENTICATED"):
        what = f"The MLflow server refuses us: {detail}"
        fix = (
            "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN; "
            "if it names the Host header, start the server with --allowed-hosts."
        )
    else:
        what = f"This does not work as an MLflow tracking server: {detail}"
        fix = "Check the address; it is that of the server itself, without #/experiments."
    return UserError(what, where=shown, fix=fix)


def without_password(uri: str) -> str:
    """An address that may be shown."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


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
            where=without_password(uri),
            fix="Run `mlflow server --backend-store-uri ...` on it and give the server's http address.",
        )
    if scheme == "databricks" or ("://" in uri and scheme != "file"):
        return Place(uri, without_password(uri).rstrip("/"), None)
    raise UserError(
        "MLflow no longer keeps runs in a plain folder.",
        where=uri,
        fix=f"Use a SQLite database: sqlite:///{Path(uri.removeprefix('file://')).resolve()}/mlflow.db.",
    )


def experiment_id(client: Any, name: str, shown_uri: str, database: Path | None, create: bool) -> str:
    """MLflow's id of an experiment, made if it is missing and `create` says so.

    Raises:
        UserError: it was deleted, or it is missing and `create` is False.
    """
    found = client.get_experiment_by_name(name)
    if found is None and create:
        try:
            return _create_experiment(client, name, database)
        except Exception as fault:
            if getattr(fault, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.get_experiment_by_name(name)  # another process was first
    if found is None:
        names = [experiment.name for experiment in client.search_experiments()]
        raise UserError(
            f"There is no MLflow experiment {name!r}.",
            where=shown_uri,
            fix="Name one of: " + (", ".join(names) or "(there are none yet)"),
        )
    if found.lifecycle_stage != "active":
        raise UserError(
            f"The MLflow experiment {name!r} was deleted; its name is taken until it is purged.",
            where=shown_uri,
            fix=f"Choose another name, or restore it: MLFLOW_TRACKING_URI={shlex.quote(shown_uri)} "
            f"mlflow experiments restore --experiment-id {found.experiment_id}.",
        )
    return found.experiment_id


def _create_experiment(client: Any, name: str, database: Path | None) -> str:
    location = None
    if database is not None:
        # MLflow's default is relative to the working directory, which in a Ray job is a copy that is cleaned away.
        folder = re.sub(r"[^\w.-]", "_", name).lstrip(".") or "_"
        location = (_artifacts(database) / folder).as_uri()
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


def _artifacts(database: Path) -> Path:
    return database.parent / "mlartifacts"


def check_database(path: Path, make: Callable[[str], None], *, create: bool) -> None:
    """Find out in no time what MLflow would find out by 100 s of retries; make the database where it is missing.

    Args:
        path: its file.
        make: has MLflow make the database of a `sqlite:///` URI, and let go of it.
        create: whether it may be made, and must be writable.

    Raises:
        UserError: it can't be opened, is no database, is locked, or (with `create`) can't be written.
    """
    if not create and not path.is_file():
        raise UserError("There is no MLflow database.", where=path, fix="Run a sweep first, or give another path.")
    try:
        if not path.exists():
            _create_database(path, make)
        mode = "rw" if create else "ro"
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True, timeout=10, isolation_level=None)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if create:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
        finally:
            connection.close()
    except (OSError, sqlite3.Error) as fault:
        raise UserError(
            f"The MLflow database can't be {'written' if create else 'read'}: {fault}.",
            where=path,
            fix="Give a path on a disk that you can write to, or end the process that holds the database.",
        ) from fault


def _create_database(path: Path, make: Callable[[str], None]) -> None:
    """Make an MLflow database, whole or not at all, whoever else is making it.

    MLflow runs dozens of migrations, unlocked and not in one transaction: of two processes that start together one
    crashes, and one that is killed in these seconds leaves a file that MLflow can't open ever again. So it is built
    under another name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    partial.touch()  # fails at once where MLflow would try for 100 s
    chatter = logging.getLogger("mlflow.store.db.utils")
    level = chatter.level
    chatter.setLevel(logging.WARNING)
    # So that the experiment "Default", which comes with a new database, keeps nothing in the working directory.
    root = {"_MLFLOW_SERVER_ARTIFACT_ROOT": _artifacts(path).as_uri()}
    try:
        with environment(root, override=True):
            make(f"sqlite:///{partial}")
        try:
            os.link(partial, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            if not path.exists():
                partial.rename(path)
    finally:
        chatter.setLevel(level)
        partial.unlink(missing_ok=True)
