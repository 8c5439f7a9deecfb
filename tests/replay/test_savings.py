"""A finished sweep in a real MLflow database, replayed with pruning."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hausa_asr.errors import UserError
from hausa_asr.tracking.tracker import MetricsRow, Tracker
from helpers.curves import RECIPE, crossing, options
from sweeps.replay.__main__ import app
from sweeps.replay.compare import Setup
from sweeps.replay.curves import Curve, of_sweep
from sweeps.replay.savings import in_words, savings

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")  # MLflow's own


def logged(uri: str, curves: list[Curve], states: list[str]) -> None:
    """A sweep in MLflow, as one that has run leaves it."""
    tracker = Tracker(uri, "mine")
    parent = tracker.start_sweep("my_sweep", {}, {})
    for one, state in zip(curves, states, strict=True):
        run_id = tracker.start_trial(parent, "my_sweep", one.name, RECIPE, {"source": one.source})
        rows = []
        for step, point in enumerate(one.points, start=1):
            figures = {"loss": point.loss, "wer": point.wer, "cer": point.cer, "seen_s": point.seen_s}
            rows.append(MetricsRow(step, 1000 * step, {**figures, "audio_s_per_s": 25.0, "eval_runtime_s": 1.0}))
        tracker.log(run_id, rows)
        tracker.end_trial(run_id, state, "", {})  # type: ignore[arg-type]
    tracker.end_sweep(parent, "finished", {}, {})


def test_a_finished_sweep_shows_what_pruning_would_have_saved(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    curves = [replace(one, name=f"t{n:03d}") for n, one in enumerate(reversed(crossing()))]
    logged(uri, curves, ["finished"] * 7 + ["pruned"])
    complete, left_out = of_sweep(Tracker.open(uri, "mine"), "my_sweep")
    assert [one.name for one in complete] == [f"t{n:03d}" for n in range(7)] and left_out == {"pruned": 1}
    assert complete[0].train_s == pytest.approx(curves[0].train_s) and complete[0].points == curves[0].points
    saved = savings(complete, options(rank_by="loss", finish_share=0.4).pruning, workers=1, setup=Setup(50))
    # The best came first. Each after it lost at the first rung, and three more went on as the cohort grew.
    assert saved.winner == "t000" and saved.kept and saved.stopped == 3
    assert (saved.as_run_s, saved.with_rule_s) == pytest.approx((7 * 44, 4 * 44 + 3 * 11))
    assert saved.kept_share.mean == 1.0 and saved.with_rule_share.high < 1
    files = ["--json", str(tmp_path / "out.json"), "--sweep", "my_sweep", "--uri", uri, "--experiment", "mine"]
    done = CliRunner().invoke(app, [*files, "--replays", "20"])
    assert done.exit_code == 0, done.output
    assert "7 trials" in done.output and "1 pruned" in done.output and "kept" in done.output
    assert "a pruned trial might have won" in done.output
    assert json.loads((tmp_path / "out.json").read_text())["winner"] == "t000"


def test_a_replay_of_the_trials_that_are_left_is_not_called_the_sweep_as_it_ran() -> None:
    curves = [replace(one, name=f"t{n:03d}") for n, one in enumerate(reversed(crossing()))]
    saved = savings(curves, options(rank_by="loss").pruning, workers=1, setup=Setup(20))
    whole, rest, crashed = (in_words("s", saved, left_out, 1) for left_out in ({}, {"pruned": 3}, {"failed": 1}))
    assert "as run" in whole and "might have won" not in whole and "left out" not in whole
    assert "as run" not in rest and "without pruning" in rest and "a pruned trial might have won" in rest
    assert "without pruning" in crashed and "might have won" not in crashed


def test_too_few_finished_trials_are_refused(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    curves = [replace(one, name=f"t{n:03d}") for n, one in enumerate(crossing())]
    logged(uri, curves, ["finished"] * 4 + ["pruned"] * 4)
    with pytest.raises(UserError, match="4 of 8 trials"):
        of_sweep(Tracker.open(uri, "mine"), "my_sweep")
