"""What is read back from an MLflow experiment: sweeps, their trials, learning curves, artifacts.

In: an open MLflow client. Out: plain records. `Tracker` adds the writing; whoever reads opens one of those.
Nothing here imports mlflow.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hausa_asr.errors import UserError
from hausa_asr.tracking.saved_view import view_path
from hausa_asr.tracking.store import CALL_S, FOLDER_S, READ_S, environment, find_experiment, is_silence, limited_http

PAGE = 1000
SILENCE_S = 1.0
"""Seconds in which a server that did not answer is not asked again, so that several calls in a row don't all wait."""
_STATE = {"RUNNING": "running", "SCHEDULED": "paused", "FINISHED": "finished", "KILLED": "pruned", "FAILED": "failed"}


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
        state: `running`, `paused`, `finished`, `pruned` or `failed`; `status` is MLflow's word for it.
        wer, cer, loss: those of its best checkpoint, else the last logged, else None.
        metrics: the last value of each metric, such as `seen_s`, seconds of audio trained on. Non-finite values are
            never logged.
        params: the whole recipe as texts, nested names with dots.
        tags: such as `source`, `base`, `fingerprint` (of the prepared dataset) and, for a finalist, `finalist_of`.
    """

    run_id: str
    parent: str
    sweep: str
    trial: str
    state: str
    status: str
    wer: float | None
    cer: float | None
    loss: float | None
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]


class Reader:
    """One experiment, for reading.

    Attributes:
        experiment, experiment_id: its name and MLflow's id for it.
        uri, shown_uri: the tracking URI, and the same without a password.
    """

    experiment: str
    uri: str
    shown_uri: str
    _client: Any
    _database: Path | None
    _create = False
    _experiment_id: str | None = None
    _silent_until = 0.0

    @property
    def experiment_id(self) -> str:
        """MLflow's id for it, asked for when it is first needed; raises what `_call` does, and `UserError`."""
        if self._experiment_id is None:
            with self._call():
                self._experiment_id = find_experiment(
                    self._client, self.experiment, self.shown_uri, self._database, self._create
                )
        return self._experiment_id

    @property
    def client(self) -> Any:
        """MLflow's own client, for what this class has no method for."""
        return self._client

    def sweeps(self) -> list[SweepRun]:
        """Every sweep of the experiment, newest first."""
        return [
            SweepRun(r.info.run_id, r.info.run_name or "", r.info.status, dict(r.data.tags), dict(r.data.metrics))
            for r in self._search("tags.kind = 'sweep'", "attributes.start_time DESC")
        ]

    def trials(self, sweep: str | None = None) -> list[TrialRun]:
        """The trials of a sweep, or of the whole experiment, oldest first; finalists among them.

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

    def history(self, run_id: str, metrics: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
        """The curves of a run: per metric (optimizer step, value), each step once, rising; empty if never logged."""
        curves: dict[str, list[tuple[int, float]]] = {}
        with self._call(READ_S):
            for metric in metrics:
                points = self._client.get_metric_history(run_id, metric)
                points = sorted(points, key=lambda point: (point.step, point.timestamp))
                curves[metric] = list({point.step: point.value for point in points}.items())
        return curves

    def last_step(self, run_id: str, metric: str = "loss") -> int:
        """The highest step at which `metric` was logged; -1 where it never was."""
        points = self.history(run_id, [metric])[metric]
        return points[-1][0] if points else -1

    def download(self, run_id: str, artifact_path: str, into: Path) -> Path | None:
        """Fetch a file or folder of a run to `into/artifact_path`; None where the run has no such artifact."""
        wanted = artifact_path.strip("/")
        with self._call(FOLDER_S), environment({"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}):
            beside = self._client.list_artifacts(run_id, wanted.rpartition("/")[0] or None)
            if wanted not in [entry.path for entry in beside]:
                return None
            into.mkdir(parents=True, exist_ok=True)
            return Path(self._client.download_artifacts(run_id, wanted, str(into)))

    def ui_hint(self) -> str:
        """What to type, or to open in a browser, to see the experiment."""
        if self._database is not None:
            return f"mlflow ui --backend-store-uri {shlex.quote(self.uri)}"
        known = self.shown_uri.startswith("http") and self._experiment_id is not None
        return self.compare_url() if known else f"MLflow at {self.shown_uri}"

    def view_url(self, key: str) -> str:
        """The address of a saved view, "" where it is not known; for a database where `mlflow ui` serves by default."""
        known = self._database is not None or (self.shown_uri.startswith("http") and self._experiment_id is not None)
        return self._server() + view_path(self.experiment_id, key) if known else ""

    def _server(self) -> str:
        return self.shown_uri.rstrip("/") if self.shown_uri.startswith("http") else "http://127.0.0.1:5000"

    def compare_url(self, run_ids: Sequence[str] = ()) -> str:
        """The address of the experiment's page, or of the comparison of these runs.

        For a database it is where `mlflow ui` serves by default.
        """
        base = self._server()
        if not run_ids:
            return f"{base}/#/experiments/{self.experiment_id}"
        runs, experiments = (quote(json.dumps(ids)) for ids in (list(run_ids), [self.experiment_id]))
        return f"{base}/#/compare-runs?runs={runs}&experiments={experiments}"

    @contextmanager
    def _call(self, timeout_s: int = CALL_S, retries: int = 1) -> Iterator[None]:
        """Bound what one call may cost: `retries` retries, and none at all just after a server fell silent."""
        if self._database is not None:
            yield
            return
        if time.monotonic() < self._silent_until:
            raise ConnectionError(f"MLflow at {self.shown_uri} did not answer; it is asked again in {SILENCE_S:.0f} s")
        with limited_http(timeout_s, retries):
            try:
                yield
            except Exception as fault:
                if is_silence(fault):
                    self._silent_until = time.monotonic() + SILENCE_S
                raise

    def _search(self, clause: str, order: str) -> list[Any]:
        runs: list[Any] = []
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


def _trial(run: Any) -> TrialRun:
    metrics, tags = dict(run.data.metrics), dict(run.data.tags)

    def best(name: str) -> float | None:
        return metrics.get(f"best_{name}", metrics.get(name))

    return TrialRun(
        run_id=run.info.run_id,
        parent=tags.get("mlflow.parentRunId", ""),
        sweep=tags.get("sweep", ""),
        trial=tags.get("trial", run.info.run_name or ""),
        state=tags.get("state") or _STATE.get(run.info.status, "failed"),
        status=run.info.status,
        wer=best("wer"),
        cer=best("cer"),
        loss=best("loss"),
        metrics=metrics,
        params=dict(run.data.params),
        tags=tags,
    )
