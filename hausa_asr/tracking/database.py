"""The file of MLflow's SQLite database: check that it can be used, and make it where it is missing.

In: a path. Out: a database that MLflow opens, or an error that says why not. Called by `tracker`. Nothing here imports
mlflow.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from hausa_asr.errors import UserError
from hausa_asr.tracking.store import artifacts_beside, environment


def check_database(path: Path, make: Callable[[str], None], *, create: bool) -> None:
    """Check at once what MLflow would find out after 100 s of retries; make the database where it is missing.

    Args:
        path: its file.
        make: opens MLflow on a `sqlite:///` URI, which makes the tables or checks those that are there; then lets go.
        create: whether it may be made, and must be writable.

    Raises:
        UserError: it can't be opened, is no database, is locked, or (with `create`) can't be written.
    """
    if not create and not path.is_file():
        raise UserError("There is no MLflow database.", where=path, fix="Run a sweep first, or give another path.")
    try:
        if not path.exists():
            _create(path, make)
        mode = "rw" if create else "ro"
        with closing(_connect(path, mode, timeout_s=10)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if create:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
    except (OSError, sqlite3.Error) as fault:
        raise UserError(
            f"The MLflow database can't be {'written' if create else 'read'}: {fault}.",
            where=path,
            fix="Give a path on a disk that you can write to, or end the process that holds the database.",
        ) from fault


def _create(path: Path, make: Callable[[str], None]) -> None:
    """Make an MLflow database, whole or not at all, whoever else is making it.

    MLflow runs dozens of migrations, unlocked and not in one transaction: of two processes that start together one
    crashes, and one that is killed meanwhile leaves a file that MLflow can't open ever again. So the database is built
    under another name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # So that the experiment "Default", which comes with a new database, keeps nothing in the working directory.
    root = {"_MLFLOW_SERVER_ARTIFACT_ROOT": artifacts_beside(path).as_uri()}
    with _quiet_migrations(), environment(root, override=True), _aside(path) as partial:
        make(f"sqlite:///{partial}")
        _put_in_place(partial, path)


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """An empty file beside `path` that is removed at the end."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    partial.touch()  # fails at once where MLflow would try for 100 s
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def _put_in_place(partial: Path, path: Path) -> None:
    """Name a finished file `path`, unless another process was first."""
    try:
        os.link(partial, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not path.exists():
            partial.rename(path)


def _connect(path: Path, mode: str, timeout_s: float = 1.0) -> sqlite3.Connection:
    """Open a SQLite file that is there already, each statement a transaction of its own."""
    uri = f"file:{quote(str(path))}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=timeout_s, isolation_level=None)


@contextmanager
def _quiet_migrations() -> Iterator[None]:
    """Keep the lines that MLflow logs for each migration out of the output."""
    chatter = logging.getLogger("mlflow.store.db.utils")
    level = chatter.level
    chatter.setLevel(logging.WARNING)
    try:
        yield
    finally:
        chatter.setLevel(level)
