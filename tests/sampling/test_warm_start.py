"""What earlier sweeps teach: read from their ledgers or from MLflow, ranked within their source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hausa_asr.errors import UserError
from hausa_asr.settings.load import load
from hausa_asr.settings.sweep import SweepConfig
from hausa_asr.tracking.tracker import MetricsRow, Tracker
from helpers.events import report
from helpers.searches import made, proposed
from helpers.spaces import CONDITIONAL, DEMO
from sweeps.record.ledger import Ledger
from sweeps.record.trial import DIVERGED
from sweeps.sampling.lessons import FINISHED_VARIANCE, STOPPED_VARIANCE, lessons, most_telling
from sweeps.sampling.space import parameters
from sweeps.sampling.study import Study
from sweeps.sampling.warm_start import earlier


def an_earlier_sweep(config: SweepConfig, name: str, fingerprint: str = "f") -> Ledger:
    ledger = Ledger(made(Path(config.storage) / name))
    ledger.append("sweep", name=name, fingerprint=fingerprint, prepared="")
    study = Study(config)
    for number, (state, rate) in enumerate((("finished", 3e-4), ("pruned", 1e-4), ("failed", 2e-4), ("finished", 9.0))):
        settings = {"freeze_transformer_fraction": 0.5, "unfreeze": "all", "lr_peak": rate, "hidden_dropout": 0.3}
        trial = proposed(ledger, study, settings)
        ledger.append("reported", trial=trial.id, **report(10, 0.2 + number / 10, 1.0 + number))
        ledger.append("ended", trial=trial.id, state=state, reason="")
    return ledger


def test_a_warm_start_takes_earlier_trials_with_their_values_as_far_as_the_space_knows_them(tmp_path: Path) -> None:
    changes = [
        *CONDITIONAL,
        f"storage={tmp_path}",
        "search.warm_start=[before]",
        f"mlflow.uri=sqlite:///{tmp_path}/m.db",
    ]
    config = load(None, changes, environment={})
    an_earlier_sweep(config, "before", "other data")
    warm = earlier(config, "now", "f")
    found, notes = warm.trials, warm.notes
    # By WER, then the one that was stopped; the crashed one teaches nothing.
    assert [(one.settings["lr_peak"], one.variance) for one in found] == [
        (3e-4, FINISHED_VARIANCE), (9.0, FINISHED_VARIANCE), (1e-4, STOPPED_VARIANCE),
    ]  # fmt: skip
    assert [round(one.standing, 2) for one in found] == [-0.97, 0.0, 0.97]
    told = [parameters(config.space, one.settings)[0] for one in found]
    assert told[0] == {"freeze_transformer_fraction": 0.5, "unfreeze": "all", "lr_peak": 3e-4}
    assert "lr_peak" not in told[1], "outside the new range"
    assert "3 of 4 trials of before; 4 were scored on other data" in notes[0]
    study = Study(config, found)
    assert [trial.value for trial in study.trials] == [one.mean for one in found]
    assert study.propose(0) is not None
    with pytest.raises(UserError, match="before"):
        earlier(load(None, [*changes, "search.warm_start=[nowhere]"], environment={}), "now", "f")


def test_a_warm_start_from_an_mlflow_experiment(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/m.db"
    changes = [*CONDITIONAL, f"storage={tmp_path}", "search.warm_start=['mlflow:before']", f"mlflow.uri={uri}"]
    config = load(None, changes, environment={})
    tracker = Tracker(uri, "before")
    parent = tracker.start_sweep("s", {}, {})
    recipe = {"freeze_transformer_fraction": 0.25, "lr_peak": 2e-4, "unfreeze": "top_down", "seed": 3}
    for name, state in (("t000", "finished"), ("t001", "pruned")):
        run = tracker.start_trial(parent, "s", name, recipe, {"source": "search"})
        tracker.log(run, [MetricsRow(10, 0, {"wer": 0.3, "cer": 0.1, "loss": 0.7, "seen_s": 100.0})])
        tracker.end_trial(run, state, "", {"best_wer": 0.25, "best_cer": 0.1, "best_loss": 0.6})
    again = tracker.start_trial(parent, "s", "t000-s1", recipe, {"source": "finalist", "finalist_of": "t000"})
    tracker.end_trial(again, "finished", "", {"best_wer": 0.2, "best_cer": 0.1, "best_loss": 0.6})
    warm = earlier(config, "now", "f")
    found = warm.trials
    assert "2 of 2 trials" in warm.notes[0], "a finalist is no trial"
    assert [one.variance for one in found] == [FINISHED_VARIANCE, STOPPED_VARIANCE]
    assert {name: found[0].settings[name] for name in recipe} == recipe
    assert earlier(config, "s", "f").trials == [], "a sweep does not learn from itself"


def test_what_an_earlier_sweep_had_in_its_fixed_recipe_is_known(tmp_path: Path) -> None:
    changes = [*CONDITIONAL, f"storage={tmp_path}", "search.warm_start=[before]"]
    config = load(None, changes, environment={})
    an_earlier_sweep(config, "before")
    before = load(None, [*changes, "finetune.mask_time_length=7"], environment={})
    (tmp_path / "before" / "sweep.yaml").write_text(before.to_yaml(), encoding="utf-8")
    found = earlier(config, "now", "f").trials
    assert {one.settings["mask_time_length"] for one in found} == {7}


def test_stopped_trials_rank_by_how_far_they_came_then_by_loss_and_diverged_ones_last(tmp_path: Path) -> None:
    config, ledger = load(DEMO), Ledger(tmp_path)
    study = Study(config)
    ends = [(30, 2.0, "pruned", ""), (30, 1.0, "pruned", ""), (60, 3.0, "pruned", ""), (10, 9.0, "failed", DIVERGED),
            (90, 5.0, "finished", ""), (20, 1.0, "failed", "CUDA out of memory")]  # fmt: skip
    for number, (step, loss, state, reason) in enumerate(ends):
        trial = proposed(ledger, study, {"lr_peak": 1e-3 * (number + 1)})
        ledger.append("reported", trial=trial.id, **report(step, 1.0, loss))
        ledger.append("ended", trial=trial.id, state=state, reason=reason)
    found = lessons(config, ledger.state.searched)
    assert [round(one.settings["lr_peak"] * 1e3) for one in found] == [5, 3, 2, 1, 4]
    assert sum(one.standing for one in found) == pytest.approx(0, abs=1e-9)
    few = most_telling(found, 3)
    assert [round(one.settings["lr_peak"] * 1e3) for one in few] == [5, 3, 4]


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_an_earlier_sweep_leads_the_first_proposals(tmp_path: Path, sampler: str) -> None:
    config = load(DEMO, [f"search.sampler={sampler}", "search.random_trials=4"])
    ledger, study = Ledger(tmp_path), Study(config)
    rng = np.random.default_rng(0)
    for _ in range(30):
        trial = proposed(ledger, study, {"lr_peak": float(3e-4 * (1e-2 / 3e-4) ** rng.random())})
        wer = 0.2 + abs(np.log10(trial.settings["lr_peak"] / 8e-3))
        ledger.append("reported", trial=trial.id, **report(100, wer, wer))
        ledger.append("ended", trial=trial.id, state="finished", reason="")
    new = Study(config, lessons(config, ledger.state.searched))
    rates = []
    for number in range(5):
        settings = new.propose(number)
        assert settings is not None
        rates.append(settings["lr_peak"])
    assert np.median(rates) > 4e-3, "a draw at random has its median at 1.7e-3"
