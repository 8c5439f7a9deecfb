"""What a sweep writes to MLflow.

In: a tracking URI, an experiment's name, and rows of metrics. Out: one parent run per sweep with one child run per
trial. Called by the sweep's mirror, and for reading (`reader`) by `hausa-asr best-model`, warm starts and the replay.
Only `MlflowClient` is used, never the fluent API, so there is no global active run. Long, since all that is written is
in one class.

Faults after the constructor come through as ordinary exceptions, soon: MLflow's own default is to retry a silent
server for about four minutes inside one call. `store.is_outage` knows those that will pass from the others.
"""

from __future__ import annotations

import getpass
import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import yaml
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunStatus
from mlflow.exceptions import MlflowException

from hausa_asr.errors import UserError
from hausa_asr.tracking.database import check_database
from hausa_asr.tracking.entities import (
    NONFINITE,
    MetricsRow,
    Sample,
    cut_tags,
    json_value,
    metrics_of,
    params_of,
    quoted,
    run_tags,
)
from hausa_asr.tracking.reader import Reader, SweepRun, TrialRun
from hausa_asr.tracking.saved_view import view_tag
from hausa_asr.tracking.store import (
    FOLDER_S,
    PROBE_S,
    environment,
    find_experiment,
    http_limits,
    is_silence,
    place,
    settle_http_limits,
    unusable,
)

__all__ = ["MetricsRow", "MlflowException", "Sample", "SweepRun", "Tracker", "TrialRun"]

TrialState = Literal["running", "finished", "pruned", "failed", "paused"]
SweepState = Literal["running", "finished", "stopped", "failed"]

STATUS = {
    "running": "RUNNING",
    "paused": "SCHEDULED",
    "finished": "FINISHED",
    "pruned": "KILLED",
    "stopped": "KILLED",
    "failed": "FAILED",
}
"""MLflow's word for a state."""
SETTINGS_FILE = "settings.yaml"
SAMPLES_FILE = "samples.json"
BATCH = 900
"""Metrics in one call; MLflow takes 1,000 metrics, params and tags together."""
_ENDED = {"FINISHED", "KILLED", "FAILED"}


class Tracker(Reader):
    """One experiment of one MLflow tracking URI, made if it is missing.

    Args:
        uri: `sqlite:///` and an absolute path, or the address of a server (`http://`, `https://`, `databricks`).
        experiment: the experiment's name.
        create: make the database and the experiment where they are missing.
        patient: don't mind a server that does not answer now. Calls raise until it does.

    Raises:
        UserError: the URI can't be used, the server does not answer (within about 10 s), the database can't be
            opened or written, the experiment was deleted, or it is missing and `create` is False.
    """

    def __init__(self, uri: str, experiment: str, *, create: bool = True, patient: bool = False) -> None:
        self.experiment, self._create = experiment, create
        self.uri, self.shown_uri, self._database = place(uri)
        if self._database is not None:
            check_database(self._database, _open_database, create=create)
        # MlflowException is not enough: a damaged database surfaces as SQLAlchemy's errors, a bad URI as ValueError.
        try:
            with environment(http_limits(PROBE_S), override=True):
                self._client = MlflowClient(self.uri)
                self._experiment_id = find_experiment(self._client, experiment, self.shown_uri, self._database, create)
        except UserError:
            raise
        except Exception as fault:
            if not (patient and is_silence(fault)):
                raise unusable(fault, self.uri, self._database) from fault
        if self._database is None:
            settle_http_limits()

    @property
    def answers(self) -> bool:
        """Whether the store has answered yet; a patient tracker may still wait for that."""
        return self._experiment_id is not None

    @classmethod
    def open(cls, uri: str, experiment: str) -> Tracker:
        """The same for reading: nothing is created. Raises `UserError` that names what there is instead."""
        return cls(uri, experiment, create=False)

    def start_sweep(
        self,
        sweep: str,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        *,
        key: str = "",
        settings_file: bool = True,
    ) -> str:
        """A new parent run, named `sweep`. Returns its run id, which the caller keeps.

        Args:
            params: as the settings of `start_trial`.
            key: what no other sweep has. The run that has it already is opened again, so that a call whose answer was
                lost can be made once more.
            settings_file: as in `start_trial`.
        """
        all_tags = {**tags, "kind": "sweep", "sweep": sweep, "state": "running"}
        clause = ""
        if key:
            all_tags["key"] = key
            clause = f"tags.kind = 'sweep' and tags.key = {quoted(key)}"
        run = self._run(sweep, clause, all_tags, params)
        if settings_file:
            self.log_settings(run.info.run_id, params)
        return run.info.run_id

    def start_trial(
        self,
        parent: str,
        sweep: str,
        trial: str,
        settings: Mapping[str, object],
        tags: Mapping[str, str],
        *,
        name: str = "",
        fresh: bool = False,
        settings_file: bool = True,
    ) -> str:
        """The child run of a trial: made, or opened again where the parent has one for this trial already.

        Args:
            parent: run id of the sweep.
            settings: logged as params (nested ones with dots, long ones cut) and in full as `settings.yaml`.
            name: the run's, if not `trial`. fresh: nobody can have tried this before, so don't look.
            settings_file: write that file; else `log_settings` does it later.
        """
        # A crash between this call and the ledger's record of it must not leave a second run for the trial.
        clause = "" if fresh else f"tags.mlflow.parentRunId = '{parent}' and tags.trial = {quoted(trial)}"
        all_tags = {**tags, "kind": "trial", "sweep": sweep, "trial": trial, "state": "running"}
        run = self._run(name or trial, clause, {**all_tags, "mlflow.parentRunId": parent}, settings)
        if settings_file:
            self.log_settings(run.info.run_id, settings)
        return run.info.run_id

    def log_settings(self, run_id: str, settings: Mapping[str, object]) -> None:
        """Settings in full, as the artifact `settings.yaml`, in place of an earlier one."""
        values = json.loads(json.dumps(settings, default=json_value))
        text = yaml.safe_dump(values, allow_unicode=True, sort_keys=False)
        with self._call(FOLDER_S):
            self._client.log_text(run_id, text, SETTINGS_FILE)

    def reopen(self, run_id: str) -> None:
        """Running again, after a resume or a pause."""
        self.set_status(run_id, "running")
        self.set_tags(run_id, {"state": "running", "reason": ""})

    def log(self, run_id: str, rows: Sequence[MetricsRow], tags: Mapping[str, str] | None = None) -> None:
        """Log metrics and set tags, in one call up to `BATCH` metrics; the same rows again change nothing.

        A row is never torn: of each either all is stored or nothing, and no row before those that go before it.

        NaN and infinity are left out and counted in the metric `nonfinite` and named in the tag `nonfinite`: MLflow
        stores infinity as 1.8e308, which flattens every chart it is in, and its JSON for the charts then holds a bare
        NaN, which browsers refuse.
        """
        batches: list[list[Metric]] = [[]]
        words = ""
        for row in rows:
            metrics, bad = metrics_of(row)
            words = bad or words
            if len(batches[-1]) + len(metrics) > BATCH:
                batches.append([])
            batches[-1] += metrics
        new_tags = run_tags({**(tags or {}), **({NONFINITE: words} if words else {})})
        for metrics in batches[:-1]:
            with self._call():
                self._client.log_batch(run_id, metrics=metrics, synchronous=True)
        with self._call():
            self._client.log_batch(run_id, metrics=batches[-1], tags=new_tags, synchronous=True)

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
        self.set_tags(run_id, {"mlflow.loggedArtifacts": json.dumps([{"path": SAMPLES_FILE, "type": "table"}])})

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags, over earlier values."""
        with self._call():
            self._client.log_batch(run_id, tags=run_tags(tags), synchronous=True)

    def set_status(self, run_id: str, state: TrialState | SweepState, ended_s: float | None = None) -> None:
        """Set MLflow's status and no tag; `ended_s` as in `end_trial`."""
        # Not set_terminated and update_run: the first prints to stdout, neither can take an end time back. An end
        # time of 0 is what MLflow's own protocol and UI read as "none".
        status = STATUS[state]
        end_ms = int((ended_s or time.time()) * 1000) if status in _ENDED else 0
        with self._call():
            self._client._tracking_client.store.update_run_info(run_id, RunStatus.from_string(status), end_ms, None)

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

    def log_dataset(self, run_id: str, name: str, digest: str, source: str, profile: str) -> None:
        """Log a run's dataset as an MLflow input; logging it again changes nothing.

        Args:
            digest: of its content, cut to MLflow's 36 characters. profile: hours and counts of its splits, as JSON.
        """
        dataset = Dataset(name, digest[:36], "local", source, profile=profile)
        with self._call():
            self._client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "train")])])

    def save_view(self, key: str, name: str, state: Mapping[str, object]) -> None:
        """List a view of the experiment's runs in the UI's menu, in place of an earlier one; `view_url` opens it."""
        with self._call():
            self._client.set_experiment_tag(self.experiment_id, *view_tag(key, name, state))

    # -- inside -------------------------------------------------------------------------------------------------

    def _run(self, name: str, clause: str, tags: Mapping[str, str], params: Mapping[str, object]) -> Run:
        """The run that `clause` finds, opened again, or a new one; with all params that it lacks."""
        run: Run | None = None
        if clause:
            with self._call():
                run = next(iter(self._client.search_runs([self.experiment_id], clause, max_results=1)), None)
        if run is None:
            with suppress(OSError, KeyError):  # a container's user may have no name
                tags = {"mlflow.user": getpass.getuser(), **tags}
            with self._call(retries=0):  # a second try would make a second run where only the answer was lost
                run = self._client.create_run(self.experiment_id, tags=cut_tags(tags), run_name=name)
        else:
            self.set_status(run.info.run_id, "running")
            self.set_tags(run.info.run_id, tags)
        known = run.data.params  # these can't change, and stay
        lacking = [Param(key, value) for key, value in params_of(params).items() if key not in known]
        with self._call():
            self._client.log_batch(run.info.run_id, params=lacking, synchronous=True)
        return run

    def _end(
        self,
        run_id: str,
        state: TrialState | SweepState,
        tags: Mapping[str, str],
        metrics: Mapping[str, float],
        step: int = 0,
        ended_s: float | None = None,
    ) -> None:
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self.log(run_id, [MetricsRow(step, int((ended_s or time.time()) * 1000), finite)], tags)
        self.set_status(run_id, state, ended_s)


def ask(uri: str) -> float:
    """Ask a server for one experiment, as us, and say how many seconds its answer took.

    Raises:
        UserError: it does not answer soon, or refuses us.
    """
    began_s = time.monotonic()
    try:
        with environment(http_limits(PROBE_S, retries=0), override=True):
            MlflowClient(uri).search_experiments(max_results=1)
    except Exception as fault:
        raise unusable(fault, uri, None) from fault
    return time.monotonic() - began_s


def _open_database(uri: str) -> None:
    """Have MLflow open a database, which makes its tables where they are missing, and let go of it."""
    MlflowClient(uri)._tracking_client.store.engine.dispose()
