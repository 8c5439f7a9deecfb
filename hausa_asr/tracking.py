"""What a sweep writes to MLflow, and what `best-model` reads back. The only file that imports mlflow.

In: a tracking URI, an experiment's name, and rows of metrics. Out: one parent run per sweep with one child run per
trial. Called by the sweep's MLflow callback and by `hausa-asr best-model`. Only `MlflowClient` is used, never the
fluent API, so there is no global active run.

Faults after the constructor come through as ordinary exceptions, soon: MLflow's own default is to retry a silent
server for about four minutes inside one call, and the caller is the loop that drives every trial.
"""

from __future__ import annotations

import getpass
import json
import logging
import math
import os
import re
import shlex
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit, urlunsplit

import requests
import yaml

from hausa_asr.errors import UserError

_ENVIRONMENT_LOCK = threading.RLock()


@contextmanager
def _environment(settings: Mapping[str, str], override: bool = False) -> Iterator[None]:
    """Set environment variables for the length of a block; what the user has set wins unless `override`."""
    with _ENVIRONMENT_LOCK:
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


with _environment({"MLFLOW_DISABLE_TELEMETRY": "true"}):  # read once, at import: else usage records go to a third party
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Metric, Param, Run, RunStatus, RunTag
    from mlflow.exceptions import MlflowException
    from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, MAX_PARAM_VAL_LENGTH, MAX_TAG_VAL_LENGTH

TrialState = Literal["running", "finished", "pruned", "failed", "paused"]
SweepState = Literal["running", "finished", "stopped", "failed"]

SETTINGS_FILE = "settings.yaml"
SAMPLES_FILE = "samples.json"
NONFINITE = "nonfinite"
PAGE = 1000
PROBE_S, CALL_S, READ_S, FOLDER_S = 4, 10, 60, 120
"""Seconds that one HTTP request may take; each is tried twice. MLFLOW_HTTP_REQUEST_* of the user's win, but for the
probe."""
SILENCE_S = 60.0
"""Seconds in which a server that did not answer is not asked again."""

_STATUS = {
    "running": "RUNNING",
    "paused": "SCHEDULED",
    "finished": "FINISHED",
    "pruned": "KILLED",
    "stopped": "KILLED",
    "failed": "FAILED",
}
_STATE = {"RUNNING": "running", "SCHEDULED": "paused", "FINISHED": "finished", "KILLED": "pruned", "FAILED": "failed"}
_ENDED = {"FINISHED", "KILLED", "FAILED"}


@dataclass(frozen=True)
class Row:
    """The metrics of one evaluation: optimizer step, wall clock in ms since 1970, values by name."""

    step: int
    time_ms: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Sample:
    """One transcribed utterance of the dev split; `wer` is its own, 1.0 for 100 %."""

    id: str
    reference: str
    hypothesis: str
    wer: float


@dataclass(frozen=True)
class SweepRun:
    """A parent run as read back; `status` is MLflow's (RUNNING, FINISHED, KILLED, FAILED)."""

    run_id: str
    name: str
    status: str
    tags: dict[str, str]
    metrics: dict[str, float]


@dataclass(frozen=True)
class TrialRun:
    """A child run as read back.

    Attributes:
        wer, cer, loss: the best that `end_trial` was told, else the last logged, else None.
        metrics: the last value of each metric. Non-finite values are never logged.
    """

    run_id: str
    parent: str
    sweep: str
    trial: str
    state: str
    wer: float | None
    cer: float | None
    loss: float | None
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]


class Tracker:
    """One experiment of one MLflow tracking URI, made if it is missing.

    Args:
        uri: `sqlite:///` and an absolute path, or the address of a server (`http://`, `https://`, `databricks`).
        experiment: the experiment's name.
        create: make the database and the experiment where they are missing.

    Raises:
        UserError: the URI can't be used, the server does not answer (within about 10 s), the database can't be
            opened or written, the experiment was deleted, or it is missing and `create` is False.
    """

    def __init__(self, uri: str, experiment: str, *, create: bool = True) -> None:
        self.experiment = experiment
        self._silent_until = 0.0
        scheme = uri.split(":", 1)[0].split("+", 1)[0].lower()
        if scheme == "sqlite":
            self._database: Path | None = _database_path(uri)
            self.uri = self.shown_uri = f"sqlite:///{self._database}"
            _check_database(self._database, create=create)
        elif scheme in ("postgresql", "postgres", "mysql", "mssql"):
            raise UserError(
                "Sweeps do not write to a database server directly: its artifacts would have no common place.",
                where=_without_password(uri),
                fix="Run `mlflow server --backend-store-uri ...` on it and give the server's http address.",
            )
        elif scheme == "databricks" or ("://" in uri and scheme != "file"):
            self._database = None
            self.uri, self.shown_uri = uri, _without_password(uri).rstrip("/")
        else:
            raise UserError(
                "MLflow no longer keeps runs in a plain folder.",
                where=uri,
                fix=f"Use a SQLite database: sqlite:///{Path(uri.removeprefix('file://')).resolve()}/mlflow.db",
            )
        # MlflowException is not enough: a damaged database surfaces as SQLAlchemy's errors, a bad URI as ValueError.
        try:
            with _environment(_http_limits(PROBE_S), override=True):
                self._client = MlflowClient(self.uri)
                self.experiment_id = self._find_experiment(create)
        except UserError:
            raise
        except Exception as fault:
            raise self._unusable(fault) from fault

    @classmethod
    def open(cls, uri: str, experiment: str) -> Tracker:
        """The same for reading: nothing is created. Raises `UserError` that names what there is instead."""
        return cls(uri, experiment, create=False)

    # -- writing ------------------------------------------------------------------------------------------------

    def start_sweep(self, sweep: str, params: Mapping[str, object], tags: Mapping[str, str]) -> str:
        """A new parent run, named `sweep`. Returns its run id, which the caller keeps."""
        with self._call():
            run = self._create_run(sweep, {**tags, "kind": "sweep", "sweep": sweep, "state": "running"})
            self._describe(run, params)
            return run.info.run_id

    def start_trial(
        self, parent: str, sweep: str, trial: str, settings: Mapping[str, object], tags: Mapping[str, str]
    ) -> str:
        """The child run of a trial: made, or reopened where the parent has one for this trial already.

        Args:
            parent: run id of the sweep.
            settings: logged as params (nested ones with dots, long ones cut) and in full as `settings.yaml`.
        """
        with self._call():
            # A crash between this call and the ledger's record of it must not leave a second run for the trial.
            clause = f"tags.mlflow.parentRunId = '{parent}' and tags.trial = {_quoted(trial)}"
            found = self._client.search_runs([self.experiment_id], clause, max_results=1)
            all_tags = {**tags, "kind": "trial", "sweep": sweep, "trial": trial, "state": "running"}
            if found:
                run = found[0]
                self._set_status(run.info.run_id, "running")
                self._write_tags(run.info.run_id, all_tags)
            else:
                run = self._create_run(trial, {**all_tags, "mlflow.parentRunId": parent})
            self._describe(run, settings)
            return run.info.run_id

    def reopen(self, run_id: str) -> None:
        """Running again, after a resume or a pause; steps go on in the same run."""
        with self._call():
            self._set_status(run_id, "running")
            self._write_tags(run_id, {"state": "running", "reason": ""})

    def last_step(self, run_id: str, metric: str = "loss") -> int:
        """The highest step at which `metric` was logged; -1 where it never was."""
        with self._call(READ_S):
            return max((point.step for point in self._client.get_metric_history(run_id, metric)), default=-1)

    def log(self, run_id: str, rows: Sequence[Row]) -> None:
        """Log metrics; the same rows again change nothing.

        NaN and infinity are left out and counted in the metric `nonfinite` and named in the tag `nonfinite`: MLflow
        stores infinity as 1.8e308, which flattens every chart it is in, and its JSON for the charts then holds a bare
        NaN, which browsers refuse.
        """
        metrics, bad = _metrics(rows)
        tags = [RunTag(NONFINITE, _cut(bad, MAX_TAG_VAL_LENGTH))] if bad else []
        with self._call():  # the client itself cuts it into batches of 1,000
            self._client.log_batch(run_id, metrics=metrics, tags=tags, synchronous=True)

    def log_samples(self, run_id: str, rows: Sequence[Sample]) -> None:
        """Show transcripts as a table beside the run, in place of an earlier table.

        `MlflowClient.log_table` would append to the earlier one, and downloads it for that; the file and the tag
        written here are what it writes, so `load_table` and the UI read them.
        """
        columns = ["id", "reference", "hypothesis", "wer"]
        data = [[row.id, row.reference, row.hypothesis, row.wer if math.isfinite(row.wer) else None] for row in rows]
        with self._call(FOLDER_S):
            self._client.log_text(
                run_id, json.dumps({"columns": columns, "data": data}, ensure_ascii=False), SAMPLES_FILE
            )
            # Its spelling is what load_table looks for, character by character.
            self._write_tags(run_id, {"mlflow.loggedArtifacts": json.dumps([{"path": SAMPLES_FILE, "type": "table"}])})

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags, over earlier values."""
        with self._call():
            self._write_tags(run_id, tags)

    def end_trial(
        self,
        run_id: str,
        state: TrialState,
        reason: str,
        summary: Mapping[str, float],
        *,
        step: int = 0,
        ended_s: float | None = None,
    ) -> None:
        """Set a trial's state with its reason; pruned shows as KILLED, paused as SCHEDULED.

        Args:
            summary: best_wer, best_cer, best_loss and the like; non-finite ones are left out.
            step: the optimizer step at which the summary is logged.
            ended_s: when it ended, in seconds since the epoch; now by default.
        """
        self._end(run_id, state, {"state": state, "reason": reason}, summary, step, ended_s)

    def end_sweep(self, run_id: str, state: SweepState, tags: Mapping[str, str], metrics: Mapping[str, float]) -> None:
        """Set a sweep's state, with its last tags and metrics."""
        self._end(run_id, state, {**tags, "state": state}, metrics)

    def log_folder(self, run_id: str, folder: Path, artifact_path: str) -> None:
        """Upload a folder's files under `artifact_path`, over those of the same name.

        Raises:
            FileNotFoundError: no such folder (MLflow itself would upload nothing and say nothing).
        """
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}")
        with self._call(FOLDER_S):
            self._client.log_artifacts(run_id, str(folder), artifact_path)

    # -- reading ------------------------------------------------------------------------------------------------

    def sweeps(self) -> list[SweepRun]:
        """Every sweep of the experiment, newest first."""
        return [
            SweepRun(r.info.run_id, r.info.run_name or "", r.info.status, dict(r.data.tags), dict(r.data.metrics))
            for r in self._search("tags.kind = 'sweep'", "attributes.start_time DESC")
        ]

    def trials(self, sweep: str | None = None) -> list[TrialRun]:
        """The trials of a sweep, or of the whole experiment, oldest first.

        Args:
            sweep: the run id or the name of a sweep; of several with that name, the newest.

        Raises:
            UserError: there is no such sweep.
        """
        clause = "tags.kind = 'trial'"
        if sweep is not None:
            known = self.sweeps()
            # A run id goes before a name; the newest of one name is the first.
            parents = [
                run.run_id for run in sorted(known, key=lambda r: r.run_id != sweep) if sweep in (run.run_id, run.name)
            ]
            if not parents:
                raise UserError(
                    f"The experiment {self.experiment!r} has no sweep {sweep!r}.",
                    where=self.shown_uri,
                    fix="Name one of: " + (", ".join(dict.fromkeys(run.name for run in known)) or "(it has none yet)"),
                )
            clause += f" and tags.mlflow.parentRunId = '{parents[0]}'"
        return [_trial(run) for run in self._search(clause, "attributes.start_time ASC")]

    def download(self, run_id: str, artifact_path: str, into: Path) -> Path | None:
        """Fetch a file or folder of a run to `into/artifact_path`; None where the run has no such artifact."""
        wanted = artifact_path.strip("/")
        with self._call(FOLDER_S), _environment({"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}):
            beside = self._client.list_artifacts(run_id, wanted.rpartition("/")[0] or None)
            if wanted not in [entry.path for entry in beside]:
                return None
            into.mkdir(parents=True, exist_ok=True)
            return Path(self._client.download_artifacts(run_id, wanted, str(into)))

    def ui_hint(self) -> str:
        """What to type, or to open in a browser, to see the experiment."""
        if self._database is not None:
            return f"mlflow ui --backend-store-uri {shlex.quote(self.uri)}"
        return self.compare_url() if self.shown_uri.startswith("http") else f"MLflow at {self.shown_uri}"

    def compare_url(self, run_ids: Sequence[str] = ()) -> str:
        """The address of the experiment's page, or of the comparison of these runs.

        For a database it is where `mlflow ui` serves by default.
        """
        base = self.shown_uri if self.shown_uri.startswith("http") else "http://127.0.0.1:5000"
        if not run_ids:
            return f"{base}/#/experiments/{self.experiment_id}"
        runs, experiments = (quote(json.dumps(ids)) for ids in (list(run_ids), [self.experiment_id]))
        return f"{base}/#/compare-runs?runs={runs}&experiments={experiments}"

    # -- inside -------------------------------------------------------------------------------------------------

    @contextmanager
    def _call(self, timeout_s: int = CALL_S) -> Iterator[None]:
        """Bound what one call may cost: one retry, and none at all for a minute after a server fell silent."""
        if self._database is not None:
            yield
            return
        wait_s = self._silent_until - time.monotonic()
        if wait_s > 0:
            raise ConnectionError(f"MLflow at {self.shown_uri} did not answer; not asked for another {wait_s:.0f} s")
        with _environment(_http_limits(timeout_s)):
            try:
                yield
            except Exception as fault:
                if _is_silence(fault):
                    self._silent_until = time.monotonic() + SILENCE_S
                raise

    def _find_experiment(self, create: bool) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        if found is None and create:
            try:
                return self._create_experiment()
            except MlflowException as fault:
                if fault.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = self._client.get_experiment_by_name(self.experiment)  # another process was first
        if found is None:
            names = [experiment.name for experiment in self._client.search_experiments()]
            raise UserError(
                f"There is no MLflow experiment {self.experiment!r}.",
                where=self.shown_uri,
                fix="Name one of: " + (", ".join(names) or "(there are none yet)"),
            )
        if found.lifecycle_stage != "active":
            raise self._deleted(found)
        return found.experiment_id

    def _create_experiment(self) -> str:
        location = None
        if self._database is not None:
            # MLflow's default is relative to the working directory, which in a Ray job is a copy that is cleaned away.
            folder = re.sub(r"[^\w.-]", "_", self.experiment).lstrip(".") or "_"
            location = (_artifacts(self._database) / folder).as_uri()
        # Without the tag the UI guesses, and may open the experiment on its page for language-model traces.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return self._client.create_experiment(self.experiment, artifact_location=location, tags=tags)

    def _deleted(self, found: Experiment) -> UserError:
        return UserError(
            f"The MLflow experiment {self.experiment!r} was deleted; its name is taken until it is purged.",
            where=self.shown_uri,
            fix=f"Choose another name, or restore it: MLFLOW_TRACKING_URI={shlex.quote(self.shown_uri)} "
            f"mlflow experiments restore --experiment-id {found.experiment_id}",
        )

    def _unusable(self, fault: Exception) -> UserError:
        text = str(fault).replace(self.uri, self.shown_uri).strip() or type(fault).__name__
        detail = text.splitlines()[0][:300]
        if self._database is not None:
            fix = f"Move the file away, or, if an older MLflow wrote it: mlflow db upgrade {shlex.quote(self.uri)}"
            return UserError(f"MLflow can't use its database: {detail}", where=self.uri, fix=fix)
        if _is_silence(fault):
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
        return UserError(what, where=self.shown_uri, fix=fix)

    def _create_run(self, name: str, tags: Mapping[str, str]) -> Run:
        with suppress(OSError, KeyError):  # a container's user may have no name
            tags = {"mlflow.user": getpass.getuser(), **tags}
        return self._client.create_run(self.experiment_id, tags=_cut_tags(tags), run_name=name)

    def _describe(self, run: Run, settings: Mapping[str, object]) -> None:
        """Log settings as params and as a file; params that the run has already can't change, and stay."""
        known = run.data.params
        params = [Param(key, value) for key, value in _flat(settings).items() if key not in known]
        self._client.log_batch(run.info.run_id, params=params, synchronous=True)
        plain = json.loads(json.dumps(settings, default=_plain))
        text = yaml.safe_dump(plain, allow_unicode=True, sort_keys=False)
        self._client.log_text(run.info.run_id, text, SETTINGS_FILE)

    def _write_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        run_tags = [RunTag(key, value) for key, value in _cut_tags(tags).items()]
        self._client.log_batch(run_id, tags=run_tags, synchronous=True)

    def _set_status(self, run_id: str, state: str, ended_s: float | None = None) -> None:
        # Not set_terminated and update_run: the first prints to stdout, neither can take an end time back. An end
        # time of 0 is what MLflow's own protocol and UI read as "none".
        status = _STATUS[state]
        end_ms = int((ended_s or time.time()) * 1000) if status in _ENDED else 0
        self._client._tracking_client.store.update_run_info(run_id, RunStatus.from_string(status), end_ms, None)

    def _end(
        self,
        run_id: str,
        state: str,
        tags: Mapping[str, str],
        metrics: Mapping[str, float],
        step: int = 0,
        ended_s: float | None = None,
    ) -> None:
        finite, _ = _metrics([Row(step, int((ended_s or time.time()) * 1000), metrics)])
        run_tags = [RunTag(key, value) for key, value in _cut_tags(tags).items()]
        with self._call():
            self._client.log_batch(
                run_id, metrics=[m for m in finite if m.key != NONFINITE], tags=run_tags, synchronous=True
            )
            self._set_status(run_id, state, ended_s)

    def _search(self, clause: str, order: str) -> list[Run]:
        runs: list[Run] = []
        token: str | None = None
        with self._call(READ_S):
            while True:
                page = self._client.search_runs(
                    [self.experiment_id], clause, max_results=PAGE, order_by=[order], page_token=token
                )
                runs.extend(page)
                token = page.token
                if not token:
                    return runs


def _http_limits(timeout_s: int) -> dict[str, str]:
    return {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout_s),
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    }


def _is_silence(fault: BaseException) -> bool:
    """Whether no answer came at all (MLflow wraps that in its own exception), as against an answer that says no."""
    link: BaseException | None = fault
    while link is not None:
        if isinstance(link, requests.RequestException):
            return link.response is None
        link = link.__cause__ or link.__context__
    return False


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _database_path(uri: str) -> Path:
    name = uri.partition(":///")[2].partition("?")[0]
    if not name or name.startswith(":memory:") or name.startswith("file:"):
        raise UserError(
            "The tracking database needs a file.", where=uri, fix="Write sqlite:/// and an absolute path to it."
        )
    return Path(name).resolve()


def _artifacts(database: Path) -> Path:
    return database.parent / "mlartifacts"


def _check_database(path: Path, *, create: bool) -> None:
    """Find out in no time what MLflow would find out by 100 s of retries; make the database where it is missing.

    Raises:
        UserError: it can't be opened, is no database, is locked, or (with `create`) can't be written.
    """
    if not create and not path.is_file():
        raise UserError("There is no MLflow database.", where=path, fix="Run a sweep first, or give another path.")
    try:
        if not path.exists():
            _create_database(path)
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
            f"The MLflow database can't be {'written' if create else 'read'}: {fault}",
            where=path,
            fix="Give a path on a disk that you can write to, or end the process that holds the database.",
        ) from fault


def _create_database(path: Path) -> None:
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
    artifacts = {"_MLFLOW_SERVER_ARTIFACT_ROOT": _artifacts(path).as_uri()}
    try:
        with _environment(artifacts, override=True):
            store = MlflowClient(f"sqlite:///{partial}")._tracking_client.store
        store.engine.dispose()
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


def _metrics(rows: Sequence[Row]) -> tuple[list[Metric], str]:
    """MLflow's metrics of these rows, and the last non-finite values in words ("" where there are none)."""
    metrics: list[Metric] = []
    words = ""
    for row in rows:
        values = {key: float(value) for key, value in row.metrics.items()}
        bad = {key: value for key, value in values.items() if not math.isfinite(value)}
        if bad:
            values[NONFINITE] = float(len(bad))
            words = ", ".join(f"{key}={value}" for key, value in bad.items()) + f" at step {row.step}"
        metrics += [Metric(key, value, row.time_ms, row.step) for key, value in values.items() if key not in bad]
    return metrics, words


def _flat(settings: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Nested settings as params: names with dots and MLflow's letters only, values within its length."""
    flat: dict[str, str] = {}
    nested = (list, tuple, Mapping)
    for key, value in settings.items():
        name = prefix + str(key)
        if isinstance(value, Mapping) and value:
            flat.update(_flat(value, f"{name}."))
        else:
            text = json.dumps(value, default=_plain, ensure_ascii=False) if isinstance(value, nested) else str(value)
            flat[_key(name)] = _cut(text, MAX_PARAM_VAL_LENGTH)
    return flat


def _plain(value: Any) -> object:
    return value.item() if hasattr(value, "item") and getattr(value, "size", 1) == 1 else str(value)


def _key(name: str) -> str:
    return re.sub(r"[^/\w.\- :]", "_", name)[:MAX_ENTITY_KEY_LENGTH]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _cut_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {_key(key): _cut(str(value), MAX_TAG_VAL_LENGTH) for key, value in tags.items()}


def _quoted(value: str) -> str:
    """A string in MLflow's filter language, which has no escapes."""
    if "'" not in value:
        return f"'{value}'"
    if '"' not in value:
        return f'"{value}"'
    raise ValueError(f"a trial's name can't have both kinds of quotes: {value}")


def _trial(run: Run) -> TrialRun:
    metrics, tags = dict(run.data.metrics), dict(run.data.tags)

    def best(name: str) -> float | None:
        return metrics.get(f"best_{name}", metrics.get(name))

    return TrialRun(
        run_id=run.info.run_id,
        parent=tags.get("mlflow.parentRunId", ""),
        sweep=tags.get("sweep", ""),
        trial=tags.get("trial", run.info.run_name or ""),
        state=tags.get("state") or _STATE.get(run.info.status, "failed"),
        wer=best("wer"),
        cer=best("cer"),
        loss=best("loss"),
        metrics=metrics,
        params=dict(run.data.params),
        tags=tags,
    )
