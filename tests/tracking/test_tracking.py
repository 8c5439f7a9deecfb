"""The MLflow room against a real SQLite file and a real `mlflow server`, read back by a client of its own."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient

from hausa_asr.errors import UserError
from hausa_asr.tracking import reader as tracking_reading
from hausa_asr.tracking import tracker as tracking
from hausa_asr.tracking.tracker import MetricsRow, Sample, Tracker
from helpers.tracked import SETTINGS, started

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")  # MLflow's own


def test_a_sweep_is_a_parent_run_with_child_runs(tracker: Tracker) -> None:
    parent, child = started(tracker)
    other = MlflowClient(tracker.uri)
    parent_run, run = other.get_run(parent), other.get_run(child)
    assert parent_run.info.run_name == "first"
    assert parent_run.data.params == {"metric": "wer"}
    assert parent_run.data.tags["version"] == "0.1.0"
    assert run.info.run_name == "t1"
    assert run.info.status == "RUNNING"
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.tags["slot"] == "0"
    assert run.data.params == {
        "peak_lr": "5e-05",
        "schedule.kind": "linear",
        "schedule.warmup_steps": "1000",
        "layers": "[1, 2]",
        "lm": "None",
    }


def test_metrics_come_back_with_their_steps_and_times(tracker: Tracker) -> None:
    _, child = started(tracker)
    rows = [
        MetricsRow(20 * k, 1_700_000_000_000 + k, {"loss": 5.0 / (k + 1), "wer": np.float64(1.0)}) for k in range(3)
    ]
    tracker.log(child, rows)
    tracker.log(child, rows)
    history = MlflowClient(tracker.uri).get_metric_history(child, "loss")
    assert [(point.step, point.timestamp, point.value) for point in history] == [
        (0, 1_700_000_000_000, 5.0),
        (20, 1_700_000_000_001, 2.5),
        (40, 1_700_000_000_002, 5.0 / 3),
    ]


def test_a_curve_comes_back_with_each_step_once_and_rising(tracker: Tracker) -> None:
    _, child = started(tracker)
    tracker.log(
        child, [MetricsRow(40, 4, {"loss": 2.0, "wer": 1.0}), MetricsRow(20, 2, {"loss": 3.0})], {"note": "both"}
    )
    tracker.log(child, [MetricsRow(40, 5, {"loss": 1.5})])
    assert tracker.history(child, ["loss", "wer", "cer"]) == {
        "loss": [(20, 3.0), (40, 1.5)],
        "wer": [(40, 1.0)],
        "cer": [],
    }
    [trial] = tracker.trials()
    assert (trial.status, trial.tags["note"], trial.metrics["loss"]) == ("RUNNING", "both", 1.5)


def test_a_sweep_whose_first_call_lost_its_answer_is_not_begun_twice(tracker: Tracker) -> None:
    first = tracker.start_sweep("twice", {"a": 1}, {}, key="twice 1")
    tracker.end_sweep(first, "stopped", {}, {})
    assert tracker.start_sweep("twice", {"a": 1}, {}, key="twice 1") == first
    assert tracker.start_sweep("twice", {"a": 1}, {}, key="twice 2") != first
    assert [run.status for run in tracker.sweeps()] == ["RUNNING", "RUNNING"]


def test_more_metrics_than_one_batch_holds(tracker: Tracker) -> None:
    _, child = started(tracker)
    tracker.log(child, [MetricsRow(step, step, {"loss": float(step), "lr": 0.1, "cer": 0.5}) for step in range(700)])
    assert len(MlflowClient(tracker.uri).get_metric_history(child, "cer")) == 700
    assert tracker.last_step(child) == 699


def test_values_that_are_not_finite_are_counted_instead(tracker: Tracker) -> None:
    _, child = started(tracker)
    tracker.log(
        child,
        [MetricsRow(10, 1, {"loss": 3.0}), MetricsRow(20, 2, {"loss": math.nan, "grad_norm": math.inf, "lr": 0.1})],
    )
    run = MlflowClient(tracker.uri).get_run(child)
    assert run.data.metrics == {"loss": 3.0, "lr": 0.1, "nonfinite": 2.0}
    assert run.data.tags["nonfinite"] == "loss=nan, grad_norm=inf at step 20"
    tracker.end_trial(child, "failed", "diverged", {"best_wer": math.nan, "best_loss": 3.0})
    [trial] = tracker.trials()
    assert (trial.state, trial.wer, trial.loss) == ("failed", None, 3.0)


@pytest.mark.parametrize(
    ("state", "status"),
    [("finished", "FINISHED"), ("pruned", "KILLED"), ("failed", "FAILED"), ("paused", "SCHEDULED")],
)
def test_the_end_of_a_trial(database: str, state: tracking.TrialState, status: str) -> None:
    tracker = Tracker(database, f"ends {state}")
    parent, child = started(tracker)
    for _ in range(2):
        tracker.end_trial(child, state, "rung 2: 9th of 9", {"best_wer": 0.5, "best_cer": 0.25})
    run = MlflowClient(tracker.uri).get_run(child)
    assert run.info.status == status
    assert bool(run.info.end_time) == (state != "paused")
    assert run.data.tags["reason"] == "rung 2: 9th of 9"
    [trial] = tracker.trials("first")
    assert (trial.run_id, trial.parent, trial.sweep, trial.trial) == (child, parent, "first", "t1")
    assert (trial.state, trial.wer, trial.cer, trial.loss) == (state, 0.5, 0.25, None)


def test_a_resumed_trial_goes_on_in_its_run(tracker: Tracker) -> None:
    parent, child = started(tracker)
    assert tracker.last_step(child) == -1
    tracker.log(child, [MetricsRow(120, 1, {"loss": 2.0, "lr": 0.1})])
    tracker.end_trial(child, "paused", "waits at rung 1", {})
    tracker.end_trial(child, "failed", "worker lost", {"best_wer": 0.9})
    tracker.reopen(child)
    run = MlflowClient(tracker.uri).get_run(child)
    assert (run.info.status, run.data.tags["state"], run.data.tags["reason"]) == ("RUNNING", "running", "")
    assert not run.info.end_time
    assert tracker.last_step(child) == 120
    assert tracker.last_step(child, "grad_norm") == -1
    tracker.log(child, [MetricsRow(240, 2, {"loss": 1.0})])
    tracker.end_trial(child, "finished", "", {"best_wer": 0.7})
    assert [(trial.run_id, trial.wer) for trial in tracker.trials(parent)] == [(child, 0.7)]


def test_a_trial_started_again_is_the_same_run(tracker: Tracker) -> None:
    parent, child = started(tracker)
    tracker.end_trial(child, "failed", "", {})
    again = tracker.start_trial(parent, "first", "t1", {**SETTINGS, "peak_lr": 1e-4, "new": 1}, {})
    assert again == child
    run = MlflowClient(tracker.uri).get_run(child)
    assert run.info.status == "RUNNING"
    assert (run.data.params["peak_lr"], run.data.params["new"]) == ("5e-05", "1")
    assert tracker.start_trial(parent, "first", "t2", {}, {}) != child


def test_long_and_odd_names_and_values_are_kept_within_limits(tracker: Tracker, tmp_path: Path) -> None:
    parent = tracker.start_sweep("s", {}, {"note": "n" * 20_000})
    settings = {"long": "x" * 20_000, "mask[0]=ɗ?": "y", "k" * 400: 1, "many": {f"p{k}": k for k in range(250)}}
    child = tracker.start_trial(parent, "s", "it's", settings, {"tag": "é" * 20_000})
    params = MlflowClient(tracker.uri).get_run(child).data.params
    assert len(params) == 253
    assert params["long"].startswith("xxx") and len(params["long"]) == 6000
    assert params["mask_0__ɗ_"] == "y"
    assert tracker.start_trial(parent, "s", "it's", settings, {}) == child
    downloaded = tracker.download(child, "settings.yaml", tmp_path)
    assert downloaded is not None and yaml.safe_load(downloaded.read_text())["long"] == "x" * 20_000


def test_settings_are_kept_in_full_as_a_file(tracker: Tracker, tmp_path: Path) -> None:
    _, child = started(tracker)
    downloaded = tracker.download(child, "settings.yaml", tmp_path)
    assert downloaded == tmp_path / "settings.yaml"
    assert yaml.safe_load(downloaded.read_text()) == {**SETTINGS, "schedule": {"kind": "linear", "warmup_steps": 1000}}


def test_samples_are_a_table_that_is_replaced(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    # load_table searches where the process's default points, whatever URI its client was given.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.uri)
    _, child = started(tracker)
    tracker.log_samples(child, [Sample("a", "ɗaya", "daya", 1.0), Sample("b", "biyu", "biyu", 0.0)])
    tracker.log_samples(child, [Sample("c", "", "uku", math.nan), Sample("d", "huɗu 'yan", "huɗu", 0.5)])
    table = MlflowClient(tracker.uri).load_table(tracker.experiment_id, "samples.json", run_ids=[child])
    assert list(table.columns) == ["id", "reference", "hypothesis", "wer"]
    assert table["id"].tolist() == ["c", "d"]
    assert table["reference"].tolist() == ["", "huɗu 'yan"]
    assert math.isnan(table["wer"][0]) and table["wer"][1] == 0.5


def test_a_folder_goes_there_and_back(tracker: Tracker, tmp_path: Path) -> None:
    _, child = started(tracker)
    folder = tmp_path / "step-000120"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "model.safetensors").write_bytes(bytes(range(256)) * 4000)
    tracker.log_folder(child, folder, "model/best")
    tracker.log_folder(child, folder, "model/best")
    back = tracker.download(child, "model/best", tmp_path / "back")
    assert back is not None
    assert sorted(str(path.relative_to(back)) for path in back.rglob("*.*")) == ["config.json", "sub/model.safetensors"]
    assert (back / "sub" / "model.safetensors").read_bytes() == bytes(range(256)) * 4000
    one = tracker.download(child, "model/best/config.json", tmp_path / "one")
    assert one is not None and one.read_text() == "{}"
    for absent in ("model/worst", "nothing/at/all", "model/best/config.json/x"):
        assert tracker.download(child, absent, tmp_path / "none") is None
    with pytest.raises(FileNotFoundError):
        tracker.log_folder(child, tmp_path / "missing", "model")


def test_sweeps_and_their_trials_are_found_again(tracker: Tracker) -> None:
    older, first = started(tracker, "a")
    time.sleep(0.01)
    newer, second = started(tracker, "b")
    third = tracker.start_trial(newer, "first", "c", {}, {})
    tracker.set_tags(newer, {"note": "again"})
    tracker.end_sweep(newer, "stopped", {"trials": "2"}, {"best_wer": 0.4, "spread": math.nan})
    reader = Tracker.open(tracker.uri, tracker.experiment)
    sweeps = reader.sweeps()
    assert [(run.run_id, run.name, run.status) for run in sweeps] == [
        (newer, "first", "KILLED"),
        (older, "first", "RUNNING"),
    ]
    assert sweeps[0].metrics == {"best_wer": 0.4}
    assert sweeps[0].tags.items() >= {"note": "again", "trials": "2", "state": "stopped"}.items()
    assert [trial.run_id for trial in reader.trials()] == [first, second, third]
    assert [trial.trial for trial in reader.trials("first")] == ["b", "c"]
    assert [trial.run_id for trial in reader.trials(older)] == [first]
    assert reader.trials(older)[0].params["peak_lr"] == "5e-05"
    with pytest.raises(UserError, match=r"no sweep 'second'(.|\n)*first"):
        reader.trials("second")


def test_a_search_reads_every_page(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_reading, "PAGE", 7)
    tracker = Tracker(database, "pages")
    parent = tracker.start_sweep("pages", {}, {})
    client = MlflowClient(tracker.uri)
    for number in range(21):
        tags = {"kind": "trial", "trial": str(number), "mlflow.parentRunId": parent}
        client.create_run(tracker.experiment_id, tags=tags)
    assert sorted(int(trial.trial) for trial in tracker.trials("pages")) == list(range(21))
